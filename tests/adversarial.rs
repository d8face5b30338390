//! Adversarial training: what a term adds, that it is the same with any number of threads and after any resume, and that a
//! gradient that is no number costs a term and never a run.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use manyhead::ops::perturbation::{Level, Norm};
use manyhead::ops::{Divergence, LegacyDivergence};
use manyhead::tape::{Gradients, Params, Random, Tape, TapeMemory, Var};
use manyhead::train::adversarial::{
    AdversarialOptions, BatchNoise, BatchOptions, BatchReport, Masks, Method, Momentum, Objective, ProximalOptions,
    Settings, Terms,
};
use manyhead::train::{Event, OptimizerKind};
use manyhead::{Error, MultiTaskModel, TrainOptions, Trainer, TrainingData};
use support::{Record, World, assert_same_weights, options};

/// A batch of a task of a model, without labels if asked.
struct Batch<'a> {
    model: &'a MultiTaskModel,
    task: usize,
    batch: manyhead::tasks::TaskBatch,
    labels: Vec<manyhead::tasks::Label>,
}

impl<'a> Batch<'a> {
    fn new(model: &'a MultiTaskModel, data: &TrainingData, task: usize) -> Batch<'a> {
        let examples: Vec<u32> = (0..8).collect();
        let train = &data.tasks[task].train;
        Batch { model, task, batch: train.batch(&examples).unwrap(), labels: train.labels(&examples).unwrap() }
    }
}

impl Objective for Batch<'_> {
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> manyhead::Result<Var> {
        self.model.embed(tape, &self.batch.packed, delta)
    }

    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> manyhead::Result<Var> {
        self.model.encoder().net().embed_vectors(tape, &self.batch.packed, vectors)
    }

    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> manyhead::Result<Var> {
        self.model.logits_of(tape, self.task, &self.batch.packed, embedded)
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> manyhead::Result<Option<Var>> {
        self.model.loss_of(tape, self.task, &self.batch, logits, &self.labels).map(Some)
    }

    fn divergence(&self, tape: &mut Tape<'_>, sides: [Var; 2], form: Divergence) -> manyhead::Result<Var> {
        self.model.divergence(tape, self.task, &self.batch, sides, form)
    }

    fn width(&self) -> usize {
        self.model.encoder().net().embedding_size()
    }

    fn segments(&self) -> &[u32] {
        &self.batch.packed.cu_seqlens
    }
}

/// A model with its data, and the folder that both are in.
fn prepared() -> (World, MultiTaskModel, TrainingData) {
    let world = World::new();
    let model = world.model(1, None);
    let data = world.data(&model);
    (world, model, data)
}

fn with(method: Method, change: impl FnOnce(&mut Settings)) -> AdversarialOptions {
    let mut settings = Settings::default();
    change(&mut settings);
    AdversarialOptions { methods: vec![(method, settings)], ..Default::default() }
}

/// One batch of the model's first task, with dropout: the report and the gradients.
fn step(batch: &Batch<'_>, options: &AdversarialOptions) -> (BatchReport, Vec<f32>) {
    let params = batch.model.encoder().params();
    let tasks = vec![None; batch.model.tasks().len()];
    let mut terms = Terms::new(options, tasks, params).unwrap();
    terms.trace(true);
    let mut gradients = Gradients::new(params);
    let device = batch.model.encoder().device();
    let mut tape = Tape::recording(params, device, TapeMemory::default(), Some(Random::new(3, 5)));
    let enters = BatchOptions { task: batch.task, update: 0, scale: 1.0, check: true };
    let noise = BatchNoise { seed: 3, batch: 5 };
    let report = terms.batch(&mut tape, batch, &noise, enters, &mut gradients).unwrap();
    (report, touched(params, &gradients))
}

fn touched(params: &Params, gradients: &Gradients) -> Vec<f32> {
    params.ids().flat_map(|id| gradients.get(params, id).unwrap_or_default().to_vec()).collect()
}

fn term(report: &BatchReport, name: &str) -> f64 {
    report.terms.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}: {report:?}")).1
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| ((a - b) as f64).powi(2)).sum::<f64>().sqrt()
}

fn size(a: &[f32]) -> f64 {
    distance(a, &vec![0.0; a.len()])
}

#[test]
fn without_perturbation_and_with_the_same_masks_smart_is_the_plain_loss() {
    let (_world, model, data) = prepared();
    for task in 0..model.tasks().len() {
        let batch = Batch::new(&model, &data, task);
        let (plain, plain_gradients) = step(&batch, &AdversarialOptions::default());
        assert_eq!(plain.terms, [("task", plain.loss)]);
        for method in [Method::Smart, Method::Alum, Method::Pdr] {
            let still = with(method, |settings| (settings.noise, settings.epsilon) = (Some(0.0), Some(0.0)));
            let (report, gradients) = step(&batch, &still);
            assert_eq!((report.loss, term(&report, method.name())), (plain.loss, 0.0), "{task} {method:?}");
            assert_eq!(report.perturbations, [(method.name(), 0.0)]);
            // The other pass adds zeros, up to rounding of sums.
            assert!(distance(&gradients, &plain_gradients) <= 1e-5 * size(&plain_gradients), "{task} {method:?}");
        }
        // With fresh masks the term is that of two dropouts.
        let fresh =
            with(Method::Smart, |s| (s.noise, s.epsilon, s.dropout) = (Some(0.0), Some(0.0), Some(Masks::Fresh)));
        assert!(term(&step(&batch, &fresh).0, "smart") > 1e-6, "task {task}");
    }
}

#[test]
fn perturbations_have_the_size_that_they_should_and_climb() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    for (norm, level) in [
        (Norm::Inf, Level::Token),
        (Norm::Inf, Level::Sequence),
        (Norm::L2, Level::Token),
        (Norm::L2, Level::Sequence),
        (Norm::L1, Level::Token),
        (Norm::L1, Level::Sequence),
    ] {
        let large = with(Method::Smart, |s| {
            (s.norm, s.level, s.steps) = (Some(norm), Some(level), Some(3));
            (s.noise, s.step_size, s.epsilon) = (Some(1e-3), Some(10.0), Some(0.5));
        });
        let (report, _) = step(&batch, &large);
        let (_, found) = report.perturbations[0];
        assert!((found - 0.5).abs() < 1e-4, "{norm:?} {level:?}: {found}");
        // Without a projection that acts, a step goes along the gradient, and up.
        let free = with(Method::Smart, |s| {
            (s.norm, s.level, s.steps) = (Some(norm), Some(level), Some(2));
            (s.noise, s.step_size, s.epsilon) = (Some(1e-3), Some(1e-2), Some(1e6));
        });
        let (report, _) = step(&batch, &free);
        assert_eq!(report.trace.len(), 3);
        for pair in report.trace.windows(2) {
            let moved = pair[1].perturbation.iter().zip(&pair[0].perturbation).map(|(a, b)| a - b);
            let along: f64 = moved.zip(&pair[1].gradient).map(|(m, g)| (m * g) as f64).sum();
            assert!(along > 0.0, "{norm:?} {level:?}");
        }
        assert!(report.trace[2].loss > report.trace[1].loss, "{norm:?} {level:?}: the second step starts higher");
    }
}

#[test]
fn every_method_works_on_every_kind_of_task_and_none_leaves_a_parameter_out() {
    let (_world, model, data) = prepared();
    for task in 0..model.tasks().len() {
        let batch = Batch::new(&model, &data, task);
        let (plain, plain_gradients) = step(&batch, &AdversarialOptions::default());
        for method in Method::ALL {
            let (report, gradients) = step(&batch, &with(method, |_| ()));
            assert!(report.loss.is_finite() && report.dropped.is_empty() && !report.spoilt, "{task} {method:?}");
            assert_eq!(gradients.len(), plain_gradients.len(), "{task} {method:?}");
            assert!(distance(&gradients, &plain_gradients) > 0.0, "{task} {method:?}");
            match method {
                Method::FreeLb => assert_eq!((report.passes.len(), report.terms.len()), (3, 1)),
                Method::RDrop => assert_ne!(report.loss, plain.loss),
                _ => assert_eq!(term(&report, "task"), plain.loss, "{task} {method:?}"),
            }
        }
    }
}

#[test]
fn terms_combine() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let methods = [Method::Alum, Method::Fgm, Method::RDrop].map(|method| (method, Settings::default())).to_vec();
    let proximal = Some(ProximalOptions { weight: 1.0, momentum: Momentum::Published });
    let (report, _) = step(&batch, &AdversarialOptions { methods, proximal, ..Default::default() });
    let names: Vec<&str> = report.terms.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["task", "alum", "rdrop", "bregman", "fgm"]);
    // The teacher is the model itself: nothing lies between them, and the same masks are drawn.
    assert_eq!(term(&report, "bregman"), 0.0);
    assert!(term(&report, "fgm") > term(&report, "task"), "a step along the gradient raises the loss");
}

fn every_term() -> AdversarialOptions {
    let methods = vec![
        (Method::Smart, Settings { steps: Some(2), epsilon: Some(0.1), step_size: Some(0.1), ..Default::default() }),
        (Method::RDrop, Settings::default()),
        (Method::Fgm, Settings::default()),
    ];
    let proximal = Some(ProximalOptions { weight: 0.5, momentum: Momentum::Constant(0.9) });
    AdversarialOptions { methods, start: 2, proximal, ..Default::default() }
}

fn run_options(adversarial: AdversarialOptions) -> TrainOptions {
    TrainOptions { adversarial, checkpoint_every: Some(2), ..options(OptimizerKind::AdamW) }
}

#[test]
fn one_thread_two_and_three_give_the_same_bits() {
    let world = World::new();
    for adversarial in [every_term(), with(Method::FreeLb, |_| ()), with(Method::SmartLegacy, |_| ())] {
        let trainer = Trainer::new(run_options(adversarial));
        let mut runs = [1, 2, 3].map(|threads| {
            let mut record = Record::default();
            let (model, updates) = world.train(threads, &trainer, &mut record);
            updates.unwrap();
            (model, record)
        });
        let (first, rest) = runs.split_first_mut().unwrap();
        for (model, record) in rest {
            assert_same_weights("threads", &first.0, model);
            assert_eq!(first.1.log, record.log);
        }
    }
}

#[test]
fn a_run_stopped_at_every_update_ends_as_if_it_had_never_stopped() {
    let world = World::new();
    let straight = Trainer { output: Some(world.path("straight")), ..Trainer::new(run_options(every_term())) };
    let mut expected = Record::default();
    let (model, updates) = world.train(2, &straight, &mut expected);
    let updates = updates.unwrap();
    let mut record = Record::default();
    let mut stops = 0;
    let resumed = loop {
        let stop = Some(Arc::new(AtomicBool::new(true)));
        let again = Trainer { output: Some(world.path("stopped")), resume: true, stop, ..straight.clone() };
        let (resumed, result) = world.train(1, &again, &mut record);
        match result {
            Err(Error::Interrupted { .. }) => stops += 1,
            result => {
                assert_eq!(result.unwrap(), updates);
                break resumed;
            }
        }
        assert!(stops < 100);
    };
    assert!(stops >= 4);
    assert_same_weights("stopped at every update", &model, &resumed);
    assert_eq!(record.log, expected.log);
}

#[test]
fn a_gradient_that_is_no_number_costs_the_term_and_not_the_run() {
    let (world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let (plain, plain_gradients) = step(&batch, &AdversarialOptions::default());
    let blown = with(Method::Smart, |s| (s.noise, s.epsilon) = (Some(1e30), Some(1e30)));
    let (report, gradients) = step(&batch, &blown);
    assert_eq!((report.dropped, report.loss, gradients), (vec!["smart"], plain.loss, plain_gradients));

    for method in [Method::Smart, Method::Alum, Method::Pdr] {
        let blown = with(method, |s| (s.noise, s.epsilon) = (Some(1e30), Some(1e30)));
        let dropped = AtomicBool::new(false);
        let mut record = Record::with(|event| {
            if let Event::Batch { dropped: names, loss, .. } = event {
                assert!(loss.is_finite());
                if !names.is_empty() {
                    assert_eq!(*names, [method.name()]);
                    dropped.store(true, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let (model, updates) = world.train(1, &Trainer::new(run_options(blown)), &mut record);
        updates.unwrap();
        drop(record);
        assert!(model.encoder().params().arena().iter().all(|weight| weight.is_finite()), "{method:?}");
        assert!(dropped.load(Ordering::Relaxed), "{method:?}");
    }
}

/// A batch whose loss is infinite from a pass on.
struct Blown<'a> {
    batch: Batch<'a>,
    good: usize,
    passes: AtomicUsize,
}

impl Objective for Blown<'_> {
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> manyhead::Result<Var> {
        self.batch.embed(tape, delta)
    }

    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> manyhead::Result<Var> {
        self.batch.embed_vectors(tape, vectors)
    }

    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> manyhead::Result<Var> {
        self.batch.logits(tape, embedded)
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> manyhead::Result<Option<Var>> {
        if self.passes.fetch_add(1, Ordering::Relaxed) < self.good {
            return self.batch.loss(tape, logits);
        }
        let shape = tape.view(logits)?.shape;
        let far = tape.leaf_from(shape, &vec![f32::MAX; shape.len()])?;
        manyhead::ops::mse(tape, logits, far).map(Some)
    }

    fn divergence(&self, tape: &mut Tape<'_>, sides: [Var; 2], form: Divergence) -> manyhead::Result<Var> {
        self.batch.divergence(tape, sides, form)
    }

    fn width(&self) -> usize {
        self.batch.width()
    }

    fn segments(&self) -> &[u32] {
        self.batch.segments()
    }
}

/// Where the same gradient serves the ascent and the weights, one that is no number is in the weights' gradients: the report
/// says that the update must be left out.
#[test]
fn what_spoils_the_gradients_of_the_weights_is_told() {
    let (_world, model, data) = prepared();
    for (method, good, spoilt) in [(Method::FreeLb, 1, true), (Method::FreeLb, 0, false), (Method::Fgm, 1, true)] {
        let batch = Blown { batch: Batch::new(&model, &data, 0), good, passes: AtomicUsize::new(0) };
        let params = model.encoder().params();
        let mut terms = Terms::new(&with(method, |_| ()), [None], params).unwrap();
        let mut gradients = Gradients::new(params);
        let device = model.encoder().device();
        let mut tape = Tape::recording(params, device, TapeMemory::default(), None);
        let enters = BatchOptions { task: 0, update: 0, scale: 1.0, check: false };
        let noise = BatchNoise { seed: 1, batch: 1 };
        let report = terms.batch(&mut tape, &batch, &noise, enters, &mut gradients).unwrap();
        assert_eq!(report.spoilt, spoilt, "{method:?} {good}");
        // A loss that is infinite before anything is perturbed is that of the model: the run must end.
        assert_eq!(report.loss.is_finite(), spoilt);
        assert_eq!(report.dropped, if spoilt { vec![method.name()] } else { vec![] });
    }
}

#[test]
fn terms_begin_when_they_are_told_to_and_each_is_logged_with_its_size() {
    let world = World::new();
    let mut adversarial = with(Method::Alum, |_| ());
    adversarial.start = 3;
    let mut seen = Vec::new();
    let mut record = Record::with(|event| {
        if let Event::Batch { update, loss_terms, perturbations, .. } = event {
            let names: Vec<String> = loss_terms.iter().map(|(name, _)| name.to_string()).collect();
            let sizes: Vec<f64> = perturbations.iter().map(|(_, size)| *size).collect();
            seen.push((*update, names, sizes));
        }
        Ok(())
    });
    world.train(1, &Trainer::new(run_options(adversarial)), &mut record).1.unwrap();
    drop(record);
    for (update, names, sizes) in seen {
        match update < 3 {
            true => assert_eq!((names, sizes), (vec!["task".to_string()], vec![])),
            false => {
                assert_eq!(names, ["task", "alum"]);
                // The published radius.
                assert!(sizes.len() == 1 && (sizes[0] - 1e-5).abs() < 1e-9, "{sizes:?}");
            }
        }
    }
}

#[test]
fn a_resumed_run_must_have_the_same_terms() {
    let world = World::new();
    let output = Some(world.path("out"));
    let first = Trainer { output: output.clone(), ..Trainer::new(run_options(every_term())) };
    let stop = Some(Arc::new(AtomicBool::new(true)));
    let (_, result) = world.train(1, &Trainer { stop, ..first.clone() }, &mut Record::default());
    assert!(matches!(result, Err(Error::Interrupted { .. })));
    let mut other = every_term();
    other.methods[0].1.steps = Some(1);
    let again = Trainer { output, resume: true, ..Trainer::new(run_options(other)) };
    let error = world.train(1, &again, &mut Record::default()).1.unwrap_err().to_string();
    assert!(error.contains("--adversarial"), "{error}");
}

#[test]
fn options_that_do_nothing_or_make_no_sense_are_refused_by_name() {
    type Change = fn(&mut Settings);
    let cases: [(Method, Change, &str); 9] = [
        (Method::RDrop, |s| s.epsilon = Some(1.0), "--adversarial-epsilon"),
        (Method::RDrop, |s| s.dropout = Some(Masks::Same), "--adversarial-dropout"),
        (Method::FreeLb, |s| s.weight = Some(2.0), "--adversarial-weight"),
        (Method::Fgm, |s| s.steps = Some(2), "--adversarial-steps"),
        (Method::Smart, |s| s.steps = Some(0), "--adversarial-steps"),
        (Method::Smart, |s| s.epsilon = Some(f64::NAN), "--adversarial-epsilon"),
        (Method::Smart, |s| s.weight = Some(-1.0), "--adversarial-weight"),
        (Method::FreeLb, |s| s.divergence = Some(Divergence::Hellinger), "--adversarial-divergence"),
        (Method::Fgm, |s| s.noise = Some(0.1), "--adversarial-noise"),
    ];
    for (method, change, flag) in cases {
        let error = with(method, change).validate().unwrap_err().to_string();
        assert!(error.contains(flag), "{method:?}: {error}");
    }
    let twice = AdversarialOptions {
        methods: vec![(Method::Smart, Settings::default()), (Method::Smart, Settings::default())],
        ..Default::default()
    };
    assert!(twice.validate().is_err());
    let legacy = Some(Divergence::Legacy(LegacyDivergence::SymmetricKl));
    assert!(with(Method::Smart, |s| s.divergence = legacy).validate().is_ok());
}

/// The ascent needs no gradients of weights: what it costs is a forward pass and half a backward pass.
#[test]
fn the_ascent_computes_no_gradients_of_weights() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let cpu = model.encoder().device().as_cpu();
    let operations = |options: &AdversarialOptions| {
        let before = cpu.operations();
        step(&batch, options);
        (cpu.operations() - before) as f64
    };
    let plain = operations(&AdversarialOptions::default());
    for steps in [1, 2, 5] {
        let smart = operations(&with(Method::Smart, |s| s.steps = Some(steps)));
        // (6 + 2K) / 3 of a plain step in products, and a little: attention's backward pass is more than twice its forward.
        let bound = (6.0 + 2.0 * steps as f64) / 3.0;
        assert!(smart / plain <= 1.05 * bound, "{steps}: {} of {bound}", smart / plain);
        let legacy = operations(&with(Method::SmartLegacy, |s| s.steps = Some(steps)));
        assert!(legacy / plain <= 1.05 * bound, "{steps}: {} of {bound}", legacy / plain);
    }
    let free = operations(&with(Method::FreeLb, |_| ())) / plain;
    assert!(free <= 3.15, "{free}");
}
