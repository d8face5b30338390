//! Which examples make which batch, and in which order: a pure function of the seed and the epoch.
//!
//! Every batch has examples of one task. Shuffled, the examples of each task are dealt anew into batches every epoch
//! (the MT-DNN toolkit froze the composition of its batches), and [`Sampling`] says how often each task comes.
//!
//! Length buckets: the shuffled examples are sorted by length within pools of `bucket · batch_size` before they are
//! cut, so that the batches of a pool differ in length and the examples of a batch hardly do. Their order is shuffled
//! afterwards. Nothing is padded here; what it evens out is the work within a batch.

use super::Dataset;
use super::sampling::Sampling;
use crate::rng::Stream;

/// How batches are made.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptions {
    /// Examples in a batch, at most.
    pub batch_size: usize,
    /// Tokens in a batch, at most (a single longer example makes a batch of its own).
    pub batch_tokens: Option<usize>,
    /// Off: rows in file order, tasks in turn, one batch each, until each is used up (or task after task, if the
    /// sampling is sequential).
    pub shuffle: bool,
    /// The seed of the run.
    pub seed: u64,
    /// How often each task comes.
    pub sampling: Sampling,
    /// The batches of the first task come after all others (`--mix-opt 1`); for proportional sampling and ratio.
    pub target_last: bool,
    /// Batches in a pool within which examples are sorted by length; 0: they are not.
    pub bucket: usize,
    /// Epochs of the run, over which the temperature changes.
    pub epochs: u64,
}

/// One batch of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Index of the task.
    pub task: usize,
    /// Indices of its examples.
    pub examples: Vec<u32>,
}

// Keep the streams of the sampler apart from those of dropout, and from each other.
const SAMPLER: u64 = 0x5a4d_504c_4552_0000;
const DRAWS: u64 = SAMPLER + 1;
const EXTRAS: u64 = SAMPLER + 2;
const BUCKETS: u64 = SAMPLER + 3;

/// The batches of one epoch.
pub fn epoch_plan(datasets: &[&Dataset], options: BatchOptions, epoch: u64) -> Vec<BatchPlan> {
    let dealer = Dealer { datasets, options: &options, epoch };
    let mut tasks: Vec<Vec<BatchPlan>> = (0..datasets.len()).map(|task| dealer.deal(task, 0)).collect();
    match &options.sampling {
        Sampling::Sequential => {
            for (task, batches) in tasks.iter_mut().enumerate().filter(|_| options.shuffle) {
                dealer.stream(EXTRAS, task as u32).shuffle(batches);
            }
            tasks.into_iter().flatten().collect()
        }
        _ if !options.shuffle => {
            let rounds = tasks.iter().map(Vec::len).max().unwrap_or(0);
            (0..rounds).flat_map(|round| tasks.iter().filter_map(move |batches| batches.get(round).cloned())).collect()
        }
        Sampling::Proportional => dealer.mixed(tasks, None),
        Sampling::Ratio(ratio) => dealer.mixed(tasks, Some(*ratio)),
        _ => dealer.drawn(tasks),
    }
}

/// What deals the batches of an epoch.
struct Dealer<'a> {
    datasets: &'a [&'a Dataset],
    options: &'a BatchOptions,
    epoch: u64,
}

impl Dealer<'_> {
    fn stream(&self, purpose: u64, instance: u32) -> Stream {
        Stream { seed: self.options.seed ^ purpose, step: self.epoch, instance }
    }

    /// The batches of a task; another deal is another shuffle.
    fn deal(&self, task: usize, deal: usize) -> Vec<BatchPlan> {
        let dataset = self.datasets[task];
        // Instance 0 is the order of all batches.
        let instance = (deal * (self.datasets.len() + 1) + 1 + task) as u32;
        let mut order: Vec<u32> = (0..dataset.len() as u32).collect();
        if self.options.shuffle {
            self.stream(SAMPLER, instance).shuffle(&mut order);
        }
        let bucketed = self.options.shuffle && self.options.bucket > 0;
        if bucketed {
            let pool = self.options.bucket.saturating_mul(self.options.batch_size).max(1);
            order.chunks_mut(pool).for_each(|pool| pool.sort_by_key(|example| dataset.length(*example as usize)));
        }
        let cut = cut(dataset, &order, self.options).into_iter();
        let mut batches: Vec<BatchPlan> = cut.map(|examples| BatchPlan { task, examples }).collect();
        if bucketed {
            self.stream(BUCKETS, instance).shuffle(&mut batches);
        }
        batches
    }

    /// Every batch once; with a ratio, that many batches of the tasks after the first.
    fn mixed(&self, tasks: Vec<Vec<BatchPlan>>, ratio: Option<f64>) -> Vec<BatchPlan> {
        let whole = self.stream(SAMPLER, 0);
        if ratio.is_none() && !self.options.target_last {
            let mut all: Vec<BatchPlan> = tasks.into_iter().flatten().collect();
            whole.shuffle(&mut all);
            return all;
        }
        let mut tasks = tasks.into_iter();
        let mut target = tasks.next().unwrap_or_default();
        let mut others: Vec<BatchPlan> = tasks.flatten().collect();
        self.stream(EXTRAS, 0).shuffle(&mut others);
        if let Some(ratio) = ratio {
            others.truncate((target.len() as f64 * ratio) as usize);
        }
        if self.options.target_last {
            whole.shuffle(&mut target);
            others.extend(target);
            return others;
        }
        target.extend(others);
        whole.shuffle(&mut target);
        target
    }

    /// As many draws of a task as there are batches.
    fn drawn(&self, tasks: Vec<Vec<BatchPlan>>) -> Vec<BatchPlan> {
        let counts: Vec<usize> = tasks.iter().map(Vec::len).collect();
        let total: usize = counts.iter().sum();
        let probabilities = self.options.sampling.probabilities(&counts, self.epoch, self.options.epochs);
        let probabilities = probabilities.unwrap_or_default();
        // Rounding can leave the sum below a number just below 1, which then falls on the last task that can come.
        let Some(last) = probabilities.iter().rposition(|p| *p > 0.0) else { return Vec::new() };
        let mut rest: Vec<_> = tasks.into_iter().map(Vec::into_iter).collect();
        let mut deals = vec![0; rest.len()];
        let draws = self.stream(DRAWS, 0);
        let mut plan = Vec::with_capacity(total);
        for draw in 0..total {
            let mut left = draws.uniform(draw);
            let task = probabilities.iter().position(|p| {
                left -= p;
                *p > 0.0 && left < 0.0
            });
            let task = task.unwrap_or(last);
            let next = rest[task].next().or_else(|| {
                deals[task] += 1;
                rest[task] = self.deal(task, deals[task]).into_iter();
                rest[task].next()
            });
            plan.extend(next);
        }
        plan
    }
}

/// Cuts an order into consecutive batches; the last one may be short.
fn cut(dataset: &Dataset, order: &[u32], options: &BatchOptions) -> Vec<Vec<u32>> {
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
