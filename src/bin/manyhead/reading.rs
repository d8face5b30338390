//! How `train`, `eval`, `predict` and `demo` read data: through the token cache, telling how far they are.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use manyhead::data::readers::BadRows;
use manyhead::data::{Origin, ReadEvent, ReadOptions};

use super::common::{Common, counted, tell};

/// A line about tokenising at most this often.
const PAUSE: Duration = Duration::from_secs(5);

/// Lends [`ReadOptions`], and keeps what they borrow.
pub struct Reading {
    cache: Option<PathBuf>,
    bad_rows: BadRows,
    quiet: bool,
    spoken: Cell<Instant>,
}

impl Reading {
    /// `use_cache` false: everything in memory.
    pub fn new(skip_bad_rows: bool, use_cache: bool, common: &Common) -> Reading {
        // Without a home folder there is no cache, and none is needed.
        let cache = if use_cache { common.cache_folder().ok() } else { None };
        let bad_rows = if skip_bad_rows { BadRows::Skip } else { BadRows::Refuse };
        Reading { cache, bad_rows, quiet: common.quiet, spoken: Cell::new(Instant::now()) }
    }

    /// Calls `read` with the options.
    pub fn with<T>(&self, read: impl FnOnce(ReadOptions<'_>) -> T) -> T {
        let progress = |event: ReadEvent<'_>| match event {
            ReadEvent::Rows { path, rows } if !self.quiet && self.spoken.get().elapsed() > PAUSE => {
                tell(&format!("tokenising {}: {}", path.display(), counted(rows, "row")));
                self.spoken.set(Instant::now());
            }
            ReadEvent::Waiting { path } if !self.quiet => {
                tell(&format!("waiting for another process that is tokenising {}", path.display()));
            }
            _ => {}
        };
        read(ReadOptions {
            bad_rows: self.bad_rows,
            cache: self.cache.as_deref(),
            progress: Some(&progress),
            typos: None,
        })
    }

    /// One line about where the tokens of all splits of a run are, and one a trouble.
    pub fn tell_origins<'d>(&self, origins: impl IntoIterator<Item = &'d Origin>, common: &Common) {
        let (mut found, mut built, mut refused) = (0, 0, None);
        for origin in origins {
            match origin {
                Origin::Cached => found += 1,
                Origin::Built(None) => built += 1,
                Origin::Built(Some(damage)) => {
                    built += 1;
                    common.say(&format!("token cache: an entry was damaged and has been made anew ({damage})"));
                }
                Origin::NoCache(reason) => refused = Some(reason),
                Origin::Memory => {}
            }
        }
        if let Some(folder) = self.cache.as_ref().filter(|_| found + built > 0) {
            let found = counted(found, "file");
            common.say(&format!("tokens: {found} from the cache, {built} made now ({})", folder.display()));
        }
        if let Some(reason) = refused {
            common.say(&format!("token cache: not used, the tokens are held in memory ({reason})"));
        }
    }
}
