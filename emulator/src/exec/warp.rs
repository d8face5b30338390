//! A warp: registers in lanes, groups of lanes that stand at different places, and the loop that runs them.

use super::order::Known;
use super::{Cx, Grid};
use crate::isa::Flow;
use crate::isa::async_copy::Copies;
use crate::program::{Bank, Special};

/// Why a group stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    None,
    /// Until all living lanes of the mask have come to the same instruction.
    Lanes(u32),
    /// `bar.warp.sync`: until all living lanes of the mask wait so, wherever.
    WarpBarrier(u32),
    /// A barrier of the block, until its generation has passed.
    Barrier {
        id: u32,
        generation: u32,
    },
}

/// Lanes that run together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub pc: u32,
    pub depth: u32,
    pub mask: u32,
    pub wait: Wait,
}

/// Where a function's registers lie at one depth of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub function: u32,
    pub base_p: usize,
    pub base32: usize,
    pub base64: usize,
}

/// Turns without a change among several groups before another group gets a chance: so that lanes which wait for each
/// other within a warp cannot hang.
const PATIENCE: u32 = 8;

pub(crate) struct Warp {
    pub r32: Vec<[u32; 32]>,
    pub r64: Vec<[u64; 32]>,
    pub p: Vec<u32>,
    /// For each register, the lanes in which it was written.
    pub d32: Vec<u32>,
    pub d64: Vec<u32>,
    pub dp: Vec<u32>,
    /// Which bits are undefined, where not all are.
    pub loose: crate::isa::spread::Loose,
    pub base32: usize,
    pub base64: usize,
    pub base_p: usize,
    pub pc: u32,
    pub depth: u32,
    pub mask: u32,
    pub wait: Wait,
    /// The groups that are not the current one.
    pub groups: Vec<Group>,
    /// The lowest place where another group of this depth stands.
    limit: u32,
    pub number: u32,
    /// Lanes that were there at the start.
    pub existing: u32,
    pub exited: u32,
    /// The instruction at hand must not wait for absent lanes any more.
    pub force: bool,
    /// Carry flag of each lane.
    pub carry: u32,
    pub frames: Vec<Vec<Frame>>,
    pub returns: Vec<[u32; 32]>,
    /// Start of each lane's frame in local memory, by depth.
    pub stack: Vec<[u32; 32]>,
    /// End of each lane's frame and of what it took from the stack, by depth.
    pub tops: Vec<[u32; 32]>,
    pub local: Vec<u8>,
    /// For each byte of local memory, the bits that were written.
    pub local_written: Vec<u8>,
    /// Local bytes of each lane.
    pub local_capacity: usize,
    /// Lanes that read local memory which nobody wrote, and where the last of them did.
    pub unwritten: (u32, u32),
    /// The allocation that the last access hit.
    pub last_allocation: usize,
    /// The clock of each warp that this one knows of; its own at its number.
    pub clocks: [u32; 32],
    pub known: Known,
    /// Lanes that ran each of the instructions that let values out.
    pub effects: Vec<u32>,
    /// An instruction that lanes wait at for others, and those of the others that stood beyond it.
    pub around: (u32, u32),
    pub copies: Copies,
    turns: u32,
    program: usize,
}

impl Warp {
    pub fn new() -> Warp {
        Warp {
            r32: Vec::new(),
            r64: Vec::new(),
            p: Vec::new(),
            d32: Vec::new(),
            d64: Vec::new(),
            dp: Vec::new(),
            loose: Default::default(),
            base32: 0,
            base64: 0,
            base_p: 0,
            pc: 0,
            depth: 0,
            mask: 0,
            wait: Wait::None,
            groups: Vec::new(),
            limit: u32::MAX,
            number: 0,
            existing: 0,
            exited: 0,
            force: false,
            carry: 0,
            frames: Vec::new(),
            returns: Vec::new(),
            stack: Vec::new(),
            tops: Vec::new(),
            local: Vec::new(),
            local_written: Vec::new(),
            local_capacity: 0,
            unwritten: (0, 0),
            last_allocation: 0,
            clocks: [0; 32],
            known: Known::default(),
            effects: Vec::new(),
            around: (0, 0),
            copies: Copies::default(),
            turns: 0,
            program: 0,
        }
    }

    /// Makes it the warp of that number of a block, at the kernel's start.
    pub fn start(&mut self, number: u32, threads: u32, block: [u32; 3], g: &Grid) {
        let lanes = (threads - number * 32).min(32);
        self.number = number;
        self.existing = if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 };
        self.exited = 0;
        self.force = false;
        self.carry = 0;
        self.groups.clear();
        self.limit = u32::MAX;
        self.depth = 0;
        self.mask = self.existing;
        self.wait = Wait::None;
        self.clocks = [0; 32];
        self.clocks[number as usize] = 1;
        self.known = Known::default();
        self.effects = vec![0; g.program.dataflow.effects() + 1];
        self.around = (0, 0);
        self.copies.clear();
        self.turns = 0;
        self.unwritten = (0, 0);
        self.last_allocation = 0;
        self.frames.clear();
        self.returns.clear();
        self.stack.clear();
        self.tops.clear();
        for list in [&mut self.d32, &mut self.d64, &mut self.dp] {
            list.clear();
        }
        self.loose.clear();
        self.r32.clear();
        self.r64.clear();
        self.p.clear();
        self.program = 0;
        let code = &g.program.functions[g.code as usize];
        self.pc = code.start;
        self.local.clear();
        self.local_written.clear();
        self.local_capacity = 0;
        self.returns.push([0; 32]);
        self.stack.push([0; 32]);
        self.tops.push([code.frame_bytes; 32]);
        self.grow_local(code.frame_bytes as usize);
        self.frame(0, g.code, block, g);
        self.enter(0, g.code);
    }

    /// Makes room for local memory; false when a thread would have more than it may.
    pub fn grow_local(&mut self, bytes: usize) -> bool {
        if bytes <= self.local_capacity {
            return true;
        }
        if bytes > 512 << 10 {
            return false;
        }
        let capacity = bytes.max(self.local_capacity * 2).next_multiple_of(16);
        for list in [&mut self.local, &mut self.local_written] {
            let mut grown = vec![0; capacity * 32];
            for lane in 0..32 {
                let old = &list[lane * self.local_capacity..(lane + 1) * self.local_capacity];
                grown[lane * capacity..lane * capacity + old.len()].copy_from_slice(old);
            }
            *list = grown;
        }
        self.local_capacity = capacity;
        true
    }

    /// The frame of a function at a depth, made when first needed.
    pub fn frame(&mut self, depth: u32, function: u32, block: [u32; 3], g: &Grid) -> Frame {
        let depth = depth as usize;
        while self.frames.len() <= depth {
            self.frames.push(Vec::new());
        }
        if let Some(frame) = self.frames[depth].iter().find(|frame| frame.function == function) {
            return *frame;
        }
        let frame = Frame { function, base_p: self.p.len(), base32: self.r32.len(), base64: self.r64.len() };
        let code = &g.program.functions[function as usize];
        let (predicates, narrow, wide) = code.registers;
        self.p.resize(frame.base_p + predicates as usize, 0);
        self.dp.resize(frame.base_p + predicates as usize, 0);
        self.r32.resize(frame.base32 + narrow as usize, [0; 32]);
        self.d32.resize(frame.base32 + narrow as usize, 0);
        self.r64.resize(frame.base64 + wide as usize, [0; 32]);
        self.d64.resize(frame.base64 + wide as usize, 0);
        for (bank, index, special) in &code.filled {
            let values = self.fill(*special, block, depth, g);
            match bank {
                Bank::Pred => {
                    self.p[frame.base_p + *index as usize] = if values[0] != 0 { u32::MAX } else { 0 };
                    self.dp[frame.base_p + *index as usize] = u32::MAX;
                }
                Bank::R32 => {
                    let register = &mut self.r32[frame.base32 + *index as usize];
                    for (narrow, value) in register.iter_mut().zip(values) {
                        *narrow = value as u32;
                    }
                    self.d32[frame.base32 + *index as usize] = u32::MAX;
                }
                Bank::R64 => {
                    self.r64[frame.base64 + *index as usize] = values;
                    self.d64[frame.base64 + *index as usize] = u32::MAX;
                }
            }
        }
        self.frames[depth].push(frame);
        frame
    }

    /// Registers of a frame that a call enters anew: those that point into the stack get the lanes' own places, the
    /// others count as never written.
    pub fn renew(&mut self, frame: Frame, depth: u32, mask: u32, g: &Grid) {
        let code = &g.program.functions[frame.function as usize];
        let (predicates, narrow, wide) = code.registers;
        self.loose.forget_range(false, frame.base32..frame.base32 + narrow as usize, mask);
        self.loose.forget_range(true, frame.base64..frame.base64 + wide as usize, mask);
        for known in &mut self.dp[frame.base_p..frame.base_p + predicates as usize] {
            *known &= !mask;
        }
        for known in &mut self.d32[frame.base32..frame.base32 + narrow as usize] {
            *known &= !mask;
        }
        for known in &mut self.d64[frame.base64..frame.base64 + wide as usize] {
            *known &= !mask;
        }
        for (bank, index, special) in &code.filled {
            let index = *index as usize;
            match bank {
                Bank::Pred => self.dp[frame.base_p + index] = u32::MAX,
                Bank::R32 => self.d32[frame.base32 + index] = u32::MAX,
                Bank::R64 => self.d64[frame.base64 + index] = u32::MAX,
            }
            if let Special::Frame(offset) = special {
                for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                    let address = self.stack[depth as usize][lane] + offset;
                    match bank {
                        Bank::R32 => self.r32[frame.base32 + index][lane] = address,
                        _ => self.r64[frame.base64 + index][lane] = u64::from(address),
                    }
                }
            }
        }
    }

    /// Takes the registers of a function at a depth as the current ones.
    pub fn enter(&mut self, depth: u32, function: u32) {
        if let Some(frame) = self.frames[depth as usize].iter().find(|frame| frame.function == function) {
            self.base_p = frame.base_p;
            self.base32 = frame.base32;
            self.base64 = frame.base64;
        }
    }

    pub fn done(&self) -> bool {
        self.mask == 0 && self.groups.is_empty()
    }

    pub fn alive(&self) -> u32 {
        self.existing & !self.exited
    }

    pub fn first_lane(&self) -> u32 {
        self.mask.trailing_zeros().min(31)
    }

    /// Coordinates of a lane's thread.
    pub fn thread(&self, lane: u32, block: [u32; 3]) -> [u32; 3] {
        self.thread_of(self.number * 32 + lane, block)
    }

    /// Coordinates of the thread of a number.
    pub fn thread_of(&self, number: u32, block: [u32; 3]) -> [u32; 3] {
        [number % block[0], number / block[0] % block[1], number / block[0] / block[1]]
    }

    /// Makes any group the current one, so that reports name its place.
    pub fn show(&mut self) {
        if self.mask == 0
            && let Some(group) = self.groups.pop()
        {
            self.take(group);
        }
    }

    fn take(&mut self, group: Group) {
        self.pc = group.pc;
        self.depth = group.depth;
        self.mask = group.mask;
        self.wait = group.wait;
    }

    /// Puts the current group among the others.
    pub fn lay_down(&mut self) {
        if self.mask != 0 {
            self.groups.push(Group { pc: self.pc, depth: self.depth, mask: self.mask, wait: self.wait });
            self.mask = 0;
        }
    }

    /// Leaves lanes of the current group behind at this instruction, to run it on their own.
    pub fn leave_behind(&mut self, lanes: u32) {
        self.groups.push(Group { pc: self.pc, depth: self.depth, mask: lanes, wait: Wait::None });
        self.mask &= !lanes;
        self.limit = self.limit.min(self.pc);
    }

    /// A group that waits for lanes which cannot come goes on without them.
    pub fn force_waiting(&mut self) -> bool {
        self.lay_down();
        let waits = |group: &&mut Group| matches!(group.wait, Wait::Lanes(_) | Wait::WarpBarrier(_));
        let lowest = self.groups.iter_mut().filter(waits).min_by_key(|group| (u32::MAX - group.depth, group.pc));
        if let Some(group) = lowest {
            group.wait = Wait::None;
            self.force = true;
        }
        self.force
    }

    /// Merges groups that met, and takes the deepest and lowest one that can run.
    fn choose(&mut self, b: &super::Block, g: &Grid, rotate: bool) -> bool {
        self.lay_down();
        let mut at = 0;
        while at < self.groups.len() {
            let group = self.groups[at];
            let twin = self.groups[..at]
                .iter()
                .position(|other| other.pc == group.pc && other.depth == group.depth && other.wait == group.wait);
            match twin {
                Some(twin) => {
                    self.groups[twin].mask |= group.mask;
                    self.groups.swap_remove(at);
                }
                None => at += 1,
            }
        }
        let alive = self.alive();
        for at in 0..self.groups.len() {
            if let Wait::WarpBarrier(mask) = self.groups[at].wait {
                let come = self.groups.iter().filter(|o| o.wait == Wait::WarpBarrier(mask)).fold(0, |m, o| m | o.mask);
                if mask & alive & !come == 0 {
                    for group in &mut self.groups {
                        if group.wait == Wait::WarpBarrier(mask) {
                            group.wait = Wait::None;
                            group.pc += 1;
                        }
                    }
                    self.clocks[self.number as usize] += 1;
                }
            }
        }
        let runnable = |group: &Group| match group.wait {
            Wait::None => true,
            Wait::Lanes(mask) => mask & alive & !group.mask == 0,
            Wait::WarpBarrier(_) => false,
            Wait::Barrier { id, generation } => b.barriers[id as usize].generation != generation,
        };
        let candidates = self.groups.iter().enumerate().filter(|(_, group)| runnable(group));
        let key = |group: &Group| (u32::MAX - group.depth, group.pc);
        let chosen =
            if rotate { candidates.max_by_key(|(_, o)| key(o)) } else { candidates.min_by_key(|(_, o)| key(o)) };
        let Some((chosen, _)) = chosen else { return false };
        let group = self.groups.swap_remove(chosen);
        self.take(group);
        let others = self.groups.iter().filter(|other| other.depth == group.depth && other.pc >= group.pc);
        self.limit = others.map(|other| other.pc).min().unwrap_or(u32::MAX);
        let function = g.program.places[self.pc as usize].2;
        self.enter(self.depth, function);
        true
    }
}

impl Cx<'_> {
    /// Runs up to that many instructions and gives how many it ran.
    pub fn turn(&mut self, mut most: u32) -> u64 {
        let code = &self.g.program.code[..];
        let mut left = most;
        let mut rotate = false;
        if !self.w.groups.is_empty() {
            self.w.turns += 1;
            rotate = self.w.turns.is_multiple_of(PATIENCE);
        }
        if (!self.w.groups.is_empty() || self.w.mask == 0 || self.w.wait != Wait::None)
            && !self.w.choose(self.b, self.g, rotate)
        {
            return 0;
        }
        if self.w.groups.is_empty() {
            self.w.limit = u32::MAX;
        }
        let mut full = 0u64;
        let mut lanes = 0u64;
        let mut waited = 0u64;
        while left > 0 {
            let ins = &code[self.w.pc as usize];
            let mask = self.w.mask & (self.w.p[self.w.base_p + ins.guard as usize] ^ ins.flip);
            left -= 1;
            self.b.counters.warp_instructions[ins.class as usize] += u64::from(ins.counted);
            if mask == u32::MAX {
                full += u64::from(ins.counted);
            } else {
                lanes += u64::from(mask.count_ones() * u32::from(ins.counted));
            }
            if ins.guard != 0 {
                let unknown = self.w.mask & !self.w.dp[self.w.base_p + ins.guard as usize];
                if unknown != 0 {
                    self.undefined(unknown, "the predicate of this instruction");
                    self.w.dp[self.w.base_p + ins.guard as usize] |= unknown;
                }
            }
            let flow = if mask != 0 { (ins.exec)(self, ins, mask) } else { Flow::Next };
            match flow {
                Flow::Next => self.w.pc += 1,
                Flow::Rest => {
                    self.w.pc += 1;
                    (left, most) = (0, most - left);
                }
                // A jump back may lead to where another group waits.
                Flow::Jump if self.w.groups.is_empty() => {}
                Flow::Jump => {
                    if !self.w.choose(self.b, self.g, false) {
                        break;
                    }
                    continue;
                }
                Flow::Choose => {
                    // What waits runs again once it need not; it counts then.
                    if matches!(self.w.wait, Wait::Lanes(_) | Wait::Barrier { .. }) {
                        let counted = u64::from(ins.counted);
                        self.b.counters.warp_instructions[ins.class as usize] -= counted;
                        waited += counted * u64::from(mask.count_ones());
                    }
                    if !self.w.choose(self.b, self.g, false) {
                        break;
                    }
                    continue;
                }
                Flow::Fault => break,
            }
            if self.w.pc >= self.w.limit && !self.w.choose(self.b, self.g, false) {
                break;
            }
        }
        self.b.counters.thread_instructions += full * 32 + lanes - waited;
        u64::from(most - left)
    }
}
