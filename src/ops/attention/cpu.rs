//! Attention on the CPU: one task a sequence and head, blocks of queries × keys in scratch memory.
//!
//! A task packs its operands once; then every product reads packed operands. Block borders count from the start of the
//! sequence, so a sequence gives the same bits alone and packed.

use crate::device::Cpu;
use crate::device::cpu::{Left, Matrix, Shared, Write, vector};
use crate::rng::Dropout;
use crate::tape::Slot;

/// Queries in a block.
const QUERIES: usize = 64;
/// Keys in a block.
const KEYS: usize = 128;

/// What the kernels need to know of the op.
#[derive(Clone, Copy)]
pub struct Problem<'a> {
    pub heads: usize,
    pub width: usize,
    pub scale: f32,
    pub causal: bool,
    pub dropout: Option<Dropout>,
    /// Borders of the sequences among the queries, and among keys and values.
    pub queries: &'a [u32],
    pub keys: &'a [u32],
    /// Elements of the dropout mask between two rows (one row a query and head).
    pub mask_stride: usize,
}

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

    fn head_dim(&self) -> usize {
        self.width / self.heads
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
        if !operand.words {
            let matrix = self.head(operand.data, row, head);
            return match turned {
                true => cpu.small_right(d, rows, matrix.transposed(), target),
                false => cpu.small_right(rows, d, matrix, target),
            };
        }
        let (data, stride) = self.head_words(cpu, operand.data, row, head);
        if turned {
            return cpu.small_right_of_words(d, rows, data, stride, target);
        }
        let mut numbers = cpu.scratch(rows * d);
        cpu.unpack_rows(rows, d, data, stride, &mut numbers);
        cpu.small_right(rows, d, Matrix::rows(&numbers, d), target);
    }

    /// Keys that a block of queries ending before `end` may see.
    fn visible(&self, end: usize, keys: usize) -> usize {
        if self.causal { end.min(keys) } else { keys }
    }

    /// Keys from `key` on that query `query` sees of `count`.
    fn seen(&self, query: usize, key: usize, count: usize) -> usize {
        if self.causal { (query + 1).saturating_sub(key).min(count) } else { count }
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
    packed: crate::device::cpu::Scratch<'a>,
    stride: usize,
}

impl<'a> KeyBlocks<'a> {
    fn new(cpu: &'a Cpu, p: &Problem<'_>, part: Part, operand: Operand<'_>, turned: bool) -> KeyBlocks<'a> {
        let d = p.head_dim();
        let most = KEYS.min(part.keys);
        let stride = if turned { cpu.small_right_len(d, most) } else { cpu.small_right_len(most, d) };
        let mut packed = cpu.scratch(stride * part.keys.div_ceil(KEYS));
        for ((start, count), packed) in blocks(part.keys, KEYS).zip(packed.chunks_exact_mut(stride.max(1))) {
            p.right(cpu, operand, (part.key + start, count), part.head, turned, packed);
        }
        KeyBlocks { packed, stride }
    }

    fn block(&self, start: usize) -> &[f32] {
        &self.packed[start / KEYS * self.stride..][..self.stride]
    }
}

/// Fills y `[queries, width]` and the log-sum-exp `[queries, heads]`.
pub fn forward(cpu: &Cpu, p: Problem<'_>, [q, k, v]: [Operand<'_>; 3], y: &mut [f32], log_sum_exp: &mut [f32]) {
    let (y, log_sum_exp) = (Shared::new(y), Shared::new(log_sum_exp));
    cpu.parallel(p.tasks(), |task| {
        let part = p.part(task);
        let (d, rows_at_most, keys_at_most) = (p.head_dim(), QUERIES.min(part.queries), KEYS.min(part.keys));
        let keys = KeyBlocks::new(cpu, &p, part, k, true);
        let values = KeyBlocks::new(cpu, &p, part, v, false);
        let mut scores = cpu.scratch(rows_at_most * keys_at_most);
        let mut sums = cpu.scratch(rows_at_most * d);
        let (mut query_words, mut score_words) =
            (cpu.scratch(rows_at_most * cpu.words(d)), cpu.scratch(rows_at_most * cpu.words(keys_at_most)));
        for (q0, rows) in blocks(part.queries, QUERIES) {
            let queries = p.left(cpu, q, (part.query + q0, rows), part.head, &mut query_words);
            let mut maxima = [f32::NEG_INFINITY; QUERIES];
            let mut totals = [0.0f32; QUERIES];
            for (k0, columns) in blocks(p.visible(q0 + rows, part.keys), KEYS) {
                let scores = &mut scores[..rows * columns];
                cpu.small_multiply((rows, columns, d), queries, keys.block(k0), scores, columns, Write::Replace);
                for (i, row) in scores.chunks_exact_mut(columns).enumerate() {
                    row[p.seen(q0 + i, k0, columns)..].fill(f32::NEG_INFINITY);
                    let (maximum, total) = vector::exp_block(cpu.isa(), row, p.scale, maxima[i]);
                    // What was summed under the old maximum shrinks by exp(old − new).
                    let shrink = if k0 == 0 { 0.0 } else { (maxima[i] - maximum).exp() };
                    if k0 > 0 {
                        sums[i * d..(i + 1) * d].iter_mut().for_each(|sum| *sum *= shrink);
                    }
                    totals[i] = totals[i] * shrink + total;
                    maxima[i] = maximum;
                    if let Some(dropout) = p.dropout {
                        dropout.apply(cpu.isa(), p.mask(part.query + q0 + i, part.head, k0), row);
                    }
                }
                let scores = cpu.small_left_rows(rows, columns, Matrix::rows(scores, columns), &mut score_words);
                let write = Write::accumulating(k0 > 0);
                cpu.small_multiply((rows, d, columns), scores, values.block(k0), &mut sums, d, write);
            }
            for i in 0..rows {
                let query = part.query + q0 + i;
                // SAFETY: one task alone writes the columns of this head in the rows of this sequence.
                let (y, log_sum_exp) = unsafe {
                    (y.slice(query * p.width + part.head * d, d), log_sum_exp.slice(query * p.heads + part.head, 1))
                };
                vector::scaled(cpu.isa(), y, &sums[i * d..(i + 1) * d], 1.0 / totals[i], false);
                log_sum_exp[0] = maxima[i] + totals[i].ln();
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
        let [q, k] = [part.queries, part.keys].map(|rows| cpu.scratch(rows * d));
        let mut sums = [q, k, cpu.scratch(part.keys * d)];
        part_backward(cpu, &p, kept, part, &mut sums);
        let firsts = [part.query, part.key, part.key];
        for (((target, sum), first), operand) in targets.iter().zip(&sums).zip(firsts).zip(kept.qkv) {
            let Some((target, accumulate)) = target else { continue };
            for (i, row) in sum.chunks_exact(d).enumerate() {
                let words = cpu.words(d);
                if operand.words {
                    let start = (first + i) * cpu.words(p.width) + part.head * words;
                    // SAFETY: one task alone writes the columns of this head in the rows of this sequence.
                    cpu.pack_row(row, unsafe { target.slice(start, words) });
                } else {
                    // SAFETY: as above.
                    let target = unsafe { target.slice((first + i) * p.width + part.head * d, d) };
                    vector::scaled(cpu.isa(), target, row, 1.0, *accumulate);
                }
            }
        }
    });
}

/// dq `[queries, head_dim]`, dk and dv `[keys, head_dim]` of one sequence and head.
fn part_backward(
    cpu: &Cpu,
    p: &Problem<'_>,
    kept: Kept<'_>,
    part: Part,
    sums: &mut [crate::device::cpu::Scratch<'_>; 3],
) {
    let d = p.head_dim();
    let [q, k, v] = kept.qkv;
    let [dq, dk, dv] = sums;
    [&mut *dq, dk, dv].into_iter().for_each(|sum| sum.fill(0.0));
    let (rows_at_most, keys_at_most) = (QUERIES.min(part.queries), KEYS.min(part.keys));
    let turned_keys = KeyBlocks::new(cpu, p, part, k, true);
    let turned_values = KeyBlocks::new(cpu, p, part, v, true);
    let keys = KeyBlocks::new(cpu, p, part, k, false);
    let [mut probabilities, mut slopes] = [(); 2].map(|()| cpu.scratch(rows_at_most * keys_at_most));
    let [mut query_words, mut upstream_words] = [(); 2].map(|()| cpu.scratch(rows_at_most * cpu.words(d)));
    let mut slope_words = cpu.scratch(rows_at_most * cpu.words(keys_at_most));
    let mut columns_scratch = cpu.scratch(cpu.small_left_len(rows_at_most, keys_at_most));
    let [mut packed_queries, mut packed_upstream] = [(); 2].map(|()| cpu.scratch(cpu.small_right_len(rows_at_most, d)));
    for (q0, rows) in blocks(part.queries, QUERIES) {
        let first = part.query + q0;
        let upstream = Operand { data: kept.upstream, words: false };
        p.right(cpu, q, (first, rows), part.head, false, &mut packed_queries);
        p.right(cpu, upstream, (first, rows), part.head, false, &mut packed_upstream);
        let queries = p.left(cpu, q, (first, rows), part.head, &mut query_words);
        let upstream = p.left(cpu, upstream, (first, rows), part.head, &mut upstream_words);
        let mut products = [0.0f32; QUERIES];
        for (i, product) in products[..rows].iter_mut().enumerate() {
            let at = (first + i) * p.width + part.head * d;
            *product = vector::dot(cpu.isa(), &kept.upstream[at..at + d], &kept.output[at..at + d]);
        }
        for (k0, columns) in blocks(p.visible(q0 + rows, part.keys), KEYS) {
            let (s, g) = (&mut probabilities[..rows * columns], &mut slopes[..rows * columns]);
            let shape = (rows, columns, d);
            cpu.small_multiply(shape, queries, turned_keys.block(k0), s, columns, Write::Replace);
            cpu.small_multiply(shape, upstream, turned_values.block(k0), g, columns, Write::Replace);
            for (i, (s, g)) in s.chunks_exact_mut(columns).zip(g.chunks_exact_mut(columns)).enumerate() {
                let query = first + i;
                let seen = p.seen(q0 + i, k0, columns);
                let shift = kept.log_sum_exp[query * p.heads + part.head];
                vector::exp_shifted(cpu.isa(), &mut s[..seen], p.scale, shift);
                s[seen..].fill(0.0);
                // dP = (dy · vᵀ) ∘ M; then dS · scale = scale · P ∘ (dP − D), and P becomes P ∘ M.
                match p.dropout {
                    Some(dropout) => {
                        let start = p.mask(query, part.head, k0);
                        dropout.softmax_backward(cpu.isa(), start, s, g, products[i], p.scale);
                    }
                    None => vector::softmax_backward(cpu.isa(), s, g, products[i], p.scale),
                }
            }
            let (s, g) = (Matrix::rows(s, columns), Matrix::rows(g, columns));
            let slopes = cpu.small_left_rows(rows, columns, g, &mut slope_words);
            cpu.small_multiply((rows, d, columns), slopes, keys.block(k0), &mut dq[q0 * d..], d, Write::Add);
            let mut turned_product = |left: Matrix<'_>, right: &[f32], target: &mut [f32]| {
                let left: Left<'_> = cpu.small_left_columns(rows, columns, left, &mut columns_scratch);
                cpu.small_multiply((columns, d, rows), left, right, &mut target[k0 * d..], d, Write::Add);
            };
            turned_product(g, &packed_queries, dk);
            turned_product(s, &packed_upstream, dv);
        }
    }
}
