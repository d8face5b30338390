//! Task definitions back to YAML, as [`super::TaskFile`] reads them: what a saved model needs to know of its tasks.

use std::fmt::Write;

use super::data_spec::{CANONICAL_SOFT, SOFT};
use super::{Format, TaskDef};

/// The definitions without their `data:`, which belongs to a run and not to a model.
pub fn to_yaml(tasks: &[&TaskDef]) -> String {
    let mut text = String::new();
    for task in tasks {
        write_task(&mut text, task);
    }
    text
}

/// The keys below `data:` that say that canonical rows have soft labels.
pub(crate) fn canonical_soft() -> String {
    format!("    format: {}\n    columns: {{{SOFT}: {CANONICAL_SOFT}}}\n", Format::Canonical)
}

/// A text in quotes: JSON's strings are YAML's too. Control characters that JSON leaves as they are (U+007F to U+009F)
/// are escaped, because a task file must not hold them.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in serde_json::Value::from(text).to_string().chars() {
        match c {
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
}

fn write_task(text: &mut String, task: &TaskDef) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}:", quoted(&task.name));
    let mut key = |key: &str, value: String| {
        let _ = writeln!(text, "  {key}: {value}");
    };
    key("data_format", task.data_format.name().into());
    key("task_type", task.kind.name().into());
    key("n_class", task.n_class.to_string());
    if !task.metrics.is_empty() {
        key("metric_meta", list(&task.metrics));
    }
    key("enable_san", "false".into());
    if task.multi_label {
        key("multi_label", "true".into());
    }
    if let Some(labels) = &task.labels {
        key("labels", list(labels));
    }
    if let Some(dropout) = task.dropout_p {
        key("dropout_p", dropout.to_string());
    }
    for (name, loss) in [("loss", task.loss), ("kd_loss", task.kd_loss), ("adv_loss", task.adv_loss)] {
        if let Some(loss) = loss {
            key(name, loss.name().into());
        }
    }
    key("split_names", list(&task.split_names));
    if let Some(actf) = &task.actf {
        key("actf", actf.clone());
    }
    key("weight", task.weight.to_string());
    if let Some(rate) = task.learning_rate {
        key("learning_rate", rate.to_string());
    }
    if let Some(max_length) = task.max_length {
        key("max_length", max_length.to_string());
    }
}
