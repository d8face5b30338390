//! What several teachers say together: the mean of their probabilities or logits, by its definition in f64.

mod support;
#[allow(dead_code)]
#[path = "support/teachers.rs"]
mod teachers;

use std::fs;

use manyhead::data::readers::BadRows;
use manyhead::model::HeadOptions;
use manyhead::tasks::Outputs;
use manyhead::train::distillation::{Keep, Stored, Teaching};
use manyhead::{Device, Encoder, MultiTaskModel, TrainingData};
use teachers::{Fixture, LENGTH, NAMES, asked, consult};

const ROWS: [&[f32]; 3] = [
    &[0.5, -1.0, 3.0, 2.0, 2.5, -7.0],
    &[1.5, 0.0, -2.0, f32::NEG_INFINITY, 1.0, 0.25],
    &[-40.0, 40.0, 0.0, 0.0, 1.0, 2.0],
];

fn exact(row: &[f32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(*x)).collect()
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
    row.iter().map(|x| x - most - sum.ln()).collect()
}

/// The mean of so many teachers, by the definition.
fn mean(outputs: Outputs, teachers: &[&[f32]], of_logits: bool) -> Vec<f64> {
    let width = match outputs {
        Outputs::Distributions(width) => width,
        Outputs::Distribution => teachers[0].len(),
        _ => 1,
    };
    let count = teachers.len() as f64;
    let sum = |rows: Vec<Vec<f64>>| (0..width).map(|i| rows.iter().map(|row| row[i]).sum::<f64>()).collect::<Vec<_>>();
    let row = |start: usize| -> Vec<f64> {
        let rows: Vec<Vec<f64>> = teachers.iter().map(|teacher| exact(&teacher[start..start + width])).collect();
        match outputs {
            _ if of_logits || outputs == Outputs::Numbers => sum(rows).iter().map(|x| x / count).collect(),
            Outputs::Probabilities => {
                let p = sum(rows.into_iter().map(|row| vec![1.0 / (1.0 + (-row[0]).exp())]).collect())[0] / count;
                let rest =
                    sum(teachers.iter().map(|t| vec![1.0 / (1.0 + f64::from(t[start]).exp())]).collect())[0] / count;
                vec![(p / rest).ln()]
            }
            _ => {
                let rows = rows.iter().map(|row| log_softmax(row).into_iter().map(f64::exp).collect()).collect();
                sum(rows).iter().map(|p| (p / count).ln()).collect()
            }
        }
    };
    (0..teachers[0].len()).step_by(width).flat_map(row).collect()
}

#[test]
fn averages_are_those_of_their_definition() {
    for outputs in [Outputs::Distributions(3), Outputs::Distribution, Outputs::Probabilities, Outputs::Numbers] {
        for teachers in [&ROWS[..1], &ROWS[..2], &[ROWS[0], ROWS[2]], &ROWS] {
            for of_logits in [false, true] {
                let found = outputs.mean(teachers, of_logits);
                if let [only] = teachers {
                    assert_eq!(found, *only, "{outputs:?}");
                    continue;
                }
                let wanted = mean(outputs, teachers, of_logits);
                assert_eq!(found.len(), wanted.len());
                for (found, wanted) in found.iter().zip(&wanted) {
                    let near = f64::from(*found) == *wanted
                        || (f64::from(*found) - wanted).abs() < 1e-6 * wanted.abs().max(1.0);
                    assert!(near, "{outputs:?} {} {of_logits}: {found}, not {wanted}", teachers.len());
                }
            }
        }
    }
    assert!(Outputs::Numbers.mean(&[], false).is_empty());
}

/// Teachers that are sure of a label, and files that say 0 or 1: finite logits of the right sign, which say the same.
#[test]
fn what_is_certain_is_finite() {
    let sure = Outputs::Probabilities.mean(&[&[45.0, -45.0, 90.0], &[50.0, -50.0, -90.0]], false);
    // ln of the mean of e^-45 and e^-50.
    let tail = (0.5 * ((-45f64).exp() + (-50f64).exp())).ln() as f32;
    for (found, wanted) in sure.iter().zip([-tail, tail, 0.0]) {
        assert!((found - wanted).abs() < 1e-4, "{sure:?}, not {wanted}");
    }
    let read: Vec<f32> = Outputs::Probabilities.from_probabilities(&[0.0, 0.25, 1.0]).collect();
    assert!(read[0] < -100.0 && read[0].is_finite() && read[2] == -read[0], "{read:?}");
    assert!((read[1] - (1f32 / 3.0).ln()).abs() < 1e-6);
    let read: Vec<f32> = Outputs::Distributions(2).from_probabilities(&[0.0, 1.0]).collect();
    assert_eq!(read, [f32::NEG_INFINITY, 0.0]);
}

#[test]
fn what_one_teacher_has_cut_off_is_the_mean_of_the_others() {
    let nan = f32::NAN;
    let (long, short): (&[f32], &[f32]) = (&[1.0, 2.0, 3.0, 4.0, 0.5, 0.0], &[3.0, 1.0, nan, nan, nan, nan]);
    let third: &[f32] = &[0.0, 0.0, 5.0, 5.0, nan, nan];
    for of_logits in [false, true] {
        let found = Outputs::Distributions(2).mean(&[short, long, third], of_logits);
        let first = mean(Outputs::Distributions(2), &[&short[..2], &long[..2], &third[..2]], of_logits);
        let second = mean(Outputs::Distributions(2), &[&long[2..4], &third[2..4]], of_logits);
        let last = mean(Outputs::Distributions(2), &[&long[4..]], of_logits);
        for (found, wanted) in found.iter().zip([first, second, last].concat()) {
            assert!((f64::from(*found) - wanted).abs() < 1e-6, "{of_logits}: {found}, not {wanted}");
        }
        let none = Outputs::Distributions(2).mean(&[&[nan, nan], &[nan, nan]], of_logits);
        assert!(none.len() == 2 && none.iter().all(|x| x.is_nan()));
    }
}

#[test]
fn a_lesson_of_several_teachers_is_their_mean() {
    let fixture = Fixture::new();
    let student = fixture.model(5, false, LENGTH);
    let data = fixture.data(&student);
    // The second one cuts sentences earlier.
    let lengths = [LENGTH, 20, LENGTH];
    let teachers = [1, 2, 3].map(|seed| fixture.teacher(seed, lengths[seed as usize - 1]));
    for (task, own) in data.tasks.iter().enumerate() {
        let kind = student.outputs(task).unwrap();
        let mut all = Vec::new();
        let mut each = Vec::new();
        for (teacher, length) in teachers.iter().zip(lengths) {
            let read = fixture.data(&teacher.model);
            let keep = Keep::Cache(fixture.world.path("cache"));
            all.push(consult(teacher, task, &read.tasks[task].train, &asked(&keep, Stored::F32)).0.unwrap());
            let train = &read.tasks[task].train;
            each.push(
                (0..train.len())
                    .map(|i| teachers::expected(&teacher.model, task, train, i, length))
                    .collect::<Vec<_>>(),
            );
        }
        let teaching = Teaching::of_teachers(all, kind, false, (0, false), (&own.train, &own.train)).unwrap();
        assert_eq!(teaching.is_of_logits(), NAMES[task] == "value");
        let lesson = teaching.lesson(&own.train, &[2, 7, 5]).unwrap().values.unwrap();
        for (place, i) in [2, 7, 5].into_iter().enumerate() {
            let rows: Vec<&[f32]> = each.iter().map(|values| values[i].as_slice()).collect();
            let found = lesson.of(place);
            assert_eq!(found.len(), rows[0].len());
            let width = match kind {
                Outputs::Distributions(width) => width,
                Outputs::Distribution => found.len(),
                _ => 1,
            };
            for start in (0..found.len()).step_by(width) {
                let row: Vec<&[f32]> = rows.iter().map(|row| &row[start..start + width]).collect();
                let row: Vec<&[f32]> = row.into_iter().filter(|row| !row[0].is_nan()).collect();
                let nothing = vec![f64::NAN; width];
                let wanted = if row.is_empty() { nothing } else { mean(kind, &row, false) };
                // One teacher's logits stand as they are; two are a distribution. Both say the same.
                let (a, b) = (exact(&found[start..start + width]), wanted);
                let (a, b) = if width > 1 { (log_softmax(&a), log_softmax(&b)) } else { (a, b) };
                for (a, b) in a.iter().zip(&b) {
                    assert!((a - b).abs() < 1e-5 || a.is_nan() && b.is_nan(), "{} {i}: {a}, not {b}", NAMES[task]);
                }
            }
        }
    }
}

/// A file's own soft labels are lessons like a teacher's: logarithms of probabilities.
#[test]
fn soft_labels_of_a_file_teach_like_a_teacher() {
    let fixture = Fixture::new();
    let file = fixture.world.path("data/class_train.tsv");
    let text: String = fs::read_to_string(&file).unwrap();
    let soft = |i: usize| [[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.0, 0.5, 0.5]][i % 3];
    let rows = text.lines().enumerate().map(|(i, line)| {
        let columns: Vec<&str> = line.split('\t').collect();
        let label = columns[1].parse::<i32>().unwrap();
        let row = serde_json::json!({"uid": columns[0], "label": label, "premise": columns[2], "softlabel": soft(i)});
        row.to_string() + "\n"
    });
    fs::write(fixture.world.path("data/class_soft.jsonl"), rows.collect::<String>()).unwrap();
    let yaml = "class:
  {data_format: PremiseOnly, task_type: Classification, n_class: 3, metric_meta: [ACC], enable_san: false,
   data: {train: data/class_soft.jsonl, format: jsonl}}
";
    let tasks = manyhead::TaskFile::parse(fixture.world.path("tasks.yml"), yaml).unwrap().tasks;
    let encoder = Encoder::load(fixture.world.path("model"), &Device::cpu(1).unwrap()).unwrap();
    let student = MultiTaskModel::new(encoder, &tasks, HeadOptions::default()).unwrap();
    let data = TrainingData::read(&student, &tasks, None, BadRows::Refuse).unwrap();
    let train = &data.tasks[0].train;
    let teaching = Teaching::of_file(train, student.outputs(0).unwrap()).unwrap();
    assert!(!teaching.is_of_logits());
    let values = teaching.lesson(train, &[4, 2, 0]).unwrap().values.unwrap();
    for (place, i) in [4, 2, 0].into_iter().enumerate() {
        for (x, p) in values.of(place).iter().zip(soft(i)) {
            assert!((x.exp() - p as f32).abs() < 1e-6, "{i}: {x}, not ln {p}");
        }
    }
}
