//! Gather and scatter-add on the CPU.

use crate::device::Cpu;
use crate::device::cpu::{Shared, vector};
use crate::tape::{Rows, Slot};

/// y[t] = table[ids[t]].
pub fn gather(cpu: &Cpu, width: usize, table: &[f32], ids: &[u32], y: &mut [f32]) {
    cpu.for_rows(ids.len(), [(y, width)], |range, [y]| {
        for (t, y) in range.zip(y.chunks_exact_mut(width.max(1))) {
            let row = ids[t] as usize * width;
            y.copy_from_slice(&table[row..row + width]);
        }
    });
}

/// Columns that one task of the scatter takes.
const STRIPE: usize = 64;

/// table[ids[t]] += rows[t]. A task owns a stripe of columns and goes through all tokens in order, so repeated ids are
/// added up in one order whatever the number of threads. `held`: the rows outside of which the table holds zeros.
pub fn scatter_add(cpu: &Cpu, width: usize, ids: &[u32], rows: &[f32], table: Slot<'_>, held: &mut Rows) {
    if !table.accumulate {
        match held.is_all() {
            true => cpu.zero(table.data),
            false => {
                let old = held.cut(0..table.data.len(), width).filter(|(_, holds)| *holds);
                old.for_each(|(part, _)| table.data[part].fill(0.0));
            }
        }
        held.clear(table.data.len() / width.max(1));
    }
    ids.iter().for_each(|id| held.mark(*id as usize));
    let shared = Shared::new(table.data);
    cpu.parallel(width.div_ceil(STRIPE), |stripe| {
        let first = stripe * STRIPE;
        let count = STRIPE.min(width - first);
        for (t, id) in ids.iter().enumerate() {
            // SAFETY: stripes are disjoint columns, and each is touched by one task.
            let target = unsafe { shared.slice(*id as usize * width + first, count) };
            vector::add(cpu.isa(), target, &rows[t * width + first..][..count]);
        }
    });
}
