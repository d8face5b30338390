//! Which examples make which batch, and in which order: a pure function of the seed and the epoch.
//!
//! Every batch has examples of one task. Shuffled, the examples of each task are dealt anew into batches every epoch
//! and all batches are shuffled together: a task is drawn in proportion to its size (MT-DNN's Algorithm 1; the
//! toolkit itself froze the composition of its batches).

use super::Dataset;
use crate::rng::Stream;

/// How batches are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchOptions {
    /// Examples in a batch, at most.
    pub batch_size: usize,
    /// Tokens in a batch, at most (a single longer example makes a batch of its own).
    pub batch_tokens: Option<usize>,
    /// Off: rows in file order, tasks in turn, one batch each, until each is used up.
    pub shuffle: bool,
    /// The seed of the run.
    pub seed: u64,
}

/// One batch of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Index of the task.
    pub task: usize,
    /// Indices of its examples.
    pub examples: Vec<u32>,
}

/// Keeps the streams of the sampler apart from those of dropout.
const SAMPLER: u64 = 0x5a4d_504c_4552_0000;

/// The batches of one epoch.
pub fn epoch_plan(datasets: &[&Dataset], options: BatchOptions, epoch: u64) -> Vec<BatchPlan> {
    let stream = |instance: u32| Stream { seed: options.seed ^ SAMPLER, step: epoch, instance };
    let mut tasks: Vec<Vec<BatchPlan>> = Vec::new();
    for (task, dataset) in datasets.iter().enumerate() {
        let mut order: Vec<u32> = (0..dataset.len() as u32).collect();
        if options.shuffle {
            stream(1 + task as u32).shuffle(&mut order);
        }
        tasks.push(cut(dataset, &order, options).into_iter().map(|examples| BatchPlan { task, examples }).collect());
    }
    if options.shuffle {
        let mut all: Vec<BatchPlan> = tasks.into_iter().flatten().collect();
        stream(0).shuffle(&mut all);
        return all;
    }
    let rounds = tasks.iter().map(Vec::len).max().unwrap_or(0);
    (0..rounds).flat_map(|round| tasks.iter().filter_map(move |batches| batches.get(round).cloned())).collect()
}

/// Cuts an order into consecutive batches; the last one may be short.
fn cut(dataset: &Dataset, order: &[u32], options: BatchOptions) -> Vec<Vec<u32>> {
    let mut batches: Vec<Vec<u32>> = Vec::new();
    let (mut batch, mut tokens): (Vec<u32>, usize) = (Vec::new(), 0);
    for example in order {
        let length = dataset.length(*example as usize);
        let too_long = options.batch_tokens.is_some_and(|limit| tokens + length > limit);
        if !batch.is_empty() && (batch.len() >= options.batch_size || too_long) {
            batches.push(std::mem::take(&mut batch));
            tokens = 0;
        }
        batch.push(*example);
        tokens += length;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}
