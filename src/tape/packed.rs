//! Weights as the matrix product reads them, packed once for as long as they stay the same.

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

/// The arena's version that was packed, and the panels.
type Kept = (u64, Arc<Panels>);

/// The packed weights of an arena. A clone begins empty.
#[derive(Default)]
pub(super) struct PackedWeights {
    /// By position of the entry and side.
    kept: Mutex<HashMap<(usize, Side), Kept>>,
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
        let mut old = None;
        // The lock is not held while packing: a thread that waits for others in there may run another tape's work.
        if let Ok(mut kept) = self.kept.lock()
            && let Some((packed, panels)) = kept.get(&key)
        {
            if *packed == version && panels.serves(cpu) {
                return panels.clone();
            }
            old = kept.remove(&key);
        }
        let mut panels = old.and_then(|(_, panels)| Arc::try_unwrap(panels).ok()).unwrap_or_default();
        pack(cpu, side, weight, (out, width), &mut panels);
        let panels = Arc::new(panels);
        if let Ok(mut kept) = self.kept.lock() {
            kept.insert(key, (version, panels.clone()));
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
