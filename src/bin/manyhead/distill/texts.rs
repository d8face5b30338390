//! Texts without labels, as `--text` names them: which tasks get which lines.

use std::path::{Path, PathBuf};

use manyhead::Error;
use manyhead::data::readers::Content;
use manyhead::tasks::{DataFormat, TaskDef};

use super::super::common::{Chunks, Failure};

/// The files, and how their lines are dealt.
pub struct Texts<'a> {
    pub files: &'a [PathBuf],
    /// There are tasks of pairs and others: lines with a TAB are the first ones', lines without the others'.
    mixed: bool,
}

/// Whether lines of text are samples of a task: not of one that ranks candidates.
pub fn takes_texts(task: &TaskDef) -> bool {
    task.data_format != DataFormat::PremiseAndMultiHypothesis
}

fn has_pairs(task: &TaskDef) -> bool {
    task.data_format == DataFormat::PremiseAndOneHypothesis
}

impl<'a> Texts<'a> {
    /// For all of these tasks.
    ///
    /// # Errors
    /// Standard input, which can be read once only.
    pub fn new(files: &'a [PathBuf], tasks: &[TaskDef]) -> Result<Texts<'a>, Failure> {
        if files.iter().any(|file| file == Path::new("-")) {
            let message = "texts are read once for each teacher and task, which standard input cannot be; give a file";
            return Err(Error::argument("--text", message).into());
        }
        let takers = || tasks.iter().filter(|task| takes_texts(task));
        Ok(Texts { files, mixed: takers().any(has_pairs) && takers().any(|task| !has_pairs(task)) })
    }

    /// The lines that are samples of a task which takes them: a text, a pair parted by TAB, words parted by blanks. None is an
    /// error, unless the lines may be those of other tasks.
    pub fn of(&self, task: &TaskDef) -> Result<Vec<Content>, Failure> {
        let mut contents = Vec::new();
        for path in self.files {
            let mut chunks = Chunks::open(path, usize::MAX)?;
            loop {
                let lines = chunks.read()?;
                if lines.is_empty() {
                    break;
                }
                for (number, line) in lines.into_iter().filter(|(_, line)| !line.trim().is_empty()) {
                    let own = self.content(task, &line).map_err(|message| Error::input(path, number, message))?;
                    contents.extend(own);
                }
            }
        }
        if contents.is_empty() && !self.mixed {
            return Err(self.none().into());
        }
        Ok(contents)
    }

    /// That no file has any text.
    pub fn none(&self) -> Error {
        let names: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        Error::argument("--text", format!("there is no text in {}", names.join(", ")))
    }

    /// A line as a sample of a task, if it is one.
    fn content(&self, task: &TaskDef, line: &str) -> Result<Option<Content>, String> {
        if has_pairs(task) {
            let parts: Vec<&str> = line.split('\t').collect();
            return match parts.as_slice() {
                [premise, hypothesis] => Ok(Some(Content::texts(*premise, Some(hypothesis)))),
                [_] if self.mixed => Ok(None),
                [_] => Err(format!("task '{}' has pairs of texts; part them by TAB", task.name)),
                _ => Err(format!("task '{}' has pairs of texts, and there are {} columns", task.name, parts.len())),
            };
        }
        if self.mixed && line.contains('\t') {
            return Ok(None);
        }
        Ok(Some(match task.data_format {
            DataFormat::Sequence => Content::Words(line.split_whitespace().map(String::from).collect()),
            _ => Content::texts(line, None),
        }))
    }
}
