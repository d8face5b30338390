//! The principal directions of the rows of tables: eigenvectors of their second moments.
//!
//! Tridiagonal form by Householder reflections, then implicit QR steps with Wilkinson's shift (Golub and Van Loan, "Matrix
//! computations", sections 8.3.1 to 8.3.3). All in f64 and in one order: the same bits whatever the number of threads.

use crate::device::cpu::Cpu;
use crate::error::{Error, Result};

/// Rows of the matrix of moments that one thread computes.
const BLOCK: usize = 16;

/// Adds weight · Σ_rows (row − shift)(row − shift)ᵀ to `moments` `[width, width]`.
pub fn add_moments(cpu: &Cpu, rows: &[f32], shift: &[f64], weight: f64, moments: &mut [f64]) {
    let width = shift.len().max(1);
    let blocks: Vec<usize> = (0..width).step_by(BLOCK).collect();
    let sums = cpu.map(&blocks, |&start| {
        let end = width.min(start + BLOCK);
        let mut sums = vec![0.0; (end - start) * width];
        let mut row = vec![0.0; width];
        for values in rows.chunks_exact(width) {
            for ((x, value), shift) in row.iter_mut().zip(values).zip(shift) {
                *x = *value as f64 - shift;
            }
            for (sums, factor) in sums.chunks_exact_mut(width).zip(&row[start..end]) {
                add(*factor, &row, sums);
            }
        }
        sums
    });
    for (moments, sums) in moments.chunks_mut(BLOCK * width).zip(&sums) {
        add(weight, sums, moments);
    }
}

/// y += factor · x.
fn add(factor: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Eigenvalues of a symmetric matrix, the largest first, and the eigenvectors in the same order: the rows of a matrix. The
/// largest element of each is positive.
///
/// # Errors
/// Numbers that are not finite.
pub fn eigenvectors(mut matrix: Vec<f64>, width: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut vectors = vec![0.0; width * width];
    vectors.iter_mut().step_by(width + 1).for_each(|x| *x = 1.0);
    let (mut diagonal, mut beside) = tridiagonal(&mut matrix, width, &mut vectors);
    let failed = || Error::NonFinite {
        what: "the second moment of the teacher's embeddings".into(),
        hint: "its weights are damaged; or take init=random".into(),
    };
    if !diagonal.iter().chain(&beside).all(|x| x.is_finite()) {
        return Err(failed());
    }
    let (mut high, mut steps) = (width.saturating_sub(1), 0);
    while high > 0 {
        let small = |k: usize, d: &[f64], e: &[f64]| e[k].abs() <= f64::EPSILON * (d[k].abs() + d[k + 1].abs());
        if small(high - 1, &diagonal, &beside) {
            high -= 1;
            continue;
        }
        let mut low = high - 1;
        while low > 0 && !small(low - 1, &diagonal, &beside) {
            low -= 1;
        }
        steps += 1;
        if steps > 60 * width {
            return Err(failed());
        }
        step(&mut diagonal, &mut beside, low..high, width, &mut vectors);
    }
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]));
    let mut sorted = Vec::with_capacity(width * width);
    for &index in &order {
        let row = &vectors[index * width..(index + 1) * width];
        let largest = row.iter().fold(0.0f64, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
        sorted.extend(row.iter().map(|x| x * largest.signum()));
    }
    Ok((order.iter().map(|index| diagonal[*index]).collect(), sorted))
}

/// Turns a symmetric matrix A into a tridiagonal T = Qᵀ A Q: its diagonal, and what stands beside it. `turned` becomes
/// Qᵀ · `turned`.
fn tridiagonal(a: &mut [f64], width: usize, turned: &mut [f64]) -> (Vec<f64>, Vec<f64>) {
    let mut reflections = Vec::new();
    let mut beside = Vec::new();
    for k in 0..width.saturating_sub(1) {
        let from = k + 1;
        // The column below the diagonal (the row beside it) becomes (−sign(x₀) ‖x‖, 0, …).
        let mut v = a[k * width + from..(k + 1) * width].to_vec();
        let norm = dot(&v, &v).sqrt();
        let head = -norm.copysign(v[0]);
        beside.push(if norm == 0.0 { 0.0 } else { head });
        if dot(&v[1..], &v[1..]) == 0.0 {
            beside[k] = v[0];
            continue;
        }
        v[0] -= head;
        let beta = 2.0 / dot(&v, &v);
        let p: Vec<f64> = (from..width).map(|row| beta * dot(&a[row * width + from..(row + 1) * width], &v)).collect();
        let half = beta * dot(&p, &v) / 2.0;
        let w: Vec<f64> = p.iter().zip(&v).map(|(p, v)| p - half * v).collect();
        for (i, row) in (from..width).enumerate() {
            let row = &mut a[row * width + from..(row + 1) * width];
            for (x, (v_j, w_j)) in row.iter_mut().zip(v.iter().zip(&w)) {
                *x -= v[i] * w_j + w[i] * v_j;
            }
        }
        reflections.push((from, beta, v));
    }
    // Qᵀ = H_last ⋯ H_first: the first one is applied first.
    for (from, beta, v) in &reflections {
        let rows = &mut turned[from * width..];
        let mut sums = vec![0.0; width];
        for (row, v) in rows.chunks_exact(width).zip(v) {
            add(*v, row, &mut sums);
        }
        for (row, v) in rows.chunks_exact_mut(width).zip(v) {
            add(-beta * v, &sums, row);
        }
    }
    ((0..width).map(|k| a[k * width + k]).collect(), beside)
}

/// One implicit QR step on rows `low` to `high` (both included) of a tridiagonal matrix, and the same rotations of the rows of
/// `vectors`.
fn step(d: &mut [f64], e: &mut [f64], rows: std::ops::Range<usize>, width: usize, vectors: &mut [f64]) {
    let (low, high) = (rows.start, rows.end);
    let delta = (d[high - 1] - d[high]) / 2.0;
    let squared = e[high - 1] * e[high - 1];
    let shift = d[high] - squared / (delta + delta.hypot(e[high - 1]).copysign(delta));
    let (mut x, mut z) = (d[low] - shift, e[low]);
    for k in rows {
        let r = x.hypot(z);
        let (c, s) = if r == 0.0 { (1.0, 0.0) } else { (x / r, z / r) };
        if k > low {
            e[k - 1] = r;
        }
        let (a, b, g) = (d[k], e[k], d[k + 1]);
        d[k] = c * c * a + 2.0 * c * s * b + s * s * g;
        d[k + 1] = s * s * a - 2.0 * c * s * b + c * c * g;
        e[k] = c * s * (g - a) + (c * c - s * s) * b;
        if k + 1 < high {
            (x, z) = (e[k], s * e[k + 1]);
            e[k + 1] *= c;
        }
        let (first, second) = vectors[k * width..(k + 2) * width].split_at_mut(width);
        for (p, q) in first.iter_mut().zip(second) {
            (*p, *q) = (c * *p + s * *q, c * *q - s * *p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Isa;
    use crate::rng::Stream;

    /// A v = λ v, orthonormal v, λ in order.
    fn check(matrix: &[f64], width: usize) -> Vec<f64> {
        let (values, vectors) = eigenvectors(matrix.to_vec(), width).unwrap();
        let size = dot(matrix, matrix).sqrt();
        // Backward stable: errors of some ε · ‖A‖ · width.
        let tolerance = 1e-15 * width as f64;
        for i in 0..width {
            let v = &vectors[i * width..(i + 1) * width];
            for row in 0..width {
                let product = dot(&matrix[row * width..(row + 1) * width], v);
                assert!((product - values[i] * v[row]).abs() <= 4.0 * tolerance * size, "{i} {row}");
            }
            for j in 0..width {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((dot(v, &vectors[j * width..(j + 1) * width]) - expected).abs() < 8.0 * tolerance, "{i} {j}");
            }
        }
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]), "{values:?}");
        values
    }

    #[test]
    fn eigenvectors_are_eigenvectors() {
        for width in [1, 2, 3, 5, 17, 64] {
            let stream = Stream { seed: 3, step: 0, instance: width as u32 };
            let mut matrix = vec![0.0; width * width];
            for i in 0..width {
                for j in 0..=i {
                    matrix[i * width + j] = stream.normal(i * width + j);
                    matrix[j * width + i] = matrix[i * width + j];
                }
            }
            check(&matrix, width);
            check(&vec![0.0; width * width], width);
            // All eigenvalues but one are equal.
            check(&vec![1.0; width * width], width);
            let mut diagonal = vec![0.0; width * width];
            diagonal.iter_mut().step_by(width + 1).zip(0..).for_each(|(x, i)| *x = (i * 7 % 5) as f64);
            check(&diagonal, width);
        }
        // Known: the path of three has 2 cos(kπ/4).
        let values = check(&[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 3);
        for (value, expected) in values.iter().zip([2f64.sqrt(), 0.0, -(2f64.sqrt())]) {
            assert!((value - expected).abs() < 1e-15, "{value}");
        }
        assert!(eigenvectors(vec![f64::NAN; 9], 3).is_err());
        assert!(eigenvectors(vec![f64::INFINITY, 0.0, 0.0, 1.0], 2).is_err());
    }

    #[test]
    fn moments_do_not_depend_on_threads() {
        let (rows, width) = (37, 19);
        let stream = Stream { seed: 4, step: 0, instance: 0 };
        let table: Vec<f32> = (0..rows * width).map(|i| stream.normal(i) as f32).collect();
        let shift: Vec<f64> = (0..width).map(|i| i as f64 / 8.0).collect();
        let moments = [1, 3].map(|threads| {
            let cpu = Cpu::new(threads, Isa::Portable).unwrap();
            let mut moments = vec![1.0; width * width];
            add_moments(&cpu, &table, &shift, 0.5, &mut moments);
            moments
        });
        assert_eq!(moments[0], moments[1]);
        for i in 0..width {
            for j in 0..width {
                let at = |row: usize, k: usize| table[row * width + k] as f64 - shift[k];
                let expected = 1.0 + 0.5 * (0..rows).map(|row| at(row, i) * at(row, j)).sum::<f64>();
                assert!((moments[0][i * width + j] - expected).abs() < 1e-12, "{i} {j}");
            }
        }
    }
}
