//! A teacher's embeddings in fewer dimensions.
//!
//! The embedding block normalises e = word + position + type: it reads ê = e − mean(e) alone, and only its direction. With the
//! principal directions V of ê over the vocabulary (uncentred, as e enters), b = Q Vᵀ ê in E dimensions is a small ê: V are the
//! first E − 1 eigenvectors of the second moment, Q an orthonormal basis of what has mean 0 (Helmert's), so that the student's
//! own layer normalisation takes nothing away. Word, position and type vectors go through the same map.
//!
//! LayerNorm(e) = γ ê / σ(ê) + β is about P · normalise(b) + β with P = s · diag(γ) V Qᵀ and s = √(width / E · kept share of the
//! squares), because σ counts over other numbers of dimensions. That is where a projection behind the student's embeddings
//! begins if it leads into the teacher's width: copied layers then read about what they were trained to read.

use super::principal::{add_moments, eigenvectors};
use crate::device::cpu::Cpu;
use crate::error::Result;

/// Rows that one thread maps at a time.
const ROWS: usize = 256;

/// A map from a teacher's embeddings to smaller ones.
pub struct Reduction {
    /// Q Vᵀ, `[E, width]`.
    basis: Vec<f64>,
    width: usize,
    /// s: how much larger the teacher's normalised vectors are.
    scale: f64,
}

impl Reduction {
    /// The best one into `size` dimensions for these word, position and type vectors of width `width`.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn new(cpu: &Cpu, tables: [&[f32]; 3], width: usize, size: usize) -> Result<Reduction> {
        let [_, positions, types] = tables;
        let means = [mean(positions, width), mean(types, width)];
        let common = means[0].iter().zip(&means[1]).map(|(p, t)| -p - t).collect();
        let shifts: Vec<Vec<f64>> = std::iter::once(common).chain(means).collect();
        let mut moments = vec![0.0; width * width];
        for (table, shift) in tables.into_iter().zip(&shifts) {
            let rows = (table.len() / width).max(1);
            add_moments(cpu, table, shift, 1.0 / rows as f64, &mut moments);
        }
        // Without the mean of each vector: from both sides.
        for row in moments.chunks_exact_mut(width) {
            centre(row);
        }
        for column in 0..width {
            let mean = moments.iter().skip(column).step_by(width).sum::<f64>() / width as f64;
            moments.iter_mut().skip(column).step_by(width).for_each(|x| *x -= mean);
        }
        let (values, vectors) = eigenvectors(moments, width)?;
        let total: f64 = values.iter().sum();
        let kept: f64 = values.iter().take(size - 1).sum();
        let share = if total > 0.0 { (kept / total).clamp(0.0, 1.0) } else { 1.0 };
        let mut basis = vec![0.0; size * width];
        for (row, basis) in basis.chunks_exact_mut(width).enumerate() {
            for (column, vector) in vectors.chunks_exact(width).take(size - 1).enumerate() {
                let factor = helmert(row, column);
                basis.iter_mut().zip(vector).for_each(|(sum, x)| *sum += factor * x);
            }
        }
        Ok(Reduction { basis, width, scale: (width as f64 / size as f64 * share).sqrt() })
    }

    /// The rows of a table, each mapped: `[rows, E]`.
    pub fn table(&self, cpu: &Cpu, table: &[f32]) -> Vec<f32> {
        let pieces: Vec<&[f32]> = table.chunks(ROWS * self.width).collect();
        let mapped = cpu.map(&pieces, |piece| {
            let mut out = Vec::new();
            for row in piece.chunks_exact(self.width) {
                let mut row: Vec<f64> = row.iter().map(|x| *x as f64).collect();
                centre(&mut row);
                let dot = |basis: &[f64]| basis.iter().zip(&row).map(|(b, x)| b * x).sum::<f64>() as f32;
                out.extend(self.basis.chunks_exact(self.width).map(dot));
            }
            out
        });
        mapped.concat()
    }

    /// P `[out, E]` and its bias `[out]` for normalisation (γ, β) `[width]` and the teacher's own projection, weight
    /// `[out, width]` and bias, if it has one (else out = width).
    pub fn projection(&self, norm: [&[f32]; 2], own: Option<[&[f32]; 2]>) -> (Vec<f32>, Vec<f32>) {
        let [gamma, beta] = norm;
        let rows = own.map_or(self.width, |[_, bias]| bias.len());
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for out in 0..rows {
            // Row `out` of the teacher's projection, or of the identity.
            let row: Vec<f64> = match own {
                Some([weight, _]) => weight.iter().skip(out * self.width).take(self.width).map(|x| *x as f64).collect(),
                None => (0..self.width).map(|column| f64::from(u8::from(column == out))).collect(),
            };
            let with = |vector: &[f32]| row.iter().zip(vector).map(|(a, x)| a * *x as f64).collect::<Vec<f64>>();
            let scaled = with(gamma);
            let dot = |basis: &[f64]| basis.iter().zip(&scaled).map(|(b, a)| b * a).sum::<f64>();
            weight.extend(self.basis.chunks_exact(self.width).map(|basis| (self.scale * dot(basis)) as f32));
            let own = own.and_then(|[_, bias]| bias.get(out)).map_or(0.0, |x| *x as f64);
            bias.push((with(beta).iter().sum::<f64>() + own) as f32);
        }
        (weight, bias)
    }
}

/// The mean of the rows of a table.
fn mean(table: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    let rows = (table.len() / width).max(1) as f64;
    for row in table.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += *x as f64 / rows);
    }
    sums
}

/// Subtracts its mean from a vector.
fn centre(vector: &mut [f64]) {
    let mean = vector.iter().sum::<f64>() / vector.len().max(1) as f64;
    vector.iter_mut().for_each(|x| *x -= mean);
}

/// An element of Helmert's matrix: column j, from 0, has j + 1 equal numbers and one that makes its sum 0.
fn helmert(row: usize, column: usize) -> f64 {
    let n = (column + 1) as f64;
    let norm = (n * (n + 1.0)).sqrt();
    match row {
        _ if row <= column => 1.0 / norm,
        _ if row == column + 1 => -n / norm,
        _ => 0.0,
    }
}
