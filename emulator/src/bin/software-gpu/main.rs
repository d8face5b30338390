//! `software-gpu`: runs any CUDA program on the software GPU, and shows what its kernels did.
//!
//! - `run`: a folder with the look-alike driver, first in `LD_LIBRARY_PATH`
//! - `report`: the table of a report file · `json`: its reader · `bounds`: what the real parts could do

mod bounds;
mod json;
mod report;
mod run;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Whether help is asked for in place of a command's work.
fn asks_for_help(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|first| first == "--help" || first == "-h")
}

const HELP: &str = "\
Runs CUDA programs on a machine without a GPU, checks their kernels and counts what they do.

Usage:
  software-gpu run PROGRAM [ARGS...]
      Start a program with the software GPU as its CUDA driver. Its exit status is passed on.
  software-gpu report FILE [OPTIONS]
      Show the counters that a program left in FILE (SOFTWARE_GPU_REPORT=FILE).
        --minimum KERNEL=BYTES    bytes that the algorithm must move; shown against the bytes moved
        --registers KERNEL=N      registers of a thread, for the occupancy
        --log FILE                take them from a compile log (ptxas -v)
  software-gpu --help | --version

Environment (read by the driver, in any program that uses it):
  SOFTWARE_GPU_ARCH              80 (default) or 90
  SOFTWARE_GPU_CHECKS            all (default), none or off, or names parted by commas of those that stay on
                                 (race: only races); -NAME takes one out of all (-race: all but races):
                                 uninitialised, race, async-pending, barrier-divergence, inactive-lane,
                                 leak
  SOFTWARE_GPU_SEED              shuffles the order of warps and blocks, and lets them give way to each other
                                 (0, the default: in order)
  SOFTWARE_GPU_THREADS           host threads (0, the default: as many as there are)
  SOFTWARE_GPU_MEMORY            device memory: bytes, or with K, M, G (default 4G)
  SOFTWARE_GPU_MAX_INSTRUCTIONS  warp instructions of a host thread after which a launch counts as endless
                                 (0, the default: no limit)
  SOFTWARE_GPU_REPORT            file for the counters; %p in it becomes the process id
  SOFTWARE_GPU_VERBOSE           1: refused calls and why; 2: every call
  SOFTWARE_GPU_GRAPHS            1: streams can be captured, and graphs launched; 0, the default: not supported.
                                 1,capture=N: the capture of the Nth captured call fails; instantiate=N,
                                 update=N and launch=N likewise
  SOFTWARE_GPU_LIB               for `run`: the driver's library (default: libcuda.so beside this program)
  CUDA_LAUNCH_BLOCKING           1: a launch tells of its kernel's fault itself, not the next call

Exit status: 0, 1 (could not be done), 2 (usage or input); `run` passes the program's own status on.";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next();
    let rest: Vec<_> = arguments.collect();
    let result = match command.as_ref().and_then(|command| command.to_str()) {
        Some("--help" | "-h" | "help") => say(&format!("{HELP}\n")),
        Some("--version" | "-V") => say(concat!("software-gpu ", env!("CARGO_PKG_VERSION"), "\n")),
        Some("run" | "report") if asks_for_help(&rest) => say(&format!("{HELP}\n")),
        Some("run") => run::run(&rest),
        Some("report") => report::report(&rest),
        Some(other) => Err(Failure::Usage(format!("unknown command '{other}'; known: run, report, --help, --version"))),
        None => Err(Failure::Usage("a command is missing: run, report, --help or --version".into())),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let (text, code) = match failure {
                Failure::Usage(text) => (text, 2),
                Failure::Run(text) => (text, 1),
            };
            eprintln!("software-gpu: {text}");
            ExitCode::from(code)
        }
    }
}

/// Writes a result to standard output. A reader that has seen enough is no error.
pub(crate) fn say(text: &str) -> Result<u8, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => Err(Failure::Run(format!("standard output: {why}"))),
        _ => Ok(0),
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Usage or input: status 2.
    Usage(String),
    /// At run time: status 1.
    Run(String),
}
