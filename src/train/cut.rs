//! The batches of a run, cut while the one before them is computed.

use std::sync::Arc;

use super::data::TaskData;
use super::distillation::{Lesson, Teaching};
use crate::data::{BatchPlan, Dataset};
use crate::error::Result;
use crate::rng::Stream;
use crate::tasks::{Label, TaskBatch};

/// A batch of the plan with what it is trained towards, and one of the task's unlabelled texts.
pub(super) struct Cut {
    pub batch: TaskBatch,
    pub labels: Option<Vec<Label>>,
    pub lesson: Option<Lesson>,
    pub unlabelled: Option<(TaskBatch, Option<Lesson>)>,
}

/// Which of a task's unlabelled texts come with a batch.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// Texts of a batch.
    pub count: usize,
    /// The seed of the run.
    pub seed: u64,
    /// Batches of the task that went before.
    pub number: u64,
}

impl Cut {
    /// The batch of a plan over the training examples of its task; with a `turn` it comes with unlabelled texts, if there are any.
    ///
    /// # Errors
    /// An example that does not exist, or that has no label where nobody teaches it.
    pub fn of(task: &TaskData, plan: &BatchPlan, turn: Option<Turn>) -> Result<Cut> {
        let (dataset, [teaching, of_unlabelled]) = (&task.train, &task.teaching);
        let texts = task.unlabelled.as_ref().filter(|texts| !texts.is_empty());
        let unlabelled = texts.zip(turn).map(|(texts, turn)| {
            let examples = turn.examples(texts.len());
            Ok((texts.batch(&examples)?, lesson_of(of_unlabelled, texts, &examples)?))
        });
        // Who is taught needs no labels.
        let labels = (teaching.is_none() || dataset.is_labelled()).then(|| dataset.labels(&plan.examples));
        Ok(Cut {
            batch: dataset.batch(&plan.examples)?,
            labels: labels.transpose()?,
            lesson: lesson_of(teaching, dataset, &plan.examples)?,
            unlabelled: unlabelled.transpose()?,
        })
    }
}

/// The lesson of some examples, if anybody teaches them.
fn lesson_of(teaching: &Option<Arc<Teaching>>, dataset: &Dataset, examples: &[u32]) -> Result<Option<Lesson>> {
    teaching.as_ref().map(|teaching| teaching.lesson(dataset, examples)).transpose()
}

impl Turn {
    /// The examples of this turn of so many texts: a few in a row of an order that is shuffled anew whenever all have had their
    /// turn. A function of the number alone: a resumed run goes on where it stood.
    fn examples(self, texts: usize) -> Vec<u32> {
        let count = self.count.min(texts).max(1);
        let rounds = texts.div_ceil(count).max(1) as u64;
        let mut order: Vec<u32> = (0..texts as u32).collect();
        Stream { seed: self.seed, step: self.number / rounds, instance: UNLABELLED_ORDER }.shuffle(&mut order);
        let start = (self.number % rounds) as usize * count;
        order.get(start..(start + count).min(texts)).unwrap_or(&order).to_vec()
    }
}

/// The instance of the streams that shuffle unlabelled texts.
const UNLABELLED_ORDER: u32 = 0x7fff_ffff;
