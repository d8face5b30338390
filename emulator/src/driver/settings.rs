//! The environment variables `SOFTWARE_GPU_*`, read once.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::{Checks, Config};

/// Device memory without `SOFTWARE_GPU_MEMORY`.
const DEFAULT_MEMORY: u64 = 4 << 30;

/// What the environment asks for.
pub(crate) struct Settings {
    pub config: Config,
    /// Bytes of device memory.
    pub memory: u64,
    /// Where the counters go at the end.
    pub report: Option<PathBuf>,
    /// A fault is told by the launch itself (`CUDA_LAUNCH_BLOCKING=1`).
    pub blocking: bool,
}

/// 0: findings only. 1: refusals and why. 2: every call.
pub(crate) fn verbosity() -> u32 {
    static LEVEL: OnceLock<u32> = OnceLock::new();
    *LEVEL.get_or_init(|| match std::env::var("SOFTWARE_GPU_VERBOSE").as_deref() {
        Err(_) | Ok("" | "0" | "off" | "no" | "false") => 0,
        Ok(level) => level.parse().unwrap_or(1),
    })
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
        if let Some(value) = get("SOFTWARE_GPU_CHECKS") {
            config.checks = match value.as_str() {
                "1" | "on" => Checks::ALL,
                "0" => Checks::NONE,
                names => Checks::parse(names).map_err(|why| format!("SOFTWARE_GPU_CHECKS={names}: {why}"))?,
            };
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
        let report =
            get("SOFTWARE_GPU_REPORT").map(|path| PathBuf::from(path.replace("%p", &std::process::id().to_string())));
        let blocking = get("CUDA_LAUNCH_BLOCKING").is_some_and(|value| value != "0");
        Ok(Settings { config, memory, report, blocking })
    }
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
        ])
        .unwrap();
        let config = &settings.config;
        assert_eq!((config.arch, config.seed, config.threads, config.max_instructions), (90, 7, 2, 1000));
        assert_eq!((config.checks, settings.memory, settings.blocking), (Checks::NONE, 512 << 20, true));
        assert_eq!(settings.report.unwrap(), PathBuf::from(format!("r-{}.json", std::process::id())));
    }

    #[test]
    fn values_that_cannot_be_read_name_the_variable() {
        for (name, value) in [
            ("SOFTWARE_GPU_ARCH", "75"),
            ("SOFTWARE_GPU_CHECKS", "rase"),
            ("SOFTWARE_GPU_SEED", "x"),
            ("SOFTWARE_GPU_MEMORY", "4 apples"),
            ("SOFTWARE_GPU_MEMORY", "0"),
        ] {
            let why = read(&[(name, value)]).err().unwrap();
            assert!(why.starts_with(name), "{why}");
        }
    }
}
