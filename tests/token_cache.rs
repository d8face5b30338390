//! The token cache: what comes out of it is what would have been read, whatever happened to it in between.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use manyhead::data::readers::{BadRows, Labels};
use manyhead::data::{Dataset, Origin, ReadEvent, ReadOptions};
use manyhead::tasks::{Label, TaskDef, TaskFile};
use manyhead::train::OptimizerKind;
use manyhead::{Device, Encoder, Error, Result, Trainer, TrainingData};
use support::{Record, World, options};

/// Counts what is allocated at a time, and the most that ever was since [`peak_of`] began.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Tests of this file run one after the other: the peak is of all threads.
static ALONE: Mutex<()> = Mutex::new(());

fn grow(size: usize) {
    PEAK.fetch_max(NOW.fetch_add(size, Relaxed) + size, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was allocated at a time, above what was there before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (result, PEAK.load(Relaxed) - before)
}

const TASKS: &str = "one:
  {data_format: PremiseOnly, task_type: Classification, n_class: 3, metric_meta: [ACC], enable_san: false}
many:
  {data_format: PremiseOnly, task_type: Classification, n_class: 3, multi_label: true, metric_meta: [F1MIC],
   enable_san: false}
value:
  {data_format: PremiseAndOneHypothesis, task_type: Regression, n_class: 1, metric_meta: [Pearson], enable_san: false}
rank:
  {data_format: PremiseAndMultiHypothesis, task_type: Ranking, n_class: 1, metric_meta: [MAP], enable_san: false}
tags:
  {data_format: Seqence, task_type: SeqenceLabeling, n_class: 3, labels: [O, B-A, I-A], metric_meta: [SeqEval],
   enable_san: false}
";
const FILES: [(&str, &str); 5] = [
    ("one", "a\t0\tw1 w2\nb\t2\tw3\nc\t1\tw4 w5 w6\n"),
    ("many", "a\t0,2\tw1\nb\t\tw2 w3\nc\t1\tw9\n"),
    ("value", "a\t0.5\tw1\tw2\nb\t-3\tw3 w4\tw5\n"),
    ("rank", "a\tx,y,z\t0,1,0\tw1\tw2\tw3\tw4\nb\tx,y\t1,0\tw5\tw6\tw7\n"),
    ("tags", "a\t['B-A', 'I-A', 'O']\t['w1', 'w2', 'w3']\nb\t['O']\t['w4']\n"),
];

/// A tiny model, a task of every kind, and a cache.
struct Fixture {
    world: World,
    encoder: Encoder,
    tasks: Vec<TaskDef>,
    cache: PathBuf,
}

impl Fixture {
    fn new() -> Fixture {
        let world = World::new();
        for (task, text) in FILES {
            fs::write(world.path(&format!("{task}.tsv")), text).unwrap();
        }
        let encoder = Encoder::load(world.path("model"), &Device::cpu(2).unwrap()).unwrap();
        let tasks = TaskFile::parse(world.path("tasks.yml"), TASKS).unwrap().tasks;
        let cache = world.path("cache");
        Fixture { world, encoder, tasks, cache }
    }

    fn file(&self, task: usize) -> PathBuf {
        self.world.path(&format!("{}.tsv", FILES[task].0))
    }

    fn read_with(&self, task: &TaskDef, path: &Path, options: ReadOptions<'_>, length: usize) -> Result<Dataset> {
        let (tokenizer, device) = (self.encoder.tokenizer(), self.encoder.device());
        Dataset::read(task, path, Labels::Required, &options, tokenizer, length, device.host())
    }

    /// Through the cache.
    fn read(&self, task: usize) -> Dataset {
        let options = ReadOptions { cache: Some(&self.cache), ..Default::default() };
        self.read_with(&self.tasks[task], &self.file(task), options, 16).unwrap()
    }

    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache.join("tokens")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// The folder of the only entry.
    fn entry(&self) -> PathBuf {
        let names = self.entries();
        assert_eq!(names.len(), 1, "{names:?}");
        self.cache.join("tokens").join(&names[0])
    }
}

/// Everything a data set can be asked for.
fn all_of(dataset: &Dataset) -> String {
    let examples: Vec<u32> = (0..dataset.len() as u32).rev().collect();
    let uids: Vec<&str> = examples.iter().map(|i| dataset.uid(*i as usize)).collect();
    let lengths: Vec<usize> = examples.iter().map(|i| dataset.length(*i as usize)).collect();
    format!(
        "{uids:?} {lengths:?} {:?} {:?} {:?} {} {} {} {} {:?} {:x}",
        dataset.batch(&examples).unwrap(),
        dataset.labels(&examples).unwrap(),
        dataset.soft_labels(&examples).unwrap(),
        dataset.tokens(),
        dataset.truncated(),
        dataset.truncated_words(),
        dataset.empty_words(),
        dataset.skipped(),
        dataset.fingerprint()
    )
}

#[test]
fn a_cached_data_set_of_every_kind_is_the_one_held_in_memory() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    for (task, (name, _)) in FILES.iter().enumerate() {
        let file = fixture.file(task);
        let held = fixture.read_with(&fixture.tasks[task], &file, ReadOptions::default(), 16).unwrap();
        assert_eq!(held.origin(), &Origin::Memory);
        let (built, found) = (fixture.read(task), fixture.read(task));
        assert_eq!((built.origin(), found.origin()), (&Origin::Built(None), &Origin::Cached), "{name}");
        assert_eq!(all_of(&built), all_of(&held), "{name}");
        assert_eq!(all_of(&found), all_of(&held), "{name}");
    }
}

#[test]
fn what_decides_the_tokens_is_in_the_key_and_nothing_else() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    let options = ReadOptions { cache: Some(&fixture.cache), ..Default::default() };
    let task = &fixture.tasks[4];
    let read = |task: &TaskDef, path: &Path, options: ReadOptions<'_>, length: usize| {
        fixture.read_with(task, path, options, length).unwrap().origin().clone()
    };
    let file = fixture.file(4);
    assert_eq!(read(task, &file, options, 16), Origin::Built(None));
    // What has no part in it: where the file lies, and how the task is trained.
    let copy = fixture.world.path("copy.tsv");
    fs::copy(&file, &copy).unwrap();
    assert_eq!(read(task, &copy, options, 16), Origin::Cached);
    let trained = TaskDef { weight: 3.0, dropout_p: Some(0.5), metrics: vec!["ACC".into()], ..task.clone() };
    assert_eq!(read(&trained, &file, options, 16), Origin::Cached);
    // What has.
    let relabelled = TaskDef { labels: Some(["O", "I-A", "B-A"].map(String::from).to_vec()), ..task.clone() };
    assert_eq!(read(&relabelled, &file, options, 16), Origin::Built(None));
    assert_eq!(read(task, &file, options, 4), Origin::Built(None));
    let lenient = ReadOptions { bad_rows: BadRows::Skip, ..options };
    assert_eq!(read(task, &file, lenient, 16), Origin::Built(None));
    fs::write(&copy, FILES[4].1.replace("w4", "w5")).unwrap();
    assert_eq!(read(task, &copy, options, 16), Origin::Built(None));
    // Another tokenizer: one more word.
    let vocabulary = fixture.world.path("model").join("vocab.txt");
    fs::write(&vocabulary, fs::read_to_string(&vocabulary).unwrap().replace("w7\n", "w_7\n")).unwrap();
    let other = Encoder::load(fixture.world.path("model"), &Device::cpu(1).unwrap()).unwrap();
    let (tokenizer, device) = (other.tokenizer(), other.device());
    let found = Dataset::read(task, &file, Labels::Required, &options, tokenizer, 16, device.host()).unwrap();
    assert_eq!(found.origin(), &Origin::Built(None));
    assert_eq!(read(task, &file, options, 16), Origin::Cached, "the first entry is still there");
}

#[test]
fn a_damaged_entry_is_built_anew() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    let expected = all_of(&fixture.read(3));
    let entry = fixture.entry();
    let names: Vec<_> = fs::read_dir(&entry).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 14, "thirteen columns and a manifest: {names:?}");
    let damages: [fn(&Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"").unwrap(),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.pop();
            fs::write(path, bytes).unwrap();
        },
        |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(path, bytes).unwrap();
        },
    ];
    for path in &names {
        for (i, damage) in damages.iter().enumerate() {
            if fs::metadata(path).unwrap().len() == 0 && i > 0 {
                continue;
            }
            damage(path);
            let dataset = fixture.read(3);
            let place = format!("{} {i}: {:?}", path.display(), dataset.origin());
            assert!(matches!(dataset.origin(), Origin::Built(Some(_))), "{place}");
            assert_eq!(all_of(&dataset), expected, "{place}");
            assert_eq!(fixture.read(3).origin(), &Origin::Cached, "{place}");
        }
    }
    // A manifest that fits the files, which do not fit each other.
    let manifest = entry.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut swapped = value.clone();
    swapped["columns"]["groups"] = value["columns"]["offsets"].clone();
    fs::copy(entry.join("offsets"), entry.join("groups")).unwrap();
    fs::write(&manifest, swapped.to_string()).unwrap();
    let dataset = fixture.read(3);
    assert!(matches!(dataset.origin(), Origin::Built(Some(why)) if why.contains("groups")), "{:?}", dataset.origin());
    assert_eq!(all_of(&dataset), expected);
}

#[test]
fn a_half_built_entry_is_cleared_and_a_bad_row_leaves_none() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    let key = {
        fixture.read(0);
        fixture.entry().file_name().unwrap().to_str().unwrap().to_string()
    };
    let tokens = fixture.cache.join("tokens");
    fs::rename(tokens.join(&key), tokens.join(format!(".{key}.build"))).unwrap();
    assert_eq!(fixture.read(0).origin(), &Origin::Built(None));
    assert!(!tokens.join(format!(".{key}.build")).exists());
    // An error of the data is the caller's, not a reason to do without the cache.
    let broken = fixture.world.path("broken.tsv");
    fs::write(&broken, "a\t0\tw1\nb\t9\tw2\n").unwrap();
    let options = ReadOptions { cache: Some(&fixture.cache), ..Default::default() };
    let error = fixture.read_with(&fixture.tasks[0], &broken, options, 16).unwrap_err().to_string();
    assert!(error.contains("broken.tsv:2"), "{error}");
    let left: Vec<_> = fs::read_dir(&tokens).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.ends_with(".build")), "{left:?}");
    assert_eq!(fixture.entries(), [key]);
    let gone = fixture.read_with(&fixture.tasks[0], &fixture.world.path("none.tsv"), options, 16).unwrap_err();
    assert!(matches!(gone, Error::Io { action: "read", .. }), "{gone}");
}

#[test]
fn a_file_that_changes_while_it_is_read_leaves_no_entry() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    let path = fixture.world.path("changing.tsv");
    let rows = |label: usize| (0..60_000).map(|i| format!("row{i}\t{label}\tw1 w2\n")).collect::<String>();
    fs::write(&path, rows(1)).unwrap();
    let changed = std::cell::Cell::new(false);
    let progress = |_: ReadEvent<'_>| {
        if !changed.replace(true) {
            // In place, and as long as before: neither its size nor its name tells.
            fs::write(&path, rows(2)).unwrap();
        }
    };
    let options = ReadOptions { cache: Some(&fixture.cache), progress: Some(&progress), ..Default::default() };
    let error = fixture.read_with(&fixture.tasks[0], &path, options, 16).unwrap_err().to_string();
    assert!(error.contains("changed while it was being read"), "{error}");
    assert_eq!(fixture.entries(), [""; 0]);
    fs::write(&path, rows(1)).unwrap();
    let dataset = fixture.read_with(&fixture.tasks[0], &path, options, 16).unwrap();
    assert_eq!(dataset.origin(), &Origin::Built(None));
    let all: Vec<u32> = (0..60_000).collect();
    assert!(dataset.labels(&all).unwrap().iter().all(|label| *label == Label::Class(1)));
}

#[test]
fn a_cache_that_cannot_be_written_costs_memory_and_not_the_run() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    fs::write(&fixture.cache, "a file where the folder should be").unwrap();
    let dataset = fixture.read(1);
    assert!(matches!(dataset.origin(), Origin::NoCache(why) if why.contains("cache")), "{:?}", dataset.origin());
    let held = fixture.read_with(&fixture.tasks[1], &fixture.file(1), ReadOptions::default(), 16).unwrap();
    assert_eq!(all_of(&dataset), all_of(&held));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_once_and_not_cached() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    let pipe = fixture.world.path("pipe.tsv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let options = ReadOptions { cache: Some(&fixture.cache), ..Default::default() };
    let dataset = std::thread::scope(|scope| {
        scope.spawn(|| fs::write(&pipe, FILES[0].1).unwrap());
        fixture.read_with(&fixture.tasks[0], &pipe, options, 16).unwrap()
    });
    assert!(matches!(dataset.origin(), Origin::NoCache(_)));
    assert_eq!(dataset.len(), 3);
}

#[test]
fn many_readers_at_once_build_an_entry_once() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    let held = fixture.read_with(&fixture.tasks[2], &fixture.file(2), ReadOptions::default(), 16).unwrap();
    let (start, expected) = (std::sync::Barrier::new(6), all_of(&held));
    let origins: Vec<Origin> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let dataset = fixture.read(2);
                    assert_eq!(all_of(&dataset), expected);
                    dataset.origin().clone()
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    assert_eq!(origins.iter().filter(|origin| **origin == Origin::Built(None)).count(), 1, "{origins:?}");
    assert_eq!(fixture.entries().len(), 1);
}

#[test]
fn reading_through_the_cache_takes_the_same_memory_for_any_number_of_rows() {
    let _alone = ALONE.lock();
    let fixture = Fixture::new();
    let row = |i: usize| {
        format!("row{i}\t{}\tw{} w{} w{} w{} w{} w{} w{} w{}\n", i % 3, i % 7, i % 11, i % 13, 1, 2, 3, 4, 5)
    };
    let mut peaks = Vec::new();
    for rows in [40_000, 160_000] {
        let path = fixture.world.path(&format!("{rows}.tsv"));
        fs::write(&path, (0..rows).map(row).collect::<String>()).unwrap();
        let options = ReadOptions { cache: Some(&fixture.cache), ..Default::default() };
        let read = || fixture.read_with(&fixture.tasks[0], &path, options, 16).unwrap();
        let (dataset, peak) = peak_of(read);
        assert_eq!((dataset.len(), dataset.tokens()), (rows, 10 * rows));
        let (again, second) = peak_of(read);
        assert_eq!(again.origin(), &Origin::Cached);
        assert!(second < 2 << 20, "opening {rows} rows took {second} bytes");
        peaks.push(peak);
    }
    // In memory the larger file would take 160,000 · (10 · 5 + 60) bytes: 17 MB.
    assert!(peaks[1] < peaks[0] + (2 << 20), "{peaks:?}");
}

#[test]
fn training_through_the_cache_gives_the_bits_of_training_from_memory() {
    let _alone = ALONE.lock();
    let world = World::new();
    let trainer = Trainer::new(options(OptimizerKind::AdamW));
    let (held, _) = world.train(2, &trainer, &mut Record::default());
    for round in 0..2 {
        let mut model = world.model(2, None);
        let cache = world.path("cache");
        let reading = ReadOptions { cache: Some(&cache), ..Default::default() };
        let data = TrainingData::read(&model, &world.tasks().tasks, Some(&world.path("data")), reading).unwrap();
        let expected = if round == 0 { Origin::Built(None) } else { Origin::Cached };
        assert!(data.splits().all(|split| split.origin() == &expected));
        trainer.run(&mut model, &data, &mut Record::default()).unwrap();
        assert_eq!(model.encoder().params().arena(), held.encoder().params().arena(), "round {round}");
    }
}
