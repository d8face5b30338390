//! NVRTC, NVIDIA's run-time compiler: where it is found, and one compile.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use super::locked;

/// What one compile gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Text for any driver that is new enough, with the NUL that the driver wants.
    pub ptx: Vec<u8>,
    /// The machine code of one architecture.
    pub cubin: Vec<u8>,
}

type Program = *mut c_void;
/// 0 is success.
type Status = c_int;
// SAFETY: the types of these functions, here and below, are those of NVRTC's header; whoever calls one says why it may.
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status;
type Number = unsafe extern "C" fn(*mut c_int) -> Status;
type Message = unsafe extern "C" fn(Status) -> *const c_char;
type Create = unsafe extern "C" fn(*mut Program, Text, Text, c_int, *const Text, *const Text) -> Status;
// SAFETY: as above.
type Compile = unsafe extern "C" fn(Program, c_int, *const Text) -> Status;
type Destroy = unsafe extern "C" fn(*mut Program) -> Status;
type Size = unsafe extern "C" fn(Program, *mut usize) -> Status;
type Bytes = unsafe extern "C" fn(Program, *mut c_char) -> Status;
type Text = *const c_char;

/// The functions of an NVRTC that was found; all of them are there since CUDA 11.2.
struct Functions {
    version: Symbol<Version>,
    architecture_count: Symbol<Number>,
    architectures: Symbol<Number>,
    error: Symbol<Message>,
    create: Symbol<Create>,
    compile: Symbol<Compile>,
    destroy: Symbol<Destroy>,
    ptx: (Symbol<Size>, Symbol<Bytes>),
    cubin: (Symbol<Size>, Symbol<Bytes>),
    log: (Symbol<Size>, Symbol<Bytes>),
}

impl Functions {
    fn of(library: &Library) -> Result<Functions, String> {
        // SAFETY: the types are those of NVRTC's header.
        unsafe {
            Ok(Functions {
                version: symbol(library, "nvrtcVersion")?,
                architecture_count: symbol(library, "nvrtcGetNumSupportedArchs")?,
                architectures: symbol(library, "nvrtcGetSupportedArchs")?,
                error: symbol(library, "nvrtcGetErrorString")?,
                create: symbol(library, "nvrtcCreateProgram")?,
                compile: symbol(library, "nvrtcCompileProgram")?,
                destroy: symbol(library, "nvrtcDestroyProgram")?,
                ptx: (symbol(library, "nvrtcGetPTXSize")?, symbol(library, "nvrtcGetPTX")?),
                cubin: (symbol(library, "nvrtcGetCUBINSize")?, symbol(library, "nvrtcGetCUBIN")?),
                log: (symbol(library, "nvrtcGetProgramLogSize")?, symbol(library, "nvrtcGetProgramLog")?),
            })
        }
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC gives a constant text for any number.
        let text = unsafe {
            let text = (self.error)(status);
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy()) }
        };
        Err(text.map_or_else(|| format!("NVRTC error {status}"), |text| text.into_owned()))
    }

    /// # Safety
    /// The program must be one of NVRTC's, not destroyed yet.
    unsafe fn read(&self, (size, bytes): &(Symbol<Size>, Symbol<Bytes>), program: Program) -> Result<Vec<u8>, String> {
        let mut len = 0;
        // SAFETY: by the caller's promise; the buffer has the size that NVRTC asks for.
        unsafe {
            self.check(size(program, &mut len))?;
            let mut text = vec![0u8; len];
            if len > 0 {
                self.check(bytes(program, text.as_mut_ptr().cast()))?;
            }
            Ok(text)
        }
    }
}

/// # Safety
/// `T` must be the function's type.
unsafe fn symbol<T>(library: &Library, name: &str) -> Result<Symbol<T>, String> {
    // SAFETY: by the caller's promise.
    let found = unsafe { library.get(name.as_bytes()) };
    found.map_err(|_| format!("this NVRTC has no {name}: one of CUDA 11.2 or newer is needed"))
}

/// An NVRTC that was found and opened.
pub struct Nvrtc {
    /// Major and minor.
    pub version: (i32, i32),
    architectures: Vec<u32>,
    functions: Functions,
}

/// Opens NVRTC once in a process: the one that `MANYHEAD_NVRTC` names, that of a system installation, of a Python
/// environment, or of the folder `cache`/nvrtc. One of a later CUDA than `driver` (12 is CUDA 12) comes last: a driver may not
/// load what it makes.
///
/// # Errors
/// Where it was looked for. A later call looks again.
pub fn open(driver: u32, cache: Option<&Path>) -> Result<&'static Nvrtc, String> {
    static FOUND: Mutex<Option<&'static Nvrtc>> = Mutex::new(None);
    let mut found = locked(&FOUND);
    if let Some(found) = *found {
        return Ok(found);
    }
    let named = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let opened = match named {
        Some(folder) => open_in(&folder).map_err(|error| format!("{VARIABLE}: {error}"))?,
        None => {
            let folders = system_folders().into_iter().chain(python_folders());
            let folders = folders.chain(cache.map(cached_folders).unwrap_or_default());
            let all = by_name().into_iter().chain(folders.filter_map(|folder| open_in(&folder).ok()));
            let mut newer = None;
            let fitting = all.into_iter().find_map(|nvrtc| {
                if nvrtc.version.0 <= driver as i32 {
                    return Some(nvrtc);
                }
                newer.get_or_insert(nvrtc);
                None
            });
            fitting.or(newer).ok_or_else(|| {
                format!(
                    "NVRTC (libnvrtc.so) is not in the system's folders, not in a Python environment, and not in the cache; \
                     {VARIABLE} can name its folder"
                )
            })?
        }
    };
    // For good: a process has one, and closing such a library is not safe.
    let kept: &'static Nvrtc = Box::leak(Box::new(opened));
    *found = Some(kept);
    Ok(kept)
}

/// The variable that names a folder with NVRTC and its builtins.
const VARIABLE: &str = "MANYHEAD_NVRTC";

/// What the loader finds by itself.
fn by_name() -> Option<Nvrtc> {
    let names = ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"];
    names.into_iter().find_map(|name| open_library(Path::new(name)).and_then(start).ok())
}

/// That of a folder: builtins first, which it looks for by name.
fn open_in(folder: &Path) -> Result<Nvrtc, String> {
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
    for path in builtins {
        std::mem::forget(open_library(path)?);
    }
    open_library(library).and_then(start)
}

fn open_library(path: &Path) -> Result<Library, String> {
    // SAFETY: NVIDIA's libraries, whose initialisers have no demands on the process.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| format!("{}: {error}", path.display()))
}

fn start(library: Library) -> Result<Nvrtc, String> {
    let functions = Functions::of(&library)?;
    let (mut major, mut minor, mut count) = (0, 0, 0);
    // SAFETY: each call writes the numbers that it is given room for.
    let architectures = unsafe {
        functions.check((functions.version)(&mut major, &mut minor))?;
        functions.check((functions.architecture_count)(&mut count))?;
        let mut architectures = vec![0i32; count.clamp(1, 1000) as usize];
        functions.check((functions.architectures)(architectures.as_mut_ptr()))?;
        architectures
    };
    // Its functions are called as long as the process lives.
    std::mem::forget(library);
    let architectures = architectures.into_iter().map(|arch| arch.max(0) as u32).collect();
    Ok(Nvrtc { version: (major, minor), architectures, functions })
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

/// Of embedded devices: their machine code does not load on others.
const EMBEDDED: [u32; 6] = [53, 62, 72, 87, 101, 110];

impl Nvrtc {
    /// The architecture that it compiles for a `device` (80: sm_80): its own, or the newest one before it.
    pub fn architecture(&self, device: u32) -> Option<u32> {
        let older = |arch: &u32| *arch == device || *arch < device && !EMBEDDED.contains(arch);
        self.architectures.iter().copied().filter(older).max()
    }

    /// Compiles one source.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, name: &str, source: &str, options: &[String]) -> Result<Compiled, String> {
        let text = |text: &str| CString::new(text).map_err(|_| "the source has a NUL".to_string());
        let (source, name) = (text(source)?, text(name)?);
        let options: Vec<CString> = options.iter().map(|option| text(option)).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let (none, mut program) = (std::ptr::null(), std::ptr::null_mut());
        let functions = &self.functions;
        // SAFETY: all texts end in NUL and live until the program, which nobody else has, is destroyed, once.
        unsafe {
            functions.check((functions.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, none, none))?;
            let done = functions.check((functions.compile)(program, pointers.len() as c_int, pointers.as_ptr()));
            let compiled = match done {
                Ok(()) => self.results(program),
                Err(error) => {
                    let log = functions.read(&functions.log, program).unwrap_or_default();
                    let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_string();
                    Err(if log.is_empty() { error } else { log })
                }
            };
            let _ = (functions.destroy)(&mut program);
            compiled
        }
    }

    /// # Safety
    /// The program must have been compiled, and not destroyed.
    unsafe fn results(&self, program: Program) -> Result<Compiled, String> {
        // SAFETY: by the caller's promise.
        let (mut ptx, cubin) = unsafe {
            (self.functions.read(&self.functions.ptx, program)?, self.functions.read(&self.functions.cubin, program)?)
        };
        if ptx.last() != Some(&0) {
            ptx.push(0);
        }
        Ok(Compiled { ptx, cubin })
    }
}
