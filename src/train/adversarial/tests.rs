//! Terms on a CUDA device beside those of the CPU, which stored runs are compared with elsewhere.

use std::sync::Arc;

use super::*;
use crate::losses;
use crate::ops::{self, perturbation::Norm};
use crate::rng::Stream;
use crate::tape::Random;
use crate::tape::gradcheck::{assert_near, devices};

const TOKENS: usize = 40;
const WIDTH: usize = 32;
const CLASSES: usize = 3;

/// Word vectors `[T, E]`, an embedding block that is a linear layer and LayerNorm, a head that is a linear layer.
struct Toy {
    segments: Arc<[u32]>,
    targets: Arc<[i32]>,
}

impl Toy {
    fn params() -> Params {
        let mut params = Params::default();
        let shapes: [(&str, &[usize]); 6] = [
            ("words", &[TOKENS, WIDTH]),
            ("block", &[WIDTH, WIDTH]),
            ("LayerNorm.weight", &[WIDTH]),
            ("LayerNorm.bias", &[WIDTH]),
            ("head", &[CLASSES, WIDTH]),
            ("head.bias", &[CLASSES]),
        ];
        for (number, (name, extents)) in shapes.into_iter().enumerate() {
            let id = params.add(name, crate::tensor::Shape::new(extents)).unwrap();
            let stream = Stream { seed: 1, step: 0, instance: number as u32 };
            let deviation = (extents[extents.len() - 1] as f64).powf(-0.5);
            params.get_mut(id).iter_mut().enumerate().for_each(|(i, x)| *x = (deviation * stream.normal(i)) as f32);
        }
        params
    }

    fn new() -> Toy {
        let targets = (0..TOKENS as i32).map(|i| if i % 7 == 0 { ops::IGNORE } else { i % CLASSES as i32 }).collect();
        Toy { segments: [0u32, 11, 11, 40].into(), targets }
    }

    fn var(tape: &Tape<'_>, name: &str) -> Var {
        Var::Param(tape.params().find(name).unwrap())
    }
}

impl Objective for Toy {
    fn embed(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> Result<Var> {
        let words = Toy::var(tape, "words");
        let vectors = match delta {
            Some(delta) => ops::add(tape, words, delta)?,
            None => words,
        };
        self.embed_vectors(tape, vectors)
    }

    fn embed_vectors(&self, tape: &mut Tape<'_>, vectors: Var) -> Result<Var> {
        let x = ops::linear(tape, vectors, Toy::var(tape, "block"), None)?;
        let [weight, bias] = ["LayerNorm.weight", "LayerNorm.bias"].map(|name| Toy::var(tape, name));
        ops::layer_norm(tape, ops::LayerNormInputs { x, residual: None, weight, bias, epsilon: 1e-5, dropout: 0.1 })
    }

    fn logits(&self, tape: &mut Tape<'_>, embedded: Var) -> Result<Var> {
        let (weight, bias) = (Toy::var(tape, "head"), Toy::var(tape, "head.bias"));
        ops::linear(tape, embedded, weight, Some(bias))
    }

    fn loss(&self, tape: &mut Tape<'_>, logits: Var) -> Result<Option<Var>> {
        losses::token_labels(tape, logits, &self.targets).map(Some)
    }

    fn divergence(&self, tape: &mut Tape<'_>, [first, second]: [Var; 2], form: Divergence) -> Result<Var> {
        losses::class_divergence(tape, first, second, form)
    }

    fn width(&self) -> usize {
        WIDTH
    }

    fn segments(&self) -> &Arc<[u32]> {
        &self.segments
    }
}

/// Perturbations that are large enough for f32, of every method, alone and together.
fn every_option() -> Vec<AdversarialOptions> {
    let large = |norm| Settings {
        epsilon: Some(0.5),
        step_size: Some(0.3),
        noise: Some(0.1),
        steps: Some(2),
        norm: Some(norm),
        ..Settings::default()
    };
    let plain = Settings::default();
    let radius = Settings { epsilon: Some(0.5), ..plain };
    let free = Settings { epsilon: Some(0.5), step_size: Some(0.3), ..plain };
    let methods = vec![
        vec![(Method::Smart, large(Norm::L2))],
        vec![(Method::Smart, large(Norm::Inf))],
        vec![(Method::Pdr, large(Norm::L1))],
        vec![(Method::Alum, large(Norm::Inf))],
        vec![(Method::SmartLegacy, Settings { noise: Some(0.1), step_size: Some(0.3), ..plain })],
        vec![(Method::FreeLb, free)],
        vec![(Method::Fgm, radius)],
        vec![(Method::RDrop, plain)],
        vec![(Method::FreeLb, free), (Method::Fgm, radius), (Method::RDrop, plain), (Method::Smart, large(Norm::Inf))],
        vec![],
    ];
    let proximal = Some(ProximalOptions { weight: 0.5, momentum: Momentum::Constant(0.75) });
    let settle = |methods| AdversarialOptions { methods, proximal, ..AdversarialOptions::default() };
    methods.into_iter().map(settle).collect()
}

/// What a batch gives after the weights have moved and the teacher has followed.
struct Outcome {
    report: BatchReport,
    gradients: Vec<f32>,
    teacher: Vec<f32>,
}

fn train(device: &Device, options: &AdversarialOptions) -> Outcome {
    let (toy, mut params) = (Toy::new(), Toy::params());
    let mut terms = Terms::new(options, [None], &params).unwrap();
    terms.trace(true);
    params.arena_mut().iter_mut().for_each(|weight| *weight += 0.125);
    terms.after_update(&params, device, 0, 10).unwrap();
    let mut gradients = Gradients::new(&params);
    let mut tape = Tape::recording(&params, device, TapeMemory::default(), Some(Random::new(3, 5)));
    let enters = BatchOptions { task: 0, update: 0, scale: 0.5, check: true };
    let noise = BatchNoise { seed: 3, batch: 5 };
    let report = terms.batch(&mut tape, &toy, &noise, enters, &mut gradients).unwrap();
    Outcome { report, gradients: gradients.arena().to_vec(), teacher: terms.teacher().unwrap().unwrap().to_vec() }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| *x as f64).collect()
}

#[test]
fn every_term_is_that_of_the_cpu_on_a_cuda_device() {
    let (cpu, others) = (Device::cpu(1).unwrap(), devices());
    for options in every_option() {
        let expected = train(&cpu, &options);
        for device in others.iter().filter(|device| matches!(device, Device::Cuda(_))) {
            let Outcome { report, gradients, teacher } = train(device, &options);
            let what = format!("{:?}", options.methods);
            let near = |what: &str, got: f64, expected: f64| {
                assert!((got - expected).abs() <= 1e-5 * expected.abs() + 1e-7, "{what}: {got} {expected}");
            };
            near(&what, report.loss, expected.report.loss);
            for (got, expected) in
                [(&report.terms, &expected.report.terms), (&report.perturbations, &expected.report.perturbations)]
            {
                assert_eq!(got.len(), expected.len(), "{what}");
                for ((name, got), (other, expected)) in got.iter().zip(expected) {
                    assert_eq!(name, other);
                    near(&format!("{what} {name}"), *got, *expected);
                }
            }
            assert_eq!((report.dropped, report.spoilt), (vec![], false));
            assert_eq!(report.trace.len(), expected.report.trace.len(), "{what}");
            for (got, expected) in report.trace.iter().zip(&expected.report.trace) {
                assert_near(&what, &got.perturbation, &wide(&expected.perturbation), 1e-5, 0.0);
                assert_near(&what, &got.gradient, &wide(&expected.gradient), 1e-4, 1e-9);
            }
            assert_near(&format!("{what} gradients"), &gradients, &wide(&expected.gradients), 1e-4, 1e-7);
            assert_near(&format!("{what} teacher"), &teacher, &wide(&expected.teacher), 1e-6, 0.0);
        }
    }
}

/// A gradient of the ascent, or of the weights, that is no number is seen there, too.
#[test]
fn what_is_not_finite_costs_the_term_on_every_device() {
    for device in devices() {
        for method in [Method::Smart, Method::Alum, Method::Pdr] {
            let blown = Settings { noise: Some(1e30), epsilon: Some(1e30), ..Settings::default() };
            let options = AdversarialOptions { methods: vec![(method, blown)], ..AdversarialOptions::default() };
            let mut params = Toy::params();
            // With such a perturbation the logits are beyond f32; without one they are large.
            let head = params.find("head").unwrap();
            params.get_mut(head).iter_mut().for_each(|weight| *weight *= 1e10);
            let mut terms = Terms::new(&options, [None], &params).unwrap();
            let mut gradients = Gradients::new(&params);
            let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
            let enters = BatchOptions { task: 0, update: 0, scale: 1.0, check: true };
            let noise = BatchNoise { seed: 3, batch: 5 };
            let report = terms.batch(&mut tape, &Toy::new(), &noise, enters, &mut gradients).unwrap();
            assert_eq!(report.dropped, [method.name()], "{device:?}");
            assert!(report.loss.is_finite() && gradients.arena().iter().all(|g| g.is_finite()), "{device:?}");
        }
    }
}

/// Perturbations, gradients and the teacher's outputs are never copied: what goes down are losses and sizes, what goes up are
/// labels, borders and factors.
#[cfg(all(feature = "cuda", feature = "cli"))]
#[test]
fn on_a_cuda_device_nothing_of_the_length_of_a_perturbation_is_copied() {
    let cuda = crate::device::cuda::for_tests::open();
    let device = Device::Cuda(cuda.clone());
    for options in every_option() {
        let (toy, params) = (Toy::new(), Toy::params());
        let mut terms = Terms::new(&options, [None], &params).unwrap();
        let mut gradients = Gradients::new(&params);
        let mut memory = TapeMemory::default();
        let mut before = cuda.counters();
        for batch in 0..3 {
            if batch == 2 {
                before = cuda.counters();
            }
            let mut tape = Tape::recording(&params, &device, memory, Some(Random::new(3, batch)));
            let enters = BatchOptions { task: 0, update: 0, scale: 0.5, check: false };
            let noise = BatchNoise { seed: 3, batch };
            terms.batch(&mut tape, &toy, &noise, enters, &mut gradients).unwrap();
            memory = tape.finish();
            terms.after_update(&params, &device, batch, 10).unwrap();
        }
        let after = cuda.counters();
        let [up, down] = [0, 1].map(|i| after.copied[i] - before.copied[i]);
        let what = format!("{:?}: {up} bytes up, {down} down", options.methods);
        assert!(down > 0 && down <= 4 * 32, "{what}");
        assert!(up > 0 && up < 4 * (TOKENS * WIDTH) as u64, "{what}");
        assert_eq!(after.allocations, before.allocations, "{what}");
    }
}
