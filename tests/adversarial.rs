//! Adversarial training: what a term adds, that it is the same with any number of threads and after any resume, and that a
//! gradient that is no number costs a term and never a run.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use manyhead::device::Precision;
use manyhead::model::HeadOptions;
use manyhead::model::student::{StudentSpec, build};
use manyhead::ops::perturbation::{Level, Norm};
use manyhead::ops::{Divergence, LegacyDivergence};
use manyhead::tape::{Backward, Forward, Gradients, Op, Params, Random, Tape, TapeMemory, Var};
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

    fn segments(&self) -> &Arc<[u32]> {
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
                // Half of each pass's loss, and half of the symmetric KL between them.
                Method::RDrop => {
                    let other = report.loss - 0.5 * plain.loss - 0.5 * term(&report, "rdrop");
                    let again = with(method, |settings| settings.weight = Some(0.25));
                    let weighted = step(&batch, &again).0;
                    let expected = 0.5 * plain.loss + other + 0.125 * term(&report, "rdrop");
                    assert!((weighted.loss - expected).abs() < 1e-6, "{task}: {} {expected}", weighted.loss);
                    // The other pass has other masks, and is no worse or better on the whole.
                    assert!(other > 0.25 * plain.loss && other < plain.loss && other != 0.5 * plain.loss);
                }
                _ => assert_eq!(term(&report, "task"), plain.loss, "{task} {method:?}"),
            }
        }
    }
}

/// A student with factorised embeddings: perturbations have the width of the embeddings, and the gradient reaches the projection
/// and the words behind it.
#[test]
fn encoders_with_a_projection_are_perturbed_before_it() {
    let (world, model, data) = prepared();
    let spec = StudentSpec::parse("embedding=6,layers=1").unwrap();
    let student = build(model.encoder(), &spec, None, 1).unwrap();
    let model = MultiTaskModel::new(student, &world.tasks().tasks, HeadOptions::default()).unwrap();
    assert_eq!((model.encoder().net().embedding_size(), model.encoder().width()), (6, 32));
    let batch = Batch::new(&model, &data, 0);
    let plain = step(&batch, &AdversarialOptions::default()).1;
    for method in Method::ALL {
        let (report, gradients) = step(&batch, &with(method, |_| ()));
        assert!(report.loss.is_finite() && report.dropped.is_empty() && !report.spoilt, "{method:?}");
        assert_eq!(gradients.len(), plain.len(), "{method:?}");
        assert!(distance(&gradients, &plain) > 0.0, "{method:?}");
    }
}

#[test]
fn terms_combine() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let methods = [Method::Alum, Method::Fgm, Method::RDrop].map(|method| (method, Settings::default())).to_vec();
    let proximal = Some(ProximalOptions { weight: 1.0, momentum: Momentum::Published });
    let options = AdversarialOptions { methods, proximal, ..Default::default() };
    let (report, _) = step(&batch, &options);
    let names: Vec<&str> = report.terms.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["task", "alum", "rdrop", "bregman", "fgm"]);
    // The teacher is the model itself: nothing lies between them, and the same masks are drawn.
    assert_eq!(term(&report, "bregman"), 0.0);
    assert!(term(&report, "fgm") > term(&report, "task"), "a step along the gradient raises the loss");
    let rdrop = step(&batch, &with(Method::RDrop, |_| ())).0;
    let alone = step(&batch, &with(Method::Fgm, |_| ())).0;
    // Its direction is that of the loss against the labels, whatever stands beside it.
    assert!((term(&report, "fgm") - term(&alone, "fgm")).abs() < 1e-5);
    let sum = rdrop.loss + term(&report, "alum") + term(&report, "fgm");
    assert!((report.loss - sum).abs() < 1e-5 && rdrop.loss != alone.loss, "{} {sum}", report.loss);
}

/// FreeLB takes the place of the loss against the labels, in full, in half beside R-Drop, and leaves FGM its direction.
#[test]
fn freelb_is_the_loss_beside_other_terms_too() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let of = |methods: &[Method]| {
        let methods = methods.iter().map(|method| (*method, Settings::default())).collect();
        step(&batch, &AdversarialOptions { methods, ..Default::default() }).0
    };
    let free = of(&[Method::FreeLb]);
    assert_eq!(free.terms, [("freelb", free.loss)]);
    let with_fgm = of(&[Method::FreeLb, Method::Fgm]);
    let names: Vec<&str> = with_fgm.terms.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["freelb", "fgm"]);
    assert!(term(&with_fgm, "fgm") > free.loss && with_fgm.perturbations[1].1 > 0.99);
    assert!((with_fgm.loss - free.loss - term(&with_fgm, "fgm")).abs() < 1e-6);
    let with_rdrop = of(&[Method::FreeLb, Method::RDrop]);
    let own = with_rdrop.loss - 0.5 * free.loss - 0.5 * term(&with_rdrop, "rdrop");
    assert!(own > 0.25 * free.loss && own < free.loss, "half of the loss of R-Drop's own pass: {own}");
    // FreeLB has no weight, and one of 0 for all others does not switch it off.
    let settings = Settings { weight: Some(0.0), ..Default::default() };
    let methods = [Method::FreeLb, Method::Smart].map(|method| (method, Settings::default())).to_vec();
    let report = step(&batch, &AdversarialOptions { methods, settings, ..Default::default() }).0;
    assert_eq!(report.terms, [("freelb", free.loss)]);
}

/// The proximal term's momentum, as published: 0.99 for the first tenth of the updates.
#[test]
fn the_teacher_follows_as_published() {
    let at = |update| Momentum::Published.at(update, 100);
    assert_eq!([at(0), at(9), at(10), at(99)], [0.99, 0.99, 0.999, 0.999]);
    let (_world, model, _) = prepared();
    let proximal = Some(ProximalOptions { weight: 1.0, momentum: Momentum::Constant(0.75) });
    let options = AdversarialOptions { proximal, ..Default::default() };
    let mut teacher = Terms::new(&options, [None], model.encoder().params()).unwrap();
    let mut moved = model.encoder().params().clone();
    moved.arena_mut().iter_mut().for_each(|weight| *weight += 1.0);
    teacher.after_update(&moved, model.encoder().device(), 0, 10).unwrap();
    let before = model.encoder().params().arena();
    assert!(
        teacher.teacher().unwrap().unwrap().iter().zip(before).all(|(t, w)| (t - w - 0.25).abs() < 1e-5 || *w == 0.0)
    );
}

/// At a radius that bf16 can tell apart the term is about the same in both precisions; the published one it cannot.
#[test]
fn terms_in_bf16_are_those_of_f32_where_bf16_can_tell_perturbations_apart() {
    let (_world, mut model, data) = prepared();
    let mut terms = |epsilon: f64| {
        let options = with(Method::Smart, |s| {
            (s.epsilon, s.step_size, s.noise) = (Some(epsilon), Some(epsilon), Some(epsilon / 10.0));
        });
        assert_eq!(options.drowns_in_bf16().is_some(), epsilon < 1e-3);
        [Precision::F32, Precision::Bf16].map(|precision| {
            model.encoder_mut().set_precision(precision);
            term(&step(&Batch::new(&model, &data, 0), &options).0, "smart")
        })
    };
    let [exact, rounded] = terms(1.0);
    assert!((rounded / exact - 1.0).abs() < 0.2, "{exact:e} {rounded:e}");
    let [exact, rounded] = terms(1e-5);
    let off = (rounded / exact - 1.0).abs();
    assert!(exact > 0.0 && (off.is_nan() || off >= 0.5), "{exact:e} {rounded:e}");
}

/// Gradients of batches add up, and a task's weight and the number of batches of an update scale terms as they scale losses.
#[test]
fn terms_scale_with_the_loss() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let params = model.encoder().params();
    for method in [Method::Smart, Method::FreeLb, Method::Fgm, Method::RDrop] {
        let gradients = |scales: &[f32]| {
            let mut terms = Terms::new(&with(method, |_| ()), [None], params).unwrap();
            let mut gradients = Gradients::new(params);
            for scale in scales {
                let device = model.encoder().device();
                let mut tape = Tape::recording(params, device, TapeMemory::default(), Some(Random::new(3, 5)));
                let enters = BatchOptions { task: 0, update: 0, scale: *scale, check: false };
                let noise = BatchNoise { seed: 3, batch: 5 };
                terms.batch(&mut tape, &batch, &noise, enters, &mut gradients).unwrap();
            }
            touched(params, &gradients)
        };
        let (one, two) = (gradients(&[1.0]), gradients(&[0.25, 0.5]));
        let scaled: Vec<f32> = one.iter().map(|g| 0.75 * g).collect();
        assert!(distance(&two, &scaled) < 1e-5 * size(&one), "{method:?}");
    }
}

fn every_term() -> AdversarialOptions {
    let methods = vec![
        (Method::Smart, Settings { steps: Some(2), epsilon: Some(0.1), step_size: Some(0.1), ..Default::default() }),
        (Method::RDrop, Settings::default()),
        (Method::Fgm, Settings::default()),
    ];
    let proximal = Some(ProximalOptions { weight: 0.5, momentum: Momentum::Constant(0.9) });
    let settings = Settings { start: Some(2), ..Default::default() };
    AdversarialOptions { methods, settings, proximal, ..Default::default() }
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

/// What goes wrong from a pass on.
#[derive(Clone, Copy, PartialEq)]
enum Blow {
    Loss,
    Gradient,
}

/// The number itself; its gradient is no number.
struct Poison;

impl Op for Poison {
    fn name(&self) -> &'static str {
        "poison"
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> manyhead::Result<manyhead::tensor::Tensor> {
        let mut y = ctx.take([1])?;
        y.data_mut().copy_from_slice(ctx.input(0).data);
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> manyhead::Result<()> {
        ctx.slot(0).unwrap().data.fill(f32::NAN);
        Ok(())
    }
}

/// A batch whose loss, or its gradient, is no number from a pass on.
struct Blown<'a> {
    batch: Batch<'a>,
    good: usize,
    blow: Blow,
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
        let good = self.passes.fetch_add(1, Ordering::Relaxed) < self.good;
        match (self.batch.loss(tape, logits)?, self.blow) {
            (Some(loss), Blow::Gradient) if !good => tape.apply(Poison, &[loss]).map(Some),
            (Some(_), Blow::Loss) if !good => tape.leaf_from([1], &[f32::INFINITY]).map(Some),
            (loss, _) => Ok(loss),
        }
    }

    fn divergence(&self, tape: &mut Tape<'_>, sides: [Var; 2], form: Divergence) -> manyhead::Result<Var> {
        self.batch.divergence(tape, sides, form)
    }

    fn width(&self) -> usize {
        self.batch.width()
    }

    fn segments(&self) -> &Arc<[u32]> {
        self.batch.segments()
    }
}

/// A loss that is infinite costs the pass; where the same gradient serves the ascent and the weights, one that is no number is
/// in the weights' gradients, and the report says that the update must be left out.
#[test]
fn what_spoils_the_gradients_of_the_weights_is_told() {
    let (_world, model, data) = prepared();
    let params = model.encoder().params();
    for (method, good, blow, spoilt) in [
        (Method::FreeLb, 1, Blow::Gradient, true),
        (Method::Fgm, 1, Blow::Gradient, true),
        (Method::FreeLb, 2, Blow::Loss, false),
        (Method::Fgm, 1, Blow::Loss, false),
        (Method::FreeLb, 0, Blow::Loss, false),
    ] {
        let batch = Blown { batch: Batch::new(&model, &data, 0), good, blow, passes: AtomicUsize::new(0) };
        let mut terms = Terms::new(&with(method, |_| ()), [None], params).unwrap();
        let mut gradients = Gradients::new(params);
        let device = model.encoder().device();
        let mut tape = Tape::recording(params, device, TapeMemory::default(), None);
        let enters = BatchOptions { task: 0, update: 0, scale: 1.0, check: false };
        let noise = BatchNoise { seed: 1, batch: 1 };
        let report = terms.batch(&mut tape, &batch, &noise, enters, &mut gradients).unwrap();
        assert_eq!(report.spoilt, spoilt, "{method:?} {good}");
        assert_eq!(touched(params, &gradients).iter().all(|g| g.is_finite()), !spoilt, "{method:?} {good}");
        // A loss that is infinite before anything is perturbed is that of the model: the run must end.
        assert_eq!(report.loss.is_finite(), good > 0);
        assert_eq!(report.dropped, if good > 0 { vec![method.name()] } else { vec![] });
        if (method, good) == (Method::FreeLb, 2) {
            assert_eq!((report.passes.len(), report.terms.len()), (2, 1), "what was finite is reported");
        }
    }
}

#[test]
fn terms_begin_when_they_are_told_to_and_each_is_logged_with_its_size() {
    let world = World::new();
    let mut adversarial = with(Method::Alum, |_| ());
    adversarial.settings.start = Some(3);
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
    for adversarial in [other, AdversarialOptions::default()] {
        let again = Trainer { output: output.clone(), resume: true, ..Trainer::new(run_options(adversarial)) };
        let error = world.train(1, &again, &mut Record::default()).1.unwrap_err().to_string();
        assert!(error.contains("--adversarial of task 'single' = smart:weight=1:epsilon=0.1:step-size=0.1"), "{error}");
    }
}

#[test]
fn options_that_do_nothing_or_make_no_sense_are_refused_by_name() {
    type Change = fn(&mut Settings);
    let cases: [(Method, Change, &str); 9] = [
        (Method::RDrop, |s| s.epsilon = Some(1.0), "rdrop:epsilon"),
        (Method::RDrop, |s| s.dropout = Some(Masks::Same), "rdrop:dropout"),
        (Method::FreeLb, |s| s.weight = Some(2.0), "freelb:weight"),
        (Method::Fgm, |s| s.steps = Some(2), "fgm:steps"),
        (Method::Smart, |s| s.steps = Some(0), "smart:steps"),
        (Method::Smart, |s| s.epsilon = Some(f64::NAN), "smart:epsilon"),
        (Method::Smart, |s| s.weight = Some(-1.0), "smart:weight"),
        (Method::FreeLb, |s| s.divergence = Some(Divergence::Hellinger), "freelb:divergence"),
        (Method::Fgm, |s| s.noise = Some(0.1), "fgm:noise"),
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
    let cpu = model.encoder().device().host();
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
