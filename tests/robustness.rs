//! Misuse of tapes, batches, models and workspaces is an error that says what is wrong, never a panic.

mod support;

use manyhead::device::{Buffer, Workspace};
use manyhead::nn::PackedBatch;
use manyhead::ops;
use manyhead::tape::{Gradients, Params, Tape, TapeMemory, Var};
use manyhead::tensor::Tensor;
use manyhead::train::{Step, Targets};
use manyhead::{Device, Result, TrainOptions};
use proptest::prelude::*;
use support::{MAX_LENGTH, World};

fn device() -> Device {
    Device::cpu(1).unwrap()
}

fn recording<'p>(params: &'p Params, device: &Device) -> Tape<'p> {
    Tape::recording(params, device, TapeMemory::default(), None)
}

#[track_caller]
fn assert_error<T>(result: Result<T>, part: &str) {
    match result {
        Ok(_) => panic!("no error where one with '{part}' was due"),
        Err(error) => assert!(error.to_string().contains(part), "{error}"),
    }
}

#[test]
fn a_value_of_another_tape_is_refused_everywhere() {
    let (params, device) = (Params::default(), device());
    let mut other = recording(&params, &device);
    let foreign = (0..5).map(|_| other.leaf_from([1], &[1.0]).unwrap()).last().unwrap();
    let mut tape = recording(&params, &device);
    let x = tape.leaf_from([1], &[1.0]).unwrap();
    let target = tape.leaf_from([1], &[3.0]).unwrap();
    let loss = ops::mse(&mut tape, x, target).unwrap();
    assert_error(tape.view(foreign), "another tape");
    assert_error(tape.scalar(foreign), "another tape");
    assert_error(ops::mse(&mut tape, x, foreign), "another tape");
    assert_error(tape.backward(foreign, 1.0, &mut Gradients::new(&params)), "another tape");
    assert_error(tape.gradient(loss, &[foreign]), "another tape");
    assert_error(tape.gradient(loss, &[Var::Value(usize::MAX)]), "another tape");
    // After all that the tape still works.
    assert_eq!(tape.gradient(loss, &[x]).unwrap()[0].data(), [-4.0]);
}

#[test]
fn a_parameter_of_another_arena_is_refused() {
    let (mut large, mut small, device) = (Params::default(), Params::default(), device());
    small.add("a", [1]).unwrap();
    large.add("a", [1]).unwrap();
    let foreign = Var::Param(large.add("b", [1]).unwrap());
    let mut tape = recording(&small, &device);
    let x = tape.leaf_from([1], &[1.0]).unwrap();
    assert_error(tape.view(foreign), "another arena");
    assert_error(ops::mse(&mut tape, x, foreign), "another arena");
    assert_error(tape.gradient(foreign, &[x]), "another arena");
    assert_error(tape.gradient(x, &[foreign]), "parameter");
}

#[test]
fn gradients_of_other_parameters_are_refused() {
    // Two arenas of the same length with different entries.
    let (mut params, mut others, device) = (Params::default(), Params::default(), device());
    let a = params.add("a", [16]).unwrap();
    params.add("b", [16]).unwrap();
    others.add("ab", [32]).unwrap();
    let mut tape = recording(&params, &device);
    let target = tape.leaf_from([16], &[1.0; 16]).unwrap();
    let loss = ops::mse(&mut tape, Var::Param(a), target).unwrap();
    for mut wrong in [Gradients::new(&others), Gradients::new(&Params::default())] {
        assert_error(tape.backward(loss, 1.0, &mut wrong), "other parameters");
    }
    tape.backward(loss, 1.0, &mut Gradients::new(&params)).unwrap();
}

#[test]
fn a_tape_that_does_not_record_refuses_to_go_back() {
    let (params, device) = (Params::default(), device());
    let mut tape = Tape::inference(&params, &device, TapeMemory::default());
    let x = tape.leaf_from([1], &[1.0]).unwrap();
    assert_error(tape.backward(x, 1.0, &mut Gradients::new(&params)), "does not record");
    assert_error(tape.gradient(x, &[x]), "does not record");
}

#[test]
fn a_backward_pass_from_or_to_the_wrong_thing_is_refused() {
    let (mut params, device) = (Params::default(), device());
    let weight = Var::Param(params.add("weight", [1]).unwrap());
    let mut tape = recording(&params, &device);
    let x = tape.leaf_from([3], &[1.0, 2.0, 3.0]).unwrap();
    let one = tape.leaf_from([1], &[1.0]).unwrap();
    let loss = ops::mse(&mut tape, weight, one).unwrap();
    let mut gradients = Gradients::new(&params);
    assert_error(tape.backward(x, 1.0, &mut gradients), "3 elements, not one");
    for upstream in [&[][..], &[1.0; 2], &[1.0; 4]] {
        assert_error(tape.backward_from(&[(x, upstream)], None, &[x]), "upstream");
    }
    assert_error(tape.backward_from(&[(weight, &[1.0])], None, &[one]), "parameter");
    // These would come back as zeros, or for the second time as zeros.
    assert_error(tape.gradient(loss, &[weight]), "parameter");
    assert_error(tape.gradient(loss, &[one, one]), "twice");
    // What the loss does not depend on has a gradient of zeros; the loss itself one of 1.
    assert_eq!(tape.gradient(loss, &[x]).unwrap()[0].data(), [0.0; 3]);
    assert_eq!(tape.gradient(loss, &[loss]).unwrap()[0].data(), [1.0]);
}

#[test]
fn a_value_that_its_scope_gave_back_is_refused() {
    let (params, device) = (Params::default(), device());
    let mut tape = Tape::inference(&params, &device, TapeMemory::default());
    let mut inner = None;
    let result = tape.scope(|tape| {
        let x = tape.leaf_from([2], &[1.0, 2.0])?;
        inner = Some(x);
        ops::mse(tape, x, x)
    });
    assert_eq!(tape.scalar(result.unwrap()).unwrap(), 0.0);
    assert_error(tape.view(inner.unwrap()), "given back");
}

#[test]
fn a_tensor_whose_shape_does_not_fit_is_refused_before_memory_is_taken() {
    let (params, device) = (Params::default(), device());
    let mut tape = recording(&params, &device);
    assert_error(tape.leaf_from([2, 3], &[0.0; 5]), "5 numbers");
    assert_error(tape.leaf_from([1 << 40, 1 << 20], &[0.0; 5]), "5 numbers");
    assert_error(tape.leaf_from([usize::MAX, usize::MAX], &[0.0; 5]), "5 numbers");
    assert_error(Tensor::from_vec([usize::MAX, 2], vec![0.0; 2]), "2 numbers");
    let empty = Tensor::from_vec([usize::MAX, usize::MAX, 0], Vec::new()).unwrap();
    assert!(empty.shape().is_empty());
    assert!(empty.shape().rows() > 0);
}

#[test]
fn batches_that_no_model_takes_are_refused() {
    assert_error(PackedBatch::pack::<u32>([]), "at least one sequence");
    assert_error(PackedBatch::pack([(&[1u32][..], &[0u32][..]), (&[], &[])]), "sequence 1 has 0 tokens");
    assert_error(PackedBatch::pack([(&[1u32, 2][..], &[0u32][..])]), "2 tokens and 1 token types");
    let world = World::new();
    let model = world.model(1, None);
    let params = model.encoder().params();
    let mut tape = recording(params, model.encoder().device());
    let mut logits = |batch: &PackedBatch| model.logits(&mut tape, 0, batch).map(|_| ());
    let long = vec![2u32; MAX_LENGTH + 1];
    let types = vec![0u32; MAX_LENGTH + 1];
    let pack = |ids: &[u32], types: &[u32]| PackedBatch::pack([(ids, types)]).unwrap();
    assert_error(logits(&pack(&long, &types)), "at most 40");
    assert_error(logits(&pack(&[5, 99_999], &[0, 0])), "99999");
    assert_error(logits(&pack(&[5, 6], &[0, 2])), "type");
    // Fields are public: borders that do not fit the tokens.
    let good = pack(&[5, 6, 7], &[0, 0, 0]);
    logits(&good).unwrap();
    for borders in [&[][..], &[0], &[0, 2], &[0, 4], &[1, 3], &[0, 2, 1, 3], &[3, 0]] {
        let bad = PackedBatch { cu_seqlens: borders.into(), ..good.clone() };
        assert!(logits(&bad).is_err(), "{borders:?}");
    }
    let bad = PackedBatch { positions: [0, 1].into(), ..good.clone() };
    assert!(logits(&bad).is_err());
}

#[test]
fn examples_and_tasks_that_do_not_exist_are_refused() {
    let world = World::new();
    let model = world.model(1, None);
    let data = world.data(&model);
    let train = &data.tasks[0].train;
    assert_error(train.batch(&[0, 1_000_000]), "example 1000000");
    assert_error(train.labels(&[1_000_000]), "example 1000000");
    let (batch, labels) = (train.batch(&[0, 1]).unwrap(), train.labels(&[0, 1]).unwrap());
    let mut step = Step::new(&model, &TrainOptions::default()).unwrap();
    assert_error(step.batch(&model, 3, &batch, Targets::labels(&labels), 1.0, 0), "task 3");
    assert_error(model.evaluate(3, train), "task 3");
    assert_error(model.predict(3, &[("w1", None)]), "task 3");
    // Labels of another number or kind.
    assert!(step.batch(&model, 0, &batch, Targets::labels(&labels[..1]), 1.0, 0).is_err());
    assert!(step.batch(&model, 2, &batch, Targets::labels(&labels), 1.0, 0).is_err());
    // After an error the step goes on.
    assert!(step.batch(&model, 0, &batch, Targets::labels(&labels), 1.0, 0).unwrap().loss > 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packing_keeps_every_token_and_its_place(lengths in prop::collection::vec(0usize..40, 0..12), off in 0usize..40) {
        let ids: Vec<Vec<u32>> =
            lengths.iter().enumerate().map(|(s, n)| (0..*n).map(|i| (100 * s + i) as u32).collect()).collect();
        let mut types: Vec<Vec<u32>> = ids.iter().map(|ids| ids.iter().map(|id| id % 2).collect()).collect();
        // Now and then a list of types that is one too long.
        let wrong = types.get_mut(off).map(|types| types.push(0)).is_some();
        let packed = PackedBatch::pack(ids.iter().zip(&types).map(|(ids, types)| (&ids[..], &types[..])));
        if wrong || lengths.is_empty() || lengths.contains(&0) {
            prop_assert!(packed.is_err());
            return Ok(());
        }
        let packed = packed.unwrap();
        prop_assert_eq!(packed.tokens(), lengths.iter().sum::<usize>());
        prop_assert_eq!(packed.sequences(), lengths.len());
        prop_assert_eq!(packed.longest(), lengths.iter().copied().max().unwrap_or(0));
        prop_assert_eq!(packed.cu_seqlens[0], 0);
        for (s, ids) in ids.iter().enumerate() {
            let at = packed.cu_seqlens[s] as usize..packed.cu_seqlens[s + 1] as usize;
            prop_assert_eq!(&packed.ids[at.clone()], &ids[..]);
            prop_assert_eq!(&packed.type_ids[at.clone()], &types[s][..]);
            let places: Vec<u32> = (0..ids.len() as u32).collect();
            prop_assert_eq!(&packed.positions[at], &places[..]);
        }
    }

    #[test]
    fn buffers_of_a_workspace_have_their_length_and_never_overlap(steps in prop::collection::vec((0usize..3000, any::<bool>()), 1..60)) {
        let mut workspace = Workspace::default();
        let mut held: Vec<(Buffer, f32)> = Vec::new();
        for (number, (len, give)) in steps.into_iter().enumerate() {
            if give && !held.is_empty() {
                let (buffer, _) = held.swap_remove(len % held.len());
                workspace.give(buffer);
                continue;
            }
            // Foreign ones as well.
            if len % 7 == 0 {
                workspace.give(Buffer::from_vec(vec![-1.0; len]));
            }
            let mut buffer = if len % 2 == 0 { workspace.take(len) } else { workspace.take_zeroed(len) }.unwrap();
            prop_assert_eq!(buffer.len(), len);
            prop_assert!(len % 2 == 0 || buffer.host().unwrap().iter().all(|x| *x == 0.0));
            buffer.fill(0..len, number as f32).unwrap();
            held.push((buffer, number as f32));
            for (buffer, mark) in &held {
                prop_assert!(buffer.host().unwrap().iter().all(|x| x == mark));
            }
        }
    }
}

#[test]
fn models_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<manyhead::Encoder>();
    shared::<manyhead::MultiTaskModel>();
    shared::<manyhead::Trainer>();
}
