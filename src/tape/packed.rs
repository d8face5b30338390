//! Weights as the matrix product reads them, packed once for as long as they stay the same.
//!
//! From the second time on: a process that answers one question packs every weight once, and so does a training step, after
//! which the weights are others. Memory to keep that in would cost more than the packing, which goes through a few buffers
//! that stay in the cache. What was asked for twice between two updates (accumulated batches, evaluation) is kept, and kept
//! at once after the next update.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::device::cpu::{Cpu, Matrix, Panels};

/// On which side of a linear layer y = x · Wᵀ a product stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// x · Wᵀ, forward.
    Output,
    /// dy · W, backward.
    Input,
}

/// What is known of a weight that was asked for.
enum Kept {
    /// It was asked for once in this version of the arena.
    Seen(u64),
    /// The arena's version that was packed, the panels, and whether they were of use again.
    Packed(u64, Arc<Panels>, bool),
}

#[derive(Default)]
struct Store {
    /// By position of the entry and side.
    kept: HashMap<(usize, Side), Kept>,
    /// What weights that are not kept were packed into: used again when nobody holds it.
    passing: Vec<Arc<Panels>>,
}

/// The packed weights of an arena. A clone begins empty.
#[derive(Default)]
pub(super) struct PackedWeights {
    store: Mutex<Store>,
}

impl Clone for PackedWeights {
    fn clone(&self) -> PackedWeights {
        PackedWeights::default()
    }
}

impl fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackedWeights")
    }
}

impl PackedWeights {
    /// The panels of a weight `[out, width]` in an arena of this version.
    pub(super) fn get(
        &self,
        cpu: &Cpu,
        version: u64,
        entry: usize,
        side: Side,
        weight: &[f32],
        (out, width): (usize, usize),
    ) -> Arc<Panels> {
        let key = (entry, side);
        let (mut old, mut keep) = (None, None);
        // The lock is not held while packing: a thread that waits for others in there may run another tape's work.
        if let Ok(mut store) = self.store.lock() {
            if let Some(Kept::Packed(packed, panels, again)) = store.kept.get_mut(&key)
                && *packed == version
                && panels.serves(cpu)
            {
                *again = true;
                return panels.clone();
            }
            match store.kept.remove(&key) {
                Some(Kept::Packed(_, panels, true)) => (old, keep) = (Some(panels), Some(false)),
                Some(Kept::Seen(seen)) if seen == version => {
                    keep = Some(true);
                    store.passing.clear();
                }
                _ => {
                    store.kept.insert(key, Kept::Seen(version));
                    // Of the same shape: another one's buffer would be allocated anew.
                    let shape = if side == Side::Output { (width, out) } else { (out, width) };
                    let fits = |panels: &Arc<Panels>| (panels.k(), panels.n()) == shape;
                    let free = store.passing.iter().position(|p| Arc::strong_count(p) == 1 && fits(p));
                    old = free.map(|index| store.passing.swap_remove(index));
                }
            }
        }
        let reused = old.and_then(|panels| Arc::try_unwrap(panels).ok());
        let mut panels = reused.unwrap_or_default();
        pack(cpu, side, weight, (out, width), &mut panels);
        let panels = Arc::new(panels);
        if let Ok(mut store) = self.store.lock() {
            match keep {
                Some(again) => drop(store.kept.insert(key, Kept::Packed(version, panels.clone(), again))),
                None => store.passing.push(panels.clone()),
            }
        }
        panels
    }
}

/// Packs a weight `[out, width]`.
pub(super) fn pack(cpu: &Cpu, side: Side, weight: &[f32], (out, width): (usize, usize), panels: &mut Panels) {
    let weight = Matrix::rows(weight, width);
    match side {
        Side::Output => cpu.pack(width, out, weight.transposed(), panels),
        Side::Input => cpu.pack(out, width, weight, panels),
    }
}

#[cfg(test)]
mod tests {
    use crate::device::{Device, Precision};
    use crate::ops::linear;
    use crate::tape::{ParamId, Params, Tape, Var};

    /// 1 · Wᵀ and the gradient of Σ y, W · 1, for a weight `[2, 3]`.
    fn products(params: &Params, id: ParamId, device: &Device) -> (Vec<f32>, Vec<f32>) {
        let mut tape = Tape::recording(params, device, Default::default(), None);
        let x = tape.leaf_from([1, 3], &[1.0; 3]).unwrap();
        let y = linear(&mut tape, x, Var::Param(id), None).unwrap();
        let gradient = tape.backward_from(&[(y, &[1.0; 2])], None, &[x]).unwrap();
        (tape.view(y).unwrap().data.to_vec(), gradient[0].data().to_vec())
    }

    #[test]
    fn a_weight_that_was_written_in_any_way_is_packed_again() {
        let mut params = Params::default();
        let id = params.add("weight", [2, 3]).unwrap();
        let device = Device::cpu(1).unwrap();
        let ways: [fn(&mut Params, ParamId) -> &mut [f32]; 3] = [
            |params, id| params.get_mut(id),
            |params, _| &mut params.arena_mut()[..6],
            |params, _| &mut params.arena_and_entries().0[..6],
        ];
        let expected = |w: f32| (vec![3.0 * w; 2], vec![2.0 * w; 3]);
        assert_eq!(products(&params, id, &device), expected(0.0));
        for (i, way) in ways.into_iter().enumerate() {
            let value = 1.0 + i as f32;
            way(&mut params, id).fill(value);
            for precision in [Precision::F32, Precision::Bf16, Precision::F32] {
                assert_eq!(products(&params, id, &device.with_precision(precision)), expected(value), "way {i}");
            }
            let int8 = device.with_precision(Precision::Int8);
            let mut tape = Tape::inference(&params, &int8, Default::default());
            let x = tape.leaf_from([1, 3], &[1.0; 3]).unwrap();
            let y = linear(&mut tape, x, Var::Param(id), None).unwrap();
            let near = |y: &f32| (y / (3.0 * value) - 1.0).abs() < 1e-6;
            assert!(tape.view(y).unwrap().data.iter().all(near), "way {i}");
            let mut clone = params.clone();
            clone.get_mut(id).fill(-1.0);
            assert_eq!(products(&clone, id, &device), expected(-1.0));
            assert_eq!(products(&params, id, &device), expected(value));
        }
    }
}
