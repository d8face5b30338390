//! Programs that know nothing of the software GPU, started by `software-gpu run`: one by cudarc, one by Python's ctypes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The folder with what was built: the library, the program, the examples. Built here rather than expected to be there,
/// with the profile of the test: an old library would be tested without a word.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let executable = std::env::current_exe().unwrap();
        let folder = executable.parent().and_then(Path::parent).unwrap().to_path_buf();
        for what in [
            &["--package", "software-gpu-driver", "--lib", "--examples"][..],
            &["--package", "software-gpu", "--bin", "software-gpu"],
        ] {
            let mut build = Command::new(env!("CARGO"));
            build.current_dir(HERE).args(["build", "--quiet"]).args(what);
            build.arg("--target-dir").arg(folder.parent().unwrap());
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "{what:?} cannot be built");
        }
        folder
    })
}

/// `software-gpu` with arguments.
fn software_gpu() -> Command {
    let mut command = Command::new(built().join("software-gpu"));
    for name in ["CHECKS", "SEED", "REPORT", "VERBOSE", "MEMORY", "MAX_INSTRUCTIONS", "ARCH", "LIB"] {
        command.env_remove(format!("SOFTWARE_GPU_{name}"));
    }
    command
}

fn python(arguments: &[&str]) -> Command {
    let mut command = software_gpu();
    command.args(["run", "python3"]).arg(Path::new(HERE).join("examples/saxpy.py")).args(arguments);
    command
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_cudarc_program_runs_as_it_stands_and_in_silence() {
    let output = software_gpu().arg("run").arg(built().join("examples/saxpy_cudarc")).output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success() && stdout.ends_with("ok\n"), "{stdout}{stderr}");
    assert!(stdout.starts_with("Software GPU sm_80, compute capability (8, 0)"), "{stdout}");
    assert_eq!(stderr, "");
}

#[test]
fn a_python_program_runs_as_it_stands_and_its_status_is_passed_on() {
    let output = python(&["exit", "7"]).output().unwrap();
    assert_eq!(texts(&output), ("ok\n".into(), String::new()));
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_fault_is_one_line_and_the_drivers_code() {
    let output = python(&["fault"]).output().unwrap();
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    let findings: Vec<_> = stderr.lines().filter(|line| line.starts_with("software-gpu: ")).collect();
    assert_eq!(findings.len(), 1, "{stderr}");
    assert!(findings[0].starts_with("software-gpu: out-of-bounds: kernel saxpy, "), "{stderr}");
    assert!(findings[0].contains("block (7,0,0), thread (104,0,0), address 0x"), "{stderr}");
    assert!(stderr.contains("cuCtxSynchronize: 700 CUDA_ERROR_ILLEGAL_ADDRESS"), "{stderr}");
}

#[test]
fn a_launch_that_blocks_tells_of_its_fault_itself() {
    let output = python(&["fault"]).env("CUDA_LAUNCH_BLOCKING", "1").output().unwrap();
    assert!(texts(&output).1.contains("cuLaunchKernel: 700"), "{}", texts(&output).1);
}

#[test]
fn a_kernels_printf_comes_at_the_synchronisation() {
    let output = software_gpu().args(["run", "python3"]).arg(Path::new(HERE).join("tests/printf.py")).output().unwrap();
    let wanted = "launched\nthread 0\nthread 1\nsynchronised\n";
    assert_eq!(texts(&output), (wanted.into(), String::new()));
}

#[test]
fn leaks_are_told_and_fail_nothing() {
    let output = python(&["leak"]).output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!((output.status.code(), stdout.as_str()), (Some(0), "ok\n"));
    assert_eq!(stderr.lines().filter(|line| line.starts_with("software-gpu: leak: ")).count(), 2, "{stderr}");
    assert!(stderr.contains("of 4000 bytes"), "{stderr}");
}

#[test]
fn counters_go_to_a_file_that_the_report_shows() {
    let file = built().join(format!("third-party-{}.json", std::process::id()));
    let output = python(&[]).env("SOFTWARE_GPU_REPORT", &file).output().unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
    let output = software_gpu().arg("report").arg(&file).args(["--minimum", "saxpy=12000"]).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{stderr}");
    let row = stdout.lines().find(|line| line.starts_with("| saxpy ")).unwrap_or_else(|| panic!("{stdout}"));
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    // 4,000 bytes each of two loads and a store: whole sectors, each once.
    assert_eq!((cells[2], cells[7], cells[8]), ("1", "0.012", "1.00"), "{stdout}");
}

#[test]
fn the_environment_reaches_the_driver_and_what_cannot_be_read_is_refused() {
    let output = python(&[]).env("SOFTWARE_GPU_ARCH", "75").output().unwrap();
    let (_, stderr) = texts(&output);
    assert!(stderr.contains("software-gpu: SOFTWARE_GPU_ARCH=75") && stderr.contains("cuInit: 1 "), "{stderr}");
    let output = python(&[]).env("SOFTWARE_GPU_MEMORY", "5000").output().unwrap();
    assert!(texts(&output).1.contains("cuMemAlloc_v2: 2 CUDA_ERROR_OUT_OF_MEMORY"), "{}", texts(&output).1);
    let output = software_gpu()
        .args(["run", "python3", "-c"])
        .arg(
            "import ctypes; c=ctypes.CDLL('libcuda.so'); p=ctypes.c_void_p(); s=ctypes.c_int()\n\
             print(c.cuGetProcAddress_v2(b'cuTexObjectCreate', ctypes.byref(p), 13000, ctypes.c_uint64(0), ctypes.byref(s)), p.value, s.value)",
        )
        .env("SOFTWARE_GPU_VERBOSE", "1")
        .output()
        .unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!(stdout, "0 None 1\n");
    assert!(stderr.contains("cuGetProcAddress: cuTexObjectCreate (version 13000) is not implemented"), "{stderr}");
}

#[test]
fn usage_and_input_errors_end_with_2() {
    for arguments in [&[][..], &["fly"], &["run"], &["report"], &["report", "no-such-file"], &["report", "x", "--what"]]
    {
        let output = software_gpu().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(texts(&output).1.lines().count(), 1, "{arguments:?}");
    }
    let output = software_gpu().args(["run", "no-such-program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for option in ["--help", "--version"] {
        let output = software_gpu().arg(option).output().unwrap();
        assert!(output.status.success() && texts(&output).0.contains("software-gpu"));
    }
}

/// The name by which programs and the loader know the library.
#[test]
fn the_library_is_named_as_programs_look_for_it() {
    let library = std::fs::read(built().join("libcuda.so")).unwrap();
    let has = |text: &[u8]| library.windows(text.len()).any(|window| window == text);
    assert!(has(b"\0libcuda.so.1\0"));
    for name in [&b"\0cuInit\0"[..], b"\0cuMemAlloc_v2\0", b"\0cuLaunchKernel\0", b"\0cuGetProcAddress_v2\0"] {
        assert!(has(name), "{}", String::from_utf8_lossy(name));
    }
}

#[test]
fn each_command_shows_help_and_a_kernel_that_never_ran_is_no_name() {
    for command in ["run", "report"] {
        let output = software_gpu().args([command, "--help"]).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(
            output.status.success() && stderr.is_empty() && stdout.contains("software-gpu report FILE"),
            "{stdout}"
        );
    }
    let file = built().join(format!("third-party-names-{}.json", std::process::id()));
    let output = python(&[]).env("SOFTWARE_GPU_REPORT", &file).env("SOFTWARE_GPU_SEEDS", "1").output().unwrap();
    let (_, stderr) = texts(&output);
    assert!(output.status.success() && stderr.contains("SOFTWARE_GPU_SEEDS is not known"), "{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.contains("is not known")).count(), 1, "{stderr}");
    for option in ["--minimum", "--registers"] {
        let output = software_gpu().arg("report").arg(&file).args([option, "saxpi=12000"]).output().unwrap();
        let (_, stderr) = texts(&output);
        assert!(output.status.code() == Some(2) && stderr.contains("no such kernel; it has: saxpy"), "{stderr}");
    }
    std::fs::remove_file(&file).unwrap();
}
