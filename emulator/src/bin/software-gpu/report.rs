//! `software-gpu report`: tables from a report file: what each kernel moved and did, its bounds, its instructions by class.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;

use crate::bounds::GPUS;
use crate::json::{Json, parse, thousands};
use crate::{Failure, say};

/// Bytes of a sector.
const SECTOR: f64 = 32.0;

/// Columns of a row before which the tables of traffic and of kinds of instructions end.
const TRAFFIC: usize = 10;
const KINDS: usize = 17;

/// What was asked for on the command line.
#[derive(Default)]
struct Options {
    file: String,
    minimum: HashMap<String, f64>,
    registers: HashMap<String, f64>,
    /// Those that `--registers` named, which must be there; a log may name kernels that never ran.
    named: HashMap<String, f64>,
}

fn options(arguments: &[OsString]) -> Result<Options, Failure> {
    let usage = |text: String| Failure::Usage(format!("report: {text}"));
    let mut options = Options::default();
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_string(), Some(value.to_string())),
            _ => (argument.clone(), None),
        };
        if !name.starts_with("--") {
            if !options.file.is_empty() {
                return Err(usage(format!("one file is expected; '{argument}' is a second one")));
            }
            options.file = argument;
            continue;
        }
        if !["--minimum", "--registers", "--log"].contains(&name.as_str()) {
            return Err(usage(format!("unknown option {name}; known: --minimum, --registers, --log")));
        }
        let Some(value) = inline.or_else(|| arguments.next()) else {
            return Err(usage(format!("{name} needs a value")));
        };
        if name == "--log" {
            let text = fs::read_to_string(&value).map_err(|why| usage(format!("{value}: {why}")))?;
            options.registers.extend(registers_of(&text));
            continue;
        }
        let parsed = value.rsplit_once('=').and_then(|(kernel, number)| Some((kernel, number.parse::<f64>().ok()?)));
        let Some((kernel, number)) = parsed.filter(|(_, number)| number.is_finite() && *number >= 0.0) else {
            return Err(usage(format!("{name} {value}: KERNEL=NUMBER is expected")));
        };
        let table = if name == "--minimum" { &mut options.minimum } else { &mut options.named };
        table.insert(kernel.to_string(), number);
    }
    options.registers.extend(options.named.iter().map(|(name, number)| (name.clone(), *number)));
    if options.file.is_empty() {
        return Err(usage(
            "a file is missing; write one with SOFTWARE_GPU_REPORT=FILE software-gpu run PROGRAM".into(),
        ));
    }
    Ok(options)
}

/// Registers by kernel from the log of `ptxas -v`: `Compiling entry function 'NAME' …`, later `Used N registers`.
fn registers_of(log: &str) -> HashMap<String, f64> {
    let mut found = HashMap::new();
    let mut kernel = None;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split_once('\'').map(|(name, _)| name.to_string());
        }
        let used = line.split_once("Used ").and_then(|(_, rest)| rest.split_once(" registers"));
        if let (Some(kernel), Some(used)) = (&kernel, used.and_then(|(number, _)| number.parse().ok())) {
            found.insert(kernel.clone(), used);
        }
    }
    found
}

/// `a / b`, or a dash where there is nothing to divide by.
fn ratio(a: f64, b: f64) -> String {
    if b > 0.0 { format!("{:.2}", a / b) } else { "-".into() }
}

/// Sectors per request of these kinds, and in brackets the share of their bytes that lanes asked for.
fn sectors(counters: &Json, kinds: &[&str]) -> String {
    let sum = |what: &str| kinds.iter().map(|kind| counters.number(&format!("{kind}_{what}"))).sum::<f64>();
    let (requests, sectors, bytes) = (sum("requests"), sum("sectors"), sum("bytes"));
    if requests > 0.0 { format!("{:.1} ({})", sectors / requests, ratio(bytes, sectors * SECTOR)) } else { "-".into() }
}

/// Microseconds, with as many digits as say something.
fn microseconds(seconds: f64) -> String {
    let time = seconds * 1e6;
    if time >= 100.0 { thousands(time) } else { format!("{time:.2}") }
}

/// One row of the first table.
fn row(kernel: &Json, options: &Options) -> Vec<String> {
    let name = kernel.text("kernel").unwrap_or("?");
    let none = Json::Object(Vec::new());
    let counters = kernel.get("counters").unwrap_or(&none);
    let classes = kernel.get("warp_instructions").unwrap_or(&none);
    let count = |name: &str| counters.number(name);
    let warp: f64 = match classes {
        Json::Object(members) => members.iter().map(|(name, _)| classes.number(name)).sum(),
        _ => 0.0,
    };
    let moved =
        ["load", "store", "async", "atomic"].map(|kind| count(&format!("{kind}_sectors"))).iter().sum::<f64>() * SECTOR;
    let launches = kernel.number("launches").max(1.0);
    let registers = options.registers.get(name).copied();
    let mut cells = vec![
        name.to_string(),
        thousands(kernel.number("launches")),
        thousands(warp),
        ratio(count("thread_instructions"), warp),
        sectors(counters, &["load", "async"]),
        sectors(counters, &["store"]),
        format!("{:.3}", moved / 1e6),
        // The minimum is that of one launch.
        options.minimum.get(name).map_or("-".into(), |minimum| ratio(moved, minimum * launches)),
        thousands(count("shared_requests")),
        format!(
            "{} ({})",
            ratio(count("shared_wavefronts"), count("shared_requests")),
            ratio(count("shared_wavefronts"), count("shared_wavefronts_ideal"))
        ),
        thousands(classes.number("matrix")),
        thousands(classes.number("load_matrix")),
        thousands(count("async_copies")),
        thousands(classes.number("shuffle")),
        thousands(count("barriers")),
        thousands(count("atomic_requests")),
        thousands(count("divergent_branches")),
        registers.map_or("-".into(), thousands),
    ];
    for gpu in &GPUS {
        let share = gpu.occupancy(kernel.number("threads_per_block"), kernel.number("shared_per_block"), registers);
        cells.push(format!("{:.0} %", share * 100.0));
    }
    for gpu in &GPUS {
        let (seconds, by) = gpu.bound(moved / launches, count("matrix_macs") / launches);
        cells.push(format!("{} {by}", microseconds(seconds)));
    }
    cells
}

/// A table in columns, the first to the left and the others to the right.
fn table(heads: &[String], rows: &[Vec<String>]) -> String {
    let width =
        |column: usize| rows.iter().chain([&heads.to_vec()]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &[String]| -> String {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut out = line(heads);
    out.push_str(&line(&rule));
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out
}

/// Makes the text of a report.
fn render(report: &Json, options: &Options) -> String {
    let kernels = report.list("kernels");
    let findings = report.list("findings");
    let launches: f64 = kernels.iter().map(|kernel| kernel.number("launches")).sum();
    let mut out = format!(
        "{}; kernels: {}, launches: {}, findings: {}\n\n",
        report.text("device").unwrap_or("unknown device"),
        kernels.len(),
        thousands(launches),
        findings.len()
    );
    let mut heads: Vec<String> = [
        "kernel",
        "launches",
        "warp inst",
        "lanes",
        "load sectors/req",
        "store sectors/req",
        "MB",
        "x min",
        "shared req",
        "waves/req",
        "mma",
        "ldmatrix",
        "cp.async",
        "shfl",
        "bar",
        "atom",
        "divergent",
        "regs",
    ]
    .map(String::from)
    .to_vec();
    heads.extend(GPUS.iter().map(|gpu| format!("occupancy {}", gpu.name)));
    heads.extend(GPUS.iter().map(|gpu| format!("bound {}, us", gpu.name)));
    let rows: Vec<_> = kernels.iter().map(|kernel| row(kernel, options)).collect();
    // Three tables that fit a screen: traffic, kinds of instructions, and what the real parts could do.
    for columns in [1..TRAFFIC, TRAFFIC..KINDS, KINDS..heads.len()] {
        let part = |row: &[String]| [&row[..1], &row[columns.clone()]].concat();
        out.push_str(&table(&part(&heads), &rows.iter().map(|row| part(row)).collect::<Vec<_>>()));
        out.push('\n');
    }
    out.push_str(
        "Sums over all launches; bounds are of one launch. lanes: active threads an instruction. In brackets: bytes asked\n\
         for by bytes of the sectors (1.00 is best); wavefronts by the least that the accesses' width allows (1.00 is best).\n\
         bound: the larger of bytes by memory bandwidth and tensor operations by the bf16 peak, as if no cache held a byte\n\
         twice and nothing else took time. It is a bound, never a claimed time.\n\n",
    );
    let mut classes: Vec<String> = Vec::new();
    for kernel in kernels {
        if let Some(Json::Object(members)) = kernel.get("warp_instructions") {
            for (name, _) in members {
                if !classes.contains(name) {
                    classes.push(name.clone());
                }
            }
        }
    }
    let mut heads = vec!["warp instructions".to_string()];
    heads.extend(classes.iter().cloned());
    let rows: Vec<_> = kernels
        .iter()
        .map(|kernel| {
            let mut row = vec![kernel.text("kernel").unwrap_or("?").to_string()];
            let counts = kernel.get("warp_instructions");
            row.extend(classes.iter().map(|class| thousands(counts.map_or(0.0, |counts| counts.number(class)))));
            row
        })
        .collect();
    out.push_str(&table(&heads, &rows));
    for finding in findings {
        if let Json::Text(text) = finding {
            out.push_str(&format!("finding: {text}\n"));
        }
    }
    out
}

/// Prints the tables of a report file.
pub(crate) fn report(arguments: &[OsString]) -> Result<u8, Failure> {
    let options = options(arguments)?;
    let file = &options.file;
    let text = fs::read_to_string(file).map_err(|why| Failure::Usage(format!("{file}: {why}")))?;
    let report = parse(&text).map_err(|why| Failure::Usage(format!("{file}: no JSON: {why}")))?;
    if !report.text("format").is_some_and(|format| format.starts_with("software-gpu report")) {
        return Err(Failure::Usage(format!("{file}: not a report of the software GPU (it has no \"format\")")));
    }
    let kernels = report.list("kernels");
    let names = || kernels.iter().filter_map(|kernel| kernel.text("kernel"));
    for (option, table) in [("--minimum", &options.minimum), ("--registers", &options.named)] {
        let mut unknown: Vec<_> = table.keys().filter(|name| !names().any(|known| known == name.as_str())).collect();
        unknown.sort();
        if let Some(name) = unknown.first() {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(Failure::Usage(format!("report: {option} {name}: {file} has no such kernel; it has: {known}")));
        }
    }
    say(&render(&report, &options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_from_a_compile_log() {
        let log = "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'scale' for 'sm_80'\n\
                   ptxas info    : Function properties for scale\n    0 bytes stack frame\n\
                   ptxas info    : Used 24 registers, used 0 barriers, 380 bytes cmem[0]\n";
        assert_eq!(registers_of(log), HashMap::from([("scale".to_string(), 24.0)]));
    }

    #[test]
    fn a_row_gives_ratios() {
        let text = r#"{"format":"software-gpu report 1","device":"sm_80","kernels":[{"kernel":"k","launches":2,
            "threads_per_block":128,"shared_per_block":0,"seconds":1,"warp_instructions":{"float":30,"load_global":10},
            "counters":{"thread_instructions":1280,"load_requests":10,"load_sectors":160,"load_bytes":2560,
            "store_requests":0,"store_sectors":0,"shared_requests":4,"shared_wavefronts":8,"shared_wavefronts_ideal":4}}],
            "launches":[],"findings":["race: x"]}"#;
        let options = Options { minimum: HashMap::from([("k".to_string(), 1280.0)]), ..Options::default() };
        let report = parse(text).unwrap();
        let cells = row(&report.list("kernels")[0], &options);
        assert_eq!(&cells[..10], ["k", "2", "40", "32.00", "16.0 (0.50)", "-", "0.005", "2.00", "4", "2.00 (2.00)"]);
        let text = render(&report, &options);
        assert!(
            text.contains("sm_80; kernels: 1, launches: 2, findings: 1") && text.contains("finding: race: x"),
            "{text}"
        );
    }
}
