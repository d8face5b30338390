//! Teachers and student side by side: size, speed, metrics.

use std::path::Path;
use std::time::{Duration, Instant};

use manyhead::MultiTaskModel;
use manyhead::metrics::{Metric, Score};
use manyhead::tasks::{TaskDef, TeacherValues, UNLABELLED};
use manyhead::train::{SplitEvaluation, read_split};
use serde_json::{Map, Value, json};

use super::super::common::Failure;
use super::super::eval::metrics_json;
use super::super::reading::Reading;
use super::super::table::{Table, shown, shown_mean};
use super::teachers::Teachers;

/// How long a split is evaluated at least, for the sake of the speed.
const LEAST: Duration = Duration::from_millis(100);

/// A model, or the mean of several.
struct Side {
    name: String,
    parameters: usize,
    /// Of its weights, heads included.
    bytes: u64,
    tokens: usize,
    seconds: f64,
    results: Vec<SplitEvaluation>,
}

/// All of them.
pub struct Sides {
    all: Vec<Side>,
}

impl Side {
    fn new(name: String, model: &MultiTaskModel, folder: &Path) -> Side {
        let size = |file: &str| std::fs::metadata(folder.join(file)).map_or(0, |file| file.len());
        let parameters = model.encoder().params().count();
        let bytes = size("model.safetensors") + size("heads.safetensors");
        Side { name, parameters, bytes, tokens: 0, seconds: 0.0, results: Vec::new() }
    }

    /// Unless it has evaluated nothing.
    fn tokens_per_second(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.tokens as f64 / self.seconds.max(1e-9))
    }

    /// The mean of the tasks' first metrics (of a task with several dev splits: the mean over them), if all are numbers.
    fn mean(&self, tasks: &[&str]) -> Option<f64> {
        let mut sum = 0.0;
        for task in tasks {
            let own: Vec<&SplitEvaluation> = self.results.iter().filter(|result| result.task == *task).collect();
            let mut of_task = 0.0;
            for result in &own {
                let Some((_, Score::Value(first))) = result.metrics.first() else { return None };
                of_task += first / own.len() as f64;
            }
            if own.is_empty() {
                return None;
            }
            sum += of_task / tasks.len() as f64;
        }
        Some(sum)
    }
}

/// Evaluates all on every dev split that the student has, also what the teachers say together: the mean of their
/// probabilities, or with `of_logits` of their logits.
pub fn compare(
    teachers: &Teachers,
    student: &MultiTaskModel,
    folder: &Path,
    tasks: &[TaskDef],
    (data_dir, of_logits): (Option<&Path>, bool),
    reading: &Reading,
) -> Result<Sides, Failure> {
    let count = teachers.iter().count();
    let mut all: Vec<Side> = Vec::new();
    for (number, (teacher, _)) in teachers.iter().enumerate() {
        let name = if count == 1 { "teacher".into() } else { format!("teacher {}", number + 1) };
        all.push(Side::new(name, &teacher.model, &teacher.folder));
    }
    if count > 1 {
        let (parameters, bytes) = all.iter().fold((0, 0), |(p, b), side| (p + side.parameters, b + side.bytes));
        let name = "their mean".into();
        all.push(Side { name, parameters, bytes, tokens: 0, seconds: 0.0, results: Vec::new() });
    }
    all.push(Side::new("student".into(), student, folder));
    for (index, task) in tasks.iter().enumerate() {
        for split in task.split_names.iter().filter(|split| !["train", "test", UNLABELLED].contains(&split.as_str())) {
            let read = |model: &MultiTaskModel, place: usize| {
                reading.with(|read| read_split(model, place, task, split, data_dir, read))
            };
            let mut values: Vec<Vec<TeacherValues>> = Vec::new();
            let mut by_first = None;
            for ((teacher, places), side) in teachers.iter().zip(&mut all) {
                let Some(place) = places.get(index).copied().flatten() else { continue };
                let Some(dataset) = read(&teacher.model, place)? else { continue };
                evaluate(side, &teacher.model, place, &dataset, task, split)?;
                if count > 1 {
                    let mut own = Vec::new();
                    teacher.model.show(place, &dataset, 0, &[], None, |shown| {
                        own.push(shown.values);
                        Ok(())
                    })?;
                    values.push(own);
                    by_first.get_or_insert((&teacher.model, place, dataset));
                }
            }
            if let (Some((model, place, dataset)), Some(side)) = (by_first, all.get_mut(count).filter(|_| count > 1)) {
                let outputs = model.outputs(place)?;
                let all: Vec<Vec<&[f32]>> = values.iter().map(|own| own.iter().flat_map(each).collect()).collect();
                let mut mean = Vec::new();
                for example in 0..dataset.len() {
                    let of: Vec<&[f32]> = all.iter().filter_map(|own| own.get(example).copied()).collect();
                    mean.push(outputs.mean(&of, of_logits));
                }
                let evaluation = model.evaluate_taught(place, &dataset, |examples| {
                    let mut values = TeacherValues::new();
                    for example in examples {
                        values.push(mean.get(*example as usize).into_iter().flatten().copied());
                    }
                    Ok(values)
                })?;
                side.results.push(SplitEvaluation::new(&task.name, split, evaluation));
            }
            let Some(dataset) = read(student, index)? else { continue };
            if let Some(side) = all.last_mut() {
                evaluate(side, student, index, &dataset, task, split)?;
            }
        }
    }
    // The mean of several needs all of them.
    if count > 1 {
        let (tokens, seconds) =
            all.first().map_or((0, 0.0), |first| (first.tokens, all.iter().take(count).map(|side| side.seconds).sum()));
        if let Some(side) = all.get_mut(count) {
            (side.tokens, side.seconds) = (tokens, seconds);
        }
    }
    Ok(Sides { all })
}

fn each(values: &TeacherValues) -> impl Iterator<Item = &[f32]> {
    (0..values.examples()).map(|example| values.of(example))
}

fn evaluate(
    side: &mut Side,
    model: &MultiTaskModel,
    place: usize,
    dataset: &manyhead::data::Dataset,
    task: &TaskDef,
    split: &str,
) -> Result<(), Failure> {
    let start = Instant::now();
    let evaluation = model.evaluate_by(place, dataset, task)?;
    // A pass over a few rows tells more about the machine than about the model: of several the fastest one counts.
    let mut fastest = start.elapsed();
    while start.elapsed() < LEAST {
        let again = Instant::now();
        model.evaluate_by(place, dataset, task)?;
        fastest = fastest.min(again.elapsed());
    }
    side.seconds += fastest.as_secs_f64();
    side.tokens += dataset.tokens();
    side.results.push(SplitEvaluation::new(&task.name, split, evaluation));
    Ok(())
}

fn numbers(result: &SplitEvaluation) -> impl Iterator<Item = &(Metric, Score)> {
    result.metrics.iter().filter(|(_, score)| !matches!(score, Score::Matrix { .. }))
}

impl Sides {
    /// For programs.
    pub fn json(&self) -> Value {
        let side = |side: &Side| {
            let mut tasks = Map::new();
            for result in &side.results {
                let metrics = metrics_json(&result.metrics);
                let of = json!({"examples": result.examples, "loss": result.loss, "metrics": metrics});
                let splits = tasks.entry(result.task.clone()).or_insert_with(|| json!({}));
                splits[result.split.as_str()] = of;
            }
            json!({
                "name": side.name, "parameters": side.parameters, "bytes": side.bytes,
                "tokens_per_second": side.tokens_per_second(), "tasks": tasks,
            })
        };
        let mut all: Vec<Value> = self.all.iter().map(side).collect();
        let student = all.pop();
        json!({"teachers": all, "student": student})
    }

    /// Writes `distillation.json`.
    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join("distillation.json");
        Ok(manyhead::interop::atomic::write_bytes(path, format!("{:#}\n", self.json()).as_bytes())?)
    }

    /// For people.
    pub fn render(&self) -> String {
        let mut table = Table::default();
        let row = |name: &str, cell: &dyn Fn(&Side) -> String| {
            std::iter::once(name.to_string()).chain(self.all.iter().map(cell)).collect::<Vec<String>>()
        };
        let measured = self.all.iter().any(|side| side.tokens > 0);
        table.row(row(if measured { "on dev" } else { "" }, &|side| side.name.clone()));
        table.row(row("parameters", &|side| format!("{:.2} M", side.parameters as f64 / 1e6)));
        table.row(row("weights", &|side| format!("{:.1} MB", side.bytes as f64 / 1e6)));
        if measured {
            let speed = |side: &Side| side.tokens_per_second().map_or("-".into(), |speed| format!("{speed:.0}"));
            table.row(row("tokens/s", &speed));
        }
        let Some(student) = self.all.last() else { return String::new() };
        for result in &student.results {
            for (metric, _) in numbers(result) {
                let cell = |side: &Side| {
                    let own = side.results.iter().find(|r| r.task == result.task && r.split == result.split);
                    let score = own.and_then(|own| own.metrics.iter().find(|(known, _)| known == metric));
                    score.map_or("-".into(), |(_, score)| shown(score))
                };
                table.row(row(&format!("{} {} {}", result.task, result.split, metric.name()), &cell));
            }
        }
        let mut tasks: Vec<&str> = student.results.iter().map(|result| result.task.as_str()).collect();
        tasks.dedup();
        if !tasks.is_empty() {
            let mean = |side: &Side| side.mean(&tasks).map_or("-".into(), |mean| shown_mean(Some(mean)));
            table.row(row("mean of first metrics", &mean));
        }
        table.render()
    }
}
