//! Options of distillation, with their defaults in one place.

use crate::error::{Error, Result};
use crate::losses::SoftLoss;

/// A factor on a loss, for all tasks or by task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskWeights {
    default: f32,
    tasks: Vec<(String, f32)>,
}

impl TaskWeights {
    /// The same for all tasks.
    pub fn all(weight: f32) -> TaskWeights {
        TaskWeights { default: weight, tasks: Vec::new() }
    }

    /// Reads `0.5`, `TASK=0.5,…`, or `0.5,TASK=1,…`; tasks that are not named keep `default`.
    ///
    /// # Errors
    /// What is no number of 0 or above, a task named twice; `flag` is in the message.
    pub fn parse(flag: &str, text: &str, default: f32) -> Result<TaskWeights> {
        let fail = |message: String| Err(Error::argument(flag, message));
        let mut weights = TaskWeights::all(default);
        for (place, part) in text.split(',').map(str::trim).enumerate() {
            let (task, number) =
                part.split_once('=').map_or((None, part), |(task, number)| (Some(task.trim()), number));
            let Some(weight) = number.trim().parse::<f32>().ok().filter(|w| w.is_finite() && *w >= 0.0) else {
                return fail(format!(
                    "'{part}' is no weight; give a number from 0 on, or TASK=NUMBER, parted by commas"
                ));
            };
            match task {
                None if place == 0 => weights.default = weight,
                None => return fail(format!("'{part}' names no task; the weight of all tasks stands first")),
                Some(task) if weights.tasks.iter().any(|(known, _)| known == task) => {
                    return fail(format!("task '{task}' is named twice"));
                }
                Some(task) => weights.tasks.push((task.into(), weight)),
            }
        }
        Ok(weights)
    }

    /// That of a task.
    pub fn of(&self, task: &str) -> f32 {
        self.tasks.iter().find(|(name, _)| name == task).map_or(self.default, |(_, weight)| *weight)
    }

    /// # Errors
    /// A task that is named and not among `known`.
    pub fn check_tasks<'t>(&self, flag: &str, known: impl IntoIterator<Item = &'t str> + Clone) -> Result<()> {
        match self.tasks.iter().find(|(name, _)| !known.clone().into_iter().any(|known| known == name)) {
            None => Ok(()),
            Some((name, _)) => {
                let known: Vec<&str> = known.into_iter().collect();
                Err(Error::argument(flag, format!("there is no task '{name}'; the tasks are {}", known.join(", "))))
            }
        }
    }

    /// As [`TaskWeights::parse`] reads it.
    pub fn describe(&self) -> String {
        let tasks = self.tasks.iter().map(|(name, weight)| format!("{name}={weight}"));
        std::iter::once(self.default.to_string()).chain(tasks).collect::<Vec<_>>().join(",")
    }
}

/// Which layers of student and teacher are matched; layers are counted from 1, 0 is the output of the embedding block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerMap {
    /// The last of both.
    Last,
    /// Every layer of the student, and its embedding block, with the teacher's layer at the same share of the depth: student
    /// layer l of L with round(l · M / L) of M.
    Even,
    /// Pairs (student, teacher).
    Pairs(Vec<(usize, usize)>),
}

impl LayerMap {
    /// Reads `last`, `even`, or pairs `STUDENT:TEACHER,…`.
    ///
    /// # Errors
    /// Anything else; `flag` is in the message.
    pub fn parse(flag: &str, text: &str) -> Result<LayerMap> {
        let pair = |part: &str| {
            let (student, teacher) = part.trim().split_once(':')?;
            Some((student.trim().parse().ok()?, teacher.trim().parse().ok()?))
        };
        match text {
            "last" => Ok(LayerMap::Last),
            "even" => Ok(LayerMap::Even),
            _ => text.split(',').map(pair).collect::<Option<Vec<_>>>().map(LayerMap::Pairs).ok_or_else(|| {
                Error::argument(flag, format!("'{text}' is no map; give last, even, or STUDENT:TEACHER,… (2:6,1:3)"))
            }),
        }
    }

    /// The pairs for encoders of so many layers.
    ///
    /// # Errors
    /// A layer that one of them does not have.
    pub fn pairs(&self, flag: &str, student: usize, teacher: usize) -> Result<Vec<(usize, usize)>> {
        let pairs = match self {
            LayerMap::Last => vec![(student, teacher)],
            LayerMap::Even => {
                let of = |l: usize| (l, (2 * l * teacher + student.max(1)) / (2 * student.max(1)));
                (0..=student).map(of).collect()
            }
            LayerMap::Pairs(pairs) => pairs.clone(),
        };
        for (own, other) in &pairs {
            for (whose, layer, layers) in [("student", *own, student), ("teacher", *other, teacher)] {
                if layer > layers {
                    let message = format!("layer {layer} of the {whose}, which has {layers}");
                    return Err(Error::argument(flag, message));
                }
            }
        }
        Ok(pairs)
    }

    /// As [`LayerMap::parse`] reads it.
    pub fn describe(&self) -> String {
        match self {
            LayerMap::Last => "last".into(),
            LayerMap::Even => "even".into(),
            LayerMap::Pairs(pairs) => {
                pairs.iter().map(|(own, other)| format!("{own}:{other}")).collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// How a student learns from its teachers. The loss of a batch is
///
/// label_weight · loss against labels + weight · loss against the teachers' outputs + hidden_weight · the mean over the layer
/// pairs of the mean squared difference of hidden states + relation_weight · KL of the attention relations;
///
/// with annealing (Clark et al., "BAM!", ACL 2019) the first is multiplied by λ and all others by 1 − λ, λ rising from 0 to 1
/// over the run's updates.
#[derive(Clone, Debug, PartialEq)]
pub struct DistillationOptions {
    /// How outputs are compared.
    pub loss: SoftLoss,
    /// T: outputs of both sides are divided by it, the loss is multiplied by T².
    pub temperature: f32,
    /// Factor on the loss against the teachers' outputs.
    pub weight: TaskWeights,
    /// Factor on the loss against labels.
    pub label_weight: TaskWeights,
    /// From the teachers to the labels over the run.
    pub annealing: bool,
    /// Factor on the match of hidden states; 0: none.
    pub hidden_weight: f32,
    /// Which ones are matched.
    pub layers: LayerMap,
    /// Factor on the match of attention relations (Wang et al., arXiv 2012.15828); 0: none.
    pub relation_weight: f32,
    /// Relation heads, which divide both widths; None: the largest number up to 12 that does.
    pub relation_heads: Option<usize>,
    /// Whose queries, keys and values are compared, (student, teacher); None: the last layers.
    pub relation_layers: Option<(usize, usize)>,
}

impl Default for DistillationOptions {
    fn default() -> DistillationOptions {
        DistillationOptions {
            loss: SoftLoss::Kl,
            temperature: 2.0,
            weight: TaskWeights::all(1.0),
            label_weight: TaskWeights::all(1.0),
            annealing: false,
            hidden_weight: 0.0,
            layers: LayerMap::Last,
            relation_weight: 0.0,
            relation_heads: None,
            relation_layers: None,
        }
    }
}

impl DistillationOptions {
    /// # Errors
    /// A value out of its range, by the name of its flag.
    pub fn validate(&self) -> Result<()> {
        let require = |fits: bool, name: &str, message: String| {
            if fits { Ok(()) } else { Err(Error::argument(format!("--{name}"), message)) }
        };
        let temperature = self.temperature;
        let fits = temperature.is_finite() && (1e-3..=1e3).contains(&temperature);
        require(fits, "soft-temperature", format!("{temperature} is not from 0.001 to 1000"))?;
        for (name, weight) in [("hidden-weight", self.hidden_weight), ("relation-weight", self.relation_weight)] {
            require(weight.is_finite() && weight >= 0.0, name, format!("{weight} is not 0 or above"))?;
        }
        require(self.relation_heads != Some(0), "relation-heads", "0 heads relate nothing".into())?;
        let legacy = matches!(self.loss, SoftLoss::LegacyKl | SoftLoss::LegacyMse);
        let message = format!("MT-DNN's {} knows no temperature; give --soft-temperature 1", self.loss.name());
        require(!legacy || temperature == 1.0, "soft-temperature", message)
    }

    /// What decides the weights, as (flag, value): a resumed run must have the same.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let layers = self.relation_layers.map_or("last".into(), |(own, other)| format!("{own}:{other}"));
        vec![
            ("soft-loss", self.loss.name().into()),
            ("soft-temperature", self.temperature.to_string()),
            ("soft-weight", self.weight.describe()),
            ("label-weight", self.label_weight.describe()),
            ("anneal", self.annealing.to_string()),
            ("hidden-weight", self.hidden_weight.to_string()),
            ("layer-map", self.layers.describe()),
            ("relation-weight", self.relation_weight.to_string()),
            ("relation-heads", self.relation_heads.map_or("auto".into(), |heads| heads.to_string())),
            ("relation-layers", layers),
        ]
    }
}
