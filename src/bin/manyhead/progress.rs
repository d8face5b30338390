//! Progress of a training run: a bar on a terminal, plain lines otherwise.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use manyhead::train::{Event, Observer, Totals};

use super::common::tell;
use super::table::EpochTable;

/// Shows tokens per second, the loss of each task, the learning rate and the time left, and a table after each epoch.
pub struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    totals: Totals,
    started: Instant,
    first_batch: u64,
    tokens: usize,
    batches: u64,
    /// Running mean of each task's loss.
    losses: BTreeMap<String, f64>,
    /// Batches that went without a term, by its name.
    dropped: BTreeMap<String, usize>,
    learning_rate: f64,
    spoken: Instant,
    spoken_at: u64,
    /// All evaluations so far.
    pub table: EpochTable,
}

/// A plain line at least after so long …
const LINE_SECONDS: Duration = Duration::from_secs(30);
/// … and about so many in a run.
const LINES: u64 = 20;

impl Progress {
    /// `quiet`: only collects the table.
    pub fn new(quiet: bool) -> Progress {
        Progress {
            quiet,
            bar: None,
            totals: Totals { epochs: 0, batches: 0, updates: 0 },
            started: Instant::now(),
            first_batch: 0,
            tokens: 0,
            batches: 0,
            losses: BTreeMap::new(),
            dropped: BTreeMap::new(),
            learning_rate: 0.0,
            spoken: Instant::now(),
            spoken_at: 0,
            table: EpochTable::default(),
        }
    }

    /// Clears the bar: the run is over, perhaps before its last batch.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.suspend(|| tell(line)),
            None => tell(line),
        }
    }

    fn start(&mut self, totals: Totals, batches_done: u64, updates_done: u64) {
        (self.totals, self.first_batch, self.batches) = (totals, batches_done, batches_done);
        self.started = Instant::now();
        self.spoken_at = batches_done;
        if updates_done > 0 {
            self.say(&format!("resuming after update {updates_done} of {}", totals.updates));
        }
        if !self.quiet && std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(totals.batches);
            // The template is a constant that indicatif accepts; without it the default style serves.
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} batches, {eta} left  {msg}") {
                bar.set_style(style);
            }
            bar.set_position(batches_done);
            self.bar = Some(bar);
        }
    }

    fn status(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let losses: Vec<String> = self.losses.iter().map(|(task, loss)| format!("{task} {loss:.3}")).collect();
        let speed = self.tokens as f64 / seconds;
        format!("{speed:.0} tokens/s  lr {:.2e}  loss: {}", self.learning_rate, losses.join(", "))
    }

    fn after_batch(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.batches);
            bar.set_message(self.status());
            return;
        }
        let due =
            (self.batches - self.spoken_at) * LINES >= self.totals.batches || self.spoken.elapsed() > LINE_SECONDS;
        if due && !self.quiet {
            let done = (self.batches - self.first_batch).max(1);
            let left = self.totals.batches.saturating_sub(self.batches);
            let seconds = self.started.elapsed().as_secs_f64() / done as f64 * left as f64;
            self.say(&format!(
                "batch {}/{}  {}  {} left",
                self.batches,
                self.totals.batches,
                self.status(),
                duration(seconds)
            ));
            (self.spoken, self.spoken_at) = (Instant::now(), self.batches);
        }
    }
}

/// Seconds for people.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

impl Observer for Progress {
    fn event(&mut self, event: &Event<'_>) -> manyhead::Result<()> {
        match event {
            Event::Start { totals, batches_done, updates_done, .. } => {
                self.start(*totals, *batches_done, *updates_done)
            }
            Event::Batch { task, loss, tokens, dropped, .. } => {
                self.tokens += tokens;
                self.batches += 1;
                let mean = self.losses.entry(task.to_string()).or_insert(*loss);
                *mean += 0.05 * (loss - *mean);
                for name in *dropped {
                    *self.dropped.entry(name.to_string()).or_default() += 1;
                }
                self.after_batch();
            }
            Event::Update { learning_rate, .. } => self.learning_rate = *learning_rate,
            Event::Evaluation { epoch, results, mean, best } => {
                for (name, count) in std::mem::take(&mut self.dropped) {
                    let message = "batch(es) of this epoch went without it: the gradient of its ascent was not finite";
                    self.say(&format!("{name}: {count} {message}"));
                }
                let title = epoch.map_or("before".to_string(), |epoch| format!("epoch {}", epoch + 1));
                self.table.add(title, *best, results, *mean);
                if !self.table.is_empty() {
                    self.say(&format!("\n{}", self.table.render()));
                }
            }
            Event::Message(message) => self.say(message),
            _ => {}
        }
        if let (Some(bar), true) = (&self.bar, self.batches >= self.totals.batches) {
            bar.finish_and_clear();
        }
        Ok(())
    }
}
