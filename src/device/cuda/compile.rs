//! The kernels of `kernels/`, compiled at run time and kept on disk.
//!
//! An entry of the cache holds what one compile gave, PTX and cubin, under a name made of the hash of source, compiler
//! version and options (the architecture is one of them). It is written beside its place and renamed: two processes that
//! do so at once write the same. Each entry carries a hash of its content; one that is damaged is made anew.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::nvrtc::{self, Compiled};
use crate::device::Dtype;

/// A file of `kernels/`: name, text.
type Part = (&'static str, &'static str);

/// What is compiled as one: the name of its own file without `.cu`; the files that are put in front of it, and that.
type Source = (&'static str, &'static [Part]);

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A file of kernels, and how the numbers are stored that it calls `number`. A file alone is one for f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernels {
    /// kernels/`file`.cu.
    pub file: &'static str,
    /// What `number` stands for.
    pub numbers: Dtype,
    /// Only those for heads of up to so many numbers, of a file that has kernels for each: they take long to compile. 0: all.
    pub head: usize,
}

impl From<&'static str> for Kernels {
    fn from(file: &'static str) -> Kernels {
        (file, Dtype::F32).into()
    }
}

impl From<(&'static str, Dtype)> for Kernels {
    fn from((file, numbers): (&'static str, Dtype)) -> Kernels {
        Kernels { file, numbers, head: 0 }
    }
}

impl From<(&'static str, Dtype, usize)> for Kernels {
    fn from((file, numbers, head): (&'static str, Dtype, usize)) -> Kernels {
        Kernels { file, numbers, head }
    }
}

/// What nearly every run needs of numbers that are stored in some way: compiled at once.
pub fn usual(numbers: Dtype) -> Vec<Kernels> {
    let linear = if numbers == Dtype::F32 { "linear" } else { "linear_mma" };
    let files =
        ["layer_norm", "embedding", "activation", "cross_entropy", "dropout", "pool", "lookup", "optimizer", "vector"];
    let mut all: Vec<Kernels> = std::iter::once(linear).chain(files).map(|file| (file, numbers).into()).collect();
    if numbers != Dtype::F32 {
        // Of gradients of parameters, and of losses.
        all.extend(["vector", "optimizer"].map(Kernels::from));
    }
    all
}

/// Compiles those of `wanted` that the folder `cache` does not have yet, on all processors. What does not compile is found out
/// by who needs it.
pub fn ahead(wanted: &[Kernels], driver: u32, device: u32, cache: &Path) {
    let Ok(compiler) = nvrtc::open(driver, Some(cache)) else { return };
    let Some(architecture) = compiler.architecture(device) else { return };
    let missing = |kernels: &&Kernels| {
        let entry =
            source(**kernels).map(|source| entry(cache, **kernels, compiler.version, &options(architecture), &source));
        entry.is_some_and(|entry| !entry.exists())
    };
    let missing: Vec<Kernels> = wanted.iter().filter(missing).copied().collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(missing.len());
    if threads < 2 {
        return;
    }
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = missing.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let _ = kernels(*one, driver, device, Some(cache));
                }
            });
        }
    });
}

/// Compiles kernels for a `device` (80: sm_80) of a `driver` (12: CUDA 12), or takes them from the folder `cache`.
///
/// # Errors
/// No such file, no compiler, or what the compiler says.
pub fn kernels(kernels: Kernels, driver: u32, device: u32, cache: Option<&Path>) -> Result<Compiled, String> {
    let name = kernels.file;
    let source = source(kernels).ok_or_else(|| format!("there is no kernels/{name}.cu"))?;
    let compiler = nvrtc::open(driver, cache)?;
    let architecture = compiler.architecture(device).ok_or_else(|| {
        format!("NVRTC {}.{} compiles for no architecture up to sm_{device}", compiler.version.0, compiler.version.1)
    })?;
    let options = options(architecture);
    let entry = cache.map(|cache| entry(cache, kernels, compiler.version, &options, &source));
    if let Some(kept) = entry.as_deref().and_then(read) {
        return Ok(kept);
    }
    let compiled = compiler.compile(&format!("kernels/{name}.cu"), &source, &options)?;
    if let Some(entry) = entry {
        // A cache that cannot be written to costs time, nothing else.
        let _ = write(&entry, &compiled);
    }
    Ok(compiled)
}

fn options(architecture: u32) -> [String; 2] {
    [format!("--gpu-architecture=sm_{architecture}"), "-lineinfo".to_string()]
}

/// Where the folder `cache` has what a compile gives.
fn entry(cache: &Path, kernels: Kernels, version: (i32, i32), options: &[String], source: &str) -> PathBuf {
    let Kernels { file, numbers, .. } = kernels;
    let key = format!("{version:?}\n{}\n{source}", options.join(" "));
    cache.join("kernels").join(format!("{file}-{}-{:032x}", numbers.name(), xxh3_128(key.as_bytes())))
}

/// What stands for a compile of these kernels: the name of their entry of the cache. Empty if they cannot be compiled.
pub fn identity(kernels: Kernels, driver: u32, device: u32) -> String {
    let compiler = nvrtc::open(driver, None).ok();
    let parts =
        compiler.and_then(|compiler| Some((compiler.version, compiler.architecture(device)?, source(kernels)?)));
    let name = parts
        .map(|(version, architecture, source)| entry(Path::new(""), kernels, version, &options(architecture), &source));
    name.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())).unwrap_or_default()
}

/// The text that is compiled: what numbers are, what is shared, and the file's own, each line with its name and number.
fn source(kernels: Kernels) -> Option<String> {
    let (_, parts) = KERNELS.iter().find(|(name, _)| *name == kernels.file)?;
    let number = match kernels.numbers {
        Dtype::F32 => "#define NUMBER_F32\n",
        Dtype::Bf16 => "#define NUMBER_BF16\n",
        Dtype::F16 => "#define NUMBER_F16\n",
    };
    let parts = parts.iter().map(|(name, text)| format!("#line 1 \"kernels/{name}\"\n{text}\n"));
    let head = if kernels.head > 0 { format!("#define ONLY_HEAD {}\n", kernels.head) } else { String::new() };
    Some([number.to_string(), head].into_iter().chain(parts).collect())
}

/// The names of all files of `kernels/`.
#[cfg(test)]
fn files() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|(name, _)| *name)
}

const MAGIC: &[u8; 8] = b"MHKERN1\n";

fn encode(compiled: &Compiled) -> Vec<u8> {
    let mut body = (compiled.ptx.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(&compiled.ptx);
    body.extend_from_slice(&compiled.cubin);
    let mut all = MAGIC.to_vec();
    all.extend_from_slice(&xxh3_64(&body).to_le_bytes());
    all.extend(body);
    all
}

fn decode(bytes: &[u8]) -> Option<Compiled> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (hash, body) = rest.split_at_checked(8)?;
    if hash != xxh3_64(body).to_le_bytes() {
        return None;
    }
    let (len, body) = body.split_at_checked(8)?;
    let (ptx, cubin) = body.split_at_checked(usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?)?;
    Some(Compiled { ptx: ptx.to_vec(), cubin: cubin.to_vec() })
}

fn read(entry: &Path) -> Option<Compiled> {
    std::fs::read(entry).ok().and_then(|bytes| decode(&bytes))
}

fn write(entry: &Path, compiled: &Compiled) -> std::io::Result<()> {
    replace(entry, &encode(compiled))
}

/// Writes an entry of the cache beside its place, and renames it.
pub fn replace(entry: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    if let Some(folder) = entry.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut name = entry.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{number}.tmp", std::process::id()));
    let temporary: PathBuf = entry.with_file_name(name);
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, entry));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("deeper/name");
        let compiled = Compiled { ptx: b"text\0".to_vec(), cubin: (0..=255).collect() };
        write(&entry, &compiled).unwrap();
        assert_eq!(read(&entry), Some(compiled.clone()));
        let whole = std::fs::read(&entry).unwrap();
        for at in [0, 9, 17, 30, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&whole[..at]), None, "cut at {at}");
        }
        assert_eq!(std::fs::read_dir(entry.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[cfg(all(feature = "cuda", feature = "cli"))]
    #[test]
    fn a_damaged_entry_is_made_anew_and_an_architecture_has_its_own() {
        let cache = crate::device::cache_dir(None).unwrap();
        crate::interop::fetch::nvrtc(&cache, &|message| eprintln!("{message}")).unwrap();
        nvrtc::open(13, Some(&cache)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = kernels("add".into(), 13, 80, Some(folder.path())).unwrap();
        assert!(made.ptx.ends_with(b"\0") && made.cubin.starts_with(b"\x7fELF"));
        let entries = || -> Vec<PathBuf> {
            std::fs::read_dir(folder.path().join("kernels")).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let [entry] = &entries()[..] else { panic!("{:?}", entries()) };
        let whole = std::fs::read(entry).unwrap();
        for damaged in [&whole[..whole.len() / 2], &[], b"something else"] {
            std::fs::write(entry, damaged).unwrap();
            assert_eq!(kernels("add".into(), 13, 80, Some(folder.path())).unwrap(), made);
            assert_eq!(std::fs::read(entry).unwrap(), whole);
        }
        // A device between two architectures that the compiler knows takes the older one.
        let newer = kernels("add".into(), 13, 90, Some(folder.path())).unwrap();
        assert_ne!(newer, made);
        assert_eq!(kernels("add".into(), 13, 91, Some(folder.path())).unwrap(), newer);
        assert_eq!(entries().len(), 2);
        // Two processes at once: whoever is last writes the same.
        std::fs::remove_file(&entries()[0]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(kernels("add".into(), 13, 80, Some(folder.path())).unwrap(), made));
            }
        });
        assert!(kernels("nothing".into(), 13, 80, None).unwrap_err().contains("nothing.cu"));
        assert!(kernels("add".into(), 13, 10, None).unwrap_err().contains("sm_10"));
    }

    #[cfg(all(feature = "cuda", feature = "cli"))]
    #[test]
    fn what_does_not_compile_is_named_with_its_line() {
        let cache = crate::device::cache_dir(None).unwrap();
        crate::interop::fetch::nvrtc(&cache, &|message| eprintln!("{message}")).unwrap();
        let compiler = nvrtc::open(13, Some(&cache)).unwrap();
        let options = ["--gpu-architecture=sm_80".to_string()];
        let source = "extern \"C\" __global__ void k(float* x) {\n    x[0] = y;\n}\n";
        let message = compiler.compile("kernels/wrong.cu", source, &options).unwrap_err();
        assert!(message.contains("kernels/wrong.cu(2)") && message.contains("\"y\""), "{message}");
        assert!(compiler.compile("a\0b", source, &options).is_err());
    }

    #[test]
    fn every_kernel_file_is_there_with_the_shared_one_before_it() {
        assert!(files().count() > 15 && files().any(|name| name == "linear"));
        let text = source("add".into()).unwrap();
        assert!(text.starts_with("#define NUMBER_F32\n#line 1 \"kernels/common.cuh\""));
        for name in ["linear", "linear_mma"] {
            let text = source(name.into()).unwrap();
            let place = |part: &str| text.find(&format!("#line 1 \"kernels/{part}\"")).unwrap();
            assert!(place("common.cuh") < place("linear.cuh") && place("linear.cuh") < place(&format!("{name}.cu")));
        }
        assert!(!source("lookup".into()).unwrap().contains("kernels/linear.cuh"));
        assert_eq!(source("nothing".into()), None);
        let texts = Dtype::ALL.map(|numbers| source(("add", numbers).into()).unwrap());
        assert!(texts[0] != texts[1] && texts[1] != texts[2]);
    }
}
