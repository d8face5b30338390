//! NVRTC, NVIDIA's run-time compiler: where it is found, and one compile.

use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::nvrtc::{result, sys};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// What one compile gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Text for any driver that is new enough, with the NUL that the driver wants.
    pub ptx: Vec<u8>,
    /// The machine code of one architecture.
    pub cubin: Vec<u8>,
}

/// An NVRTC that was found and opened.
#[derive(Clone, Debug)]
pub struct Nvrtc {
    /// Major and minor.
    pub version: (i32, i32),
    architectures: Vec<u32>,
}

/// Opens NVRTC once in a process: the one that `MANYHEAD_NVRTC` names, that of a system installation, of a Python
/// environment, or of the folder `cache`/nvrtc.
///
/// # Errors
/// Where it was looked for. A later call looks again.
pub fn open(cache: Option<&Path>) -> Result<&'static Nvrtc, String> {
    static FOUND: OnceLock<Nvrtc> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let named = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    match &named {
        Some(folder) => preload(folder).map_err(|error| format!("{VARIABLE}: {error}"))?,
        None => {
            let folders = system_folders()
                .into_iter()
                .chain(python_folders())
                .chain(cache.map(cached_folders).unwrap_or_default());
            // What the loader finds by name needs no folder.
            if !is_present() && !folders.into_iter().any(|folder| preload(&folder).is_ok()) {
                return Err(format!(
                    "NVRTC (libnvrtc.so) is not in the system's folders, not in a Python environment, and not in the cache; \
                     {VARIABLE} can name its folder"
                ));
            }
        }
    }
    if !is_present() {
        return Err("NVRTC was opened, but the loader does not find it by its name".into());
    }
    let found = version_and_architectures().map_err(|error| format!("NVRTC does not answer: {error:?}"))?;
    Ok(FOUND.get_or_init(|| found))
}

/// The variable that names a folder with NVRTC and its builtins.
const VARIABLE: &str = "MANYHEAD_NVRTC";

fn is_present() -> bool {
    // SAFETY: opens NVIDIA's library, whose initialisers have no demands on the process.
    unsafe { sys::is_culib_present() }
}

/// Opens the libraries of a folder, builtins first, so that NVRTC finds them, and cudarc finds NVRTC, by their names.
fn preload(folder: &Path) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let named = |prefix: &str| -> Vec<&PathBuf> {
        let fits = |path: &&PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(prefix) && !name.contains(".alt.")
        };
        files.iter().filter(fits).collect()
    };
    let (builtins, libraries) = (named("libnvrtc-builtins.so"), named("libnvrtc.so"));
    let Some(library) = libraries.last() else {
        return Err(format!("there is no libnvrtc.so in {}", folder.display()));
    };
    for path in builtins.into_iter().chain([*library]) {
        // SAFETY: NVIDIA's libraries, whose initialisers have no demands on the process.
        let opened = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        // Never closed: cudarc keeps what it finds in there.
        std::mem::forget(opened.map_err(|error| format!("{}: {error}", path.display()))?);
    }
    Ok(())
}

fn system_folders() -> Vec<PathBuf> {
    let home = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let roots = home.chain(["/usr/local/cuda".into(), "/opt/cuda".into()]);
    roots.flat_map(|root| ["lib64", "lib"].map(|folder| root.join(folder))).collect()
}

fn python_folders() -> Vec<PathBuf> {
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local"));
    let mut found = Vec::new();
    for root in environments.chain(home).chain(["/usr/local".into(), "/usr".into()]) {
        let Ok(entries) = std::fs::read_dir(root.join("lib")) else { continue };
        let is_python =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"));
        let mut versions: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_python).collect();
        versions.sort();
        for packages in versions.iter().rev().flat_map(|v| ["site-packages", "dist-packages"].map(|name| v.join(name)))
        {
            found.extend(["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"].map(|folder| packages.join(folder)));
        }
    }
    found
}

/// The versions that were fetched, the newest first.
fn cached_folders(cache: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cache.join("nvrtc")).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.reverse();
    folders
}

fn version_and_architectures() -> Result<Nvrtc, result::NvrtcError> {
    let (mut major, mut minor, mut count) = (0, 0, 0);
    // SAFETY: each call writes the numbers that it is given room for.
    unsafe {
        sys::nvrtcVersion(&mut major, &mut minor).result()?;
        sys::nvrtcGetNumSupportedArchs(&mut count).result()?;
        let mut architectures = vec![0i32; count.max(0) as usize];
        sys::nvrtcGetSupportedArchs(architectures.as_mut_ptr()).result()?;
        let architectures = architectures.into_iter().map(|arch| arch.max(0) as u32).collect();
        Ok(Nvrtc { version: (major, minor), architectures })
    }
}

impl Nvrtc {
    /// The newest architecture that it compiles for and that runs on `device` (80: sm_80).
    pub fn architecture(&self, device: u32) -> Option<u32> {
        self.architectures.iter().copied().filter(|arch| *arch <= device).max()
    }

    /// Compiles one source.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, name: &str, source: &str, options: &[String]) -> Result<Compiled, String> {
        let text = |text: &str| CString::new(text).map_err(|_| "the source has a NUL".to_string());
        let (source, name) = (text(source)?, text(name)?);
        let wrong = |error: result::NvrtcError| format!("NVRTC: {error:?}");
        let program = result::create_program(&source, Some(&name)).map_err(wrong)?;
        // SAFETY: the program was made above, is used by nobody else, and is destroyed once.
        unsafe {
            let done = result::compile_program(program, options).map_err(wrong);
            let compiled = match done {
                Ok(()) => read(program).map_err(wrong),
                Err(error) => Err(match result::get_program_log(program) {
                    Ok(log) => bytes(log).iter().map(|byte| *byte as char).take_while(|c| *c != '\0').collect(),
                    Err(_) => error,
                }),
            };
            let _ = result::destroy_program(program);
            compiled
        }
    }
}

fn bytes(text: Vec<c_char>) -> Vec<u8> {
    text.into_iter().map(|byte| byte as u8).collect()
}

/// # Safety
/// The program must have been compiled.
unsafe fn read(program: sys::nvrtcProgram) -> Result<Compiled, result::NvrtcError> {
    // SAFETY: by the caller's promise; the buffer has the size that was asked for.
    unsafe {
        let mut ptx = bytes(result::get_ptx(program)?);
        if ptx.last() != Some(&0) {
            ptx.push(0);
        }
        let mut size = 0;
        sys::nvrtcGetCUBINSize(program, &mut size).result()?;
        let mut cubin = vec![0u8; size];
        sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()).result()?;
        Ok(Compiled { ptx, cubin })
    }
}
