//! A task definition file: a mapping from task names to their definitions, in the file's order.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::TaskDef;
use super::message::shown;
use super::yaml::{self, Value};
use crate::{Error, Result};

/// Names go into file and tensor names; a file system ends at 255 bytes.
const MAX_NAME: usize = 100;

/// The tasks of a run, in the order in which the file defines them.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskFile {
    /// Where it was read; paths in it are relative to its folder.
    pub path: PathBuf,
    /// At least one; names are unique.
    pub tasks: Vec<TaskDef>,
}

impl TaskFile {
    /// Reads and checks the file at `path`. It must be UTF-8 and at most 1 MiB.
    pub fn read(path: impl AsRef<Path>) -> Result<TaskFile> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        // One byte more than allowed, so that the parser sees that there is too much.
        file.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
        TaskFile::parse_bytes(path, &bytes)
    }

    /// The same from bytes in memory; `path` names them in messages and is what data paths are relative to.
    pub fn parse_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<TaskFile> {
        let path = path.as_ref();
        match std::str::from_utf8(bytes) {
            Ok(text) => TaskFile::parse(path, text),
            Err(_) if bytes.len() > yaml::MAX_BYTES => {
                let message = format!("the file is larger than {} bytes; is this the task file?", yaml::MAX_BYTES);
                Err(Error::input(path, None, message))
            }
            Err(_) if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) => {
                Err(Error::input(path, 1, "the file is UTF-16; save it as UTF-8"))
            }
            Err(e) => {
                let line = 1 + bytes.iter().take(e.valid_up_to()).filter(|byte| **byte == b'\n').count();
                Err(Error::input(path, line, "not valid UTF-8; save the file as UTF-8"))
            }
        }
    }

    /// The same from a text in memory.
    pub fn parse(path: impl AsRef<Path>, text: &str) -> Result<TaskFile> {
        let path = path.as_ref();
        let root = yaml::parse(path, text)?;
        let entries = match &root.value {
            Value::Map(entries) if !entries.is_empty() => entries,
            Value::Map(_) => return Err(Error::input(path, None, yaml::EMPTY)),
            Value::Scalar { text, quoted: false } if text.is_empty() => {
                return Err(Error::input(path, None, yaml::EMPTY));
            }
            _ => {
                let found = root.described();
                let message = format!("expected a mapping from task names to their definitions, found {found}");
                return Err(Error::input(path, root.line, message));
            }
        };
        let mut tasks = Vec::with_capacity(entries.len());
        for entry in entries {
            check_name(&entry.key).map_err(|message| Error::input(path, entry.line, message))?;
            tasks.push(TaskDef::from_yaml(path, &entry.key, entry.line, &entry.value)?);
        }
        Ok(TaskFile { path: path.to_path_buf(), tasks })
    }

    /// The task called `name`.
    pub fn task(&self, name: &str) -> Option<&TaskDef> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

/// A task's name becomes part of file names, tensor names and tables.
fn check_name(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("a task has an empty name; give it one".into());
    }
    if name.len() > MAX_NAME {
        return Err(format!("the task name {} is longer than {MAX_NAME} bytes; shorten it", shown(name)));
    }
    let reason = |c: char| match c {
        '_' => Some("files are named {task}_{split}, so the name must end at the first '_'"),
        '/' | '\\' => Some("the name is part of file names"),
        '.' => Some("tensors are named heads.{task}.out.weight, so the name must not hold a '.'"),
        c if c.is_whitespace() || c.is_control() => Some("the name is a word in tables and on the command line"),
        _ => None,
    };
    for c in name.chars() {
        if let Some(why) = reason(c) {
            let name = shown(name);
            return Err(format!("the task name {name} contains {}: {why}; rename the task", shown(&c.to_string())));
        }
    }
    Ok(())
}
