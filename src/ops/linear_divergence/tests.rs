use super::*;
use crate::ops::divergence::tests::{FORMS, divisor, softmax, value};
use crate::ops::linear::tests::reference as linear_reference;
use crate::ops::{divergence, linear};
use crate::tape::gradcheck::{
    Input, TOLERANCE, assert_near, check, check_narrow, check_wide, devices, infer_on, narrow_devices, random,
    random_with, rounded, run_on, unit,
};
use crate::tape::{Params, TapeMemory};

/// x₁, W₁, b₁, x₂, W₂, b₂; logits of about the size of 1.
fn inputs(rows: usize, [width, other]: [usize; 2], out: usize) -> [Input; 6] {
    let weight = |width: usize, seed| random_with([out, width], seed, 1.0 / (width as f64).sqrt());
    let (x, y) = (random([rows, width], 1), random([rows, other], 4));
    [x, weight(width, 2), random_with([out], 3, 0.5), y, weight(other, 5), random_with([out], 6, 0.5)]
}

fn side(v: &[Var]) -> LinearLogits {
    LinearLogits { x: v[0], weight: v[1], bias: v.get(2).copied() }
}

fn counted(rows: usize, masked: bool) -> Option<Arc<[bool]>> {
    masked.then(|| (0..rows).map(|row| row % 3 != 1).collect())
}

fn op(form: Divergence, counted: Option<Arc<[bool]>>) -> DivergenceOp {
    DivergenceOp { form, rows: DivergenceRows::Width, counted }
}

/// The mean over the rows of two sets of logits; `held` is what forms that hold a side see.
fn reference(form: Divergence, logits: [&[f64]; 2], held: [&[f64]; 2], out: usize, counted: &[bool]) -> Vec<f64> {
    let row = |row: usize| {
        let at = |all: &[f64]| softmax(&all[row * out..][..out]);
        let [p, q, held_p, held_q] = [logits[0], logits[1], held[0], held[1]].map(at);
        value(form, [&p, &q], [&held_p, &held_q])
    };
    let rows = counted.len();
    let sum: f64 = (0..rows).filter(|i| counted[*i]).map(row).sum();
    vec![sum / divisor(form, [rows, 1, out], counted.iter().filter(|counts| **counts).count())]
}

#[test]
fn every_form_in_chunks_agrees_with_f64() {
    for (n, form) in FORMS.into_iter().enumerate() {
        let [rows, width, other, out, chunk] = [[1, 3, 2, 5, 1], [7, 5, 4, 9, 3], [10, 4, 4, 6, 5]][n % 3];
        // Some forms hold one side: their reference must know what the kernels see.
        let inputs = rounded(&inputs(rows, [width, other], out));
        let masked = counted(rows, n % 2 == 1);
        let marks: Vec<bool> = masked.as_ref().map_or(vec![true; rows], |marks| marks.to_vec());
        let logits = |v: &[Vec<f64>]| {
            let [first, second] = [0, 3].map(|at| &v[at..at + 3]);
            [linear_reference(first, rows, width, out), linear_reference(second, rows, other, out)]
        };
        let wide: Vec<Vec<f64>> = inputs.iter().map(|i| i.data.iter().map(|x| *x as f64).collect()).collect();
        let [held_p, held_q] = logits(&wide);
        let run = |tape: &mut Tape<'_>, v: &[Var]| {
            in_chunks(tape, [side(&v[..3]), side(&v[3..])], op(form, masked.clone()), Some(chunk))
        };
        let expected = |v: &[Vec<f64>]| {
            let [p, q] = logits(v);
            reference(form, [&p, &q], [&held_p, &held_q], out, &marks)
        };
        check_wide(&inputs, None, &run, &expected);
        // What is measured are differences of logits, as large as these; they have the roundings of both: twice those of an
        // op whose output is not one of what is rounded in it.
        check_narrow([8, 16], &inputs, None, &run, &expected);
    }
}

/// One head for both sides, as for what a perturbation changes: its gradient is the sum over both.
#[test]
fn sides_that_share_a_layer_agree_with_f64() {
    let [rows, width, out] = [9, 5, 7];
    let [x, weight, bias, y, ..] = inputs(rows, [width, width], out);
    let inputs = [x, y, weight, bias];
    for (form, bias) in [(Divergence::SymmetricKl, true), (Divergence::JensenShannon, false)] {
        let layer =
            |v: &[Vec<f64>], side: usize| linear_reference(&[&v[side..side + 1], &v[2..]].concat(), rows, width, out);
        check(
            &inputs[..if bias { 4 } else { 3 }],
            None,
            &|tape, v| {
                let side = |x| LinearLogits { x, weight: v[2], bias: v.get(3).copied() };
                in_chunks(tape, [side(v[0]), side(v[1])], op(form, None), Some(4))
            },
            &|v| {
                let (p, q) = (layer(v, 0), layer(v, 1));
                reference(form, [&p, &q], [&p, &q], out, &vec![true; rows])
            },
        );
    }
}

/// The three ops have the same logits, and so the same values. Gradients differ in the order of f32 sums, and, where numbers
/// have 16 bits or products are of tf32, in two roundings of slopes that the three ops make after the division.
#[test]
fn it_is_what_the_three_ops_make_of_it() {
    let [rows, width, out, chunk] = [45, 33, 67, 16];
    let inputs = inputs(rows, [width, 20], out);
    for device in [devices(), narrow_devices()].concat() {
        for form in [Divergence::KlSecondFirst, Divergence::SymmetricKl, Divergence::Hellinger] {
            let three = |tape: &mut Tape<'_>, v: &[Var]| {
                let logits = [linear(tape, v[0], v[1], Some(v[2]))?, linear(tape, v[3], v[4], Some(v[5]))?];
                divergence(tape, logits[0], logits[1], form, DivergenceRows::Width, counted(rows, true))
            };
            let fused = |tape: &mut Tape<'_>, v: &[Var]| {
                in_chunks(tape, [side(&v[..3]), side(&v[3..])], op(form, counted(rows, true)), Some(chunk))
            };
            let name = format!("{device:?} {form:?}");
            let expected = run_on(&device, &inputs, None, &three, &[0.75]);
            let got = run_on(&device, &inputs, None, &fused, &[0.75]);
            assert_eq!(got[0], expected[0], "{name}");
            let tolerance = TOLERANCE.max(2.0 * unit(&device));
            for (got, expected) in got[1..].iter().zip(&expected[1..]) {
                let wide: Vec<f64> = expected.iter().map(|x| *x as f64).collect();
                assert_near(&name, got, &wide, tolerance, 1e-6);
            }
            assert_eq!(run_on(&device, &inputs, None, &fused, &[0.75]), got, "{name}: twice");
            assert_eq!(infer_on(&device, &inputs, &fused), got[0], "{name}: without a backward pass");
        }
    }
}

/// In f16 the slopes of a thousand rows, divided, are below its least number: they are divided with the scale of the loss.
#[test]
fn small_gradients_are_not_lost_in_f16() {
    let (rows, out) = (2, 512);
    let inputs = inputs(rows, [4, 4], out).map(|mut input| {
        input.data.iter_mut().for_each(|x| *x *= 0.25);
        input
    });
    let form = Divergence::Legacy(crate::ops::LegacyDivergence::Kl);
    let tokens = || DivergenceOp { form, rows: DivergenceRows::Tokens(100_000), counted: None };
    let run = |tape: &mut Tape<'_>, v: &[Var]| in_chunks(tape, [side(&v[..3]), side(&v[3..])], tokens(), Some(1));
    let exact = run_on(&Device::cpu(1).unwrap(), &inputs, None, &run, &[65536.0]);
    for device in narrow_devices() {
        let got = run_on(&device, &inputs, None, &run, &[65536.0]);
        for (got, exact) in got[1..].iter().zip(&exact[1..]) {
            let wide: Vec<f64> = exact.iter().map(|x| *x as f64).collect();
            // x, W, both logits, slopes and dz are rounded; p − q cancels most of what logits are.
            assert_near(&format!("{device:?}"), got, &wide, 16.0 * unit(&device), 1e-6);
        }
    }
}

#[test]
fn no_rows_give_zeros_and_what_does_not_fit_is_refused() {
    for device in [devices(), narrow_devices()].concat() {
        let run = |shapes: [[usize; 2]; 4], op: DivergenceOp| -> Result<Vec<f32>> {
            let params = Params::default();
            let mut tape = Tape::recording(&params, &device, Default::default(), None);
            tape.check_slots(true);
            let leaf = |shape: [usize; 2]| (shape, vec![0.5; shape[0] * shape[1]]);
            let mut v = Vec::new();
            for (shape, data) in shapes.map(leaf) {
                v.push(tape.leaf_from(shape, &data)?);
            }
            let loss = in_chunks(&mut tape, [side(&v[..2]), side(&v[2..])], op, Some(2))?;
            let gradients = tape.gradient(loss, &v)?;
            let mut all = vec![tape.scalar(loss)?];
            gradients.iter().for_each(|gradient| all.extend(gradient.data()));
            Ok(all)
        };
        let form = Divergence::SymmetricKl;
        assert_eq!(run([[0, 3], [4, 3], [0, 2], [4, 2]], op(form, None)).unwrap(), [0.0; 1 + 12 + 8], "{device:?}");
        let none = op(form, Some([false; 3].into()));
        assert!(run([[3, 3], [4, 3], [3, 2], [4, 2]], none).unwrap().iter().all(|x| *x == 0.0), "{device:?}");
        let message = |shapes, op| run(shapes, op).unwrap_err().to_string();
        assert!(message([[3, 3], [4, 2], [3, 2], [4, 2]], op(form, None)).contains("linear_divergence"));
        assert!(message([[3, 3], [4, 3], [2, 2], [4, 2]], op(form, None)).contains("differ in shape"));
        assert!(message([[3, 3], [4, 3], [3, 2], [5, 2]], op(form, None)).contains("differ in shape"));
        let marks = op(form, Some([true; 2].into()));
        assert!(message([[3, 3], [4, 3], [3, 2], [4, 2]], marks).contains("2 marks"));
        let single = DivergenceOp { form, rows: DivergenceRows::Bernoulli, counted: None };
        assert!(message([[3, 3], [4, 3], [3, 2], [4, 2]], single).contains("single numbers"));
    }
}

#[test]
fn the_logits_of_all_rows_never_are_in_the_memory_of_the_tape() {
    const ROWS: usize = 512;
    const CLASSES: usize = 512;
    let device = Device::cpu(1).unwrap();
    let params = Params::default();
    let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
    let v = inputs(ROWS, [4, 4], CLASSES).map(|input| tape.leaf_from(input.shape, &input.data).unwrap());
    let loss =
        in_chunks(&mut tape, [side(&v[..3]), side(&v[3..])], op(Divergence::SymmetricKl, None), Some(32)).unwrap();
    for gradient in tape.gradient(loss, &v).unwrap() {
        tape.give(gradient);
    }
    // Of six matrices that the three ops have four are there, for a sixteenth of the rows, and two more of the forward pass.
    let held = tape.finish().held_bytes();
    assert!(held < 4 * ROWS * CLASSES, "{held} bytes");
}
