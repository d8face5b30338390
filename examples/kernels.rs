//! Runs the kernels of one op, forward and backward, at the size that `docs/kernels.md` counts it at:
//! `cargo run --release --example kernels -- CASE f32|bf16|f16`, on the first CUDA device. `scripts/kernel-report` runs all of
//! them on the software GPU. Without a case it lists them.

use std::sync::Arc;

use manyhead::device::Precision;
use manyhead::ops::{
    Activation, AttentionOptions, CrossEntropyOptions, DistillationOptions, Divergence, DivergenceRows,
    EmbeddingInputs, FeedForwardWeights, LayerNormInputs, activation, attention_of_projections, cross_entropy,
    distillation, divergence, dropout, embedding, feed_forward, layer_norm, linear, projections, relations,
};
use manyhead::rng::Stream;
use manyhead::tape::{Gradients, ParamId, Params, Random, Tape, TapeMemory, Var};
use manyhead::{Device, Result};

/// What the runs of a case share: parameters, and numbers to put on a tape.
struct Case<'p> {
    tape: Tape<'p>,
    seed: u64,
}

impl Case<'_> {
    fn leaf(&mut self, shape: &[usize]) -> Result<Var> {
        self.seed += 1;
        let stream = Stream { seed: self.seed, step: 0, instance: 0 };
        let len = shape.iter().product();
        let values: Vec<f32> = (0..len).map(|i| stream.uniform(i) as f32 - 0.5).collect();
        match *shape {
            [a] => self.tape.leaf_from([a], &values),
            [a, b] => self.tape.leaf_from([a, b], &values),
            _ => self.tape.leaf_from([len], &values),
        }
    }
}

const CASES: [&str; 15] = [
    "layer-norm",
    "dropout-layer-norm",
    "embedding",
    "activation",
    "dropout",
    "cross-entropy",
    "cross-entropy-aligned",
    "divergence",
    "distillation",
    "relations",
    "linear",
    "feed-forward",
    "attention",
    "attention-dropout",
    "attention-packed",
];

/// 64 sequences of lengths as sentence tasks have them: log-normal around 25, from 4 to 64.
fn packed() -> Arc<[u32]> {
    let stream = Stream { seed: 1, step: 0, instance: 0 };
    let lengths = (0..64).map(|i| ((25f64.ln() + 0.6 * stream.normal(i)).exp().round() as u32).clamp(4, 64));
    let mut end = 0;
    std::iter::once(0)
        .chain(lengths.map(|length| {
            end += length;
            end
        }))
        .collect()
}

/// Parameters of a case: names and shapes.
fn parameters(case: &str) -> &'static [(&'static str, &'static [usize])] {
    match case {
        "layer-norm" | "dropout-layer-norm" => &[("weight", &[768]), ("bias", &[768])],
        "embedding" => {
            &[("word", &[30_522, 768]), ("position", &[512, 768]), ("type", &[2, 768]), ("w", &[768]), ("b", &[768])]
        }
        "linear" => &[("weight", &[768, 768]), ("bias", &[768])],
        "feed-forward" => {
            &[("inner", &[3072, 768]), ("inner_bias", &[3072]), ("outer", &[768, 3072]), ("outer_bias", &[768])]
        }
        "attention" | "attention-dropout" => {
            &[("q", &[768, 64]), ("qb", &[768]), ("k", &[768, 64]), ("kb", &[768]), ("v", &[768, 64]), ("vb", &[768])]
        }
        "attention-packed" => {
            &[("q", &[384, 64]), ("qb", &[384]), ("k", &[384, 64]), ("kb", &[384]), ("v", &[384, 64]), ("vb", &[384])]
        }
        _ => &[],
    }
}

fn attend(c: &mut Case<'_>, p: &[Var], lengths: &Arc<[u32]>, width: usize, probability: f32) -> Result<Var> {
    let tokens = lengths[lengths.len() - 1] as usize;
    let x = c.leaf(&[tokens, 64])?;
    let stack = projections(&mut c.tape, x, &[(p[0], p[1]), (p[2], p[3]), (p[4], p[5])])?;
    let scale = 1.0 / (width as f32 / 12.0).sqrt();
    let options = AttentionOptions { heads: 12, scale, causal: false, dropout: probability };
    attention_of_projections(&mut c.tape, &[stack], width, [lengths, lengths], options)
}

fn forward(case: &str, c: &mut Case<'_>, p: &[Var]) -> Result<Var> {
    match case {
        "layer-norm" | "dropout-layer-norm" => {
            let (x, other) = (c.leaf(&[512, 768])?, c.leaf(&[512, 768])?);
            let fused = case == "dropout-layer-norm";
            let (residual, dropout) = (fused.then_some(other), if fused { 0.1 } else { 0.0 });
            let inputs = LayerNormInputs { x, residual, weight: p[0], bias: p[1], epsilon: 1e-12, dropout };
            layer_norm(&mut c.tape, inputs)
        }
        "embedding" => {
            let ids: Arc<[u32]> = (0..512u32).map(|i| i * 59 % 30_522).collect();
            let (positions, types): (Arc<[u32]>, Arc<[u32]>) =
                ((0..512).collect(), ids.iter().map(|id| id % 2).collect());
            let inputs = EmbeddingInputs {
                word: p[0],
                position: p[1],
                token_type: Some(p[2]),
                weight: p[3],
                bias: p[4],
                delta: None,
                epsilon: 1e-12,
                dropout: 0.1,
            };
            embedding(&mut c.tape, inputs, &ids, &positions, &types)
        }
        "activation" => {
            let x = c.leaf(&[512, 3072])?;
            activation(&mut c.tape, x, None, Activation::GeluErf)
        }
        "dropout" => {
            let x = c.leaf(&[1024, 1024])?;
            dropout(&mut c.tape, x, 0.1)
        }
        "cross-entropy" | "cross-entropy-aligned" => {
            let logits = c.leaf(&[16, if case == "cross-entropy" { 30_522 } else { 30_528 }])?;
            let targets: Arc<[i32]> = (0..16).map(|i| i * 1907).collect();
            cross_entropy(&mut c.tape, logits, &targets, CrossEntropyOptions::default())
        }
        "divergence" => {
            let (a, b) = (c.leaf(&[16, 30_522])?, c.leaf(&[16, 30_522])?);
            divergence(&mut c.tape, a, b, Divergence::SymmetricKl, DivergenceRows::Width, None)
        }
        "distillation" => {
            let (student, teacher) = (c.leaf(&[16, 30_522])?, c.leaf(&[16, 30_522])?);
            let options = DistillationOptions { temperature: 2.0, ..DistillationOptions::default() };
            distillation(&mut c.tape, student, teacher, options)
        }
        "relations" => {
            let (student, teacher) = (c.leaf(&[512, 768])?, c.leaf(&[512, 768])?);
            relations(&mut c.tape, student, 0..768, teacher, 0..768, &[0, 512].into(), 12)
        }
        "linear" => {
            let x = c.leaf(&[512, 768])?;
            linear(&mut c.tape, x, p[0], Some(p[1]))
        }
        "feed-forward" => {
            let x = c.leaf(&[512, 768])?;
            let weights = FeedForwardWeights { inner: p[0], inner_bias: p[1], outer: p[2], outer_bias: p[3] };
            feed_forward(&mut c.tape, x, weights, Activation::GeluErf)
        }
        "attention" => attend(c, p, &[0, 512].into(), 768, 0.0),
        "attention-dropout" => attend(c, p, &[0, 512].into(), 768, 0.1),
        _ => attend(c, p, &packed(), 384, 0.1),
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, precision] = &arguments[..] else {
        println!("{}", CASES.join("\n"));
        return Ok(());
    };
    let precision = match precision.as_str() {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "f16" => Precision::F16,
        _ => return Err("the precision is f32, bf16 or f16".into()),
    };
    if !CASES.contains(&case.as_str()) {
        return Err(format!("no case '{case}': {}", CASES.join(", ")).into());
    }
    let device = Device::parse("cuda", 1)?.with_precision(precision);
    let mut params = Params::default();
    for (name, shape) in parameters(case) {
        let id = match **shape {
            [a, b] => params.add(name, [a, b])?,
            _ => params.add(name, [shape[0]])?,
        };
        let stream = Stream { seed: 99, step: id.index() as u64, instance: 0 };
        params.get_mut(id).iter_mut().enumerate().for_each(|(i, w)| *w = 0.1 * (stream.uniform(i) as f32 - 0.5));
    }
    let ids: Vec<ParamId> = params.ids().collect();
    let mut gradients = Gradients::new(&params);
    let random = Some(Random::new(1, 0));
    let mut run = Case { tape: Tape::recording(&params, &device, TapeMemory::default(), random), seed: 0 };
    let vars: Vec<Var> = ids.into_iter().map(Var::Param).collect();
    let output = forward(case, &mut run, &vars)?;
    let upstream: Vec<f32> = (0..run.tape.shape(output)?.len()).map(|i| 1.0 + (i % 7) as f32).collect();
    // Towards everything that was put on the tape, too, as in the middle of a network.
    let leaves: Vec<Var> = (0..2)
        .map(Var::Value)
        .take(if ["divergence", "dropout-layer-norm"].contains(&case.as_str()) { 2 } else { 1 })
        .collect();
    let wanted = if case == "embedding" { &[][..] } else { &leaves };
    run.tape.backward_from(&[(output, &upstream)], Some(&mut gradients), wanted)?;
    device.synchronize()?;
    Ok(())
}
