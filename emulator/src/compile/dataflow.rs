//! Where the value of a load can go: which registers each instruction reads and writes, and which instructions let
//! values leave the registers.

use super::names::Register;
use crate::program::{Bank, Program};
use crate::ptx::ast::{Instruction, Operand};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

type Name = (Bank, u16);

/// One instruction of the text.
struct Step {
    /// The first of its decoded instructions.
    start: u32,
    function: u32,
    writes: Vec<Name>,
    reads: Vec<Name>,
    /// Registers whose value decides where memory is touched, or what runs.
    decides: Vec<Name>,
    /// Its number among those that let values out; 0 for others.
    effect: u16,
    across_lanes: bool,
    /// An atomic compare-and-swap.
    swap: bool,
    next: Next,
}

/// Where an instruction leads, beside to the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Following,
    /// To its target, and with a guard to the next one too.
    Target {
        guarded: bool,
    },
    Targets,
    /// Nowhere, or with a guard to the next one.
    Nowhere {
        guarded: bool,
    },
}

/// Instructions of a whole module, in order.
#[derive(Default)]
pub(crate) struct Dataflow {
    steps: Vec<Step>,
    effects: u16,
}

/// What becomes of a loaded value.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// It decides an address or a branch, or leaves by an instruction that is not counted.
    pub always: bool,
    /// Instructions through which it leaves.
    pub effects: Vec<u16>,
    /// It passes to other lanes on its way.
    pub across_lanes: bool,
    /// It goes into a compare-and-swap, which looks again at what is there.
    pub swapped: bool,
}

impl Dataflow {
    /// How many instructions that let values out there are; numbers go from 1.
    pub fn effects(&self) -> usize {
        self.effects as usize
    }

    /// A number for an instruction that lets values out; 0 when there are no more.
    pub fn new_effect(&mut self) -> u16 {
        if self.effects < u16::MAX {
            self.effects += 1;
            return self.effects;
        }
        0
    }

    /// Notes an instruction. `effect` is none for those that keep values in registers.
    pub fn note(
        &mut self,
        start: u32,
        function: u32,
        text: &Instruction,
        effect: Option<u16>,
        mut find: impl FnMut(&str) -> Option<Register>,
    ) {
        let op = text.opcode.split('.').next().unwrap_or("");
        let guarded = text.guard.is_some();
        let next = match op {
            "bra" => Next::Target { guarded },
            "brx" => Next::Targets,
            "ret" | "exit" | "trap" => Next::Nowhere { guarded },
            _ => Next::Following,
        };
        let mut step = Step {
            next,
            swap: op == "atom" && text.opcode.contains(".cas"),
            start,
            function,
            writes: Vec::new(),
            reads: Vec::new(),
            decides: Vec::new(),
            effect: effect.unwrap_or(0),
            across_lanes: matches!(op, "shfl" | "vote" | "match" | "redux" | "mma" | "bar" | "barrier"),
        };
        let mut name = |name: &str, list: &mut Vec<Name>| {
            if let Some(register) = find(name) {
                list.push((register.bank, register.index));
            }
        };
        if let Some((guard, _)) = text.guard {
            name(guard, &mut step.decides);
        }
        // Instructions without a result, whose first operand is a source, and those whose values go out unseen.
        let no_result =
            matches!(op, "st" | "red" | "bra" | "brx" | "cp" | "call" | "stmatrix" | "mbarrier" | "prefetch");
        let unseen = matches!(op, "brx" | "cp" | "call" | "stmatrix" | "mbarrier") || (effect == Some(0));
        for (k, operand) in text.operands.iter().enumerate() {
            let mut left = vec![operand];
            while let Some(operand) = left.pop() {
                match operand {
                    Operand::Name { name: text, .. } if k == 0 && !no_result => name(text, &mut step.writes),
                    Operand::Name { name: text, .. } if unseen => name(text, &mut step.decides),
                    Operand::Name { name: text, .. } => name(text, &mut step.reads),
                    Operand::Memory { base: Some(text), .. } => name(text, &mut step.decides),
                    Operand::Vector(list) | Operand::Group(list) => left.extend(list),
                    Operand::Pair(a, b) => left.extend([&**a, &**b]),
                    _ => {}
                }
            }
        }
        self.steps.push(step);
    }

    fn step_of(&self, place: u32) -> Option<usize> {
        self.steps.partition_point(|step| step.start <= place).checked_sub(1)
    }

    /// The steps that can follow one at once.
    fn followers(&self, at: usize, program: &Program) -> Vec<usize> {
        let step = &self.steps[at];
        let end = self.steps.get(at + 1).map_or(program.code.len() as u32, |next| next.start);
        let last = end.checked_sub(1).and_then(|last| program.code.get(last as usize));
        let (mut places, on) = match (step.next, last) {
            (Next::Target { guarded }, Some(ins)) => (vec![ins.imm as u32], guarded),
            (Next::Targets, Some(ins)) => (program.tables[ins.list as usize].clone(), false),
            (Next::Nowhere { guarded }, _) => (Vec::new(), guarded),
            _ => (Vec::new(), true),
        };
        if on {
            places.push(end);
        }
        let steps = places.into_iter().filter_map(|place| self.step_of(place));
        steps.filter(|next| self.steps[*next].function == step.function).collect()
    }

    fn reached(&self, from: usize, program: &Program) -> HashSet<usize> {
        let (mut seen, mut left) = (HashSet::new(), vec![from]);
        while let Some(at) = left.pop() {
            left.extend(self.followers(at, program).into_iter().filter(|next| seen.insert(*next)));
        }
        seen
    }

    /// Steps that can come after an instruction.
    fn after(&self, place: u32, program: &Program) -> HashSet<usize> {
        self.step_of(place).map_or(HashSet::new(), |from| self.reached(from, program))
    }

    /// Whether an instruction does more than to end its thread.
    fn goes_on(&self, place: u32, program: &Program) -> bool {
        let Some(mut to) = self.step_of(place) else { return false };
        // Jumps to the end end it too.
        for _ in 0..8 {
            match self.steps[to].next {
                Next::Nowhere { guarded: false } => return false,
                Next::Target { guarded: false } => match self.followers(to, program).first() {
                    Some(next) => to = *next,
                    None => return false,
                },
                _ => return true,
            }
        }
        true
    }

    /// Effects and branches that come after an instruction and never before it.
    fn later(&self, place: u32, program: &Program) -> Vec<u16> {
        let Some(from) = self.step_of(place) else { return Vec::new() };
        let after = self.reached(from, program);
        let mut leading: HashMap<usize, Vec<usize>> = HashMap::new();
        for at in &after {
            for next in self.followers(*at, program) {
                leading.entry(next).or_default().push(*at);
            }
        }
        let (mut before, mut left) = (HashSet::new(), vec![from]);
        while let Some(at) = left.pop() {
            left.extend(leading.get(&at).into_iter().flatten().filter(|at| before.insert(**at)));
        }
        let effects = after.difference(&before).map(|at| self.steps[*at].effect);
        effects.filter(|effect| *effect != 0).collect()
    }

    /// Where the value that an instruction loads can go, whatever the order in which things run.
    fn uses(&self, place: u32) -> Uses {
        let mut uses = Uses::default();
        let Some(load) = self.step_of(place).map(|at| &self.steps[at]) else { return uses };
        let mut tainted: HashSet<Name> = load.writes.iter().copied().collect();
        uses.always = load.writes.is_empty();
        loop {
            let before = tainted.len();
            for step in self.steps.iter().filter(|step| step.function == load.function) {
                uses.always |= step.decides.iter().any(|name| tainted.contains(name));
                if step.reads.iter().any(|name| tainted.contains(name)) {
                    tainted.extend(&step.writes);
                    uses.across_lanes |= step.across_lanes;
                    uses.swapped |= step.swap;
                    if step.effect != 0 && !uses.effects.contains(&step.effect) {
                        uses.effects.push(step.effect);
                    }
                }
            }
            if tainted.len() == before {
                return uses;
            }
        }
    }
}

/// Answers by instruction.
type Known<T> = Mutex<HashMap<u32, Arc<T>>>;

/// What a launch asks about its code, each question answered once.
#[derive(Default)]
pub(crate) struct Questions {
    uses: Known<Uses>,
    later: Known<Vec<u16>>,
    after: Known<HashSet<usize>>,
}

fn answer<T>(known: &Known<T>, place: u32, find: impl FnOnce() -> T) -> Arc<T> {
    let mut known = known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    known.entry(place).or_insert_with(|| Arc::new(find())).clone()
}

impl Questions {
    /// Where the value that an instruction loads can go.
    pub fn uses(&self, place: u32, program: &Program) -> Arc<Uses> {
        answer(&self.uses, place, || program.dataflow.uses(place))
    }

    /// Effects and branches that come after an instruction and never before it.
    pub fn later(&self, place: u32, program: &Program) -> Arc<Vec<u16>> {
        answer(&self.later, place, || program.dataflow.later(place, program))
    }

    /// Whether another instruction comes after one, and does not just end the thread.
    pub fn leads_to(&self, place: u32, other: u32, program: &Program) -> bool {
        let after = answer(&self.after, place, || program.dataflow.after(place, program));
        program.dataflow.step_of(other).is_some_and(|to| after.contains(&to))
            && program.dataflow.goes_on(other, program)
    }
}
