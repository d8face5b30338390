//! The CUDA driver and compiler that tests use.

#![allow(dead_code)] // each test uses its own part

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cudarc::driver::{result, sys};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use manyhead::device::Cuda;
use manyhead::interop::fetch;

/// Opens the driver, once: the software GPU's, or with `MANYHEAD_REAL_GPU=1` the machine's own. It stays open to the end.
pub fn driver() {
    static OPEN: OnceLock<()> = OnceLock::new();
    OPEN.get_or_init(|| {
        leave_cargo_folders();
        let real = is_real();
        if !real {
            open(&look_alike());
        }
        // SAFETY: opens the driver's library, whose initialisers have no demands on the process.
        assert!(unsafe { sys::is_culib_present() }, "there is no CUDA driver here: unset MANYHEAD_REAL_GPU");
        result::init().unwrap();
        let name = result::device::get(0).and_then(result::device::get_name).unwrap();
        assert_ne!(real, name.starts_with("Software GPU"), "the driver found is that of {name}");
    });
}

/// The folder of an NVRTC that fits the driver, fetched if it is not there.
pub fn nvrtc() -> PathBuf {
    driver();
    let version = Cuda::driver_version().unwrap();
    fetch::nvrtc_for(version, &fetch::cache_dir(None).unwrap(), &|message| eprintln!("{message}")).unwrap()
}

/// Whether the machine's own driver is to be used.
pub fn is_real() -> bool {
    std::env::var("MANYHEAD_REAL_GPU").is_ok_and(|value| value == "1")
}

/// Starts this process anew if cargo has put its folder of libraries into `LD_LIBRARY_PATH`: the look-alike driver is in it,
/// and cudarc, which opens the driver by name, would take it for the machine's own, or another one than asked for.
fn leave_cargo_folders() {
    const VARIABLE: &str = "LD_LIBRARY_PATH";
    let executable = std::env::current_exe().unwrap();
    let target = executable.parent().and_then(Path::parent).unwrap();
    let folders: Vec<PathBuf> = std::env::var_os(VARIABLE).iter().flat_map(std::env::split_paths).collect();
    let kept: Vec<&PathBuf> = folders.iter().filter(|folder| !folder.starts_with(target)).collect();
    if kept.len() < folders.len() {
        let path = std::env::join_paths(kept).unwrap();
        let error = Command::new(&executable).args(std::env::args_os().skip(1)).env(VARIABLE, path).exec();
        panic!("{}: {error}", executable.display());
    }
}

/// Opens a library for the whole process.
pub fn open(path: &Path) {
    // SAFETY: NVIDIA's libraries or our own; their initialisers have no demands on the process. Global, so that the
    // libraries that ask for them by name find them.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(library.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
}

/// The folder of the look-alike driver, for another process; None if tests use the machine's own.
pub fn look_alike_folder() -> Option<PathBuf> {
    (!is_real()).then(|| look_alike().parent().unwrap_or(Path::new(".")).to_path_buf())
}

/// The look-alike driver beside the test's executable.
fn look_alike() -> PathBuf {
    let path = std::env::var_os("SOFTWARE_GPU_LIB").map(PathBuf::from).unwrap_or_else(|| {
        let executable = std::env::current_exe().unwrap();
        executable.parent().and_then(Path::parent).unwrap().join("libcuda.so")
    });
    let hint = "run `cargo build --release --workspace`, or name it by SOFTWARE_GPU_LIB";
    assert!(path.is_file(), "the software GPU is not built: there is no {}; {hint}", path.display());
    path
}
