//! A run that was stopped, killed or whose newest checkpoint was damaged ends, resumed, with the same bits as the run
//! that never stopped; what cannot be resumed is refused with its reason.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manyhead::train::{Event, OptimizerKind, OptimizerOptions, ScheduleKind, TrainReport, Untouched};
use manyhead::{Error, MultiTaskModel, Result, TrainOptions, Trainer};
use support::{Record, World, assert_same_weights, copy_folder, crash, files, names, options};

/// 16 batches an epoch, updates of 3, 3, 3, 3, 3 and 1 of them: 12 updates in two epochs.
const UPDATES: u64 = 12;

fn run_options() -> TrainOptions {
    TrainOptions { accumulate: 3, checkpoint_every: Some(2), keep_checkpoints: 3, ..options(OptimizerKind::AdamW) }
}

fn trainer(world: &World, output: &str) -> Trainer {
    Trainer { options: run_options(), output: Some(world.path(output)), resume: true, ..Default::default() }
}

/// The run that never stopped: its model, its record, and its output folder `straight`.
fn straight<'a>(world: &World) -> (MultiTaskModel, Record<'a>) {
    let mut record = Record::default();
    let (model, updates) = world.train(1, &trainer(world, "straight"), &mut record);
    assert_eq!(updates.unwrap(), UPDATES);
    (model, record)
}

/// Weights, optimizer, state and the best model are those of the straight run, byte for byte.
fn assert_same_end(world: &World, output: &str, what: &str) {
    for folder in [format!("checkpoints/step-{UPDATES}"), "best".into()] {
        let (expected, found) =
            (files(&world.path("straight").join(&folder)), files(&world.path(output).join(&folder)));
        assert!(expected.len() >= 4);
        assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{what}: {folder}");
        for (name, content) in expected {
            assert!(content == found[&name], "{what}: {folder}/{name} differs");
        }
    }
}

fn checkpoint(world: &World, output: &str, update: u64) -> PathBuf {
    world.path(output).join(format!("checkpoints/step-{update}"))
}

/// Trains into `output` and ends it by an error at update `at`.
fn killed<'a>(world: &World, output: &str, at: u64) -> Record<'a> {
    let mut record = Record::with(move |event| match event {
        Event::Update { update, .. } if *update == at => Err(crash()),
        _ => Ok(()),
    });
    let (_, result) = world.train(1, &trainer(world, output), &mut record);
    assert!(result.unwrap_err().to_string().contains("killed"));
    record.also = None;
    record
}

#[test]
fn a_run_stopped_anywhere_ends_as_if_it_had_never_stopped() {
    let world = World::new();
    let (model, expected) = straight(&world);
    type Stop = (&'static str, u64, fn(&Event<'_>) -> bool);
    let stops: [Stop; 6] = [
        ("at the first batch", 1, |event| matches!(event, Event::Batch { batch: 0, .. })),
        ("mid-epoch", 3, |event| matches!(event, Event::Update { update: 2, .. })),
        ("inside an accumulation window", 2, |event| matches!(event, Event::Batch { batch: 4, .. })),
        ("at the last update of an epoch", 6, |event| matches!(event, Event::Update { update: 5, .. })),
        ("during the evaluation after an epoch", 6, |event| matches!(event, Event::Evaluation { epoch: Some(0), .. })),
        ("at the last update of all", 12, |event| matches!(event, Event::Update { update: 11, .. })),
    ];
    for (what, at, raise) in stops {
        let flag = Arc::new(AtomicBool::new(false));
        let stopping = Trainer { stop: Some(flag.clone()), ..trainer(&world, "stopped") };
        let _ = fs::remove_dir_all(world.path("stopped"));
        let mut record = Record::with(|event| {
            if raise(event) {
                flag.store(true, Ordering::Relaxed);
            }
            Ok(())
        });
        let (_, result) = world.train(1, &stopping, &mut record);
        assert!(matches!(result, Err(Error::Interrupted { update }) if update == at), "{what}: {result:?}");
        assert!(record.log.keys().all(|(number, kind)| *kind == "batch" || *number < at), "{what}: too many updates");

        record.also = None;
        let (resumed, result) = world.train(2, &trainer(&world, "stopped"), &mut record);
        assert_eq!(result.unwrap(), UPDATES, "{what}");
        assert_eq!(record.start.unwrap().1, at, "{what}");
        assert_eq!(record.log, expected.log, "{what}");
        assert_eq!(record.evaluations, expected.evaluations, "{what}");
        assert_same_weights(what, &model, &resumed);
        assert_same_end(&world, "stopped", what);
    }
}

#[test]
fn a_run_stopped_at_every_update_ends_as_if_it_had_never_stopped() {
    let world = World::new();
    let (_, expected) = straight(&world);
    let mut record = Record::default();
    let mut stops = 0;
    loop {
        // The flag is up from the start: one update each time, or the evaluation that is left.
        let flag = Arc::new(AtomicBool::new(true));
        let (_, result) = world.train(1, &Trainer { stop: Some(flag), ..trainer(&world, "stopped") }, &mut record);
        match result {
            Err(Error::Interrupted { .. }) => stops += 1,
            result => break assert_eq!(result.unwrap(), UPDATES),
        }
        assert!(stops < 50);
    }
    assert!(stops >= 12);
    assert_eq!(record.log, expected.log);
    assert_eq!(record.evaluations, expected.evaluations);
    assert_same_end(&world, "stopped", "stopped at every update");
}

#[test]
fn a_killed_run_goes_on_from_its_newest_checkpoint() {
    let world = World::new();
    let (_, expected) = straight(&world);
    for (at, from) in [(1, 0), (2, 2), (5, 4), (8, 8), (11, 10)] {
        let output = format!("killed-{at}");
        let mut record = killed(&world, &output, at);
        let (_, result) = world.train(1, &trainer(&world, &output), &mut record);
        assert_eq!(result.unwrap(), UPDATES);
        assert_eq!(record.start.unwrap().1, from);
        assert_eq!(record.log, expected.log);
        assert_eq!(record.evaluations, expected.evaluations);
        assert_same_end(&world, &output, &output);
    }
    // In the last evaluation: nothing is left but to evaluate.
    let mut record = Record::with(|event| match event {
        Event::Evaluation { epoch: Some(1), .. } => Err(crash()),
        _ => Ok(()),
    });
    let (_, result) = world.train(1, &trainer(&world, "late"), &mut record);
    assert!(result.is_err());
    record = Record::default();
    let (_, result) = world.train(1, &trainer(&world, "late"), &mut record);
    assert_eq!(result.unwrap(), UPDATES);
    assert!(record.log.is_empty());
    assert_eq!(record.evaluations[&1], expected.evaluations[&1]);
    assert_same_end(&world, "late", "killed in the last evaluation");
}

#[test]
fn the_optimizer_and_its_counters_are_resumed_whatever_it_is() {
    let world = World::new();
    for kind in [
        OptimizerKind::Adamax,
        OptimizerKind::AdamaxLegacy,
        OptimizerKind::RAdam { decay_first: true },
        OptimizerKind::Sgd { momentum: 0.0, decoupled: false },
        OptimizerKind::Sgd { momentum: 0.9, decoupled: true },
    ] {
        let options = TrainOptions { max_updates: Some(4), ..options(kind) };
        let name = format!("{kind:?}").replace(' ', "");
        let whole = Trainer { options, output: Some(world.path(&format!("whole-{name}"))), ..Default::default() };
        let (expected, result) = world.train(1, &whole, &mut Record::default());
        result.unwrap();
        let stop = Some(Arc::new(AtomicBool::new(true)));
        let halves =
            Trainer { output: Some(world.path(&format!("halves-{name}"))), resume: true, stop, ..whole.clone() };
        for _ in 0..2 {
            let (_, result) = world.train(1, &halves, &mut Record::default());
            assert!(matches!(result, Err(Error::Interrupted { .. })), "{result:?}");
        }
        let (model, result) = world.train(1, &Trainer { stop: None, ..halves.clone() }, &mut Record::default());
        assert_eq!(result.unwrap(), 4);
        assert_same_weights(&name, &expected, &model);
        let last = |trainer: &Trainer| files(&trainer.output.as_ref().unwrap().join("checkpoints/step-4"));
        assert!(last(&whole) == last(&halves), "{name}");
    }
}

#[test]
fn a_run_that_ended_at_max_updates_goes_on_in_the_middle_of_its_epoch() {
    let world = World::new();
    let (model, expected) = straight(&world);
    let mut record = Record::default();
    for limit in [Some(4), Some(4), Some(9), None] {
        let mut trainer = trainer(&world, "limited");
        trainer.options.max_updates = limit;
        let (limited, result) = world.train(1, &trainer, &mut record);
        assert_eq!(result.unwrap(), limit.unwrap_or(UPDATES));
        if limit.is_none() {
            assert_same_weights("limited", &model, &limited);
        }
    }
    assert_eq!(record.log, expected.log);
    assert_eq!(record.evaluations, expected.evaluations, "the last evaluation of each epoch");
    for name in ["params.safetensors", "optimizer.safetensors"] {
        let read = |output| fs::read(checkpoint(&world, output, UPDATES).join(name)).unwrap();
        assert!(read("straight") == read("limited"), "{name}");
    }
}

/// Flips one bit in the middle of a file.
fn flip(path: &Path) {
    let mut content = fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(path, content).unwrap();
}

fn truncate(path: &Path) {
    let content = fs::read(path).unwrap();
    fs::write(path, &content[..content.len() - 5]).unwrap();
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_with_a_message() {
    let world = World::new();
    let (model, expected) = straight(&world);
    let before = killed(&world, "crashed", 9);
    assert_eq!(names(&world.path("crashed").join("checkpoints")), ["step-4", "step-6", "step-8"]);
    let files = ["params.safetensors", "optimizer.safetensors", "state.json", "manifest.json"];
    type Damage = (&'static str, fn(&Path));
    let kinds: [Damage; 5] = [
        ("truncated", truncate),
        ("a flipped bit", flip),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("another file's content", |path| fs::write(path, "{}").unwrap()),
    ];
    for (index, name) in files.into_iter().enumerate() {
        for (kind, damage) in kinds {
            copy_folder(&world.path("crashed"), &world.path("damaged"));
            damage(&checkpoint(&world, "damaged", 8).join(name));
            let mut record = Record { log: before.log.clone(), ..Default::default() };
            // The whole way once for each file, for the other damages only to where the run begins.
            let whole = kind == "a flipped bit";
            if !whole {
                record.also =
                    Some(Box::new(|event| if matches!(event, Event::Start { .. }) { Err(crash()) } else { Ok(()) }));
            }
            let (resumed, result) = world.train(1, &trainer(&world, "damaged"), &mut record);
            let what = format!("{kind}: {name} ({index})");
            assert_eq!(record.start.map(|start| start.1), Some(6), "{what}: {result:?}");
            assert_eq!(record.messages.len(), 1, "{what}");
            assert!(record.messages[0].contains("step-8"), "{what}: {:?}", record.messages);
            if whole {
                assert_eq!(result.unwrap(), UPDATES, "{what}");
                assert_eq!(record.log, expected.log, "{what}");
                assert_same_weights(&what, &model, &resumed);
                assert_same_end(&world, "damaged", &what);
            }
        }
    }
}

#[test]
fn half_written_checkpoints_are_no_checkpoints_and_are_cleared_away() {
    let world = World::new();
    straight(&world);
    killed(&world, "crashed", 9);
    let folder = world.path("crashed").join("checkpoints");
    for half in [".step-10.1.tmp".to_string(), format!(".step-10.{}.tmp", std::process::id())] {
        copy_folder(&folder.join("step-8"), &folder.join(&half));
        fs::write(folder.join(&half).join("leftover"), "x").unwrap();
        fs::remove_file(folder.join(&half).join("manifest.json")).unwrap();
    }
    let mut record = Record::default();
    let (_, result) = world.train(1, &trainer(&world, "crashed"), &mut record);
    assert_eq!(result.unwrap(), UPDATES);
    assert_eq!(record.start.unwrap().1, 8);
    assert_same_end(&world, "crashed", "beside half-written ones");
    assert_eq!(names(&folder), ["step-10", "step-12", "step-8"]);
}

#[test]
fn a_checkpoint_that_a_crash_left_aside_is_found() {
    // Between the two renames that replace a folder there is only the one that was moved aside.
    let world = World::new();
    straight(&world);
    killed(&world, "crashed", 9);
    let folder = world.path("crashed").join("checkpoints");
    for update in [4, 6] {
        fs::remove_dir_all(checkpoint(&world, "crashed", update)).unwrap();
    }
    fs::rename(folder.join("step-8"), folder.join(".step-8.previous")).unwrap();
    let mut record = Record::default();
    let (_, result) = world.train(1, &trainer(&world, "crashed"), &mut record);
    assert_eq!(result.unwrap(), UPDATES);
    assert_eq!(record.start.unwrap().1, 8);
    assert_same_end(&world, "crashed", "moved aside");
}

#[test]
fn without_a_whole_checkpoint_the_error_says_what_to_do_and_the_model_is_as_it_was() {
    let world = World::new();
    killed(&world, "crashed", 9);
    for update in [4, 6, 8] {
        truncate(&checkpoint(&world, "crashed", update).join("optimizer.safetensors"));
    }
    let before = files(&world.path("crashed"));
    let mut record = Record::default();
    let (model, result) = world.train(1, &trainer(&world, "crashed"), &mut record);
    let error = result.unwrap_err();
    assert!(error.to_string().contains("start anew with --overwrite"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert_eq!(record.messages.len(), 3);
    assert_same_weights("after the error", &model, &world.model(1, None));
    assert!(before == files(&world.path("crashed")), "nothing was changed");
}

/// Resumes `crashed` with other options and wants an error that names `what`.
fn assert_refused(world: &World, change: impl Fn(&mut TrainOptions), what: &str) {
    let mut trainer = trainer(world, "crashed");
    change(&mut trainer.options);
    let mut record = Record::default();
    let (model, result) = world.train(1, &trainer, &mut record);
    let error = result.expect_err(what);
    assert!(error.to_string().contains(what), "{what}: {error}");
    assert_eq!(error.exit_code(), 2);
    assert!(record.messages.is_empty() && record.start.is_none(), "{what}: no checkpoint is damaged");
    assert_same_weights(what, &model, &world.model(1, None));
}

#[test]
fn resuming_with_other_options_is_refused_by_name() {
    let world = World::new();
    killed(&world, "crashed", 9);
    let before = files(&world.path("crashed"));
    assert_refused(&world, |o| o.epochs = 3, "--epochs = 2, not 3");
    assert_refused(&world, |o| o.batch_size = 8, "--batch-size");
    assert_refused(&world, |o| o.batch_tokens = Some(100), "--batch-tokens");
    assert_refused(&world, |o| o.learning_rate = 1e-3, "--learning-rate");
    assert_refused(&world, |o| o.optimizer = OptimizerOptions::new(OptimizerKind::AdamW), "--optimizer");
    // Optimizers with other state than AdamW's.
    for kind in [OptimizerKind::Adamax, OptimizerKind::Sgd { momentum: 0.0, decoupled: false }] {
        assert_refused(&world, |o| o.optimizer.kind = kind, "--optimizer");
    }
    assert_refused(&world, |o| o.schedule = ScheduleKind::Cosine, "--schedule");
    assert_refused(&world, |o| o.warmup = 0.5, "--warmup");
    assert_refused(&world, |o| o.clip = 0.0, "--clip");
    assert_refused(&world, |o| o.accumulate = 1, "--accumulate");
    assert_refused(&world, |o| o.shuffle = false, "--shuffle");
    assert_refused(&world, |o| o.seed = 8, "--seed");
    assert_refused(&world, |o| o.untouched = Untouched::Zero, "--untouched");
    assert!(before == files(&world.path("crashed")), "nothing was changed");
}

#[test]
fn resuming_with_other_data_tasks_or_weights_of_tasks_is_refused_by_name() {
    let world = World::new();
    killed(&world, "crashed", 9);
    world.write_data(2);
    assert_refused(&world, |_| {}, "the training data");
    world.write_data(1);
    let tasks = fs::read_to_string(world.path("tasks.yml")).unwrap();
    fs::write(world.path("tasks.yml"), tasks.replace("weight: 0.5", "weight: 0.25")).unwrap();
    assert_refused(&world, |_| {}, "the tasks' weights");
    // A task less: the checkpoint has tensors and moments that the model has not.
    fs::write(world.path("tasks.yml"), &tasks[..tasks.find("value:").unwrap()]).unwrap();
    assert_refused(&world, |_| {}, "the tasks = single, pair, value, not single, pair");
}

#[test]
fn another_number_of_threads_or_of_kept_checkpoints_is_no_other_run() {
    let world = World::new();
    straight(&world);
    killed(&world, "crashed", 5);
    let mut other = trainer(&world, "crashed");
    other.options.keep_checkpoints = 1;
    other.options.checkpoint_every = None;
    other.options.check = true;
    let (_, result) = world.train(3, &other, &mut Record::default());
    assert_eq!(result.unwrap(), UPDATES);
    assert_same_end(&world, "crashed", "other threads");
}

/// Trains once more where `straight` has ended.
fn again(world: &World, record: &mut Record<'_>) -> (MultiTaskModel, Result<TrainReport>) {
    let mut model = world.model(1, None);
    let data = world.data(&model);
    let report = trainer(world, "straight").run(&mut model, &data, record);
    (model, report)
}

#[test]
fn resuming_a_finished_run_does_nothing_and_says_so() {
    let world = World::new();
    let (model, _) = straight(&world);
    let before = files(&world.path("straight"));
    let mut record = Record::default();
    let (loaded, report) = again(&world, &mut record);
    let report = report.unwrap();
    assert_eq!((report.updates, report.updates_before), (UPDATES, UPDATES));
    assert!(report.best.is_some());
    assert!(record.log.is_empty() && record.evaluations.is_empty());
    assert!(record.messages.iter().any(|message| message.contains("nothing is left to do")), "{:?}", record.messages);
    assert_same_weights("finished", &model, &loaded);
    assert!(before == files(&world.path("straight")), "no file was changed");
}

#[test]
fn only_older_checkpoints_are_deleted() {
    let world = World::new();
    straight(&world);
    assert_eq!(names(&world.path("straight").join("checkpoints")), ["step-10", "step-12", "step-8"]);
    // A damaged newer one must not push out those that a resumed run writes.
    killed(&world, "crashed", 9);
    flip(&checkpoint(&world, "crashed", 8).join("params.safetensors"));
    let mut every = trainer(&world, "crashed");
    (every.options.checkpoint_every, every.options.keep_checkpoints) = (Some(1), 1);
    let mut record = Record::with(|event| match event {
        Event::Checkpoint { update: 7, .. } => Err(crash()),
        _ => Ok(()),
    });
    let (_, result) = world.train(1, &every, &mut record);
    assert!(result.is_err());
    assert_eq!(names(&world.path("crashed").join("checkpoints")), ["step-7", "step-8"]);
    let mut record = Record::default();
    let (_, result) = world.train(1, &every, &mut record);
    assert_eq!(result.unwrap(), UPDATES);
    assert_eq!(record.start.unwrap().1, 7);
    assert_eq!(names(&world.path("crashed").join("checkpoints")), ["step-12"]);
    assert_same_end(&world, "crashed", "one kept");
}

#[test]
fn a_new_run_does_not_mix_its_checkpoints_with_those_of_another() {
    let world = World::new();
    straight(&world);
    let before = files(&world.path("straight"));
    let anew = Trainer { resume: false, ..trainer(&world, "straight") };
    let (_, result) = world.train(1, &anew, &mut Record::default());
    let error = result.unwrap_err();
    assert!(error.to_string().contains("checkpoints of another run"), "{error}");
    assert!(before == files(&world.path("straight")));
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_an_error() {
    let world = World::new();
    fs::create_dir_all(world.path("blocked")).unwrap();
    fs::write(world.path("blocked").join("checkpoints"), "a file").unwrap();
    let (_, result) = world.train(1, &trainer(&world, "blocked"), &mut Record::default());
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("checkpoints"), "{error}");
}

/// Tells the child process of the next test where its world is.
const CHILD: &str = "MANYHEAD_TEST_FULL_DISK";

#[test]
#[cfg(unix)]
fn a_full_disk_is_an_error_that_loses_nothing_already_written() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let world = World::at(folder.into());
        let (_, result) = world.train(1, &trainer(&world, "crashed"), &mut Record::default());
        let error = result.unwrap_err();
        println!("error: {error}, exit code {}", error.exit_code());
        return;
    }
    let world = World::new();
    straight(&world);
    killed(&world, "crashed", 9);
    let before = files(&world.path("crashed"));
    // Files end at 200 KiB (or 400: shells count blocks of 512 or 1024 bytes); the optimizer's has 450.
    let script = "trap '' XFSZ; ulimit -f 400; exec \"$0\" --exact \"$1\" --nocapture";
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg("a_full_disk_is_an_error_that_loses_nothing_already_written")
        .env(CHILD, world.path(""))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("error: cannot write") && text.contains("exit code 1"), "{text}");
    assert!(before == files(&world.path("crashed")), "what was there is there, and nothing besides");
    let (_, result) = world.train(1, &trainer(&world, "crashed"), &mut Record::default());
    assert_eq!(result.unwrap(), UPDATES);
    assert_same_end(&world, "crashed", "after a full disk");
}
