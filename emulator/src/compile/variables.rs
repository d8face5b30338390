//! Variables: where they lie, and their initial values.

use super::names::Symbol;
use super::{Compiler, MOST_FRAME, Result, aligned};
use crate::error::ParseError;
use crate::program::{FramePlace, ModuleVariable, Relocation, Special};
use crate::ptx::ast::{Init, Space, Variable};

/// Most bytes of shared memory that variables may take.
const MOST_SHARED: u64 = 1 << 20;
/// Bytes left free behind a local variable.
const GUARD: u64 = 16;

impl<'a> Compiler<'a> {
    pub(super) fn place_shared(&mut self, variable: &Variable<'a>, end: u64) -> Result<u64> {
        let offset = aligned(end, variable.align);
        let end = offset + variable.bytes;
        if end > 1 << 20 {
            return Err(ParseError::new(variable.line, format!("shared variable '{}' is too large", variable.name)));
        }
        self.names.module.insert(variable.name, Symbol::Shared(offset as u32));
        Ok(end)
    }

    pub(super) fn module_variable(&mut self, variable: &Variable<'a>) -> Result<()> {
        if variable.space == Space::Local {
            return Err(ParseError::unsupported(
                variable.line,
                "local variables outside of functions are not supported",
            ));
        }
        if self.names.module.contains_key(variable.name) {
            return Ok(());
        }
        if variable.external {
            return Err(ParseError::unsupported(
                variable.line,
                format!("'{}' is declared .extern: modules are not linked together", variable.name),
            ));
        }
        let number = self.new_variable(variable.name.into(), variable);
        self.names.module.insert(variable.name, Symbol::Variable(number));
        Ok(())
    }

    fn new_variable(&mut self, name: String, variable: &Variable) -> u32 {
        self.program.variables.push(ModuleVariable {
            name,
            constant: variable.space == Space::Const,
            bytes: variable.bytes,
            image: Vec::new(),
            relocations: Vec::new(),
        });
        self.program.variables.len() as u32 - 1
    }

    /// Fills in the initial values, once all names are known.
    pub(super) fn image(&mut self, variable: &Variable<'a>, number: u32) -> Result<()> {
        self.line = variable.line;
        let scalar = variable.scalar as usize;
        let mut image = Vec::with_capacity(variable.init.len() * scalar);
        let mut relocations = Vec::new();
        for value in &variable.init {
            let bits = match value {
                Init::Int(bits) if matches!(variable.ty, "f32") => u64::from((*bits as i64 as f32).to_bits()),
                Init::Int(bits) if matches!(variable.ty, "f64") => (*bits as i64 as f64).to_bits(),
                Init::Int(bits) => *bits,
                Init::F32(bits) if variable.ty == "f64" => f64::from(f32::from_bits(*bits)).to_bits(),
                Init::F32(bits) => u64::from(*bits),
                Init::F64(bits) if variable.ty == "f32" => u64::from((f64::from_bits(*bits) as f32).to_bits()),
                Init::F64(bits) => *bits,
                Init::Address { name, offset, mask } => {
                    let special = match self.names.symbol(name) {
                        Some(Symbol::Variable(of)) => Special::Variable(*of, *offset),
                        Some(Symbol::Function(of)) => Special::FunctionAddress(*of),
                        Some(Symbol::Shared(place)) => Special::Bits((i64::from(*place) + offset) as u64),
                        _ => return self.error(format!("'{name}' in an initial value is not known")),
                    };
                    if *mask == u64::MAX && scalar != 8 {
                        return self.error("an address as initial value needs an element of 64 bits");
                    }
                    relocations.push(Relocation { at: image.len(), bytes: scalar.min(8), special, mask: *mask });
                    0
                }
            };
            image.extend((0..scalar).map(|byte| if byte < 8 { (bits >> (8 * byte)) as u8 } else { 0 }));
        }
        let entry = &mut self.program.variables[number as usize];
        entry.image = image;
        entry.relocations = relocations;
        Ok(())
    }

    /// A variable declared in a function's body.
    pub(super) fn body_variable(&mut self, variable: &Variable<'a>) -> Result<()> {
        let symbol = match variable.space {
            Space::Local | Space::Param | Space::Register => {
                let offset = aligned(self.frame, variable.align);
                self.frame = offset + variable.bytes;
                if self.frame > MOST_FRAME {
                    return self.error(format!("local variable '{}' is too large", variable.name));
                }
                let place = FramePlace { offset: offset as u32, bytes: variable.bytes as u32 };
                self.rooms.push(place);
                // What goes past the end of an array must not look like an access of what lies behind it.
                if variable.space == Space::Local {
                    self.frame += GUARD;
                }
                Symbol::Frame(place)
            }
            Space::Shared if variable.external || variable.unsized_array => Symbol::ExternShared,
            Space::Shared => {
                let offset = aligned(self.shared_end, variable.align);
                self.shared_end = offset + variable.bytes;
                if self.shared_end > MOST_SHARED {
                    return self.error(format!("shared variable '{}' is too large", variable.name));
                }
                Symbol::Shared(offset as u32)
            }
            Space::Global | Space::Const => {
                // One for all calls, under a name that nobody else can use.
                let name = format!("{} of function {}, line {}", variable.name, self.function, variable.line);
                let number = self.new_variable(name, variable);
                self.image(variable, number)?;
                Symbol::Variable(number)
            }
        };
        self.names.insert(variable.name, symbol);
        Ok(())
    }
}
