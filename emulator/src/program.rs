//! What the compiler makes of a text: flat code with tables, independent of any memory.

use crate::compile::dataflow::Dataflow;
use crate::error::Source;
use crate::isa::Ins;
use crate::module::Function;

/// A register that is filled when a frame is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NumWarps,
    SmId,
    NumSm,
    GridId,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    DynamicShared,
    TotalShared,
    /// Address of the dynamic shared memory.
    ExternShared,
    /// Address of a `.local` or `.param` variable of the frame.
    Frame(u32),
    /// Address of a module variable: its number and an offset.
    Variable(u32, i64),
    /// Address of a function.
    FunctionAddress(u32),
    Bits(u64),
}

/// A register width class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bank {
    Pred,
    R32,
    R64,
}

/// A place in the thread's frame that holds a parameter or return value of a device function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FramePlace {
    pub offset: u32,
    pub bytes: u32,
}

/// One function's code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    pub name: String,
    pub start: u32,
    /// Registers of each bank.
    pub registers: (u16, u16, u16),
    /// What the filled registers hold.
    pub filled: Vec<(Bank, u16, Special)>,
    /// Bytes of a thread's frame.
    pub frame_bytes: u32,
    /// What lies in the frame, by offset.
    pub rooms: Vec<FramePlace>,
    pub params: Vec<FramePlace>,
    pub returns: Vec<FramePlace>,
    pub builtin: Option<Builtin>,
    /// Declared and never defined.
    pub missing: bool,
}

/// Functions that the device provides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    Vprintf,
    AssertFail,
}

/// A call's operands.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallSite {
    /// Function number for direct calls.
    pub function: Option<u32>,
    pub args: Vec<FramePlace>,
    pub results: Vec<FramePlace>,
}

/// An address in an initial value, or the part of one that a mask selects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relocation {
    pub at: usize,
    pub bytes: usize,
    pub special: Special,
    pub mask: u64,
}

/// A module variable that needs an address.
#[derive(Clone, Debug)]
pub(crate) struct ModuleVariable {
    pub name: String,
    /// In constant space.
    pub constant: bool,
    pub bytes: u64,
    pub image: Vec<u8>,
    /// Addresses to be written into the image.
    pub relocations: Vec<Relocation>,
}

/// The whole module.
#[derive(Default)]
pub(crate) struct Program {
    pub version: u32,
    pub target: u32,
    pub code: Vec<Ins>,
    /// For each instruction: line of the text, number of its place in `sources` plus 1, number of its function.
    pub places: Vec<(u32, u32, u32)>,
    pub sources: Vec<Source>,
    pub lists: Vec<u16>,
    pub functions: Vec<Code>,
    /// Kernels, with the number of their code.
    pub kernels: Vec<(Function, u32)>,
    pub calls: Vec<CallSite>,
    /// Targets of indexed branches.
    pub tables: Vec<Vec<u32>>,
    pub variables: Vec<ModuleVariable>,
    /// Video instructions.
    pub videos: Vec<crate::isa::video::ThreeInputs>,
    pub dataflow: Dataflow,
}
