//! The matrix product behind one function: C[m, n] (+)= A[m, k] · B[k, n] (+ bias), any strides.
//!
//! Two forms. Where the rows of A lie in memory as rows ([`rows`]: a linear layer and its input gradient) K is a width of
//! the model, B is packed into [`Panels`] (weights: once a step), and one pass takes the whole of K. Where A lies in
//! memory as columns ([`columns`]: weight gradients, summed over tokens) both are packed and K is run through in chunks.
//! Either way one element of C has the same bits whatever the other rows and columns, the thread, and the place in the
//! batch (DESIGN, decision 7). The instruction set and the precision change them.
//!
//! With [`Precision::Bf16`] operands are rounded to bf16 while they are packed (rows of A: block by block, in each
//! task's own scratch), and sums are f32. With [`Precision::Int8`] the products of rows with [`Panels`] are those of bytes
//! ([`bytes`]), quantised while they are packed; all other products are f32.

mod bytes;
mod columns;
mod kernels;
mod pack;
mod panels;
mod pass;
mod rows;
mod small;

pub(crate) use self::bytes::MOST_K as MOST_QUANTISED;
use self::bytes::PortableBytes;
#[cfg(target_arch = "x86_64")]
use self::bytes::{Avx2Bytes, Avx2Vnni, Avx512Bytes, Avx512Vnni};
#[cfg(target_arch = "x86_64")]
use self::kernels::{Avx2, Avx512, Avx512Bf16};
use self::kernels::{Kernel, Portable, Rounded};
use super::{Cpu, Isa, Precision, Shared};
pub(crate) use columns::CHUNK;
pub use panels::Panels;
pub use pass::{Output, Tile};
pub(crate) use rows::WordRows;
pub(crate) use small::Left;

/// Rows of C in one task.
pub(crate) const BLOCK_ROWS: usize = 64;

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

/// Calls a generic method with the kernel that this CPU multiplies with where nothing is quantised; `V` registers wide
/// where they are of AVX-512.
macro_rules! with_kernel {
    ($cpu:expr, $method:ident($($argument:expr),*)) => { with_kernel!($cpu, 3, $method($($argument),*)) };
    ($cpu:expr, $v:literal, $method:ident($($argument:expr),*)) => {
        match ($cpu.isa(), $cpu.precision()) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Precision::Bf16) => $cpu.$method::<Avx512Bf16<$v>>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16 | Isa::Avx512, Precision::F32 | Precision::Tf32 | Precision::F16 | Precision::Int8) => $cpu.$method::<Avx512<$v>>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Precision::Bf16) => $cpu.$method::<Rounded<Avx512<$v>>>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::F32 | Precision::Tf32 | Precision::F16 | Precision::Int8) => $cpu.$method::<Avx2>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Bf16) => $cpu.$method::<Rounded<Avx2>>($($argument),*),
            (_, Precision::F32 | Precision::Tf32 | Precision::F16 | Precision::Int8) => $cpu.$method::<Portable>($($argument),*),
            (_, Precision::Bf16) => $cpu.$method::<Rounded<Portable>>($($argument),*),
        }
    };
}
use with_kernel;

/// The same for the rows of a linear layer and its packed weights, which are quantised in int8.
macro_rules! with_row_kernel {
    ($cpu:expr, $method:ident($($argument:expr),*)) => {
        match ($cpu.precision(), $cpu.isa(), $cpu.has_vnni()) {
            #[cfg(target_arch = "x86_64")]
            (Precision::Int8, Isa::Avx512 | Isa::Avx512Bf16, true) => $cpu.$method::<Avx512Vnni>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Precision::Int8, Isa::Avx512 | Isa::Avx512Bf16, false) => $cpu.$method::<Avx512Bytes>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Precision::Int8, Isa::Avx2, true) => $cpu.$method::<Avx2Vnni>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Precision::Int8, Isa::Avx2, false) => $cpu.$method::<Avx2Bytes>($($argument),*),
            (Precision::Int8, ..) => $cpu.$method::<PortableBytes>($($argument),*),
            _ => with_kernel!($cpu, $method($($argument),*)),
        }
    };
}
use with_row_kernel;

impl Cpu {
    /// C[m, n] (+)= A[m, k] · B[k, n]; C is row-major without gaps. Does nothing if a slice is too small for its
    /// shape: the ops check shapes, with better messages, before they come here.
    pub fn gemm(&self, m: usize, n: usize, k: usize, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], write: Write) {
        if m == 0 || n == 0 || m.checked_mul(n).is_none_or(|size| c.len() < size) || !a.holds(m, k) || !b.holds(k, n) {
            debug_assert!(m == 0 || n == 0, "gemm: slices too small for {m} x {n} x {k}");
            return;
        }
        if k == 0 {
            // An empty sum.
            if write == Write::Replace {
                c[..m * n].fill(0.0);
            }
            return;
        }
        with_kernel!(self, gemm_with(m, n, k, a, b, c, write));
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
        let mut packed = self.scratch(columns_len::<K>(k, n, K::NR));
        self.pack_columns::<K>(k, n, b, K::NR, &mut packed);
        if a.column_stride == 1 {
            self.multiply_rows::<K>(m, n, k, a, &packed, None, Output::Matrix(c, write));
        } else {
            let mut groups = self.scratch(columns_len::<K>(k, m, K::MR));
            self.pack_columns::<K>(k, m, a.transposed(), K::MR, &mut groups);
            self.multiply_columns::<K>(m, n, k, &groups, &packed, c, write);
        }
    }

    /// Packs the columns of X[k, n], `width` of them together: `[n / width][words][width]`.
    fn pack_columns<K: Kernel>(&self, k: usize, n: usize, x: Matrix<'_>, width: usize, packed: &mut [f32]) {
        // A strip is a few cache lines of each row of X.
        let strip = width * (48 / width).max(1);
        let lines = K::WORD.lines(k);
        let packed = Shared::new(packed);
        self.parallel(n.div_ceil(strip), |task| {
            let first = task * strip;
            let columns = strip.min(n - first);
            let size = lines * columns.next_multiple_of(width);
            // SAFETY: each task writes its own strip.
            let target = unsafe { packed.slice(first * lines, size) };
            pack::columns(self.isa(), K::WORD, x, 0..k, first, columns, width, target);
        });
    }
}

/// Whether `have` words hold `rows` rows of `len` words, `stride` apart.
fn spans(rows: usize, stride: usize, len: usize, have: usize) -> bool {
    rows == 0 || (rows - 1).saturating_mul(stride).saturating_add(len) <= have
}

/// Words of the packed columns of an X[k, n].
fn columns_len<K: Kernel>(k: usize, n: usize, width: usize) -> usize {
    // Too large to exist, then: no slice is long enough.
    n.checked_next_multiple_of(width).unwrap_or(usize::MAX).saturating_mul(K::WORD.lines(k))
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
        let with =
            |threads, isa| [Precision::F32, Precision::Bf16].map(|p| Cpu::new(threads, isa).unwrap().with_precision(p));
        Isa::usable().flat_map(|isa| [with(1, isa), with(3, isa)]).flatten().collect()
    }

    #[test]
    fn products_of_all_shapes_and_layouts_agree_with_f64() {
        for cpu in machines() {
            for (m, n, k) in
                [(1, 1, 1), (1, 48, 7), (8, 48, 512), (9, 49, 513), (65, 3, 1100), (130, 97, 33), (3, 5, 0)]
            {
                // Operands that bf16 holds exactly: the tolerance is that of f32 sums in both precisions.
                let exact = |x: f32| if cpu.precision() == Precision::F32 { x } else { (x * 128.0).round() / 128.0 };
                let operand = |count, seed| numbers(count, seed).into_iter().map(exact).collect::<Vec<_>>();
                let (a, b) = (operand(m * k, 1), operand(k * n, 2));
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
        }
    }
    #[test]
    fn packed_products_with_bias_go_to_a_matrix_or_to_tiles_with_the_same_bits() {
        for cpu in machines() {
            for (m, n, k) in [(1, 1, 1), (70, 130, 77), (5, 48, 640), (3, 7, 0)] {
                let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
                let mut plain = vec![0.0; m * n];
                cpu.gemm(m, n, k, Matrix::rows(&a, k), Matrix::rows(&b, n), &mut plain, Write::Replace);
                plain.iter_mut().zip(bias.iter().cycle()).for_each(|(x, bias)| *x += bias);
                let mut panels = Panels::default();
                cpu.pack(k, n, Matrix::rows(&b, n), &mut panels);
                let mut c = vec![0.0; m * n];
                let output = Output::Matrix(&mut c, Write::Replace);
                cpu.gemm_packed(m, Matrix::rows(&a, k), &panels, Some(&bias), output);
                assert_eq!(c, plain, "{cpu:?} {m}x{n}x{k}");
                let tiles = std::sync::Mutex::new(vec![f32::NAN; m * n]);
                let collect = |tile: Tile<'_>| {
                    let mut tiles = tiles.lock().unwrap();
                    for (row, values) in tile.iter() {
                        tiles[row * n..][tile.columns.clone()].copy_from_slice(values);
                    }
                };
                cpu.gemm_packed(m, Matrix::rows(&a, k), &panels, Some(&bias), Output::Tiles(&collect));
                assert_eq!(tiles.into_inner().unwrap(), plain, "{cpu:?} {m}x{n}x{k}");
                let other = cpu.with_precision(match cpu.precision() {
                    Precision::F32 => Precision::Bf16,
                    _ => Precision::F32,
                });
                assert!(panels.serves(&cpu) && !panels.serves(&other));
            }
        }
    }
}
