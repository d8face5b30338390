//! Which batches an epoch has: how often each task comes, what is dealt anew, buckets by length, and the defects of the
//! MT-DNN toolkit's samplers that must not come back.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use manyhead::data::{BatchPlan, Dataset, Sampling, epoch_plan};
use manyhead::train::{Event, OptimizerKind};
use manyhead::{Error, TrainOptions, Trainer, TrainingData};
use support::{Record, TRAIN, World, assert_same_weights, crash, options};

/// 118, 70 and 41 rows in batches of 4: 30, 18 and 11 batches.
const BATCHES: [usize; 3] = [30, 18, 11];
const EPOCHS: u64 = 40;

fn sampled(sampling: Sampling) -> TrainOptions {
    TrainOptions { batch_size: 4, epochs: EPOCHS, sampling, ..options(OptimizerKind::AdamW) }
}

fn plan(data: &TrainingData, options: &TrainOptions, epoch: u64) -> Vec<BatchPlan> {
    options.validate().unwrap();
    let train: Vec<&Dataset> = data.tasks.iter().map(|task| &task.train).collect();
    epoch_plan(&train, options.batches(), epoch)
}

fn data(world: &World) -> TrainingData {
    world.data(&world.model(1, None))
}

fn counts(plan: &[BatchPlan]) -> [usize; 3] {
    [0, 1, 2].map(|task| plan.iter().filter(|batch| batch.task == task).count())
}

/// Every batch's examples, sorted, by task.
fn compositions(plan: &[BatchPlan]) -> BTreeSet<(usize, Vec<u32>)> {
    let sorted = |batch: &BatchPlan| {
        let mut examples = batch.examples.clone();
        examples.sort();
        (batch.task, examples)
    };
    plan.iter().map(sorted).collect()
}

/// Over all epochs, the draws of each task are as many as `expected(epoch)` says, within five deviations, and every
/// epoch has as many batches as a proportional one.
fn assert_drawn(data: &TrainingData, sampling: Sampling, expected: impl Fn(f64) -> [f64; 3]) {
    let options = sampled(sampling);
    let total: usize = BATCHES.iter().sum();
    let (mut drawn, mut mean, mut variance) = ([0usize; 3], [0f64; 3], [0f64; 3]);
    for epoch in 0..EPOCHS {
        let plan = plan(data, &options, epoch);
        assert_eq!(plan.len(), total, "an epoch of draws is as long as a proportional one");
        let weights = expected(epoch as f64 / (EPOCHS - 1) as f64);
        let sum: f64 = weights.iter().sum();
        for (task, count) in counts(&plan).into_iter().enumerate() {
            let p = weights[task] / sum;
            drawn[task] += count;
            mean[task] += total as f64 * p;
            variance[task] += total as f64 * p * (1.0 - p);
        }
    }
    for task in 0..3 {
        let off = (drawn[task] as f64 - mean[task]).abs();
        assert!(off <= 5.0 * variance[task].sqrt(), "{:?}: {drawn:?}, expected {mean:?}", options.sampling);
    }
}

#[test]
fn tasks_are_drawn_as_often_as_the_formulas_say() {
    let world = World::new();
    let data = data(&world);
    let power = |share: f64| BATCHES.map(|n| (n as f64).powf(share));
    assert_drawn(&data, Sampling::Uniform, |_| [1.0; 3]);
    assert_drawn(&data, Sampling::Sqrt, |_| power(0.5));
    assert_drawn(&data, Sampling::Temperature { start: 5.0, end: 5.0 }, |_| power(0.2));
    assert_drawn(&data, Sampling::Temperature { start: 1.0, end: 9.0 }, |done| power(1.0 / (1.0 + 8.0 * done)));
    assert_drawn(&data, Sampling::Temperature { start: 0.5, end: 0.5 }, |_| power(2.0));
    assert_drawn(&data, Sampling::Weights(vec![1.0, 2.0, 5.0]), |_| [1.0, 2.0, 5.0]);
    assert_drawn(&data, Sampling::Weights(vec![1.0, 0.0, 1.0]), |_| [1.0, 0.0, 1.0]);
}

#[test]
fn the_batches_of_a_drawn_task_come_without_replacement_and_are_dealt_anew_when_used_up() {
    let world = World::new();
    let data = data(&world);
    // Only the smallest task: 59 draws of 11 batches.
    let plan = plan(&data, &sampled(Sampling::Weights(vec![0.0, 0.0, 1.0])), 3);
    assert_eq!(counts(&plan), [0, 0, 59]);
    let mut deals = Vec::new();
    for deal in plan.chunks(11) {
        let mut seen: Vec<u32> = deal.iter().flat_map(|batch| batch.examples.clone()).collect();
        seen.sort();
        seen.dedup();
        let once: usize = deal.iter().map(|batch| batch.examples.len()).sum();
        assert_eq!(seen.len(), once, "an example came twice in one deal");
        if deal.len() == 11 {
            assert_eq!(seen.len(), TRAIN[2], "a whole deal has every example");
        }
        deals.push(compositions(deal));
    }
    assert_eq!(deals.len(), 6);
    assert_ne!(deals[0], deals[1], "the next deal cuts other batches");
}

#[test]
fn sequential_sampling_goes_task_after_task() {
    let world = World::new();
    let data = data(&world);
    let options = sampled(Sampling::Sequential);
    let shuffled = plan(&data, &options, 0);
    let expected: Vec<usize> = (0..3).flat_map(|task| [task].repeat(BATCHES[task])).collect();
    let tasks = |plan: &[BatchPlan]| plan.iter().map(|batch| batch.task).collect::<Vec<_>>();
    assert_eq!(tasks(&shuffled), expected);
    assert_ne!(compositions(&shuffled), compositions(&plan(&data, &options, 1)));
    let ordered = plan(&data, &TrainOptions { shuffle: false, ..options }, 0);
    assert_eq!(tasks(&ordered), expected);
    let rows: Vec<u32> = ordered[..BATCHES[0]].iter().flat_map(|batch| batch.examples.clone()).collect();
    assert_eq!(rows, (0..TRAIN[0] as u32).collect::<Vec<_>>(), "file order");
}

#[test]
fn mix_opt_1_puts_the_target_last() {
    let world = World::new();
    let data = data(&world);
    for (sampling, others) in [(Sampling::Proportional, 29), (Sampling::Ratio(0.5), 15)] {
        let options = TrainOptions { target_last: true, ..sampled(sampling) };
        for epoch in 0..3 {
            let plan = plan(&data, &options, epoch);
            assert_eq!(plan.len(), others + BATCHES[0]);
            assert!(plan[..others].iter().all(|batch| batch.task > 0), "{:?}", options.sampling);
            assert!(plan[others..].iter().all(|batch| batch.task == 0), "{:?}", options.sampling);
            assert!(counts(&plan)[1] > 0 && counts(&plan)[2] > 0, "the others are mixed: {:?}", counts(&plan));
        }
    }
}

/// Spec, section 10: "frozen batch composition". The toolkit cut batches once, from consecutive rows.
#[test]
fn defect_frozen_batch_composition_every_epoch_has_other_batches_with_every_sampling() {
    let world = World::new();
    let data = data(&world);
    for sampling in [
        Sampling::Proportional,
        Sampling::Uniform,
        Sampling::Sqrt,
        Sampling::Temperature { start: 2.0, end: 4.0 },
        Sampling::Weights(vec![1.0, 1.0, 2.0]),
        Sampling::Ratio(0.5),
        Sampling::Sequential,
    ] {
        for bucket in [0, 5] {
            let options = TrainOptions { bucket, ..sampled(sampling.clone()) };
            let (first, second) = (compositions(&plan(&data, &options, 0)), compositions(&plan(&data, &options, 1)));
            let same = first.intersection(&second).count();
            assert!(same * 3 < first.len(), "{sampling:?}, bucket {bucket}: {same} of {} are the same", first.len());
            assert_eq!(plan(&data, &options, 1), plan(&data, &options, 1), "a function of seed and epoch");
        }
    }
}

/// Spec, section 10: "ratio always same batches". The toolkit took the first ones of each extra task in every epoch.
#[test]
fn defect_ratio_always_same_batches_extras_are_fresh_every_epoch_and_reach_every_example() {
    let world = World::new();
    let data = data(&world);
    let options = sampled(Sampling::Ratio(0.25));
    let mut seen = BTreeSet::new();
    let mut epochs = BTreeSet::new();
    for epoch in 0..EPOCHS {
        let plan = plan(&data, &options, epoch);
        let mut target: Vec<u32> = plan.iter().filter(|b| b.task == 0).flat_map(|b| b.examples.clone()).collect();
        target.sort();
        assert_eq!(target, (0..TRAIN[0] as u32).collect::<Vec<_>>(), "the whole target");
        let extras: Vec<(usize, u32)> =
            plan.iter().filter(|b| b.task > 0).flat_map(|b| b.examples.iter().map(|e| (b.task, *e))).collect();
        let distinct: BTreeSet<(usize, u32)> = extras.iter().copied().collect();
        assert_eq!(distinct.len(), extras.len(), "without replacement");
        assert!(epochs.insert(distinct.clone()), "epoch {epoch} has the extras of another one");
        seen.extend(distinct);
    }
    // 7 of 29 batches for 40 epochs: that an example never comes has a chance of 1.5e-5.
    assert_eq!(seen.len(), TRAIN[1] + TRAIN[2]);
}

/// Spec, section 10 and 6: "`len()` wrong with ratio". The toolkit's schedule counted batches that never came.
#[test]
fn defect_len_wrong_with_ratio_the_schedule_and_the_totals_count_the_batches_there_are() {
    let world = World::new();
    for (sampling, an_epoch) in
        [(Sampling::Ratio(0.5), 8 + 4), (Sampling::Ratio(9.0), 16), (Sampling::Ratio(0.0), 8), (Sampling::Uniform, 16)]
    {
        let options =
            TrainOptions { sampling: sampling.clone(), accumulate: 1, warmup: 0.0, ..options(OptimizerKind::AdamW) };
        let (mut totals, mut rates, mut batches) = (None, Vec::new(), 0);
        let mut record = Record::with(|event| {
            match event {
                Event::Start { totals: found, .. } => totals = Some(*found),
                Event::Update { learning_rate, .. } => rates.push(*learning_rate),
                Event::Batch { .. } => batches += 1,
                _ => {}
            }
            Ok(())
        });
        world.train(1, &Trainer::new(options), &mut record).1.unwrap();
        drop(record);
        let totals = totals.unwrap();
        assert_eq!((totals.batches, totals.updates, batches), (2 * an_epoch, 2 * an_epoch, 2 * an_epoch));
        // The last update has one part of 2 · an_epoch of the peak: the schedule ends where the run does.
        let last = rates.last().unwrap() * 2.0 * an_epoch as f64 / 2e-3;
        assert!((last - 1.0).abs() < 1e-9, "{sampling:?}: {rates:?}");
    }
}

/// Spec, section 10 and 6: "bin sampler indices". The toolkit's bins held positions within the bin and so trained on
/// the first rows of the file again and again.
#[test]
fn defect_bin_sampler_indices_buckets_hold_examples_of_the_data_set_each_once() {
    let world = World::new();
    let data = data(&world);
    let spread = |plan: &[BatchPlan]| -> usize {
        let lengths = |batch: &BatchPlan| {
            let of = |example: &u32| data.tasks[batch.task].train.length(*example as usize);
            (batch.examples.iter().map(of).max().unwrap(), batch.examples.iter().map(of).min().unwrap())
        };
        plan.iter().map(lengths).map(|(longest, shortest)| longest - shortest).sum()
    };
    let options = sampled(Sampling::Proportional);
    let bucketed = TrainOptions { bucket: 8, ..options.clone() };
    for epoch in 0..3 {
        let found = plan(&data, &bucketed, epoch);
        for (task, rows) in TRAIN.iter().enumerate() {
            let mut seen: Vec<u32> =
                found.iter().filter(|batch| batch.task == task).flat_map(|batch| batch.examples.clone()).collect();
            seen.sort();
            assert_eq!(seen, (0..*rows as u32).collect::<Vec<_>>());
        }
        let (even, uneven) = (spread(&found), spread(&plan(&data, &options, epoch)));
        assert!(even * 3 < uneven, "within batches lengths differ by {even}, without buckets by {uneven}");
        // The order of the batches does not follow their length: long and short ones take turns.
        let longest = |batch: &BatchPlan| data.tasks[0].train.length(*batch.examples.last().unwrap() as usize);
        let lengths: Vec<usize> = found.iter().filter(|batch| batch.task == 0).map(longest).collect();
        let rises = lengths.windows(2).filter(|pair| pair[1] > pair[0]).count();
        assert!(rises < 2 * lengths.len() / 3, "{lengths:?}");
    }
}

#[test]
fn buckets_keep_the_limit_of_tokens() {
    let world = World::new();
    let data = data(&world);
    let options = TrainOptions { bucket: 4, batch_size: 16, batch_tokens: Some(90), ..sampled(Sampling::Proportional) };
    for batch in plan(&data, &options, 0) {
        let tokens: usize =
            batch.examples.iter().map(|example| data.tasks[batch.task].train.length(*example as usize)).sum();
        assert!(tokens <= 90 || batch.examples.len() == 1, "{tokens}");
    }
}

#[test]
fn what_a_sampling_cannot_do_is_refused_by_the_name_of_its_flag() {
    let world = World::new();
    let base = sampled(Sampling::Proportional);
    let cases = [
        (TrainOptions { shuffle: false, sampling: Sampling::Uniform, ..base.clone() }, "--shuffle"),
        (TrainOptions { shuffle: false, target_last: true, ..base.clone() }, "--shuffle"),
        (TrainOptions { shuffle: false, bucket: 2, ..base.clone() }, "--bucket"),
        (TrainOptions { target_last: true, sampling: Sampling::Sqrt, ..base.clone() }, "--mix-opt"),
        (TrainOptions { sampling: Sampling::Ratio(f64::NAN), ..base.clone() }, "--ratio"),
        (TrainOptions { sampling: Sampling::Weights(vec![1.0]), ..base }, "--sampling-weights"),
    ];
    for (options, flag) in cases {
        let (_, result) = world.train(1, &Trainer::new(options), &mut Record::default());
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains(flag), "{flag}: {error}");
    }
}

#[test]
fn a_killed_run_of_every_sampling_ends_as_if_it_had_never_stopped() {
    let world = World::new();
    let base = TrainOptions { checkpoint_every: Some(2), accumulate: 3, ..options(OptimizerKind::AdamW) };
    let mut ends = BTreeMap::new();
    for (name, options) in [
        ("temperature", Sampling::Temperature { start: 1.0, end: 5.0 }),
        ("weights", Sampling::Weights(vec![1.0, 1.0, 4.0])),
        ("ratio", Sampling::Ratio(0.5)),
        ("sequential", Sampling::Sequential),
    ]
    .map(|(name, sampling)| (name, TrainOptions { sampling, bucket: 2, ..base.clone() }))
    {
        let (straight, result) = world.train(1, &Trainer::new(options.clone()), &mut Record::default());
        let updates = result.unwrap();
        let trainer = Trainer { options, output: Some(world.path(name)), resume: true, ..Default::default() };
        let mut record = Record::with(|event| match event {
            Event::Update { update: 5, .. } => Err(crash()),
            _ => Ok(()),
        });
        assert!(world.train(1, &trainer, &mut record).1.is_err());
        record.also = None;
        let (resumed, result) = world.train(2, &trainer, &mut record);
        assert_eq!(result.unwrap(), updates);
        assert!(record.start.unwrap().1 > 0);
        assert_same_weights(name, &straight, &resumed);
        ends.insert(support::weights(&straight), name);
    }
    assert_eq!(ends.len(), 4, "each sampling trains another model");
}
