//! Statements to code: names become register indices, labels become addresses, each instruction gets its function.

pub(crate) mod dataflow;
pub(crate) mod decode;
mod functions;
pub(crate) mod names;
mod operands;
pub(crate) mod special;
mod variables;

use crate::counters::Class;
use crate::error::{ParseError, Source};
use crate::isa::{Exec, Flow, Ins};
use crate::program::*;
use crate::ptx::ast::*;
use decode::Decoder;
use functions::{Signature, types};
use names::{Names, Symbol};
use std::collections::{HashMap, HashSet};

pub(crate) type Result<T> = std::result::Result<T, ParseError>;

/// Most instructions and bytes of frame that a module may have.
const MOST_INSTRUCTIONS: usize = 1 << 24;
const MOST_FRAME: u64 = 512 << 10;

/// The state of compiling one module.
pub(crate) struct Compiler<'a> {
    pub program: Program,
    /// Names of the module and of the function at hand.
    pub names: Names<'a>,
    /// Labels of the function at hand and where they stand.
    pub labels: HashMap<(u32, &'a str), u32>,
    pub label_pc: Vec<Option<u32>>,
    /// Branches to be patched: instruction and label.
    pub patches: Vec<(usize, u32)>,
    pub table_patches: Vec<(u32, Vec<u32>)>,
    /// Lists of targets by label.
    pub targets: HashMap<&'a str, u32>,
    /// Types of the parameters of functions by number, and of prototypes by label.
    pub signatures: Vec<Signature>,
    pub prototypes: HashMap<&'a str, Signature>,
    /// Registers of the function at hand that hold its results, and where `ret` puts them.
    results: Vec<(&'a str, FramePlace)>,
    /// Bytes of the frame and of shared memory so far.
    frame: u64,
    /// What lies in the frame of the function at hand.
    rooms: Vec<FramePlace>,
    shared_end: u64,
    pub line: u32,
    pub function: u32,
    pub in_kernel: bool,
    place: (u32, u32, u32),
    source: u32,
    source_numbers: HashMap<Loc, u32>,
    /// Places of inlined calls by (file, line, column) of the call, for chains.
    callers: HashMap<(u32, u32, u32), (u32, u32, u32)>,
    files: HashMap<u32, String>,
}

/// Does nothing: for instructions without an effect here.
pub(crate) fn no_operation(_: &mut crate::exec::Cx, _: &Ins, _: u32) -> Flow {
    Flow::Next
}

/// An instruction with every field at rest.
pub(crate) fn blank() -> Ins {
    Ins {
        exec: no_operation as Exec,
        guard: 0,
        flip: 0,
        class: Class::Move,
        counted: 1,
        spread: Default::default(),
        width: 0,
        count: 0,
        flags: 0,
        d: 0,
        a: 0,
        b: 0,
        c: 0,
        e: 0,
        list: 0,
        imm: 0,
    }
}

/// Rounds up.
fn aligned(offset: u64, align: u32) -> u64 {
    offset.next_multiple_of(u64::from(align.max(1)))
}

/// Names that a function's body mentions.
fn mentions<'a>(body: &[Statement<'a>], out: &mut Vec<&'a str>) {
    for statement in body {
        if let Statement::Instruction(instruction) = statement {
            instruction.operands.iter().for_each(|item| mentions_operand(item, out));
        }
    }
}

fn mentions_operand<'a>(operand: &Operand<'a>, out: &mut Vec<&'a str>) {
    match operand {
        Operand::Name { name, .. }
        | Operand::Component(name, _)
        | Operand::Offset(name, _)
        | Operand::Memory { base: Some(name), .. } => out.push(name),
        Operand::Vector(list) | Operand::Group(list) => list.iter().for_each(|item| mentions_operand(item, out)),
        Operand::Negative(inner) => mentions_operand(inner, out),
        Operand::Pair(a, b) => {
            mentions_operand(a, out);
            mentions_operand(b, out);
        }
        _ => {}
    }
}

/// Names that a kernel can come to: what it mentions, what that mentions, and what tables of functions hold.
fn reachable<'a>(text: &Text<'a>, kernel: &'a str) -> HashSet<&'a str> {
    let mut edges: HashMap<&str, Vec<&'a str>> = HashMap::new();
    for function in &text.functions {
        if let Some(body) = &function.body {
            mentions(body, edges.entry(function.name).or_default());
        }
    }
    for variable in &text.variables {
        let names = variable.init.iter().filter_map(|value| match value {
            Init::Address { name, .. } => Some(*name),
            _ => None,
        });
        edges.entry(variable.name).or_default().extend(names);
    }
    for (name, of) in &text.aliases {
        edges.entry(name).or_default().push(of);
    }
    let (mut found, mut left) = (HashSet::from([kernel]), vec![kernel]);
    while let Some(name) = left.pop() {
        for next in edges.get(name).into_iter().flatten() {
            if found.insert(next) {
                left.push(next);
            }
        }
    }
    found
}

/// Compiles a parsed text.
pub(crate) fn compile(text: &Text) -> Result<Program> {
    let mut compiler = Compiler {
        program: Program { version: text.version, target: text.target, ..Program::default() },
        names: Names::default(),
        labels: HashMap::new(),
        label_pc: Vec::new(),
        patches: Vec::new(),
        table_patches: Vec::new(),
        targets: HashMap::new(),
        signatures: Vec::new(),
        prototypes: HashMap::new(),
        results: Vec::new(),
        frame: 0,
        rooms: Vec::new(),
        shared_end: 0,
        line: 1,
        function: 0,
        in_kernel: false,
        place: (0, 0, 0),
        source: 0,
        source_numbers: HashMap::new(),
        callers: HashMap::new(),
        files: text.files.iter().cloned().collect(),
    };
    compiler.module(text)?;
    Ok(compiler.program)
}

impl<'a> Compiler<'a> {
    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ParseError::new(self.line, message))
    }

    fn module(&mut self, text: &Text<'a>) -> Result<()> {
        self.declare_functions(text)?;
        let globals = || text.variables.iter().filter(|v| v.space != Space::Shared);
        // What is declared .extern may be defined further down.
        for variable in globals().filter(|v| !v.external).chain(globals().filter(|v| v.external)) {
            self.module_variable(variable)?;
        }
        // Shared variables that device functions use or declare have one place in all kernels; the others are laid out
        // kernel by kernel, behind those of them that the kernel can reach.
        let shared: Vec<&Variable> = text.variables.iter().filter(|v| v.space == Space::Shared).collect();
        let mut common = Vec::new();
        for function in text.functions.iter().filter(|f| !f.entry) {
            function.body.iter().for_each(|body| mentions(body, &mut common));
        }
        let mut common_end = 0;
        let mut ends: HashMap<&str, u64> = HashMap::new();
        for variable in &shared {
            if variable.external || variable.unsized_array {
                self.names.module.insert(variable.name, Symbol::ExternShared);
            } else if common.contains(&variable.name) {
                common_end = self.place_shared(variable, common_end)?;
                ends.insert(variable.name, common_end);
            }
        }
        let mut starts: HashMap<&str, u64> = HashMap::new();
        for function in text.functions.iter().filter(|f| !f.entry) {
            let Some(body) = &function.body else { continue };
            starts.insert(function.name, common_end);
            for statement in body {
                if let Statement::Variable(variable) = statement
                    && variable.space == Space::Shared
                    && !variable.unsized_array
                {
                    common_end = aligned(common_end, variable.align).saturating_add(variable.bytes);
                    ends.insert(function.name, common_end);
                }
            }
        }
        for function in &text.functions {
            let Some(body) = &function.body else { continue };
            let mut end = starts.get(function.name).copied().unwrap_or(0);
            if function.entry {
                if !ends.is_empty() {
                    let reached = reachable(text, function.name);
                    end = reached.iter().filter_map(|name| ends.get(name)).copied().max().unwrap_or(0);
                }
                let mut used = Vec::new();
                mentions(body, &mut used);
                used.sort_unstable();
                for variable in &shared {
                    if !variable.external
                        && !variable.unsized_array
                        && !common.contains(&variable.name)
                        && used.binary_search(&variable.name).is_ok()
                    {
                        end = self.place_shared(variable, end)?;
                    }
                }
            }
            self.function(function, body, end)?;
        }
        for variable in globals() {
            if let Some(Symbol::Variable(number)) = self.names.module.get(variable.name).cloned() {
                self.image(variable, number)?;
            }
        }
        Ok(())
    }

    fn collect_labels(&mut self, body: &[Statement<'a>]) -> Result<()> {
        let (mut scope, mut next) = (vec![0u32], 0u32);
        for statement in body {
            match statement {
                Statement::Open => {
                    next += 1;
                    scope.push(next);
                }
                Statement::Close => {
                    scope.pop();
                }
                Statement::Label(name, line) => {
                    let number = self.label_pc.len() as u32;
                    self.label_pc.push(None);
                    let here = scope.last().copied().unwrap_or(0);
                    if self.labels.insert((here, name), number).is_some() {
                        return Err(ParseError::new(*line, format!("label '{name}' stands twice")));
                    }
                }
                _ => {}
            }
        }
        // Lists of targets, which may stand after the branch that uses them.
        let mut last = None;
        for statement in body {
            match statement {
                Statement::Label(name, _) => last = Some(*name),
                Statement::Targets { names, line } => {
                    self.line = *line;
                    let Some(label) = last else { return self.error("a list of targets without a label") };
                    let number = self.program.tables.len() as u32;
                    self.program.tables.push(Vec::new());
                    self.targets.insert(label, number);
                    let mut labels = Vec::new();
                    for name in names {
                        match self.labels.get(&(0, *name)) {
                            Some(label) => labels.push(*label),
                            // `.calltargets` names functions; those are found by address.
                            None if self.names.module.contains_key(name) => {
                                if let Some(Symbol::Function(of)) = self.names.module.get(name) {
                                    self.prototypes.insert(label, self.signatures[*of as usize].clone());
                                }
                            }
                            None => return self.error(format!("label '{name}' is not known")),
                        }
                    }
                    self.table_patches.push((number, labels));
                }
                Statement::Prototype { returns, params } => {
                    let Some(label) = last else { return self.error("a prototype without a label") };
                    let signature = Signature { params: types(params), returns: types(returns) };
                    self.prototypes.insert(label, signature);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn body(&mut self, body: &[Statement<'a>]) -> Result<()> {
        for statement in body {
            match statement {
                Statement::Open => self.names.open(),
                Statement::Close => self.names.close(),
                Statement::Label(name, line) => {
                    self.line = *line;
                    let here = self.names.scope();
                    if let Some(number) = self.labels.get(&(here, *name)) {
                        self.label_pc[*number as usize] = Some(self.program.code.len() as u32);
                    }
                }
                Statement::Register { ty, name, count, vector, line } => {
                    self.line = *line;
                    self.names.declare(ty, name, *count, *vector);
                }
                Statement::Variable(variable) => {
                    self.line = variable.line;
                    self.body_variable(variable)?;
                }
                Statement::Loc(loc) => self.source = self.source_number(loc),
                Statement::Instruction(instruction) => {
                    self.line = instruction.line;
                    self.place = (instruction.line, self.source, self.function);
                    if self.program.code.len() > MOST_INSTRUCTIONS {
                        return self.error("too many instructions");
                    }
                    Decoder::decode(self, instruction)?;
                }
                Statement::Targets { .. } | Statement::Prototype { .. } => {}
            }
        }
        Ok(())
    }

    fn source_number(&mut self, loc: &Loc) -> u32 {
        if loc.line == 0 {
            return self.source;
        }
        if let Some(call) = loc.inlined_at {
            self.callers.entry((loc.file, loc.line, loc.column)).or_insert(call);
        }
        if let Some(number) = self.source_numbers.get(loc) {
            return *number;
        }
        let file = |number: u32| self.files.get(&number).cloned().unwrap_or_else(|| format!("file {number}"));
        let mut inlined_at = Vec::new();
        let mut call = loc.inlined_at;
        while let Some(place) = call
            && inlined_at.len() < 16
        {
            inlined_at.push((file(place.0), place.1));
            call = self.callers.get(&place).copied().filter(|next| *next != place);
        }
        self.program.sources.push(Source { file: file(loc.file), line: loc.line, inlined_at });
        let number = self.program.sources.len() as u32;
        self.source_numbers.insert(loc.clone(), number);
        number
    }

    /// Appends an instruction at the place at hand.
    pub fn push(&mut self, ins: Ins) -> usize {
        self.program.code.push(ins);
        self.program.places.push(self.place);
        self.program.code.len() - 1
    }

    fn patch(&mut self) -> Result<()> {
        for (at, label) in std::mem::take(&mut self.patches) {
            match self.label_pc[label as usize] {
                Some(pc) => self.program.code[at].imm = i64::from(pc),
                None => return self.error("a branch to a label that does not stand in its function"),
            }
        }
        for (table, labels) in std::mem::take(&mut self.table_patches) {
            for label in labels {
                match self.label_pc[label as usize] {
                    Some(pc) => self.program.tables[table as usize].push(pc),
                    None => return self.error("a jump table with a label that does not stand in its function"),
                }
            }
        }
        Ok(())
    }

    /// The number of a label as seen from the scope at hand.
    pub fn label(&self, name: &str) -> Option<u32> {
        self.names.scopes().iter().rev().find_map(|scope| self.labels.get(&(*scope, name)).copied())
    }
}
