//! The matrix product behind one function: C[m, n] (+)= A[m, k] · B[k, n], any strides.
//!
//! B is packed into panels of NR columns; C is cut into blocks of rows and groups of panels, one task each. K is run
//! through in order, in chunks of [`DEPTH`] that depend on K alone: one element of C has the same bits whatever the
//! other rows and columns, the thread, and the place in the batch (DESIGN, decision 7). The instruction set changes
//! them (fused or separate multiply and add).

#[cfg(target_arch = "x86_64")]
use super::gemm_kernels::{Avx2, Avx512};
use super::gemm_kernels::{Kernel, Portable};
use super::{Cpu, Isa, Shared};

/// Depth of one pass through K: a panel of B (48 columns) then takes 96 KB and stays in the second-level cache.
const DEPTH: usize = 512;
/// Rows of C in one task.
const BLOCK_ROWS: usize = 64;

/// A matrix in memory: element (i, j) is `data[i · row_stride + j · column_stride]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix whose rows are `stride` apart.
    pub fn rows(data: &'a [f32], stride: usize) -> Matrix<'a> {
        Matrix { data, row_stride: stride, column_stride: 1 }
    }

    /// The same matrix with rows and columns exchanged.
    pub fn transposed(self) -> Matrix<'a> {
        Matrix { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    /// Whether every element of an `m` × `n` matrix lies inside `data`.
    fn holds(&self, m: usize, n: usize) -> bool {
        if m == 0 || n == 0 {
            return true;
        }
        // Checked: strides are public, and a product that wraps must not pass for a small one.
        let (rows, columns) = ((m - 1).checked_mul(self.row_stride), (n - 1).checked_mul(self.column_stride));
        let last = rows.zip(columns).and_then(|(rows, columns)| rows.checked_add(columns));
        last.is_some_and(|last| last < self.data.len())
    }
}

/// What becomes of the old content of C.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// C = A · B.
    Replace,
    /// C = C + A · B.
    Add,
}

impl Write {
    /// `Add` if `accumulate`.
    pub fn accumulating(accumulate: bool) -> Write {
        if accumulate { Write::Add } else { Write::Replace }
    }
}

impl Cpu {
    /// C[m, n] (+)= A[m, k] · B[k, n]; C is row-major without gaps. Does nothing if a slice is too small for its
    /// shape: the ops check shapes, with better messages, before they come here.
    pub fn gemm(&self, m: usize, n: usize, k: usize, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], write: Write) {
        if m == 0 || n == 0 || m.checked_mul(n).is_none_or(|size| c.len() < size) || !a.holds(m, k) || !b.holds(k, n) {
            debug_assert!(m == 0 || n == 0, "gemm: slices too small for {m} x {n} x {k}");
            return;
        }
        match self.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => self.gemm_with::<Avx512>(m, n, k, a, b, c, write),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => self.gemm_with::<Avx2>(m, n, k, a, b, c, write),
            _ => self.gemm_with::<Portable>(m, n, k, a, b, c, write),
        }
    }

    fn gemm_with<K: Kernel>(
        &self,
        m: usize,
        n: usize,
        k: usize,
        a: Matrix<'_>,
        b: Matrix<'_>,
        c: &mut [f32],
        write: Write,
    ) {
        let panels = n.div_ceil(K::NR);
        let mut packed = self.scratch(panels * k * K::NR);
        {
            let packed = Shared::new(&mut packed);
            self.parallel(panels, |panel| {
                // SAFETY: each task writes its own panel.
                let target = unsafe { packed.slice(panel * k * K::NR, k * K::NR) };
                pack_panel::<K>(k, n, panel * K::NR, b, target);
            });
        }
        let blocks = m.div_ceil(BLOCK_ROWS);
        // With few rows the columns are shared out too. Any cut gives the same bits.
        let groups = if blocks >= 4 * self.threads() { 1 } else { (4 * self.threads() / blocks).clamp(1, panels) };
        let shared = Shared::new(c);
        self.parallel(blocks * groups, |task| {
            let (block, group) = (task / groups, task % groups);
            let rows = block * BLOCK_ROWS..m.min((block + 1) * BLOCK_ROWS);
            let columns = group * panels / groups..(group + 1) * panels / groups;
            // SAFETY: tasks write disjoint blocks of C, all inside it (its size was checked by `gemm`).
            unsafe { multiply_block::<K>(rows, columns, n, k, a, &packed, shared, write) };
        });
    }

    /// The same on the caller's thread alone, for the tiles of attention: `packed` is scratch of at least
    /// [`Cpu::tile_scratch`] floats, C's rows are `ldc` apart.
    pub fn gemm_tile(
        &self,
        m: usize,
        n: usize,
        k: usize,
        a: Matrix<'_>,
        b: Matrix<'_>,
        c: &mut [f32],
        ldc: usize,
        write: Write,
        packed: &mut [f32],
    ) {
        let size = (m.max(1) - 1).checked_mul(ldc).and_then(|rows| rows.checked_add(n));
        let fits = size.is_some_and(|size| c.len() >= size) && ldc >= n && packed.len() >= Self::tile_scratch(n, k);
        if m == 0 || n == 0 || !fits || !a.holds(m, k) || !b.holds(k, n) {
            debug_assert!(m == 0 || n == 0, "gemm_tile: slices too small for {m} x {n} x {k}");
            return;
        }
        match self.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => tile_with::<Avx512>(m, n, k, a, b, c, ldc, write, packed),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => tile_with::<Avx2>(m, n, k, a, b, c, ldc, write, packed),
            _ => tile_with::<Portable>(m, n, k, a, b, c, ldc, write, packed),
        }
    }

    /// Scratch that [`Cpu::gemm_tile`] needs for a B of `k` × `n`.
    pub fn tile_scratch(n: usize, k: usize) -> usize {
        n.div_ceil(48) * 48 * k
    }
}

fn tile_with<K: Kernel>(
    m: usize,
    n: usize,
    k: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: &mut [f32],
    ldc: usize,
    write: Write,
    packed: &mut [f32],
) {
    let panels = n.div_ceil(K::NR);
    for panel in 0..panels {
        pack_panel::<K>(k, n, panel * K::NR, b, &mut packed[panel * k * K::NR..][..k * K::NR]);
    }
    // SAFETY: `gemm_tile` has checked all sizes; C is borrowed by this call alone.
    unsafe { multiply_rows::<K>(0..m, 0..panels, n, k, a, packed, Shared::new(c), ldc, write) };
}

/// Copies columns `first .. first + NR` of B into `[k][NR]`, zeros beyond its edge.
fn pack_panel<K: Kernel>(k: usize, n: usize, first: usize, b: Matrix<'_>, target: &mut [f32]) {
    if k == 0 {
        return;
    }
    let width = K::NR.min(n - first);
    if b.column_stride == 1 {
        for (row, target) in target.chunks_exact_mut(K::NR).enumerate() {
            let start = row * b.row_stride + first;
            target[..width].copy_from_slice(&b.data[start..start + width]);
            target[width..].fill(0.0);
        }
        return;
    }
    if width < K::NR {
        target.fill(0.0);
    }
    for j in 0..width {
        let column = &b.data[(first + j) * b.column_stride..];
        if b.row_stride == 1 {
            for (target, value) in target[j..].iter_mut().step_by(K::NR).zip(&column[..k]) {
                *target = *value;
            }
        } else {
            for (target, value) in target[j..].iter_mut().step_by(K::NR).zip(column.iter().step_by(b.row_stride)) {
                *target = *value;
            }
        }
    }
}

/// # Safety
/// As for [`multiply_rows`].
unsafe fn multiply_block<K: Kernel>(
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    n: usize,
    k: usize,
    a: Matrix<'_>,
    packed: &[f32],
    c: Shared<'_, f32>,
    write: Write,
) {
    // SAFETY: passed on.
    unsafe { multiply_rows::<K>(rows, panels, n, k, a, packed, c, n, write) }
}

/// The product for some rows and some panels of columns.
///
/// # Safety
/// A holds `rows.end` × `k`, `packed` holds `panels.end` panels of depth `k`, C holds `rows.end` rows of `n` at
/// distance `ldc`; nobody else touches these rows and columns of C; the processor has K's instruction set.
unsafe fn multiply_rows<K: Kernel>(
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    n: usize,
    k: usize,
    a: Matrix<'_>,
    packed: &[f32],
    c: Shared<'_, f32>,
    ldc: usize,
    write: Write,
) {
    let mut edge = [0.0f32; 8 * 48];
    let mut start = 0;
    // An empty sum is zero: with k = 0 one pass of depth 0 still writes.
    loop {
        let depth = DEPTH.min(k - start);
        let accumulate = start > 0 || write == Write::Add;
        for panel in panels.clone() {
            let width = K::NR.min(n - panel * K::NR);
            let b = packed[panel * k * K::NR + start * K::NR..].as_ptr();
            for first in rows.clone().step_by(K::MR) {
                let height = K::MR.min(rows.end - first);
                let mut a_rows = [a.data.as_ptr(); 8];
                for (i, pointer) in a_rows.iter_mut().enumerate() {
                    // Rows beyond the edge repeat the last one; their sums are dropped.
                    let row = first + i.min(height - 1);
                    *pointer = a.data.as_ptr().wrapping_add(row * a.row_stride + start * a.column_stride);
                }
                let target = c.pointer(first * ldc + panel * K::NR);
                if height == K::MR && width == K::NR {
                    // SAFETY: a full tile inside C; A and B are in range by this function's contract.
                    unsafe { K::tile(depth, &a_rows, a.column_stride, b, target, ldc, accumulate) };
                } else {
                    // SAFETY: the tile goes to `edge`, which has room for MR · NR floats.
                    unsafe { K::tile(depth, &a_rows, a.column_stride, b, edge.as_mut_ptr(), K::NR, false) };
                    for i in 0..height {
                        // SAFETY: row `first + i` and these columns are inside C and ours.
                        let target = unsafe { std::slice::from_raw_parts_mut(target.add(i * ldc), width) };
                        for (target, value) in target.iter_mut().zip(&edge[i * K::NR..]) {
                            *target = if accumulate { *target + *value } else { *value };
                        }
                    }
                }
            }
        }
        start += depth;
        if start >= k {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn machines() -> Vec<Cpu> {
        let all = [Isa::Portable, Isa::Avx2, Isa::Avx512];
        let usable = all.into_iter().filter(|isa| *isa <= Isa::detect());
        usable.flat_map(|isa| [Cpu::new(1, isa).unwrap(), Cpu::new(3, isa).unwrap()]).collect()
    }

    #[test]
    fn products_of_all_shapes_and_layouts_agree_with_f64() {
        for cpu in machines() {
            for (m, n, k) in
                [(1, 1, 1), (1, 48, 7), (8, 48, 512), (9, 49, 513), (65, 3, 1100), (130, 97, 33), (3, 5, 0)]
            {
                let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
                let start = numbers(m * n, 3);
                let transpose = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                    (0..rows * columns).map(|i| x[(i % rows) * columns + i / rows]).collect()
                };
                let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
                for (a_matrix, b_matrix) in [
                    (Matrix::rows(&a, k), Matrix::rows(&b, n)),
                    (Matrix::rows(&a, k), Matrix::rows(&bt, k).transposed()),
                    (Matrix::rows(&at, m).transposed(), Matrix::rows(&b, n)),
                ] {
                    for write in [Write::Replace, Write::Add] {
                        let mut c = start.clone();
                        cpu.gemm(m, n, k, a_matrix, b_matrix, &mut c, write);
                        for i in 0..m {
                            for j in 0..n {
                                let mut sum: f64 = (0..k).map(|x| a[i * k + x] as f64 * b[x * n + j] as f64).sum();
                                if write == Write::Add {
                                    sum += start[i * n + j] as f64;
                                }
                                let error = (c[i * n + j] as f64 - sum).abs();
                                assert!(error < 1e-5 * (1.0 + k as f64).sqrt(), "{cpu:?} {m}x{n}x{k} at {i},{j}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_bits_of_an_element_depend_on_k_alone() {
        for cpu in machines() {
            let (m, n, k) = (77, 101, 1300);
            let (a, b) = (numbers(m * k, 4), numbers(k * n, 5));
            let mut whole = vec![0.0; m * n];
            cpu.gemm(m, n, k, Matrix::rows(&a, k), Matrix::rows(&b, n), &mut whole, Write::Replace);
            for row in [0, 5, 63, 64, 76] {
                let mut one = vec![0.0; n];
                cpu.gemm(1, n, k, Matrix::rows(&a[row * k..], k), Matrix::rows(&b, n), &mut one, Write::Replace);
                assert_eq!(one, whole[row * n..(row + 1) * n], "{cpu:?} row {row}");
            }
            for column in [0, 47, 48, 100] {
                let mut one = vec![0.0; m];
                cpu.gemm(m, 1, k, Matrix::rows(&a, k), Matrix::rows(&b[column..], n), &mut one, Write::Replace);
                let expected: Vec<f32> = (0..m).map(|i| whole[i * n + column]).collect();
                assert_eq!(one, expected, "{cpu:?} column {column}");
            }
            let mut tile = vec![0.0; m * n];
            let mut scratch = vec![0.0; Cpu::tile_scratch(n, k)];
            let (a, b) = (Matrix::rows(&a, k), Matrix::rows(&b, n));
            cpu.gemm_tile(m, n, k, a, b, &mut tile, n, Write::Replace, &mut scratch);
            assert_eq!(tile, whole);
        }
    }
}
