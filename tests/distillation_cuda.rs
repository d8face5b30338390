//! Distillation on a CUDA device: the software GPU, or with `MANYHEAD_REAL_GPU=1` the machine's own. Teachers and students
//! follow those on the CPU.
#![cfg(all(feature = "cli", feature = "cuda"))]

#[path = "support/gpu.rs"]
mod gpu;
mod support;
#[allow(dead_code)]
#[path = "support/teachers.rs"]
mod teachers;

use std::sync::Arc;

use manyhead::device::{CudaOptions, Graphs, cache_dir};
use manyhead::losses::SoftLoss;
use manyhead::train::distillation::{Consultation, Keep, Stored, Teacher, Teaching};
use manyhead::train::{DistillationOptions, Event, OptimizerKind};
use manyhead::{Device, Encoder, MultiTaskModel, TrainOptions, Trainer};
use support::{Record, options};
use teachers::{Fixture, LENGTH, NAMES, asked, consult};

/// The losses of all batches and the norms of all updates of a student that is taught by all means there are.
fn run(fixture: &Fixture, device: &Device, distillation: DistillationOptions) -> (Vec<f64>, Vec<f64>) {
    let encoder = Encoder::load(fixture.world.path("model"), device).unwrap();
    let mut student = MultiTaskModel::new(encoder, &fixture.tasks, Default::default()).unwrap();
    let folder = fixture.world.path("teacher1");
    let teacher = Teacher::new(MultiTaskModel::load(&folder, device).unwrap(), &folder).unwrap();
    let distillation = distillation.resolved(&student, &teacher.model).unwrap();
    let (layers, projected) = distillation.teacher_layers();
    let mut data = fixture.data(&student);
    let guard = tempfile::tempdir().unwrap();
    let keep = Keep::Folder(guard.path().to_path_buf());
    for (task, data) in data.tasks.iter_mut().enumerate() {
        let how = Consultation { layers: &layers, projected, ..asked(&keep, Stored::F32) };
        let outputs = consult(&teacher, task, &data.train, &how).0.unwrap();
        let kind = student.outputs(task).unwrap();
        let states = (layers.len(), projected.is_some());
        let teaching = Teaching::of_teachers(vec![outputs], kind, false, states, (&data.train, &data.train)).unwrap();
        data.teaching[0] = Some(Arc::new(teaching));
    }
    let options = TrainOptions {
        epochs: 1,
        batch_size: 13,
        accumulate: 1,
        distillation: Some(distillation),
        ..options(OptimizerKind::AdamW)
    };
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    let mut record = Record::with(|event| {
        match event {
            Event::Batch { loss, .. } => losses.push(*loss),
            Event::Update { grad_norm, .. } => norms.push(*grad_norm),
            _ => {}
        }
        Ok(())
    });
    Trainer::new(options).run(&mut student, &data, &mut record).unwrap();
    drop(record);
    (losses, norms)
}

/// As far apart as other runs of training in f32 are: see `cuda_training`.
#[test]
fn students_follow_those_on_the_cpu() {
    gpu::driver();
    gpu::nvrtc();
    let options = CudaOptions { cache: Some(cache_dir(None).unwrap()), graphs: Graphs::from_environment().unwrap() };
    let device = Device::cuda(0, 1, options).unwrap();
    let fixture = Fixture::new();
    fixture.teacher(1, LENGTH);
    let usual = DistillationOptions::default();
    let states = DistillationOptions { hidden_weight: 0.5, relation_weight: 0.5, loss: SoftLoss::Mse, ..usual.clone() };
    for distillation in [usual.clone(), DistillationOptions { loss: SoftLoss::JensenShannon, ..usual }, states] {
        let name = distillation.loss.name();
        let found = run(&fixture, &device, distillation.clone());
        let wanted = run(&fixture, &Device::cpu(1).unwrap(), distillation);
        assert_eq!((found.0.len(), wanted.0.len()), (NAMES.len(), NAMES.len()));
        for (found, wanted, tolerance) in [(&found.0, &wanted.0, 1e-4), (&found.1, &wanted.1, 1e-3)] {
            for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
                assert!((a - b).abs() <= tolerance * b.abs().max(0.1), "{name} {i}: {a}, not {b}");
            }
        }
    }
}
