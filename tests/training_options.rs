//! Learning rates of tasks, freezing, early stopping, averaged weights, and runs of several seeds: each does what its
//! formula says, and a resumed run ends with the same bits.

mod support;

use std::fs;

use manyhead::model::Freeze;
use manyhead::train::{Event, OptimizerKind, OptimizerOptions, ScheduleKind, Step, Targets, evaluate_all};
use manyhead::{Device, MultiTaskModel, Result, TrainOptions, Trainer};
use support::{Record, World, assert_same_weights, crash, files, line, options};

/// One update of plain gradient descent without dropout: θ changes by −η g alone.
fn plain() -> TrainOptions {
    TrainOptions {
        epochs: 1,
        optimizer: OptimizerOptions::new(OptimizerKind::Sgd { momentum: 0.0, decoupled: false }),
        schedule: ScheduleKind::Constant,
        warmup: 0.0,
        clip: 0.0,
        accumulate: 16,
        learning_rate: 1e-2,
        ..options(OptimizerKind::AdamW)
    }
}

/// Trains a fresh model without dropout.
fn quiet_run(world: &World, options: &TrainOptions) -> MultiTaskModel {
    let mut model = world.model(1, Some(0.0));
    let data = world.data(&model);
    Trainer::new(options.clone()).run(&mut model, &data, &mut ()).unwrap();
    model
}

/// Σ |a − b| of the parameters whose name begins so, and Σ |a|, in f64.
fn moved(a: &MultiTaskModel, b: &MultiTaskModel, prefix: &str) -> f64 {
    let (a, b) = (a.encoder().params(), b.encoder().params());
    let chosen = a.ids().filter(|id| a.entry(*id).name.starts_with(prefix));
    chosen.flat_map(|id| a.get(id).iter().zip(b.get(id))).map(|(x, y)| (*x as f64 - *y as f64).abs()).sum()
}

#[test]
fn a_tasks_own_learning_rate_moves_its_head_and_nothing_else() {
    let world = World::new();
    let before = world.model(1, Some(0.0));
    let one = quiet_run(&world, &plain());
    let tasks = fs::read_to_string(world.path("tasks.yml")).unwrap();
    fs::write(
        world.path("tasks.yml"),
        tasks.replace("labels: [low, high]", "labels: [low, high]\n  learning_rate: 0.03"),
    )
    .unwrap();
    let three = quiet_run(&world, &plain());
    // One update from the same weights: the gradients are the same, the head of `pair` moves three times as far.
    let (own, expected) = (moved(&before, &three, "heads.pair."), 3.0 * moved(&before, &one, "heads.pair."));
    assert!(expected > 0.0 && (own / expected - 1.0).abs() < 1e-3, "{own}, expected {expected}");
    for prefix in ["embeddings.", "encoder.", "pooler.", "heads.single.", "heads.value."] {
        assert_eq!(moved(&one, &three, prefix), 0.0, "{prefix} keeps --learning-rate");
        assert!(moved(&before, &one, prefix) > 0.0, "{prefix}");
    }
    three.save(world.path("saved")).unwrap();
    let loaded = MultiTaskModel::load(world.path("saved"), &Device::cpu(1).unwrap()).unwrap();
    assert_eq!(loaded.tasks().map(|task| task.learning_rate).collect::<Vec<_>>(), [None, Some(0.03), None]);
}

#[test]
fn a_multiplier_that_is_no_number_changes_nothing() {
    let world = World::new();
    let mut model = world.model(1, Some(0.0));
    let data = world.data(&model);
    let mut step = Step::new(&model, &plain()).unwrap();
    let train = &data.tasks[0].train;
    let (batch, labels) = (train.batch(&[0, 1]).unwrap(), train.labels(&[0, 1]).unwrap());
    step.batch(&model, 0, &batch, Targets::labels(&labels), 1.0, 0).unwrap();
    let before = support::weights(&model);
    let id = model.encoder().params().find("heads.single.out.weight").unwrap();
    model.encoder_mut().params_mut().set_rate(id, f64::NAN);
    let error = step.update(&mut model, 1e-2).unwrap_err();
    assert!(error.to_string().contains("heads.single.out.weight"), "{error}");
    assert_eq!(before, support::weights(&model));
}

#[test]
fn what_is_frozen_keeps_its_bits_and_the_rest_is_trained() {
    let world = World::new();
    let before = world.model(1, None);
    let layers = ["embeddings.", "encoder.layer.0.", "encoder.layer.1.", "pooler.", "heads."];
    for (freeze, frozen) in [
        ("embeddings", &layers[..1]),
        ("0", &layers[..1]),
        ("1", &layers[..2]),
        ("2", &layers[..3]),
        ("encoder", &layers[..4]),
    ] {
        let freeze = Freeze::parse(freeze).unwrap();
        let options = TrainOptions { freeze, max_updates: Some(3), ..options(OptimizerKind::AdamW) };
        let (model, result) = world.train(1, &Trainer::new(options), &mut Record::default());
        result.unwrap();
        for prefix in layers {
            let still = moved(&before, &model, prefix) == 0.0;
            assert_eq!(still, frozen.contains(&prefix), "{freeze:?}: {prefix}");
        }
    }
}

#[test]
fn more_frozen_layers_than_there_are_and_unknown_parts_are_refused() {
    let world = World::new();
    let options = TrainOptions { freeze: Freeze::Layers(3), ..options(OptimizerKind::AdamW) };
    let (_, result) = world.train(1, &Trainer::new(options), &mut Record::default());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("--freeze: 3 layers; the encoder has 2"), "{error}");
    let error = Freeze::parse("pooler").unwrap_err().to_string();
    assert!(error.contains("'pooler' is none of embeddings, encoder, or a number of layers"), "{error}");
}

/// Too fast for anything to be learnt: the mean rises and falls.
fn unsteady(patience: Option<u64>) -> TrainOptions {
    TrainOptions { epochs: 12, patience, learning_rate: 2e-2, ..options(OptimizerKind::AdamW) }
}

/// The mean after each epoch.
fn means(world: &World, options: TrainOptions) -> (Vec<f64>, Vec<String>) {
    let mut means = Vec::new();
    let mut record = Record::with(|event| {
        if let Event::Evaluation { mean, .. } = event {
            means.push(mean.unwrap_or(f64::NAN));
        }
        Ok(())
    });
    world.train(1, &Trainer::new(options), &mut record).1.unwrap();
    let messages = std::mem::take(&mut record.messages);
    drop(record);
    (means, messages)
}

#[test]
fn a_run_stops_when_the_mean_has_not_risen_for_so_many_epochs() {
    let world = World::new();
    let (all, messages) = means(&world, unsteady(None));
    assert_eq!((all.len(), messages.len()), (12, 0));
    for patience in [1, 2, 3] {
        // By hand: the first epoch after which the best is `patience` epochs old.
        let (mut best, mut stale, mut expected) = (f64::NEG_INFINITY, 0, 12);
        for (epoch, mean) in all.iter().enumerate() {
            (best, stale) = if *mean > best { (*mean, 0) } else { (best, stale + 1) };
            if stale == patience {
                expected = epoch + 1;
                break;
            }
        }
        assert!(patience > 1 || expected < 12, "the mean of this run never falls: {all:?}");
        let (some, messages) = means(&world, unsteady(Some(patience)));
        assert_eq!(some, all[..expected], "patience {patience}");
        assert_eq!(messages.iter().filter(|m| m.contains("--patience")).count(), usize::from(expected < 12));
    }
}

#[test]
fn patience_without_a_dev_split_is_refused() {
    let world = World::new();
    let mut model = world.model(1, None);
    let mut data = world.data(&model);
    data.tasks.iter_mut().for_each(|task| task.dev.clear());
    let error = Trainer::new(unsteady(Some(1))).run(&mut model, &data, &mut ()).unwrap_err();
    assert!(error.to_string().contains("--patience") && error.to_string().contains("dev split"), "{error}");
}

#[test]
fn averaged_weights_follow_their_formula_and_are_those_that_count() {
    let world = World::new();
    let options = TrainOptions { ema: Some(0.7), ..options(OptimizerKind::AdamW) };
    // The weights after each update, from the checkpoints of a run without an average, which trains the same way.
    let live = TrainOptions { ema: None, checkpoint_every: Some(1), keep_checkpoints: 99, ..options.clone() };
    let mut shadow: Vec<f64> = arena(&world.model(1, None));
    let trainer = Trainer { options: live, output: Some(world.path("live")), ..Default::default() };
    let (last, result) = world.train(1, &trainer, &mut Record::default());
    for update in 1..=result.unwrap() {
        let weights = world.path("live").join(format!("checkpoints/step-{update}/params.safetensors"));
        let file = manyhead::interop::safetensors::TensorFile::open(weights).unwrap();
        let params = last.encoder().params();
        for (id, entry) in params.ids().zip(params.entries()) {
            let mut values = vec![0f32; params.get(id).len()];
            file.read_f32_into(&entry.name, entry.shape.extents(), &mut values).unwrap();
            for (shadow, value) in shadow[entry.range.clone()].iter_mut().zip(values) {
                *shadow = 0.7 * *shadow + 0.3 * value as f64;
            }
        }
    }
    let trainer = Trainer { options, output: Some(world.path("ema")), ..Default::default() };
    let mut seen = Vec::new();
    let mut record = Record::with(|event| {
        if let Event::Evaluation { epoch: Some(1), results, .. } = event {
            seen = results.iter().map(line).collect();
        }
        Ok(())
    });
    let (model, result) = world.train(1, &trainer, &mut record);
    result.unwrap();
    drop(record);
    // f32 against f64: a rounding of 6e-8 an update.
    for (found, expected) in arena(&model).iter().zip(&shadow) {
        assert!((found - expected).abs() < 1e-6 * expected.abs().max(0.1), "{found}, expected {expected}");
    }
    let change: f64 = arena(&model).iter().zip(&arena(&last)).map(|(a, b)| (a - b).abs()).sum();
    assert!(change > 1.0, "the average is not the last weights");
    // The model of the report: what was evaluated last.
    let (results, _) = evaluate_all(&model, &world.data(&model)).unwrap();
    assert_eq!(results.iter().map(line).collect::<Vec<_>>(), seen);
    // MT-DNN 0.1 stored the live weights as the average: here a checkpoint has both.
    let read = |folder: &str, file: &str| fs::read(world.path(folder).join(file)).unwrap();
    let step = format!("checkpoints/step-{}/params.safetensors", 16);
    assert!(read("ema", &step) == read("live", &step), "training itself does not know of the average");
}

fn arena(model: &MultiTaskModel) -> Vec<f64> {
    model.encoder().params().arena().iter().map(|x| *x as f64).collect()
}

#[test]
fn the_best_model_is_the_average_of_its_epoch() {
    let world = World::new();
    let options = TrainOptions { ema: Some(0.9), epochs: 1, ..options(OptimizerKind::AdamW) };
    let trainer = Trainer { options, output: Some(world.path("ema")), ..Default::default() };
    let (model, result) = world.train(1, &trainer, &mut Record::default());
    result.unwrap();
    let best = MultiTaskModel::load(world.path("ema/best"), &Device::cpu(1).unwrap()).unwrap();
    assert_same_weights("best/", &model, &best);
}

#[test]
fn a_killed_run_with_all_these_options_ends_as_if_it_had_never_stopped() {
    let world = World::new();
    let tasks = fs::read_to_string(world.path("tasks.yml")).unwrap();
    fs::write(world.path("tasks.yml"), tasks.replace("weight: 0.5", "weight: 0.5\n  learning_rate: 0.01")).unwrap();
    let options = TrainOptions {
        epochs: 8,
        ema: Some(0.8),
        freeze: Freeze::Layers(1),
        checkpoint_every: Some(3),
        ..unsteady(Some(2))
    };
    let trainer = |output: &str| Trainer {
        options: options.clone(),
        output: Some(world.path(output)),
        resume: true,
        ..Default::default()
    };
    let (straight, result) = world.train(1, &trainer("straight"), &mut Record::default());
    let updates = result.unwrap();
    // Updates 4 and 13 are within an epoch; after 15 an epoch has been evaluated since the last checkpoint of its own.
    for at in [4, 13, updates - 1] {
        let output = format!("killed-{at}");
        let mut record = Record::with(move |event| match event {
            Event::Update { update, .. } if *update == at => Err(crash()),
            _ => Ok(()),
        });
        assert!(world.train(1, &trainer(&output), &mut record).1.is_err());
        record.also = None;
        let (resumed, result) = world.train(2, &trainer(&output), &mut record);
        assert_eq!(result.unwrap(), updates, "killed at {at}");
        assert_same_weights(&output, &straight, &resumed);
        for folder in [format!("checkpoints/step-{updates}"), "best".into()] {
            let (expected, found) =
                (files(&world.path("straight").join(&folder)), files(&world.path(&output).join(&folder)));
            assert!(expected == found, "killed at {at}: {folder} differs");
        }
    }
    // Once more where it has ended: nothing to do, and the averaged weights again.
    let mut record = Record::default();
    let (again, result) = world.train(1, &trainer("straight"), &mut record);
    assert_eq!(result.unwrap(), updates);
    assert!(record.log.is_empty() && record.messages.iter().any(|m| m.contains("nothing is left to do")));
    assert_same_weights("once more", &straight, &again);
}

#[test]
fn resuming_with_other_options_of_these_is_refused_by_name() {
    let world = World::new();
    let base = TrainOptions { max_updates: Some(2), ..options(OptimizerKind::AdamW) };
    let trainer = |options: TrainOptions| Trainer {
        options,
        output: Some(world.path("out")),
        resume: true,
        ..Default::default()
    };
    world.train(1, &trainer(base.clone()), &mut Record::default()).1.unwrap();
    let cases: [(&str, TrainOptions); 6] = [
        ("--ema", TrainOptions { ema: Some(0.5), ..base.clone() }),
        ("--patience", TrainOptions { patience: Some(2), ..base.clone() }),
        ("--freeze", TrainOptions { freeze: Freeze::Embeddings, ..base.clone() }),
        ("--bucket", TrainOptions { bucket: 2, ..base.clone() }),
        ("--mix-opt", TrainOptions { target_last: true, ..base.clone() }),
        ("--sampling", TrainOptions { sampling: manyhead::data::Sampling::Sqrt, ..base.clone() }),
    ];
    for (flag, options) in cases {
        let error = world.train(1, &trainer(options), &mut Record::default()).1.unwrap_err();
        assert!(error.to_string().contains(flag) && error.exit_code() == 2, "{flag}: {error}");
    }
    let tasks = fs::read_to_string(world.path("tasks.yml")).unwrap();
    fs::write(world.path("tasks.yml"), tasks.replace("weight: 0.5", "weight: 0.5\n  learning_rate: 0.01")).unwrap();
    let error = world.train(1, &trainer(base), &mut Record::default()).1.unwrap_err();
    assert!(error.to_string().contains("the tasks' learning rates"), "{error}");
}

#[test]
fn options_out_of_their_range_are_refused_by_the_name_of_their_flag() -> Result<()> {
    let base = TrainOptions::default();
    base.validate()?;
    for (flag, options) in [
        ("--ema", TrainOptions { ema: Some(1.0), ..base.clone() }),
        ("--ema", TrainOptions { ema: Some(f64::NAN), ..base.clone() }),
        ("--patience", TrainOptions { patience: Some(0), ..base.clone() }),
    ] {
        let error = options.validate().unwrap_err().to_string();
        assert!(error.contains(flag), "{error}");
    }
    Ok(())
}
