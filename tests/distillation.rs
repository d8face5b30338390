//! What a student is trained by: the loss of a batch and its gradient, weights and annealing, beside adversarial training,
//! on any number of threads.

mod support;
#[allow(dead_code)]
#[path = "support/teachers.rs"]
mod teachers;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use manyhead::losses::SoftLoss;
use manyhead::model::HeadOptions;
use manyhead::model::student::{self, StudentSpec};
use manyhead::tape::ParamId;
use manyhead::tasks::{Label, TaskBatch};
use manyhead::train::adversarial::{AdversarialOptions, Method, Settings};
use manyhead::train::distillation::{Keep, LayerMap, Lesson, Stored, TaskWeights, Teaching};
use manyhead::train::{DistillationOptions, Event, OptimizerKind, OptimizerOptions, Step, Targets};
use manyhead::{Device, Encoder, MultiTaskModel, TrainOptions, Trainer, TrainingData};
use support::{Record, assert_same_weights, options, weights};
use teachers::{Fixture, LENGTH, NAMES, asked, consult, taught};

// ---------------------------------------------------------------------------------------------------------------
// The loss of a batch

const EXAMPLES: [u32; 5] = [9, 2, 0, 12, 6];

/// A student, a batch, and what it is trained towards.
struct Batch {
    student: MultiTaskModel,
    task: usize,
    batch: TaskBatch,
    labels: Vec<Label>,
    lesson: Lesson,
    options: TrainOptions,
}

impl Batch {
    /// Of a student that is made from the model of the fixture, without dropout.
    fn new(fixture: &Fixture, task: usize, spec: &str, distillation: DistillationOptions) -> Batch {
        let teacher = fixture.teacher(1, LENGTH);
        let encoder = Encoder::load(fixture.world.path("model"), &Device::cpu(1).unwrap()).unwrap();
        let built = student::build(&encoder, &StudentSpec::parse(spec).unwrap(), None, 3).unwrap();
        built.save(fixture.world.path("small")).unwrap();
        let mut student = fixture.model_of(&fixture.world.path("small"), 5, true, LENGTH);
        let distillation = distillation.resolved(&student, &teacher.model).unwrap();
        distillation.add_projections(&mut student, teacher.model.encoder().width(), 11).unwrap();
        let data = fixture.data(&student).tasks.swap_remove(task).train;
        let (layers, projected) = distillation.teacher_layers();
        let keep = Keep::Cache(fixture.world.path("cache"));
        let mut how = asked(&keep, Stored::F32);
        (how.layers, how.projected) = (&layers, projected);
        let outputs = consult(&teacher, task, &data, &how).0.unwrap();
        let kind = student.outputs(task).unwrap();
        let states = (layers.len(), projected.is_some());
        let teaching = Teaching::of_teachers(vec![outputs], kind, false, states, (&data, &data)).unwrap();
        let optimizer = OptimizerKind::Sgd { momentum: 0.0, decoupled: false };
        let options = TrainOptions {
            optimizer: OptimizerOptions { weight_decay: 0.0, ..OptimizerOptions::new(optimizer) },
            clip: 0.0,
            distillation: Some(distillation),
            check: true,
            ..TrainOptions::default()
        };
        Batch {
            task,
            batch: data.batch(&EXAMPLES).unwrap(),
            labels: data.labels(&EXAMPLES).unwrap(),
            lesson: teaching.lesson(&data, &EXAMPLES).unwrap(),
            student,
            options,
        }
    }

    /// The loss at update 1 of 4.
    fn loss(&self, step: &mut Step) -> (f64, BTreeMap<&'static str, f64>) {
        step.set_total(4);
        let targets = Targets { labels: Some(&self.labels), lesson: Some(&self.lesson) };
        let report = step.batch(&self.student, self.task, &self.batch, targets, 1.0, 0).unwrap();
        (report.loss, report.terms.into_iter().collect())
    }

    fn value(&self) -> f64 {
        let mut step = Step::new(&self.student, &self.options).unwrap();
        self.loss(&mut step).0
    }

    /// Every parameter's gradient: what plain gradient descent subtracts.
    fn gradient(&mut self) -> Vec<f64> {
        let before = self.student.encoder().params().arena().to_vec();
        let mut step = Step::new(&self.student, &self.options).unwrap();
        self.loss(&mut step);
        // A large step, for which the weights' own size is small.
        step.update(&mut self.student, 1024.0).unwrap();
        let arena = self.student.encoder_mut().params_mut().arena_mut();
        let found = before.iter().zip(&*arena).map(|(x, y)| (f64::from(*x) - f64::from(*y)) / 1024.0).collect();
        arena.copy_from_slice(&before);
        found
    }

    /// Compares the gradient of every parameter with the slope of the loss along it.
    fn check(&mut self, what: &str, at_least: usize) {
        let slopes = self.gradient();
        let start = self.student.encoder().params().arena().to_vec();
        let ids: Vec<ParamId> = self.student.encoder().params().ids().collect();
        let h = 1e-2;
        let (mut checked, mut projections) = (0, 0);
        for id in ids {
            let entry = self.student.encoder().params().entry(id).clone();
            let slope = &slopes[entry.range.clone()];
            let expected = slope.iter().map(|g| g * g).sum::<f64>().sqrt();
            if expected < 1e-4 {
                continue;
            }
            let sides = [1.0, -1.0].map(|side| {
                let arena = self.student.encoder_mut().params_mut().arena_mut();
                for (i, slope) in entry.range.clone().zip(slope) {
                    arena[i] = start[i] + (side * h * slope / expected) as f32;
                }
                let value = self.value();
                self.student.encoder_mut().params_mut().arena_mut().copy_from_slice(&start);
                value
            });
            let found = (sides[0] - sides[1]) / (2.0 * h);
            // h² f'''/6, and the rounding of a loss of a size of 10 divided by h.
            let near = (found - expected).abs() < 0.03 * expected + 4e-4;
            assert!(near, "{what}: {}: {found}, not {expected}", entry.name);
            checked += 1;
            projections += usize::from(entry.name.starts_with("distill."));
        }
        assert!(checked >= at_least, "{what}: {checked}");
        let pairs = self.options.distillation.as_ref().unwrap().teacher_layers().0.len();
        let wide = self.student.encoder().width() == 32;
        assert_eq!(projections, if wide { 0 } else { pairs }, "{what}");
    }
}

fn all_terms() -> DistillationOptions {
    DistillationOptions {
        temperature: 3.0,
        weight: TaskWeights::parse("", "0.5,class=0.7", 1.0).unwrap(),
        label_weight: TaskWeights::all(0.25),
        hidden_weight: 2.0,
        ..DistillationOptions::default()
    }
}

fn related(hidden_weight: f32, relation_heads: Option<usize>) -> DistillationOptions {
    DistillationOptions { relation_weight: 3.0, relation_heads, hidden_weight, ..all_terms() }
}

#[test]
fn the_gradient_is_the_slope_of_the_whole_loss() {
    let fixture = Fixture::new();
    let even = DistillationOptions { layers: LayerMap::Even, annealing: true, ..all_terms() };
    let mixed = DistillationOptions {
        layers: LayerMap::Pairs(vec![(1, 2), (0, 2)]),
        loss: SoftLoss::JensenShannon,
        ..all_terms()
    };
    for (task, spec, options) in [
        (0, "layers=2", DistillationOptions { hidden_weight: 0.0, ..all_terms() }),
        (0, "layers=1", all_terms()),
        (4, "layers=2", even.clone()),
        (5, "layers=1,hidden=16,heads=2,intermediate=24", even),
        (1, "layers=2", related(0.0, None)),
        (2, "layers=1,hidden=24,heads=2,intermediate=24", related(1.0, Some(8))),
        (3, "layers=2,hidden=16,heads=4,intermediate=24", mixed),
    ] {
        Batch::new(&fixture, task, spec, options).check(&format!("{} {spec}", NAMES[task]), 15);
    }
}

#[test]
fn the_loss_is_the_sum_of_its_terms_with_their_factors() {
    let fixture = Fixture::new();
    for (annealing, [label, teach]) in [(false, [1.0, 1.0]), (true, [0.0, 1.0])] {
        let options = DistillationOptions { annealing, layers: LayerMap::Even, ..all_terms() };
        let batch = Batch::new(&fixture, 0, "layers=2", options);
        let (loss, terms) = batch.loss(&mut Step::new(&batch.student, &batch.options).unwrap());
        assert_eq!(terms.keys().copied().collect::<Vec<_>>(), ["distill", "distill_hidden", "task"]);
        let wanted = label * 0.25 * terms["task"] + teach * (0.7 * terms["distill"] + 2.0 * terms["distill_hidden"]);
        assert!((loss - wanted).abs() < 1e-6 * wanted, "{loss}, not {wanted}");
        // The mean over the pairs of the mean squared difference.
        let (layers, _) = batch.options.distillation.as_ref().unwrap().teacher_layers();
        let encoder = batch.student.encoder();
        let mut tape = manyhead::tape::Tape::inference(encoder.params(), encoder.device(), Default::default());
        let mut states = manyhead::nn::States::of(&[0, 1, 2], None);
        let embedded = batch.student.embed(&mut tape, &batch.batch.packed, None).unwrap();
        batch.student.logits_noting(&mut tape, 0, &batch.batch.packed, embedded, &mut states).unwrap();
        let mut sum = 0.0;
        for (own, theirs) in states.hidden().unwrap().into_iter().zip(&batch.lesson.hidden) {
            let own = tape.view(own).unwrap().data;
            let squares = own.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
            sum += squares.sum::<f64>() / own.len() as f64 / layers.len() as f64;
        }
        assert!((terms["distill_hidden"] - sum).abs() < 1e-5 * sum, "{}, not {sum}", terms["distill_hidden"]);
    }
}

/// KL(teacher's attention of tokens to each other ‖ student's) of every head, from the states of both, by its definition.
fn relation(own: &[f32], theirs: &[f32], [width, other]: [usize; 2], borders: &[u32], heads: usize) -> f64 {
    let attention = |x: &[f32], width: usize, head: usize, i: usize, segment: &std::ops::Range<usize>| -> Vec<f64> {
        let size = width / heads;
        let row = |token: usize| &x[token * width + head * size..token * width + (head + 1) * size];
        let dot = |j: usize| row(i).iter().zip(row(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let scores: Vec<f64> = segment.clone().map(|j| dot(j) / (size as f64).sqrt()).collect();
        let most = scores.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = scores.iter().map(|x| (x - most).exp()).sum();
        scores.iter().map(|x| x - most - sum.ln()).collect()
    };
    let (mut sum, mut rows) = (0.0, 0);
    for border in borders.windows(2) {
        let segment = border[0] as usize..border[1] as usize;
        for i in segment.clone() {
            for head in 0..heads {
                let (p, q) = (attention(own, width, head, i, &segment), attention(theirs, other, head, i, &segment));
                sum += p.iter().zip(&q).map(|(p, q)| q.exp() * (q - p)).sum::<f64>();
                rows += 1;
            }
        }
    }
    sum / rows as f64
}

#[test]
fn relations_of_queries_keys_and_values_are_terms_of_the_loss() {
    let fixture = Fixture::new();
    for (spec, width, heads) in [("layers=2", 32, None), ("layers=1,hidden=24,heads=2,intermediate=24", 24, Some(8))] {
        let batch = Batch::new(&fixture, 4, spec, related(0.0, heads));
        let resolved = batch.options.distillation.as_ref().unwrap();
        // The largest number up to 12 that divides both widths.
        assert_eq!(resolved.relation_heads, Some(8), "{spec}");
        let (loss, terms) = batch.loss(&mut Step::new(&batch.student, &batch.options).unwrap());
        let encoder = batch.student.encoder();
        let mut tape = manyhead::tape::Tape::inference(encoder.params(), encoder.device(), Default::default());
        let mut states = manyhead::nn::States::of(&[], Some(encoder.net().layers()));
        let embedded = batch.student.embed(&mut tape, &batch.batch.packed, None).unwrap();
        batch.student.logits_noting(&mut tape, 4, &batch.batch.packed, embedded, &mut states).unwrap();
        let own = states.projections().unwrap().unwrap();
        let all = batch.lesson.projections.as_ref().unwrap();
        for (place, name) in ["distill_queries", "distill_keys", "distill_values"].into_iter().enumerate() {
            let theirs: Vec<f32> =
                all.chunks(96).flat_map(|token| token[32 * place..32 * place + 32].to_vec()).collect();
            let own = tape.view(own[place]).unwrap().data;
            let wanted = relation(own, &theirs, [width, 32], &batch.batch.packed.cu_seqlens, 8);
            assert!((terms[name] - wanted).abs() < 1e-5 * wanted.max(0.01), "{name}: {}, not {wanted}", terms[name]);
        }
        let related: f64 = terms.iter().filter(|(name, _)| name.starts_with("distill_")).map(|(_, value)| value).sum();
        let wanted = 0.25 * terms["task"] + 0.5 * terms["distill"] + 3.0 * related;
        assert!((loss - wanted).abs() < 1e-6 * wanted, "{loss}, not {wanted}");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Whole runs

/// A student of two tasks, one of which nobody teaches, with data and teachers.
fn school(fixture: &Fixture, threads: usize) -> (MultiTaskModel, TrainingData) {
    let encoder = Encoder::load(fixture.world.path("model"), &Device::cpu(threads).unwrap()).unwrap();
    let mut student = MultiTaskModel::new(encoder, &fixture.tasks, HeadOptions::default()).unwrap();
    student.encoder_mut().params_mut().try_own().unwrap();
    let mut data = fixture.data(&student);
    let pool = Device::cpu(threads).unwrap();
    let teachers: Vec<_> = [1, 2]
        .map(|seed| {
            let _ = fixture.teacher(seed, LENGTH);
            let folder = fixture.world.path(&format!("teacher{seed}"));
            let model = MultiTaskModel::load(&folder, &pool).unwrap();
            manyhead::train::distillation::Teacher::new(model, &folder).unwrap()
        })
        .into();
    let keep = Keep::Cache(fixture.world.path(&format!("cache{threads}")));
    for task in (0..NAMES.len()).filter(|task| NAMES[*task] != "pair") {
        let teaching = taught(&student, &teachers, task, &data.tasks[task].train, &keep);
        data.tasks[task].teaching[0] = Some(Arc::new(teaching));
    }
    (student, data)
}

fn run_options(distillation: DistillationOptions) -> TrainOptions {
    TrainOptions {
        epochs: 2,
        batch_size: 5,
        accumulate: 1,
        distillation: Some(distillation),
        ..options(OptimizerKind::AdamW)
    }
}

type Line = (u64, String, f64, BTreeMap<String, f64>);

/// Runs, and what is logged of each batch.
fn run(student: &mut MultiTaskModel, data: &TrainingData, options: TrainOptions) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut record = Record::with(|event| {
        if let Event::Batch { update, task, loss, loss_terms, .. } = event {
            let terms = loss_terms.iter().map(|(name, value)| (name.to_string(), *value)).collect();
            lines.push((*update, task.to_string(), *loss, terms));
        }
        Ok(())
    });
    Trainer::new(options).run(student, data, &mut record).unwrap();
    drop(record);
    lines
}

#[test]
fn annealing_goes_from_the_teachers_to_the_labels() {
    let fixture = Fixture::new();
    let (mut student, data) = school(&fixture, 1);
    let weight = TaskWeights::parse("", "2,tags=0.5,value=0", 1.0).unwrap();
    let label_weight = TaskWeights::parse("", "rank=3", 1.0).unwrap();
    let distillation = DistillationOptions {
        annealing: true,
        weight: weight.clone(),
        label_weight: label_weight.clone(),
        ..Default::default()
    };
    let lines = run(&mut student, &data, run_options(distillation));
    // 3 batches of each of 6 tasks an epoch.
    let total = 36.0;
    assert_eq!(lines.len(), 36);
    for (update, task, loss, terms) in &lines {
        let lambda = *update as f64 / total;
        let label = f64::from(label_weight.of(task)) * if task == "pair" { 1.0 } else { lambda };
        let soft = f64::from(weight.of(task)) * (1.0 - lambda);
        let teaches = task != "pair" && task != "value";
        assert_eq!(terms.contains_key("distill"), teaches, "{task}");
        let label = if task == "pair" { 1.0 } else { label };
        let wanted = label * terms["task"] + if teaches { soft * terms["distill"] } else { 0.0 };
        assert!((loss - wanted).abs() < 1e-6 * wanted.max(1e-3), "{update} {task}: {loss}, not {wanted}");
    }
    assert!(lines[0].1 == "pair" || lines[0].2 == 0.0 || lines[0].3.contains_key("distill"));
}

/// With a label weight of 0 labels change nothing, not by way of the fast gradient or FreeLB either.
#[test]
fn a_label_weight_of_zero_leaves_the_teachers_alone() {
    let fixture = Fixture::new();
    let file = fixture.world.path("data/class_train.tsv");
    let text = fs::read_to_string(&file).unwrap();
    let turned: String = text
        .lines()
        .map(|line| {
            let mut columns: Vec<String> = line.split('\t').map(String::from).collect();
            columns[1] = ((columns[1].parse::<usize>().unwrap() + 1) % 3).to_string();
            columns.join("\t") + "\n"
        })
        .collect();
    for method in [None, Some(Method::Fgm), Some(Method::FreeLb), Some(Method::RDrop)] {
        let methods = method.map(|method| (method, Settings::default())).into_iter().collect();
        let runs = [(&text, 0.0), (&turned, 0.0), (&turned, 1.0)].map(|(text, weight)| {
            fs::write(&file, text).unwrap();
            let (mut student, mut data) = school(&fixture, 1);
            // Only this task has the labels that nobody shall learn from.
            for task in data.tasks.iter_mut().skip(1) {
                task.teaching[0] = None;
            }
            let distillation = DistillationOptions { label_weight: TaskWeights::all(weight), ..Default::default() };
            let mut options = run_options(distillation);
            options.adversarial = AdversarialOptions { methods: Vec::clone(&methods), ..Default::default() };
            run(&mut student, &data, options);
            weights(&student)
        });
        assert!(runs[0] == runs[1], "{method:?}: labels of weight 0 have changed the student");
        assert!(runs[1] != runs[2], "{method:?}");
    }
}

#[test]
fn teachers_stand_beside_every_method_of_adversarial_training() {
    let fixture = Fixture::new();
    let (_, data) = school(&fixture, 1);
    for (method, own) in [
        (Method::FreeLb, [0.0, 0.5]),
        (Method::Fgm, [0.5, 0.5]),
        (Method::Smart, [0.5, 1.0]),
        (Method::RDrop, [0.25, 0.5]),
    ] {
        let (mut student, _) = school(&fixture, 1);
        let distillation = DistillationOptions { label_weight: TaskWeights::all(0.5), ..Default::default() };
        let mut options = run_options(distillation);
        options.check = true;
        let settings = Settings { weight: (method != Method::FreeLb).then_some(1.0), ..Settings::default() };
        options.adversarial = AdversarialOptions { methods: vec![(method, settings)], ..Default::default() };
        for (update, task, loss, terms) in run(&mut student, &data, options) {
            let untaught = if task == "pair" { 2.0 } else { 1.0 };
            let [label, term] = own;
            let of_labels = method == Method::FreeLb || method == Method::Fgm;
            let term = if of_labels { untaught * term } else { term };
            let mut sum = term * terms[method.name()];
            sum += untaught * label * terms.get("task").copied().unwrap_or(0.0);
            sum += terms.get("distill").copied().unwrap_or(0.0);
            if method == Method::RDrop {
                // The other pass's loss against the labels has no line of its own: it is what is left, near the first's.
                let other = (loss - sum) / (untaught * label);
                assert!(other > 0.0 && (other / terms["task"] - 1.0).abs() < 1.0, "{update} {task}: {other} {terms:?}");
                continue;
            }
            assert_eq!(terms.contains_key("task"), method != Method::FreeLb, "{terms:?}");
            assert_eq!(terms.contains_key("distill"), task != "pair", "{terms:?}");
            assert!(
                (loss - sum).abs() < 1e-5 * sum.max(1e-3),
                "{method:?} {update} {task}: {loss}, not {sum}: {terms:?}"
            );
        }
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let fixture = Fixture::new();
    let distillation = DistillationOptions { annealing: true, ..Default::default() };
    let [one, two] = [1, 2].map(|threads| {
        let (mut student, data) = school(&fixture, threads);
        let lines = run(&mut student, &data, run_options(distillation.clone()));
        (student, lines)
    });
    assert!(one.1 == two.1);
    assert_same_weights("two threads", &one.0, &two.0);
    let files = |threads: usize| {
        let folder = fixture.world.path(&format!("cache{threads}/teachers"));
        support::files(&folder).into_iter().filter(|(name, _)| !name.ends_with(".lock")).collect::<BTreeMap<_, _>>()
    };
    assert!(files(1).len() > 20 && files(1) == files(2));
}

#[test]
fn what_cannot_be_taught_is_refused() {
    let fixture = Fixture::new();
    let refused = |distillation: DistillationOptions, change: &dyn Fn(&mut TrainingData)| {
        let (mut student, mut data) = school(&fixture, 1);
        change(&mut data);
        let error = Trainer::new(run_options(distillation)).run(&mut student, &data, &mut ()).unwrap_err();
        error.to_string()
    };
    let weight = TaskWeights::parse("--soft-weight", "nobody=1", 1.0).unwrap();
    let message = refused(DistillationOptions { weight: weight.clone(), ..Default::default() }, &|_| ());
    assert!(
        message.contains("--soft-weight") && message.contains("'nobody'") && message.contains("class, pair"),
        "{message}"
    );
    let message = refused(DistillationOptions { label_weight: weight, ..Default::default() }, &|_| ());
    assert!(message.contains("--label-weight"), "{message}");
    let message = refused(DistillationOptions { loss: SoftLoss::Mse, ..Default::default() }, &|_| ());
    assert!(
        message.contains("--soft-loss") && message.contains("--average logits") && !message.contains("  "),
        "{message}"
    );
    let nobody = |data: &mut TrainingData| data.tasks.iter_mut().for_each(|task| task.teaching[0] = None);
    let message = refused(DistillationOptions::default(), &nobody);
    assert!(message.contains("no task has soft labels"), "{message}");
    // States that these teachers were not asked for.
    let layers = LayerMap::Pairs(vec![(1, 1)]);
    let message = refused(DistillationOptions { hidden_weight: 1.0, layers, ..Default::default() }, &|_| ());
    assert!(message.contains("--hidden-weight"), "{message}");
    for (options, flag) in [
        (DistillationOptions { temperature: 0.0, ..Default::default() }, "--soft-temperature"),
        (DistillationOptions { temperature: f32::NAN, ..Default::default() }, "--soft-temperature"),
        (DistillationOptions { hidden_weight: -1.0, ..Default::default() }, "--hidden-weight"),
        (DistillationOptions { relation_weight: f32::INFINITY, ..Default::default() }, "--relation-weight"),
        (DistillationOptions { loss: SoftLoss::LegacyKl, ..Default::default() }, "--soft-temperature"),
        (DistillationOptions { hidden_weight: 1.0, ..Default::default() }, "--layer-map"),
    ] {
        let message = refused(options, &|_| ());
        assert!(message.contains(flag), "{message}");
    }
}
