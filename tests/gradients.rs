//! Gradients of whole models: they arrive where they should, nowhere else, and have the right size.

mod support;

use std::sync::Arc;

use manyhead::data::readers::BadRows;
use manyhead::encoders::{self, EncoderNet};
use manyhead::heads::PooledHead;
use manyhead::nn::PackedBatch;
use manyhead::ops::{self, Activation, Pooling};
use manyhead::tape::{Gradients, ParamId, Params, Random, Tape, TapeMemory, Var};
use manyhead::train::{OptimizerKind, Step, Targets, Untouched};
use manyhead::{Device, Error, MultiTaskModel, Result, TrainOptions, Trainer, TrainingData, losses};
use support::{Record, TASKS, World, options};

#[test]
fn the_check_passes_for_each_task_alone_and_for_all() {
    let world = World::new();
    let all = world.tasks().tasks;
    for chosen in [&all[..1], &all[1..2], &all[2..], &all[..]] {
        for pooler in [manyhead::model::PoolerChoice::Encoder, manyhead::model::PoolerChoice::Fresh] {
            let encoder = manyhead::Encoder::load(world.path("model"), &Device::cpu(2).unwrap()).unwrap();
            let heads = manyhead::model::HeadOptions { pooler, ..Default::default() };
            let mut model = MultiTaskModel::new(encoder, chosen, heads).unwrap();
            let data = TrainingData::read(&model, chosen, Some(&world.path("data")), BadRows::Refuse).unwrap();
            let options = TrainOptions { check: true, max_updates: Some(4), ..options(OptimizerKind::AdamW) };
            Trainer::new(options).run(&mut model, &data, &mut ()).unwrap();
        }
    }
}

#[test]
fn a_frozen_parameter_gets_no_gradient_and_does_not_change() {
    let world = World::new();
    let mut model = world.model(2, None);
    let frozen: Vec<ParamId> = {
        let params = model.encoder_mut().params_mut();
        let frozen: Vec<ParamId> = params
            .ids()
            .filter(|id| {
                let name = &params.entry(*id).name;
                name.starts_with("embeddings.") || name.contains("layer.0.") || name.ends_with("key.weight")
            })
            .collect();
        frozen.iter().for_each(|id| params.set_trainable(*id, false));
        frozen
    };
    assert!(frozen.len() > 20);
    let before = model.encoder().params().clone();
    let data = world.data(&model);
    for untouched in [Untouched::Skip, Untouched::Zero] {
        let options =
            TrainOptions { check: true, untouched, max_updates: Some(4), ..options(OptimizerKind::AdamaxLegacy) };
        Trainer::new(options).run(&mut model, &data, &mut ()).unwrap();
    }
    let params = model.encoder().params();
    for id in params.ids() {
        let same = params.get(id) == before.get(id);
        assert_eq!(same, frozen.contains(&id), "{}", params.entry(id).name);
    }
    let batch = data.tasks[0].train.batch(&[0, 1, 2]).unwrap();
    let labels = data.tasks[0].train.labels(&[0, 1, 2]).unwrap();
    let mut tape = Tape::recording(params, model.encoder().device(), TapeMemory::default(), None);
    let loss = model.loss(&mut tape, 0, &batch, &labels).unwrap();
    let mut gradients = Gradients::new(params);
    tape.backward(loss, 1.0, &mut gradients).unwrap();
    for id in frozen {
        assert!(!gradients.touched(id) && gradients.get(params, id).is_none());
        assert!(gradients.arena()[params.entry(id).range.clone()].iter().all(|g| *g == 0.0), "nothing is written");
    }
}

/// An encoder with one classification head, in an arena of its own.
struct Parts {
    params: Params,
    net: Box<dyn EncoderNet>,
    head: PooledHead,
    batch: PackedBatch,
    labels: Arc<[i32]>,
}

impl Parts {
    fn new() -> Parts {
        let world = World::new();
        let mut params = Params::default();
        let net = encoders::load(&world.path("model"), &mut params, Device::cpu(1).unwrap().host()).unwrap().net;
        let head = PooledHead::add(&mut params, "task", 32, 3, net.pooler(), Activation::Tanh, 0.1, 1).unwrap();
        head.out.init(&mut params, 0.5, 3);
        let sequences: Vec<Vec<u32>> =
            [9, 1, 14, 6].iter().map(|n| (0..*n).map(|i| 2 + (i * i + 7 * n) % 60).collect()).collect();
        let types: Vec<Vec<u32>> =
            sequences.iter().map(|ids| (0..ids.len()).map(|i| u32::from(i > 4)).collect()).collect();
        let pairs = sequences.iter().zip(&types).map(|(ids, types)| (ids.as_slice(), types.as_slice()));
        Parts { net, head, batch: PackedBatch::pack(pairs).unwrap(), labels: [2, 0, 1, 1].into(), params }
    }

    /// The loss with `delta` on the word vectors and `shift` on the output of the embedding block.
    fn loss(&self, tape: &mut Tape<'_>, delta: Option<Var>) -> Result<(Var, Var)> {
        let embedded = self.net.embed(tape, &self.batch, delta)?;
        let hidden = self.net.encode(tape, &self.batch, embedded)?;
        let logits = self.head.forward(tape, hidden, &self.batch)?;
        Ok((losses::classification(tape, logits, &self.labels)?, embedded))
    }

    fn tape<'p>(&self, params: &'p Params, device: &Device) -> Tape<'p> {
        Tape::recording(params, device, TapeMemory::default(), Some(Random::new(3, 4)))
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|x| *x as f64 * *x as f64).sum::<f64>().sqrt()
}

#[test]
fn a_pass_towards_leaves_alone_gives_the_same_gradient() {
    let parts = Parts::new();
    let device = Device::cpu(2).unwrap();
    let shape = [parts.batch.tokens(), 32];
    let zeros = vec![0.0; shape[0] * shape[1]];
    let mut tape = parts.tape(&parts.params, &device);
    let delta = tape.leaf_from(shape, &zeros).unwrap();
    let (loss, embedded) = parts.loss(&mut tape, Some(delta)).unwrap();

    let alone = tape.gradient(loss, &[delta, embedded]).unwrap();
    assert!(alone.iter().all(|gradient| norm(gradient.data()) > 1e-3));

    let mut gradients = Gradients::new(&parts.params);
    let both = tape.backward_from(&[(loss, &[1.0])], Some(&mut gradients), &[embedded, delta]).unwrap();
    assert_eq!(both[0].data(), alone[1].data());
    assert_eq!(both[1].data(), alone[0].data());
    gradients.check(&parts.params, |_| true).unwrap();

    // The gradients of the parameters do not depend on whether leaves are wanted besides; nor do a second pass's.
    let mut plain = Gradients::new(&parts.params);
    tape.backward(loss, 1.0, &mut plain).unwrap();
    assert_eq!(plain.arena(), gradients.arena());
    let before = plain.arena().to_vec();
    tape.gradient(loss, &[delta]).unwrap();
    assert_eq!(plain.arena(), before);
}

#[test]
fn gradients_are_the_slope_of_the_loss() {
    let mut parts = Parts::new();
    let device = Device::cpu(1).unwrap();
    let shape = [parts.batch.tokens(), 32];
    let mut delta = vec![0.0f32; shape[0] * shape[1]];
    let (slopes, leaf) = {
        let mut tape = parts.tape(&parts.params, &device);
        let var = tape.leaf_from(shape, &delta).unwrap();
        let (loss, _) = parts.loss(&mut tape, Some(var)).unwrap();
        let mut gradients = Gradients::new(&parts.params);
        let leaf = tape.backward_from(&[(loss, &[1.0])], Some(&mut gradients), &[var]).unwrap().remove(0);
        (gradients.arena().to_vec(), leaf.data().to_vec())
    };
    let value = |parts: &Parts, delta: &[f32]| {
        let mut tape = parts.tape(&parts.params, &device);
        let delta = tape.leaf_from(shape, delta).unwrap();
        let (loss, _) = parts.loss(&mut tape, Some(delta)).unwrap();
        tape.scalar(loss).unwrap() as f64
    };
    // Along the gradient itself the slope is its norm. The step is long for f32's sake: error h²·f'''/6 + 1e-7/h.
    let h = 1e-2;
    let start = parts.params.arena().to_vec();
    let ids: Vec<ParamId> = parts.params.ids().collect();
    let mut checked = 0;
    for id in ids {
        let entry = parts.params.entry(id).clone();
        let slope = &slopes[entry.range.clone()];
        let expected = norm(slope);
        // A bias of keys shifts all scores of a query: its gradient is 0 but for rounding.
        if entry.name.ends_with("key.bias") {
            assert!(expected < 1e-5, "{}: {expected}", entry.name);
            continue;
        }
        let mut sides = [1.0, -1.0].map(|side| {
            for (i, slope) in entry.range.clone().zip(slope) {
                parts.params.arena_mut()[i] = start[i] + (side * h * *slope as f64 / expected) as f32;
            }
            value(&parts, &delta)
        });
        parts.params.arena_mut().copy_from_slice(&start);
        sides[0] -= sides[1];
        let found = sides[0] / (2.0 * h);
        assert!((found - expected).abs() < 0.03 * expected + 1e-4, "{}: {found}, not {expected}", entry.name);
        checked += 1;
    }
    assert!(checked > 35, "{checked}");
    let expected = norm(&leaf);
    let sides = [1.0, -1.0].map(|side| {
        delta.iter_mut().zip(&leaf).for_each(|(x, g)| *x = (side * h * *g as f64 / expected) as f32);
        value(&parts, &delta)
    });
    let found = (sides[0] - sides[1]) / (2.0 * h);
    assert!((found - expected).abs() < 0.03 * expected, "delta: {found}, not {expected}");
}

#[test]
fn a_parameter_that_the_loss_does_not_depend_on_is_named() {
    let parts = Parts::new();
    let device = Device::cpu(1).unwrap();
    let mut tape = parts.tape(&parts.params, &device);
    // The mean of all tokens goes past the pooler and the head.
    let hidden = parts.net.forward(&mut tape, &parts.batch).unwrap();
    let mean = ops::pool(&mut tape, hidden, &parts.batch.cu_seqlens, Pooling::Mean).unwrap();
    let target = tape.leaf_from([4, 32], &[0.5; 128]).unwrap();
    let loss = ops::mse(&mut tape, mean, target).unwrap();
    let mut gradients = Gradients::new(&parts.params);
    tape.backward(loss, 1.0, &mut gradients).unwrap();
    gradients.check(&parts.params, tape.used()).unwrap();
    let error = gradients.check(&parts.params, |_| true).unwrap_err();
    let Error::NoGradient { parameters } = &error else { panic!("{error}") };
    assert_eq!(
        *parameters,
        ["pooler.dense.weight", "pooler.dense.bias", "heads.task.out.weight", "heads.task.out.bias"]
    );
    assert!(error.to_string().contains("heads.task.out.bias"));
}

/// Weights, both moments and the step counter of a parameter, as bits.
fn state(model: &MultiTaskModel, step: &Step, id: ParamId) -> (Vec<u32>, Vec<u32>, Vec<u32>, u64) {
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let params = model.encoder().params();
    let range = params.entry(id).range.clone();
    let (first, second, steps) = step.optimizer().state().unwrap();
    (bits(params.get(id)), bits(&first[range.clone()]), bits(&second[range]), steps[id.index()])
}

#[test]
fn the_head_of_a_task_that_took_no_part_stands_still() {
    let world = World::new();
    for kind in [OptimizerKind::AdamW, OptimizerKind::Adamax, OptimizerKind::RAdam { decay_first: false }] {
        for untouched in [Untouched::Skip, Untouched::Zero] {
            let mut model = world.model(2, None);
            let data = world.data(&model);
            let mut step = Step::new(&model, &TrainOptions { untouched, ..options(kind) }).unwrap();
            let turn = |model: &mut MultiTaskModel, step: &mut Step, task: usize, number: u64| {
                let train = &data.tasks[task].train;
                let examples = [4, 5, 6, 7];
                let (batch, labels) = (train.batch(&examples).unwrap(), train.labels(&examples).unwrap());
                step.batch(model, task, &batch, Targets::labels(&labels), 1.0, number).unwrap();
                step.update(model, 1e-3).unwrap();
            };
            // The pair's head moves once, then stands still for three updates, then moves again.
            let head = model.encoder().params().find(&format!("heads.{}.out.weight", TASKS[1])).unwrap();
            let never = model.encoder().params().find(&format!("heads.{}.out.weight", TASKS[2])).unwrap();
            let word = model.encoder().params().find("embeddings.word_embeddings.weight").unwrap();
            let fresh = state(&model, &step, never);
            turn(&mut model, &mut step, 1, 0);
            let moved = state(&model, &step, head);
            assert_eq!(moved.3, 1);
            (1..4).for_each(|number| turn(&mut model, &mut step, 0, number));
            let later = state(&model, &step, head);
            match untouched {
                Untouched::Skip => {
                    assert!(later == moved, "{kind:?}");
                    assert!(state(&model, &step, never) == fresh, "{kind:?}");
                }
                Untouched::Zero => {
                    assert_eq!(later.3, 4);
                    assert!(later.0 != moved.0 && later.1 != moved.1, "{kind:?}: decay and moments go on");
                }
            }
            turn(&mut model, &mut step, 1, 4);
            assert_eq!(state(&model, &step, word).3, 5);
            assert_eq!(state(&model, &step, head).3, if untouched == Untouched::Skip { 2 } else { 5 });
            assert!(state(&model, &step, head).0 != later.0);
        }
    }
}

#[test]
fn what_an_earlier_update_left_in_untouched_tensors_does_not_count_in_the_norm() {
    // Plain gradient descent without decay: a gradient of zeros changes nothing, so both conventions must agree, unless
    // the gradient that another task's head had in an earlier update still counted.
    let world = World::new();
    let [skip, zero] = [Untouched::Skip, Untouched::Zero].map(|untouched| {
        let mut record = Record::default();
        let mut options = options(OptimizerKind::Sgd { momentum: 0.0, decoupled: false });
        (options.optimizer.weight_decay, options.accumulate, options.untouched) = (0.0, 1, untouched);
        let (_, result) = world.train(1, &Trainer::new(options), &mut record);
        result.unwrap();
        record.log
    });
    assert_eq!(skip, zero);
}
