//! `report.html`: a run on one page that needs nothing else, neither scripts nor a network.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::chart::{COLOURS, Chart, Point, Series, escape, smooth};
use super::entities;
use super::read::{Batch, Evaluation, Means, RunLog, TaskResult};
use crate::error::Result;
use crate::interop::atomic;
use crate::train::{Event, Observer};

pub(super) const STYLE: &str = include_str!("style.css");

/// Writes `report.html`: at the start, after every evaluation, and with a checkpoint that comes in between.
#[derive(Debug)]
pub struct HtmlReport {
    path: PathBuf,
    log: PathBuf,
    options: Vec<(String, String)>,
    /// Whether there were updates since the page was written.
    stale: bool,
}

impl HtmlReport {
    /// A page at `path`, drawn from the `log.jsonl` at `log`, which another observer must have written before this
    /// one is told. `options`, (name, value), are shown as a table.
    pub fn new(path: impl Into<PathBuf>, log: impl Into<PathBuf>, options: &[(String, String)]) -> HtmlReport {
        HtmlReport { path: path.into(), log: log.into(), options: options.to_vec(), stale: false }
    }

    fn write(&mut self) -> Result<()> {
        self.stale = false;
        // A resumed run may find no log.
        let page = if self.log.exists() {
            render(&self.log, &self.options)?
        } else {
            page(&RunLog::default(), &Means::default(), &self.options)
        };
        atomic::write_bytes(&self.path, page.as_bytes())
    }
}

impl Observer for HtmlReport {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Start { .. } | Event::Evaluation { .. } => self.write(),
            Event::Checkpoint { .. } if self.stale => self.write(),
            Event::Update { .. } => {
                self.stale = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The page of a run, under way or finished, from its `log.jsonl` (and the `metrics.json` beside it, if there is one:
/// it knows the means and the best epoch). `options`, (name, value), are shown as a table.
///
/// # Errors
/// A file cannot be read. A log that is empty or ends in the middle of a line is none.
pub fn render(log_path: impl AsRef<Path>, options: &[(String, String)]) -> Result<String> {
    let log_path = log_path.as_ref();
    Ok(page(&RunLog::read(log_path)?, &Means::beside(log_path)?, options))
}

fn page(log: &RunLog, means: &Means, options: &[(String, String)]) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Training report</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Training report</h1>\n"
    );
    headline(&mut html, log, means);
    scores(&mut html, log, means);
    if let Some(evaluation) = kept(log, means) {
        confusions(&mut html, log, evaluation);
        entities::tables(&mut html, log, evaluation);
    }
    charts(&mut html, log);
    options_table(&mut html, options);
    let _ = write!(
        html,
        "<footer>Metrics are ×100 here and fractions in the files. “After epoch 1” is epoch 0 in log.jsonl and \
         metrics.json. Manyhead {}.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    html
}

/// A table of options; nothing without any.
pub(super) fn options_table(html: &mut String, options: &[(String, String)]) {
    if !options.is_empty() {
        html.push_str("<h2>Options</h2>\n<table class=\"options\">\n<tbody>\n");
        for (name, value) in options {
            let _ = writeln!(html, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(value));
        }
        html.push_str("</tbody>\n</table>\n");
    }
}

fn headline(html: &mut String, log: &RunLog, means: &Means) {
    let tasks: Vec<String> = log.tasks.iter().map(|task| escape(task)).collect();
    if !tasks.is_empty() {
        let word = if tasks.len() == 1 { "Task" } else { "Tasks" };
        let _ = writeln!(html, "<p class=\"soft\">{word}: {}</p>", tasks.join(", "));
    }
    for (count, what) in [
        (log.non_finite, "event(s) of the log have a NaN or infinite value; they are missing below"),
        (
            log.dropped,
            "batch(es) went without a term of adversarial training: the gradient of its ascent was not finite",
        ),
        (log.unreadable, "line(s) of the log cannot be read; they are missing below"),
    ] {
        if count > 0 {
            let _ = writeln!(html, "<p class=\"warning\">{count} {what}.</p>");
        }
    }
    let tokens: u64 = log.batches.iter().map(|batch| batch.tokens).sum();
    let examples: u64 = log.batches.iter().map(|batch| batch.examples).sum();
    // Not `sum`, which begins at −0.
    let seconds = log.batches.iter().fold(0.0, |sum, batch| sum + batch.seconds);
    let speed = if seconds > 0.0 { grouped((tokens as f64 / seconds) as u64) } else { "–".into() };
    let (best, after) = match means.best {
        Some((epoch, Some(mean))) => (percent(mean), format!("best mean, {}", after(epoch))),
        Some((epoch, None)) => ("–".into(), format!("no dev metrics; kept: {}", after(epoch))),
        None => ("–".into(), "best mean: no evaluation yet".into()),
    };
    html.push_str("<div class=\"cards\">\n");
    let _ = writeln!(html, "<div class=\"first\"><b>{best}</b><span>{after}</span></div>");
    for (value, name) in [
        (grouped(log.updates.len() as u64), "updates"),
        (short(examples), "examples"),
        (short(tokens), "tokens"),
        (speed, "tokens per second"),
        (duration(seconds), "in forward and backward"),
    ] {
        let _ = writeln!(html, "<div><b>{value}</b><span>{name}</span></div>");
    }
    html.push_str("</div>\n");
}

/// A column of the table of scores.
struct Column<'a> {
    task: usize,
    split: &'a str,
    metric: &'a str,
}

impl Column<'_> {
    fn value(&self, results: &[TaskResult]) -> Option<f64> {
        let result = results.iter().find(|result| result.task == self.task && result.split == self.split);
        result.and_then(|result| result.metrics.get(self.metric)).and_then(Value::as_f64)
    }
}

fn scores(html: &mut String, log: &RunLog, means: &Means) {
    html.push_str("<h2>Dev metrics</h2>\n");
    let mut columns: Vec<Column<'_>> = Vec::new();
    for result in log.evaluations.iter().flat_map(|evaluation| &evaluation.results) {
        for (metric, value) in &result.metrics {
            let column = Column { task: result.task, split: &result.split, metric };
            let known = |c: &Column<'_>| (c.task, c.split, c.metric) == (column.task, column.split, column.metric);
            if !value.is_array() && !columns.iter().any(known) {
                columns.push(column);
            }
        }
    }
    if columns.is_empty() {
        html.push_str("<p class=\"soft\">None yet.</p>\n");
        return;
    }
    columns.sort_by_key(|column| column.task);
    html.push_str("<div class=\"wide\"><table>\n<thead>\n<tr><th></th>");
    for group in columns.chunk_by(|a, b| a.task == b.task) {
        let _ = write!(html, "<th colspan=\"{}\">{}</th>", group.len(), escape(&log.tasks[group[0].task]));
    }
    html.push_str("<th></th></tr>\n<tr><th>After epoch</th>");
    for column in &columns {
        let other = columns.iter().any(|c| c.task == column.task && c.split != column.split);
        let split = if other { format!(" ({})", escape(column.split)) } else { String::new() };
        let _ = write!(html, "<th>{}{split}</th>", escape(column.metric));
    }
    html.push_str("<th>Mean</th></tr>\n</thead>\n<tbody>\n");
    let highest: Vec<f64> = columns
        .iter()
        .map(|column| log.evaluations.iter().filter_map(|e| column.value(&e.results)).fold(f64::NEG_INFINITY, f64::max))
        .collect();
    for evaluation in &log.evaluations {
        let best = means.best.is_some_and(|(epoch, _)| epoch == evaluation.epoch);
        let (class, star) = if best { (" class=\"best\"", "★ ") } else { ("", "") };
        let seen = evaluation.epoch.map_or("before training".to_string(), |_| evaluation.epochs_seen().to_string());
        let _ = write!(html, "<tr{class}><th>{star}{seen}</th>");
        for (column, highest) in columns.iter().zip(&highest) {
            let value = column.value(&evaluation.results);
            // One evaluation is not the best of anything.
            let top = if log.evaluations.len() > 1 && value == Some(*highest) { " class=\"top\"" } else { "" };
            let _ = write!(html, "<td{top}>{}</td>", value.map_or("–".into(), percent));
        }
        let _ = writeln!(html, "<td>{}</td></tr>", means.of(evaluation.epoch).map_or("–".into(), percent));
    }
    html.push_str("</tbody>\n</table></div>\n<p class=\"soft\">×100. ");
    html.push_str("★: the epoch that was kept (highest mean); bold: the highest of its column; –: undefined.</p>\n");
}

/// The best evaluation, or else the last.
fn kept<'a>(log: &'a RunLog, means: &Means) -> Option<&'a Evaluation> {
    let best = means.best.and_then(|(epoch, _)| log.evaluations.iter().rfind(|e| e.epoch == epoch));
    best.or(log.evaluations.last())
}

fn confusions(html: &mut String, log: &RunLog, evaluation: &Evaluation) {
    let mut tables = String::new();
    for result in &evaluation.results {
        for (metric, value) in &result.metrics {
            let Some(rows) = value.as_array() else { continue };
            let title = [&log.tasks[result.task], &result.split, metric].map(|text| escape(text)).join(", ");
            let _ =
                write!(tables, "<div class=\"wide\"><h3>{title}</h3>\n<table>\n<thead><tr><th>true \\ predicted</th>");
            for class in 0..rows.len() {
                let _ = write!(tables, "<th>{class}</th>");
            }
            tables.push_str("</tr></thead>\n<tbody>\n");
            for (class, row) in rows.iter().enumerate() {
                let _ = write!(tables, "<tr><th>{class}</th>");
                for (predicted, count) in row.as_array().into_iter().flatten().enumerate() {
                    let top = if predicted == class { " class=\"top\"" } else { "" };
                    let _ = write!(tables, "<td{top}>{}</td>", count.as_u64().map_or("–".into(), grouped));
                }
                tables.push_str("</tr>\n");
            }
            tables.push_str("</tbody>\n</table></div>\n");
        }
    }
    if !tables.is_empty() {
        let _ = write!(html, "<h2>Confusion matrices {}</h2>\n<div class=\"matrices\">\n", after(evaluation.epoch));
        html.push_str(&tables);
        html.push_str("</div>\n");
    }
}

fn charts(html: &mut String, log: &RunLog) {
    html.push_str("<h2>Course</h2>\n");
    let all =
        [losses(log), terms(log), dev_metrics(log), dev_losses(log), learning_rate(log), grad_norm(log), speed(log)];
    let drawn: Vec<String> = all.iter().filter_map(Chart::html).collect();
    if drawn.is_empty() {
        html.push_str("<p class=\"soft\">Nothing has been logged yet.</p>\n");
        return;
    }
    let _ = write!(html, "<div class=\"charts\">\n{}</div>\n", drawn.concat());
    html.push_str("<p class=\"soft\">Faint: single updates. Lines over them: an exponential moving mean. ");
    html.push_str("The outermost 2 % of the faint points may lie beyond the axes.</p>\n");
}

fn updates_chart(title: &str, y_label: &str, series: Vec<Series>) -> Chart {
    Chart {
        title: title.into(),
        x_label: "update".into(),
        y_label: y_label.into(),
        series,
        from_zero: true,
        log_x: false,
    }
}

fn smoothed(name: &str, style: usize, raw: Vec<Point>) -> Series {
    Series { name: name.into(), style, line: smooth(&raw), raw, dots: false }
}

/// (update, sum of `numerator` / sum of `denominator` over its batches).
fn per_update<'a>(
    batches: impl Iterator<Item = &'a Batch>,
    numerator: impl Fn(&Batch) -> Option<f64>,
    denominator: impl Fn(&Batch) -> f64,
) -> Vec<Point> {
    let mut sums: Vec<(u64, f64, f64)> = Vec::new();
    for batch in batches {
        let Some(value) = numerator(batch) else { continue };
        match sums.last_mut() {
            Some(sum) if sum.0 == batch.update => *sum = (sum.0, sum.1 + value, sum.2 + denominator(batch)),
            _ => sums.push((batch.update, value, denominator(batch))),
        }
    }
    let points = sums.into_iter().map(|(update, sum, of)| (update as f64, sum / of));
    points.filter(|point| point.1.is_finite()).collect()
}

fn losses(log: &RunLog) -> Chart {
    let series = log.tasks.iter().enumerate().map(|(task, name)| {
        let batches = log.batches.iter().filter(|batch| batch.task == task);
        smoothed(name, task, per_update(batches, |batch| batch.loss, |_| 1.0))
    });
    updates_chart("Training loss by task", "loss", series.collect())
}

/// Mean over the batches of an update that have the term.
fn terms(log: &RunLog) -> Chart {
    let series = log.terms.iter().enumerate().map(|(term, name)| {
        let value = |batch: &Batch| batch.terms.iter().find(|(index, _)| *index == term).map(|(_, value)| *value);
        smoothed(name, term, per_update(log.batches.iter(), value, |_| 1.0))
    });
    updates_chart("Terms beside the loss against the labels", "term", series.collect())
}

fn learning_rate(log: &RunLog) -> Chart {
    let line = log.updates.iter().filter_map(|update| Some((update.update as f64, update.learning_rate?)));
    let series = Series { name: "learning rate".into(), line: line.collect(), ..Default::default() };
    updates_chart("Learning rate", "learning rate", vec![series])
}

fn grad_norm(log: &RunLog) -> Chart {
    let raw = log.updates.iter().filter_map(|update| Some((update.update as f64, update.grad_norm?)));
    updates_chart("Gradient norm before clipping", "norm", vec![smoothed("gradient norm", 0, raw.collect())])
}

fn speed(log: &RunLog) -> Chart {
    let raw = per_update(log.batches.iter(), |batch| Some(batch.tokens as f64), |batch| batch.seconds);
    updates_chart("Tokens per second in forward and backward", "tokens/s", vec![smoothed("tokens per second", 0, raw)])
}

/// One curve for each task and dev split, of what `value` gives.
fn by_epoch(log: &RunLog, title: &str, y_label: &str, value: impl Fn(&TaskResult) -> Option<f64>) -> Chart {
    let mut curves: Vec<(usize, &str, Vec<Point>)> = Vec::new();
    for evaluation in &log.evaluations {
        for result in &evaluation.results {
            let Some(value) = value(result) else { continue };
            let point = (evaluation.epochs_seen() as f64, value);
            match curves.iter_mut().find(|curve| curve.0 == result.task && curve.1 == result.split) {
                Some(curve) => curve.2.push(point),
                None => curves.push((result.task, &result.split, vec![point])),
            }
        }
    }
    curves.sort_by_key(|curve| curve.0);
    let tasks: Vec<usize> = curves.iter().map(|curve| curve.0).collect();
    let series = curves.into_iter().enumerate().map(|(index, (task, split, line))| {
        // A task has one colour in all charts; its further splits are dashed.
        let before = tasks[..index].iter().filter(|other| **other == task).count();
        let alone = before == 0 && tasks.get(index + 1) != Some(&task);
        let name = if alone { log.tasks[task].clone() } else { format!("{} ({split})", log.tasks[task]) };
        Series { name, style: task + COLOURS * before, line, raw: Vec::new(), dots: true }
    });
    let (title, y_label, series) = (title.into(), y_label.into(), series.collect());
    Chart { title, x_label: "epochs of training".into(), y_label, series, from_zero: false, log_x: false }
}

fn dev_metrics(log: &RunLog) -> Chart {
    by_epoch(log, "Dev metric by task (the first one of each)", "×100", |result| {
        result.metrics.values().next().and_then(Value::as_f64).map(|fraction| fraction * 100.0)
    })
}

fn dev_losses(log: &RunLog) -> Chart {
    by_epoch(log, "Dev loss by task", "loss", |result| result.loss)
}

fn after(epoch: Option<u64>) -> String {
    epoch.map_or("before training".into(), |epoch| format!("after epoch {}", epoch.saturating_add(1)))
}

/// ×100, one decimal.
fn percent(fraction: f64) -> String {
    format!("{:.1}", fraction * 100.0)
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Ten millions and more in millions.
fn short(number: u64) -> String {
    if number < 10_000_000 { grouped(number) } else { format!("{:.1}M", number as f64 / 1e6) }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => format!("{}h {:02}m", whole / 3600, whole / 60 % 60),
    }
}
