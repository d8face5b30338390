//! The same seed and data give the same bits: with any number of threads, again and again, in f32 and in bf16; the last
//! layer gives first tokens the bits that it gives them among all others; and the batches of an epoch are those that the
//! options promise.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manyhead::data::{BatchOptions, BatchPlan, Dataset, epoch_plan};
use manyhead::device::{Cpu, Isa, Precision};
use manyhead::encoders::{self, EncoderNet};
use manyhead::model::Pool;
use manyhead::nn::PackedBatch;
use manyhead::ops::{self, Pooling};
use manyhead::rng::Stream;
use manyhead::tape::{Gradients, Params, Tape, TapeMemory};
use manyhead::train::{Event, OptimizerKind, Schedule, Step, Targets, Untouched, evaluate_all, warmup_updates};
use manyhead::{Device, Error, MultiTaskModel, TrainOptions, Trainer, TrainingData};
use support::{Record, World, assert_same_weights, line, options, weights};

const OPTIMIZERS: [OptimizerKind; 6] = [
    OptimizerKind::AdamW,
    OptimizerKind::Adamax,
    OptimizerKind::AdamaxLegacy,
    OptimizerKind::RAdam { decay_first: false },
    OptimizerKind::Sgd { momentum: 0.0, decoupled: false },
    OptimizerKind::Sgd { momentum: 0.9, decoupled: true },
];

fn run<'a>(world: &World, threads: usize, options: &TrainOptions) -> (MultiTaskModel, Record<'a>) {
    let mut record = Record::default();
    let (model, report) = world.train(threads, &Trainer::new(options.clone()), &mut record);
    report.unwrap();
    (model, record)
}

fn assert_same_run(what: &str, a: &(MultiTaskModel, Record<'_>), b: &(MultiTaskModel, Record<'_>)) {
    assert!(!a.1.log.is_empty() && !a.1.evaluations.is_empty());
    assert_eq!(a.1.log, b.1.log, "{what}: losses and norms");
    assert_eq!(a.1.evaluations, b.1.evaluations, "{what}: evaluation");
    assert_same_weights(what, &a.0, &b.0);
}

#[test]
fn one_thread_two_and_three_give_the_same_bits_with_every_optimizer() {
    let world = World::new();
    for optimizer in OPTIMIZERS {
        let options = TrainOptions { max_updates: Some(6), ..options(optimizer) };
        let one = run(&world, 1, &options);
        for threads in [2, 3] {
            let many = run(&world, threads, &options);
            assert_same_run(&format!("{optimizer:?}, {threads} threads"), &one, &many);
        }
    }
}

#[test]
fn two_whole_runs_give_the_same_bits_and_another_seed_others() {
    let world = World::new();
    let first = run(&world, 2, &options(OptimizerKind::AdamW));
    assert_same_run("the second run", &first, &run(&world, 2, &options(OptimizerKind::AdamW)));
    let other = TrainOptions { seed: 8, ..options(OptimizerKind::AdamW) };
    let other = run(&world, 2, &other);
    assert_ne!(weights(&first.0), weights(&other.0));
    assert_ne!(first.1.log, other.1.log);
}

#[test]
fn in_bf16_one_thread_two_and_three_give_the_same_bits_and_others_than_in_f32() {
    let world = World::new();
    let f32 = TrainOptions { max_updates: Some(6), ..options(OptimizerKind::AdamW) };
    let bf16 = TrainOptions { precision: Some(Precision::Bf16), ..f32.clone() };
    let one = run(&world, 1, &bf16);
    for threads in [1, 2, 3] {
        assert_same_run(&format!("bf16, {threads} threads"), &one, &run(&world, threads, &bf16));
    }
    assert_ne!(weights(&one.0), weights(&run(&world, 1, &f32).0));
}

#[test]
fn a_run_in_bf16_that_was_stopped_ends_as_if_it_had_never_stopped_and_goes_on_in_no_other_precision() {
    let world = World::new();
    let options = TrainOptions {
        precision: Some(Precision::Bf16),
        checkpoint_every: Some(2),
        max_updates: Some(9),
        ..options(OptimizerKind::AdamW)
    };
    let straight = run(&world, 1, &options);
    let trainer = |precision, stop| Trainer {
        options: TrainOptions { precision: Some(precision), ..options.clone() },
        output: Some(world.path("stopped")),
        resume: true,
        stop,
    };
    let flag = Arc::new(AtomicBool::new(false));
    let mut record = Record::with(|event| {
        flag.fetch_or(matches!(event, Event::Update { update: 4, .. }), Ordering::Relaxed);
        Ok(())
    });
    let (_, result) = world.train(2, &trainer(Precision::Bf16, Some(flag.clone())), &mut record);
    assert!(matches!(result, Err(Error::Interrupted { update: 5 })), "{result:?}");
    record.also = None;

    let (_, result) = world.train(1, &trainer(Precision::F32, None), &mut Record::default());
    let message = result.unwrap_err().to_string();
    assert!(message.contains("precision = bf16, not f32"), "{message}");

    let (resumed, result) = world.train(3, &trainer(Precision::Bf16, None), &mut record);
    assert_eq!((result.unwrap(), record.start.unwrap().1), (9, 5));
    assert_same_run("resumed in bf16", &straight, &(resumed, record));
}

/// An encoder of two layers and a batch with sequences longer than the blocks of attention (64 queries, 128 keys).
fn long_sequences() -> (Box<dyn EncoderNet>, Params, PackedBatch) {
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 96, "hidden_act": "gelu", "max_position_embeddings": 160, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.1,
    });
    let mut params = Params::default();
    let net = encoders::build(Path::new("config.json"), &config, &mut params).unwrap();
    net.init(&mut params, 3);
    // Biases other than 0.
    let biases: Vec<_> = params.ids().filter(|id| params.entry(*id).name.ends_with("bias")).collect();
    for id in biases {
        let stream = Stream { seed: 4, step: id.index() as u64, instance: 0 };
        params.get_mut(id).iter_mut().enumerate().for_each(|(i, x)| *x = 0.1 * stream.normal(i) as f32);
    }
    let sequence = |length: u32| (0..length).map(|i| (i * i + 7 * length) % 97).collect::<Vec<u32>>();
    let sequences = [1, 150, 70, 5].map(sequence);
    let types = sequences.each_ref().map(|ids| vec![0u32; ids.len()]);
    let batch = PackedBatch::pack(sequences.iter().zip(&types).map(|(ids, types)| (&ids[..], &types[..]))).unwrap();
    (net, params, batch)
}

/// Every instruction set and precision, with one thread and three.
fn devices() -> impl Iterator<Item = Device> {
    let with = |isa| {
        [1, 3]
            .map(|threads| [Precision::F32, Precision::Bf16].map(|p| Cpu::new(threads, isa).unwrap().with_precision(p)))
    };
    Isa::usable().flat_map(with).flatten().map(Device::Cpu)
}

#[test]
fn first_tokens_alone_have_the_bits_that_they_have_among_all_and_their_gradients() {
    let (net, params, batch) = long_sequences();
    for device in devices() {
        let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
        let embedded = net.embed(&mut tape, &batch, None).unwrap();
        let hidden = net.encode(&mut tape, &batch, embedded).unwrap();
        let among = ops::pool(&mut tape, hidden, &batch.cu_seqlens, Pooling::First).unwrap();
        let alone = net.encode_first(&mut tape, &batch, embedded).unwrap();
        let bits = |var| tape.view(var).unwrap().data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(alone), bits(among), "{device:?}");

        // R of the loss Σ R · first.
        let stream = Stream { seed: 5, step: 0, instance: 0 };
        let upstream: Vec<f32> = (0..batch.sequences() * net.hidden_size()).map(|i| stream.normal(i) as f32).collect();
        let mut gradients = |var| {
            let mut gradients = Gradients::new(&params);
            tape.backward_from(&[(var, &upstream)], Some(&mut gradients), &[]).unwrap();
            gradients
        };
        let (alone, among) = (gradients(alone), gradients(among));
        // The same products, summed in another order: as in the ops' tests 1e-5 in f32. In bf16 an operand that differs
        // in its last bits of f32 (relatively by some 1e-6) is rounded the other way with a probability of 1e-6 / 2⁻⁹, and
        // then off by 2⁻⁸: 1e-4 in the mean of squares for each rounding, less than one whole rounding, 2⁻⁹, for dozens.
        let tolerance = if device.host().precision() == Precision::F32 { 1e-5 } else { 1.0 / 512.0 };
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let size = |id| norm(&mut among.get(&params, id).unwrap_or_default().iter().map(|x| f64::from(*x)));
        let largest = params.ids().map(size).fold(0.0, f64::max);
        for id in params.ids() {
            let name = &params.entry(id).name;
            assert_eq!(alone.touched(id), among.touched(id), "{device:?} {name}");
            // A key's bias has the gradient 0, but for rounding.
            let (Some(a), Some(b)) = (alone.get(&params, id), among.get(&params, id)) else { continue };
            if name.ends_with("key.bias") {
                continue;
            }
            let error = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
            assert!(error <= tolerance * size(id) + 1e-6 * largest, "{device:?} {name}: {error:e} of {:e}", size(id));
        }
    }
}

#[test]
fn dropout_and_clipping_take_part_in_these_runs() {
    let world = World::new();
    let options = TrainOptions { max_updates: Some(3), ..options(OptimizerKind::AdamW) };
    let (model, record) = run(&world, 1, &options);
    let mut without = world.model(1, Some(0.0));
    let data = world.data(&without);
    let mut quiet = Record::default();
    Trainer::new(options.clone()).run(&mut without, &data, &mut quiet).unwrap();
    assert_ne!(record.log[&(0, "batch")], quiet.log[&(0, "batch")], "dropout changes the first loss");
    let (unclipped, _) = run(&world, 1, &TrainOptions { clip: 0.0, ..options });
    assert_ne!(weights(&model), weights(&unclipped));
}

#[test]
fn something_is_learnt() {
    let world = World::new();
    let options = TrainOptions { epochs: 20, accumulate: 1, clip: 1.0, ..options(OptimizerKind::AdamW) };
    let mut model = world.model(2, None);
    let data = world.data(&model);
    let losses = |model: &MultiTaskModel| -> Vec<f64> {
        data.tasks.iter().enumerate().map(|(i, task)| model.evaluate(i, &task.train).unwrap().loss).collect()
    };
    let before = losses(&model);
    Trainer::new(options).run(&mut model, &data, &mut ()).unwrap();
    let after = losses(&model);
    for (before, after) in before.iter().zip(&after) {
        assert!(*after < 0.7 * before, "{before} -> {after}");
    }
    println!("training losses {before:.3?} -> {after:.3?}");
}

#[test]
fn batches_by_tokens_are_the_same_with_any_number_of_threads_and_within_the_limit() {
    let world = World::new();
    let options =
        TrainOptions { batch_size: 64, batch_tokens: Some(150), max_updates: Some(8), ..options(OptimizerKind::AdamW) };
    let one = run(&world, 1, &options);
    assert_same_run("batches by tokens", &one, &run(&world, 3, &options));
    let data = world.data(&one.0);
    for (task, plan) in plans(&data, &options, 0) {
        let tokens: usize = plan.examples.iter().map(|example| task.length(*example as usize)).sum();
        assert!(tokens <= 150 || plan.examples.len() == 1, "{tokens} tokens");
    }
}

/// The batches of an epoch with their task's data.
fn plans<'d>(data: &'d TrainingData, options: &TrainOptions, epoch: u64) -> Vec<(&'d Dataset, BatchPlan)> {
    let train: Vec<&Dataset> = data.tasks.iter().map(|task| &task.train).collect();
    let plan = epoch_plan(&train, options.batches(), epoch);
    plan.into_iter().map(|plan| (train[plan.task], plan)).collect()
}

#[test]
fn without_shuffling_tasks_take_turns_until_each_is_used_up_and_short_batches_stay() {
    let world = World::new();
    let data = world.data(&world.model(1, None));
    let options = TrainOptions { shuffle: false, ..options(OptimizerKind::AdamW) };
    let plan: Vec<BatchPlan> = plans(&data, &options, 0).into_iter().map(|(_, plan)| plan).collect();
    // 118, 70 and 41 rows in batches of 16: 8, 5 and 3 batches.
    let order: Vec<usize> = plan.iter().map(|batch| batch.task).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 0, 0, 0]);
    for task in 0..3 {
        let rows: Vec<u32> = plan.iter().filter(|batch| batch.task == task).flat_map(|b| b.examples.clone()).collect();
        assert_eq!(rows, (0..support::TRAIN[task] as u32).collect::<Vec<_>>(), "file order");
        let last = plan.iter().rfind(|batch| batch.task == task).unwrap();
        assert_eq!(last.examples.len(), support::TRAIN[task] % 16);
    }
    let later: Vec<BatchPlan> = plans(&data, &options, 5).into_iter().map(|(_, plan)| plan).collect();
    assert_eq!(plan, later, "every epoch is the same");
}

#[test]
fn with_shuffling_every_example_comes_once_an_epoch_in_batches_dealt_anew() {
    let world = World::new();
    let data = world.data(&world.model(1, None));
    let options = options(OptimizerKind::AdamW);
    let compositions = |epoch| {
        let mut sets: Vec<(usize, Vec<u32>)> = Vec::new();
        for (_, mut plan) in plans(&data, &options, epoch) {
            plan.examples.sort();
            sets.push((plan.task, plan.examples));
        }
        sets
    };
    for epoch in 0..3 {
        let sets = compositions(epoch);
        for (task, rows) in support::TRAIN.iter().enumerate() {
            let mut seen: Vec<u32> = sets.iter().filter(|set| set.0 == task).flat_map(|set| set.1.clone()).collect();
            seen.sort();
            assert_eq!(seen, (0..*rows as u32).collect::<Vec<_>>(), "task {task}, epoch {epoch}");
        }
    }
    let (mut first, mut second) = (compositions(0), compositions(1));
    assert_ne!(
        first.iter().map(|set| set.0).collect::<Vec<_>>(),
        second.iter().map(|set| set.0).collect::<Vec<_>>(),
        "the order of the tasks changes"
    );
    first.sort();
    second.sort();
    assert_ne!(first, second, "the composition of the batches changes, not only their order");
    let other = BatchOptions { seed: 8, ..options.batches() };
    let train: Vec<&Dataset> = data.tasks.iter().map(|task| &task.train).collect();
    assert_ne!(epoch_plan(&train, other, 0), epoch_plan(&train, options.batches(), 0));
}

#[test]
fn a_run_is_the_loop_one_would_write_by_hand_and_leftover_batches_are_divided_by_their_own_number() {
    let world = World::new();
    for (accumulate, untouched) in [(3, Untouched::Skip), (7, Untouched::Zero)] {
        // 16 batches an epoch: updates of 3, 3, 3, 3, 3 and 1, or of 7, 7 and 2.
        let options = TrainOptions { accumulate, untouched, ..options(OptimizerKind::AdamW) };
        let (trained, record) = run(&world, 1, &options);

        let mut model = world.model(1, None);
        let data = world.data(&model);
        let task_weights: Vec<f32> = model.tasks().map(|task| task.weight).collect();
        let mut step = Step::new(&model, &options).unwrap();
        let total = 2 * 16u64.div_ceil(accumulate as u64);
        let warmup = warmup_updates(options.warmup, total).unwrap();
        let schedule = Schedule { kind: options.schedule, base: options.learning_rate, warmup, total };
        let (mut batches, mut updates) = (0, 0);
        for epoch in 0..2 {
            let mut rest = plans(&data, &options, epoch);
            assert_eq!(rest.len(), 16);
            while !rest.is_empty() {
                let group: Vec<_> = rest.drain(..accumulate.min(rest.len())).collect();
                for (dataset, plan) in &group {
                    let (batch, labels) =
                        (dataset.batch(&plan.examples).unwrap(), dataset.labels(&plan.examples).unwrap());
                    let scale = task_weights[plan.task] / group.len() as f32;
                    let loss =
                        step.batch(&model, plan.task, &batch, Targets::labels(&labels), scale, batches).unwrap().loss;
                    assert!(record.log[&(batches, "batch")].contains(&format!("{:016x}", loss.to_bits())));
                    batches += 1;
                }
                let norm = step.update(&mut model, schedule.learning_rate(updates)).unwrap();
                assert!(record.log[&(updates, "update")].starts_with(&format!("{:016x}", norm.to_bits())));
                updates += 1;
            }
        }
        assert_eq!(updates, total);
        assert_eq!(record.log.len() as u64, batches + updates);
        assert_same_weights("by hand", &trained, &model);
    }
}

/// Logits of a batch without dropout.
fn logits(model: &MultiTaskModel, task: usize, batch: &PackedBatch, memory: TapeMemory) -> (Vec<u32>, TapeMemory) {
    let mut tape = Tape::inference(model.encoder().params(), model.encoder().device(), memory);
    let logits = model.logits(&mut tape, task, batch).unwrap();
    let bits = tape.view(logits).unwrap().data.iter().map(|x| x.to_bits()).collect();
    (bits, tape.finish())
}

#[test]
fn a_sequence_has_the_same_logits_alone_and_packed_in_any_company() {
    let world = World::new();
    for threads in [1, 3] {
        let model = world.model(threads, None);
        let data = world.data(&model);
        let mut memory = TapeMemory::default();
        for (task, splits) in data.tasks.iter().enumerate() {
            let dataset = &splits.train;
            let all: Vec<u32> = (0..dataset.len() as u32).collect();
            let whole;
            (whole, memory) = logits(&model, task, &dataset.batch(&all).unwrap().packed, memory);
            let width = whole.len() / all.len();
            for size in [1, 2, 7, 33] {
                for part in all.chunks(size) {
                    // Backwards, so that a sequence also stands at another place of its batch.
                    let order: Vec<u32> = part.iter().rev().copied().collect();
                    let some;
                    (some, memory) = logits(&model, task, &dataset.batch(&order).unwrap().packed, memory);
                    for (row, example) in some.chunks(width).zip(&order) {
                        let expected = &whole[*example as usize * width..][..width];
                        assert_eq!(row, expected, "task {task}, example {example}, batches of {size}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_recording_tape_without_dropout_gives_the_bits_of_inference() {
    let world = World::new();
    let model = world.model(2, None);
    let data = world.data(&model);
    let batch = data.tasks[1].train.batch(&[3, 1, 60, 2]).unwrap().packed;
    let (expected, memory) = logits(&model, 1, &batch, TapeMemory::default());
    let mut tape = Tape::recording(model.encoder().params(), model.encoder().device(), memory, None);
    let value = model.logits(&mut tape, 1, &batch).unwrap();
    let bits: Vec<u32> = tape.view(value).unwrap().data.iter().map(|x| x.to_bits()).collect();
    assert_eq!(bits, expected);
}

#[test]
fn embeddings_and_predictions_do_not_depend_on_the_company_of_a_text() {
    let world = World::new();
    let model = world.model(2, None);
    let texts: Vec<String> = (0..300).map(|i| format!("w{}{}", i % 12, " w30 w41".repeat(i % 17))).collect();
    let all: Vec<(&str, Option<&str>)> = texts.iter().map(|text| (text.as_str(), None)).collect();
    for pool in [Pool::Mean, Pool::Cls, Pool::Max, Pool::None] {
        let together = model.encoder().embed(&all, pool, true).unwrap();
        for i in [0, 1, 16, 150, 299] {
            let alone = model.encoder().embed(&all[i..=i], pool, true).unwrap();
            assert_eq!(alone.data, together.text(i), "{pool:?} of text {i}");
        }
    }
    let together = model.predict(0, &all).unwrap();
    for (i, prediction) in together.iter().enumerate().step_by(37) {
        assert_eq!(model.predict(0, &all[i..=i]).unwrap(), std::slice::from_ref(prediction));
    }
}

#[test]
fn a_saved_model_evaluates_to_the_same_bits() {
    let world = World::new();
    let (model, _) = run(&world, 2, &TrainOptions { max_updates: Some(4), ..options(OptimizerKind::AdamW) });
    model.save(world.path("saved")).unwrap();
    let loaded = MultiTaskModel::load(world.path("saved"), model.encoder().device()).unwrap();
    let lines = |model: &MultiTaskModel| {
        let (results, _) = evaluate_all(model, &world.data(model)).unwrap();
        results.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(lines(&model), lines(&loaded));
}
