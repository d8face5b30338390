use super::*;
use crate::ops::cross_entropy::tests::reference as cross_entropy_reference;
use crate::ops::linear::tests::reference as linear_reference;
use crate::ops::{IGNORE, Reduction, cross_entropy, linear};
use crate::tape::gradcheck::{
    Input, TOLERANCE, assert_near, bf16_devices, check, check_bf16_on, cpu_bf16_devices, devices, infer_on,
    int8_devices, narrow_devices, random, random_with, run_on,
};
use crate::tape::{Params, TapeMemory};

/// Logits of about the size of 1, x, W and b.
fn inputs(rows: usize, width: usize, out: usize) -> [Input; 3] {
    let weight = random_with([out, width], 2, 1.0 / (width as f64).sqrt());
    [random([rows, width], 1), weight, random([out], 3)]
}

/// Every class in turn; some rows do not count, among them four in a row: a whole chunk where chunks are small.
fn targets(rows: usize, out: usize) -> Arc<[i32]> {
    let target = |i: usize| if i % 5 == 3 || (8..12).contains(&i) { IGNORE } else { (i * 7 % out) as i32 };
    (0..rows).map(target).collect()
}

fn all_options(rows: usize, out: usize, weights: bool, smoothing: f32, reduction: Reduction) -> CrossEntropyOptions {
    CrossEntropyOptions {
        rows: Rows::Width,
        class_weights: weights.then(|| (0..out).map(|c| 0.5 + (c % 4) as f32).collect()),
        sample_weights: weights.then(|| (0..rows).map(|r| 0.25 * (r % 5 + 1) as f32).collect()),
        smoothing,
        reduction,
    }
}

/// Rows, width, classes, rows of a chunk: one row, chunks of one, a last chunk that is not full, classes that make rows begin
/// anywhere in 16 bytes, more than one tile of a product.
const SHAPES: [[usize; 4]; 5] = [[1, 3, 2, 1], [5, 1, 3, 1], [13, 5, 11, 4], [20, 9, 34, 7], [70, 6, 67, 33]];

fn reference(
    values: &[Vec<f64>],
    [rows, width, out]: [usize; 3],
    targets: &[i32],
    options: &CrossEntropyOptions,
) -> Vec<f64> {
    let groups: Vec<u32> = (0..=rows).map(|row| (row * out) as u32).collect();
    let logits = linear_reference(values, rows, width, out);
    vec![cross_entropy_reference(&logits, &groups, targets, options)]
}

#[test]
fn linear_cross_entropy_in_chunks_agrees_with_f64() {
    for [rows, width, out, chunk] in SHAPES {
        let (inputs, targets) = (inputs(rows, width, out), targets(rows, out));
        for (weights, smoothing, reduction, bias) in [
            (false, 0.0, Reduction::Mean, true),
            (true, 0.2, Reduction::Mean, false),
            (true, 0.0, Reduction::RowMean, true),
            (false, 0.1, Reduction::Sum, true),
        ] {
            let options = all_options(rows, out, weights, smoothing, reduction);
            check(
                &inputs[..if bias { 3 } else { 2 }],
                None,
                &|tape, v| {
                    let vars = [Some(v[0]), Some(v[1]), v.get(2).copied()];
                    in_chunks(tape, vars, &targets, options.clone(), Some(chunk))
                },
                &|v| reference(v, [rows, width, out], &targets, &options),
            );
        }
    }
}

/// Two operands of the first product are rounded; the gradients see these, and two more.
#[test]
fn on_cpus_in_bf16_it_is_within_the_error_of_rounding() {
    let [rows, width, out, chunk] = [70, 17, 67, 33];
    let (inputs, targets) = (inputs(rows, width, out), targets(rows, out));
    let options = all_options(rows, out, false, 0.1, Reduction::Mean);
    check_bf16_on(
        &cpu_bf16_devices(),
        &inputs,
        None,
        [2, 4],
        &|tape, v| in_chunks(tape, [Some(v[0]), Some(v[1]), Some(v[2])], &targets, options.clone(), Some(chunk)),
        &|v| reference(v, [rows, width, out], &targets, &options),
    );
}

/// The pair has the same logits, and from them the same statistics and dz, in every precision: what sums over rows is left to
/// differ, in the order of its f32 sums, and by nothing if there is one chunk.
#[test]
fn it_is_what_the_two_ops_make_of_it() {
    for device in [devices(), bf16_devices(), narrow_devices()].concat() {
        for [rows, width, out, chunk] in [[70, 40, 67, 32], [45, 33, 130, 45], [130, 16, 35, 64]] {
            let (inputs, targets) = (inputs(rows, width, out), targets(rows, out));
            let options = all_options(rows, out, true, 0.1, Reduction::Mean);
            let pair = |tape: &mut Tape<'_>, v: &[Var]| {
                let logits = linear(tape, v[0], v[1], Some(v[2]))?;
                cross_entropy(tape, logits, &targets, options.clone())
            };
            let fused = |tape: &mut Tape<'_>, v: &[Var]| {
                in_chunks(tape, [Some(v[0]), Some(v[1]), Some(v[2])], &targets, options.clone(), Some(chunk))
            };
            let name = format!("{device:?} {rows} x {width} x {out}");
            let expected = run_on(&device, &inputs, None, &pair, &[0.75]);
            let got = run_on(&device, &inputs, None, &fused, &[0.75]);
            assert_eq!(got[..2], expected[..2], "{name}: loss and dx");
            for (got, expected) in got[2..].iter().zip(&expected[2..]) {
                let wide: Vec<f64> = expected.iter().map(|x| *x as f64).collect();
                assert_near(&name, got, &wide, TOLERANCE, 0.0);
                assert!(chunk < rows || got == expected, "{name}: one chunk");
            }
            assert_eq!(run_on(&device, &inputs, None, &fused, &[0.75]), got, "{name}: twice");
            assert_eq!(infer_on(&device, &inputs, &fused), got[0], "{name}: without a backward pass");
        }
    }
}

/// A device in int8, for inference, quantises the layer as [`linear`] does.
#[test]
fn in_int8_it_is_what_the_two_ops_make_of_it() {
    let (inputs, targets) = (inputs(21, 33, 50), targets(21, 50));
    for device in int8_devices() {
        let pair = infer_on(&device, &inputs, &|tape, v| {
            let logits = linear(tape, v[0], v[1], Some(v[2]))?;
            cross_entropy(tape, logits, &targets, CrossEntropyOptions::default())
        });
        let fused = infer_on(&device, &inputs, &|tape, v| {
            in_chunks(tape, [Some(v[0]), Some(v[1]), Some(v[2])], &targets, CrossEntropyOptions::default(), Some(4))
        });
        assert_eq!(fused, pair, "{device:?}");
    }
}

/// Gradients of some of the inputs alone, as an adversarial step asks for them, are those of all.
#[test]
fn gradients_that_nobody_wants_change_nothing() {
    let (mut inputs, targets) = (inputs(13, 6, 9), targets(13, 9));
    for device in [devices(), narrow_devices()].concat() {
        let run = |tape: &mut Tape<'_>, v: &[Var]| {
            in_chunks(tape, [Some(v[0]), Some(v[1]), Some(v[2])], &targets, CrossEntropyOptions::default(), Some(4))
        };
        inputs.iter_mut().for_each(|input| input.differentiable = true);
        let all = run_on(&device, &inputs, None, &run, &[1.0]);
        for wanted in 0..3 {
            inputs.iter_mut().enumerate().for_each(|(i, input)| input.differentiable = i == wanted);
            assert_eq!(run_on(&device, &inputs, None, &run, &[1.0])[1], all[1 + wanted], "{device:?} {wanted}");
        }
    }
}

fn run(device: &Device, rows: usize, bias: &[f32], targets: &[i32], options: CrossEntropyOptions) -> Result<Vec<f32>> {
    let params = Params::default();
    let mut tape = Tape::recording(&params, device, Default::default(), None);
    tape.check_slots(true);
    let out = bias.len();
    let x = tape.leaf_from([rows, 2], &vec![0.5; 2 * rows])?;
    let weight = tape.leaf_from([out, 2], &vec![0.25; 2 * out])?;
    let bias = tape.leaf_from([out], bias)?;
    let vars = [Some(x), Some(weight), Some(bias)];
    let loss = in_chunks(&mut tape, vars, &targets.to_vec().into(), options, Some(2))?;
    let gradients = tape.gradient(loss, &[x, weight, bias])?;
    let mut all = vec![tape.scalar(loss)?];
    gradients.iter().for_each(|gradient| all.extend(gradient.data()));
    Ok(all)
}

#[test]
fn rows_of_which_none_counts_or_that_are_not_there_give_zeros() {
    for device in [devices(), narrow_devices()].concat() {
        let options = CrossEntropyOptions::default;
        assert_eq!(run(&device, 0, &[0.0; 3], &[], options()).unwrap(), [0.0; 1 + 6 + 3], "{device:?}");
        assert_eq!(run(&device, 3, &[0.0; 3], &[IGNORE; 3], options()).unwrap(), [0.0; 1 + 6 + 6 + 3], "{device:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_the_row_is_named() {
    for device in devices() {
        let with = |rows, bias: &[f32], targets: &[i32], options| run(&device, rows, bias, targets, options);
        let message = |result: Result<Vec<f32>>| result.unwrap_err().to_string();
        let plain = CrossEntropyOptions::default;
        assert!(message(with(3, &[0.0; 2], &[0, 0, 2], plain())).contains("target 2 of row 2 is not one of 2 classes"));
        assert!(message(with(3, &[0.0; 2], &[0, 0], plain())).contains("2 targets for 3 rows"));
        let masked = with(3, &[0.0, f32::NEG_INFINITY], &[0, 0, 1], plain());
        match &device {
            Device::Cpu(_) => {
                let expected = "cross_entropy: target 1 of row 2 is a masked class (its logit is -inf)";
                assert_eq!(message(masked), expected);
            }
            // The host does not see the logits.
            Device::Cuda(_) => assert_eq!(masked.unwrap()[0], f32::INFINITY),
        }
        let groups = CrossEntropyOptions { rows: Rows::Groups([0, 1, 2].into()), ..plain() };
        assert!(message(with(2, &[0.0], &[0, 0], groups)).contains("not groups"));
        let weights = CrossEntropyOptions { class_weights: Some([1.0; 3].into()), ..plain() };
        assert!(message(with(2, &[0.0; 2], &[0, 0], weights)).contains("3 class weights where 2 are needed"));
        assert!(
            message(with(1, &[0.0], &[0], CrossEntropyOptions { smoothing: 1.5, ..plain() })).contains("smoothing")
        );

        let params = Params::default();
        let mut tape = Tape::recording(&params, &device, Default::default(), None);
        let x = tape.leaf_from([2, 3], &[0.0; 6]).unwrap();
        let [narrow, fits] = [[4, 2], [4, 3]].map(|shape| {
            let zeros = vec![0.0; shape[0] * shape[1]];
            tape.leaf_from(shape, &zeros).unwrap()
        });
        let targets: Arc<[i32]> = [0, 1].into();
        for (weight, bias) in [(narrow, None), (fits, Some(x))] {
            let error = linear_cross_entropy(&mut tape, x, weight, bias, &targets, plain()).unwrap_err().to_string();
            assert!(error.contains("linear_cross_entropy") && error.contains("[2, 3]"), "{error}");
        }
        assert!(linear_cross_entropy(&mut tape, x, fits, None, &targets, plain()).is_ok());
    }
}

/// A step with many classes: 256 rows of 2048, of which 32 at a time, is how many bytes of the logits of all?
const ROWS: usize = 256;
const CLASSES: usize = 2048;

fn step(device: &Device, rows: usize, memory: TapeMemory, fused: bool) -> TapeMemory {
    let params = Params::default();
    let mut tape = Tape::recording(&params, device, memory, None);
    let inputs = inputs(rows, 8, CLASSES).map(|input| tape.leaf_from(input.shape, &input.data).unwrap());
    let (targets, options) = (targets(rows, CLASSES), CrossEntropyOptions::default());
    let loss = if fused {
        in_chunks(&mut tape, inputs.map(Some), &targets, options, Some(32)).unwrap()
    } else {
        let logits = linear(&mut tape, inputs[0], inputs[1], Some(inputs[2])).unwrap();
        cross_entropy(&mut tape, logits, &targets, options).unwrap()
    };
    for gradient in tape.gradient(loss, &inputs).unwrap() {
        tape.give(gradient);
    }
    tape.finish()
}

#[test]
fn the_logits_of_all_rows_never_are_in_the_memory_of_the_tape() {
    let device = Device::cpu(1).unwrap();
    let held = |fused| step(&device, ROWS, TapeMemory::default(), fused).held_bytes();
    let whole = 4 * ROWS * CLASSES;
    assert!(held(false) >= 2 * whole, "{} bytes: the pair has logits and gradient", held(false));
    // A chunk's logits, an eighth, twice: what the forward pass had serves a gradient by then. x, W and b, their gradients, and
    // the statistics are a few hundredths each.
    assert!(held(true) < whole / 2, "{} of {whole}", held(true));
}

/// What a CUDA device has taken from its driver stays with it: it is the most that there was at a time.
#[cfg(all(feature = "cuda", feature = "cli"))]
#[test]
fn the_logits_of_all_rows_never_are_in_the_memory_of_a_cuda_device() {
    let used = |precision: crate::device::Precision, fused| {
        let cuda = crate::device::cuda::for_tests::open();
        let device = Device::Cuda(cuda.clone()).with_precision(precision);
        let memory = step(&device, 1, TapeMemory::default(), fused);
        let before = cuda.counters().allocated;
        step(&device, ROWS, memory, fused);
        (cuda.counters().allocated - before) as usize
    };
    for precision in [crate::device::Precision::F32, crate::device::Precision::Bf16] {
        let bytes = if precision == crate::device::Precision::F32 { 4 } else { 2 };
        let whole = bytes * ROWS * CLASSES;
        assert!(used(precision, false) >= 2 * whole, "{precision:?}: {}", used(precision, false));
        assert!(used(precision, true) < whole / 2, "{precision:?}: {} of {whole}", used(precision, true));
    }
}
