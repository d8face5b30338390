//! `manyhead bench`: how fast training and inference are on this machine.

mod lengths;
mod machine;
mod objective;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use manyhead::device::Precision;
use manyhead::encoders::{self, EncoderNet};
use manyhead::heads::{Head, PooledHead};
use manyhead::nn::PackedBatch;
use manyhead::ops::Activation;
use manyhead::rng::Stream;
use manyhead::tape::{Gradients, OpTimes, Params, Random, Tape, TapeMemory};
use manyhead::train::adversarial::{BatchNoise, BatchOptions, Terms};
use manyhead::train::{Optimizer, OptimizerKind, OptimizerOptions, clip_factor, grad_norm};
use manyhead::{Device, Error};
use serde_json::{Map, Value, json};

use super::common::{Common, Failure, print, tell};
use super::table::Table;
use super::train::adversarial::Adversarial;
use lengths::Lengths;
use objective::Objective;

/// Measure the speed of training or inference on this machine
#[derive(Args, Clone)]
#[command(after_help = "A step of training is forward, backward, clipping and AdamW with a pooled two-class head. \
    Weights and texts are random. Tokens a second count real tokens, of the best step and of the median one.\n\n\
    Examples:\n  manyhead bench train --encoder-config minilm --batch 32 --length 128 --precision bf16\n  \
    manyhead bench infer --encoder-config base --batch 16 --lengths lognormal:25:0.6:4:64 --json")]
pub struct Arguments {
    /// What to measure
    pub mode: Mode,
    /// minilm (6 layers of 384), base (12 layers of 768), or a folder with a config.json
    #[arg(long, default_value = "minilm", value_name = "minilm|base|DIR")]
    pub encoder_config: String,
    /// Sequences in a batch
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub batch: u32,
    /// Tokens of every sequence [default: 128]
    #[arg(long, conflicts_with = "lengths")]
    pub length: Option<usize>,
    /// Draw the length of every sequence anew each step
    #[arg(long, value_name = "lognormal:MEDIAN:SIGMA:MIN:MAX")]
    pub lengths: Option<String>,
    /// What products are computed from: auto (bf16 where this processor multiplies it faster), f32, bf16, on a GPU tf32 and f16 or,
    /// on the CPU for infer, int8
    #[arg(long, default_value = "auto", value_parser = Precision::NAMES)]
    pub precision: String,
    /// Dropout of a training step
    #[arg(long, default_value_t = 0.1, value_name = "P")]
    pub dropout: f32,
    /// Steps that are measured, after two that are not
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub steps: u32,
    /// Seed of weights, texts, lengths and masks
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub adversarial: Adversarial,
}

/// What is measured.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub enum Mode {
    /// Training steps.
    Train,
    /// Inference.
    Infer,
}

/// Steps before the measurement: memory is taken and pages are touched.
const WARM_UP: u64 = 2;
/// Steps of a GPU in which every op is waited for and timed, after those that count.
const TIMED: u32 = 5;
/// How long the peak is looked for.
const PEAK_TIME: Duration = Duration::from_millis(300);

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let lengths = match (&arguments.lengths, arguments.length) {
        (Some(text), _) => Lengths::parse(text)?,
        (None, length) => Lengths::fixed(length.unwrap_or(128))?,
    };
    if !(0.0..1.0).contains(&arguments.dropout) {
        let message = format!("{} is not from 0 up to (not including) 1", arguments.dropout);
        return Err(Error::argument("--dropout", message).into());
    }
    let precision = common.precision(&arguments.precision);
    let device = common.device_for(precision)?;
    let precision = device.parse_precision(precision)?;
    if arguments.mode == Mode::Train {
        precision.check_training("--precision")?;
    }
    let device = device.with_precision(precision);
    let cpu = device.host();
    let mut bench = Bench::new(&arguments, &device, lengths)?;
    common.say(&format!(
        "{} steps after {WARM_UP} that do not count; {}, {}",
        arguments.steps,
        match &device {
            Device::Cuda(_) => device.to_string(),
            _ => format!("{} threads, {}", cpu.threads(), cpu.isa().name()),
        },
        precision.name()
    ));
    let load_average = machine::load_average();
    for number in 0..WARM_UP {
        bench.step(number, false)?;
    }
    let on_gpu = matches!(device, Device::Cuda(_));
    // Each op of a GPU is waited for where its time is taken: those steps are others than the ones that count.
    if !on_gpu {
        bench.time_ops();
    }
    let operations = cpu.operations();
    let (mut seconds, mut tokens, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..u64::from(arguments.steps) {
        // With adversarial training a plain step over the same batch goes before each step that counts.
        if bench.adversarial {
            let start = Instant::now();
            bench.step(WARM_UP + number, true)?;
            plain.push(start.elapsed().as_secs_f64());
        }
        let start = Instant::now();
        tokens.push(bench.step(WARM_UP + number, false)? as f64);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let operations = (cpu.operations() - operations) as f64;
    let gflops = operations / seconds.iter().chain(&plain).sum::<f64>() / 1e9;
    let mut timed = (seconds.iter().chain(&plain).sum::<f64>(), f64::from(arguments.steps));
    if on_gpu {
        bench.time_ops();
        timed = (0.0, f64::from(arguments.steps.min(TIMED)));
        for number in 0..u64::from(arguments.steps.min(TIMED)) {
            let start = Instant::now();
            bench.step(WARM_UP + u64::from(arguments.steps) + number, false)?;
            timed.0 += start.elapsed().as_secs_f64();
        }
    }
    // What the processor could do says nothing about a GPU.
    let peak = (!on_gpu).then(|| cpu.peak_gflops(PEAK_TIME));
    let rates: Vec<f64> = tokens.iter().zip(&seconds).map(|(tokens, seconds)| tokens / seconds).collect();
    let mut result = json!({
        "mode": if arguments.mode == Mode::Train { "train" } else { "infer" },
        "encoder": arguments.encoder_config,
        "precision": precision.name(),
        "isa": cpu.isa().name(),
        "device": device.to_string(),
        "graphs": graphs(&device),
        "threads": cpu.threads(),
        "batch": arguments.batch,
        "lengths": lengths.to_string(),
        "dropout": if arguments.mode == Mode::Train { arguments.dropout } else { 0.0 },
        "seed": arguments.seed,
        "steps": arguments.steps,
        "tokens_per_second": rates.iter().copied().fold(0.0, f64::max),
        "tokens_per_second_median": median(rates),
        "step_seconds_best": seconds.iter().copied().fold(f64::INFINITY, f64::min),
        "step_seconds_median": median(seconds.clone()),
        "gflops": gflops,
        "peak_gflops": peak,
        "share_of_peak": peak.map(|peak| gflops / peak),
        "peak_memory_bytes": machine::peak_memory(),
        "time_by_op": time_by_op(&bench, timed),
        "load_average": load_average,
        "version": env!("CARGO_PKG_VERSION"),
        "commit": machine::commit(),
    });
    if bench.adversarial {
        let ratios = seconds.iter().zip(&plain).map(|(adversarial, plain)| adversarial / plain).collect();
        let options: Map<String, Value> =
            arguments.adversarial.list().into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        result["adversarial"] = Value::Object(options);
        result["plain_step_seconds_median"] = json!(median(plain));
        result["adversarial_ratio"] = json!(median(ratios));
    }
    if common.json { print(&result.to_string()) } else { print_table(&result) }
}

/// An encoder with a head, and what a step needs.
struct Bench {
    device: Device,
    params: Params,
    net: Box<dyn EncoderNet>,
    head: Head,
    optimizer: Optimizer,
    gradients: Gradients,
    memory: TapeMemory,
    lengths: Lengths,
    batch: usize,
    seed: u64,
    mode: Mode,
    terms: Terms,
    /// Whether there are any.
    adversarial: bool,
    /// Seconds of what is not an op of the tape, once the time of ops is taken.
    rest: Option<Vec<(&'static str, f64)>>,
}

impl Bench {
    fn new(arguments: &Arguments, device: &Device, lengths: Lengths) -> Result<Bench, Failure> {
        let mut params = Params::default();
        let (path, config) = config(&arguments.encoder_config)?;
        let mut net = encoders::build(&path, &config, &mut params)?;
        if lengths.longest() > net.max_length() {
            let message = format!("{} tokens; this encoder takes at most {}", lengths.longest(), net.max_length());
            let flag = if arguments.lengths.is_some() { "--lengths" } else { "--length" };
            return Err(Error::argument(flag, message).into());
        }
        net.init(&mut params, arguments.seed);
        let training = arguments.mode == Mode::Train;
        let dropout = if training { arguments.dropout } else { 0.0 };
        net.set_dropout(dropout);
        let (hidden, pooler) = (net.hidden_size(), net.pooler());
        let seed = arguments.seed;
        let head = PooledHead::add(&mut params, "bench", hidden, 2, pooler, Activation::Tanh, dropout, seed)?;
        // What only training needs takes no memory in inference.
        let none = Params::default();
        let trained = if training { &params } else { &none };
        let adversarial = arguments.adversarial.resolve(device)?;
        if !training && !adversarial.is_empty() {
            return Err(
                Error::argument("--adversarial", "it is a part of training; measure it with bench train").into()
            );
        }
        let options = OptimizerOptions { weight_decay: 0.01, ..OptimizerOptions::new(OptimizerKind::AdamW) };
        Ok(Bench {
            device: device.clone(),
            optimizer: Optimizer::new(options, trained)?,
            gradients: Gradients::new(trained),
            net,
            head: Head::Pooled(head),
            memory: TapeMemory::default(),
            lengths,
            batch: arguments.batch as usize,
            seed,
            mode: arguments.mode,
            terms: Terms::new(&adversarial, [None], trained)?,
            adversarial: !adversarial.is_empty(),
            params,
            rest: None,
        })
    }

    /// One step, `plain`: without terms of adversarial training; returns its number of tokens.
    fn step(&mut self, number: u64, plain: bool) -> Result<usize, Failure> {
        let cpu = self.device.host().clone();
        let batch = self.draw(number)?;
        match self.mode {
            Mode::Infer => cpu.run(|| self.infer(&batch))?,
            Mode::Train => {
                cpu.run(|| self.forward_backward(&batch, number, plain))?;
                self.update()?;
            }
        }
        self.device.synchronize()?;
        Ok(batch.tokens())
    }

    /// Takes the time of every op from now on.
    fn time_ops(&mut self) {
        self.memory.time_ops();
        self.rest = Some(Vec::new());
    }

    fn draw(&self, number: u64) -> Result<PackedBatch, Failure> {
        let stream = Stream { seed: self.seed, step: number, instance: u32::MAX };
        let lengths: Vec<usize> = (0..self.batch).map(|i| self.lengths.draw(stream.normal(i))).collect();
        let stream = Stream { instance: u32::MAX - 1, ..stream };
        let vocabulary = self.net.vocab_size();
        let total = lengths.iter().sum();
        let ids: Vec<u32> = (0..total).map(|i| (stream.uniform(i) * vocabulary as f64) as u32).collect();
        let types = vec![0u8; total];
        let mut start = 0;
        let sequences = lengths.iter().map(|length| {
            start += length;
            (&ids[start - length..start], &types[start - length..start])
        });
        Ok(PackedBatch::pack(sequences)?)
    }

    fn infer(&mut self, batch: &PackedBatch) -> Result<(), Error> {
        let mut tape = Tape::inference(&self.params, &self.device, std::mem::take(&mut self.memory));
        let logits = self.head.logits(&mut tape, &*self.net, batch)?;
        tape.view(logits)?;
        self.memory = tape.finish();
        Ok(())
    }

    fn forward_backward(&mut self, batch: &PackedBatch, number: u64, plain: bool) -> Result<(), Error> {
        let random = Some(Random::new(self.seed, number));
        let mut tape = Tape::recording(&self.params, &self.device, std::mem::take(&mut self.memory), random);
        let objective = Objective { net: &*self.net, head: self.head, batch };
        let noise = BatchNoise { seed: self.seed, batch: number };
        let options = BatchOptions { task: 0, update: number, scale: 1.0, check: false };
        let mut none = Terms::default();
        let terms = if plain { &mut none } else { &mut self.terms };
        terms.batch(&mut tape, &objective, &noise, options, &mut self.gradients)?;
        self.memory = tape.finish();
        Ok(())
    }

    fn update(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let norm = grad_norm(&self.device, &self.params, &self.gradients)?;
        let clipped = Instant::now();
        let scale = clip_factor(norm, 1.0);
        self.optimizer.step(&self.device, &mut self.params, &self.gradients, 1e-5, scale)?;
        self.gradients.clear();
        if let Some(rest) = &mut self.rest {
            self.device.synchronize()?;
            rest.push(("grad_norm", (clipped - start).as_secs_f64()));
            rest.push(("optimizer", clipped.elapsed().as_secs_f64()));
        }
        Ok(())
    }
}

/// The configuration that a name stands for, or that lies in a folder.
fn config(name: &str) -> Result<(std::path::PathBuf, Value), Failure> {
    let (layers, hidden) = match name {
        "minilm" => (6, 384),
        "base" => (12, 768),
        _ => {
            let path = encoders::config_path(Path::new(name));
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
            let config = serde_json::from_str(&text)
                .map_err(|e| Error::input(&path, e.line(), format!("is not valid JSON: {e}")))?;
            return Ok((path, config));
        }
    };
    let config = json!({
        "model_type": "bert", "vocab_size": 30522, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": 12, "intermediate_size": 4 * hidden, "hidden_act": "gelu",
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    });
    Ok((name.into(), config))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}

/// Whether kernels were launched in graphs, how many graphs, and how many executables were made for them; null on a CPU.
fn graphs(device: &Device) -> Value {
    let Device::Cuda(cuda) = device else { return Value::Null };
    let [launched, made] = cuda.counters().graphs;
    json!({ "mode": cuda.graphs().name(), "launched": launched, "made": made })
}

/// Mean seconds of a step by op: forward and backward apart, then what is not on the tape, and the rest.
fn time_by_op(bench: &Bench, (total, steps): (f64, f64)) -> Value {
    let times: OpTimes = bench.memory.op_times();
    let mut list: Vec<(String, f64)> = Vec::new();
    for (name, forward, backward) in times.iter() {
        list.push((format!("{name} forward"), forward.as_secs_f64()));
        if bench.mode == Mode::Train {
            list.push((format!("{name} backward"), backward.as_secs_f64()));
        }
    }
    for name in ["grad_norm", "optimizer"] {
        let seconds: f64 = bench.rest.iter().flatten().filter(|(known, _)| *known == name).map(|(_, s)| s).sum();
        if seconds > 0.0 {
            list.push((name.into(), seconds));
        }
    }
    let known: f64 = list.iter().map(|(_, seconds)| seconds).sum();
    list.push(("other".into(), (total - known).max(0.0)));
    list.sort_by(|a, b| b.1.total_cmp(&a.1));
    let map: Map<String, Value> = list.into_iter().map(|(name, seconds)| (name, json!(seconds / steps))).collect();
    Value::Object(map)
}

fn print_table(result: &Value) -> Result<(), Failure> {
    let number = |key: &str| result[key].as_f64().unwrap_or(f64::NAN);
    let mut table = Table::default();
    table.row(["", "best", "median"]);
    let pair = |name: &str, best: String, median: String| [name.to_string(), best, median];
    let tokens = |key| format!("{:.0}", number(key));
    table.row(pair("tokens/s", tokens("tokens_per_second"), tokens("tokens_per_second_median")));
    let seconds = |key| format!("{:.4}", number(key));
    table.row(pair("s/step", seconds("step_seconds_best"), seconds("step_seconds_median")));
    if let Some(ratio) = result["adversarial_ratio"].as_f64() {
        table.row(pair("plain s/step", String::new(), seconds("plain_step_seconds_median")));
        table.row(pair("times a plain step", String::new(), format!("{ratio:.3}")));
    }
    print(table.render().trim_end())?;
    let memory = result["peak_memory_bytes"].as_f64();
    let memory = memory.map_or(String::new(), |bytes| format!("; peak memory {:.0} MB", bytes / 1e6));
    let share = result["share_of_peak"].as_f64().map_or(String::new(), |share| {
        format!(", {:.0} % of {:.0} measured in registers", 100.0 * share, number("peak_gflops"))
    });
    tell(&format!("products at {:.0} GFLOP/s over the whole step{share}{memory}", number("gflops")));
    let mut table = Table::default();
    table.row(["op", "ms/step", "%"]);
    let parts = result["time_by_op"].as_object().into_iter().flatten();
    let parts: Vec<(&String, f64)> = parts.map(|(name, value)| (name, value.as_f64().unwrap_or(f64::NAN))).collect();
    let total: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    for (name, seconds) in parts {
        table.row([name.clone(), format!("{:.2}", 1e3 * seconds), format!("{:.1}", 100.0 * seconds / total)]);
    }
    print(table.render().trim_end())
}
