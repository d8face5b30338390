//! Statements to code: names become register indices, labels become addresses, each instruction gets its function.

pub(crate) mod dataflow;
pub(crate) mod decode;
pub(crate) mod names;

use crate::counters::Class;
use crate::error::{ParseError, Source};
use crate::isa::{Exec, Flow, Ins};
use crate::module::{Function, Param};
use crate::program::*;
use crate::ptx::ast::*;
use decode::Decoder;
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

fn nothing(_: &mut crate::exec::Cx, _: &Ins, _: u32) -> Flow {
    Flow::Next
}

/// An instruction with every field at rest.
pub(crate) fn blank() -> Ins {
    Ins {
        exec: nothing as Exec,
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
        Operand::Name { name, .. } | Operand::Offset(name, _) | Operand::Memory { base: Some(name), .. } => {
            out.push(name)
        }
        Operand::Vector(list) | Operand::Group(list) => list.iter().for_each(|item| mentions_operand(item, out)),
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
            Init::Address(name, _) => Some(*name),
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
        for variable in text.variables.iter().filter(|v| v.space != Space::Shared) {
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
        for variable in &text.variables {
            if variable.space != Space::Shared {
                self.line = variable.line;
                self.image(variable)?;
            }
        }
        Ok(())
    }

    fn place_shared(&mut self, variable: &Variable<'a>, end: u64) -> Result<u64> {
        let offset = aligned(end, variable.align);
        let end = offset + variable.bytes;
        if end > 1 << 20 {
            return Err(ParseError::new(variable.line, format!("shared variable '{}' is too large", variable.name)));
        }
        self.names.module.insert(variable.name, Symbol::Shared(offset as u32));
        Ok(end)
    }

    fn declare_functions(&mut self, text: &Text<'a>) -> Result<()> {
        for function in &text.functions {
            let builtin = match function.name {
                "vprintf" => Some(Builtin::Vprintf),
                "__assertfail" => Some(Builtin::AssertFail),
                _ => None,
            };
            let number = match self.names.module.get(function.name) {
                Some(Symbol::Function(number)) => *number,
                _ => {
                    let number = self.program.functions.len() as u32;
                    self.names.module.insert(function.name, Symbol::Function(number));
                    self.program.functions.push(Code {
                        name: function.name.into(),
                        missing: true,
                        builtin,
                        ..Code::default()
                    });
                    number
                }
            };
            if !function.entry {
                let mut offset = 0u64;
                let mut lay = |list: &[Variable]| -> Vec<FramePlace> {
                    list.iter()
                        .map(|variable| {
                            offset = aligned(offset, variable.align);
                            let place =
                                FramePlace { offset: offset as u32, bytes: variable.bytes.min(MOST_FRAME) as u32 };
                            offset += variable.bytes.min(MOST_FRAME);
                            place
                        })
                        .collect()
                };
                let (params, returns) = (lay(&function.params), lay(&function.returns));
                if offset > MOST_FRAME {
                    return Err(ParseError::new(
                        function.line,
                        format!("the parameters of '{}' are too large", function.name),
                    ));
                }
                let code = &mut self.program.functions[number as usize];
                code.params = params;
                code.returns = returns;
                code.frame_bytes = offset as u32;
            }
        }
        for (name, of) in &text.aliases {
            if let Some(symbol) = self.names.module.get(of).cloned() {
                self.names.module.insert(name, symbol);
            }
        }
        Ok(())
    }

    fn module_variable(&mut self, variable: &Variable<'a>) -> Result<()> {
        if variable.external && !self.names.module.contains_key(variable.name) {
            return Err(ParseError::unsupported(
                variable.line,
                format!("'{}' is declared .extern: modules are not linked together", variable.name),
            ));
        }
        if self.names.module.contains_key(variable.name) {
            return Ok(());
        }
        let number = self.program.variables.len() as u32;
        self.names.module.insert(variable.name, Symbol::Variable(number));
        self.program.variables.push(ModuleVariable {
            name: variable.name.into(),
            bytes: variable.bytes,
            image: Vec::new(),
            relocations: Vec::new(),
        });
        Ok(())
    }

    /// Fills in the initial values, once all names are known.
    fn image(&mut self, variable: &Variable<'a>) -> Result<()> {
        let Some(Symbol::Variable(number)) = self.names.module.get(variable.name).cloned() else { return Ok(()) };
        let element = variable.element as usize;
        let mut image = Vec::with_capacity(variable.init.len() * element);
        let mut relocations = Vec::new();
        for value in &variable.init {
            let at = image.len() as u64;
            let bits = match value {
                Init::Int(bits) if matches!(variable.ty, "f32") => u64::from((*bits as i64 as f32).to_bits()),
                Init::Int(bits) if matches!(variable.ty, "f64") => (*bits as i64 as f64).to_bits(),
                Init::Int(bits) => *bits,
                Init::F32(bits) => u64::from(*bits),
                Init::F64(bits) if variable.ty == "f32" => u64::from((f64::from_bits(*bits) as f32).to_bits()),
                Init::F64(bits) => *bits,
                Init::Address(name, offset) => {
                    let special = match self.names.module.get(name) {
                        Some(Symbol::Variable(of)) => Special::Variable(*of, *offset),
                        Some(Symbol::Function(of)) => Special::FunctionAddress(*of),
                        Some(Symbol::Shared(place)) => Special::Bits((i64::from(*place) + offset) as u64),
                        _ => return self.error(format!("'{name}' in an initial value is not known")),
                    };
                    if element != 8 {
                        return self.error("an address as initial value needs an element of 64 bits");
                    }
                    relocations.push((at, special));
                    0
                }
            };
            image.extend((0..element).map(|byte| if byte < 8 { (bits >> (8 * byte)) as u8 } else { 0 }));
        }
        let entry = &mut self.program.variables[number as usize];
        entry.image = image;
        entry.relocations = relocations;
        Ok(())
    }

    fn function(&mut self, function: &FunctionText<'a>, body: &[Statement<'a>], shared_start: u64) -> Result<()> {
        self.line = function.line;
        let Some(Symbol::Function(number)) = self.names.module.get(function.name).cloned() else { return Ok(()) };
        if !self.program.functions[number as usize].missing {
            return self.error(format!("function '{}' is defined twice", function.name));
        }
        self.function = number;
        self.in_kernel = function.entry;
        self.names.start();
        self.labels.clear();
        self.label_pc.clear();
        self.patches.clear();
        self.table_patches.clear();
        self.targets.clear();
        self.callers.clear();
        self.source = 0;
        let mut params = Vec::new();
        let mut param_bytes = 0u64;
        if function.entry {
            for variable in &function.params {
                let offset = aligned(param_bytes, variable.align);
                param_bytes = offset + variable.bytes;
                if param_bytes > 32_764 {
                    return self.error("the kernel's parameters are too large");
                }
                self.names.insert(variable.name, Symbol::KernelParam(offset as u32));
                params.push(Param {
                    name: variable.name.into(),
                    offset: offset as u32,
                    bytes: variable.bytes as u32,
                    align: variable.align,
                });
            }
        } else {
            let code = &self.program.functions[number as usize];
            let places: Vec<_> = code.params.iter().chain(&code.returns).copied().collect();
            for (variable, place) in function.params.iter().chain(&function.returns).zip(places) {
                self.names.insert(variable.name, Symbol::Frame(place));
            }
        }
        self.collect_labels(body)?;
        self.program.functions[number as usize].start = self.program.code.len() as u32;
        let mut frame = u64::from(self.program.functions[number as usize].frame_bytes);
        let mut shared_end = shared_start;
        self.body(body, &mut frame, &mut shared_end)?;
        // A body may end without `ret`.
        self.emit_return();
        self.patch()?;
        let local_bytes = frame;
        let (filled, registers) = self.names.take_registers();
        let code = &mut self.program.functions[number as usize];
        code.missing = false;
        code.filled = filled;
        code.registers = registers;
        code.frame_bytes = aligned(frame, 16) as u32;
        if function.entry {
            let limit = function.attributes.required.or(function.attributes.max_threads);
            let max_threads = limit.map_or(1024, |[x, y, z]| x.saturating_mul(y).saturating_mul(z).clamp(1, 1024));
            self.program.kernels.push((
                Function {
                    name: function.name.into(),
                    params,
                    param_bytes: param_bytes as u32,
                    static_shared: shared_end as u32,
                    local_bytes: local_bytes as u32,
                    max_threads,
                    required_block: function.attributes.required,
                },
                number,
            ));
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
                            None if self.names.module.contains_key(name) => {}
                            None => return self.error(format!("label '{name}' is not known")),
                        }
                    }
                    self.table_patches.push((number, labels));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn body(&mut self, body: &[Statement<'a>], frame: &mut u64, shared_end: &mut u64) -> Result<()> {
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
                Statement::Register { ty, name, count, line } => {
                    self.line = *line;
                    self.names.declare(ty, name, *count);
                }
                Statement::Variable(variable) => {
                    self.line = variable.line;
                    match variable.space {
                        Space::Local | Space::Param => {
                            let offset = aligned(*frame, variable.align);
                            *frame = offset + variable.bytes;
                            if *frame > MOST_FRAME {
                                return self.error(format!("local variable '{}' is too large", variable.name));
                            }
                            let place = FramePlace { offset: offset as u32, bytes: variable.bytes as u32 };
                            self.names.insert(variable.name, Symbol::Frame(place));
                        }
                        Space::Shared if variable.external || variable.unsized_array => {
                            self.names.insert(variable.name, Symbol::ExternShared);
                        }
                        Space::Shared => {
                            let offset = aligned(*shared_end, variable.align);
                            *shared_end = offset + variable.bytes;
                            if *shared_end > 1 << 20 {
                                return self.error(format!("shared variable '{}' is too large", variable.name));
                            }
                            self.names.insert(variable.name, Symbol::Shared(offset as u32));
                        }
                        Space::Global | Space::Const => {
                            return Err(ParseError::unsupported(
                                self.line,
                                "global variables inside a function are not supported",
                            ));
                        }
                    }
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
                Statement::Targets { .. } | Statement::Prototype => {}
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

    fn emit_return(&mut self) {
        self.place = (self.line, self.source, self.function);
        let ins = Ins { exec: crate::isa::control::ret, class: Class::Control, ..blank() };
        self.push(ins);
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
