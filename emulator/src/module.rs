//! A module: its functions and variables, before and after it has a place in a device's memory.

use crate::error::{Error, ParseError};
use crate::memory::Memory;

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
pub struct Module {}

impl Module {
    /// Parses PTX. An instruction that is not known is refused by name, with its line.
    pub fn parse(_text: &str) -> Result<Module, ParseError> {
        Err(ParseError::unsupported(1, "not implemented yet"))
    }

    /// Kernels, in the order of the text.
    pub fn functions(&self) -> &[Function] {
        &[]
    }

    /// `.version`, as 88 for 8.8.
    pub fn version(&self) -> u32 {
        0
    }

    /// `.target`, as 80 for sm_80.
    pub fn target(&self) -> u32 {
        0
    }

    /// Gives the variables addresses in a device's memory and writes their initial values.
    pub fn load(self, _memory: &Memory) -> Result<LoadedModule, Error> {
        Ok(LoadedModule { module: self, globals: Vec::new() })
    }
}

/// A module with its variables in memory.
pub struct LoadedModule {
    module: Module,
    globals: Vec<(String, u64, u64)>,
}

impl LoadedModule {
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
