//! What `bench` asks the system and the build.

use std::path::Path;
use std::process::Command;

/// The highest resident set of this process so far, in bytes; None where the system does not tell.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(1024 * kilobytes)
}

/// The system's load over the last minute; None where the system does not tell.
pub fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Whether the closest `Cargo.toml` above a folder is this program's own.
fn is_ours(folder: &Path) -> bool {
    let manifests = folder.ancestors().filter_map(|folder| std::fs::read_to_string(folder.join("Cargo.toml")).ok());
    manifests.take(1).any(|text| text.lines().any(|line| line == "name = \"manyhead\""))
}

/// The commit that this program was built from, if the build was told (`MANYHEAD_COMMIT`); else that of the checkout
/// in which the program lies; else None.
pub fn commit() -> Option<String> {
    if let Some(commit) = option_env!("MANYHEAD_COMMIT") {
        return Some(commit.into());
    }
    let program = std::env::current_exe().ok()?;
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    let output = git.current_dir(program.parent().unwrap_or(Path::new("."))).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && is_ours(program.parent()?) && !text.trim().is_empty()).then(|| text.trim().to_string())
}
