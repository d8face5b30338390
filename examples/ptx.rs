//! CUDA C++ → PTX by NVRTC, without a GPU and without a CUDA installation: the wheel with the compiler is fetched into the
//! cache once.
//!
//! ```sh
//! cargo run --release --example ptx -- kernel.cu                  # writes kernel.ptx beside it
//! cargo run --release --example ptx -- --check kernel.cu …        # exit 1 if kernel.ptx is not what NVRTC makes of it
//! ```
//!
//! Options for the compiler (`--gpu-architecture=…`) may stand among the arguments; without one it is
//! `--gpu-architecture=compute_80`. Line information is always there.

use std::error::Error;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cudarc::nvrtc::result;
use manyhead::interop::fetch;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("ptx: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let (mut check, mut options, mut files) = (false, vec![String::from("-lineinfo")], Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            option if option.starts_with('-') => options.push(argument),
            _ => files.push(PathBuf::from(argument)),
        }
    }
    if files.is_empty() {
        return Err("give at least one .cu file".into());
    }
    if !options.iter().any(|option| option.starts_with("--gpu-architecture") || option.starts_with("-arch")) {
        options.push("--gpu-architecture=compute_80".into());
    }
    let folder = fetch::nvrtc(&fetch::cache_dir(None)?, &|message| eprintln!("ptx: {message}"))?;
    // NVRTC looks for its builtins by name alone: what is open already is found. Both stay open to the end.
    for library in fetch::NVRTC_LIBRARIES.iter().rev() {
        // SAFETY: NVIDIA's libraries, checked by hash; their initialisers have no demands on the process.
        std::mem::forget(unsafe { libloading::Library::new(folder.join(library)) }?);
    }
    let mut same = true;
    for file in &files {
        let ptx = compile(file, &options)?;
        let target = file.with_extension("ptx");
        if !check {
            std::fs::write(&target, ptx)?;
            eprintln!("ptx: wrote {}", target.display());
        } else if std::fs::read(&target)? != ptx {
            eprintln!("ptx: {} is not what NVRTC makes of {}", target.display(), file.display());
            same = false;
        }
    }
    Ok(same)
}

fn compile(file: &Path, options: &[String]) -> Result<Vec<u8>, Box<dyn Error>> {
    let source = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let source = CString::new(source)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let place = std::env::current_dir()?.join(&name).display().to_string();
    let program = result::create_program(&source, Some(&CString::new(name.as_str())?))?;
    // SAFETY: the program was made above, is used by nobody else, and is destroyed once, at the end.
    let ptx = unsafe {
        let compiled = result::compile_program(program, options);
        let text = |bytes: Vec<std::ffi::c_char>| -> Vec<u8> {
            bytes.into_iter().map(|byte| byte as u8).take_while(|byte| *byte != 0).collect()
        };
        let made = match compiled {
            Ok(()) => result::get_ptx(program).map(text).map_err(|error| error.to_string()),
            Err(error) => {
                let log = result::get_program_log(program).map(text).unwrap_or_default();
                Err(format!("{error}\n{}", String::from_utf8_lossy(&log)))
            }
        };
        result::destroy_program(program)?;
        made
    };
    let ptx = String::from_utf8(ptx.map_err(|message| format!("{}: {message}", file.display()))?)?;
    // NVRTC puts the present folder before the name: without it the text is the same on every machine.
    Ok(ptx.replace(&format!("\"{place}\""), &format!("\"{name}\"")).into_bytes())
}
