//! The environment variables `SOFTWARE_GPU_*`, read once.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::graph::FAILING;
use crate::{Checks, Config};

/// Device memory without `SOFTWARE_GPU_MEMORY`.
const DEFAULT_MEMORY: u64 = 4 << 30;
/// Less is a slip of the pen, and more than this no device has.
const LEAST_MEMORY: u64 = 4096;
const MOST_MEMORY: u64 = 1 << 40;

/// What the environment asks for.
pub(crate) struct Settings {
    pub config: Config,
    /// Bytes of device memory.
    pub memory: u64,
    /// Allocations that nobody freed are reported.
    pub leaks: bool,
    /// Where the counters go at the end.
    pub report: Option<PathBuf>,
    /// A fault is told by the launch itself (`CUDA_LAUNCH_BLOCKING=1`).
    pub blocking: bool,
    pub graphs: Graphs,
}

/// Capture and graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Graphs {
    pub on: bool,
    /// For each of [`FAILING`] the number of the call that fails, counted from 1 over the whole process.
    pub failing: [Option<u64>; FAILING.len()],
}

impl Graphs {
    /// Reads `0`, `1`, or `1` with calls that are to fail: `1,capture=40,launch=3`.
    fn parse(text: &str) -> Result<Graphs, String> {
        let mut words = text.split(',').map(str::trim);
        let on = match words.next() {
            Some("1" | "on") => true,
            Some("0" | "off" | "") => false,
            _ => return Err("0 or 1 is wanted".into()),
        };
        let mut graphs = Graphs { on, ..Graphs::default() };
        for word in words {
            let (name, number) = word.split_once('=').unwrap_or((word, ""));
            let number: Option<u64> = number.parse().ok().filter(|number| *number > 0);
            match (FAILING.iter().position(|known| *known == name), number) {
                (Some(at), Some(number)) => graphs.failing[at] = Some(number),
                _ => return Err(format!("'{word}' is none of {} with = and a number from 1 on", FAILING.join(", "))),
            }
        }
        Ok(graphs)
    }
}

/// 0: findings only. 1: refusals and why. 2: every call.
pub(crate) fn verbosity() -> u32 {
    static LEVEL: OnceLock<u32> = OnceLock::new();
    *LEVEL.get_or_init(|| level(&std::env::var("SOFTWARE_GPU_VERBOSE").unwrap_or_default()).unwrap_or(1))
}

fn level(text: &str) -> Option<u32> {
    match text.trim() {
        "" | "off" | "no" | "false" => Some(0),
        "on" | "yes" | "true" => Some(1),
        number => number.parse().ok().filter(|level| *level <= 2),
    }
}

/// What is read under this prefix; a name beside these is a mistake that would pass unseen.
const NAMES: [&str; 10] = [
    "SOFTWARE_GPU_ARCH",
    "SOFTWARE_GPU_CHECKS",
    "SOFTWARE_GPU_SEED",
    "SOFTWARE_GPU_THREADS",
    "SOFTWARE_GPU_MEMORY",
    "SOFTWARE_GPU_MAX_INSTRUCTIONS",
    "SOFTWARE_GPU_REPORT",
    "SOFTWARE_GPU_VERBOSE",
    "SOFTWARE_GPU_LIB",
    "SOFTWARE_GPU_GRAPHS",
];

/// A line on variables that nobody reads, if there are any.
pub(crate) fn unknown(names: impl Iterator<Item = String>) -> Option<String> {
    let mut found: Vec<String> =
        names.filter(|name| name.starts_with("SOFTWARE_GPU_") && !NAMES.contains(&name.as_str())).collect();
    found.sort();
    let known = || NAMES.map(|name| name.trim_start_matches("SOFTWARE_GPU")).join(", ");
    (!found.is_empty()).then(|| format!("{} is not known; known are SOFTWARE_GPU{}", found.join(", "), known()))
}

impl Settings {
    /// Reads the environment. A value that cannot be read is an error: running with something else than was asked for
    /// would make every result doubtful.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
        let get = |name: &str| get(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        let mut config = Config { threads: 0, ..Config::default() };
        if let Some(value) = get("SOFTWARE_GPU_ARCH") {
            config.arch = match value.trim_start_matches("sm_").trim_end_matches('a') {
                "80" => 80,
                "90" => 90,
                _ => return Err(format!("SOFTWARE_GPU_ARCH={value}: known are 80 and 90")),
            };
        }
        if let Some(value) = get("SOFTWARE_GPU_VERBOSE").filter(|value| level(value).is_none()) {
            return Err(format!("SOFTWARE_GPU_VERBOSE={value}: 0, 1 or 2 is wanted"));
        }
        let mut leaks = true;
        if let Some(value) = get("SOFTWARE_GPU_CHECKS") {
            (config.checks, leaks) = checks(&value).map_err(|why| format!("SOFTWARE_GPU_CHECKS={value}: {why}"))?;
        }
        let number = |name: &str| -> Result<Option<u64>, String> {
            get(name)
                .map(|value| value.parse().map_err(|_| format!("{name}={value}: a whole number is wanted")))
                .transpose()
        };
        if let Some(seed) = number("SOFTWARE_GPU_SEED")? {
            config.seed = seed;
        }
        if let Some(threads) = number("SOFTWARE_GPU_THREADS")? {
            config.threads = usize::try_from(threads).unwrap_or(usize::MAX).min(1024);
        }
        if let Some(limit) = number("SOFTWARE_GPU_MAX_INSTRUCTIONS")? {
            config.max_instructions = limit;
        }
        let memory = match get("SOFTWARE_GPU_MEMORY") {
            Some(value) => bytes(&value).ok_or_else(|| {
                format!(
                    "SOFTWARE_GPU_MEMORY={value}: a number of bytes is wanted, with K, M, G or T after it or nothing"
                )
            })?,
            None => DEFAULT_MEMORY,
        };
        if !(LEAST_MEMORY..=MOST_MEMORY).contains(&memory) {
            return Err(format!("SOFTWARE_GPU_MEMORY={memory} bytes: 4K to 1T is wanted"));
        }
        let report =
            get("SOFTWARE_GPU_REPORT").map(|path| PathBuf::from(path.replace("%p", &std::process::id().to_string())));
        let blocking = get("CUDA_LAUNCH_BLOCKING").is_some_and(|value| value != "0");
        let graphs = get("SOFTWARE_GPU_GRAPHS").map_or(Ok(Graphs::default()), |value| {
            Graphs::parse(&value).map_err(|why| format!("SOFTWARE_GPU_GRAPHS={value}: {why}"))
        })?;
        Ok(Settings { config, memory, leaks, report, blocking, graphs })
    }
}

/// Which checks are on, and whether leaks are reported. The kernel's checks are read by [`Checks::parse`]; here are the
/// kinds that belong to the driver, or that cannot be turned off since a GPU would fault too.
fn checks(value: &str) -> Result<(Checks, bool), String> {
    const ALWAYS: [&str; 5] = ["out-of-bounds", "misaligned", "use-after-free", "double-free", "launch-argument"];
    let words: Vec<&str> = value.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    match words[..] {
        ["1" | "on"] => return Ok((Checks::ALL, true)),
        ["0"] => return Ok((Checks::NONE, false)),
        _ => {}
    }
    if let Some(word) = words.iter().find(|word| word.strip_prefix('-').is_some_and(|name| ALWAYS.contains(&name))) {
        return Err(format!("{} cannot be turned off", &word[1..]));
    }
    // As in `Checks::parse`: a list that begins with `-` takes out of all, any other begins with nothing.
    let mut leaks = words.first().is_some_and(|word| word.starts_with('-'));
    for word in &words {
        match *word {
            "all" | "leak" => leaks = true,
            "none" | "off" | "-all" | "-leak" => leaks = false,
            _ => {}
        }
    }
    let others: Vec<&str> = words.iter().copied().filter(|word| !ALWAYS.contains(word) && *word != "leak").collect();
    let others = match others[..] {
        ["-leak"] => "all".to_string(),
        _ => others.iter().filter(|word| **word != "-leak").copied().collect::<Vec<_>>().join(","),
    };
    Ok((Checks::parse(&others)?, leaks))
}

/// `8589934592`, `8G`, `8GiB`, `512M`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let number: u64 = digits.trim().parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::from_env(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let settings = read(&[("SOFTWARE_GPU_ARCH", "")]).unwrap();
        assert_eq!((settings.config.arch, settings.memory, settings.config.checks), (80, 4 << 30, Checks::ALL));
        assert!(settings.report.is_none() && !settings.blocking);
    }

    #[test]
    fn values_are_read() {
        let settings = read(&[
            ("SOFTWARE_GPU_ARCH", "90"),
            ("SOFTWARE_GPU_CHECKS", "off"),
            ("SOFTWARE_GPU_SEED", "7"),
            ("SOFTWARE_GPU_THREADS", "2"),
            ("SOFTWARE_GPU_MEMORY", "512MiB"),
            ("SOFTWARE_GPU_MAX_INSTRUCTIONS", "1000"),
            ("SOFTWARE_GPU_REPORT", "r-%p.json"),
            ("CUDA_LAUNCH_BLOCKING", "1"),
            ("SOFTWARE_GPU_GRAPHS", "1,launch=3,capture=40"),
        ])
        .unwrap();
        let config = &settings.config;
        assert_eq!((config.arch, config.seed, config.threads, config.max_instructions), (90, 7, 2, 1000));
        assert_eq!((config.checks, settings.memory, settings.blocking), (Checks::NONE, 512 << 20, true));
        assert_eq!(settings.graphs, Graphs { on: true, failing: [Some(40), None, None, Some(3)] });
        assert_eq!(settings.report.unwrap(), PathBuf::from(format!("r-{}.json", std::process::id())));
    }

    #[test]
    fn checks_are_read_by_name_and_leaks_are_one_of_them() {
        let race = Checks { race: true, ..Checks::NONE };
        let all_but_race = Checks { race: false, ..Checks::ALL };
        for (text, wanted) in [
            ("all", (Checks::ALL, true)),
            ("off", (Checks::NONE, false)),
            ("race", (race, false)),
            ("race,leak,misaligned", (race, true)),
            ("-race", (all_but_race, true)),
            ("-leak", (Checks::ALL, false)),
            ("-leak,-race", (all_but_race, false)),
            ("all,-leak", (Checks::ALL, false)),
            ("leak", (Checks::NONE, true)),
        ] {
            assert_eq!(checks(text).unwrap(), wanted, "{text}");
        }
        assert!(checks("-misaligned").unwrap_err().contains("cannot be turned off"));
    }

    #[test]
    fn unknown_variables_are_named() {
        let names = |list: &[&str]| unknown(list.iter().map(|name| name.to_string()));
        assert_eq!(names(&["PATH", "SOFTWARE_GPU_SEED", "CUDA_LAUNCH_BLOCKING"]), None);
        let said = names(&["SOFTWARE_GPU_SEEDS", "SOFTWARE_GPU_CHECK", "SOFTWARE_GPU_LIB"]).unwrap();
        assert!(said.starts_with("SOFTWARE_GPU_CHECK, SOFTWARE_GPU_SEEDS is not known"), "{said}");
    }

    #[test]
    fn values_that_cannot_be_read_name_the_variable() {
        for (name, value) in [
            ("SOFTWARE_GPU_ARCH", "75"),
            ("SOFTWARE_GPU_CHECKS", "rase"),
            ("SOFTWARE_GPU_SEED", "x"),
            ("SOFTWARE_GPU_MEMORY", "4 apples"),
            ("SOFTWARE_GPU_MEMORY", "0"),
            ("SOFTWARE_GPU_MEMORY", "12"),
            ("SOFTWARE_GPU_MEMORY", "900T"),
            ("SOFTWARE_GPU_VERBOSE", "loud"),
            ("SOFTWARE_GPU_VERBOSE", "7"),
            ("SOFTWARE_GPU_GRAPHS", "yes"),
            ("SOFTWARE_GPU_GRAPHS", "1,launch"),
            ("SOFTWARE_GPU_GRAPHS", "1,start=1"),
            ("SOFTWARE_GPU_GRAPHS", "1,launch=0"),
        ] {
            let why = read(&[(name, value)]).err().unwrap();
            assert!(why.starts_with(name), "{why}");
        }
    }
}
