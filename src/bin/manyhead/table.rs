//! Tables for people: metrics ×100.

use manyhead::metrics::{EntityDetails, PrecisionRecall, Score};
use manyhead::report::SeedScore;
use manyhead::train::SplitEvaluation;

/// Rows of cells, the first column to the left, the others to the right.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The table, columns two spaces apart.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                let gap = if column == 0 { "" } else { "  " };
                line.push_str(&if column == 0 { format!("{cell}{pad}") } else { format!("{gap}{pad}{cell}") });
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A score for people: ×100, two decimals.
pub fn shown(score: &Score) -> String {
    match score {
        Score::Value(value) => format!("{:.2}", 100.0 * value),
        Score::Undefined => "undefined".into(),
        Score::Matrix { .. } => "(below)".into(),
    }
}

/// A mean for people.
pub fn shown_mean(mean: Option<f64>) -> String {
    mean.map_or("undefined".into(), |mean| format!("{:.2}", 100.0 * mean))
}

/// A score over several seeds: mean and, where there is one, deviation.
pub fn shown_score(score: &SeedScore) -> String {
    let deviation = score.deviation.map_or(String::new(), |deviation| format!(" ± {:.2}", 100.0 * deviation));
    shown_mean(score.mean) + &deviation
}

/// Evaluations of several epochs beside each other, the best one marked.
#[derive(Default)]
pub struct EpochTable {
    columns: Vec<(String, bool, Vec<SplitEvaluation>, Option<f64>)>,
}

/// Columns that fit beside each other.
const MOST_COLUMNS: usize = 8;

impl EpochTable {
    /// Adds an epoch (or whatever `title` says).
    pub fn add(&mut self, title: String, best: bool, results: &[SplitEvaluation], mean: Option<f64>) {
        if best {
            self.columns.iter_mut().for_each(|column| column.1 = false);
        }
        self.columns.push((title, best, results.to_vec(), mean));
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.columns.iter().all(|column| column.2.is_empty())
    }

    /// The entities of the best epoch, or else of the latest.
    pub fn entities(&self) -> String {
        let best = self.columns.iter().rev().find(|column| column.1);
        best.or(self.columns.last()).map_or(String::new(), |column| entities(&column.2))
    }

    /// One row a task, split and metric, one column an epoch; the best epoch and the latest ones.
    pub fn render(&self) -> String {
        let skipped = self.columns.len().saturating_sub(MOST_COLUMNS);
        let kept: Vec<_> =
            self.columns.iter().enumerate().filter(|(i, column)| *i >= skipped || column.1).map(|(_, c)| c).collect();
        let Some(first) = kept.first() else { return String::new() };
        let mut table = Table::default();
        let title = |column: &&(String, bool, _, _)| format!("{}{}", column.0, if column.1 { " *" } else { "" });
        table.row(["task / split / metric".to_string()].into_iter().chain(kept.iter().map(title)));
        for (i, result) in first.2.iter().enumerate() {
            let name = |what: &str| format!("{} {} {what}", result.task, result.split);
            for (j, (metric, _)) in result.metrics.iter().enumerate() {
                let cell = |column: &&(String, bool, Vec<SplitEvaluation>, _)| {
                    column.2.get(i).and_then(|r| r.metrics.get(j)).map_or("".into(), |(_, score)| shown(score))
                };
                table.row([name(metric.name())].into_iter().chain(kept.iter().map(cell)));
            }
            let loss = |column: &&(String, bool, Vec<SplitEvaluation>, _)| {
                column.2.get(i).map_or("".into(), |r| format!("{:.4}", r.loss))
            };
            table.row([name("loss")].into_iter().chain(kept.iter().map(loss)));
        }
        table.row(["mean of first metrics".to_string()].into_iter().chain(kept.iter().map(|c| shown_mean(c.3))));
        let mut text = table.render();
        if let Some(last) = kept.last() {
            text.push_str(&matrices(&last.2));
        }
        text
    }
}

/// Precision, recall and F1 of the entities of tagging tasks, a table each: strictly (IOB2), and leniently.
pub fn entities(results: &[SplitEvaluation]) -> String {
    let of = |result: &SplitEvaluation| Some((result.task.clone(), result.split.clone(), result.entities.clone()?));
    let tables = results.iter().filter_map(of).map(|(task, split, details)| entity_table(&task, &split, &details));
    tables.collect()
}

fn entity_table(task: &str, split: &str, details: &EntityDetails) -> String {
    let rules = [&details.strict, &details.lenient];
    let cells = |both: [Option<&PrecisionRecall>; 2]| {
        let four = both.map(|of| match of {
            Some(of) => {
                let [p, r, f] = [of.precision, of.recall, of.f1].map(|fraction| shown_mean(Some(fraction)));
                [p, r, f, of.support.to_string()]
            }
            None => std::array::from_fn(|_| "-".to_string()),
        });
        four.concat()
    };
    let mut table = Table::default();
    let measures = ["precision", "recall", "F1", "support"];
    let titles = ["strict", "lenient"].into_iter().flat_map(|rule| {
        measures
            .into_iter()
            .enumerate()
            .map(move |(i, name)| if i == 0 { format!("{rule}: {name}") } else { name.into() })
    });
    table.row(["entities".to_string()].into_iter().chain(titles));
    let mut kinds: Vec<&String> = rules.iter().flat_map(|rule| rule.types.iter().map(|(kind, _)| kind)).collect();
    kinds.sort();
    kinds.dedup();
    for kind in kinds {
        let of = rules.map(|rule| rule.types.iter().find(|(own, _)| own == kind).map(|(_, of)| of));
        table.row([kind.clone()].into_iter().chain(cells(of)));
    }
    for (name, of) in [
        ("all (micro)", rules.map(|rule| Some(&rule.micro))),
        ("macro", rules.map(|rule| rule.macro_average.as_ref())),
        ("weighted", rules.map(|rule| Some(&rule.weighted))),
    ] {
        table.row([name.to_string()].into_iter().chain(cells(of)));
    }
    format!("\n{task} {split}: entities by type\n{}", table.render())
}

/// The confusion matrices among the metrics: rows are true classes, columns predicted ones.
pub fn matrices(results: &[SplitEvaluation]) -> String {
    let mut text = String::new();
    for result in results {
        for (_, score) in &result.metrics {
            let Score::Matrix { labels, rows } = score else { continue };
            text.push_str(&format!(
                "\n{} {}: confusion matrix, rows true, columns predicted\n",
                result.task, result.split
            ));
            let mut table = Table::default();
            table.row(["".to_string()].into_iter().chain(labels.iter().map(|label| label.to_string())));
            for (label, row) in labels.iter().zip(rows) {
                table.row([label.to_string()].into_iter().chain(row.iter().map(|count| count.to_string())));
            }
            text.push_str(&table.render());
        }
    }
    text
}
