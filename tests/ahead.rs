//! Reading ahead in a second thread: order, bounds, errors and panics at their place, and no thread left behind.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use manyhead::data::readers::Labels;
use manyhead::data::{Dataset, ReadOptions, ahead, ahead_detached};
use manyhead::device::Cpu;
use manyhead::model::HeadOptions;
use manyhead::tasks::Prediction;
use manyhead::train::{OptimizerKind, TaskData};
use manyhead::{Device, Encoder, MultiTaskModel, TrainOptions, Trainer, TrainingData};
use support::{MAX_LENGTH, Record, World, options, weights};

fn cpu(threads: usize) -> Cpu {
    Device::cpu(threads).unwrap().host().clone()
}

/// Counts what it is asked for, and when it is dropped.
struct Source {
    made: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    len: usize,
    panics_at: Option<usize>,
}

impl Source {
    fn new(len: usize) -> Source {
        Source { made: Arc::default(), dropped: Arc::default(), len, panics_at: None }
    }
}

impl Iterator for Source {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let item = self.made.load(SeqCst);
        assert_ne!(Some(item), self.panics_at, "the source is broken");
        (item < self.len).then(|| self.made.fetch_add(1, SeqCst))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// Waits until `is` holds; a test that waits in vain fails instead of hanging.
fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn items_come_in_order_and_not_more_are_made_ahead_than_asked_for() {
    for depth in [1, 2, 5] {
        let source = Source::new(50);
        let (made, dropped) = (source.made.clone(), source.dropped.clone());
        ahead(&cpu(2), depth, source, |items| {
            for expected in 0..50 {
                until("items ahead", || made.load(SeqCst) == (expected + depth).min(50));
                thread::sleep(Duration::from_micros(200));
                assert!(made.load(SeqCst) <= expected + depth);
                assert_eq!(items.next(), Some(expected));
            }
            assert_eq!((items.next(), items.next()), (None, None));
        });
        assert_eq!(dropped.load(SeqCst), 1);
    }
}

#[test]
fn a_device_of_one_thread_makes_each_item_where_and_when_it_is_asked_for() {
    let here = thread::current().id();
    for detached in [false, true] {
        let source = Source::new(3);
        let made = source.made.clone();
        let source = source.map(move |item| (item, thread::current().id()));
        let look = |items: &mut dyn Iterator<Item = _>| {
            for expected in 0..3 {
                assert_eq!(made.load(SeqCst), expected);
                assert_eq!(items.next(), Some((expected, here)));
            }
            assert_eq!(items.next(), None);
        };
        match detached {
            false => ahead(&cpu(1), 2, source, look),
            true => look(&mut ahead_detached(&cpu(1), 2, source)),
        }
    }
    let elsewhere = std::iter::once_with(|| thread::current().id());
    assert_ne!(ahead(&cpu(2), 1, elsewhere, |items| items.next()), Some(here));
}

#[test]
fn a_consumer_that_leaves_or_panics_ends_the_source_before_it_is_left() {
    for panics in [false, true] {
        let source = Source::new(usize::MAX);
        let dropped = source.dropped.clone();
        let left = catch_unwind(AssertUnwindSafe(|| {
            ahead(&cpu(3), 2, source, |items| {
                assert_eq!(items.nth(9), Some(9));
                assert!(!panics, "the consumer is broken");
            })
        }));
        assert_eq!(left.is_err(), panics);
        assert_eq!(dropped.load(SeqCst), 1, "its thread has ended");
    }
}

#[test]
fn a_panic_of_the_source_comes_out_behind_the_items_before_it() {
    for (threads, detached) in [(1, false), (2, false), (1, true), (2, true)] {
        let mut source = Source::new(9);
        source.panics_at = Some(4);
        let seen = Mutex::new(Vec::new());
        let all = |items: &mut dyn Iterator<Item = usize>| items.for_each(|item| seen.lock().unwrap().push(item));
        let result = catch_unwind(AssertUnwindSafe(|| match detached {
            false => ahead(&cpu(threads), 2, source, all),
            true => all(&mut ahead_detached(&cpu(threads), 2, source)),
        }));
        let panic = result.unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("the source is broken"), "{message}");
        assert_eq!(seen.into_inner().unwrap_or_else(|error| error.into_inner()), [0, 1, 2, 3]);
    }
}

#[test]
fn a_detached_source_that_waits_for_ever_keeps_nobody() {
    let (sender, receiver) = channel::<usize>();
    sender.send(1).unwrap();
    let mut items = ahead_detached(&cpu(2), 1, receiver.into_iter());
    assert_eq!(items.next(), Some(1));
    // The source waits for a second item, which does not come.
    drop(items);
    drop(sender);
}

/// A model with the task `single` alone, and so many rows of it; row `unlabelled` has no label.
fn single(world: &World, threads: usize, rows: usize, unlabelled: usize) -> (MultiTaskModel, TrainingData) {
    let device = Device::cpu(threads).unwrap();
    let encoder = Encoder::load(world.path("model"), &device).unwrap();
    let tasks = world.tasks().tasks;
    let model = MultiTaskModel::new(encoder, &tasks[..1], HeadOptions::default()).unwrap();
    let label = |row: usize| if row == unlabelled { String::new() } else { (row % 3).to_string() };
    let text: String = (0..rows).map(|row| format!("row{row}\t{}\tw{} w20 w21\n", label(row), row % 12)).collect();
    let path = world.path("rows.tsv");
    std::fs::write(&path, text).unwrap();
    let (options, tokenizer) = (ReadOptions::default(), model.encoder().tokenizer());
    let train = Dataset::read(&tasks[0], &path, Labels::Optional, &options, tokenizer, MAX_LENGTH, device.host());
    (model, TrainingData { tasks: vec![TaskData { train: train.unwrap(), ..TaskData::default() }] })
}

#[test]
fn an_error_in_a_batch_that_was_cut_ahead_comes_when_it_is_its_turn() {
    let world = World::new();
    let mut all = Vec::new();
    for threads in [1, 2, 3] {
        let (mut model, data) = single(&world, threads, 20, 9);
        let options = TrainOptions { batch_size: 2, accumulate: 2, shuffle: false, ..options(OptimizerKind::AdamW) };
        let mut record = Record::default();
        let error = Trainer::new(options).run(&mut model, &data, &mut record).unwrap_err().to_string();
        assert!(error.contains("example 'row9' has no label"), "{error}");
        // Rows 8 and 9 are the fifth batch: four batches and two updates come before it.
        assert_eq!(record.events, ["start", "batch", "batch", "update", "batch", "batch", "update"]);
        all.push((record.log, weights(&model)));
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the same with any number of threads");
}

#[cfg(target_os = "linux")]
#[test]
fn no_thread_outlives_a_run() {
    // Threads of the tests beside this one come and go: only a name of its own could be counted, and theirs is the same.
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "manyhead-ahead").count()
    };
    let world = World::new();
    let (mut model, data) = single(&world, 2, 20, 9);
    let options = TrainOptions { batch_size: 2, shuffle: false, ..options(OptimizerKind::AdamW) };
    assert!(Trainer::new(options).run(&mut model, &data, &mut Record::default()).is_err());
    until("no thread that reads ahead", || threads() == 0);
}

#[test]
fn many_batches_are_predicted_as_each_text_alone() {
    let world = World::new();
    let texts: Vec<String> =
        (0..700).map(|i| (0..1 + i % 17).map(|k| format!("w{} ", (i * 7 + k) % 60)).collect()).collect();
    let texts: Vec<(&str, Option<&str>)> = texts.iter().map(|text| (text.as_str(), None)).collect();
    let alone = world.model(1, None);
    let expected: Vec<Prediction> =
        texts.iter().flat_map(|text| alone.predict(0, std::slice::from_ref(text)).unwrap()).collect();
    for threads in [1, 2, 4] {
        assert_eq!(world.model(threads, None).predict(0, &texts).unwrap(), expected, "{threads} threads");
    }
}
