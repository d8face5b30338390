//! One check for all ops: forward against an f64 reference, gradients against its central differences.

use super::{Gradients, Params, Random, Tape, TapeMemory, Var};
use crate::device::{Cpu, Device, Dtype, Isa, Precision};
use crate::error::Result;
use crate::rng::Stream;
use crate::tensor::Shape;

/// An input of the op under test.
pub struct Input {
    /// Its shape.
    pub shape: Shape,
    /// Its elements.
    pub data: Vec<f32>,
    /// Whether its gradient is checked.
    pub differentiable: bool,
}

/// Normal numbers with deviation 1.
pub fn random(shape: impl Into<Shape>, seed: u64) -> Input {
    random_with(shape, seed, 1.0)
}

/// Normal numbers with this deviation.
pub fn random_with(shape: impl Into<Shape>, seed: u64, deviation: f64) -> Input {
    let shape = shape.into();
    let stream = Stream { seed, step: 0, instance: 0 };
    Input {
        shape,
        data: (0..shape.len()).map(|i| (deviation * stream.normal(i)) as f32).collect(),
        differentiable: true,
    }
}

/// Devices to test on, in f32: every instruction set of this machine, one thread and three (in f32 the last one is no
/// other than the one before it), and a CUDA device.
pub fn devices() -> Vec<Device> {
    let mut devices = cpu_devices();
    #[cfg(all(feature = "cuda", feature = "cli"))]
    devices.push(crate::device::cuda::for_tests::device());
    devices
}

/// Those of them that are CPUs.
pub fn cpu_devices() -> Vec<Device> {
    let isas = Isa::usable().filter(|isa| *isa <= Isa::Avx512);
    isas.flat_map(|isa| [1, 3].map(|threads| Device::Cpu(Cpu::new(threads, isa).unwrap()))).collect()
}

/// The same in bf16.
pub fn bf16_devices() -> Vec<Device> {
    let mut devices = cpu_bf16_devices();
    #[cfg(all(feature = "cuda", feature = "cli"))]
    devices.push(crate::device::cuda::for_tests::device().with_precision(Precision::Bf16));
    devices
}

/// CPUs in bf16, with every instruction set: where it has no instructions for it operands are rounded all the same.
pub fn cpu_bf16_devices() -> Vec<Device> {
    let with = |threads, isa| Device::Cpu(Cpu::new(threads, isa).unwrap()).with_precision(Precision::Bf16);
    Isa::usable().flat_map(|isa| [1, 3].map(|threads| with(threads, isa))).collect()
}

/// CPUs in int8, for inference.
pub fn int8_devices() -> Vec<Device> {
    cpu_bf16_devices().iter().map(|device| device.with_precision(Precision::Int8)).collect()
}

/// Relative error in L2 of a row whose largest number is `peak` times its root mean square, quantised in int8: errors are
/// spread evenly over ± half a step of peak / 127.
pub fn int8_error(peak: f64) -> f64 {
    peak / 127.0 / 12f64.sqrt()
}

/// The output of an op on a tape that does not record.
pub fn infer_on(device: &Device, inputs: &[Input], run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>) -> Vec<f32> {
    let params = Params::default();
    let mut tape = Tape::inference(&params, device, TapeMemory::default());
    let vars: Vec<Var> = inputs.iter().map(|input| tape.leaf_from(input.shape, &input.data).unwrap()).collect();
    let output = run(&mut tape, &vars).unwrap();
    tape.view(output).unwrap().data.to_vec()
}

/// Checks an op in int8: the output against the reference, within `tolerance` in relative L2; the same bits on all devices;
/// rows of `out` numbers have the bits that they have alone; nearly no number is that of f32; a row of x with a NaN or an
/// infinity makes its own row NaN, and no other.
pub fn check_int8(
    inputs: &[Input],
    out: usize,
    tolerance: f64,
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let wide: Vec<Vec<f64>> = inputs.iter().map(|input| input.data.iter().map(|x| *x as f64).collect()).collect();
    let expected = reference(&wide);
    let width = inputs[0].shape.width();
    let with_x = |data: Vec<f32>| -> Vec<Input> {
        let x = Input { shape: [data.len() / width, width].into(), data, differentiable: false };
        let others = inputs[1..].iter().map(|input| Input { data: input.data.clone(), ..*input });
        std::iter::once(x).chain(others).collect()
    };
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let mut first: Option<Vec<u32>> = None;
    for device in int8_devices() {
        let whole = infer_on(&device, inputs, run);
        assert_near(&format!("{device:?}"), &whole, &expected, tolerance, 0.0);
        assert_eq!(first.get_or_insert_with(|| bits(&whole)), &bits(&whole), "{device:?}: bits");
        let exact = infer_on(&device.with_precision(Precision::F32), inputs, run);
        let same = whole.iter().zip(&exact).filter(|(a, b)| a == b).count();
        assert!(10 * same <= whole.len(), "{device:?}: {same} of {} numbers are those of f32", whole.len());
        let rows = inputs[0].shape.rows();
        for row in [0, rows / 2, rows - 1] {
            let mut x = inputs[0].data.clone();
            let alone = infer_on(&device, &with_x(x[row * width..(row + 1) * width].to_vec()), run);
            assert_eq!(bits(&alone), bits(&whole[row * out..(row + 1) * out]), "{device:?}: row {row} alone");
            x[row * width + width / 2] = if row == 0 { f32::NAN } else { f32::INFINITY };
            let spoilt = infer_on(&device, &with_x(x), run);
            for (i, (spoilt, whole)) in spoilt.chunks(out).zip(whole.chunks(out)).enumerate() {
                match i == row {
                    true => assert!(spoilt.iter().all(|y| y.is_nan()), "{device:?}: row {row} {spoilt:?}"),
                    false => assert_eq!(bits(spoilt), bits(whole), "{device:?}: row {i} beside {row}"),
                }
            }
        }
    }
}

/// norm(a − b) ≤ tolerance · norm(b) + floor.
pub fn assert_near(what: &str, got: &[f32], expected: &[f64], tolerance: f64, floor: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let error: f64 = got.iter().zip(expected).map(|(g, e)| (*g as f64 - e).powi(2)).sum::<f64>().sqrt();
    let size: f64 = expected.iter().map(|e| e * e).sum::<f64>().sqrt();
    assert!(
        error <= tolerance * size + floor,
        "{what}: error {error:e} of {size:e}, allowed {:e}\n got {got:?}\n expected {expected:?}",
        tolerance * size + floor
    );
}

/// Relative error that f32 kernels may have against f64, for sums of up to a few hundred terms.
pub const TOLERANCE: f64 = 1e-5;

/// What an op should give, by its f64 reference.
struct Expected {
    output: Vec<f64>,
    /// R of the loss Σ R · output.
    upstream: Vec<f32>,
    /// Of each input, by central differences (step 1e-5: their own error is about 1e-10); empty where it is not wanted.
    gradients: Vec<Vec<f64>>,
}

impl Expected {
    fn new(inputs: &[Input], reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>) -> Expected {
        let wide: Vec<Vec<f64>> = inputs.iter().map(|input| input.data.iter().map(|x| *x as f64).collect()).collect();
        let output = reference(&wide);
        let stream = Stream { seed: 99, step: 1, instance: 0 };
        let upstream: Vec<f32> = (0..output.len()).map(|i| to_bf16(stream.normal(i) as f32)).collect();
        let loss = |values: &[Vec<f64>]| -> f64 {
            reference(values).iter().zip(&upstream).map(|(value, weight)| value * *weight as f64).sum()
        };
        let mut gradients = Vec::new();
        let mut moved = wide.clone();
        for (position, input) in inputs.iter().enumerate() {
            let mut gradient = vec![0.0; if input.differentiable { input.data.len() } else { 0 }];
            for (i, slope) in gradient.iter_mut().enumerate() {
                let h = 1e-5;
                moved[position][i] = wide[position][i] + h;
                let above = loss(&moved);
                moved[position][i] = wide[position][i] - h;
                let below = loss(&moved);
                moved[position][i] = wide[position][i];
                *slope = (above - below) / (2.0 * h);
            }
            gradients.push(gradient);
        }
        Expected { output, upstream, gradients }
    }

    /// The norm of the largest gradient.
    fn largest(&self) -> f64 {
        self.gradients.iter().map(|g| g.iter().map(|x| x * x).sum::<f64>().sqrt()).fold(0.0, f64::max)
    }
}

/// The output of an op on a device, and the gradients of those of its inputs that have one, in order.
pub fn run_on(
    device: &Device,
    inputs: &[Input],
    random: Option<Random>,
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    upstream: &[f32],
) -> Vec<Vec<f32>> {
    let params = Params::default();
    let mut tape = Tape::recording(&params, device, TapeMemory::default(), random);
    tape.check_slots(true);
    let vars: Vec<Var> = inputs.iter().map(|input| tape.leaf_from(input.shape, &input.data).unwrap()).collect();
    let output = run(&mut tape, &vars).unwrap();
    let mut all = vec![tape.view(output).unwrap().data.to_vec()];
    let leaves: Vec<Var> =
        vars.iter().zip(inputs).filter(|(_, input)| input.differentiable).map(|(var, _)| *var).collect();
    let gradients = tape.backward_from(&[(output, upstream)], None, &leaves).unwrap();
    all.extend(gradients.iter().map(|gradient| gradient.data().to_vec()));
    all
}

/// Checks an op: `run` builds it on a tape, `reference` is the same function in f64.
///
/// On every device: the output against the reference; d(Σ R · output)/d(input) for random R against central
/// differences of the reference; the same gradients through the parameter arena; a second backward pass adds exactly
/// the same again; one thread and three give the same bits.
pub fn check(
    inputs: &[Input],
    random: Option<Random>,
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    check_wide(inputs, random, run, reference);
    check_narrow(NARROW, inputs, random, run, reference);
}

/// [`check`] in f32 alone, for what rounding to 16 bits would drown.
pub fn check_wide(
    inputs: &[Input],
    random: Option<Random>,
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    check_on(&devices(), [TOLERANCE, 2.0 * TOLERANCE], inputs, random, run, reference);
}

/// Roundings to 16 bits on the way to the output and to the gradient that is farthest away, if inputs and upstream gradient
/// need none: what an op keeps for its backward pass, an intermediate result or two, and what comes out.
const NARROW: [u32; 2] = [4, 8];

/// [`check`] on a CUDA device that stores numbers in 16 bits, in both ways, or multiplies in tf32. Inputs and upstream gradient are rounded
/// beforehand: they add no error. n other roundings do, each of at most u of what is rounded; they are independent, and
/// make up to u · √n of what comes out, as long as nothing cancels.
pub fn check_narrow(
    roundings: [u32; 2],
    inputs: &[Input],
    random: Option<Random>,
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let rounded = rounded(inputs);
    for device in narrow_devices() {
        let tolerances = roundings.map(|n| unit(&device) * (n as f64).sqrt());
        check_on(&[device], tolerances, &rounded, random, run, reference);
    }
}

/// The largest relative error of one rounding of what a CUDA device multiplies.
pub fn unit(device: &Device) -> f64 {
    // tf32 has as many digits as f16.
    if device.precision() == Precision::Tf32 { Dtype::F16 } else { device.dtype() }.rounding()
}

/// The inputs in numbers that bf16 has. Their last bit tells the first input from others: no sum of two is 0, where some
/// functions have a kink.
pub fn rounded(inputs: &[Input]) -> Vec<Input> {
    let rounded = inputs.iter().enumerate().map(|(i, input)| {
        let bits = |x: &f32| to_bf16(*x).to_bits() & !0x1_0000 | u32::from(i == 0) << 16;
        Input { data: input.data.iter().map(|x| f32::from_bits(bits(x))).collect(), ..*input }
    });
    rounded.collect()
}

/// A CUDA device in bf16, f16 and tf32.
pub fn narrow_devices() -> Vec<Device> {
    #[cfg(all(feature = "cuda", feature = "cli"))]
    return [Precision::Bf16, Precision::F16, Precision::Tf32]
        .map(|precision| crate::device::cuda::for_tests::device().with_precision(precision))
        .to_vec();
    #[cfg(not(all(feature = "cuda", feature = "cli")))]
    Vec::new()
}

/// The number without the lower half of its bits.
fn to_bf16(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & 0xffff_0000)
}

/// Unit roundoff of bf16, which has 8 significant bits.
pub const BF16: f64 = 1.0 / 512.0;

/// [`check`] on CPUs in bf16. `roundings`: how many operands are rounded on the way to the output, and to the gradient that is
/// farthest away.
///
/// The estimate: rounding an operand A adds an error whose relative L2 norm is at most u / √3, u = 2⁻⁹ (errors are spread
/// evenly over ± half a unit in the last place, which is u of the smallest number that has this unit). Multiplied with a
/// random matrix B it stays that in relation to A · B, as it would in relation to A. Roundings are independent: n of
/// them make u · √(n / 3). Twice that is allowed, for norms of a few dozen numbers that are not quite their mean. Sums
/// are f32 and do not count.
pub fn check_bf16(
    inputs: &[Input],
    random: Option<Random>,
    roundings: [u32; 2],
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    check_bf16_on(&cpu_bf16_devices(), inputs, random, roundings, run, reference);
}

/// [`check_bf16`] on some of the devices.
pub fn check_bf16_on(
    devices: &[Device],
    inputs: &[Input],
    random: Option<Random>,
    roundings: [u32; 2],
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let tolerances = roundings.map(|n| 2.0 * BF16 * (n as f64 / 3.0).sqrt());
    let len = check_on(devices, tolerances, inputs, random, run, reference);
    // It is bf16 that has been checked: hardly a number of the output is what f32 makes of it (but zeros of dropout).
    let zeros = vec![0.0; len];
    for device in devices {
        let [rounded, exact] =
            [device, &device.with_precision(Precision::F32)].map(|d| run_on(d, inputs, random, run, &zeros).remove(0));
        let same = rounded.iter().zip(&exact).filter(|(a, b)| a == b && **a != 0.0).count();
        assert!(10 * same <= rounded.len(), "{device:?}: {same} of {} numbers are those of f32", rounded.len());
    }
}

/// Rows have the same bits alone and in any company, in bf16: output `[rows, …]` and gradient of input 0, `[rows, …]`.
pub fn check_rows_alone_in_bf16(inputs: &[Input], out: usize, run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>) {
    let (rows, width) = (inputs[0].shape.rows(), inputs[0].shape.width());
    let upstream = random([rows, out], 98).data;
    for device in bf16_devices() {
        let whole = run_on(&device, inputs, None, run, &upstream);
        for range in [0..1, 1..rows, rows / 2..rows / 2 + 3, 0..rows - 1] {
            let part = |data: &[f32], width: usize| data[range.start * width..range.end * width].to_vec();
            let x =
                Input { shape: [range.len(), width].into(), data: part(&inputs[0].data, width), differentiable: true };
            let others = inputs[1..].iter().map(|input| Input { data: input.data.clone(), ..*input });
            let some: Vec<Input> = std::iter::once(x).chain(others).collect();
            let alone = run_on(&device, &some, None, run, &part(&upstream, out));
            assert_eq!(alone[0], part(&whole[0], out), "{device:?}: output of rows {range:?}");
            assert_eq!(alone[1], part(&whole[1], width), "{device:?}: gradient of rows {range:?}");
        }
    }
}

/// Returns the length of the output.
fn check_on(
    devices: &[Device],
    [output_tolerance, tolerance]: [f64; 2],
    inputs: &[Input],
    random: Option<Random>,
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) -> usize {
    let expected = Expected::new(inputs, reference);
    let floor = 1e-6 * expected.largest() + 1e-7;
    let mut bits: Vec<(String, Vec<Vec<f32>>)> = Vec::new();
    for device in devices {
        let name = format!("{device:?}");
        let all = run_on(device, inputs, random, run, &expected.upstream);
        assert_near(&format!("{name} output"), &all[0], &expected.output, output_tolerance, 1e-6);
        let wanted = expected.gradients.iter().enumerate().filter(|(position, _)| inputs[*position].differentiable);
        for ((position, gradient), got) in wanted.zip(&all[1..]) {
            assert_near(&format!("{name} gradient of input {position}"), got, gradient, tolerance, floor);
        }
        check_as_parameters(inputs, random, run, device, &expected.upstream, &all[1..]);
        bits.push((name, all));
    }
    // One thread and three; a CUDA device is alone.
    for pair in bits.chunks_exact(2) {
        assert_eq!(pair[0].1, pair[1].1, "{} and {} differ", pair[0].0, pair[1].0);
    }
    expected.output.len()
}

/// The same op with its inputs in the parameter arena: the same gradients, and exactly twice them after a second pass.
fn check_as_parameters(
    inputs: &[Input],
    random: Option<Random>,
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    device: &Device,
    upstream: &[f32],
    expected: &[Vec<f32>],
) {
    let mut params = Params::default();
    let mut ids = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let id = params.add(&format!("input{i}"), input.shape).unwrap();
        params.get_mut(id).copy_from_slice(&input.data);
        params.set_trainable(id, input.differentiable);
        ids.push(id);
    }
    let mut gradients = Gradients::new(&params);
    // A gradient that is 0 but for rounding (that of a key's bias) is off by a unit in the last place of what cancels in
    // it, which is of the size of the others.
    let norm = |values: &Vec<f32>| values.iter().map(|x| (*x as f64).powi(2)).sum::<f64>().sqrt();
    let floor = 1e-9 + 1e-7 * expected.iter().map(norm).fold(0.0, f64::max);
    let vars: Vec<Var> = ids.iter().map(|id| Var::Param(*id)).collect();
    let mut memory = TapeMemory::default();
    for pass in 1..=2 {
        let mut tape = Tape::recording(&params, device, memory, random);
        tape.check_slots(true);
        let output = run(&mut tape, &vars).unwrap();
        tape.backward_from(&[(output, upstream)], Some(&mut gradients), &[]).unwrap();
        memory = tape.finish();
        let trained = ids.iter().filter(|id| params.entry(**id).trainable);
        for (id, expected) in trained.zip(expected) {
            let wide: Vec<f64> = expected.iter().map(|g| pass as f64 * *g as f64).collect();
            let got = gradients.get(&params, *id).unwrap();
            assert_near(&format!("{device:?} parameter, pass {pass}"), got, &wide, 1e-6, floor);
        }
    }
    gradients.check(&params, |_| true).unwrap();
}
