//! What a run leaves for people and programs to read: `log.jsonl`, `metrics.json`, `report.html`.
//!
//! - [`JsonlLog`]: one line for every batch, update and evaluation; the other two could be made from nothing else but
//!   the choice of the best epoch, which is the trainer's.
//! - [`MetricsFile`]: the evaluations alone, with their means and the best epoch.
//! - [`HtmlReport`]: one page with tables and charts, drawn by [`render`] from the two files above; it loads nothing.
//!
//! [`DomainCurve`] is a page of its own. [`summarise_seeds`] and [`compare`] put the `metrics.json` of several runs beside each other.
//!
//! All three are [`Observer`]s: they are told what happens, and write. [`observers`] gives them in the order that
//! they need. Metrics are fractions in files and ×100 on the page.
//!
//! A resumed run goes on from a checkpoint, but the files may know of events after it (the process was killed
//! later). What [`Event::Start`](crate::train::Event::Start) does not count as done is dropped from them, so that
//! they come to hold what an unbroken run's would.

mod chart;
mod curve;
mod entities;
mod html;
mod json;
mod log;
mod metrics;
mod read;
mod seeds;
pub mod statistics;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::error::{Error, Result};
use crate::train::Observer;

pub use curve::{CurvePoint, DomainCurve};
pub use entities::entities_json;
pub use html::{HtmlReport, render};
pub use log::JsonlLog;
pub use metrics::MetricsFile;
pub use seeds::{ComparedScore, Comparison, ScoreName, SeedScore, compare, run_scores, seed_folders, summarise_seeds};

/// The file names in an output folder.
pub const LOG: &str = "log.jsonl";
/// See [`MetricsFile`].
pub const METRICS: &str = "metrics.json";
/// See [`HtmlReport`].
pub const REPORT: &str = "report.html";

/// The three observers that write into `folder`, which is made if it is not there. With `resume` they go on with the
/// files that they find, otherwise they begin anew. `options` (name, value) are shown on the page.
///
/// # Errors
/// The folder or the log cannot be created.
pub fn observers(
    folder: impl AsRef<Path>,
    resume: bool,
    options: &[(String, String)],
) -> Result<Vec<Box<dyn Observer + Send>>> {
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
    let (log, metrics) = (folder.join(LOG), folder.join(METRICS));
    let report = HtmlReport::new(folder.join(REPORT), &log, options);
    let log = if resume { JsonlLog::resume(log) } else { JsonlLog::create(log)? };
    let metrics = if resume { MetricsFile::resume(metrics) } else { MetricsFile::create(metrics) };
    // The page is drawn from the two files, so they are written first.
    Ok(vec![Box::new(log), Box::new(metrics), Box::new(report)])
}
