//! A module: its functions and variables, before and after it has a place in a device's memory.

use crate::compile::compile;
use crate::error::{Error, ParseError};
use crate::exec::FUNCTION_WINDOW;
use crate::memory::Memory;
use crate::program::{Program, Special};
use crate::ptx::parse;

/// One kernel parameter and its place in the parameter buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    pub offset: u32,
    pub bytes: u32,
    pub align: u32,
}

/// A kernel and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// In order; [`Function::param_bytes`] is the size of the whole buffer.
    pub params: Vec<Param>,
    pub param_bytes: u32,
    /// Bytes of `.shared` variables.
    pub static_shared: u32,
    /// Bytes of `.local` variables of a thread.
    pub local_bytes: u32,
    /// From `.maxntid` or `.reqntid`; 1024 without.
    pub max_threads: u32,
    /// From `.reqntid`.
    pub required_block: Option<[u32; 3]>,
}

/// A parsed text: every instruction is known to this interpreter.
pub struct Module {
    program: Program,
    functions: Vec<Function>,
}

impl Module {
    /// Parses PTX. An instruction that is not known is refused by name, with its line.
    pub fn parse(text: &str) -> Result<Module, ParseError> {
        let program = compile(&parse(text)?)?;
        let functions = program.kernels.iter().map(|(function, _)| function.clone()).collect();
        Ok(Module { program, functions })
    }

    /// Kernels, in the order of the text.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// `.version`, as 88 for 8.8.
    pub fn version(&self) -> u32 {
        self.program.version
    }

    /// `.target`, as 80 for sm_80.
    pub fn target(&self) -> u32 {
        self.program.target
    }

    /// Gives the variables addresses in a device's memory and writes their initial values.
    pub fn load(self, memory: &Memory) -> Result<LoadedModule, Error> {
        let mut loaded = LoadedModule { module: self, globals: Vec::new() };
        match loaded.place(memory) {
            Ok(()) => Ok(loaded),
            Err(error) => {
                loaded.unload(memory);
                Err(error)
            }
        }
    }
}

/// A module with its variables in memory.
pub struct LoadedModule {
    module: Module,
    /// Name, address, bytes; in the order of the program's variables.
    globals: Vec<(String, u64, u64)>,
}

impl LoadedModule {
    fn place(&mut self, memory: &Memory) -> Result<(), Error> {
        for variable in &self.module.program.variables {
            let address = memory.alloc_named(variable.bytes.max(1), Some(variable.name.clone()))?;
            self.globals.push((variable.name.clone(), address, variable.bytes));
        }
        let variables: Vec<_> = self.module.program.variables.iter().zip(self.globals.clone()).collect();
        for (variable, (_, address, bytes)) in variables {
            // A variable without an initial value starts as zeros.
            memory.fill(address, &[0], bytes)?;
            let mut image = variable.image.clone();
            image.truncate(bytes as usize);
            for relocation in &variable.relocations {
                let value = match relocation.special {
                    Special::Variable(number, offset) => self.globals[number as usize].1.wrapping_add(offset as u64),
                    Special::FunctionAddress(number) => FUNCTION_WINDOW + u64::from(number) * 16,
                    Special::Bits(bits) => bits,
                    _ => 0,
                };
                let part = (value & relocation.mask) >> relocation.mask.trailing_zeros().min(63);
                if let Some(place) = image.get_mut(relocation.at..relocation.at + relocation.bytes) {
                    place.copy_from_slice(&part.to_le_bytes()[..relocation.bytes]);
                }
            }
            memory.write(address, &image)?;
        }
        Ok(())
    }

    pub(crate) fn program(&self) -> &Program {
        &self.module.program
    }

    /// Addresses of the variables, in the order of the program.
    pub(crate) fn addresses(&self) -> Vec<u64> {
        self.globals.iter().map(|global| global.1).collect()
    }

    /// The kernel of that name.
    pub fn function(&self, name: &str) -> Result<&Function, Error> {
        let found = self.module.functions().iter().find(|function| function.name == name);
        found.ok_or_else(|| Error::NotFound { what: "kernel", name: name.into() })
    }

    /// Kernels, in the order of the text.
    pub fn functions(&self) -> &[Function] {
        self.module.functions()
    }

    /// Address and bytes of a `.global` or `.const` variable.
    pub fn global(&self, name: &str) -> Result<(u64, u64), Error> {
        let found = self.globals.iter().find(|global| global.0 == name);
        found.map(|global| (global.1, global.2)).ok_or_else(|| Error::NotFound { what: "variable", name: name.into() })
    }

    /// `.version`, as 88 for 8.8.
    pub fn version(&self) -> u32 {
        self.module.version()
    }

    /// `.target`, as 80 for sm_80.
    pub fn target(&self) -> u32 {
        self.module.target()
    }

    /// Frees the variables' memory.
    pub fn unload(&self, memory: &Memory) {
        for (_, address, _) in &self.globals {
            // A variable freed by somebody else is gone already.
            let _ = memory.free(*address);
        }
    }
}
