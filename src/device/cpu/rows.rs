//! Kernels that go row by row: the rows are cut into tasks of a fixed size, and a task gets its part of each output.

use super::{Cpu, Shared, vector};

/// Rows in one task. Fixed, because per-task partial sums are added up in the order of the tasks.
pub const ROWS_PER_TASK: usize = 32;

impl Cpu {
    /// Cuts `rows` into tasks of [`ROWS_PER_TASK`] and calls `work(range, parts)` for each, where `parts[i]` is the
    /// range's part of `outputs[i]`, a slice with so many floats a row. Does nothing if an output is too small.
    pub fn for_rows<const N: usize>(
        &self,
        rows: usize,
        outputs: [(&mut [f32], usize); N],
        work: impl Fn(std::ops::Range<usize>, [&mut [f32]; N]) + Send + Sync,
    ) {
        self.for_row_tasks(rows, outputs, [], |range, parts, []| work(range, parts));
    }

    /// The same with further outputs that have so many floats a *task*: partial sums, to be added up afterwards by
    /// [`Cpu::add_partials`].
    pub fn for_row_tasks<const N: usize, const M: usize>(
        &self,
        rows: usize,
        outputs: [(&mut [f32], usize); N],
        partials: [(&mut [f32], usize); M],
        work: impl Fn(std::ops::Range<usize>, [&mut [f32]; N], [&mut [f32]; M]) + Send + Sync,
    ) {
        let tasks = rows.div_ceil(ROWS_PER_TASK);
        let outputs = outputs.map(|(slice, width)| (Shared::new(slice), width));
        let partials = partials.map(|(slice, width)| (Shared::new(slice), width));
        self.parallel(tasks, |task| {
            let range = task * ROWS_PER_TASK..rows.min((task + 1) * ROWS_PER_TASK);
            // SAFETY: tasks have disjoint ranges of rows, and `slice` checks the bounds.
            let parts = outputs.map(|(slice, width)| unsafe { slice.slice(range.start * width, range.len() * width) });
            // SAFETY: one part a task.
            let sums = partials.map(|(slice, width)| unsafe { slice.slice(task * width, width) });
            work(range, parts, sums);
        });
    }

    /// Floats that partial sums of `width` numbers need for `rows` rows.
    pub fn partials_len(rows: usize, width: usize) -> usize {
        rows.div_ceil(ROWS_PER_TASK) * width
    }

    /// target (+)= the sum of the partial sums, in the order of the tasks.
    pub fn add_partials(&self, partials: &[f32], target: &mut [f32], accumulate: bool) {
        if !accumulate {
            target.fill(0.0);
        }
        if target.is_empty() {
            return;
        }
        for partial in partials.chunks_exact(target.len()) {
            for (target, value) in target.iter_mut().zip(partial) {
                *target += value;
            }
        }
    }

    /// target (+)= the sums of the columns of `data`, a matrix of `rows` rows.
    pub fn column_sums(&self, rows: usize, data: &[f32], target: &mut [f32], accumulate: bool) {
        let width = target.len();
        let mut partials = self.scratch(Self::partials_len(rows, width));
        self.for_row_tasks(rows, [], [(&mut partials, width)], |range, [], [sum]| {
            sum.fill(0.0);
            for row in range {
                vector::add(self.isa(), sum, &data[row * width..(row + 1) * width]);
            }
        });
        self.add_partials(&partials, target, accumulate);
    }

    /// Fills a large slice with zeros, in parallel.
    pub fn zero(&self, slice: &mut [f32]) {
        self.for_pieces([slice], 1 << 18, |_, [piece]| piece.fill(0.0));
    }

    /// Cuts slices of one length into pieces of `piece` elements and calls `work(offset, pieces)` for each. A slice that
    /// is empty has empty pieces.
    pub fn for_pieces<T: Send, const N: usize>(
        &self,
        slices: [&mut [T]; N],
        piece: usize,
        work: impl Fn(usize, [&mut [T]; N]) + Send + Sync,
    ) {
        let len = slices.iter().map(|slice| slice.len()).max().unwrap_or(0);
        let shared = slices.map(Shared::new);
        let piece = piece.max(1);
        self.parallel(len.div_ceil(piece), |task| {
            let start = task * piece;
            // SAFETY: pieces are disjoint, and `slice` checks the bounds.
            work(start, shared.each_ref().map(|shared| unsafe { shared.slice(start, piece.min(len - start)) }));
        });
    }
}
