//! Functions: their parameters, where those lie, and what `ret` does with results in registers.

use super::decode::Decoder;
use super::names::Symbol;
use super::{Compiler, MOST_FRAME, Result, aligned, blank};
use crate::counters::Class;
use crate::error::ParseError;
use crate::isa::memory::{frame_load, frame_store};
use crate::isa::types::Ty;
use crate::module::{Function, Param};
use crate::program::{Bank, Builtin, Code, FramePlace, Special};
use crate::ptx::ast::{FunctionText, Operand, Space, Statement, Text, Variable};

/// Types of a function's parameters and results.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signature {
    pub params: Vec<Ty>,
    pub returns: Vec<Ty>,
}

/// Types of parameters; arrays count as bytes.
pub(super) fn types(list: &[Variable]) -> Vec<Ty> {
    list.iter().map(|variable| Ty::parse(variable.ty).unwrap_or(Ty::B32)).collect()
}

impl<'a> Compiler<'a> {
    pub(super) fn declare_functions(&mut self, text: &Text<'a>) -> Result<()> {
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
                    self.signatures.push(Signature::default());
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
                self.signatures[number as usize] =
                    Signature { params: types(&function.params), returns: types(&function.returns) };
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

    pub(super) fn function(
        &mut self,
        function: &FunctionText<'a>,
        body: &[Statement<'a>],
        shared_start: u64,
    ) -> Result<()> {
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
        self.prototypes.clear();
        self.results.clear();
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
        }
        self.collect_labels(body)?;
        self.program.functions[number as usize].start = self.program.code.len() as u32;
        let code = &self.program.functions[number as usize];
        self.frame = u64::from(code.frame_bytes);
        self.rooms = [&code.params[..], &code.returns[..]].concat();
        self.shared_end = shared_start;
        self.place = (self.line, self.source, self.function);
        if !function.entry {
            self.name_params(function, number)?;
        }
        self.body(body)?;
        // A body may end without `ret`.
        self.place = (self.line, self.source, self.function);
        self.emit_return(0, 0)?;
        self.patch()?;
        let (filled, registers) = self.names.take_registers();
        let code = &mut self.program.functions[number as usize];
        code.missing = false;
        code.filled = filled;
        code.registers = registers;
        code.frame_bytes = aligned(self.frame, 16) as u32;
        let local_bytes = self.rooms.iter().map(|room| room.offset + room.bytes).max().unwrap_or(0);
        code.rooms = std::mem::take(&mut self.rooms);
        code.rooms.sort_by_key(|room| room.offset);
        if function.entry {
            let limit = function.attributes.required.or(function.attributes.max_threads);
            let max_threads = limit.map_or(1024, |[x, y, z]| x.saturating_mul(y).saturating_mul(z).clamp(1, 1024));
            self.program.kernels.push((
                Function {
                    name: function.name.into(),
                    params,
                    param_bytes: param_bytes as u32,
                    static_shared: self.shared_end as u32,
                    local_bytes,
                    max_threads,
                    required_block: function.attributes.required,
                },
                number,
            ));
        }
        Ok(())
    }

    /// Names the parameters of a device function; those in registers are fetched from the frame first.
    fn name_params(&mut self, function: &FunctionText<'a>, number: u32) -> Result<()> {
        let code = &self.program.functions[number as usize];
        let places: Vec<_> = code.params.iter().chain(&code.returns).copied().collect();
        for (k, (variable, place)) in function.params.iter().chain(&function.returns).zip(places).enumerate() {
            if variable.space != Space::Register {
                self.names.insert(variable.name, Symbol::Frame(place));
                continue;
            }
            self.names.declare(variable.ty, variable.name, None, 1);
            if k >= function.params.len() {
                self.results.push((variable.name, place));
                continue;
            }
            let (base, register) = self.register_and_place(variable.name, place)?;
            let ins = frame_load(&mut self.program.lists, register, place.bytes, base);
            self.push(ins);
        }
        Ok(())
    }

    /// Indices of the register with a place's address, and of the register of that name.
    fn register_and_place(&mut self, name: &str, place: FramePlace) -> Result<(u16, u16)> {
        let base = self.names.filled(Bank::R64, Special::Frame(place.offset));
        match (base, self.names.register(name)) {
            (Some(base), Some(Some(register))) if register.bank != Bank::Pred => Ok((base, register.index)),
            _ => self.error(format!("'{name}' cannot hold a parameter")),
        }
    }

    /// `ret` under a guard: results in registers go to the frame, where the caller finds them.
    pub fn emit_return(&mut self, guard: u16, flip: u32) -> Result<()> {
        for (name, place) in self.results.clone() {
            let (base, register) = self.register_and_place(name, place)?;
            let ins = frame_store(&mut self.program, register, place.bytes, base);
            self.push(crate::isa::Ins { guard, flip, ..ins });
        }
        let exec = crate::isa::calls::ret;
        self.push(crate::isa::Ins { exec, class: Class::Control, guard, flip, ..blank() });
        Ok(())
    }

    /// A place of the frame for one value.
    pub fn frame_place(&mut self, bytes: u32) -> Result<FramePlace> {
        let offset = aligned(self.frame, bytes);
        self.frame = offset + u64::from(bytes);
        if self.frame > MOST_FRAME {
            return self.error("the function's frame is too large");
        }
        let place = FramePlace { offset: offset as u32, bytes };
        self.rooms.push(place);
        Ok(place)
    }
}

impl<'a> Decoder<'_, 'a> {
    /// The type of a value that a call passes in a register: the callee's, or the register's own width.
    pub fn type_of(&mut self, operand: &Operand<'a>, declared: Option<Ty>) -> Result<Ty> {
        let bits = match operand {
            Operand::Name { name, .. } => self.c.names.register(name).flatten().map(|register| register.bits),
            Operand::Component(name, element) => Some(self.component(name, *element)?.bits),
            _ => None,
        };
        match (declared, bits) {
            (Some(ty), _) if ty != Ty::Pred => Ok(ty),
            (_, Some(8)) => Ok(Ty::B8),
            (_, Some(16)) => Ok(Ty::B16),
            (_, Some(32)) => Ok(Ty::B32),
            (_, Some(64)) => Ok(Ty::B64),
            (_, Some(128)) => Ok(Ty::B128),
            _ => self.error("a parameter of a call must be a .param variable, a register or a number"),
        }
    }

    /// Puts a value into the frame, as an argument of a call.
    pub fn pass(&mut self, operand: &Operand<'a>, declared: Option<Ty>) -> Result<FramePlace> {
        let ty = self.type_of(operand, declared)?;
        let register = self.source_of(operand, ty)?;
        let place = self.c.frame_place(ty.bytes())?;
        let base = self.filled(Bank::R64, Special::Frame(place.offset))?;
        let ins = frame_store(&mut self.c.program, register, place.bytes, base);
        self.emit(ins);
        Ok(place)
    }

    /// Fetches a call's result from the frame into a register.
    pub fn fetch(&mut self, operand: &Operand<'a>, ty: Ty, place: FramePlace) -> Result<()> {
        let register = self.dest_of(operand, ty)?;
        let base = self.filled(Bank::R64, Special::Frame(place.offset))?;
        let ins = frame_load(&mut self.c.program.lists, register, place.bytes, base);
        self.emit(ins);
        Ok(())
    }
}
