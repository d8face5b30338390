//! Relations on the CPU: one task a sequence and head, whose scores are all that it holds.

use super::{Columns, Problem};
use crate::device::cpu::simd::simd_kernel;
use crate::device::cpu::{Left, Matrix, Shared, Write, math, vector};
use crate::device::{Cpu, Precision};

simd_kernel! {
    /// row *= scale; log Σ exp(row).
    fn log_sum(row: &mut [f32], scale: f32) -> f32 {
        for x in row.iter_mut() {
            *x *= scale;
        }
        let maximum = vector::lane_max(row);
        maximum + vector::lane_sum(row.len(), |i| math::exp(row[i] - maximum)).ln()
    }
}

simd_kernel! {
    /// KL(R' ‖ R) of a row of scores, whose log-sum-exps are known; student := R − R'.
    fn relate(student: &mut [f32], teacher: &[f32], student_sum: f32, teacher_sum: f32) -> f32 {
        let teacher = &teacher[..student.len()];
        let value = vector::lane_sum(student.len(), |i| {
            let ln = teacher[i] - teacher_sum;
            math::exp(ln) * (ln - (student[i] - student_sum))
        });
        for (s, t) in student.iter_mut().zip(teacher) {
            *s = math::exp(*s - student_sum) - math::exp(*t - teacher_sum);
        }
        value
    }
}

/// G + Gᵀ in the place of G, whose rows are `stride` apart.
fn add_transposed(g: &mut [f32], len: usize, stride: usize) {
    for i in 0..len {
        for j in 0..=i {
            let sum = g[i * stride + j] + g[j * stride + i];
            (g[i * stride + j], g[j * stride + i]) = (sum, sum);
        }
    }
}

/// Σ over the rows of each sequence and head, and the gradient of the sum of all of them `[T, width]` where there is room.
pub fn forward(cpu: &Cpu, p: &Problem<'_>, values: &mut [f32], slopes: &mut [f32]) {
    // Products in f32, whatever others are in.
    let cpu = &cpu.with_precision(Precision::F32);
    let wanted = !slopes.is_empty();
    let width = p.columns[0].width;
    let (values, slopes) = (Shared::new(values), Shared::new(slopes));
    cpu.parallel(p.sequences() * p.heads, |task| {
        let (sequence, head) = (task / p.heads, task % p.heads);
        let rows = p.sequence(sequence);
        let (len, stride) = (rows.len(), cpu.small_stride(rows.len()));
        // SAFETY: a task has its own.
        let value = unsafe { values.slice(task, 1) };
        value.fill(0.0);
        if len == 0 {
            return;
        }
        let widest = p.widths().into_iter().max().unwrap_or(0);
        let packed = cpu.small_right_len(widest, len).max(cpu.small_right_len(len, widest));
        let mut room = cpu.scratch(2 * len * stride + packed + len * widest);
        let (student, rest) = room.split_at_mut(len * stride);
        let (teacher, rest) = rest.split_at_mut(len * stride);
        let (packed, result) = rest.split_at_mut(packed);
        let of_side = |side: usize| {
            let Columns { start, stride, .. } = p.columns[side];
            let d = p.widths()[side];
            (Matrix::rows(&p.sides[side].data[start + rows.start * stride + head * d..], stride), d)
        };
        for (side, scores) in [&mut *student, &mut *teacher].into_iter().enumerate() {
            let (x, d) = of_side(side);
            cpu.small_right(d, len, x.transposed(), packed);
            let left = cpu.small_left_rows(len, d, x, &mut []);
            cpu.small_multiply((len, len, d), left, packed, scores, stride, Write::Replace);
        }
        let [scale, teacher_scale] = p.scales();
        let mut sum = 0.0f64;
        for (s, t) in student.chunks_exact_mut(stride).zip(teacher.chunks_exact_mut(stride)) {
            let (s, t) = (&mut s[..len], &mut t[..len]);
            let sums = [log_sum(cpu.isa(), s, scale), log_sum(cpu.isa(), t, teacher_scale)];
            sum += relate(cpu.isa(), s, t, sums[0], sums[1]) as f64;
        }
        value.fill(sum as f32);
        if !wanted {
            return;
        }
        add_transposed(student, len, stride);
        let (x, d) = of_side(0);
        cpu.small_right(len, d, x, packed);
        cpu.small_multiply((len, d, len), Left::Rows(student, stride), packed, result, d, Write::Replace);
        for (row, result) in rows.zip(result.chunks_exact(d)) {
            // SAFETY: tasks have other rows or other heads.
            let target = unsafe { slopes.slice(row * width + head * d, d) };
            target.iter_mut().zip(result).for_each(|(target, x)| *target = scale * x);
        }
    });
}

/// The columns of a slot += scale · slopes.
pub fn add(slot: &mut [f32], columns: Columns, slopes: &[f32], scale: f32) {
    for (row, slopes) in slopes.chunks_exact(columns.width).enumerate() {
        let start = columns.start + row * columns.stride;
        if let Some(target) = slot.get_mut(start..start + columns.width) {
            target.iter_mut().zip(slopes).for_each(|(target, slope)| *target += scale * slope);
        }
    }
}
