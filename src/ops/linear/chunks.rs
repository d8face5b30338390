//! Linear layers whose results are too large to be kept: chunks of rows, one at a time, are made, used and forgotten, by the
//! losses that are computed from them.

use std::ops::Range;

use super::{cpu, cuda};
use crate::device::cpu::Panels;
use crate::device::cuda::Span;
use crate::device::{Cpu, Cuda, Device};
use crate::error::{Error, Result};
use crate::ops::check_quantised_width;
use crate::tape::{Slot, View};

/// Rows of a chunk at least, unless there are fewer in all.
const LEAST: usize = 1024;

/// Rows of a chunk, by shapes alone, as the order of sums over rows depends on it.
///
/// A chunk adds to dW, f32, once: 8 bytes a weight are read and written, while the four products of a row take 8 operations
/// a weight. At 3 TB/s and 600 TFLOP/s the additions take as long as 200 rows: a fifth of the time of 1024 rows. The numbers
/// of a chunk of as many rows as x is wide take, in 16 bits, half as much memory as dW, so wide layers get more rows.
/// Chunks are about equally large, and of whole tiles.
pub fn rows_of_chunk(rows: usize, width: usize) -> usize {
    let most = width.max(LEAST);
    let count = rows.div_ceil(most).max(1);
    rows.div_ceil(count).next_multiple_of(128)
}

/// The chunks of so many rows; an empty one if there are no rows, so that gradients become zeros.
pub fn chunks(rows: usize, each: usize) -> impl Iterator<Item = Range<usize>> {
    let each = each.max(1);
    (0..rows.div_ceil(each).max(1)).map(move |i| (i * each).min(rows)..rows.min((i + 1) * each))
}

/// A layer: x `[rows, width]`, W `[out, width]`, b `[out]` or absent.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    x: View<'a>,
    weight: View<'a>,
    bias: Option<View<'a>>,
    pub rows: usize,
    pub width: usize,
    pub out: usize,
}

/// Where the gradients of a layer go: of x, W, b.
pub type Slots<'a> = [Option<Slot<'a>>; 3];

impl<'a> Layer<'a> {
    /// # Errors
    /// Widths that do not fit together; in int8, more inputs than an i32 can sum up.
    pub fn new(
        op: &'static str,
        device: &Device,
        x: View<'a>,
        weight: View<'a>,
        bias: Option<View<'a>>,
    ) -> Result<Layer<'a>> {
        let ((rows, width), (out, expected)) = (x.matrix(), weight.matrix());
        if width != expected || bias.is_some_and(|bias| bias.shape.len() != out) {
            let message =
                format!("x {:?} and weight {:?} (and a bias of length {out}) do not fit", x.shape, weight.shape);
            return Err(Error::shape(op, message));
        }
        check_quantised_width(op, device, width)?;
        Ok(Layer { x, weight, bias, rows, width, out })
    }

    /// y of a chunk.
    pub fn forward(&self, cpu: &Cpu, panels: &Panels, rows: &Range<usize>, y: &mut [f32]) {
        let x = &self.x.data[rows.start * self.width..rows.end * self.width];
        cpu::forward(cpu, rows.len(), x, panels, self.bias.map(|bias| bias.data), y);
    }

    /// The gradients of a chunk, from that of its y: dW and db are those of the chunks before it and this one. `panels` for
    /// dx, if it is wanted.
    pub fn backward(
        &self,
        cpu: &Cpu,
        panels: Option<&Panels>,
        rows: &Range<usize>,
        upstream: &[f32],
        [dx, dw, db]: &mut Slots<'_>,
    ) {
        let part = rows.start * self.width..rows.end * self.width;
        if let (Some(slot), Some(panels)) = (dx, panels) {
            let slot = Slot::host(&mut slot.data[part.clone()], slot.accumulate);
            cpu::input_gradient(cpu, rows.len(), upstream, panels, slot);
        }
        if let Some(slot) = dw {
            let to = Slot::host(&mut *slot.data, slot.accumulate);
            cpu::weight_gradient(cpu, rows.len(), self.width, self.out, upstream, &self.x.data[part], to);
            slot.accumulate = true;
        }
        if let Some(slot) = db {
            cpu.column_sums(rows.len(), upstream, slot.data, slot.accumulate);
            slot.accumulate = true;
        }
    }

    fn sizes(&self, rows: &Range<usize>) -> cuda::Sizes {
        cuda::Sizes { rows: rows.len(), width: self.width, out: self.out }
    }

    fn x_on_cuda(&self, rows: &Range<usize>) -> Span<'a> {
        self.x.span.part(rows.start * self.width..rows.end * self.width)
    }

    /// [`Layer::forward`] on a CUDA device.
    pub fn forward_on(&self, cuda: &Cuda, rows: &Range<usize>, y: Span<'_>) -> Result<()> {
        let bias = self.bias.map(|bias| bias.span);
        let to = (y, None, cuda::IDENTITY);
        cuda::forward(cuda, self.sizes(rows), self.x_on_cuda(rows), &[self.weight.span], &[bias], to)
    }

    /// [`Layer::backward`] on a CUDA device.
    pub fn backward_on(
        &self,
        cuda: &Cuda,
        rows: &Range<usize>,
        upstream: Span<'_>,
        [dx, dw, db]: &mut Slots<'_>,
    ) -> Result<()> {
        let sizes = self.sizes(rows);
        if let Some(slot) = dx {
            let to = slot.span.part(rows.start * self.width..rows.end * self.width);
            cuda::input_gradient(cuda, sizes, upstream, &[self.weight.span], (to, slot.accumulate), None)?;
        }
        cuda::parameter_gradients(cuda, sizes, upstream, self.x_on_cuda(rows), &[[dw.as_ref(), db.as_ref()]])?;
        [dw, db].into_iter().flatten().for_each(|slot| slot.accumulate = true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_rows_once_and_are_about_equally_large() {
        for (rows, width) in [(0, 8), (1, 8), (1024, 768), (1025, 768), (8_192, 384), (5_000, 4_096)] {
            let each = rows_of_chunk(rows, width);
            let all: Vec<Range<usize>> = chunks(rows, each).collect();
            assert!(all.first().is_some_and(|chunk| chunk.start == 0) && all.last().is_some_and(|c| c.end == rows));
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].len() == each), "{all:?}");
            assert!(each <= width.max(LEAST).next_multiple_of(128) && each.is_multiple_of(128), "{rows} {width}");
            assert_eq!(all.len(), rows.div_ceil(width.max(LEAST)).max(1), "{rows} {width}");
        }
    }
}
