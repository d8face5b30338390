//! Runs with terms: threads, resumes, gradients that are no numbers, what is refused.

use super::*;

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
