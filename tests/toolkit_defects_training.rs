//! What the MT-DNN toolkit gets wrong in training, and what is right: a test a defect, named for the right behaviour.
//! Those of tasks, data and heads are in `toolkit_defects.rs`.
//!
//! | defect of the toolkit | test here |
//! |---|---|
//! | batches are the same consecutive rows in every epoch | `batches_are_composed_anew_every_epoch` |
//! | `ratio` takes the first batches of the other tasks every epoch | `a_ratio_takes_other_batches_every_epoch` |
//! | `len()` and the schedule count batches that `ratio` leaves out | `the_schedule_ends_where_a_run_with_a_ratio_does` |
//! | length bins hold positions within the bin, not examples | `length_buckets_hold_every_example_once` |
//! | left-over micro-batches spill into the next epoch | `left_over_batches_make_an_update_of_their_own` |
//! | the polynomial schedule is overwritten by the linear one | `the_polynomial_schedule_is_polynomial` |
//! | `--weight_decay` is overridden by the parameter groups | `weight_decay_is_the_one_asked_for` |
//! | many flags without effect (`grad_clipping`, `warmup_schedule`, `data_sort_on` …) | `every_option_changes_the_run` |
//! | the same, accepted on the command line | `flags_of_the_toolkit_that_do_nothing_are_refused` |
//! | `type=bool`: every text is true | `shuffle_off_is_off` |
//! | `bert_dropout_p` acts on local checkpoints only | `dropout_acts_on_encoder_and_heads` |
//! | frozen parameters are still given to the optimizer | `what_is_frozen_is_not_even_decayed` |
//! | resume begins at epoch 0 with a fresh schedule | `a_resumed_run_has_the_epoch_and_the_schedule_it_was_stopped_with` |
//! | a checkpoint's options replace those that were typed | `a_model_to_start_from_brings_no_options` |
//! | the same, on resume | `resuming_with_another_option_is_refused_by_name` |
//! | the checkpoint of an average holds the live weights | `the_model_of_an_averaged_run_is_the_average` |
//! | the last epoch is all there is: no best model | `the_model_that_is_kept_is_that_of_the_best_epoch` |
#![cfg(feature = "cli")]

mod support;
#[allow(dead_code)]
#[path = "support/tiny.rs"]
mod tiny;

use std::collections::BTreeSet;
use std::fs;

use manyhead::data::{BatchPlan, Dataset, Sampling, epoch_plan};
use manyhead::interop::safetensors::TensorFile;
use manyhead::model::Freeze;
use manyhead::train::{Event, OptimizerKind, OptimizerOptions, Schedule, ScheduleKind, Untouched};
use manyhead::{Device, MultiTaskModel, TrainOptions, Trainer, TrainingData};
use support::{Record, TRAIN, World, assert_same_weights, crash, options, weights};
use tiny::Tiny;

fn plan(data: &TrainingData, options: &TrainOptions, epoch: u64) -> Vec<BatchPlan> {
    let train: Vec<&Dataset> = data.tasks.iter().map(|task| &task.train).collect();
    epoch_plan(&train, options.batches(), epoch)
}

/// What the batches of a task are made of, whatever their order.
fn compositions(plan: &[BatchPlan], task: usize) -> BTreeSet<Vec<u32>> {
    let sorted = |batch: &BatchPlan| {
        let mut examples = batch.examples.clone();
        examples.sort();
        examples
    };
    plan.iter().filter(|batch| batch.task == task).map(sorted).collect()
}

fn short(change: impl FnOnce(&mut TrainOptions)) -> TrainOptions {
    let mut options = TrainOptions { epochs: 1, ..options(OptimizerKind::AdamW) };
    change(&mut options);
    options
}

fn train(world: &World, options: TrainOptions) -> MultiTaskModel {
    let (model, result) = world.train(1, &Trainer::new(options), &mut Record::default());
    result.unwrap();
    model
}

/// The largest change of a weight whose name begins so.
fn moved(world: &World, model: &MultiTaskModel, prefix: &str) -> f32 {
    let before = world.model(1, None);
    let (a, b) = (model.encoder().params(), before.encoder().params());
    let named = a.ids().zip(a.entries()).filter(|(_, entry)| entry.name.starts_with(prefix));
    named.flat_map(|(id, _)| a.get(id).iter().zip(b.get(id))).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

// ---------------------------------------------------------------------------------------------------------------
// Batches

#[test]
fn batches_are_composed_anew_every_epoch() {
    let world = World::new();
    let data = world.data(&world.model(1, None));
    let options = options(OptimizerKind::AdamW);
    for task in 0..3 {
        let (first, second) = (plan(&data, &options, 0), plan(&data, &options, 1));
        assert!(compositions(&first, task).is_disjoint(&compositions(&second, task)), "task {task}");
    }
}

#[test]
fn a_ratio_takes_other_batches_every_epoch() {
    let world = World::new();
    let data = world.data(&world.model(1, None));
    let options = TrainOptions { sampling: Sampling::Ratio(0.25), ..options(OptimizerKind::AdamW) };
    let extras = |epoch: u64| -> BTreeSet<(usize, u32)> {
        let plan = plan(&data, &options, epoch);
        plan.iter().filter(|b| b.task > 0).flat_map(|b| b.examples.iter().map(|e| (b.task, *e))).collect()
    };
    let epochs: Vec<_> = (0..30).map(extras).collect();
    assert!(epochs.windows(2).all(|pair| pair[0] != pair[1]));
    let all: BTreeSet<_> = epochs.into_iter().flatten().collect();
    assert_eq!(all.len(), TRAIN[1] + TRAIN[2], "in 30 epochs every example of the other tasks has come");
}

#[test]
fn the_schedule_ends_where_a_run_with_a_ratio_does() {
    let world = World::new();
    let mut rates = Vec::new();
    let mut record = Record::with(|event| {
        if let Event::Update { learning_rate, .. } = event {
            rates.push(*learning_rate);
        }
        Ok(())
    });
    let options = short(|o| (o.sampling, o.accumulate, o.warmup) = (Sampling::Ratio(0.5), 1, 0.0));
    world.train(1, &Trainer::new(options), &mut record).1.unwrap();
    drop(record);
    // 8 batches of the first task and 4 of the others: from the peak, 2e-3, down to a twelfth of it.
    assert_eq!((rates.len(), rates[0]), (12, 2e-3));
    assert!((rates[11] - 2e-3 / 12.0).abs() < 1e-12, "{rates:?}");
}

#[test]
fn length_buckets_hold_every_example_once() {
    let world = World::new();
    let data = world.data(&world.model(1, None));
    let plan = plan(&data, &TrainOptions { bucket: 4, ..options(OptimizerKind::AdamW) }, 0);
    for (task, rows) in TRAIN.iter().enumerate() {
        let mut seen: Vec<u32> =
            plan.iter().filter(|batch| batch.task == task).flat_map(|batch| batch.examples.clone()).collect();
        seen.sort();
        assert_eq!(seen, (0..*rows as u32).collect::<Vec<_>>());
    }
}

#[test]
fn left_over_batches_make_an_update_of_their_own() {
    let world = World::new();
    let mut updates_of: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); 2];
    let mut record = Record::with(|event| {
        if let Event::Batch { epoch, update, .. } = event {
            updates_of[*epoch as usize].insert(*update);
        }
        Ok(())
    });
    // 16 batches an epoch by threes: five whole updates and one of the batch that is left.
    let options = short(|o| (o.epochs, o.accumulate) = (2, 3));
    world.train(1, &Trainer::new(options), &mut record).1.unwrap();
    drop(record);
    assert_eq!(updates_of, [(0..6).collect(), (6..12).collect()], "no update has batches of two epochs");
}

// ---------------------------------------------------------------------------------------------------------------
// Options

#[test]
fn the_polynomial_schedule_is_polynomial() {
    let schedule =
        Schedule { kind: ScheduleKind::Polynomial { lr_end: 0.1, power: 2.0 }, base: 1.1, warmup: 0, total: 10 };
    for update in 0..=10 {
        let rest = 1.0 - update as f64 / 10.0;
        assert!((schedule.learning_rate(update) - (0.1 + rest * rest)).abs() < 1e-12);
    }
    assert_ne!(ScheduleKind::parse("polynomial").unwrap(), ScheduleKind::Linear);
}

#[test]
fn weight_decay_is_the_one_asked_for() {
    let world = World::new();
    // Without a gradient step to speak of, decay alone is left: θ (1 − rate · λ).
    let decayed = |decay: f64| {
        let mut options = short(|o| (o.schedule, o.warmup, o.accumulate) = (ScheduleKind::Constant, 0.0, 99));
        options.optimizer = OptimizerOptions {
            weight_decay: decay,
            ..OptimizerOptions::new(OptimizerKind::Sgd { momentum: 0.0, decoupled: true })
        };
        train(&world, options)
    };
    let (none, some, more) = (decayed(0.0), decayed(0.5), decayed(5.0));
    let params = none.encoder().params();
    for (id, entry) in params.ids().zip(params.entries()) {
        let exempt = entry.name.ends_with("bias") || entry.name.contains("LayerNorm");
        let before = world.model(1, None);
        for (i, start) in before.encoder().params().get(id).iter().enumerate() {
            let of = |model: &MultiTaskModel| model.encoder().params().get(id)[i] as f64;
            for (model, decay) in [(&some, 0.5), (&more, 5.0)] {
                let expected = of(&none) - if exempt { 0.0 } else { 2e-3 * decay * *start as f64 };
                assert!((of(model) - expected).abs() < 1e-6, "{} {decay}: {}, not {expected}", entry.name, of(model));
            }
        }
    }
}

#[test]
fn every_option_changes_the_run() {
    let world = World::new();
    let plain = weights(&train(&world, short(|_| {})));
    type Change = fn(&mut TrainOptions);
    let changes: [(&str, Change); 18] = [
        ("--epochs", |o| o.epochs = 2),
        ("--batch-size", |o| o.batch_size = 8),
        ("--batch-tokens", |o| o.batch_tokens = Some(60)),
        ("--learning-rate", |o| o.learning_rate = 1e-3),
        ("--optimizer", |o| o.optimizer.kind = OptimizerKind::Adamax),
        ("--weight-decay", |o| o.optimizer.weight_decay = 0.1),
        ("--schedule", |o| o.schedule = ScheduleKind::Cosine),
        ("--warmup", |o| o.warmup = 4.0),
        ("--clip", |o| o.clip = 0.1),
        ("--accumulate", |o| o.accumulate = 1),
        ("--shuffle", |o| o.shuffle = false),
        ("--sampling", |o| o.sampling = Sampling::Uniform),
        ("--mix-opt", |o| o.target_last = true),
        ("--bucket", |o| o.bucket = 4),
        ("--freeze", |o| o.freeze = Freeze::Embeddings),
        ("--ema", |o| o.ema = Some(0.5)),
        ("--seed", |o| o.seed = 8),
        ("--untouched", |o| o.untouched = Untouched::Zero),
    ];
    for (flag, change) in changes {
        assert!(weights(&train(&world, short(change))) != plain, "{flag} has no effect");
    }
    assert!(weights(&train(&world, short(|_| {}))) == plain, "and the same options give the same bits");
}

#[test]
fn flags_of_the_toolkit_that_do_nothing_are_refused() {
    let tiny = Tiny::new();
    for flags in [
        "--vb_dropout",
        "--mtl_opt 1",
        "--data_sort_on",
        "--grad_clipping 1",
        "--warmup_schedule linear",
        "--adam_eps 1e-6",
        "--momentum 0.9",
        "--init_ratio 1",
        "--optimizer adadelta",
        "--cuda False",
    ] {
        let message = tiny.train("out", flags).refused(2);
        let name = flags.split(' ').next().unwrap();
        assert!(message.contains(name), "{flags}: {message}");
    }
    assert!(!tiny.path("out").exists());
}

#[test]
fn shuffle_off_is_off() {
    let world = World::new();
    let data = world.data(&world.model(1, None));
    let options = TrainOptions { shuffle: false, ..options(OptimizerKind::AdamW) };
    for epoch in 0..2 {
        let plan = plan(&data, &options, epoch);
        let first: Vec<u32> = plan.iter().filter(|b| b.task == 0).flat_map(|b| b.examples.clone()).collect();
        assert_eq!(first, (0..TRAIN[0] as u32).collect::<Vec<_>>(), "rows in file order");
    }
}

#[test]
fn dropout_acts_on_encoder_and_heads() {
    let world = World::new();
    let data = world.data(&world.model(1, None));
    // Frozen so that only the head's own dropout is left to act, then the encoder's.
    let bits = |dropout: Option<f32>, freeze: Freeze| {
        let mut model = world.model(1, dropout);
        let options = short(|o| (o.freeze, o.max_updates) = (freeze, Some(2)));
        Trainer::new(options).run(&mut model, &data, &mut ()).unwrap();
        weights(&model)
    };
    for freeze in [Freeze::Nothing, Freeze::Encoder] {
        assert!(bits(Some(0.0), freeze) != bits(Some(0.3), freeze), "{freeze:?}");
    }
    // The files' own dropout, 0.1 in the encoder, holds where none is asked for.
    assert!(bits(None, Freeze::Nothing) != bits(Some(0.0), Freeze::Nothing));
}

#[test]
fn what_is_frozen_is_not_even_decayed() {
    let world = World::new();
    let model = train(
        &world,
        short(|o| {
            o.freeze = Freeze::Embeddings;
            o.optimizer.weight_decay = 1.0;
        }),
    );
    assert_eq!(moved(&world, &model, "embeddings."), 0.0);
    assert!(moved(&world, &model, "encoder.") > 0.0 && moved(&world, &model, "heads.") > 0.0);
}

// ---------------------------------------------------------------------------------------------------------------
// Checkpoints

#[test]
fn a_resumed_run_has_the_epoch_and_the_schedule_it_was_stopped_with() {
    let world = World::new();
    let trainer = |output: &str| Trainer {
        options: short(|o| (o.epochs, o.checkpoint_every) = (2, Some(1))),
        output: Some(world.path(output)),
        resume: true,
        ..Default::default()
    };
    let mut whole = Record::default();
    let (expected, result) = world.train(1, &trainer("whole"), &mut whole);
    result.unwrap();
    // 8 updates an epoch; stopped in the second one.
    let mut stopped = Record::with(|event| match event {
        Event::Update { update: 11, .. } => Err(crash()),
        _ => Ok(()),
    });
    world.train(1, &trainer("stopped"), &mut stopped).1.unwrap_err();
    let mut resumed = Record::default();
    let (model, result) = world.train(1, &trainer("stopped"), &mut resumed);
    result.unwrap();
    assert_eq!(resumed.start, Some((22, 11)), "batches and updates that were done");
    assert!(resumed.log.iter().all(|(key, line)| whole.log[key] == *line), "the same batches, losses, rates");
    assert_eq!(resumed.log.keys().filter(|(_, kind)| *kind == "update").count(), 5);
    assert_same_weights("resumed", &model, &expected);
}

#[test]
fn resuming_with_another_option_is_refused_by_name() {
    let tiny = Tiny::new();
    tiny.train("out", "--max-updates 2").ok();
    let message = tiny.train("out", "--resume --max-updates 2 --learning-rate 5e-3").refused(2);
    assert!(message.contains("--learning-rate = 0.001, not 0.005"), "{message}");
}

#[test]
fn a_model_to_start_from_brings_no_options() {
    let tiny = Tiny::new();
    tiny.train("first", "--max-updates 2 --warmup 3 --weight-decay 0.3").ok();
    tiny.run(
        "train --tasks tasks.yml --encoder first/best --out second --epochs 1 --max-updates 2 --batch-size 8 \
         --learning-rate 5e-4 --max-length 16",
    )
    .ok();
    let run = String::from_utf8(tiny.read("second/run.yml")).unwrap();
    assert!(run.contains("learning-rate: 0.0005") && run.contains("batch-size: 8"), "what was typed: {run}");
    assert!(!run.contains("0.3") && !run.contains("warmup: 3"), "and nothing of the first run: {run}");
}

#[test]
fn the_model_of_an_averaged_run_is_the_average() {
    let world = World::new();
    let options = short(|o| (o.ema, o.epochs) = (Some(0.9), 1));
    let trainer = Trainer { options, output: Some(world.path("out")), ..Default::default() };
    let (model, result) = world.train(1, &trainer, &mut Record::default());
    let updates = result.unwrap();
    let best = MultiTaskModel::load(world.path("out/best"), &Device::cpu(1).unwrap()).unwrap();
    assert_same_weights("best/", &model, &best);
    let live = TensorFile::open(world.path(&format!("out/checkpoints/step-{updates}/params.safetensors"))).unwrap();
    let name = "encoder.layer.0.output.dense.weight";
    let params = best.encoder().params();
    assert!(live.read_f32(name).unwrap().1 != params.get(params.find(name).unwrap()), "the live weights are others");
}

#[test]
fn the_model_that_is_kept_is_that_of_the_best_epoch() {
    let world = World::new();
    let mut means = Vec::new();
    let mut record = Record::with(|event| {
        if let Event::Evaluation { epoch: Some(_), mean, .. } = event {
            means.push(mean.unwrap());
        }
        Ok(())
    });
    // Steps so large that later epochs are worse than earlier ones.
    let options = short(|o| (o.epochs, o.learning_rate, o.schedule) = (6, 2e-2, ScheduleKind::Constant));
    let trainer = Trainer { options, output: Some(world.path("out")), ..Default::default() };
    world.train(1, &trainer, &mut record).1.unwrap();
    drop(record);
    let highest = means.iter().copied().fold(f64::MIN, f64::max);
    assert!(means.last().unwrap() < &highest, "the last epoch is not the best: {means:?}");
    let best = MultiTaskModel::load(world.path("out/best"), &Device::cpu(1).unwrap()).unwrap();
    let (_, mean) = manyhead::train::evaluate_all(&best, &world.data(&best)).unwrap();
    assert_eq!(mean, Some(highest), "{means:?}");
    assert!(fs::exists(world.path("out/best/tasks.yml")).unwrap());
}
