//! Which of several kernels is fastest at a problem, as the device's clock says; kept in memory and on disk.
//!
//! Only kernels whose results have the same bits may be chosen among: what is chosen depends on the machine and the moment,
//! and numbers must not. A device chooses by time once [`Cuda::tune`] has been called; without, and wherever no time can be
//! taken (the software GPU has no clock), the rule of whoever asks holds.
//!
//! A file has the choices of one file of kernels on one device: a line that says what it is, a line with the hash of all that
//! follows, the device, and a line for each problem. One that is damaged or another device's is made anew.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::compile::{self, Kernels};
use super::{Cuda, driver, locked};
use crate::error::Result;

/// What is to be done by one of several kernels: the file they are in, which form of product it is, and its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// The file of kernels, and the kind of numbers.
    pub kernels: Kernels,
    /// The form, one word.
    pub form: &'static str,
    /// Its sizes.
    pub sizes: [usize; 4],
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.sizes;
        write!(f, "{} {a} {b} {c} {d}", self.form)
    }
}

/// What each kernel took, in seconds, and the name of the fastest: of a file, or of memory.
type Kept = BTreeMap<String, String>;

/// What times are taken by.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// Nothing: the rule holds.
    None,
    /// Events of the device.
    Events,
    /// What a test says of a kernel, which is run once.
    #[cfg(test)]
    Given(fn(usize) -> Option<f64>),
}

/// What is known of a device's kernels.
pub struct Tuning {
    clock: Clock,
    /// The device, its driver, what the kernels are made by.
    device: String,
    folder: Option<PathBuf>,
    /// By problem the place of the kernel that is taken.
    known: HashMap<Problem, usize>,
    /// What the files hold, as they were read or written last.
    kept: HashMap<Kernels, Kept>,
}

/// How often each kernel is timed, after a first time that does not count; of an odd number there is a median.
const ROUNDS: usize = 5;
/// By how much a kernel must be faster than the rule's: less is noise.
const GAIN: f64 = 0.97;

impl Tuning {
    /// `device`: all that a time depends on beside the kernels' text. Without a folder, choices live as long as this.
    pub fn new(device: String, folder: Option<PathBuf>, clock: Clock) -> Tuning {
        Tuning { clock, device, folder, known: HashMap::new(), kept: HashMap::new() }
    }

    /// The kernel that was chosen before, here or in another process: its place in `names`.
    pub fn known(&mut self, problem: &Problem, names: &[&str], source: impl FnOnce() -> String) -> Option<usize> {
        if let Some(known) = self.known.get(problem) {
            return Some(*known);
        }
        if !self.kept.contains_key(&problem.kernels) {
            let kept = self.place(problem.kernels, source()).and_then(|(path, head)| read(&path, &head));
            self.kept.insert(problem.kernels, kept.unwrap_or_default());
        }
        let name = self.kept.get(&problem.kernels)?.get(&problem.to_string())?;
        let place = names.iter().position(|known| known == name)?;
        self.known.insert(*problem, place);
        Some(place)
    }

    /// Times `count` kernels with `seconds`, in turns, and gives the one with the least median: that of the `rule` unless
    /// another is faster by 3 %. None if one of them cannot be timed.
    pub fn fastest(count: usize, rule: usize, mut seconds: impl FnMut(usize) -> Option<f64>) -> Option<usize> {
        let mut times = vec![Vec::with_capacity(ROUNDS); count];
        for round in 0..=ROUNDS {
            for (kernel, times) in times.iter_mut().enumerate() {
                let time = seconds(kernel).filter(|time| time.is_finite() && *time > 0.0)?;
                if round > 0 {
                    times.push(time);
                }
            }
        }
        let medians = times.into_iter().map(|mut times| {
            times.sort_by(f64::total_cmp);
            times.get(ROUNDS / 2).copied()
        });
        let medians: Vec<f64> = medians.collect::<Option<_>>()?;
        let (best, least) = medians.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1))?;
        let by_rule = medians.get(rule)?;
        Some(if *least < GAIN * by_rule { best } else { rule })
    }

    /// Keeps a choice in memory; and on disk, if it is one of time.
    pub fn keep(&mut self, problem: &Problem, place: usize, timed: Option<&str>, source: impl FnOnce() -> String) {
        self.known.insert(*problem, place);
        let Some(name) = timed else { return };
        let kept = self.kept.entry(problem.kernels).or_default();
        kept.insert(problem.to_string(), name.to_string());
        let kept = kept.clone();
        let Some((path, head)) = self.place(problem.kernels, source()) else { return };
        // What another process has chosen meanwhile stays.
        let mut all = read(&path, &head).unwrap_or_default();
        all.extend(kept);
        // A cache that cannot be written to costs time, nothing else.
        let _ = compile::replace(&path, &encode(&head, &all));
        self.kept.insert(problem.kernels, all);
    }

    /// Where the choices of some kernels are kept, and the line that the file must have. `source`: what stands for the
    /// kernels' text and its compiler.
    fn place(&self, kernels: Kernels, source: String) -> Option<(PathBuf, String)> {
        let head = format!("{}; {source}", self.device);
        let name = format!("{}-{}-{:032x}", kernels.file, kernels.numbers.name(), xxh3_128(head.as_bytes()));
        Some((self.folder.as_ref()?.join("tuning").join(name), head))
    }
}

const MAGIC: &str = "manyhead tuning 1";
/// A file of choices has some thousand lines at most; one that is larger is not ours.
const MOST_BYTES: u64 = 1 << 20;

fn encode(head: &str, kept: &Kept) -> Vec<u8> {
    let lines: String = kept.iter().map(|(problem, name)| format!("{problem} = {name}\n")).collect();
    let rest = format!("{head}\n{lines}");
    format!("{MAGIC}\n{:016x}\n{rest}", xxh3_64(rest.as_bytes())).into_bytes()
}

fn decode(text: &str, head: &str) -> Option<Kept> {
    let rest = text.strip_prefix(MAGIC)?.strip_prefix('\n')?;
    let (hash, rest) = rest.split_once('\n')?;
    if hash != format!("{:016x}", xxh3_64(rest.as_bytes())) {
        return None;
    }
    let lines = rest.strip_prefix(head)?.strip_prefix('\n')?;
    lines.lines().map(|line| line.split_once(" = ").map(|(problem, name)| (problem.into(), name.into()))).collect()
}

fn read(path: &Path, head: &str) -> Option<Kept> {
    let size = std::fs::metadata(path).ok().filter(|found| found.is_file())?.len();
    if size > MOST_BYTES {
        return None;
    }
    decode(&std::fs::read_to_string(path).ok()?, head)
}

/// Launches between two marks: enough that the host is not what is timed.
const LAUNCHES: usize = 8;

impl Cuda {
    /// From now on this device, and all handles to it, choose by time among kernels whose results have the same bits: each
    /// problem is timed when it first comes, which takes about a millisecond, and the choice is kept in the cache folder, for
    /// this device, driver and version of the kernels. Nothing changes where no times can be taken.
    pub fn tune(&self) {
        // The events of the software GPU have the host's clock.
        let clock = if self.name().contains("Software") { Clock::None } else { Clock::Events };
        self.tune_by(clock, self.inner.cache.clone());
    }

    pub(crate) fn tune_by(&self, clock: Clock, folder: Option<PathBuf>) {
        let inner = &self.inner;
        let (name, arch, driver) = (&inner.name, inner.arch, driver::version());
        let device = format!("{name}, sm_{arch}, {} multiprocessors, driver {driver}", inner.multiprocessors);
        let _ = inner.tuning.set(Tuning::new(device.replace('\n', " "), folder, clock).into());
    }

    /// Whether choices are made by time.
    pub fn is_tuned(&self) -> bool {
        self.inner.tuning.get().is_some()
    }

    /// The place of the kernel that is taken for a problem, of those in `names`, whose results have the same bits; that of the
    /// `rule` where none is chosen by time. `prepare` makes what launches one of them: into memory of its own, again and again.
    pub(crate) fn fastest<R: Fn(usize) -> Result<()>>(
        &self,
        problem: &Problem,
        names: &[&str],
        rule: usize,
        prepare: impl FnOnce() -> Result<R>,
    ) -> usize {
        let Some(tuning) = self.inner.tuning.get() else { return rule };
        let source = || compile::identity(problem.kernels, self.inner.driver_version, self.inner.arch);
        let mut tuning = locked(tuning);
        if let Some(known) = tuning.known(problem, names, source) {
            return known;
        }
        let timed = match tuning.clock {
            Clock::None => None,
            clock => prepare()
                .ok()
                .and_then(|run| Tuning::fastest(names.len(), rule, |kernel| self.seconds(clock, kernel, &run))),
        };
        let chosen = timed.unwrap_or(rule);
        tuning.keep(problem, chosen, timed.and_then(|place| names.get(place).copied()), source);
        chosen
    }

    /// What one of several launches takes that follow each other.
    fn seconds(&self, clock: Clock, kernel: usize, run: impl Fn(usize) -> Result<()>) -> Option<f64> {
        let driver = &self.inner.driver;
        match clock {
            Clock::None => None,
            Clock::Events => {
                // Kept for a graph, launches would come with what it takes to make one.
                let marks = self.inner.without_graphs(|| {
                    let start = driver.mark().ok()?;
                    (0..LAUNCHES).try_for_each(|_| run(kernel)).ok()?;
                    Some((start, driver.mark().ok()?))
                });
                let (start, end) = marks.ok()??;
                driver.seconds_between(&start, &end).ok().map(|seconds| seconds / LAUNCHES as f64)
            }
            #[cfg(test)]
            Clock::Given(clock) => run(kernel).ok().and_then(|()| clock(kernel)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::device::Dtype;

    const NAMES: [&str; 3] = ["large", "middle", "small"];

    fn problem(form: &'static str, rows: usize) -> Problem {
        Problem { kernels: ("linear_mma", Dtype::Bf16).into(), form, sizes: [rows, 384, 384, 1] }
    }

    fn of(device: &str, folder: &Path) -> Tuning {
        Tuning::new(device.into(), Some(folder.into()), Clock::None)
    }

    fn source() -> String {
        "kernels 1".into()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(folder.join("tuning")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn the_fastest_wins_by_its_median_and_by_more_than_noise() {
        let clock = |times: [f64; 3]| move |kernel: usize| Some(times[kernel]);
        assert_eq!(Tuning::fastest(3, 0, clock([3.0, 2.0, 1.0])), Some(2));
        assert_eq!(Tuning::fastest(3, 0, clock([3.0, 1.0, 2.0])), Some(1));
        assert_eq!(Tuning::fastest(3, 2, clock([1.0, 3.0, 1.02])), Some(2), "2 % are noise");
        assert_eq!(Tuning::fastest(3, 2, clock([1.0, 3.0, 1.05])), Some(0));
        // The first kernel is slow when it is first run, twice more by accident, and fast otherwise.
        let calls = Cell::new(0);
        let accidents = |kernel: usize| {
            let round = calls.get() / 3;
            calls.set(calls.get() + 1);
            Some(if kernel > 0 {
                2.0
            } else if [0, 2, 4].contains(&round) {
                100.0
            } else {
                1.0
            })
        };
        assert_eq!(Tuning::fastest(3, 1, accidents), Some(0));
        assert_eq!(calls.get(), 3 * (ROUNDS + 1));
    }

    #[test]
    fn what_cannot_be_timed_is_not_chosen() {
        for wrong in [None, Some(f64::NAN), Some(0.0), Some(-1.0), Some(f64::INFINITY)] {
            assert_eq!(Tuning::fastest(3, 1, |kernel| if kernel == 2 { wrong } else { Some(1.0) }), None, "{wrong:?}");
        }
        assert_eq!(Tuning::fastest(0, 0, |_| Some(1.0)), None);
        assert_eq!(Tuning::fastest(2, 2, |_| Some(1.0)), None, "there is no such rule");
    }

    #[test]
    fn choices_are_read_back_by_the_same_device_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = of("one", folder.path());
        let [a, b] = [problem("forward", 128), problem("forward", 256)];
        assert_eq!(first.known(&a, &NAMES, source), None);
        first.keep(&a, 2, Some(NAMES[2]), source);
        first.keep(&b, 1, None, source);
        assert_eq!([a, b].map(|problem| first.known(&problem, &NAMES, source)), [Some(2), Some(1)]);
        let mut again = of("one", folder.path());
        assert_eq!(again.known(&a, &NAMES, source), Some(2));
        assert_eq!(again.known(&b, &NAMES, source), None, "what was not timed is not kept");
        assert_eq!(again.known(&problem("backward", 128), &NAMES, source), None);
        // Its name is what is kept, not its place; one that is gone is timed anew.
        assert_eq!(of("one", folder.path()).known(&a, &["small", "other"], source), Some(0));
        assert_eq!(of("one", folder.path()).known(&a, &["other"], source), None);
        // Another device, other kernels, other numbers.
        assert_eq!(of("two", folder.path()).known(&a, &NAMES, source), None);
        assert_eq!(of("one", folder.path()).known(&a, &NAMES, || "kernels 2".into()), None);
        let narrow = Problem { kernels: ("linear_mma", Dtype::F16).into(), ..a };
        assert_eq!(of("one", folder.path()).known(&narrow, &NAMES, source), None);
        assert_eq!(files(folder.path()).len(), 1);
    }

    #[test]
    fn two_processes_keep_what_both_have_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (of("one", folder.path()), of("one", folder.path()));
        let [a, b] = [problem("forward", 128), problem("forward", 256)];
        assert!(one.known(&a, &NAMES, source).is_none() && other.known(&b, &NAMES, source).is_none());
        one.keep(&a, 0, Some(NAMES[0]), source);
        other.keep(&b, 1, Some(NAMES[1]), source);
        let mut third = of("one", folder.path());
        assert_eq!([a, b].map(|problem| third.known(&problem, &NAMES, source)), [Some(0), Some(1)]);
        assert_eq!(files(folder.path()).len(), 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_is_damaged_or_foreign_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let a = problem("forward", 128);
        of("one", folder.path()).keep(&a, 1, Some(NAMES[1]), source);
        let path = files(folder.path()).remove(0);
        let whole = std::fs::read(&path).unwrap();
        // That of another device, under this one's name.
        let foreign = encode("two; kernels 1", &Kept::from([(a.to_string(), "small".into())]));
        let mut damaged = vec![foreign, b"".to_vec(), b"something else\n".to_vec(), vec![0xff; 64]];
        damaged.extend((0..whole.len()).map(|end| whole[..end].to_vec()));
        damaged.extend((0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        }));
        damaged.push([&whole[..], &vec![b'x'; MOST_BYTES as usize]].concat());
        for bytes in damaged {
            std::fs::write(&path, &bytes).unwrap();
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
            let mut tuning = of("one", folder.path());
            assert_eq!(tuning.known(&a, &NAMES, source), None, "{shown}");
            tuning.keep(&a, 1, Some(NAMES[1]), source);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "{shown}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_costs_nothing_but_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let a = problem("forward", 128);
        for mut tuning in [of("one", &file), Tuning::new("one".into(), None, Clock::None)] {
            tuning.keep(&a, 2, Some(NAMES[2]), source);
            assert_eq!(tuning.known(&a, &NAMES, source), Some(2));
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
    }
}
