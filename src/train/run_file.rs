//! A run's options as a file: `run.yml`, one `flag: value` a line, so that a run can be repeated.

use std::path::Path;

use crate::error::{Error, Result};
use crate::interop::atomic;
use crate::tasks::yaml::{self, Value};

/// One option of a run file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOption {
    /// The flag without its dashes.
    pub name: String,
    /// Its value; None for a switch that is simply on (`true`).
    pub value: Option<String>,
    /// The line it stands on, counted from 1.
    pub line: usize,
}

/// Reads a run file. A switch that is `false` is left out.
///
/// # Errors
/// Anything but a mapping of names to single values.
pub fn read_run_file(path: &Path) -> Result<Vec<RunOption>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let Value::Map(entries) = yaml::parse(path, &text)?.value else {
        return Err(Error::input(path, 1, "expected one option a line, as in `epochs: 3`"));
    };
    let mut options = Vec::new();
    for entry in entries {
        let Value::Scalar { text, .. } = entry.value.value else {
            return Err(Error::input(path, entry.line, format!("option '{}' needs a single value", entry.key)));
        };
        let value = match text.as_str() {
            "false" => continue,
            "true" => None,
            _ => Some(text),
        };
        options.push(RunOption { name: entry.key, value, line: entry.line });
    }
    Ok(options)
}

/// Writes a run file from (flag, value) pairs.
pub fn write_run_file(path: &Path, options: &[(String, String)]) -> Result<()> {
    let mut text = String::from("# The options of this run; `--run FILE` repeats it.\n");
    for (name, value) in options {
        // JSON's strings are YAML's too; plain words and numbers stay as they are.
        let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+".contains(c));
        let value = if plain { value.clone() } else { serde_json::Value::from(value.as_str()).to_string() };
        text.push_str(&format!("{name}: {value}\n"));
    }
    atomic::write_bytes(path, text.as_bytes())
}
