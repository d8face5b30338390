//! Findings of a launch: one per kind and instruction, and the fault that ends it.

use super::Cx;
use crate::error::{Finding, Kind, Source};
use crate::isa::Flow;
use crate::race::Stamp;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

#[derive(Default)]
pub(crate) struct Findings {
    seen: HashSet<(Kind, u32)>,
    pub list: Vec<Finding>,
    pub fault: Option<Finding>,
}

/// Most findings kept of one launch.
const MOST: usize = 1000;

impl Cx<'_> {
    fn finding(
        &self,
        kind: Kind,
        lane: u32,
        address: Option<u64>,
        allocation: Option<String>,
        note: String,
    ) -> Finding {
        let (line, source, _) = self.g.program.places.get(self.w.pc as usize).copied().unwrap_or_default();
        Finding {
            kind,
            kernel: self.g.kernel.name.clone(),
            ptx_line: line,
            source: self.source(source).cloned(),
            block: self.b.coordinates,
            thread: self.w.thread(lane, self.g.block),
            address,
            allocation,
            note,
        }
    }

    /// Records a finding at an instruction that is not the current one.
    #[cold]
    pub fn report_at(&self, place: u32, kind: Kind, lane: u32, note: String) {
        let (line, source, _) = self.g.program.places.get(place as usize).copied().unwrap_or_default();
        let finding = self.finding(kind, lane, None, None, note);
        self.keep(place, Finding { ptx_line: line, source: self.source(source).cloned(), ..finding });
    }

    /// The line of an instruction, of the source or else of the text.
    pub fn line(&self, place: u32) -> String {
        let (line, source, _) = self.g.program.places.get(place as usize).copied().unwrap_or_default();
        match self.source(source) {
            Some(source) => source.to_string(),
            None => format!("ptx:{line}"),
        }
    }

    /// Whether two instructions come from one line.
    pub fn same_line(&self, a: u32, b: u32) -> bool {
        let of = |place: u32| {
            let (line, source, _) = self.g.program.places.get(place as usize).copied().unwrap_or_default();
            self.source(source).map_or(("", line), |source| (&source.file, source.line))
        };
        a == b || of(a) == of(b)
    }

    fn source(&self, number: u32) -> Option<&Source> {
        (number as usize).checked_sub(1).and_then(|at| self.g.program.sources.get(at))
    }

    /// Reports a race at both of its accesses, each with whether it wrote: which comes first is up to the schedule.
    #[cold]
    pub fn race(&self, address: u64, allocation: &str, earlier: (Stamp, bool), later: (Stamp, bool)) {
        let block = |stamp: Stamp| {
            let [x, y, _] = self.g.grid;
            let number = stamp.block();
            if stamp.in_shared() { self.b.coordinates } else { [number % x, number / x % y, number / x / y] }
        };
        let between = if block(earlier.0) == block(later.0) { "no barrier" } else { "no atomic or fence" };
        for ((mine, wrote), (other, other_wrote)) in [(later, earlier), (earlier, later)] {
            let Some(place) = mine.place() else { continue };
            let (line, source, _) = self.g.program.places.get(place as usize).copied().unwrap_or_default();
            let there = other.place().map_or(String::new(), |place| format!(" at {}", self.line(place)));
            let ([x, y, z], [bx, by, bz]) = (self.w.thread_of(other.thread(), self.g.block), block(other));
            let of = if block(mine) == block(other) { String::new() } else { format!(" of block ({bx},{by},{bz})") };
            let what = if wrote { "write" } else { "read" };
            let did = if other_wrote { "writes" } else { "reads" };
            self.keep(
                place,
                Finding {
                    kind: Kind::Race,
                    kernel: self.g.kernel.name.clone(),
                    ptx_line: line,
                    source: self.source(source).cloned(),
                    block: block(mine),
                    thread: self.w.thread_of(mine.thread(), self.g.block),
                    address: Some(address),
                    allocation: Some(allocation.into()),
                    note: format!("{what} of what thread ({x},{y},{z}){of} {did}{there}, with {between} between them"),
                },
            );
        }
    }

    /// Keeps a finding if it is the first of its kind at its instruction.
    fn keep(&self, place: u32, finding: Finding) {
        let mut findings = self.g.findings.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if findings.list.len() < MOST && findings.seen.insert((finding.kind, place)) {
            findings.list.push(finding);
        }
    }

    /// Records a finding that lets the launch go on, once per kind and instruction.
    #[cold]
    pub fn report(
        &self,
        kind: Kind,
        lane: u32,
        address: Option<u64>,
        allocation: Option<String>,
        note: impl Into<String>,
    ) {
        self.keep(self.w.pc, self.finding(kind, lane, address, allocation, note.into()));
    }

    /// Records the fault that ends the launch.
    #[cold]
    pub fn fault(
        &self,
        kind: Kind,
        lane: u32,
        address: Option<u64>,
        allocation: Option<String>,
        note: impl Into<String>,
    ) -> Flow {
        let mut findings = self.g.findings.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if findings.fault.is_none() {
            findings.fault = Some(self.finding(kind, lane, address, allocation, note.into()));
        }
        self.g.stop.store(true, Ordering::Relaxed);
        Flow::Fault
    }

    /// Reports a register that was never written, or local memory that was not, at the use that matters.
    #[cold]
    pub fn undefined(&self, lanes: u32, what: &str) {
        if self.g.config.checks.uninitialised {
            let (readers, place) = self.w.unwritten;
            let from = if lanes & readers != 0 {
                format!("local memory that was never written (read at {})", self.line(place))
            } else {
                "a register that was never written".into()
            };
            self.report(Kind::Uninitialised, lanes.trailing_zeros(), None, None, format!("{what} comes from {from}"));
        }
    }
}
