//! Attention on the CPU: one task a sequence and head, blocks of queries × keys in scratch memory.
//!
//! A task packs its operands once; then every product reads packed operands. Block borders count from the start of the
//! sequence, so a sequence gives the same bits alone and packed.

use super::Problem;
use crate::device::Cpu;
use crate::device::cpu::softmax::{self, Block, Running};
use crate::device::cpu::{Left, Matrix, Scratch, Shared, Write, vector};
use crate::rng::Dropout;
use crate::tape::Slot;

/// Queries in a block.
const QUERIES: usize = softmax::MOST_ROWS;
/// Keys in a block.
const KEYS: usize = softmax::MOST_COLUMNS;

/// One sequence and one head.
#[derive(Clone, Copy)]
struct Part {
    head: usize,
    /// First query and number of queries.
    query: usize,
    queries: usize,
    /// First key and number of keys.
    key: usize,
    keys: usize,
}

/// Queries, keys or values: rows of numbers, or of words in the precision of products.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    pub data: &'a [f32],
    pub words: bool,
}

impl Problem<'_> {
    fn tasks(&self) -> usize {
        (self.queries.len() - 1) * self.heads
    }

    fn part(&self, task: usize) -> Part {
        let (sequence, head) = (task / self.heads, task % self.heads);
        let range = |borders: &[u32]| {
            let (start, end) = (borders[sequence] as usize, borders[sequence + 1] as usize);
            (start, end - start)
        };
        let ((query, queries), (key, keys)) = (range(self.queries), range(self.keys));
        Part { head, query, queries, key, keys }
    }

    /// One head of a `[rows, width]` matrix, from row `row` on.
    fn head<'b>(&self, data: &'b [f32], row: usize, head: usize) -> Matrix<'b> {
        Matrix::rows(&data[row * self.width + head * self.head_dim()..], self.width)
    }

    /// The same of rows of words, and their distance.
    fn head_words<'b>(&self, cpu: &Cpu, data: &'b [f32], row: usize, head: usize) -> (&'b [f32], usize) {
        let stride = cpu.words(self.width);
        (&data[row * stride + head * cpu.words(self.head_dim())..], stride)
    }

    /// Rows of one head as a left-hand operand.
    fn left<'b>(
        &self,
        cpu: &Cpu,
        operand: Operand<'b>,
        (row, rows): (usize, usize),
        head: usize,
        scratch: &'b mut [f32],
    ) -> Left<'b> {
        if operand.words {
            let (data, stride) = self.head_words(cpu, operand.data, row, head);
            return Left::Rows(data, stride);
        }
        cpu.small_left_rows(rows, self.head_dim(), self.head(operand.data, row, head), scratch)
    }

    /// Rows of one head as a right-hand operand: as they lie, `[rows, head_dim]`, or turned.
    fn right(
        &self,
        cpu: &Cpu,
        operand: Operand<'_>,
        (row, rows): (usize, usize),
        head: usize,
        turned: bool,
        target: &mut [f32],
    ) {
        let d = self.head_dim();
        // Words of one number each lie as numbers do.
        if !operand.words || cpu.words(2) == 2 {
            let matrix = self.head(operand.data, row, head);
            return match turned {
                true => cpu.small_right(d, rows, matrix.transposed(), target),
                false => cpu.small_right(rows, d, matrix, target),
            };
        }
        let (data, stride) = self.head_words(cpu, operand.data, row, head);
        match turned {
            true => cpu.small_right_of_words(d, rows, data, stride, target),
            false => cpu.small_right_of_word_rows(rows, d, data, stride, target),
        }
    }

    /// Keys that a block of queries ending before `end` may see.
    fn visible(&self, end: usize, keys: usize) -> usize {
        if self.causal { end.min(keys) } else { keys }
    }

    /// A block of scores: `rows` queries from number `query` of the sequence on, `columns` keys from `key` on.
    fn block(&self, cpu: &Cpu, part: Part, (query, rows): (usize, usize), (key, columns): (usize, usize)) -> Block {
        let limit = if self.causal { query as isize + 1 - key as isize } else { columns as isize };
        let step = self.heads * self.mask_stride;
        let mask = |dropout: Dropout| (dropout.mask(), self.mask(part.query + query, part.head, key), step);
        Block {
            rows,
            columns,
            stride: cpu.small_stride(columns),
            limit,
            scale: self.scale,
            dropout: self.dropout.map(mask),
        }
    }

    /// The dropout mask's number of (query, head, key).
    fn mask(&self, query: usize, head: usize, key: usize) -> usize {
        (query * self.heads + head) * self.mask_stride + key
    }
}

/// Blocks of `most` out of `len`: (start, length) of each.
fn blocks(len: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(most).map(move |start| (start, most.min(len - start)))
}

/// A right-hand operand of every block of keys (see [`Problem::right`]).
struct KeyBlocks<'a> {
    packed: &'a [f32],
    stride: usize,
}

impl<'a> KeyBlocks<'a> {
    /// Words of all blocks of `keys` keys.
    fn len(cpu: &Cpu, d: usize, keys: usize, turned: bool) -> usize {
        Self::stride(cpu, d, keys, turned) * keys.div_ceil(KEYS)
    }

    fn stride(cpu: &Cpu, d: usize, keys: usize, turned: bool) -> usize {
        let most = KEYS.min(keys);
        if turned { cpu.small_right_len(d, most) } else { cpu.small_right_len(most, d) }
    }

    fn new(cpu: &Cpu, p: &Problem<'_>, part: Part, operand: Operand<'_>, turned: bool, packed: &'a mut [f32]) -> Self {
        let stride = Self::stride(cpu, p.head_dim(), part.keys, turned);
        for ((start, count), packed) in blocks(part.keys, KEYS).zip(packed.chunks_exact_mut(stride.max(1))) {
            p.right(cpu, operand, (part.key + start, count), part.head, turned, packed);
        }
        KeyBlocks { packed, stride }
    }

    fn block(&self, start: usize) -> &[f32] {
        &self.packed[start / KEYS * self.stride..][..self.stride]
    }
}

/// Cuts one buffer into parts of these lengths.
fn cut<const N: usize>(buffer: &mut [f32], lens: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = buffer;
    lens.map(|len| {
        let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
        rest = tail;
        part
    })
}

/// One buffer for all of them: a task takes no more than one.
fn room<const N: usize>(cpu: &Cpu, lens: [usize; N]) -> Scratch<'_> {
    cpu.scratch(lens.iter().sum())
}

/// Fills y `[queries, width]` and the log-sum-exp `[queries, heads]`.
pub fn forward(cpu: &Cpu, p: Problem<'_>, [q, k, v]: [Operand<'_>; 3], y: &mut [f32], log_sum_exp: &mut [f32]) {
    let (y, log_sum_exp) = (Shared::new(y), Shared::new(log_sum_exp));
    cpu.parallel(p.tasks(), |task| {
        let part = p.part(task);
        let (d, rows_at_most) = (p.head_dim(), QUERIES.min(part.queries));
        let stride_at_most = cpu.small_stride(KEYS.min(part.keys));
        let lens = [
            KeyBlocks::len(cpu, d, part.keys, true),
            KeyBlocks::len(cpu, d, part.keys, false),
            rows_at_most * stride_at_most,
            rows_at_most * d,
            rows_at_most * cpu.words(d),
            rows_at_most * cpu.words(stride_at_most),
        ];
        let mut buffer = room(cpu, lens);
        let [keys, values, scores, sums, query_words, score_words] = cut(&mut buffer, lens);
        let keys = KeyBlocks::new(cpu, &p, part, k, true, keys);
        let values = KeyBlocks::new(cpu, &p, part, v, false, values);
        for (q0, rows) in blocks(part.queries, QUERIES) {
            let queries = p.left(cpu, q, (part.query + q0, rows), part.head, query_words);
            let mut running = [Running::START; QUERIES];
            for (k0, columns) in blocks(p.visible(q0 + rows, part.keys), KEYS) {
                let block = p.block(cpu, part, (q0, rows), (k0, columns));
                let stride = block.stride;
                let scores = &mut scores[..rows * stride];
                cpu.small_multiply((rows, stride, d), queries, keys.block(k0), scores, stride, Write::Replace);
                cpu.count_product(rows, columns, 2 * d);
                softmax::forward(cpu.isa(), block, scores, &mut running);
                if k0 > 0 {
                    for (sums, running) in sums.chunks_exact_mut(d).zip(&running[..rows]) {
                        sums.iter_mut().for_each(|sum| *sum *= running.shrink);
                    }
                }
                let scores = cpu.small_left_rows(rows, stride, Matrix::rows(scores, stride), score_words);
                let write = Write::accumulating(k0 > 0);
                cpu.small_multiply((rows, d, columns), scores, values.block(k0), sums, d, write);
            }
            for (i, (sums, running)) in sums.chunks_exact(d).zip(&running[..rows]).enumerate() {
                let query = part.query + q0 + i;
                // SAFETY: one task alone writes the columns of this head in the rows of this sequence.
                let (y, log_sum_exp) = unsafe {
                    (y.slice(query * p.width + part.head * d, d), log_sum_exp.slice(query * p.heads + part.head, 1))
                };
                vector::scaled(cpu.isa(), y, sums, 1.0 / running.total, false);
                log_sum_exp[0] = running.maximum + running.total.ln();
            }
        }
    });
}

/// What the forward pass has left, and the gradient that comes in.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub qkv: [Operand<'a>; 3],
    pub output: &'a [f32],
    pub log_sum_exp: &'a [f32],
    pub upstream: &'a [f32],
}

/// Gradients of q, k and v, each in the form of its operand. Words cannot be added to.
pub fn backward(cpu: &Cpu, p: Problem<'_>, kept: Kept<'_>, slots: [Option<Slot<'_>>; 3]) {
    let d = p.head_dim();
    let targets = slots.map(|slot| slot.map(|slot| (Shared::new(slot.data), slot.accumulate)));
    cpu.parallel(p.tasks(), |task| {
        let part = p.part(task);
        let lens = [part.queries * d, part.keys * d, part.keys * d];
        let mut buffer = room(cpu, lens);
        let mut sums = cut(&mut buffer, lens);
        part_backward(cpu, &p, kept, part, &mut sums);
        let firsts = [part.query, part.key, part.key];
        for (((target, sum), first), operand) in targets.iter().zip(&sums).zip(firsts).zip(kept.qkv) {
            let Some((target, accumulate)) = target else { continue };
            if operand.words {
                let (words, stride) = (cpu.words(d), cpu.words(p.width));
                let start = first * stride + part.head * words;
                // SAFETY: one task alone writes the columns of this head in the rows of this sequence.
                unsafe { cpu.small_words(d, sum, *target, start, stride) };
                continue;
            }
            for (i, row) in sum.chunks_exact(d).enumerate() {
                // SAFETY: as above.
                let target = unsafe { target.slice((first + i) * p.width + part.head * d, d) };
                vector::scaled(cpu.isa(), target, row, 1.0, *accumulate);
            }
        }
    });
}

/// dq `[queries, head_dim]`, dk and dv `[keys, head_dim]` of one sequence and head.
fn part_backward(cpu: &Cpu, p: &Problem<'_>, kept: Kept<'_>, part: Part, [dq, dk, dv]: &mut [&mut [f32]; 3]) {
    let d = p.head_dim();
    let [q, k, v] = kept.qkv;
    let rows_at_most = QUERIES.min(part.queries);
    let stride_at_most = cpu.small_stride(KEYS.min(part.keys));
    let [turned, straight] = [true, false].map(|turned| KeyBlocks::len(cpu, d, part.keys, turned));
    let (scores, rows) = (rows_at_most * stride_at_most, cpu.small_right_len(rows_at_most, d));
    let words = rows_at_most * cpu.words(d);
    let lens = [
        turned,
        turned,
        straight,
        scores,
        scores,
        words,
        words,
        rows_at_most * cpu.words(stride_at_most),
        cpu.small_left_len(rows_at_most, stride_at_most),
        rows,
        rows,
    ];
    let mut buffer = room(cpu, lens);
    let [
        turned_keys,
        turned_values,
        keys,
        probabilities,
        slopes,
        query_words,
        upstream_words,
        slope_words,
        columns_words,
        packed_queries,
        packed_upstream,
    ] = cut(&mut buffer, lens);
    let turned_keys = KeyBlocks::new(cpu, p, part, k, true, turned_keys);
    let turned_values = KeyBlocks::new(cpu, p, part, v, true, turned_values);
    let keys = KeyBlocks::new(cpu, p, part, k, false, keys);
    [&mut *dq, dk, dv].into_iter().for_each(|sum| sum.fill(0.0));
    for (q0, rows) in blocks(part.queries, QUERIES) {
        let first = part.query + q0;
        let upstream = Operand { data: kept.upstream, words: false };
        p.right(cpu, q, (first, rows), part.head, false, packed_queries);
        p.right(cpu, upstream, (first, rows), part.head, false, packed_upstream);
        let queries = p.left(cpu, q, (first, rows), part.head, query_words);
        let upstream = p.left(cpu, upstream, (first, rows), part.head, upstream_words);
        let [mut products, mut shifts] = [[0.0f32; QUERIES]; 2];
        for (i, (product, shift)) in products[..rows].iter_mut().zip(&mut shifts).enumerate() {
            let at = (first + i) * p.width + part.head * d;
            *product = vector::dot(cpu.isa(), &kept.upstream[at..at + d], &kept.output[at..at + d]);
            *shift = kept.log_sum_exp[(first + i) * p.heads + part.head];
        }
        for (k0, columns) in blocks(p.visible(q0 + rows, part.keys), KEYS) {
            let block = p.block(cpu, part, (q0, rows), (k0, columns));
            let stride = block.stride;
            let (s, g) = (&mut probabilities[..rows * stride], &mut slopes[..rows * stride]);
            let shape = (rows, stride, d);
            cpu.count_product(rows, columns, 5 * d);
            cpu.small_multiply(shape, queries, turned_keys.block(k0), s, stride, Write::Replace);
            cpu.small_multiply(shape, upstream, turned_values.block(k0), g, stride, Write::Replace);
            softmax::backward(cpu.isa(), block, s, g, &shifts[..rows], &products[..rows]);
            let (s, g) = (Matrix::rows(s, stride), Matrix::rows(g, stride));
            let slopes = cpu.small_left_rows(rows, stride, g, slope_words);
            cpu.small_multiply((rows, d, columns), slopes, keys.block(k0), &mut dq[q0 * d..], d, Write::Add);
            let mut turned_product = |left: Matrix<'_>, right: &[f32], target: &mut [f32]| {
                // What lies beyond the columns is packed, and not multiplied.
                let left: Left<'_> = cpu.small_left_columns(rows, stride, left, columns_words);
                cpu.small_multiply((columns, d, rows), left, right, &mut target[k0 * d..], d, Write::Add);
            };
            turned_product(g, packed_queries, dk);
            turned_product(s, packed_upstream, dv);
        }
    }
}
