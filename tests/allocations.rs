//! A training step and an inference pass in their steady state take their memory from what earlier ones gave back.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use manyhead::data::{Dataset, epoch_plan};
use manyhead::model::Pool;

use manyhead::tape::{Tape, TapeMemory};
use manyhead::tasks::{Label, TaskBatch};
use manyhead::train::{OptimizerKind, Step, Targets};
use manyhead::{MultiTaskModel, TrainOptions, TrainingData};
use support::{World, options};

/// Anything of this size could be an activation; boxes of the tape are far smaller.
const LARGE: usize = 2048;

struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    if COUNTING.load(Relaxed) {
        COUNT.fetch_add(1, Relaxed);
        BYTES.fetch_add(size, Relaxed);
        LARGEST.fetch_max(size, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time: other tests of this process would be counted as well.
static ALONE: Mutex<()> = Mutex::new(());

/// What was allocated during `work`, by any thread: number, bytes, the largest.
fn measure<T>(work: impl FnOnce() -> T) -> (T, [usize; 3]) {
    [&COUNT, &BYTES, &LARGEST].into_iter().for_each(|counter| counter.store(0, Relaxed));
    COUNTING.store(true, Relaxed);
    let result = work();
    COUNTING.store(false, Relaxed);
    (result, [&COUNT, &BYTES, &LARGEST].map(|counter| counter.load(Relaxed)))
}

type Batch = (usize, TaskBatch, Vec<Label>);

/// The batches of an epoch: 16 of varying length, from three tasks.
fn batches(data: &TrainingData, options: &TrainOptions, epoch: u64) -> Vec<Batch> {
    let train: Vec<&Dataset> = data.tasks.iter().map(|task| &task.train).collect();
    let plan = epoch_plan(&train, options.batches(), epoch);
    let batch = |plan: &manyhead::data::BatchPlan| {
        let dataset = train[plan.task];
        (plan.task, dataset.batch(&plan.examples).unwrap(), dataset.labels(&plan.examples).unwrap())
    };
    plan.iter().map(batch).collect()
}

/// The batch with most tokens, the one with the longest sequence, and an epoch; with several threads many times, until
/// each of them has had the largest piece of work of each kind.
fn warm_up(all: &[Batch], threads: usize) -> impl Iterator<Item = &Batch> {
    let by_length = |batch: &&Batch| batch.1.packed.tokens();
    let (shortest, longest) = (all.iter().min_by_key(by_length).unwrap(), all.iter().max_by_key(by_length).unwrap());
    assert!(longest.1.packed.tokens() > 4 * shortest.1.packed.tokens());
    let often = if threads == 1 { 1 } else { 50 };
    let sequence = all.iter().max_by_key(|batch| batch.1.packed.longest()).unwrap();
    std::iter::repeat_n([longest, sequence], often).flatten().chain(&all[..16])
}

fn update(model: &mut MultiTaskModel, step: &mut Step, (task, batch, labels): &Batch, number: u64) {
    step.batch(model, *task, batch, Targets::labels(labels), 1.0, number).unwrap();
    step.update(model, 1e-3).unwrap();
}

#[test]
fn a_training_step_allocates_no_activations_once_it_has_seen_the_longest_batch() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = World::new();
    let options = options(OptimizerKind::AdamW);
    for threads in [1, 2] {
        let mut model = world.model(threads, None);
        let data = world.data(&model);
        let mut step = Step::new(&model, &options).unwrap();
        let all: Vec<Batch> = (0..4).flat_map(|epoch| batches(&data, &options, epoch)).collect();
        let mut number = 0;
        for batch in warm_up(&all, threads) {
            update(&mut model, &mut step, batch, number);
            number += 1;
        }
        let mut most = [0; 3];
        for batch in &all[16..] {
            let (_, found) = measure(|| update(&mut model, &mut step, batch, number));
            number += 1;
            most = [0, 1, 2].map(|i| most[i].max(found[i]));
        }
        let [count, bytes, largest] = most;
        println!("{threads} thread(s): at most {count} allocations of {bytes} bytes a step, the largest {largest}");
        assert!(largest < LARGE, "{threads} thread(s): an allocation of {largest} bytes in a steady-state step");
        assert!(bytes < 32 << 10 && count < 250, "{threads} thread(s): {count} allocations of {bytes} bytes");
    }
}

#[test]
fn an_inference_pass_uses_its_memory_again() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = World::new();
    for threads in [1, 2] {
        let model = world.model(threads, None);
        let data = world.data(&model);
        let options = options(OptimizerKind::AdamW);
        let all: Vec<Batch> = (0..3).flat_map(|epoch| batches(&data, &options, epoch)).collect();
        let device = model.encoder().device();
        let pass = |(task, batch, labels): &Batch, memory: TapeMemory| {
            let mut tape = Tape::inference(model.encoder().params(), device, memory);
            model.loss(&mut tape, *task, batch, labels).unwrap();
            tape.finish()
        };
        let mut memory = TapeMemory::default();
        for batch in warm_up(&all, threads) {
            memory = pass(batch, memory);
        }
        let mut most = [0; 3];
        for batch in &all[16..] {
            let found;
            (memory, found) = measure(|| pass(batch, memory));
            most = [0, 1, 2].map(|i| most[i].max(found[i]));
        }
        let [count, bytes, largest] = most;
        println!("{threads} thread(s): at most {count} allocations of {bytes} bytes a pass, the largest {largest}");
        assert!(largest < LARGE, "{threads} thread(s): an allocation of {largest} bytes in a later pass");
        assert!(bytes < 8 << 10 && count < 100, "{threads} thread(s): {count} allocations of {bytes} bytes");
    }
}

#[test]
fn embedding_ten_batches_takes_hardly_more_memory_than_two() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = World::new();
    let model = world.model(1, None);
    // 36 tokens each; a batch of inference has 4096.
    let ids: Vec<u32> = (0..36).map(|i| 5 + i).collect();
    let types = vec![0u32; 36];
    let bytes = |texts: usize| {
        let sequences: Vec<(&[u32], &[u32])> = vec![(&ids, &types); texts];
        measure(|| model.encoder().embed_tokens(&sequences, Pool::Mean, false).unwrap()).1[1]
    };
    bytes(226);
    let (two, ten) = (bytes(226), bytes(1130));
    // The batches' token ids (5 words a token and their growth) and the result (32 floats a text) do grow.
    let per_text = (ten - two) / 904;
    println!("{two} bytes for two batches, {ten} for ten: {per_text} a text of 36 tokens");
    assert!(per_text < 36 * 32 * 4, "{per_text} bytes a text: less than one activation of it");
}
