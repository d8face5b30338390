//! How a model bears a perturbation of its embedding output: the worst answer to each example that gradient ascent finds.

use super::MultiTaskModel;
use super::multi_task::{Evaluation, TaskHead, consecutive_batches};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::heads::Head;
use crate::ops::perturbation::{self, Ball, Direction};
use crate::tape::{Tape, TapeMemory, View};
use crate::tasks::{Label, Prediction, TaskBatch, TaskDef};
use crate::tensor::Shape;

/// A search for the worst perturbation of the embedding output within a ball.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attack {
    /// Where the perturbation stays.
    pub ball: Ball,
    /// K, steps of ascent.
    pub steps: usize,
}

/// Together the steps could go so many times as far as the ball's radius: its border is reached, and one can go along it
/// (projected gradient ascent; Madry, Makelov, Schmidt, Tsipras and Vladu, ICLR 2018, whose step is 2.5 ε / K along the sign
/// of the gradient).
const REACH: f32 = 2.5;

impl Attack {
    /// # Errors
    /// A radius that is not a finite number of at least 0; no step, or more than 1000.
    pub fn validate(&self) -> Result<()> {
        let radius = self.ball.radius;
        if !(radius.is_finite() && radius >= 0.0) {
            return Err(Error::argument("--epsilon", format!("{radius} is not 0 or above")));
        }
        if !(1..=1000).contains(&self.steps) {
            return Err(Error::argument("--steps", format!("{} is not from 1 to 1000", self.steps)));
        }
        Ok(())
    }
}

/// The worst outputs of a batch so far.
struct Worst {
    logits: Vec<f32>,
    shape: Shape,
    losses: Vec<f64>,
}

impl MultiTaskModel {
    /// Loss and metrics over a split whose examples are each perturbed against their label: gradient ascent on the loss from
    /// the embedding output on, K steps of 2.5 ε / K within the ball, the worst of the clean output and all steps' kept, for
    /// each example by itself. The metrics are those of `other`, another definition of the task.
    ///
    /// # Errors
    /// Options out of range; a device in int8, which has no gradients; what evaluation refuses.
    pub fn evaluate_perturbed(
        &self,
        task: usize,
        dataset: &Dataset,
        other: &TaskDef,
        attack: &Attack,
    ) -> Result<Evaluation> {
        attack.validate()?;
        self.encoder().device().precision().check_training("--perturb embedding")?;
        let def = &self.measured_by(task, other)?;
        let (mut labels, mut predictions) = (Vec::new(), Vec::new());
        let (mut total, mut counted) = (0.0f64, 0);
        let mut memories = [TapeMemory::default(), TapeMemory::default()];
        for cut in consecutive_batches(dataset) {
            let (batch, examples) = cut?;
            let gold = dataset.labels(&examples)?;
            let run = || self.attack(task, def, &batch, &gold, attack, &mut memories);
            let worst = self.encoder().device().host().run(run)?;
            let TaskHead { kind, .. } = self.head(task)?;
            for (i, loss) in worst.losses.iter().enumerate() {
                let count = kind.counted(def, &batch.example(i)?, &gold[i..i + 1]);
                total += loss * count as f64;
                counted += count;
            }
            let decoded: Vec<Prediction> = kind.decode(def, View::new(worst.shape, &worst.logits), &batch)?;
            predictions.extend(decoded);
            labels.extend(gold);
        }
        self.evaluation_of(def, task, labels, predictions, total / counted.max(1) as f64)
    }

    fn attack(
        &self,
        task: usize,
        def: &TaskDef,
        batch: &TaskBatch,
        labels: &[Label],
        attack: &Attack,
        memories: &mut [TapeMemory; 2],
    ) -> Result<Worst> {
        let TaskHead { kind, head, .. } = self.head(task)?;
        let (params, device) = (self.encoder().params(), self.encoder().device());
        let [memory, other] = memories;
        let mut tape = Tape::recording(params, device, std::mem::take(memory), None);
        let embedded = self.embed(&mut tape, &batch.packed, None)?;
        let shape = tape.shape(embedded)?;
        let (width, mut delta) = (shape.width(), tape.take(shape)?);
        delta.buffer_mut().fill(0..shape.len(), 0.0)?;
        let host = Device::Cpu(device.host().clone());
        let step = REACH * attack.ball.radius / attack.steps as f32;
        let mut worst: Option<Worst> = None;
        for number in 0..=attack.steps {
            let mark = tape.mark();
            let perturbed = tape.shifted(embedded, delta.buffer())?;
            let logits = self.logits_of(&mut tape, task, &batch.packed, perturbed)?;
            let view = tape.view(logits)?;
            // On the host: a few numbers, which are read anyway.
            let mut single = Tape::inference(params, &host, std::mem::take(other));
            for i in 0..batch.examples() {
                let rows = rows(head, batch, i);
                let at = rows.start * view.shape.width()..rows.end * view.shape.width();
                let alone = single.leaf_from([rows.len(), view.shape.width()], &view.data[at.clone()])?;
                let loss = kind.loss(def, &mut single, alone, &batch.example(i)?, &labels[i..i + 1])?;
                let loss = single.scalar(loss)? as f64;
                let worst = worst.get_or_insert_with(|| Worst {
                    logits: view.data.to_vec(),
                    shape: view.shape,
                    losses: vec![f64::NEG_INFINITY; batch.examples()],
                });
                // NaN is as bad as it gets.
                if loss > worst.losses[i] || loss.is_nan() {
                    worst.logits[at.clone()].copy_from_slice(&view.data[at]);
                    worst.losses[i] = loss;
                }
            }
            *other = single.finish();
            if number < attack.steps {
                let loss = kind.loss(def, &mut tape, logits, batch, labels)?;
                let gradient = tape.gradient(loss, &[perturbed])?;
                for gradient in gradient {
                    let segments = &batch.packed.cu_seqlens;
                    let step = (Direction::Steepest, step);
                    let (delta, g) = (delta.buffer_mut(), gradient.buffer());
                    perturbation::ascend(device, delta, g, segments, width, attack.ball, step)?;
                    tape.give(gradient);
                }
            }
            tape.rewind(mark);
        }
        tape.give(delta);
        *memory = tape.finish();
        worst.ok_or_else(|| Error::shape("perturbation", "a batch without examples"))
    }
}

/// The rows of logits of example `i`.
fn rows(head: &Head, batch: &TaskBatch, i: usize) -> std::ops::Range<usize> {
    let sequences = batch.groups[i] as usize..batch.groups[i + 1] as usize;
    match head {
        Head::Pooled(_) | Head::Embedding(_) => sequences,
        Head::Token(_) => {
            let borders = &batch.packed.cu_seqlens;
            borders[sequences.start] as usize..borders[sequences.end] as usize
        }
    }
}
