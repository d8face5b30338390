//! Whole splits of the tasks of task files, with or without labels, to GLUE's submission files and score files.

use manyhead::tasks::TaskDef;
use manyhead::train::read_split_to_predict;
use manyhead::{Error, MultiTaskModel, TaskFile};
use serde_json::{Map, Value, json};

use super::super::common::{Common, Failure, counted, print};
use super::super::eval::{check_names, own_task};
use super::super::reading::Reading;
use super::super::split_files::{Plan, Planned};
use super::super::train::tell_losses;
use super::Arguments;

/// One split of one task.
struct Job {
    task: TaskDef,
    index: usize,
    split: String,
    files: Planned,
}

/// Predicts every wanted split; what is wrong with any of them is told before the first is begun.
pub fn run(arguments: &Arguments, model: &MultiTaskModel, common: &Common) -> Result<(), Failure> {
    let data_dir = arguments.data_dir.as_deref();
    let reading = Reading::new(arguments.skip_bad_rows, !arguments.no_token_cache, common);
    let jobs = jobs(arguments, model, common)?;
    let (mut written, mut origins) = (Vec::new(), Vec::new());
    for Job { task, index, split, files } in &jobs {
        // The file was there when the plan was made.
        let dataset = reading.with(|read| read_split_to_predict(model, *index, task, split, data_dir, read))?;
        let Some(dataset) = dataset else { continue };
        files.check_rows(&dataset)?;
        common.say(&format!("predicting {} {split}: {}", task.name, counted(dataset.len(), "example")));
        origins.push(dataset.origin().clone());
        tell_losses(&task.name, split, &dataset, model.max_length(*index), common);
        let predictions = model.predict_dataset(*index, &dataset)?;
        // The model's own definition knows labels that the file leaves to it.
        let own = model.tasks().nth(*index).unwrap_or(task);
        files.write(own, &dataset, Map::new(), &predictions, common)?;
        written.push(files.json(task, split, dataset.len()));
    }
    reading.tell_origins(&origins, common);
    if common.json {
        let value: Value = json!({"model": arguments.model, "files": written});
        return print(&value.to_string());
    }
    Ok(())
}

fn jobs(arguments: &Arguments, model: &MultiTaskModel, common: &Common) -> Result<Vec<Job>, Failure> {
    let mut plan = Plan::new(&arguments.files)?;
    let files: Vec<TaskFile> = arguments.tasks.iter().map(TaskFile::read).collect::<Result<_, Error>>()?;
    check_names(&arguments.task, &files.iter().collect::<Vec<_>>())?;
    let chosen = |task: &&TaskDef| arguments.task.is_empty() || arguments.task.contains(&task.name);
    let mut jobs = Vec::new();
    for task in files.iter().flat_map(|file| &file.tasks).filter(chosen) {
        let index = own_task(model, task)?;
        let before = jobs.len();
        for split in splits(task, &arguments.split) {
            if let Some(path) = task.data_file(split, arguments.data_dir.as_deref())? {
                let own = model.tasks().nth(index).unwrap_or(task);
                let files = plan.add(own, split, &path)?;
                jobs.push(Job { task: task.clone(), index, split: split.to_string(), files });
            }
        }
        if jobs.len() == before {
            common.say(&format!("{} has no file for the split '{}': left out", task.name, arguments.split));
        }
    }
    if jobs.is_empty() {
        let message = format!("no task has a file for the split '{}'; name it under data:", arguments.split);
        return Err(Error::argument("--split", message).into());
    }
    Ok(jobs)
}

/// The split of that name, or where the task's splits have parts (`matched_test`, `mismatched_test`) all of them.
fn splits<'t>(task: &'t TaskDef, wanted: &'t str) -> Vec<&'t str> {
    let is_part = |name: &&String| name.strip_suffix(wanted).is_some_and(|part| part.ends_with('_'));
    let parts: Vec<&str> = task.split_names.iter().filter(is_part).map(String::as_str).collect();
    let whole = parts.is_empty() || task.split_names.iter().any(|name| name == wanted);
    if whole { vec![wanted] } else { parts }
}
