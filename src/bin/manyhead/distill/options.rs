//! The options of distillation, for `train` (with soft labels) and `distill` (with teachers).

use clap::Args;
use manyhead::Error;
use manyhead::losses::SoftLoss;
use manyhead::train::DistillationOptions;
use manyhead::train::distillation::{LayerMap, TaskWeights};

/// Where `--help` lists them.
const HEADING: &str = "Distillation";

/// How a student is compared with its teachers.
#[derive(Args, Clone)]
pub struct Distillation {
    /// How outputs are compared: kl (T² KL of the teachers' distribution and the student's, both at temperature T),
    /// reverse-kl, js, mse (of logits), or as MT-DNN's toolkit did it: legacy-kl, legacy-mse (predictions of numbers: always mse)
    #[arg(help_heading = HEADING, long, default_value = "kl", value_parser = SoftLoss::NAMES)]
    pub soft_loss: String,
    /// T, by which both sides' logits are divided (--temperature is that of sampling)
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "T",
        default_value_t = DistillationOptions::default().temperature)]
    pub soft_temperature: f32,
    /// Factor of the loss against the teachers' outputs, or factors of tasks: 0.5,TASK=1
    #[arg(help_heading = HEADING, long, allow_hyphen_values = true, value_name = "X|TASK=X,…", default_value = "1")]
    pub soft_weight: String,
    /// Factor of the loss against labels, in the same way; 0: the teachers alone
    #[arg(help_heading = HEADING, long, allow_hyphen_values = true, value_name = "X|TASK=X,…", default_value = "1")]
    pub label_weight: String,
    /// From the teachers to the labels: the loss against labels counts λ times, those against teachers 1 - λ times, λ
    /// rising from 0 to 1 over the run
    #[arg(help_heading = HEADING, long)]
    pub anneal: bool,
    /// Factor of the match of hidden states with the first teacher's; 0: none
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "X", default_value_t = 0.0)]
    pub hidden_weight: f32,
    /// Which layers' states are matched: last, even (each of the student's, its embedding block too, with the
    /// teacher's at the same share of the depth), or STUDENT:TEACHER,… (from 1; 0 is the embedding block)
    #[arg(help_heading = HEADING, long, value_name = "MAP", default_value = "last")]
    pub layer_map: String,
    /// Factor of the match of attention relations (query-query, key-key, value-value, as MiniLM's) with the first teacher's;
    /// 0: none
    #[arg(help_heading = HEADING, long, allow_negative_numbers = true, value_name = "X", default_value_t = 0.0)]
    pub relation_weight: f32,
    /// Relation heads; they divide both widths [default: the largest number up to 12 that does]
    #[arg(help_heading = HEADING, long, value_name = "N")]
    pub relation_heads: Option<usize>,
    /// Whose queries, keys and values are matched [default: the last layers']
    #[arg(help_heading = HEADING, long, value_name = "STUDENT:TEACHER")]
    pub relation_layers: Option<String>,
}

impl Distillation {
    /// For one task alone: its own weights.
    pub fn of_one_task(&self, task: &str) -> Distillation {
        let mut own = self.clone();
        for weight in [&mut own.soft_weight, &mut own.label_weight] {
            // What is no weight is refused where it is used.
            if let Ok(weights) = TaskWeights::parse("", weight, 1.0) {
                *weight = weights.of(task).to_string();
            }
        }
        own
    }

    /// What the library calls it.
    pub fn resolve(&self) -> Result<DistillationOptions, Error> {
        let relation_layers = match &self.relation_layers {
            None => None,
            Some(text) => match LayerMap::parse("--relation-layers", text)? {
                LayerMap::Pairs(pairs) if pairs.len() == 1 => pairs.first().copied(),
                _ => return Err(Error::argument("--relation-layers", "one pair STUDENT:TEACHER is wanted")),
            },
        };
        let options = DistillationOptions {
            loss: SoftLoss::parse(&self.soft_loss).unwrap_or_default(),
            temperature: self.soft_temperature,
            weight: TaskWeights::parse("--soft-weight", &self.soft_weight, 1.0)?,
            label_weight: TaskWeights::parse("--label-weight", &self.label_weight, 1.0)?,
            annealing: self.anneal,
            hidden_weight: self.hidden_weight,
            layers: LayerMap::parse("--layer-map", &self.layer_map)?,
            relation_weight: self.relation_weight,
            relation_heads: self.relation_heads,
            relation_layers,
        };
        options.validate()?;
        Ok(options)
    }

    /// The first flag that has another value than it has by itself.
    pub fn changed(&self) -> Option<&'static str> {
        #[derive(clap::Parser)]
        struct Defaults {
            #[command(flatten)]
            distillation: Distillation,
        }
        let defaults = <Defaults as clap::Parser>::try_parse_from(["train"]).ok()?.distillation.list();
        self.list().into_iter().find(|own| !defaults.contains(own)).map(|(flag, _)| flag)
    }

    /// As (flag, value), for `run.yml`.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        let mut list = vec![
            ("soft-loss", self.soft_loss.clone()),
            ("soft-temperature", self.soft_temperature.to_string()),
            ("soft-weight", self.soft_weight.clone()),
            ("label-weight", self.label_weight.clone()),
            ("anneal", self.anneal.to_string()),
            ("hidden-weight", self.hidden_weight.to_string()),
            ("layer-map", self.layer_map.clone()),
            ("relation-weight", self.relation_weight.to_string()),
        ];
        list.extend(self.relation_heads.map(|heads| ("relation-heads", heads.to_string())));
        list.extend(self.relation_layers.clone().map(|layers| ("relation-layers", layers)));
        list
    }
}
