//! Findings of a launch: one per kind and instruction, and the fault that ends it.

use super::Cx;
use crate::error::{Finding, Kind};
use crate::isa::Flow;
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
        let source = (source as usize).checked_sub(1).and_then(|at| self.g.program.sources.get(at)).cloned();
        Finding {
            kind,
            kernel: self.g.kernel.name.clone(),
            ptx_line: line,
            source,
            block: self.b.coordinates,
            thread: self.w.thread(lane, self.g.block),
            address,
            allocation,
            note,
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
        let mut findings = self.g.findings.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if findings.list.len() < MOST && findings.seen.insert((kind, self.w.pc)) {
            let finding = self.finding(kind, lane, address, allocation, note.into());
            findings.list.push(finding);
        }
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

    /// Reports a register that was never written, at the use that matters.
    #[cold]
    pub fn undefined(&self, lanes: u32, what: &str) {
        if self.g.config.checks.uninitialised {
            self.report(
                Kind::Uninitialised,
                lanes.trailing_zeros(),
                None,
                None,
                format!("{what} comes from a register that was never written"),
            );
        }
    }
}
