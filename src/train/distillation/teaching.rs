//! What teachers say of the batches of one data set.

use super::outputs::TeacherOutputs;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::tasks::{Outputs, TeacherValues};

/// What a batch is taught.
#[derive(Clone, Debug, Default)]
pub struct Lesson {
    /// Outputs; None: nobody has any for this batch.
    pub values: Option<TeacherValues>,
    /// The first teacher's hidden states, one matrix `[T, H_t]` a layer pair.
    pub hidden: Vec<Vec<f32>>,
    /// Its queries, keys and values, side by side in `[T, 3 H_t]`.
    pub projections: Option<Vec<f32>>,
    /// H_t; 0 without states.
    pub width: usize,
}

/// Teachers of one data set of one task, or the soft labels that its file has.
#[derive(Debug)]
pub struct Teaching {
    teachers: Vec<TeacherOutputs>,
    outputs: Outputs,
    of_logits: bool,
    /// How many matrices of hidden states the first teacher has.
    hidden: usize,
    projected: bool,
    /// The first token of each example.
    tokens: Vec<usize>,
}

impl Teaching {
    /// What the file of a data set says itself.
    ///
    /// # Errors
    /// It says nothing.
    pub fn of_file(dataset: &Dataset, outputs: Outputs) -> Result<Teaching> {
        if !dataset.has_soft_labels() {
            let message =
                "has no soft labels; name their column (data: columns: softlabel), or give teachers (--teacher)";
            return Err(Error::input(dataset.path(), None, message));
        }
        let teachers = Vec::new();
        Ok(Teaching { teachers, outputs, of_logits: false, hidden: 0, projected: false, tokens: Vec::new() })
    }

    /// Teachers whose outputs lie in folders: their probabilities are averaged, or with `of_logits` their logits. The hidden
    /// states of `hidden` layers, and with `projected` queries, keys and values, are those of the first.
    ///
    /// # Errors
    /// No teacher; states for a text that the first teacher's tokenizer cuts into other tokens.
    pub fn of_teachers(
        teachers: Vec<TeacherOutputs>,
        outputs: Outputs,
        of_logits: bool,
        (hidden, projected): (usize, bool),
        (dataset, first): (&Dataset, &Dataset),
    ) -> Result<Teaching> {
        if teachers.is_empty() {
            return Err(Error::argument("--teacher", "there is none"));
        }
        let mut tokens = Vec::new();
        if hidden > 0 || projected {
            let mut start = 0;
            for example in 0..dataset.len() {
                let (own, other) = (dataset.length(example), first.length(example));
                if own != other {
                    let message = format!(
                        "example '{}' has {own} tokens for the student, {other} for its teacher: hidden states can only be \
                         matched where both cut texts alike; give --hidden-weight 0 and --relation-weight 0, or a student \
                         with the teacher's tokenizer",
                        dataset.uid(example)
                    );
                    return Err(Error::input(dataset.path(), None, message));
                }
                tokens.push(start);
                start += own;
            }
        }
        Ok(Teaching { teachers, outputs, of_logits, hidden, projected, tokens })
    }

    /// Whether its values are logits, not the logarithms of probabilities: what [`crate::losses::SoftLoss::Mse`] needs.
    pub fn is_of_logits(&self) -> bool {
        let whole = self.teachers.iter().all(TeacherOutputs::is_of_logits);
        self.outputs == Outputs::Numbers || whole && (self.teachers.len() == 1 || self.of_logits)
    }

    /// Whether it has hidden states of so many layers, and queries, keys and values if they are wanted.
    pub fn shows(&self, hidden: usize, projected: bool) -> bool {
        self.hidden == hidden && (self.projected || !projected)
    }

    /// Width of the first teacher's hidden states; 0 without any.
    pub fn width(&self) -> usize {
        self.teachers.first().map_or(0, TeacherOutputs::width)
    }

    /// A number that changes with the teachers: a resumed run must have those it began with.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Hasher::new();
        hasher.word(u64::from(self.of_logits));
        self.teachers.iter().for_each(|teacher| {
            hasher.text(&teacher.key());
        });
        hasher.digest().low()
    }

    /// What the batch of these examples is taught.
    ///
    /// # Errors
    /// An example that does not exist.
    pub fn lesson(&self, dataset: &Dataset, examples: &[u32]) -> Result<Lesson> {
        let Some(first) = self.teachers.first() else {
            let soft = dataset.soft_labels(examples)?;
            let values = soft.map(|soft| {
                let mut values = TeacherValues::new();
                for range in soft.borders.windows(2) {
                    let own = soft.values.get(range[0] as usize..range[1] as usize).unwrap_or_default();
                    values.push(self.outputs.from_probabilities(own));
                }
                values
            });
            return Ok(Lesson { values, ..Lesson::default() });
        };
        let mut values = TeacherValues::new();
        let mut lesson = Lesson { hidden: vec![Vec::new(); self.hidden], width: first.width(), ..Lesson::default() };
        for example in examples.iter().map(|example| *example as usize) {
            let all: Vec<Vec<f32>> = self.teachers.iter().map(|teacher| teacher.values(example)).collect();
            let all: Vec<&[f32]> = all.iter().map(Vec::as_slice).filter(|values| !values.is_empty()).collect();
            values.push(self.outputs.mean(&all, self.of_logits));
            if self.hidden == 0 && !self.projected {
                continue;
            }
            let missing = || Error::input(dataset.path(), None, format!("there is no example {example}"));
            let start = *self.tokens.get(example).ok_or_else(missing)?;
            let tokens = start..start + dataset.length(example);
            for (place, states) in lesson.hidden.iter_mut().enumerate() {
                states.extend(first.states(place, tokens.clone()));
            }
            if self.projected {
                let found = first.states(self.hidden, tokens);
                lesson.projections.get_or_insert_default().extend(found);
            }
        }
        lesson.values = Some(values);
        Ok(lesson)
    }
}
