//! The losses of a batch against its teachers, on the tape.

use std::sync::Arc;

use super::options::{DistillationOptions, LayerMap};
use super::teaching::Lesson;
use crate::error::{Error, Result};
use crate::losses::{self, SoftLoss};
use crate::model::MultiTaskModel;
use crate::nn::States;
use crate::ops;
use crate::tape::{ParamId, Params, Tape, Var};
use crate::tasks::Label;
use crate::train::data::TrainingData;

/// What a batch is trained towards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Targets<'a> {
    /// One label an example; None: the batch has none.
    pub labels: Option<&'a [Label]>,
    /// What teachers say of it.
    pub lesson: Option<&'a Lesson>,
}

impl<'a> Targets<'a> {
    /// Labels alone.
    pub fn labels(labels: &'a [Label]) -> Targets<'a> {
        Targets { labels: Some(labels), lesson: None }
    }
}

/// A loss against teachers, on the tape.
#[derive(Clone, Copy, Debug)]
pub struct Taught {
    /// Its name in the log.
    pub name: &'static str,
    /// One number, before its factor.
    pub value: Var,
    /// What it is multiplied by to be reported: several of one name are added up.
    pub share: f32,
    /// The factor of what is reported in the loss of the batch.
    pub factor: f32,
}

/// What of a student is compared with its teachers, ready for the step.
#[derive(Clone, Debug)]
pub struct Matching {
    options: DistillationOptions,
    /// The student's layer of each pair, and the matrix that its states go through.
    pairs: Vec<(usize, Option<ParamId>)>,
    /// The student's layer whose relations are compared, and the number of relation heads.
    relations: Option<(usize, usize)>,
}

/// Relation heads, at most, where none are given: MiniLM's.
const RELATION_HEADS: usize = 12;

impl DistillationOptions {
    /// The same with layers by their numbers, and relation heads by theirs, for a student and a teacher.
    ///
    /// # Errors
    /// Layers that one of them does not have; a number of relation heads that does not divide both widths.
    pub fn resolved(&self, student: &MultiTaskModel, teacher: &MultiTaskModel) -> Result<DistillationOptions> {
        let [own, other] = [student, teacher].map(|model| (model.encoder().net().layers(), model.encoder().width()));
        let mut options = self.clone();
        if self.hidden_weight > 0.0 {
            options.layers = LayerMap::Pairs(self.layers.pairs("--layer-map", own.0, other.0)?);
        }
        if self.relation_weight > 0.0 {
            let (mine, theirs) = self.relation_layers.unwrap_or((own.0, other.0));
            for (whose, layer, layers) in [("student", mine, own.0), ("teacher", theirs, other.0)] {
                if layer == 0 || layer > layers {
                    let message = format!("layer {layer} of the {whose}; it has layers 1 to {layers}");
                    return Err(Error::argument("--relation-layers", message));
                }
            }
            options.relation_layers = Some((mine, theirs));
            let fits = |heads: &usize| own.1.is_multiple_of(*heads) && other.1.is_multiple_of(*heads);
            let heads = self.relation_heads.or_else(|| (1..=RELATION_HEADS).rev().find(fits)).filter(fits);
            options.relation_heads = Some(heads.ok_or_else(|| {
                let wanted = self.relation_heads.unwrap_or(1);
                let message = format!("{wanted} do not divide both widths, {} and {}", own.1, other.1);
                Error::argument("--relation-heads", message)
            })?);
        }
        Ok(options)
    }

    /// The layers of the teacher whose hidden states are matched, and the one whose relations are; of resolved options.
    pub fn teacher_layers(&self) -> (Vec<usize>, Option<usize>) {
        let layers = match &self.layers {
            LayerMap::Pairs(pairs) if self.hidden_weight > 0.0 => pairs.iter().map(|(_, teacher)| *teacher).collect(),
            _ => Vec::new(),
        };
        let relations = self.relation_layers.filter(|_| self.relation_weight > 0.0);
        (layers, relations.map(|(_, teacher)| teacher))
    }

    /// # Errors
    /// Weights of tasks that there are not; nobody who teaches anything; logits or states that nobody has.
    pub fn check_data(&self, model: &MultiTaskModel, data: &TrainingData) -> Result<()> {
        let names = || model.tasks().map(|task| task.name.as_str());
        self.weight.check_tasks("--soft-weight", names().collect::<Vec<_>>())?;
        self.label_weight.check_tasks("--label-weight", names().collect::<Vec<_>>())?;
        if data.tasks.iter().all(|task| task.teaching.iter().all(Option::is_none)) {
            let message = "no task has soft labels; name their column (data: columns: softlabel), or give teachers";
            return Err(Error::argument("distillation", message));
        }
        for (task, data) in names().zip(&data.tasks) {
            let logits = data.teaching.iter().flatten().all(|teaching| teaching.is_of_logits());
            self.check_logits(task, logits)?;
        }
        self.check_states(data)
    }

    /// # Errors
    /// Squared errors, and of a task there are no `logits`.
    pub fn check_logits(&self, task: &str, logits: bool) -> Result<()> {
        if self.loss != SoftLoss::Mse || logits {
            return Ok(());
        }
        let message = format!(
            "mse compares logits, and of task '{task}' there are probabilities: use kl, or of teachers give --average \
             logits, without --top-k"
        );
        Err(Error::argument("--soft-loss", message))
    }

    /// States come from teachers alone, and the matrices that they go through are the same for all tasks.
    fn check_states(&self, data: &TrainingData) -> Result<()> {
        let matched = [("--hidden-weight", self.hidden_weight), ("--relation-weight", self.relation_weight)];
        let Some((flag, _)) = matched.into_iter().find(|(_, weight)| *weight > 0.0) else { return Ok(()) };
        let (layers, projected) = self.teacher_layers();
        let mut widths = data.tasks.iter().flat_map(|task| &task.teaching).flatten().map(|teaching| teaching.width());
        let first = widths.next();
        if widths.any(|width| Some(width) != first) {
            let message = "the tasks' first teachers are of different widths; give teachers of one width, or 0";
            return Err(Error::argument(flag, message));
        }
        let mut all = data.tasks.iter().flat_map(|task| &task.teaching).flatten();
        if !all.all(|teaching| teaching.shows(layers.len(), projected.is_some())) {
            let message = "soft labels in files have no states; give teachers (manyhead distill), or 0";
            return Err(Error::argument(flag, message));
        }
        Ok(())
    }

    /// Adds the matrices that hidden states of another width go through, `width` the teacher's.
    ///
    /// # Errors
    /// The memory.
    pub fn add_projections(&self, model: &mut MultiTaskModel, width: usize, seed: u64) -> Result<()> {
        let own = model.encoder().width();
        let LayerMap::Pairs(pairs) = &self.layers else { return Ok(()) };
        if self.hidden_weight == 0.0 || width == own || width == 0 {
            return Ok(());
        }
        for place in 0..pairs.len() {
            model.add_projection(&projection_name(place, pairs.len()), width, own, seed)?;
        }
        Ok(())
    }
}

fn projection_name(place: usize, pairs: usize) -> String {
    if pairs == 1 { "projection".into() } else { format!("projection.{place}") }
}

impl Matching {
    /// Of resolved options, for a student whose arena has what [`DistillationOptions::add_projections`] adds.
    ///
    /// # Errors
    /// Options that are not resolved.
    pub fn new(options: &DistillationOptions, params: &Params) -> Result<Matching> {
        options.validate()?;
        let mut pairs = Vec::new();
        let mut relations = None;
        if options.hidden_weight > 0.0 {
            let LayerMap::Pairs(all) = &options.layers else {
                let message = "hidden states are those of teachers (manyhead distill), by a --layer-map that is resolved with \
                               them; soft labels in files have none: give 0";
                return Err(Error::argument("--hidden-weight", message));
            };
            for (place, (student, _)) in all.iter().enumerate() {
                let name = format!("distill.{}.weight", projection_name(place, all.len()));
                pairs.push((*student, params.find(&name)));
            }
        }
        if options.relation_weight > 0.0 {
            let (Some((student, _)), Some(heads)) = (options.relation_layers, options.relation_heads) else {
                let message = "relations are matched with those of a teacher (--teacher)";
                return Err(Error::argument("--relation-weight", message));
            };
            relations = Some((student, heads));
        }
        Ok(Matching { options: options.clone(), pairs, relations })
    }

    /// The options.
    pub fn options(&self) -> &DistillationOptions {
        &self.options
    }

    /// What the student's encoder is asked for.
    pub fn states(&self) -> States {
        let layers: Vec<usize> = self.pairs.iter().map(|(layer, _)| *layer).collect();
        States::of(&layers, self.relations.map(|(layer, _)| layer))
    }

    /// Whether anything but outputs is compared.
    pub fn matches_states(&self) -> bool {
        !self.pairs.is_empty() || self.relations.is_some()
    }

    /// The losses of hidden states and relations, their factors times `share`.
    ///
    /// # Errors
    /// A lesson with other states than these; shapes that do not fit.
    pub fn losses(
        &self,
        tape: &mut Tape<'_>,
        states: &States,
        lesson: &Lesson,
        segments: &Arc<[u32]>,
        share: f32,
    ) -> Result<Vec<Taught>> {
        let mut all = Vec::new();
        if lesson.hidden.len() != self.pairs.len() {
            let message = format!("hidden states of {} layers for {} pairs", lesson.hidden.len(), self.pairs.len());
            return Err(Error::shape("distillation", message));
        }
        let tokens = segments.last().copied().unwrap_or(0) as usize;
        let mean = 1.0 / self.pairs.len().max(1) as f32;
        for ((hidden, (_, projection)), taught) in states.hidden()?.into_iter().zip(&self.pairs).zip(&lesson.hidden) {
            let teacher = tape.leaf_from([tokens, lesson.width], taught)?;
            let value = losses::hidden_states(tape, hidden, teacher, projection.map(Var::Param))?;
            all.push(Taught { name: "distill_hidden", value, share: mean, factor: share * self.options.hidden_weight });
        }
        if let (Some((_, heads)), Some(own)) = (self.relations, states.projections()?) {
            let missing = || Error::shape("distillation", "a lesson without the teacher's queries, keys and values");
            let width = lesson.width;
            let teacher = tape.leaf_from([tokens, 3 * width], lesson.projections.as_ref().ok_or_else(missing)?)?;
            for (place, x) in own.into_iter().enumerate() {
                let columns = 0..tape.shape(x)?.width();
                let theirs = place * width..(place + 1) * width;
                let value = ops::relations(tape, x, columns, teacher, theirs, segments, heads)?;
                let factor = share * self.options.relation_weight;
                all.push(Taught { name: RELATIONS[place], value, share: 1.0, factor });
            }
        }
        Ok(all)
    }
}

/// Of queries, keys and values.
const RELATIONS: [&str; 3] = ["distill_queries", "distill_keys", "distill_values"];
