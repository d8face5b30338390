//! Precision, recall and F1 of entities: as JSON for programs, as tables on the page.
//!
//! ```json
//! {"strict": {"precision": 0.5, "recall": 0.6, "f1": 0.545, "support": 5, "macro": {…}, "weighted": {…},
//!             "types": {"PER": {"precision": …, "recall": …, "f1": …, "support": 3}}},
//!  "lenient": {…}}
//! ```
//! Fractions. Without any entity `macro`, a mean over no type, is null.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::chart::escape;
use super::read::{Evaluation, RunLog};
use crate::metrics::{EntityDetails, EntityReport, PrecisionRecall};

/// The four numbers by their names.
fn numbers(of: &PrecisionRecall) -> Value {
    json!({"precision": of.precision, "recall": of.recall, "f1": of.f1, "support": of.support})
}

fn report(report: &EntityReport) -> Value {
    let mut object = numbers(&report.micro);
    let types: Map<String, Value> = report.types.iter().map(|(kind, of)| (kind.clone(), numbers(of))).collect();
    object["macro"] = report.macro_average.as_ref().map_or(Value::Null, numbers);
    object["weighted"] = numbers(&report.weighted);
    object["types"] = Value::Object(types);
    object
}

/// The details of a task under `entities`, as metrics.json, log.jsonl and `manyhead eval --json` have them.
pub fn entities_json(details: &EntityDetails) -> Value {
    json!({"strict": report(&details.strict), "lenient": report(&details.lenient)})
}

/// A table for each task of the evaluation that has entities.
pub(super) fn tables(html: &mut String, log: &RunLog, evaluation: &Evaluation) {
    let with = |result: &&super::read::TaskResult| result.entities.is_some();
    let mut results = evaluation.results.iter().filter(with).peekable();
    if results.peek().is_none() {
        return;
    }
    html.push_str("<h2>Entities</h2>\n");
    for result in results {
        let Some(entities) = &result.entities else { continue };
        let title = [&log.tasks[result.task], &result.split].map(|text| escape(text)).join(", ");
        let _ = write!(
            html,
            "<div class=\"wide\"><h3>{title}</h3>\n<table>\n<thead><tr><th></th><th colspan=\"4\">strict</th>\
             <th colspan=\"4\">lenient</th></tr>\n<tr><th></th>"
        );
        for _ in 0..2 {
            html.push_str("<th>precision</th><th>recall</th><th>F1</th><th>support</th>");
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        let rules = ["strict", "lenient"].map(|rule| &entities[rule]);
        let mut kinds: Vec<&String> =
            rules.iter().filter_map(|rule| rule["types"].as_object()).flat_map(|types| types.keys()).collect();
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            row(html, &escape(kind), rules.map(|rule| &rule["types"][kind.as_str()]));
        }
        row(html, "all (micro)", rules);
        for average in ["macro", "weighted"] {
            row(html, average, rules.map(|rule| &rule[average]));
        }
        html.push_str("</tbody>\n</table></div>\n");
    }
    html.push_str("<p class=\"soft\">×100. Strict: entities of IOB2; lenient: any change of type begins one.</p>\n");
}

fn row(html: &mut String, name: &str, rules: [&Value; 2]) {
    let _ = write!(html, "<tr><th>{name}</th>");
    for of in rules {
        for measure in ["precision", "recall", "f1"] {
            let value = of[measure].as_f64().map_or("–".into(), |fraction| format!("{:.1}", 100.0 * fraction));
            let _ = write!(html, "<td>{value}</td>");
        }
        let _ = write!(html, "<td>{}</td>", of["support"].as_u64().map_or("–".into(), |count| count.to_string()));
    }
    html.push_str("</tr>\n");
}
