//! Whole training runs on a CUDA device: the software GPU, or with `MANYHEAD_REAL_GPU=1` the machine's own. They follow the
//! same runs on the CPU, in f32 and in bf16.

#[path = "support/gpu.rs"]
mod gpu;
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use manyhead::device::{Cuda, CudaOptions, Graphs, Precision, cache_dir};
use manyhead::model::{Attack, HeadOptions};
use manyhead::ops::perturbation::{Ball, Level, Norm, Projection};
use manyhead::train::adversarial::{AdversarialOptions, Method, Momentum, ProximalOptions, Settings};
use manyhead::train::{Event, OptimizerKind, evaluate_all};
use manyhead::{Device, Encoder, Error, MultiTaskModel, TrainOptions, Trainer};
use support::{Record, World, files, options};

/// One run at a time: they look at what the device has been asked for.
fn device() -> (MutexGuard<'static, ()>, Device) {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    gpu::driver();
    gpu::nvrtc();
    let options = CudaOptions { cache: Some(cache_dir(None).unwrap()), graphs: Graphs::from_environment().unwrap() };
    (guard, Device::cuda(0, 1, options).unwrap())
}

fn model(world: &World, device: &Device) -> MultiTaskModel {
    let encoder = Encoder::load(world.path("model"), device).unwrap();
    MultiTaskModel::new(encoder, &world.tasks().tasks, HeadOptions::default()).unwrap()
}

/// The losses of all batches, the norms of all updates, and the model.
fn train(world: &World, device: &Device, trainer: &Trainer) -> (Vec<f64>, Vec<f64>, MultiTaskModel) {
    let mut model = model(world, device);
    let data = world.data(&model);
    let numbers = RefCell::new((Vec::new(), Vec::new()));
    let mut record = Record::with(|event| {
        match event {
            Event::Batch { loss, .. } => numbers.borrow_mut().0.push(*loss),
            Event::Update { grad_norm, .. } => numbers.borrow_mut().1.push(*grad_norm),
            _ => {}
        }
        Ok(())
    });
    trainer.run(&mut model, &data, &mut record).unwrap();
    drop(record);
    let (losses, norms) = numbers.into_inner();
    (losses, norms, model)
}

#[track_caller]
fn assert_follow(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    assert!(!got.is_empty(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * expected.abs().max(0.1), "{what} {i}: {got}, not {expected}");
    }
}

/// ‖a − b‖ / ‖b‖ of all weights.
fn distance(a: &MultiTaskModel, b: &MultiTaskModel) -> f64 {
    let (a, b) = (a.encoder().params().arena(), b.encoder().params().arena());
    let square = |x: f32| f64::from(x).powi(2);
    let apart: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (apart / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// Rounding differs in the last digits of f32, and a rule that divides by √v turns that into a step of its own size where a
/// gradient is nearly 0: after a few updates losses agree to four digits.
#[test]
fn runs_with_every_optimizer_follow_those_on_the_cpu() {
    let world = World::new();
    let (_one, device) = device();
    for kind in [
        OptimizerKind::AdamW,
        OptimizerKind::Adamax,
        OptimizerKind::AdamaxLegacy,
        OptimizerKind::RAdam { decay_first: true },
        OptimizerKind::Sgd { momentum: 0.9, decoupled: false },
    ] {
        let options = TrainOptions { max_updates: Some(6), ema: Some(0.9), ..options(kind) };
        let trainer = Trainer::new(options);
        let (losses, norms, trained) = train(&world, &device, &trainer);
        let (expected_losses, expected_norms, expected) = train(&world, &Device::cpu(1).unwrap(), &trainer);
        assert_follow(&format!("{kind:?} loss"), &losses, &expected_losses, 1e-4);
        assert_follow(&format!("{kind:?} norm"), &norms, &expected_norms, 1e-3);
        assert!(distance(&trained, &expected) < 1e-3, "{kind:?}: {}", distance(&trained, &expected));
    }
}

/// Rounding an operand to bf16 is 2⁻⁹ at most, 2⁻⁹ / √3 in the mean: a loss, which averages many, is not off by more than one
/// of them, a gradient's norm not by more than the four that lie on a path. That holds beside f32 and beside bf16 on the CPU
/// alike, which rounds what attention multiplies too.
#[test]
fn a_run_in_bf16_follows_those_in_f32_and_in_bf16_on_the_cpu() {
    let world = World::new();
    let (_one, device) = device();
    let run = |device: &Device, precision| {
        let options =
            TrainOptions { max_updates: Some(6), precision: Some(precision), ..options(OptimizerKind::AdamW) };
        train(&world, device, &Trainer::new(options))
    };
    let cpu = Device::cpu(1).unwrap();
    let (losses, norms, trained) = run(&device, Precision::Bf16);
    let roundoff = 1.0 / 512.0;
    let others = [run(&device, Precision::F32), run(&cpu, Precision::Bf16)];
    for (name, (expected_losses, expected_norms, expected)) in ["f32", "the CPU"].iter().zip(&others) {
        assert_follow(&format!("loss beside {name}"), &losses, expected_losses, roundoff);
        assert_follow(&format!("norm beside {name}"), &norms, expected_norms, 4.0 * roundoff);
        assert!(distance(&trained, expected) < roundoff, "{name}: {}", distance(&trained, expected));
    }
    // It is bf16: the losses of the two f32 runs are nearer to each other by far.
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let exact = &others[0].0;
    assert!(apart(&losses, exact) > 10.0 * apart(&run(&cpu, Precision::F32).0, exact));
}

/// In f16 a rounding is an eighth of one in bf16. The scale of the loss changes nothing but what would vanish or overflow: it
/// begins where some gradients may overflow, which costs updates; so the run is compared from where it is low enough.
#[test]
fn a_run_in_f16_follows_one_in_f32_and_goes_on_from_a_checkpoint_to_the_same_bits() {
    let world = World::new();
    let (_one, device) = device();
    let run = |precision, updates: u64, folder: Option<&str>, resume: bool| {
        let options =
            TrainOptions { max_updates: Some(updates), precision: Some(precision), ..options(OptimizerKind::AdamW) };
        let mut trainer = Trainer::new(options);
        trainer.output = folder.map(|folder| world.path(folder));
        trainer.resume = resume;
        train(&world, &device, &trainer)
    };
    let (losses, norms, whole) = run(Precision::F16, 6, None, false);
    let (exact_losses, exact_norms, exact) = run(Precision::F32, 6, None, false);
    assert!(norms.iter().all(|norm| norm.is_finite()), "this small model overflows nowhere: {norms:?}");
    let roundoff = 1.0 / 4096.0;
    assert_follow("loss", &losses, &exact_losses, roundoff);
    assert_follow("norm", &norms, &exact_norms, 4.0 * roundoff);
    // A rule that divides by √v turns a rounding into a step of its own size where a gradient is nearly 0.
    assert!(distance(&whole, &exact) < 4.0 * roundoff, "{}", distance(&whole, &exact));
    run(Precision::F16, 3, Some("half"), false);
    let (_, _, resumed) = run(Precision::F16, 6, Some("half"), true);
    assert_eq!(resumed.encoder().params().arena(), whole.encoder().params().arena());
    let state = std::fs::read_to_string(world.path("half/checkpoints/step-6/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["loss_scale"], serde_json::json!({"scale": 65536.0, "held": 6}));
}

/// The ascent alone in bf16: the perturbation is another one, in a direction that finds as much.
#[test]
fn an_ascent_in_bf16_finds_what_one_in_f32_finds() {
    let world = World::new();
    let (_one, device) = device();
    let run = |ascent_precision| {
        let settings =
            Settings { epsilon: Some(0.02), step_size: Some(0.02), noise: Some(0.01), ..Settings::default() };
        let methods = vec![(Method::Smart, settings)];
        let adversarial = AdversarialOptions { methods, ascent_precision, ..Default::default() };
        let options = TrainOptions { max_updates: Some(3), adversarial, ..options(OptimizerKind::AdamW) };
        train(&world, &device, &Trainer::new(options))
    };
    let ((losses, norms, _), (expected_losses, expected_norms, _)) = (run(Some(Precision::Bf16)), run(None));
    assert_follow("loss", &losses, &expected_losses, 1e-3);
    assert_follow("norm", &norms, &expected_norms, 1e-2);
    assert_ne!(norms, expected_norms);
}

#[test]
fn adversarial_terms_follow_those_on_the_cpu() {
    let world = World::new();
    let (_one, device) = device();
    for method in
        [Method::Smart, Method::Alum, Method::FreeLb, Method::Fgm, Method::Pdr, Method::RDrop, Method::SmartLegacy]
    {
        // A radius that shows in f32.
        let mut settings = Settings::default();
        if !matches!(method, Method::RDrop | Method::SmartLegacy) {
            settings.epsilon = Some(0.02);
        }
        if matches!(method, Method::Smart | Method::Alum | Method::Pdr) {
            (settings.step_size, settings.noise) = (Some(0.02), Some(0.01));
        }
        let proximal =
            (method == Method::Smart).then_some(ProximalOptions { weight: 1.0, momentum: Momentum::Constant(0.5) });
        let adversarial = AdversarialOptions { methods: vec![(method, settings)], proximal, ..Default::default() };
        let options = TrainOptions { max_updates: Some(3), adversarial, ..options(OptimizerKind::AdamW) };
        let trainer = Trainer::new(options);
        let (losses, norms, trained) = train(&world, &device, &trainer);
        let (expected_losses, expected_norms, expected) = train(&world, &Device::cpu(1).unwrap(), &trainer);
        // A step along sign(g) or g / ‖g‖ is not continuous where g is nearly 0.
        assert_follow(&format!("{method:?} loss"), &losses, &expected_losses, 1e-3);
        assert_follow(&format!("{method:?} norm"), &norms, &expected_norms, 1e-2);
        assert!(distance(&trained, &expected) < 2e-3, "{method:?}: {}", distance(&trained, &expected));
    }
}

#[test]
fn evaluation_gives_what_the_cpu_gives() {
    let world = World::new();
    let (_one, device) = device();
    let (ours, theirs) = (model(&world, &device), model(&world, &Device::cpu(1).unwrap()));
    let (found, mean) = evaluate_all(&ours, &world.data(&ours)).unwrap();
    let (expected, expected_mean) = evaluate_all(&theirs, &world.data(&theirs)).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found.loss - expected.loss).abs() < 1e-5 * expected.loss.abs().max(1.0), "{found:?} {expected:?}");
    }
    assert_eq!(mean.is_some(), expected_mean.is_some());
}

#[test]
fn perturbed_examples_have_the_losses_that_they_have_on_the_cpu() {
    let world = World::new();
    let (_one, device) = device();
    let (ours, theirs) = (model(&world, &device), model(&world, &Device::cpu(1).unwrap()));
    let data = world.data(&ours);
    // Steps along g / ‖g‖: those along its sign are not continuous.
    let ball = Ball { norm: Norm::L2, level: Level::Sequence, projection: Projection::Euclidean, radius: 0.5 };
    let attack = Attack { ball, steps: 2 };
    let still = Attack { ball: Ball { radius: 0.0, ..ball }, steps: 1 };
    for (task, def) in world.tasks().tasks.iter().enumerate() {
        let loss = |model: &MultiTaskModel, attack| {
            model.evaluate_perturbed(task, &data.tasks[task].train, def, attack).unwrap().loss
        };
        let (found, expected) = (loss(&ours, &attack), loss(&theirs, &attack));
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(0.1), "task {task}: {found}, not {expected}");
        assert!(expected > loss(&theirs, &still), "task {task}: the attack has found something");
    }
}

#[test]
fn a_step_in_the_steady_state_allocates_nothing() {
    let world = World::new();
    let (_one, device) = device();
    let Device::Cuda(cuda) = &device else { unreachable!() };
    // Batches of one length come again and again: from the second epoch on all sizes have been seen.
    let options = TrainOptions { epochs: 4, shuffle: false, ..options(OptimizerKind::AdamW) };
    let mut model = model(&world, &device);
    let data = world.data(&model);
    let counts: RefCell<BTreeMap<u64, u64>> = RefCell::default();
    let mut record = Record::with(|event| {
        if let Event::Batch { epoch, .. } = event {
            counts.borrow_mut().insert(*epoch, cuda.counters().allocations);
        }
        Ok(())
    });
    Trainer::new(options).run(&mut model, &data, &mut record).unwrap();
    drop(record);
    let counts: Vec<u64> = counts.into_inner().into_values().collect();
    assert_eq!(counts.len(), 4);
    assert!(counts[0] > 0);
    assert_eq!(counts[2], counts[3], "{counts:?}");
}

/// A run that began on the CPU goes on on the device, and the other way round, as if it had stayed.
#[test]
fn a_run_is_resumed_on_the_other_device() {
    let world = World::new();
    let (_one, device) = device();
    let cpu = Device::cpu(1).unwrap();
    let all = options(OptimizerKind::AdamW);
    let (_, _, expected) = train(&world, &cpu, &Trainer::new(all.clone()));
    for (first, second) in [(&cpu, &device), (&device, &cpu)] {
        let out = world.path("out");
        let _ = std::fs::remove_dir_all(&out);
        let part = |max_updates, resume| Trainer {
            options: TrainOptions { max_updates, ..all.clone() },
            output: Some(out.clone()),
            resume,
            stop: None,
        };
        train(&world, first, &part(Some(5), false));
        let (losses, _, resumed) = train(&world, second, &part(None, true));
        assert!(!losses.is_empty());
        assert!(distance(&resumed, &expected) < 2e-3, "{first:?} {}", distance(&resumed, &expected));
    }
}

/// Memory runs out in the middle of a run: an error that says so, and a checkpoint from which the run goes on.
#[test]
fn a_run_without_memory_left_ends_with_a_checkpoint() {
    let world = World::new();
    let (_one, device) = device();
    let Device::Cuda(cuda) = &device else { unreachable!() };
    let out = world.path("out");
    let trainer =
        |resume| Trainer { options: options(OptimizerKind::AdamW), output: Some(out.clone()), resume, stop: None };
    let mut model = model(&world, &device);
    let data = world.data(&model);
    // After two updates somebody takes all there is, in pieces of every size.
    let taken = RefCell::new(Vec::new());
    let mut record = Record::with(|event| {
        if let Event::Update { update: 1, .. } = event {
            let mut bytes = cuda.memory()?.1;
            while bytes >= 256 {
                match cuda.room::<u8>(bytes) {
                    Ok(memory) => taken.borrow_mut().push(memory),
                    Err(Error::DeviceMemory { .. }) => bytes /= 2,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    });
    let error = trainer(false).run(&mut model, &data, &mut record).unwrap_err();
    drop(record);
    assert!(matches!(error, Error::DeviceMemory { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("no memory") && text.contains("--batch-size"), "{text}");
    assert!(files(&out).contains_key("checkpoints/step-2/params.safetensors"), "{:?}", files(&out).keys());
    taken.into_inner().clear();
    let mut other = self::model(&world, &device);
    let report = trainer(true).run(&mut other, &data, &mut Record::default()).unwrap();
    assert_eq!(report.updates_before, 2);
    let (_, _, expected) = train(&world, &device, &Trainer::new(options(OptimizerKind::AdamW)));
    support::assert_same_weights("after running out of memory", &other, &expected);
}

#[test]
fn a_precision_that_the_device_lacks_is_refused() {
    let world = World::new();
    let (_one, device) = device();
    assert_eq!(device.parse_precision("auto").unwrap(), Precision::F32);
    assert_eq!(device.parse_precision("bf16").unwrap(), Precision::Bf16);
    assert_eq!(device.with_precision(Precision::Bf16).precision(), Precision::Bf16);
    let error = device.parse_precision("int8").unwrap_err().to_string();
    assert!(error.contains("int8 on a CUDA device") && error.contains("f32 or bf16"), "{error}");
    let mut model = model(&world, &device);
    let data = world.data(&model);
    let options = TrainOptions { precision: Some(Precision::Int8), ..options(OptimizerKind::AdamW) };
    let error = Trainer::new(options).run(&mut model, &data, &mut Record::default()).unwrap_err().to_string();
    assert!(error.contains("int8"), "{error}");
}

#[test]
fn a_device_of_a_number_that_is_not_there_is_refused() {
    let (_one, _device) = device();
    let error =
        Cuda::open(9, manyhead::device::Cpu::new(1, manyhead::device::Isa::Portable).unwrap(), CudaOptions::default());
    assert!(error.err().unwrap().to_string().contains("cuda:9"));
}
