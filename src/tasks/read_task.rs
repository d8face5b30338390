//! One task's definition, from YAML to a [`TaskDef`]: every key checked by itself, then against the others.

use std::path::Path;

use super::adversarial_change::AdversarialChange;
use super::data_spec::{DataSpec, Shape};
use super::fields::Fields;
use super::message::{listed, shown};
use super::names::{ACTIVATIONS, DataFormat, LossName, METRICS, TaskType};
use super::task::TaskDef;
use super::yaml::Node;
use crate::{Error, Result};

/// Every key a task may have; the first eleven are MT-DNN's.
const KEYS: &[&str] = &[
    "data_format",
    "task_type",
    "n_class",
    "metric_meta",
    "enable_san",
    "labels",
    "dropout_p",
    "loss",
    "kd_loss",
    "adv_loss",
    "split_names",
    "actf",
    "data",
    "multi_label",
    "weight",
    "learning_rate",
    "max_length",
    "adversarial",
];

/// More classes than the largest vocabularies have tokens: an error, not an allocation.
const MAX_N_CLASS: usize = 1 << 22;
/// A sample needs room for [CLS], one token and [SEP]; no encoder takes more than this.
const LENGTHS: (usize, usize) = (3, 1 << 20);

impl TaskDef {
    /// The task `name`, whose key stands on `line` of `path` and whose definition is `node`.
    pub(super) fn from_yaml(path: &Path, name: &str, line: usize, node: &Node) -> Result<TaskDef> {
        let fields = Fields::new(path, format!("task {}", shown(name)), line, node, KEYS)?;

        let format_entry = fields.required("data_format", "PremiseOnly")?;
        let data_format: DataFormat = fields.named(format_entry)?;
        let kind: TaskType = fields.named(fields.required("task_type", "Classification")?)?;
        let n_class = read_n_class(&fields, kind)?;
        let metrics = read_metrics(&fields, kind)?;
        refuse_san(&fields)?;
        let multi_label = read_multi_label(&fields, kind)?;

        if !kind.data_formats().contains(&data_format) {
            let fitting = listed(kind.data_formats().iter().map(|format| format.name()));
            let message = format!("data_format: {data_format} does not fit task_type {kind}; it takes {fitting}");
            return Err(fields.error(format_entry.line, message));
        }

        let number = |key: &str, expected: &str, fits: &dyn Fn(f64) -> bool| {
            fields.get(key).map(|entry| fields.number(entry, expected, fits)).transpose()
        };
        // In f32: 0.99999999 is below 1 only as f64.
        let dropout_p = number("dropout_p", "a number from 0 to below 1", &|p| (0.0..1.0).contains(&(p as f32)))?;
        let weight = number("weight", "a finite number of at least 0", &|w| w >= 0.0 && (w as f32).is_finite())?;
        let learning_rate = number("learning_rate", "a finite number above 0", &|rate| rate > 0.0)?;
        let max_length =
            fields.get("max_length").map(|entry| fields.integer(entry, LENGTHS.0, LENGTHS.1)).transpose()?;
        let actf = fields.get("actf").map(|entry| fields.word(entry, ACTIVATIONS)).transpose()?;

        Ok(TaskDef {
            name: name.to_string(),
            path: path.to_path_buf(),
            line,
            data_format,
            kind,
            n_class,
            metrics,
            multi_label,
            legacy_token_labels: false,
            labels: read_labels(&fields, kind, n_class, multi_label)?,
            dropout_p: dropout_p.map(|p| p as f32),
            loss: read_loss(&fields, kind, n_class)?,
            kd_loss: fields.optional_named("kd_loss")?,
            adv_loss: fields.optional_named("adv_loss")?,
            adversarial: AdversarialChange::from_yaml(&fields)?,
            split_names: read_split_names(&fields)?,
            actf: actf.map(str::to_string),
            data: DataSpec::from_yaml(&fields, Shape { data_format, n_class, has_soft: kind.has_soft_labels() })?,
            weight: weight.map_or(1.0, |weight| weight as f32),
            learning_rate,
            max_length,
        })
    }
}

/// `n_class`: at least 1, and what the kind of task demands.
fn read_n_class(fields: &Fields, kind: TaskType) -> Result<usize> {
    let entry = fields.required("n_class", "2")?;
    let n_class = fields.integer(entry, 1, MAX_N_CLASS)?;
    match kind.fixed_n_class() {
        Some(fixed) if fixed != n_class => {
            let message = format!("n_class: task_type {kind} has n_class {fixed}, found {n_class}; write {fixed}");
            Err(fields.error(entry.line, message))
        }
        _ => Ok(n_class),
    }
}

/// `metric_meta`: names of metrics.
fn read_metrics(fields: &Fields, kind: TaskType) -> Result<Vec<String>> {
    if kind == TaskType::TextEmbedding && fields.get("metric_meta").is_none() {
        // It has no labels that anything could be measured by.
        return Ok(Vec::new());
    }
    let entry = fields.required("metric_meta", "[ACC]")?;
    let names = fields.list(entry)?;
    names.into_iter().map(|(line, name)| fields.known_word(entry, line, name, METRICS).map(str::to_string)).collect()
}

/// `enable_san: true` asks for a head that does not exist yet.
fn refuse_san(fields: &Fields) -> Result<()> {
    let entry = fields.required("enable_san", "false")?;
    if !fields.boolean(entry)? {
        return Ok(());
    }
    let what = format!("{}:{}: {}: enable_san: true", fields.path.display(), entry.line, fields.what);
    Err(Error::unsupported(what, "write 'enable_san: false' for the pooled head"))
}

/// `multi_label`: several classes for one text.
fn read_multi_label(fields: &Fields, kind: TaskType) -> Result<bool> {
    let Some(entry) = fields.get("multi_label") else { return Ok(false) };
    let multi_label = fields.boolean(entry)?;
    if multi_label && kind != TaskType::Classification {
        let message = format!("multi_label: task_type {kind} has no classes to choose several of; remove the key");
        return Err(fields.error(entry.line, message));
    }
    Ok(multi_label)
}

/// `labels`: one for each class.
fn read_labels(fields: &Fields, kind: TaskType, n_class: usize, multi_label: bool) -> Result<Option<Vec<String>>> {
    let Some(entry) = fields.get("labels") else { return Ok(None) };
    if kind == TaskType::Regression {
        return Err(fields.error(entry.line, "labels: a Regression predicts a number; remove the labels"));
    }
    let labels: Vec<String> = fields.list(entry)?.into_iter().map(|(_, label)| label.to_string()).collect();
    let one_a_class = matches!(kind, TaskType::Classification | TaskType::SequenceLabeling);
    if one_a_class && labels.len() != n_class {
        let count = labels.len();
        let message = format!("labels: {count} labels, but n_class is {n_class}; give one label for each class");
        return Err(fields.error(entry.line, message));
    }
    if multi_label && let Some(label) = labels.iter().find(|label| label.contains(',')) {
        let message = format!("labels: {} holds a comma, which parts the labels of a text; rename it", shown(label));
        return Err(fields.error(entry.line, message));
    }
    Ok(Some(labels))
}

/// `loss`: a criterion that the head's output can be given to.
fn read_loss(fields: &Fields, kind: TaskType, n_class: usize) -> Result<Option<LossName>> {
    let Some(entry) = fields.get("loss") else { return Ok(None) };
    let loss: LossName = fields.named(entry)?;
    if !kind.losses().contains(&loss) {
        let fitting = listed(kind.losses().iter().map(|loss| loss.name()));
        let message = format!("loss: {loss} does not fit task_type {kind} with n_class {n_class}; it takes {fitting}");
        return Err(fields.error(entry.line, message));
    }
    Ok(Some(loss))
}

/// `split_names`: parts of file names.
fn read_split_names(fields: &Fields) -> Result<Vec<String>> {
    let Some(entry) = fields.get("split_names") else {
        return Ok(["train", "dev", "test"].map(str::to_string).to_vec());
    };
    let mut names = Vec::new();
    for (line, name) in fields.list(entry)? {
        if name.contains(['/', '\\']) || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let message = format!("split_names: {} holds '/', '\\' or blanks; it is part of file names", shown(name));
            return Err(fields.error(line, message));
        }
        names.push(name.to_string());
    }
    Ok(names)
}
