//! safetensors files, read and written.
//!
//! - [`TensorFile`]: a memory-mapped file. Its header is checked as a whole (by the crate `safetensors`: overlaps,
//!   holes, overflow, sizes against dtype and shape) before anything the size of a tensor is allocated.
//!   Values are converted on reading: F16, BF16, F32 and F64 to f32 or f64, integers to i64. The bytes of a tensor
//!   may lie at any address: they are read one element at a time. Only [`TensorFile::lend_f32`] takes them as they lie,
//!   if they lie right.
//! - [`write()`]: one pass from the caller's slices to the disk, atomic, with the metadata Hugging Face asks for.
//!
//! Finite values: [`TensorFile::read_f32_into`], which loads weights, refuses NaN and infinities;
//! [`TensorFile::read_f32`], [`TensorFile::read_f64`] and [`TensorFile::lend_f32`] give what is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::Metadata;

use crate::error::{Error, Result};
use crate::interop::{atomic, mapped};

pub use safetensors::Dtype;

/// The length of the header stands in the first eight bytes.
const PREFIX_BYTES: usize = 8;
/// The format's own limit for the header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const DAMAGED: &str = "truncated or damaged: fetch or copy the file again";

/// What the header says about one tensor.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Its extents; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    bytes: Range<usize>,
}

/// An open, memory-mapped safetensors file.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Arc<Mmap>,
    /// In the order of their bytes.
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Opens `path` and checks its header.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
        let status = file.metadata().map_err(|source| Error::io("read", path, source))?;
        if !status.is_file() {
            return Err(Error::input(path, None, "not a file: a safetensors file is expected here"));
        }
        if status.len() < PREFIX_BYTES as u64 {
            return Err(Error::input(path, None, format!("{} bytes are no safetensors file; {DAMAGED}", status.len())));
        }
        let map = Arc::new(mapped::map(&file, path)?);
        let (header, data_start) = split_header(path, &map)?;
        let header: Metadata = serde_json::from_slice(header).map_err(|error| {
            Error::input(path, None, format!("the safetensors header is wrong ({error}); {DAMAGED}"))
        })?;
        let data_bytes = map.len() - data_start;
        if header.data_len() != data_bytes {
            let message = format!("the header speaks of {} bytes of tensors, {data_bytes} follow", header.data_len());
            return Err(Error::input(path, None, format!("{message}; {DAMAGED}")));
        }
        let mut tensors = Vec::new();
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            let (start, end) = info.data_offsets;
            if start > end || end > data_bytes {
                return Err(Error::tensor(path, name, format!("lies outside of the file; {DAMAGED}")));
            }
            let bytes = data_start + start..data_start + end;
            tensors.push(TensorInfo { name, dtype: info.dtype, shape: info.shape.clone(), bytes });
        }
        let by_name = tensors.iter().enumerate().map(|(index, info)| (info.name.clone(), index)).collect();
        let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(TensorFile { path: path.to_path_buf(), map, tensors, by_name, metadata })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors, in the order of their bytes.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The names of all tensors, in the order of their bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|info| info.name.as_str())
    }

    /// The file's own `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Is there a tensor of this name?
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Shape and dtype of a tensor; an error if there is none of this name.
    pub fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.by_name
            .get(name)
            .and_then(|&index| self.tensors.get(index))
            .ok_or_else(|| Error::tensor(&self.path, name, self.missing_message()))
    }

    /// The stored bytes of a tensor, little-endian, at any alignment.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let info = self.info(name)?;
        self.map
            .get(info.bytes.clone())
            .ok_or_else(|| Error::tensor(&self.path, name, format!("lies outside of the file; {DAMAGED}")))
    }

    /// Shape and values as f32, from F32, F16, BF16 or F64 (rounded to nearest). NaN and infinities are kept.
    pub fn read_f32(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let info = self.info(name)?;
        let bytes = self.bytes(name)?;
        let values = self.floats(info, bytes, |value| value as f32, |value| value)?;
        Ok((info.shape.clone(), values))
    }

    /// Shape and values as f64, from F64, F32, F16 or BF16. NaN and infinities are kept.
    pub fn read_f64(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        let info = self.info(name)?;
        let bytes = self.bytes(name)?;
        let values = self.floats(info, bytes, |value| value, f64::from)?;
        Ok((info.shape.clone(), values))
    }

    /// The values of a weight where they lie, without a copy; None if they do not lie there as f32 of this machine. Nothing
    /// is said about NaN: see [`TensorFile::check_finite`]. The file stays mapped as long as they live.
    pub fn lend_f32(&self, name: &str) -> Result<Option<Lent>> {
        let info = self.info(name)?;
        let lies_right = info.dtype == Dtype::F32 && cfg!(target_endian = "little");
        if !lies_right || bytemuck::try_cast_slice::<u8, f32>(self.bytes(name)?).is_err() {
            return Ok(None);
        }
        Ok(Some(Lent { map: self.map.clone(), bytes: info.bytes.clone() }))
    }

    /// # Errors
    /// NaN and infinities among the values of a weight, of which these are those from `start` on.
    pub fn check_finite(&self, name: &str, start: usize, values: &[f32]) -> Result<()> {
        /// All of them are set in NaN and infinities, and in nothing else.
        const EXPONENT: u32 = 0x7f80_0000;
        // Without a way out of the loop, so that it is vectorised.
        let bad = values.iter().fold(false, |bad, value| bad | (value.to_bits() & EXPONENT == EXPONENT));
        let Some(index) = bad.then(|| values.iter().position(|value| !value.is_finite())).flatten() else {
            return Ok(());
        };
        let message = format!(
            "element {} is {} as f32; the file is damaged or its training diverged: take another copy",
            start + index,
            values.get(index).copied().unwrap_or(f32::NAN)
        );
        Err(Error::tensor(&self.path, name, message))
    }

    /// Reads a weight of the shape `expected` into `out`: another shape, a NaN or an infinity is an error.
    pub fn read_f32_into(&self, name: &str, expected: &[usize], out: &mut [f32]) -> Result<()> {
        let info = self.info(name)?;
        if info.shape != expected {
            let message = format!(
                "has shape {:?}, the model wants {expected:?}; check that configuration and weights belong together",
                info.shape
            );
            return Err(Error::tensor(&self.path, name, message));
        }
        let bytes = self.bytes(name)?;
        let elements = count(expected).unwrap_or(usize::MAX);
        if elements != out.len() {
            return Err(Error::shape("read_f32_into", format!("{name}: {elements} values into {}", out.len())));
        }
        match info.dtype {
            Dtype::F32 => fill(bytes, out, f32::from_le_bytes),
            Dtype::F16 => fill(bytes, out, |pair| f16::from_le_bytes(pair).to_f32()),
            Dtype::BF16 => fill(bytes, out, |pair| bf16::from_le_bytes(pair).to_f32()),
            Dtype::F64 => fill(bytes, out, |eight| f64::from_le_bytes(eight) as f32),
            _ => return Err(self.wrong_dtype(info, "real numbers (F32, F16, BF16, F64)")),
        }
        self.check_finite(name, 0, out)
    }

    /// Shape and values of a tensor of integers (or booleans) of any width.
    pub fn read_i64(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        let info = self.info(name)?;
        let bytes = self.bytes(name)?;
        let values = match info.dtype {
            Dtype::I64 => collect(bytes, i64::from_le_bytes),
            Dtype::I32 => collect(bytes, |x| i64::from(i32::from_le_bytes(x))),
            Dtype::I16 => collect(bytes, |x| i64::from(i16::from_le_bytes(x))),
            Dtype::I8 => collect(bytes, |x| i64::from(i8::from_le_bytes(x))),
            Dtype::U32 => collect(bytes, |x| i64::from(u32::from_le_bytes(x))),
            Dtype::U16 => collect(bytes, |x| i64::from(u16::from_le_bytes(x))),
            Dtype::U8 => collect(bytes, |[x]: [u8; 1]| i64::from(x)),
            Dtype::BOOL => collect(bytes, |[x]: [u8; 1]| i64::from(x != 0)),
            Dtype::U64 => {
                let values = collect(bytes, |x| i64::try_from(u64::from_le_bytes(x)));
                let values: std::result::Result<Vec<i64>, _> = values.into_iter().collect();
                values.map_err(|_| Error::tensor(&self.path, name, "holds an unsigned number above 2^63 - 1"))?
            }
            _ => return Err(self.wrong_dtype(info, "integers")),
        };
        Ok((info.shape.clone(), values))
    }

    /// `wide` takes a stored F64, `narrow` everything that fits f32 exactly.
    fn floats<T>(&self, info: &TensorInfo, bytes: &[u8], wide: fn(f64) -> T, narrow: fn(f32) -> T) -> Result<Vec<T>> {
        match info.dtype {
            Dtype::F32 => Ok(collect(bytes, |x| narrow(f32::from_le_bytes(x)))),
            Dtype::F16 => Ok(collect(bytes, |x| narrow(f16::from_le_bytes(x).to_f32()))),
            Dtype::BF16 => Ok(collect(bytes, |x| narrow(bf16::from_le_bytes(x).to_f32()))),
            Dtype::F64 => Ok(collect(bytes, |x| wide(f64::from_le_bytes(x)))),
            _ => Err(self.wrong_dtype(info, "real numbers (F32, F16, BF16, F64)")),
        }
    }

    fn wrong_dtype(&self, info: &TensorInfo, wanted: &str) -> Error {
        let message =
            format!("is stored as {}, expected are {wanted}: convert it with the software that wrote it", info.dtype);
        Error::tensor(&self.path, info.name.as_str(), message)
    }

    fn missing_message(&self) -> String {
        let mut message = format!("is missing; the file holds {} tensors", self.tensors.len());
        for (index, name) in self.names().take(3).enumerate() {
            let _ = write!(message, "{}{name}", if index == 0 { ", the first are " } else { ", " });
        }
        message
    }
}

/// Values in a mapped file.
#[derive(Debug, Clone)]
pub struct Lent {
    map: Arc<Mmap>,
    bytes: Range<usize>,
}

impl AsRef<[f32]> for Lent {
    fn as_ref(&self) -> &[f32] {
        // Range and alignment were checked when it was made.
        self.map.get(self.bytes.clone()).and_then(|bytes| bytemuck::try_cast_slice(bytes).ok()).unwrap_or_default()
    }
}

/// The header's bytes, and where the data begins.
fn split_header<'a>(path: &Path, map: &'a [u8]) -> Result<(&'a [u8], usize)> {
    let damaged = |what: String| Error::input(path, None, format!("{what}; {DAMAGED}"));
    let (prefix, rest) = map.split_first_chunk::<PREFIX_BYTES>().ok_or_else(|| damaged("too short".into()))?;
    let length = u64::from_le_bytes(*prefix);
    if length > MAX_HEADER_BYTES {
        return Err(damaged(format!("not a safetensors file, or its header of {length} bytes is too large")));
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let header = header.ok_or_else(|| damaged(format!("the header of {length} bytes is longer than the file")))?;
    Ok((header, PREFIX_BYTES + header.len()))
}

fn fill<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    for (value, element) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = convert(*element);
    }
}

fn collect<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|element| convert(*element)).collect()
}

fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}

/// The values of a tensor to be written.
#[derive(Debug, Clone, Copy)]
pub enum TensorData<'a> {
    /// f32
    F32(&'a [f32]),
    /// f64
    F64(&'a [f64]),
    /// The bits of IEEE half precision numbers.
    F16(&'a [u16]),
    /// The bits of bfloat16 numbers.
    BF16(&'a [u16]),
    /// i64
    I64(&'a [i64]),
    /// i32
    I32(&'a [i32]),
    /// u8
    U8(&'a [u8]),
}

impl TensorData<'_> {
    fn len(&self) -> usize {
        match self {
            TensorData::F32(x) => x.len(),
            TensorData::F64(x) => x.len(),
            TensorData::F16(x) | TensorData::BF16(x) => x.len(),
            TensorData::I64(x) => x.len(),
            TensorData::I32(x) => x.len(),
            TensorData::U8(x) => x.len(),
        }
    }

    /// Name and bytes per element.
    fn dtype(&self) -> (&'static str, usize) {
        match self {
            TensorData::F32(_) => ("F32", 4),
            TensorData::F64(_) => ("F64", 8),
            TensorData::F16(_) => ("F16", 2),
            TensorData::BF16(_) => ("BF16", 2),
            TensorData::I64(_) => ("I64", 8),
            TensorData::I32(_) => ("I32", 4),
            TensorData::U8(_) => ("U8", 1),
        }
    }

    #[cfg(target_endian = "little")]
    fn write_to(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        match *self {
            TensorData::F32(x) => writer.write_all(bytemuck::cast_slice(x)),
            TensorData::F64(x) => writer.write_all(bytemuck::cast_slice(x)),
            TensorData::F16(x) | TensorData::BF16(x) => writer.write_all(bytemuck::cast_slice(x)),
            TensorData::I64(x) => writer.write_all(bytemuck::cast_slice(x)),
            TensorData::I32(x) => writer.write_all(bytemuck::cast_slice(x)),
            TensorData::U8(x) => writer.write_all(x),
        }
    }

    #[cfg(target_endian = "big")]
    fn write_to(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        match *self {
            TensorData::F32(x) => x.iter().try_for_each(|v| writer.write_all(&v.to_le_bytes())),
            TensorData::F64(x) => x.iter().try_for_each(|v| writer.write_all(&v.to_le_bytes())),
            TensorData::F16(x) | TensorData::BF16(x) => x.iter().try_for_each(|v| writer.write_all(&v.to_le_bytes())),
            TensorData::I64(x) => x.iter().try_for_each(|v| writer.write_all(&v.to_le_bytes())),
            TensorData::I32(x) => x.iter().try_for_each(|v| writer.write_all(&v.to_le_bytes())),
            TensorData::U8(x) => writer.write_all(x),
        }
    }
}

/// Writes `tensors` (name, shape, values) to `path`, atomically and without a second copy of the values.
///
/// `metadata` becomes the file's `__metadata__`; `"format": "pt"` is added, because Hugging Face's loader refuses a
/// file without it. Wide elements come first, so that every tensor lies at a multiple of its element's size.
pub fn write(
    path: impl AsRef<Path>,
    tensors: &[(&str, &[usize], TensorData)],
    metadata: Option<&BTreeMap<String, String>>,
) -> Result<()> {
    let path = path.as_ref();
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, _, data)| std::cmp::Reverse(data.dtype().1));

    let mut all_metadata = metadata.cloned().unwrap_or_default();
    all_metadata.entry("format".to_string()).or_insert_with(|| "pt".to_string());
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_string(), serde_json::json!(all_metadata));
    let mut names = HashSet::new();
    let mut offset = 0usize;
    for (name, shape, data) in &order {
        if *name == "__metadata__" || !names.insert(*name) {
            return Err(Error::tensor(path, *name, "cannot be written: the name is reserved or given twice"));
        }
        let elements = count(shape).filter(|&elements| elements == data.len());
        let end =
            elements.and_then(|elements| elements.checked_mul(data.dtype().1)).and_then(|n| n.checked_add(offset));
        let Some(end) = end else {
            return Err(Error::tensor(path, *name, format!("shape {shape:?} does not fit {} values", data.len())));
        };
        let entry = serde_json::json!({"dtype": data.dtype().0, "shape": shape, "data_offsets": [offset, end]});
        header.insert(name.to_string(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // Spaces up to a multiple of eight, as the format asks: the data then starts aligned.
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > MAX_HEADER_BYTES {
        return Err(Error::input(path, None, format!("a header of {} bytes cannot be written", header.len())));
    }
    atomic::write_file(path, |writer| {
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(&header)?;
        order.iter().try_for_each(|(_, _, data)| data.write_to(writer))
    })
}
