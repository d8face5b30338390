//! `software-gpu run`: the program finds the look-alike under both names that programs look for.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::Failure;

/// Where signals to this process are passed on to.
static CHILD: AtomicI32 = AtomicI32::new(0);

const SIGNALS: [i32; 4] = [1, 2, 3, 15];

unsafe extern "C" {
    safe fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    safe fn kill(process: i32, signal: i32) -> i32;
}

/// Hang-up and termination are passed on; the terminal sends interrupt and quit to both processes anyway. This process
/// stays, so that it can take its folder away and pass the status on.
extern "C" fn pass_on(number: i32) {
    let child = CHILD.load(Ordering::Relaxed);
    if child > 0 && (number == 1 || number == 15) {
        kill(child, number);
    }
}

/// A folder that goes away with the value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it any more; a folder that stays is only untidy.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The driver's library: the environment's, or beside this program, or where cargo leaves it for a test.
fn library() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("SOFTWARE_GPU_LIB").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return fs::canonicalize(&path)
            .map_err(|why| Failure::Usage(format!("SOFTWARE_GPU_LIB={}: {why}", path.display())));
    }
    let program = std::env::current_exe().map_err(|why| Failure::Run(format!("this program's path: {why}")))?;
    let folder = program.parent().unwrap_or(Path::new("."));
    let places = [folder.join("libcuda.so"), folder.join("deps/libcuda.so"), folder.join("../lib/libcuda.so")];
    places.iter().find_map(|place| fs::canonicalize(place).ok()).ok_or_else(|| {
        Failure::Run(format!(
            "no libcuda.so beside {}; build it with `cargo build --release --workspace`, or set SOFTWARE_GPU_LIB",
            program.display()
        ))
    })
}

/// A new folder with the library under both names.
fn folder(library: &Path) -> Result<Folder, Failure> {
    let cannot = |path: &Path, why: std::io::Error| Failure::Run(format!("{}: {why}", path.display()));
    let nanoseconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let path = std::env::temp_dir().join(format!("software-gpu-{}-{nanoseconds}", std::process::id()));
    // Fails if it exists, so that nobody else can have put a library there.
    fs::DirBuilder::new().mode(0o700).create(&path).map_err(|why| cannot(&path, why))?;
    let folder = Folder(path);
    for name in ["libcuda.so", "libcuda.so.1"] {
        let link = folder.0.join(name);
        symlink(library, &link).map_err(|why| cannot(&link, why))?;
    }
    Ok(folder)
}

/// Starts the program and waits for it.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8, Failure> {
    let Some((program, arguments)) = arguments.split_first() else {
        return Err(Failure::Usage("run: a program is missing; software-gpu run PROGRAM [ARGS...]".into()));
    };
    let folder = folder(&library()?)?;
    let mut path = folder.0.clone().into_os_string();
    if let Some(old) = std::env::var_os("LD_LIBRARY_PATH").filter(|old| !old.is_empty()) {
        path.push(":");
        path.push(old);
    }
    // Handlers, not "ignore": a program that is started begins with the default for what was handled.
    for number in SIGNALS {
        signal(number, pass_on);
    }
    let child = Command::new(program).args(arguments).env("LD_LIBRARY_PATH", path).spawn();
    let mut child = child.map_err(|why| Failure::Run(format!("{}: {why}", program.display())))?;
    CHILD.store(i32::try_from(child.id()).unwrap_or(0), Ordering::Relaxed);
    let status = child.wait().map_err(|why| Failure::Run(format!("waiting for {}: {why}", program.display())))?;
    // As a shell tells of a signal.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code & 0xff).unwrap_or(1))
}
