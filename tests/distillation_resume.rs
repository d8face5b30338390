//! A student's training that was killed anywhere ends, resumed, with the same bits; with other teachers it does not go on.

mod support;
#[allow(dead_code)]
#[path = "support/teachers.rs"]
mod teachers;

use std::sync::Arc;

use manyhead::data::Dataset;
use manyhead::model::HeadOptions;
use manyhead::model::student::{self, StudentSpec};
use manyhead::train::distillation::{Consultation, Keep, LayerMap, Stored, Teacher, Teaching};
use manyhead::train::{DistillationOptions, Event, OptimizerKind};
use manyhead::{Device, Encoder, MultiTaskModel, Result, TrainOptions, Trainer, TrainingData};
use support::{Record, assert_same_weights, crash, files, options};
use teachers::{Fixture, LENGTH, asked};

/// A narrower student, one teacher's outputs and states of the training texts, and of texts without labels.
fn school(fixture: &Fixture, teacher: &Teacher, options: &mut TrainOptions) -> (MultiTaskModel, TrainingData) {
    let encoder = Encoder::load(fixture.world.path("model"), &Device::cpu(1).unwrap()).unwrap();
    let spec = StudentSpec::parse("layers=1,hidden=16,heads=2,intermediate=24").unwrap();
    let built = student::build(&encoder, &spec, None, 3).unwrap();
    let student = MultiTaskModel::new(built, &fixture.tasks, HeadOptions::default()).unwrap();
    let distillation = DistillationOptions {
        annealing: true,
        hidden_weight: 0.5,
        layers: LayerMap::Even,
        ..DistillationOptions::default()
    };
    let distillation = distillation.resolved(&student, &teacher.model).unwrap();
    let (layers, _) = distillation.teacher_layers();
    options.distillation = Some(distillation);
    let mut data = fixture.data(&student);
    let keep = Keep::Cache(fixture.world.path("cache"));
    for (task, data) in data.tasks.iter_mut().enumerate() {
        let teach = |dataset: &Dataset| {
            let how = Consultation { layers: &layers, ..asked(&keep, Stored::F16) };
            let outputs = teacher.consult(task, dataset, "", &how, &mut |_, _| ()).unwrap();
            let kind = student.outputs(task).unwrap();
            Teaching::of_teachers(vec![outputs], kind, false, (layers.len(), false), (dataset, dataset)).unwrap()
        };
        data.unlabelled = data.dev.first().map(|(_, dataset)| dataset.clone());
        let unlabelled = data.unlabelled.as_ref().map(|texts| Arc::new(teach(texts)));
        data.teaching = [Some(Arc::new(teach(&data.train))), unlabelled];
    }
    (student, data)
}

/// 3 batches of each of 6 tasks an epoch, two an update: 18 updates in two epochs.
fn trainer(fixture: &Fixture, output: &str) -> Trainer {
    let options = TrainOptions { batch_size: 5, checkpoint_every: Some(2), ..options(OptimizerKind::AdamW) };
    Trainer { options, output: Some(fixture.world.path(output)), resume: true, ..Trainer::default() }
}

fn run(fixture: &Fixture, teacher: &Teacher, output: &str, record: &mut Record<'_>) -> (MultiTaskModel, Result<u64>) {
    let mut trainer = trainer(fixture, output);
    let (mut student, data) = school(fixture, teacher, &mut trainer.options);
    let result = trainer.run(&mut student, &data, record);
    (student, result.map(|report| report.updates))
}

#[test]
fn a_run_that_was_killed_anywhere_ends_with_the_same_bits() {
    let fixture = Fixture::new();
    let (teacher, other) = (fixture.teacher(1, LENGTH), fixture.teacher(2, LENGTH));
    let mut record = Record::default();
    let (straight, updates) = run(&fixture, &teacher, "straight", &mut record);
    assert_eq!(updates.unwrap(), 18);
    let expected = std::mem::take(&mut record.log);
    assert!(straight.encoder().params().find("distill.projection.1.weight").is_some());
    for at in [1, 5, 9, 17] {
        let output = format!("killed{at}");
        let mut record = Record::with(move |event| match event {
            Event::Update { update, .. } if *update == at => Err(crash()),
            _ => Ok(()),
        });
        let (_, result) = run(&fixture, &teacher, &output, &mut record);
        assert!(result.unwrap_err().to_string().contains("killed"));
        record.also = None;
        if at == 5 {
            // Checkpoints are of one teacher.
            let (_, refused) = run(&fixture, &other, &output, &mut Record::default());
            let message = refused.unwrap_err().to_string();
            assert!(message.contains("the teachers"), "{message}");
        }
        // What is done again is the same.
        let (resumed, updates) = run(&fixture, &teacher, &output, &mut record);
        assert_eq!(updates.unwrap(), 18);
        assert!(record.log == expected, "killed at {at}: another log");
        assert_same_weights(&output, &resumed, &straight);
        let best = |output: &str| files(&fixture.world.path(output).join("best"));
        assert!(best(&output) == best("straight"), "killed at {at}");
    }
    // The matrices of distillation are a part of the training, not of the model.
    let model = MultiTaskModel::load(fixture.world.path("straight/best"), &Device::cpu(1).unwrap()).unwrap();
    assert!(model.encoder().params().entries().iter().all(|entry| !entry.name.starts_with("distill.")));
    assert!(model.encoder().unexpected().is_empty(), "{:?}", model.encoder().unexpected());
}
