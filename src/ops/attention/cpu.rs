//! Attention on the CPU: one task a sequence and head, blocks of queries × keys in scratch memory.
//!
//! Block borders count from the start of the sequence, so a sequence gives the same bits alone and packed.

use crate::device::Cpu;
use crate::device::cpu::{Matrix, Shared, Write, vector};
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
    pub cu_seqlens: &'a [u32],
    /// Elements of the dropout mask between two rows (one row a token and head).
    pub mask_stride: usize,
}

impl Problem<'_> {
    fn tasks(&self) -> usize {
        (self.cu_seqlens.len() - 1) * self.heads
    }

    /// First token, length, and head of a task.
    fn task(&self, task: usize) -> (usize, usize, usize) {
        let (sequence, head) = (task / self.heads, task % self.heads);
        let first = self.cu_seqlens[sequence] as usize;
        (first, self.cu_seqlens[sequence + 1] as usize - first, head)
    }

    fn head_dim(&self) -> usize {
        self.width / self.heads
    }

    /// One head of a `[tokens, width]` matrix, from row `row` on.
    fn head<'b>(&self, data: &'b [f32], row: usize, head: usize) -> Matrix<'b> {
        Matrix::rows(&data[row * self.width + head * self.head_dim()..], self.width)
    }

    /// Keys that a block of queries ending before `end` may see.
    fn visible(&self, end: usize, length: usize) -> usize {
        if self.causal { end } else { length }
    }

    /// Applies the dropout mask of (token, head) to probabilities of keys `first_key ..`.
    fn drop_out(&self, cpu: &Cpu, token: usize, head: usize, first_key: usize, values: &mut [f32]) {
        if let Some(dropout) = self.dropout {
            let start = (token * self.heads + head) * self.mask_stride + first_key;
            dropout.factors(cpu, start, values.len(), |part, factors| {
                vector::multiply(cpu.isa(), &mut values[part], factors);
            });
        }
    }
}

/// Fills y and the log-sum-exp `[tokens, heads]`.
pub fn forward(cpu: &Cpu, p: Problem<'_>, [q, k, v]: [&[f32]; 3], y: &mut [f32], log_sum_exp: &mut [f32]) {
    let (d, width) = (p.head_dim(), p.width);
    let (y, log_sum_exp) = (Shared::new(y), Shared::new(log_sum_exp));
    cpu.parallel(p.tasks(), |task| {
        let (first, length, head) = p.task(task);
        let keys = KEYS.min(length);
        let mut scores = cpu.scratch(QUERIES.min(length) * keys);
        let mut sums = cpu.scratch(QUERIES.min(length) * d);
        let mut packed = cpu.scratch(Cpu::tile_scratch(keys, d).max(Cpu::tile_scratch(d, keys)));
        for q0 in (0..length).step_by(QUERIES) {
            let rows = QUERIES.min(length - q0);
            let mut maxima = [f32::NEG_INFINITY; QUERIES];
            let mut totals = [0.0f32; QUERIES];
            let visible = p.visible(q0 + rows, length);
            for k0 in (0..visible).step_by(KEYS) {
                let columns = KEYS.min(visible - k0);
                let (queries, block) = (p.head(q, first + q0, head), p.head(k, first + k0, head).transposed());
                cpu.gemm_tile(rows, columns, d, queries, block, &mut scores, columns, Write::Replace, &mut packed);
                for (i, row) in scores[..rows * columns].chunks_exact_mut(columns).enumerate() {
                    if p.causal {
                        let seen = (q0 + i + 1).saturating_sub(k0).min(columns);
                        row[seen..].fill(f32::NEG_INFINITY);
                    }
                    let (maximum, total) = vector::exp_block(cpu.isa(), row, p.scale, maxima[i]);
                    // What was summed under the old maximum shrinks by exp(old − new).
                    let shrink = if k0 == 0 { 0.0 } else { (maxima[i] - maximum).exp() };
                    if k0 > 0 {
                        sums[i * d..(i + 1) * d].iter_mut().for_each(|sum| *sum *= shrink);
                    }
                    totals[i] = totals[i] * shrink + total;
                    maxima[i] = maximum;
                    p.drop_out(cpu, first + q0 + i, head, k0, row);
                }
                let values = p.head(v, first + k0, head);
                let write = Write::accumulating(k0 > 0);
                let probabilities = Matrix::rows(&scores, columns);
                cpu.gemm_tile(rows, d, columns, probabilities, values, &mut sums, d, write, &mut packed);
            }
            for i in 0..rows {
                let token = first + q0 + i;
                // SAFETY: one task alone writes the columns of this head in the rows of this sequence.
                let (y, log_sum_exp) =
                    unsafe { (y.slice(token * width + head * d, d), log_sum_exp.slice(token * p.heads + head, 1)) };
                vector::scaled(cpu.isa(), y, &sums[i * d..(i + 1) * d], 1.0 / totals[i], false);
                log_sum_exp[0] = maxima[i] + totals[i].ln();
            }
        }
    });
}

/// What the forward pass has left, and the gradient that comes in.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub qkv: [&'a [f32]; 3],
    pub output: &'a [f32],
    pub log_sum_exp: &'a [f32],
    pub upstream: &'a [f32],
}

/// Gradients of q, k and v.
pub fn backward(cpu: &Cpu, p: Problem<'_>, kept: Kept<'_>, slots: [Option<Slot<'_>>; 3]) {
    let d = p.head_dim();
    let targets = slots.map(|slot| slot.map(|slot| (Shared::new(slot.data), slot.accumulate)));
    cpu.parallel(p.tasks(), |task| {
        let (first, length, head) = p.task(task);
        let mut sums = [0, 1, 2].map(|_| cpu.scratch(length * d));
        head_backward(cpu, p, kept, (first, length, head), &mut sums);
        for (target, sum) in targets.iter().zip(&sums) {
            let Some((target, accumulate)) = target else { continue };
            for (i, row) in sum.chunks_exact(d).enumerate() {
                // SAFETY: one task alone writes the columns of this head in the rows of this sequence.
                let target = unsafe { target.slice((first + i) * p.width + head * d, d) };
                vector::scaled(cpu.isa(), target, row, 1.0, *accumulate);
            }
        }
    });
}

/// dq, dk, dv `[length, head_dim]` of one sequence and head.
fn head_backward(
    cpu: &Cpu,
    p: Problem<'_>,
    kept: Kept<'_>,
    (first, length, head): (usize, usize, usize),
    sums: &mut [crate::device::cpu::Scratch<'_>; 3],
) {
    let (d, width) = (p.head_dim(), p.width);
    let [q, k, v] = kept.qkv;
    let [dq, dk, dv] = sums;
    [&mut *dq, dk, dv].into_iter().for_each(|sum| sum.fill(0.0));
    let (rows_at_most, keys) = (QUERIES.min(length), KEYS.min(length));
    let mut probabilities = cpu.scratch(rows_at_most * keys);
    let mut slopes = cpu.scratch(rows_at_most * keys);
    let most = [(keys, d), (d, keys), (d, rows_at_most)].map(|(n, k)| Cpu::tile_scratch(n, k));
    let mut packed = cpu.scratch(most.into_iter().max().unwrap_or(0));
    for q0 in (0..length).step_by(QUERIES) {
        let rows = QUERIES.min(length - q0);
        let upstream = p.head(kept.upstream, first + q0, head);
        let queries = p.head(q, first + q0, head);
        let mut products = [0.0f32; QUERIES];
        for (i, product) in products[..rows].iter_mut().enumerate() {
            let at = (first + q0 + i) * width + head * d;
            *product = vector::dot(cpu.isa(), &kept.upstream[at..at + d], &kept.output[at..at + d]);
        }
        let visible = p.visible(q0 + rows, length);
        for k0 in (0..visible).step_by(KEYS) {
            let columns = KEYS.min(visible - k0);
            let (key_block, value_block) = (p.head(k, first + k0, head), p.head(v, first + k0, head));
            let (s, g) = (&mut probabilities[..rows * columns], &mut slopes[..rows * columns]);
            cpu.gemm_tile(rows, columns, d, queries, key_block.transposed(), s, columns, Write::Replace, &mut packed);
            cpu.gemm_tile(
                rows,
                columns,
                d,
                upstream,
                value_block.transposed(),
                g,
                columns,
                Write::Replace,
                &mut packed,
            );
            for (i, (s, g)) in s.chunks_exact_mut(columns).zip(g.chunks_exact_mut(columns)).enumerate() {
                let token = first + q0 + i;
                let seen = if p.causal { (q0 + i + 1).saturating_sub(k0).min(columns) } else { columns };
                vector::exp_shifted(cpu.isa(), &mut s[..seen], p.scale, kept.log_sum_exp[token * p.heads + head]);
                s[seen..].fill(0.0);
                // dP = (dy · vᵀ) ∘ M; then dS · scale = scale · P ∘ (dP − D), and P becomes P ∘ M.
                p.drop_out(cpu, token, head, k0, g);
                softmax_backward(cpu, s, g, products[i], p.scale);
                p.drop_out(cpu, token, head, k0, s);
            }
            let (s, g) = (Matrix::rows(s, columns), Matrix::rows(g, columns));
            let (dq, dk, dv) = (&mut dq[q0 * d..], &mut dk[k0 * d..], &mut dv[k0 * d..]);
            cpu.gemm_tile(rows, d, columns, g, key_block, dq, d, Write::Add, &mut packed);
            cpu.gemm_tile(columns, d, rows, g.transposed(), queries, dk, d, Write::Add, &mut packed);
            cpu.gemm_tile(columns, d, rows, s.transposed(), upstream, dv, d, Write::Add, &mut packed);
        }
    }
}

/// slopes ← scale · probabilities ∘ (slopes − product).
fn softmax_backward(cpu: &Cpu, probabilities: &[f32], slopes: &mut [f32], product: f32, scale: f32) {
    crate::device::cpu::simd::simd_kernel! {
        fn kernel(probabilities: &[f32], slopes: &mut [f32], product: f32, scale: f32) {
            for (slope, probability) in slopes.iter_mut().zip(probabilities) {
                *slope = scale * probability * (*slope - product);
            }
        }
    }
    kernel(cpu.isa(), probabilities, slopes, product, scale);
}
