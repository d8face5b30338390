//! What is told to people: findings and leaks on standard error, device printf on standard output, counters in the file
//! that `SOFTWARE_GPU_REPORT` names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Once;

use super::codes::{CUDA_ERROR_INVALID_VALUE, name_of};
use super::state::{Driver, Owned, driver, lock};
use crate::{Class, Counters, Finding, Function, Kind, Launch, Report};

/// Launches that are kept one by one; those after them are in the sums only.
const KEPT_LAUNCHES: usize = 100_000;

/// Text of findings that are kept for the report.
const KEPT_FINDINGS: usize = 10_000;

/// What is gathered for the report file.
#[derive(Default)]
pub(crate) struct Output {
    findings: Vec<String>,
    launches: Vec<LaunchRecord>,
    kernels: BTreeMap<String, KernelSum>,
    all_launches: u64,
}

/// One launch.
pub(crate) struct LaunchRecord {
    kernel: String,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    static_shared: u32,
    counters: Counters,
    seconds: f64,
    /// The kind of the worst finding.
    finding: Option<&'static str>,
}

/// All launches of a kernel.
#[derive(Default)]
struct KernelSum {
    launches: u64,
    counters: Counters,
    seconds: f64,
    threads: u32,
    shared: u32,
}

impl LaunchRecord {
    pub fn new(function: &Function, launch: &Launch, report: &Report, worst: Option<&Finding>) -> LaunchRecord {
        LaunchRecord {
            kernel: function.name.clone(),
            grid: launch.grid,
            block: launch.block,
            dynamic_shared: launch.dynamic_shared,
            static_shared: function.static_shared,
            counters: report.counters.clone(),
            seconds: report.seconds,
            finding: worst.map(|finding| finding.kind.name()),
        }
    }
}

/// Prints one line and keeps it for the report.
fn tell(line: String) {
    eprintln!("software-gpu: {line}");
    if let Ok(driver) = driver()
        && driver.settings.report.is_some()
    {
        let mut output = lock(&driver.output);
        if output.findings.len() < KEPT_FINDINGS {
            output.findings.push(line);
        }
    }
}

/// A finding of a kernel.
pub(crate) fn finding(_driver: &Driver, finding: &Finding) {
    tell(finding.to_string());
}

/// A finding at a call of the host.
pub(crate) fn host_finding(kind: Kind, call: &str, address: u64, allocation: Option<(u64, u64)>, note: &str) {
    let mut line = format!("{}: call {call}, address {address:#x}", kind.name());
    if let Some((start, bytes)) = allocation {
        let _ = write!(line, ", allocation {start:#x} of {bytes} bytes");
    }
    tell(format!("{line}: {note}"));
}

/// A launch that is refused for its shape or its parameters.
pub(crate) fn launch_argument(kernel: &str, why: &str) {
    let code = name_of(CUDA_ERROR_INVALID_VALUE);
    tell(format!("{}: kernel {kernel}, the launch is refused with {code}: {why}", Kind::LaunchArgument.name()));
}

/// An allocation that nobody freed.
pub(crate) fn leak(driver: &Driver, address: u64, owned: &Owned, when: &str) {
    if !driver.settings.leaks {
        return;
    }
    let (bytes, call) = (owned.bytes, owned.call);
    tell(format!(
        "{}: call {call}, address {address:#x}, allocation {address:#x} of {bytes} bytes: not freed {when}",
        Kind::Leak.name()
    ));
}

/// Writes what kernels of a context printed, at a synchronisation.
pub(crate) fn flush_printf(driver: &Driver, context: usize) {
    let printed = match driver.world().contexts.get_mut(&context) {
        Some(context) if !context.printed.is_empty() => std::mem::take(&mut context.printed),
        _ => return,
    };
    let mut out = std::io::stdout().lock();
    // A closed standard output is the program's own affair.
    let _ = out.write_all(&printed).and_then(|()| out.flush());
}

/// Adds a launch to the report.
pub(crate) fn record(driver: &Driver, launch: LaunchRecord) {
    if driver.settings.report.is_none() {
        return;
    }
    let mut output = lock(&driver.output);
    output.all_launches += 1;
    let sum = output.kernels.entry(launch.kernel.clone()).or_default();
    sum.launches += 1;
    sum.counters.add(&launch.counters);
    sum.seconds += launch.seconds;
    sum.threads = sum.threads.max(launch.block.iter().product());
    sum.shared = sum.shared.max(launch.static_shared.saturating_add(launch.dynamic_shared));
    if output.launches.len() < KEPT_LAUNCHES {
        output.launches.push(launch);
    }
}

unsafe extern "C" {
    /// The C library's: handlers run at `exit` and when the library is unloaded.
    safe fn atexit(function: extern "C" fn()) -> i32;
}

/// Arranges for leaks and the report at the end of the process.
pub(crate) fn at_exit() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        if atexit(end) != 0 {
            eprintln!(
                "software-gpu: leaks and the report file are off: the process has no room for another exit handler"
            );
        }
    });
}

extern "C" fn end() {
    let _ = std::panic::catch_unwind(|| {
        let Ok(driver) = driver() else { return };
        // Another thread may be inside a call for ever; then there is nothing to say that would be sure.
        if let Some(world) = driver.try_world() {
            let leaked: Vec<_> = world
                .owned
                .iter()
                // After a fault no call could free anything: those are no leaks of the program.
                .filter(|(_, owned)| world.contexts.get(&owned.context).is_none_or(|context| context.fault.is_none()))
                .map(|(address, owned)| (*address, owned.clone()))
                .collect();
            drop(world);
            for (address, owned) in &leaked {
                leak(driver, *address, owned, "before the end of the process");
            }
        }
        write_report(driver);
    });
}

/// Writes the report beside its place and moves it there, so that no reader meets half a file.
fn write_report(driver: &Driver) {
    let Some(path) = &driver.settings.report else { return };
    let text = json(driver.settings.config.arch, &lock(&driver.output));
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}.tmp", std::process::id()));
    if let Err(why) = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)) {
        eprintln!("software-gpu: the report {} cannot be written: {why}", path.display());
    }
}

/// The report as JSON: `device`, `kernels` (sums), `launches`, `launches_not_listed`, `findings`.
fn json(arch: u32, output: &Output) -> String {
    let mut text = format!("{{\"format\":\"software-gpu report 1\",\"device\":\"sm_{arch}\",\n\"kernels\":[");
    for (at, (name, sum)) in output.kernels.iter().enumerate() {
        let _ = write!(
            text,
            "{}\n{{\"kernel\":{},\"launches\":{},\"threads_per_block\":{},\"shared_per_block\":{},\"seconds\":{:.6},{}}}",
            if at == 0 { "" } else { "," },
            quoted(name),
            sum.launches,
            sum.threads,
            sum.shared,
            sum.seconds,
            counters(&sum.counters)
        );
    }
    text.push_str("],\n\"launches\":[");
    for (at, launch) in output.launches.iter().enumerate() {
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let _ = write!(
            text,
            "{}\n{{\"kernel\":{},\"grid\":[{gx},{gy},{gz}],\"block\":[{bx},{by},{bz}],\"dynamic_shared\":{},\"static_shared\":{},\
             \"seconds\":{:.6},\"finding\":{},{}}}",
            if at == 0 { "" } else { "," },
            quoted(&launch.kernel),
            launch.dynamic_shared,
            launch.static_shared,
            launch.seconds,
            launch.finding.map_or("null".to_string(), quoted),
            counters(&launch.counters)
        );
    }
    let _ = write!(
        text,
        "],\n\"launches_not_listed\":{},\n\"findings\":[",
        output.all_launches - output.launches.len() as u64
    );
    for (at, finding) in output.findings.iter().enumerate() {
        let _ = write!(text, "{}\n{}", if at == 0 { "" } else { "," }, quoted(finding));
    }
    text.push_str("]}\n");
    text
}

/// `"warp_instructions":{CLASS:n,…},"counters":{NAME:n,…}`; classes without instructions are left out.
fn counters(counters: &Counters) -> String {
    let classes = Class::NAMES.iter().zip(counters.warp_instructions).filter(|(_, count)| *count > 0);
    let classes: Vec<String> = classes.map(|(name, count)| format!("\"{name}\":{count}")).collect();
    let fields: Vec<String> = counters.fields().iter().map(|(name, count)| format!("\"{name}\":{count}")).collect();
    format!("\"warp_instructions\":{{{}}},\"counters\":{{{}}}", classes.join(","), fields.join(","))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if (control as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_json() {
        let mut output = Output { all_launches: 3, ..Output::default() };
        output.findings.push("race: \"a\\b\"\n\u{1}ü".into());
        output.kernels.insert("k".into(), KernelSum { launches: 3, seconds: 0.5, ..KernelSum::default() });
        let parsed: serde_json::Value = serde_json::from_str(&json(80, &output)).unwrap();
        assert_eq!(parsed["findings"][0], "race: \"a\\b\"\n\u{1}ü");
        assert_eq!((&parsed["kernels"][0]["launches"], &parsed["launches_not_listed"]), (&3.into(), &3.into()));
    }
}
