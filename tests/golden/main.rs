//! The golden runner: compares the engine with values that other software computed.
//!
//! `cargo test --release --test golden -- FILTER…`
//!
//! A case is a folder with `case.json`, at any depth below the root (`MANYHEAD_GOLDEN`, default `tests/golden`); where
//! that file's `case` is `metrics`, each other JSON file of the folder is one. What a case is about is read from its
//! content, never from a folder's name. A FILTER is a substring of the case's path, relative to the root.
//!
//! One line a case, then `golden: P passed, F failed, N not run`. Exit 0; 1 if a case failed or could not be read
//! (with `--strict` also if one has no runner); 2 if no case matches, or the arguments are wrong.
//!
//! To add a family: a file beside this one, and a line in [`runner`].

mod case;
mod distill;
mod encoders;
mod engine;
#[cfg(feature = "cli")]
#[path = "../support/gpu.rs"]
mod gpu;
mod heads;
mod losses;
mod metrics;
#[cfg(feature = "cli")]
mod minilm;
mod ops;
mod optim;
mod smart;
#[cfg(feature = "cli")]
mod tokenizer;
mod trajectory;

use std::any::Any;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use case::{Case, Report, read_json};

type Runner = fn(&Case, &mut Report) -> Result<(), String>;

/// Who computes a case. One line a family, or one part of it (`case.is_a("ops/attention")`).
fn runner(case: &Case) -> Option<Runner> {
    match case.family() {
        "encoders" => encoders::runner(case),
        "heads" => heads::runner(case),
        "losses" => losses::runner(case),
        "metrics" => Some(metrics::run),
        // Its weights are fetched.
        #[cfg(feature = "cli")]
        "minilm" => Some(minilm::run),
        "ops" => ops::runner(case),
        "optim" => optim::runner(case),
        // Its files are fetched.
        #[cfg(feature = "cli")]
        "tokenizer" => Some(tokenizer::run),
        "trajectory" if case.is_a("trajectory/distill") => Some(distill::run),
        "trajectory" if case.is_a("trajectory/smart") => Some(smart::run),
        "trajectory" => trajectory::runner(case),
        _ => None,
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("golden: {message}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        // The whole suite is one test to cargo-nextest.
        if !options.ignored {
            println!("golden: test");
        }
        return ExitCode::SUCCESS;
    }
    if options.ignored {
        return ExitCode::SUCCESS;
    }
    let root = match std::env::var_os("MANYHEAD_GOLDEN") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    };
    let mut found = Vec::new();
    if let Err(message) = discover(&root, &root, &mut found) {
        eprintln!("golden: {message}");
        return ExitCode::from(2);
    }
    found.retain(|found| options.wants(&found.name));
    if found.is_empty() {
        eprintln!("golden: no case below {} matches {:?}", root.display(), options.filters);
        return ExitCode::from(2);
    }
    #[cfg(feature = "cli")]
    if std::env::var("MANYHEAD_DEVICE").is_ok_and(|name| name.starts_with("cuda")) {
        gpu::driver();
        gpu::nvrtc();
    }
    let code = run_all(found, options.strict);
    case::close_device();
    code
}

/// The arguments: our own, and those that cargo and cargo-nextest hand to every test program.
#[derive(Default)]
struct Options {
    filters: Vec<String>,
    skipped: Vec<String>,
    strict: bool,
    list: bool,
    ignored: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        let mut exact = false;
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            match flag {
                "--strict" => options.strict = true,
                "--list" => options.list = true,
                "--ignored" => options.ignored = true,
                "--exact" => exact = true,
                "--nocapture" | "--no-capture" | "--show-output" | "--include-ignored" | "-q" | "--quiet" => {}
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" | "--skip" => {
                    let value = value.or_else(|| arguments.next()).ok_or_else(|| format!("{flag} needs a value"))?;
                    if flag == "--skip" {
                        options.skipped.push(value);
                    }
                }
                _ if flag.starts_with('-') => return Err(format!("unknown argument {argument}; known: --strict")),
                _ => options.filters.push(argument),
            }
        }
        // `--exact golden`: cargo-nextest asks for the one test that `--list` named.
        if exact {
            options.filters.retain(|filter| filter != "golden");
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |filter: &String| name.contains(filter.as_str());
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skipped.iter().any(matches)
    }
}

/// A case's path relative to the root, and the case if it could be read.
struct Found {
    name: String,
    case: Result<Case, String>,
}

/// Collects the cases in `folder` and below it, in the order of their paths.
fn discover(root: &Path, folder: &Path, found: &mut Vec<Found>) -> Result<(), String> {
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        entries.push(entry.map_err(unreadable)?.path());
    }
    entries.sort();
    if folder.join("case.json").is_file() {
        cases_of(root, folder, &entries, found);
    }
    // A symbolic link to a folder is not followed: it could lead back here.
    for entry in entries.iter().filter(|entry| entry.is_dir() && !entry.is_symlink()) {
        discover(root, entry, found)?;
    }
    Ok(())
}

fn cases_of(root: &Path, folder: &Path, entries: &[PathBuf], found: &mut Vec<Found>) {
    let json = match read_json(&folder.join("case.json")) {
        Ok(json) if json["case"].is_string() => json,
        Ok(_) => {
            return found.push(Found { name: relative(root, folder), case: Err("case.json has no 'case'".into()) });
        }
        Err(message) => return found.push(Found { name: relative(root, folder), case: Err(message) }),
    };
    let case = |path: &Path, file: Option<PathBuf>| {
        let name = relative(root, path);
        Found { name: name.clone(), case: Ok(Case { dir: folder.to_path_buf(), name, json: json.clone(), file }) }
    };
    let whole = case(folder, None);
    let Ok(description) = &whole.case else { return };
    // Inputs that its neighbours share, with nothing to compare.
    if description.id().ends_with("/shared") {
        return;
    }
    if description.family() != "metrics" {
        return found.push(whole);
    }
    let data = |path: &&PathBuf| path.extension().is_some_and(|e| e == "json") && !path.ends_with("case.json");
    found.extend(entries.iter().filter(data).map(|path| case(path, Some(path.clone()))));
}

/// `path` below `root` with `/`, or `.` for the root itself.
fn relative(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    if parts.is_empty() { ".".into() } else { parts.join("/") }
}

/// Runs the cases one after the other and prints a line for each.
fn run_all(found: Vec<Found>, strict: bool) -> ExitCode {
    // A panic is reported with its case's line; the hook keeps its place and nothing is printed in between.
    static PLACE: Mutex<String> = Mutex::new(String::new());
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), |place| format!(" at {}:{}", place.file(), place.line()));
        *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for Found { name, case } in found {
        let mut report = Report::default();
        let result = match case {
            Err(message) => Err(message),
            Ok(case) => {
                let Some(runner) = runner(&case) else {
                    println!("not run  {name}  (no runner for '{}')", case.id());
                    not_run += 1;
                    continue;
                };
                report = Report::new(&case.json);
                let attempt = panic::catch_unwind(AssertUnwindSafe(|| runner(&case, &mut report)));
                attempt.unwrap_or_else(|payload| {
                    let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
                    Err(format!("panic{place}: {}", panic_message(payload.as_ref())))
                })
            }
        };
        let worst = match report.worst() {
            Some((ratio, tensor)) => format!("worst={ratio:.2} of tolerance ({tensor})"),
            None => "worst=inf of tolerance (nothing was compared)".into(),
        };
        let mut reasons = report.failures().to_vec();
        match result {
            Err(message) => reasons.insert(0, message.lines().next().unwrap_or("unknown error").to_owned()),
            Ok(()) if report.worst().is_none() => reasons.push("its runner compared nothing".into()),
            Ok(()) => {}
        }
        if reasons.is_empty() {
            passed += 1;
            println!("ok  {name}  {worst}");
        } else {
            failed += 1;
            println!("FAILED  {name}  {worst}");
            print_reasons(&reasons);
        }
    }
    println!("golden: {passed} passed, {failed} failed, {not_run} not run");
    if failed > 0 || (strict && not_run > 0) { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

/// The first few reasons, indented: a wrong engine fails in every tensor, and the first ones tell most.
fn print_reasons(reasons: &[String]) {
    const SHOWN: usize = 8;
    for reason in reasons.iter().take(SHOWN) {
        println!("    {reason}");
    }
    if reasons.len() > SHOWN {
        println!("    and {} more", reasons.len() - SHOWN);
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "of unknown content".into())
}
