//! The loop over tiles: one pass through (a chunk of) K for a block of C, on one thread.

use std::ops::Range;

use super::kernels::{Kernel, MOST_COLUMNS, MOST_ROWS, Rows, Target, Word, tile_of};
use super::{Isa, Write, pack};
use crate::device::cpu::Shared;

/// Where a product goes.
pub enum Output<'a> {
    /// Into C, row-major without gaps.
    Matrix(&'a mut [f32], Write),
    /// To a function that is called once for every tile of C, in no particular order and, if the product runs on several
    /// threads, from all of them: what comes after the product is done while its result is in the first-level cache.
    Tiles(&'a (dyn Fn(Tile<'_>) + Sync)),
}

/// A finished part of C, in a small buffer.
pub struct Tile<'a> {
    /// Its rows of C.
    pub rows: Range<usize>,
    /// Its columns of C.
    pub columns: Range<usize>,
    /// `[rows][stride]`; columns beyond its own hold nothing of meaning.
    pub values: &'a [f32],
    /// Distance of its rows.
    pub stride: usize,
    /// Rows of the tallest tile.
    pub(super) height: usize,
    /// How [`Tile::store_rows`] writes numbers.
    pub(super) word: Word,
    pub(super) isa: Isa,
}

impl Tile<'_> {
    /// Its rows: the number of each and its values.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let width = self.columns.len();
        self.rows.clone().zip(self.values.chunks(self.stride)).map(move |(row, values)| (row, &values[..width]))
    }

    /// Writes `values`, laid out as the tile's own, as rows of words: row i goes to row `first` + i of `target`, whose rows
    /// are `stride` words apart.
    ///
    /// # Safety
    /// Nobody else reads or writes these rows of `target` meanwhile, from the tile's first column to its last and what lies
    /// between two rows included: the tiles of these rows come from one thread.
    pub(crate) unsafe fn store_rows(&self, values: &[f32], first: usize, target: Shared<'_, f32>, stride: usize) {
        let numbers = self.word.numbers();
        let width = self.columns.len();
        let start = (first + self.rows.start) * stride + self.columns.start / numbers;
        let len = (self.rows.len().max(1) - 1) * stride + width.div_ceil(numbers);
        if width == self.stride {
            // SAFETY: the caller's promise; a tile begins at an even column. (Between its rows lie those of other tiles:
            // they are not touched.)
            let target = unsafe { target.slice(start, len) };
            return pack::tile_rows(self.isa, self.word, values, width, target, stride);
        }
        for (row, values) in self.rows.clone().zip(values.chunks(self.stride)) {
            let start = (first + row) * stride + self.columns.start / numbers;
            // SAFETY: as above.
            let target = unsafe { target.slice(start, width.div_ceil(numbers)) };
            pack::row(self.isa, self.word, &values[..width], target);
        }
    }

    /// Reads what [`Tile::store_rows`] has written into `values`, laid out as the tile's own. What is out of range stays.
    pub(crate) fn load_rows(&self, source: &[f32], first: usize, stride: usize, values: &mut [f32]) {
        let numbers = self.word.numbers();
        let width = self.columns.len();
        let start = (first + self.rows.start) * stride + self.columns.start / numbers;
        if width == self.stride {
            return pack::tile_numbers(self.isa, self.word, source.get(start..).unwrap_or(&[]), stride, values, width);
        }
        for (i, values) in values.chunks_mut(self.stride).enumerate() {
            let start = start + i * stride;
            if let Some(source) = source.get(start..start + width.div_ceil(numbers)) {
                pack::unpack_row(self.isa, self.word, source, &mut values[..width]);
            }
        }
    }

    /// Writes `values`, laid out as the tile's own, as the packed columns of a matrix with `rows` rows: the right-hand
    /// operand of [`Cpu::multiply_packed_columns`](crate::device::Cpu::multiply_packed_columns). Row i of C is row `first` +
    /// i of that matrix; `first` is even.
    ///
    /// # Safety
    /// As for [`Tile::store_rows`].
    pub(crate) unsafe fn store_right_columns(
        &self,
        values: &[f32],
        first: usize,
        target: Shared<'_, f32>,
        rows: usize,
    ) {
        let numbers = self.word.numbers();
        let start = self.columns.start * rows.div_ceil(numbers) + (first + self.rows.start) / numbers * self.stride;
        // SAFETY: the caller's promise; a tile begins at an even row.
        let target = unsafe { target.slice(start, self.rows.len().div_ceil(numbers) * self.stride) };
        pack::tile_columns(self.isa, self.word, values, self.stride, target);
        if self.columns.len() < self.stride {
            target.chunks_exact_mut(self.stride).for_each(|row| row[self.columns.len()..].fill(0.0));
        }
    }
}

impl Tile<'_> {
    /// The same as the left-hand operand.
    ///
    /// # Safety
    /// As for [`Tile::store_rows`].
    pub(crate) unsafe fn store_left_columns(&self, values: &[f32], first: usize, target: Shared<'_, f32>, rows: usize) {
        let (numbers, group) = (self.word.numbers(), self.height);
        let words = rows.div_ceil(numbers);
        let mut line = [0.0f32; MOST_COLUMNS];
        let line = &mut line[..self.stride];
        for (i, pair) in values.chunks(numbers * self.stride).enumerate() {
            let index = (first + self.rows.start) / numbers + i;
            pack::tile_columns(self.isa, self.word, pair, self.stride, line);
            let mut column = self.columns.start;
            let mut rest = &line[..self.columns.len()];
            // A group's columns may come from two tiles.
            while !rest.is_empty() {
                let (own, others) = rest.split_at(rest.len().min(group - column % group));
                // SAFETY: the caller's promise.
                let target =
                    unsafe { target.slice((column / group * words + index) * group + column % group, own.len()) };
                target.copy_from_slice(own);
                column += own.len();
                rest = others;
            }
        }
    }
}

/// [`Output`] as tasks share it.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// C, what becomes of it, and the distance of its rows.
    Matrix(Shared<'a, f32>, Write, usize),
    Tiles(&'a (dyn Fn(Tile<'_>) + Sync)),
}

/// What one pass multiplies.
pub(super) struct Pass<'a> {
    /// The rows of C; A's rows begin with the first of them.
    pub rows: Range<usize>,
    pub a: Rows,
    /// Words of K that are run through.
    pub words: usize,
    /// The panels of B, their distance, and where in a panel the pass begins.
    pub panels: Range<usize>,
    pub packed: &'a [f32],
    pub panel_stride: usize,
    pub panel_start: usize,
    /// Columns of C.
    pub n: usize,
    pub bias: Option<&'a [f32]>,
    /// Whether an earlier pass has been there.
    pub again: bool,
}

/// Runs a pass.
///
/// # Safety
/// `a` can be read for the rows, `packed` holds the panels, a matrix that is written holds the rows, and nobody else
/// touches these rows and columns of it; the processor has K's instruction set.
pub(super) unsafe fn run<K: Kernel>(isa: Isa, pass: &Pass<'_>, output: To<'_>) {
    let Pass { rows, words, packed, n, .. } = pass;
    const { assert!(K::MR <= MOST_ROWS && K::NR <= MOST_COLUMNS) };
    let mut buffer = [0.0f32; MOST_ROWS * MOST_COLUMNS];
    for panel in pass.panels.clone() {
        let columns = panel * K::NR..(*n).min((panel + 1) * K::NR);
        let whole = columns.len() == K::NR;
        let b = packed[panel * pass.panel_stride + pass.panel_start..].as_ptr();
        let mut edge = [0.0f32; MOST_COLUMNS];
        let bias: *const f32 = match pass.bias {
            Some(bias) if whole => bias[columns.start..].as_ptr(),
            Some(bias) => {
                edge[..columns.len()].copy_from_slice(&bias[columns.clone()]);
                edge.as_ptr()
            }
            None => std::ptr::null(),
        };
        for (group, first) in rows.clone().step_by(K::MR).enumerate() {
            let height = K::MR.min(rows.end - first);
            let a = Rows { start: pass.a.start.wrapping_add(group * pass.a.group_stride), ..pass.a };
            let local = Target { start: buffer.as_mut_ptr(), stride: K::NR, accumulate: false, bias };
            match output {
                To::Matrix(c, write, stride) => {
                    let accumulate = pass.again || write == Write::Add;
                    let start = c.pointer(first * stride + columns.start);
                    if whole {
                        let target = Target { start, stride, accumulate, bias };
                        // SAFETY: a full tile inside C; A and B are in range by this function's contract.
                        unsafe { tile_of::<K>(height, *words, a, b, target) };
                        continue;
                    }
                    // SAFETY: the tile goes to `buffer`, which has room for MR · NR floats.
                    unsafe { tile_of::<K>(height, *words, a, b, Target { bias: std::ptr::null(), ..local }) };
                    for (i, values) in buffer.chunks_exact(K::NR).take(height).enumerate() {
                        // SAFETY: row `first + i` and these columns are inside C and ours.
                        let target = unsafe { std::slice::from_raw_parts_mut(start.add(i * stride), columns.len()) };
                        for ((target, value), bias) in target.iter_mut().zip(values).zip(&edge) {
                            // In the order of a whole tile: the sum is added first, then the bias.
                            *target = if accumulate { *target + *value } else { *value };
                            if pass.bias.is_some() {
                                *target += bias;
                            }
                        }
                    }
                }
                To::Tiles(function) => {
                    // SAFETY: as above.
                    unsafe { tile_of::<K>(height, *words, a, b, local) };
                    let (rows, columns, values) = (first..first + height, columns.clone(), &buffer[..height * K::NR]);
                    let word = K::WORD.of_results();
                    function(Tile { rows, columns, values, stride: K::NR, height: K::MR, word, isa });
                }
            }
        }
    }
}
