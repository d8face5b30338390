//! A packed right-hand operand.

use crate::device::cpu::{Cpu, Isa, Precision};
use crate::device::pages;

/// A matrix B[k, n] as the kernels of one instruction set and precision read it: made by [`Cpu::pack`], used by
/// [`Cpu::gemm_packed`] as often as its numbers stay the same.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    k: usize,
    n: usize,
    made_for: Option<(Isa, Precision)>,
    data: Vec<f32>,
}

impl Panels {
    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Whether they were packed for this instruction set and precision.
    pub fn serves(&self, cpu: &Cpu) -> bool {
        self.made_for == Some((cpu.isa(), cpu.precision()))
    }

    pub(super) fn data(&self) -> &[f32] {
        &self.data
    }

    /// Room for `words` words of a `k` × `n` matrix, to be filled.
    pub(super) fn reset(&mut self, k: usize, n: usize, cpu: &Cpu, words: usize) -> &mut [f32] {
        (self.k, self.n, self.made_for) = (k, n, Some((cpu.isa(), cpu.precision())));
        if self.data.len() != words {
            self.data = pages::zeros(words);
        }
        &mut self.data
    }
}
