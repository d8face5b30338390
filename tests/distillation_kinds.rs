//! Distillation of every kind of task: what a teacher says is kept, comes back where it belongs, and is what a student is
//! compared with.

mod support;
#[allow(dead_code)]
#[path = "support/teachers.rs"]
mod teachers;

use manyhead::data::Dataset;
use manyhead::losses::SoftLoss;
use manyhead::tape::{Gradients, Tape, TapeMemory};
use manyhead::tasks::{TaskBatch, TeacherValues};
use manyhead::train::distillation::{Keep, Stored, Teaching};
use manyhead::{Error, MultiTaskModel};
use teachers::{Fixture, LENGTH, NAMES, SENTENCES, asked, consult, expected, rows_of_words, same_bits, taught};

/// A batch out of order.
const BATCH: [u32; 7] = [9, 2, 0, 12, 6, 3, 11];

/// The loss of a batch against what is taught, and the largest number of its gradient.
fn soft_loss(
    student: &MultiTaskModel,
    task: usize,
    batch: &TaskBatch,
    values: &TeacherValues,
    how: (SoftLoss, f32),
) -> (f64, f32) {
    let encoder = student.encoder();
    let mut tape = Tape::recording(encoder.params(), encoder.device(), TapeMemory::default(), None);
    let logits = student.logits(&mut tape, task, &batch.packed).unwrap();
    let loss = student.soft_loss_of(&mut tape, task, batch, logits, values, how).unwrap();
    let value = tape.scalar(loss).unwrap() as f64;
    let mut gradients = Gradients::new(encoder.params());
    tape.backward(loss, 1.0, &mut gradients).unwrap();
    (value, gradients.arena().iter().fold(0.0, |most, g| most.max(g.abs())))
}

#[test]
fn outputs_are_kept_and_come_back_where_they_belong() {
    let fixture = Fixture::new();
    let teacher = fixture.teacher(1, LENGTH);
    let data = fixture.data(&teacher.model);
    for (task, data) in data.tasks.iter().enumerate() {
        let dataset = &data.train;
        let (keep, half) = (Keep::Folder(fixture.outputs()), Keep::Folder(fixture.world.path("half")));
        let (exact, computed) = consult(&teacher, task, dataset, &asked(&keep, Stored::F32));
        let rounded = consult(&teacher, task, dataset, &asked(&half, Stored::F16)).0.unwrap();
        let exact = exact.unwrap();
        assert_eq!(computed, SENTENCES.len());
        for example in 0..dataset.len() {
            let expected = expected(&teacher.model, task, dataset, example, LENGTH);
            let found = exact.values(example);
            assert!(same_bits(&found, &expected), "{} {example}: {found:?}, not {expected:?}", NAMES[task]);
            let found = rounded.values(example);
            assert_eq!(found.len(), expected.len());
            for (found, x) in found.iter().zip(&expected) {
                // Half a unit in the last of 11 places; the least number is 2^-24.
                let near = (found - x).abs() <= x.abs() / 2048.0 + 2f32.powi(-25);
                assert!(near || found.is_nan() && x.is_nan(), "{} {example}: {found}, not {x}", NAMES[task]);
            }
        }
        assert!(exact.values(dataset.len()).is_empty() && exact.values(usize::MAX - 3).is_empty());
        let lesson = taught(&teacher.model, std::slice::from_ref(&teacher), task, dataset, &keep);
        let lesson = lesson.lesson(dataset, &BATCH).unwrap();
        assert!(lesson.hidden.is_empty() && lesson.projections.is_none());
        let values = lesson.values.unwrap();
        for (place, example) in BATCH.iter().enumerate() {
            let expected = expected(&teacher.model, task, dataset, *example as usize, LENGTH);
            assert!(same_bits(values.of(place), &expected), "{}: {example}", NAMES[task]);
        }
    }
}

#[test]
fn a_student_that_is_its_teacher_has_no_loss_and_no_gradient() {
    let fixture = Fixture::new();
    let teacher = fixture.teacher(1, LENGTH);
    let data = fixture.data(&teacher.model);
    for (task, data) in data.tasks.iter().enumerate() {
        let keep = Keep::Folder(fixture.outputs());
        let teaching = taught(&teacher.model, std::slice::from_ref(&teacher), task, &data.train, &keep);
        let batch = data.train.batch(&BATCH).unwrap();
        let values = teaching.lesson(&data.train, &BATCH).unwrap().values.unwrap();
        let other = fixture.model(5, false, LENGTH);
        for loss in [SoftLoss::Kl, SoftLoss::ReverseKl, SoftLoss::JensenShannon, SoftLoss::Mse] {
            let (own, gradient) = soft_loss(&teacher.model, task, &batch, &values, (loss, 2.0));
            let (others, slope) = soft_loss(&other, task, &batch, &values, (loss, 2.0));
            // Of a few values of rounding each; another model is far off.
            assert!(own.abs() < 1e-6 && gradient < 1e-5, "{} {loss:?}: {own} {gradient}", NAMES[task]);
            assert!(others > 1e-5 && slope > 5e-5, "{} {loss:?}: {others} {slope}", NAMES[task]);
        }
    }
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
    row.iter().map(|x| (x - most).exp() / sum).collect()
}

fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// The loss from the outputs of both sides, row by row in f64.
fn reference(task: usize, pairs: &[(Vec<f32>, Vec<f32>)], loss: SoftLoss, t: f64) -> f64 {
    let (mut sum, mut rows) = (0.0, 0);
    for (student, teacher) in pairs {
        let width = match NAMES[task] {
            "class" | "tags" => 3,
            "pair" => 2,
            "rank" => student.len(),
            _ => 1,
        };
        for (a, b) in student.chunks(width).zip(teacher.chunks(width)) {
            if a.iter().chain(b).any(|x| x.is_nan()) {
                continue;
            }
            let exact = |row: &[f32]| -> Vec<f64> { row.iter().map(|x| f64::from(*x)).collect() };
            let (a, b) = (exact(a), exact(b));
            if loss == SoftLoss::Mse || NAMES[task] == "value" {
                sum += a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
                rows += a.len();
                continue;
            }
            let distribution = |row: &[f64]| match NAMES[task] {
                "topics" => vec![1.0 / (1.0 + (-row[0] / t).exp()), 1.0 / (1.0 + (row[0] / t).exp())],
                _ => softmax(&row.iter().map(|x| x / t).collect::<Vec<_>>()),
            };
            let (p, q) = (distribution(&a), distribution(&b));
            let m: Vec<f64> = p.iter().zip(&q).map(|(p, q)| 0.5 * (p + q)).collect();
            sum += t
                * t
                * match loss {
                    SoftLoss::Kl => divergence(&q, &p),
                    SoftLoss::ReverseKl => divergence(&p, &q),
                    _ => 0.5 * divergence(&p, &m) + 0.5 * divergence(&q, &m),
                };
            rows += 1;
        }
    }
    sum / rows as f64
}

#[test]
fn the_loss_of_another_student_is_that_of_its_rows() {
    let fixture = Fixture::new();
    let teacher = fixture.teacher(1, LENGTH);
    // Of the student's sentences less is left: words that only one of both has say nothing.
    let student_length = 30;
    let student = fixture.model(5, false, student_length);
    let (theirs, ours) = (fixture.data(&teacher.model), fixture.data(&student));
    for (task, name) in NAMES.iter().enumerate() {
        let (first, own) = (&theirs.tasks[task].train, &ours.tasks[task].train);
        let keep = Keep::Folder(fixture.outputs());
        let outputs = consult(&teacher, task, first, &asked(&keep, Stored::F32)).0.unwrap();
        let kind = student.outputs(task).unwrap();
        let teaching = Teaching::of_teachers(vec![outputs], kind, false, (0, false), (own, first)).unwrap();
        let values = teaching.lesson(own, &BATCH).unwrap().values.unwrap();
        let pairs: Vec<(Vec<f32>, Vec<f32>)> = BATCH
            .iter()
            .map(|i| *i as usize)
            .map(|i| {
                (expected(&student, task, own, i, student_length), expected(&teacher.model, task, first, i, LENGTH))
            })
            .collect();
        if *name == "tags" {
            let words = |i: usize, length| rows_of_words(i, length).iter().flatten().count();
            assert_eq!((words(2, student_length), words(2, LENGTH)), (28, 38));
        }
        for (loss, t) in [(SoftLoss::Kl, 1.0), (SoftLoss::Kl, 3.0), (SoftLoss::ReverseKl, 2.0)]
            .into_iter()
            .chain([(SoftLoss::JensenShannon, 2.0), (SoftLoss::Mse, 1.0)])
        {
            let batch = own.batch(&BATCH).unwrap();
            let (found, _) = soft_loss(&student, task, &batch, &values, (loss, t as f32));
            let wanted = reference(task, &pairs, loss, t);
            // Logits of a size of 1 in f32.
            assert!((found - wanted).abs() < 2e-6 + 1e-5 * wanted, "{name} {loss:?}: {found}, not {wanted}");
        }
    }
}

/// The loss without the examples that nobody has taught is that of the others.
#[test]
fn examples_and_words_that_nobody_teaches_do_not_count() {
    let fixture = Fixture::new();
    let (teacher, student) = (fixture.teacher(1, LENGTH), fixture.model(5, false, LENGTH));
    let data = fixture.data(&student);
    for (task, data) in data.tasks.iter().enumerate() {
        let all = |examples: &[u32], skipped: &[u32]| {
            let mut values = TeacherValues::new();
            for example in examples {
                let own = expected(&teacher.model, task, &data.train, *example as usize, LENGTH);
                values.push(own.into_iter().filter(|_| !skipped.contains(example)));
            }
            soft_loss(&student, task, &data.train.batch(examples).unwrap(), &values, (SoftLoss::Kl, 2.0))
        };
        let (some, few) = (all(&BATCH, &[9, 0, 11]), all(&[2, 12, 6, 3], &[]));
        assert!((some.0 - few.0).abs() < 1e-6 * few.0.max(1.0), "{}: {some:?} {few:?}", NAMES[task]);
        assert!((some.1 - few.1).abs() < 1e-5 * few.1.max(1.0), "{}: {some:?} {few:?}", NAMES[task]);
        // Of none: no loss, no gradient, no NaN.
        assert_eq!(all(&BATCH, &BATCH), (0.0, 0.0), "{}", NAMES[task]);
    }
}

#[test]
fn values_of_another_batch_are_refused() {
    let fixture = Fixture::new();
    let student = fixture.model(5, false, LENGTH);
    let data = fixture.data(&student);
    for (task, data) in data.tasks.iter().enumerate() {
        let batch = data.train.batch(&BATCH).unwrap();
        let encoder = student.encoder();
        let mut tape = Tape::recording(encoder.params(), encoder.device(), TapeMemory::default(), None);
        let logits = student.logits(&mut tape, task, &batch.packed).unwrap();
        let mut refused = |values: &TeacherValues| {
            let error = student.soft_loss_of(&mut tape, task, &batch, logits, values, (SoftLoss::Kl, 1.0)).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
            error.to_string()
        };
        let mut values = TeacherValues::new();
        assert!(refused(&values).contains("0 examples for a batch of 7"));
        BATCH.iter().for_each(|_| values.push([]));
        values.values.extend([0.5; 9]);
        values.borders[7] = 9;
        let message = refused(&values);
        assert!(message.contains("9 numbers") && message.contains(NAMES[task]), "{message}");
    }
}

/// The hidden states of the embedding block and of both layers, and queries, keys and values.
#[test]
fn states_come_back_by_their_tokens() {
    let fixture = Fixture::new();
    let teacher = fixture.teacher(1, LENGTH);
    let data = fixture.data(&teacher.model);
    for (task, data) in data.tasks.iter().enumerate().filter(|(task, _)| [0, 4, 5].contains(task)) {
        let dataset: &Dataset = &data.train;
        let keep = Keep::Folder(fixture.outputs());
        // A layer twice, as two layers of a student may be matched with one.
        let layers = [2, 0, 1, 2];
        let how = manyhead::train::distillation::Consultation {
            layers: &layers,
            projected: Some(1),
            ..asked(&keep, Stored::F32)
        };
        let outputs = consult(&teacher, task, dataset, &how).0.unwrap();
        assert_eq!(outputs.width(), 32);
        let kind = teacher.model.outputs(task).unwrap();
        let teaching = Teaching::of_teachers(vec![outputs], kind, false, (4, true), (dataset, dataset)).unwrap();
        let lesson = teaching.lesson(dataset, &BATCH).unwrap();
        let mut place = 0;
        for example in BATCH {
            let mut alone = Vec::new();
            let one = dataset.batch(&[example]).unwrap();
            let tokens = one.packed.tokens();
            let encoder = teacher.model.encoder();
            let mut tape = Tape::inference(encoder.params(), encoder.device(), TapeMemory::default());
            let mut states = manyhead::nn::States::of(&layers, Some(1));
            let embedded = teacher.model.embed(&mut tape, &one.packed, None).unwrap();
            teacher.model.logits_noting(&mut tape, task, &one.packed, embedded, &mut states).unwrap();
            alone.extend(states.hidden().unwrap());
            for (hidden, own) in lesson.hidden.iter().zip(alone) {
                let wanted = tape.view(own).unwrap().data;
                assert!(same_bits(&hidden[place * 32..(place + tokens) * 32], wanted), "{} {example}", NAMES[task]);
            }
            let projections = lesson.projections.as_ref().unwrap();
            for (which, own) in states.projections().unwrap().unwrap().into_iter().enumerate() {
                let wanted = tape.view(own).unwrap().data;
                for token in 0..tokens {
                    let start = (3 * (place + token) + which) * 32;
                    assert!(same_bits(&projections[start..start + 32], &wanted[32 * token..32 * token + 32]));
                }
            }
            place += tokens;
        }
        assert!(lesson.hidden.iter().all(|hidden| hidden.len() == place * 32));
        // The embedding block's output is no layer's.
        assert!(lesson.hidden[1] != lesson.hidden[2] && lesson.hidden[0] == lesson.hidden[3]);
    }
}
