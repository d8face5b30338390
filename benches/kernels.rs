//! Every kernel at the sizes of MiniLM (4096 tokens, 384 wide, 1536 between, 12 heads of 32), beside what the machine
//! could do: multiply-adds in registers, or bytes that a copy moves, both measured at the start on all threads.
//!
//! `cargo bench --bench kernels [-- FILTER]`; `MANYHEAD_ISA` chooses the instruction set. Criterion's `elem` are
//! floating-point operations, its bytes are inputs once and outputs once, whatever a kernel moves beyond that.
//! Ops are run as training runs them: on a tape that records, with parameters as inputs; backward computes all gradients.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use manyhead::device::cpu::{Matrix, Output, Panels, Write};
use manyhead::device::{Cpu, Precision};
use manyhead::ops::{self, Activation, AttentionOptions, CrossEntropyOptions, FeedForwardWeights, LayerNormInputs};
use manyhead::rng::Stream;
use manyhead::tape::{Gradients, ParamId, Params, Random, Tape, TapeMemory, Var};
use manyhead::train::{Optimizer, OptimizerKind, OptimizerOptions, grad_norm};
use manyhead::{Device, Result};

const TOKENS: usize = 4096;
const LENGTH: usize = 128;
const HIDDEN: usize = 384;
const WIDE: usize = 1536;
const HEADS: usize = 12;
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];
/// Bytes of an f32.
const F32: usize = 4;

fn main() {
    let device = Device::cpu(0).expect("a device");
    let machine = Machine::measure(&device);
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for kernel in [products, packing, feed_forward, attention, row_kernels, cross_entropy, optimizer] {
        kernel(&mut criterion, &machine);
    }
    criterion.final_summary();
}

/// What the kernels are compared with.
struct Machine {
    device: Device,
    /// Operations a second of multiply-adds in registers, by precision.
    peak: [f64; 2],
    /// Bytes a second of a copy, read and written together.
    bandwidth: f64,
}

/// What a kernel has to do.
#[derive(Clone, Copy)]
enum Work {
    /// Floating-point operations of products in a precision.
    Operations(usize, Precision),
    /// Bytes of inputs and outputs together.
    Bytes(usize),
}

impl Machine {
    fn measure(device: &Device) -> Machine {
        let peak = PRECISIONS
            .map(|precision| 1e9 * device.with_precision(precision).host().peak_gflops(Duration::from_millis(300)));
        let cpu = device.host();
        let bandwidth = copy_bandwidth(cpu.threads());
        println!(
            "{} threads, {}: {:.0} GFLOP/s f32, {:.0} GFLOP/s bf16, copy {:.1} GB/s",
            cpu.threads(),
            cpu.isa().name(),
            peak[0] / 1e9,
            peak[1] / 1e9,
            bandwidth / 1e9
        );
        Machine { device: device.clone(), peak, bandwidth }
    }

    fn with(&self, precision: Precision) -> Device {
        self.device.with_precision(precision)
    }

    /// Runs a kernel under criterion, with its bound beside it.
    fn bench(&self, group: &mut BenchmarkGroup<'_, WallTime>, name: &str, work: Work, mut kernel: impl FnMut()) {
        let (throughput, seconds, bound) = match work {
            Work::Operations(count, precision) => {
                let peak = self.peak[usize::from(precision == Precision::Bf16)];
                let bound = format!("{:.2} GFLOP at {:.0} GFLOP/s", count as f64 / 1e9, peak / 1e9);
                (Throughput::Elements(count as u64), count as f64 / peak, bound)
            }
            Work::Bytes(count) => {
                let bound = format!("{:.1} MB at {:.1} GB/s", count as f64 / 1e6, self.bandwidth / 1e9);
                (Throughput::Bytes(count as u64), count as f64 / self.bandwidth, bound)
            }
        };
        group.throughput(throughput);
        println!("{name}: at best {:.3} ms ({bound})", 1e3 * seconds);
        group.bench_function(name, |bencher| bencher.iter(&mut kernel));
    }

    /// An op forward and backward; `works` says how much either does.
    fn bench_op(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        precision: Precision,
        params: &Params,
        works: [Work; 2],
        op: &(dyn Fn(&mut Tape<'_>) -> Result<Var> + Sync),
    ) {
        let device = self.with(precision);
        let cpu = device.host();
        let random = Some(Random::new(1, 1));
        let mut memory = TapeMemory::default();
        self.bench(group, &format!("forward {}", precision.name()), works[0], || {
            cpu.run(|| {
                let mut tape = Tape::recording(params, &device, std::mem::take(&mut memory), random);
                black_box(op(&mut tape).expect("a forward pass"));
                memory = tape.finish();
            });
        });
        let mut gradients = Gradients::new(params);
        let mut tape = Tape::recording(params, &device, memory, random);
        let output = op(&mut tape).expect("a forward pass");
        let upstream = numbers(tape.view(output).expect("an output").data.len(), 9);
        self.bench(group, &format!("backward {}", precision.name()), works[1], || {
            cpu.run(|| {
                gradients.clear();
                let seeds = [(output, upstream.as_slice())];
                tape.backward_from(&seeds, Some(&mut gradients), &[]).expect("a backward pass");
            });
        });
    }
}

/// Bytes a second, read and written together, of the best of several copies of 64 MB on each thread.
fn copy_bandwidth(threads: usize) -> f64 {
    let bytes = 64 << 20;
    let mut buffers = vec![(vec![1u8; bytes], vec![0u8; bytes]); threads];
    let mut best = 0.0f64;
    for _ in 0..5 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (from, to) in &mut buffers {
                scope.spawn(|| to.copy_from_slice(black_box(from)));
            }
        });
        best = best.max((2 * bytes * threads) as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Normal numbers.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let stream = Stream { seed, step: 0, instance: 0 };
    (0..count).map(|i| stream.normal(i) as f32).collect()
}

/// Parameters of these shapes with normal numbers.
fn params<const N: usize>(shapes: [[usize; 2]; N]) -> (Params, [ParamId; N]) {
    let mut params = Params::default();
    let ids = std::array::from_fn(|i| {
        let id = params.add(&format!("input{i}"), shapes[i]).expect("a parameter");
        params.get_mut(id).copy_from_slice(&numbers(shapes[i][0] * shapes[i][1], i as u64));
        id
    });
    (params, ids)
}

/// The products of a linear layer: x · Wᵀ with a packed weight, and dyᵀ · x, which packs both.
fn products(criterion: &mut Criterion, machine: &Machine) {
    let layers = [(HIDDEN, HIDDEN), (HIDDEN, WIDE), (WIDE, HIDDEN)];
    let mut group = criterion.benchmark_group("gemm");
    for precision in PRECISIONS {
        let device = machine.with(precision);
        let cpu = device.host();
        for (width, out) in layers {
            let (x, weight) = (numbers(TOKENS * width, 1), numbers(out * width, 2));
            let work = Work::Operations(2 * TOKENS * width * out, precision);
            let mut panels = Panels::default();
            cpu.pack(width, out, Matrix::rows(&weight, width).transposed(), &mut panels);
            let mut y = vec![0.0; TOKENS * out];
            machine.bench(&mut group, &format!("forward {TOKENS}x{out}x{width} {}", precision.name()), work, || {
                cpu.run(|| {
                    let output = Output::Matrix(&mut y, Write::Replace);
                    cpu.gemm_packed(TOKENS, Matrix::rows(&x, width), &panels, None, output);
                });
            });
            let mut gradient = vec![0.0; out * width];
            machine.bench(&mut group, &format!("weight {out}x{width}x{TOKENS} {}", precision.name()), work, || {
                cpu.run(|| {
                    let (left, right) = (Matrix::rows(&y, out).transposed(), Matrix::rows(&x, width));
                    cpu.gemm(out, width, TOKENS, left, right, &mut gradient, Write::Replace);
                });
            });
        }
    }
    group.finish();
}

/// A weight `[1536, 384]` as the right-hand operand of the forward pass and of the backward pass.
fn packing(criterion: &mut Criterion, machine: &Machine) {
    let weight = numbers(WIDE * HIDDEN, 1);
    let mut group = criterion.benchmark_group("pack");
    for precision in PRECISIONS {
        let device = machine.with(precision);
        let cpu = device.host();
        let matrix = Matrix::rows(&weight, HIDDEN);
        for (name, k, n, matrix) in [("forward", HIDDEN, WIDE, matrix.transposed()), ("backward", WIDE, HIDDEN, matrix)]
        {
            let work = Work::Bytes(F32 * (k + cpu.words(k)) * n);
            let mut panels = Panels::default();
            machine.bench(&mut group, &format!("{name} {}", precision.name()), work, || {
                cpu.run(|| cpu.pack(k, n, matrix, &mut panels));
            });
        }
    }
    group.finish();
}

fn feed_forward(criterion: &mut Criterion, machine: &Machine) {
    let shapes = [[TOKENS, HIDDEN], [WIDE, HIDDEN], [1, WIDE], [HIDDEN, WIDE], [1, HIDDEN]];
    let (params, ids) = params(shapes);
    let [x, inner, inner_bias, outer, outer_bias] = ids.map(Var::Param);
    let weights = FeedForwardWeights { inner, inner_bias, outer, outer_bias };
    let product = 2 * TOKENS * HIDDEN * WIDE;
    let mut group = criterion.benchmark_group("feed_forward");
    for precision in PRECISIONS {
        let works = [2, 4].map(|products| Work::Operations(products * product, precision));
        machine.bench_op(&mut group, precision, &params, works, &|tape| {
            ops::feed_forward(tape, x, weights, Activation::GeluErf)
        });
    }
    group.finish();
}

/// Attention of 32 sequences of 128 tokens, of what has been projected, with dropout: two products forward, five
/// backward.
fn attention(criterion: &mut Criterion, machine: &Machine) {
    let borders: Arc<[u32]> = (0..=TOKENS / LENGTH).map(|i| (i * LENGTH) as u32).collect();
    let options =
        AttentionOptions { heads: HEADS, scale: 1.0 / ((HIDDEN / HEADS) as f32).sqrt(), causal: false, dropout: 0.1 };
    let product = 2 * TOKENS * LENGTH * HIDDEN;
    let mut group = criterion.benchmark_group("attention");
    for precision in PRECISIONS {
        let (params, stack) = projected(machine.with(precision).host(), &machine.with(precision));
        let works = [2, 5].map(|products| Work::Operations(products * product, precision));
        machine.bench_op(&mut group, precision, &params, works, &|tape| {
            ops::attention_of_projections(tape, &[Var::Param(stack)], HIDDEN, [&borders, &borders], options)
        });
    }
    group.finish();
}

/// Queries, keys and values as `projections` makes them for this device, as a parameter.
fn projected(cpu: &Cpu, device: &Device) -> (Params, ParamId) {
    let deviation = 1.0 / (HIDDEN as f32).sqrt();
    let (mut states, ids) = params([[TOKENS, HIDDEN], [HIDDEN, HIDDEN], [1, HIDDEN]]);
    states.get_mut(ids[1]).iter_mut().for_each(|x| *x *= deviation);
    let [x, weight, bias] = ids.map(Var::Param);
    let mut tape = Tape::inference(&states, device, TapeMemory::default());
    let stack = ops::projections(&mut tape, x, &[(weight, bias); 3]).expect("a forward pass");
    let mut params = Params::default();
    let id = params.add("stack", [3, TOKENS, cpu.words(HIDDEN)]).expect("a parameter");
    params.get_mut(id).copy_from_slice(tape.view(stack).expect("an output").data);
    (params, id)
}

/// Kernels that the memory bounds, which products' precision does not change.
fn row_kernels(criterion: &mut Criterion, machine: &Machine) {
    let values = F32 * TOKENS * HIDDEN;
    let (params, ids) = params([[TOKENS, HIDDEN], [TOKENS, HIDDEN], [1, HIDDEN], [1, HIDDEN]]);
    let [x, residual, weight, bias] = ids.map(Var::Param);
    let inputs = LayerNormInputs { x, residual: Some(residual), weight, bias, epsilon: 1e-12, dropout: 0.1 };
    let mut group = criterion.benchmark_group("layer_norm");
    // Forward reads x and the residual and writes y; backward reads these two and dy, and writes two gradients.
    let works = [3, 5].map(|tensors| Work::Bytes(tensors * values));
    machine.bench_op(&mut group, Precision::F32, &params, works, &|tape| ops::layer_norm(tape, inputs));
    group.finish();
    let mut group = criterion.benchmark_group("dropout");
    machine.bench_op(&mut group, Precision::F32, &params, [Work::Bytes(2 * values); 2], &|tape| {
        ops::dropout(tape, x, 0.1)
    });
    group.finish();
}

/// Over 1000 classes.
fn cross_entropy(criterion: &mut Criterion, machine: &Machine) {
    let classes = 1000;
    let (params, [logits]) = params([[TOKENS, classes]]);
    let targets: Arc<[i32]> = (0..TOKENS).map(|row| (row * 7 % classes) as i32).collect();
    let mut group = criterion.benchmark_group("cross_entropy");
    let works = [1, 2].map(|tensors| Work::Bytes(tensors * F32 * TOKENS * classes));
    machine.bench_op(&mut group, Precision::F32, &params, works, &|tape| {
        ops::cross_entropy(tape, Var::Param(logits), &targets, CrossEntropyOptions::default())
    });
    group.finish();
}

/// The arena of MiniLM's size: AdamW reads weights, gradients and two moments and writes all but the gradients; the norm
/// reads gradients.
fn optimizer(criterion: &mut Criterion, machine: &Machine) {
    let (rows, device) = (22_713_216 / HIDDEN, &machine.device);
    let (mut params, [id]) = params([[rows, HIDDEN]]);
    let mut gradients = Gradients::new(&params);
    gradients.zero_untouched(&params).unwrap();
    let slots = gradients.get_mut(&params, id).expect("a gradient");
    slots.iter_mut().enumerate().for_each(|(i, g)| *g = 1e-3 * ((i % 101) as f32 - 50.0));
    let options = OptimizerOptions { weight_decay: 0.01, ..OptimizerOptions::new(OptimizerKind::AdamW) };
    let mut optimizer = Optimizer::new(options, &params).expect("an optimizer");
    let bytes = F32 * rows * HIDDEN;
    let mut group = criterion.benchmark_group("optimizer");
    machine.bench(&mut group, "adamw", Work::Bytes(7 * bytes), || {
        optimizer.step(device, &mut params, &gradients, 1e-5, 1.0).expect("a step");
    });
    machine.bench(&mut group, "grad_norm", Work::Bytes(bytes), || {
        black_box(grad_norm(device, &params, &gradients).unwrap());
    });
    group.finish();
}
