//! The norm of all gradients, and the factor that bounds it.
//!
//! n = √(Σ g²) over all trainable parameters that a backward pass has touched. Gradients are multiplied by
//! max / (n + 1e-6) if n > max, and left alone otherwise (Pascanu, Mikolov and Bengio, "On the difficulty of training
//! recurrent neural networks", ICML 2013; constants of torch's `clip_grad_norm_`). No pass over the gradients is
//! spent on it: the factor goes into the scale of [`super::Optimizer::step`].

use std::ops::Range;

use super::pieces;
use crate::device::cpu::simd::simd_kernel;
use crate::device::{Cpu, Device};
use crate::error::{Error, Result};
use crate::tape::{Entry, Gradients, Params, Rows};

/// The L2 norm of the gradients of all touched, trainable parameters; NaN or infinite if one of them is.
///
/// Sums in f64, over pieces of fixed size, in a fixed order: the same bits with any number of threads.
///
/// # Errors
/// Those of the device.
pub fn grad_norm(device: &Device, params: &Params, gradients: &Gradients) -> Result<f64> {
    match device {
        Device::Cpu(cpu) => Ok(grad_norm_cpu(cpu, params, gradients)),
        Device::Cuda(cuda) => {
            let counts: Vec<bool> = params
                .ids()
                .zip(params.entries())
                .map(|(id, entry)| entry.trainable && gradients.touched(id))
                .collect();
            super::optimizer::cuda::norm(cuda, params.entries(), |index| counts[index], gradients.arena_on(cuda)?)
        }
    }
}

fn grad_norm_cpu(cpu: &Cpu, params: &Params, gradients: &Gradients) -> f64 {
    let entries = params.entries();
    let rows: Vec<Option<&Rows>> = params
        .ids()
        .zip(entries)
        .map(|(id, entry)| (entry.trainable && gradients.touched(id)).then(|| gradients.rows(id)))
        .collect();
    let data = gradients.arena();
    let mut sums = vec![0.0f64; pieces::count(data.len())];
    cpu.for_pieces([&mut sums], 1, |piece, [sum]| {
        let mut total = 0.0;
        for (index, part) in pieces::parts(entries, pieces::range(piece, data.len())) {
            let Some(rows) = rows[index] else { continue };
            let mut lanes = [0.0f64; LANES];
            for part in whole_lanes(rows, &entries[index], part) {
                add_squares(cpu.isa(), &data[part], &mut lanes);
            }
            total += lanes.iter().sum::<f64>();
        }
        sum.fill(total);
    });
    sums.iter().sum::<f64>().sqrt()
}

const LANES: usize = 16;

/// What of a part of an entry is not known to be zeros, in pieces that begin a multiple of [`LANES`] after the part's
/// beginning: the other squares are 0, and adding them to their lanes would change nothing.
fn whole_lanes(rows: &Rows, entry: &Entry, part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let local = part.start - entry.range.start..part.end - entry.range.start;
    let mut held = rows.cut(local, entry.shape.width()).filter(|(_, holds)| *holds).map(move |(held, _)| {
        let start = held.start + entry.range.start - part.start;
        let end = held.end + entry.range.start - part.start;
        part.start + start / LANES * LANES..part.end.min(part.start + end.next_multiple_of(LANES))
    });
    let mut next = held.next();
    std::iter::from_fn(move || {
        let mut range = next.take()?;
        for following in held.by_ref() {
            if following.start > range.end {
                next = Some(following);
                break;
            }
            range.end = following.end;
        }
        Some(range)
    })
}

simd_kernel! {
    /// lanes += values² in f64, value i in lane i mod 16.
    fn add_squares(values: &[f32], lanes: &mut [f64; LANES]) {
        let mut sums = *lanes;
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, value) in sums.iter_mut().zip(chunk) {
                *lane += *value as f64 * *value as f64;
            }
        }
        for (lane, value) in sums.iter_mut().zip(rest) {
            *lane += *value as f64 * *value as f64;
        }
        *lanes = sums;
    }
}

/// What gradients of this norm are multiplied by, to be no longer than `max_norm`. A `max_norm` of 0 (or less) means no
/// clipping.
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    if max_norm > 0.0 && norm > max_norm { (max_norm / (norm + 1e-6)) as f32 } else { 1.0 }
}

/// # Errors
/// [`Error::NonFinite`] if the norm of the gradients of update `update` is NaN or infinite.
pub fn check_norm(norm: f64, update: u64) -> Result<()> {
    if norm.is_finite() {
        return Ok(());
    }
    let what = format!("the gradient norm of update {update} ({norm})");
    let hint = "lower --learning-rate, or lengthen --warmup; no parameter was changed by this update";
    Err(Error::NonFinite { what, hint: hint.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;
    use crate::tape::gradcheck::{cpu_devices, devices};

    /// Entries of these lengths with touched, random gradients.
    fn sample(lens: &[usize]) -> (Params, Gradients) {
        let mut params = Params::default();
        let ids: Vec<_> = (0..lens.len()).map(|i| params.add(&format!("entry{i}"), [lens[i]]).unwrap()).collect();
        let mut gradients = Gradients::new(&params);
        gradients.zero_untouched(&params).unwrap();
        for (seed, id) in ids.into_iter().enumerate() {
            let stream = Stream { seed: seed as u64, step: 0, instance: 0 };
            let data = gradients.get_mut(&params, id).unwrap();
            data.iter_mut().enumerate().for_each(|(i, g)| *g = stream.normal(i) as f32);
        }
        (params, gradients)
    }

    #[test]
    fn the_norm_is_that_of_f64_and_the_same_with_any_number_of_threads() {
        let (params, gradients) = sample(&[5, 100_000, 0, 33, 1 << 15]);
        let entries = params.entries().iter();
        let all = entries.flat_map(|entry| &gradients.arena()[entry.range.clone()]);
        let expected = all.map(|g| (*g as f64).powi(2)).sum::<f64>().sqrt();
        let norms: Vec<f64> = devices().iter().map(|device| grad_norm(device, &params, &gradients).unwrap()).collect();
        assert!(norms.iter().all(|norm| (norm - expected).abs() < 1e-12 * expected), "{norms:?}");
        let cpu = &norms[..cpu_devices().len()];
        assert!(cpu.iter().all(|norm| norm.to_bits() == norms[0].to_bits()), "{norms:?}");
    }

    #[test]
    fn frozen_and_untouched_entries_do_not_count() {
        let (mut params, gradients) = sample(&[40, 7]);
        let device = Device::cpu(1).unwrap();
        let ids: Vec<_> = params.ids().collect();
        params.set_trainable(ids[0], false);
        let expected = gradients.get(&params, ids[1]).unwrap().iter().map(|g| (*g as f64).powi(2)).sum::<f64>().sqrt();
        assert!((grad_norm(&device, &params, &gradients).unwrap() - expected).abs() < 1e-14);
        let mut cleared = gradients.clone();
        cleared.clear();
        assert_eq!(grad_norm(&device, &params, &cleared).unwrap(), 0.0);
    }

    #[test]
    fn large_gradients_do_not_overflow_and_those_that_are_not_finite_show() {
        let (params, mut gradients) = sample(&[3]);
        let device = Device::cpu(1).unwrap();
        let id = params.ids().next().unwrap();
        gradients.get_mut(&params, id).unwrap().copy_from_slice(&[3e30, 0.0, 4e30]);
        let norm = grad_norm(&device, &params, &gradients).unwrap();
        assert!((norm / 5e30 - 1.0).abs() < 1e-6, "{norm}");
        assert!(check_norm(norm, 0).is_ok());
        for wrong in [f32::NAN, f32::INFINITY] {
            gradients.get_mut(&params, id).unwrap()[1] = wrong;
            let error = check_norm(grad_norm(&device, &params, &gradients).unwrap(), 7).unwrap_err();
            assert!(error.to_string().contains("update 7"), "{error}");
        }
    }

    #[test]
    fn no_maximum_means_no_clipping() {
        assert_eq!(clip_factor(1e9, 0.0), 1.0);
        assert_eq!(clip_factor(1.0, 1.0), 1.0);
        assert_eq!(clip_factor(4.0, 1.0), (1.0 / 4.000001) as f32);
    }
}
