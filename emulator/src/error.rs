//! What can go wrong: texts that cannot be parsed, memory that cannot be had, launches that cannot start, kernels that
//! fault, and findings of the checks that let a kernel run on.

use std::fmt;

/// Errors of the host's side: memory, loading, launch arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The device has less memory left than was asked for.
    OutOfMemory { asked: u64, free: u64 },
    /// An allocation of no bytes.
    EmptyAllocation,
    /// An address range that no living allocation holds.
    BadAddress { address: u64, bytes: u64, note: String },
    /// An allocation that was freed before.
    DoubleFree { address: u64 },
    /// A kernel, variable or symbol that the module lacks.
    NotFound { what: &'static str, name: String },
    /// A launch whose shape or parameters do not fit the kernel.
    LaunchArgument { kernel: String, note: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OutOfMemory { asked, free } => {
                write!(f, "out of device memory: {asked} bytes asked, {free} free; raise the memory size")
            }
            Error::EmptyAllocation => write!(f, "an allocation must have at least one byte"),
            Error::BadAddress { address, bytes, note } => {
                write!(f, "{bytes} bytes at address {address:#x} are not inside one living allocation: {note}")
            }
            Error::DoubleFree { address } => write!(f, "allocation {address:#x} was freed before"),
            Error::NotFound { what, name } => write!(f, "the module has no {what} named '{name}'"),
            Error::LaunchArgument { kernel, note } => write!(f, "launch of {kernel}: {note}"),
        }
    }
}

impl std::error::Error for Error {}

/// A text that is not PTX, or PTX that this interpreter refuses by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// What is wrong there.
    pub message: String,
    /// The text is well-formed but uses an instruction, type or directive that is not implemented.
    pub unsupported: bool,
}

impl ParseError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        ParseError { line, message: message.into(), unsupported: false }
    }

    pub(crate) fn unsupported(line: u32, message: impl Into<String>) -> Self {
        ParseError { line, message: message.into(), unsupported: true }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

/// The kinds of faults and findings. [`Kind::name`] is what a report prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    OutOfBounds,
    Misaligned,
    UseAfterFree,
    DoubleFree,
    Uninitialised,
    Race,
    AsyncPending,
    BarrierDivergence,
    InactiveLane,
    Leak,
    LaunchArgument,
    /// `trap`, `__assertfail`, or an instruction whose operands are illegal at run time.
    Trap,
    /// `__assertfail`.
    Assert,
    /// An indirect call or jump to something that is not a target of it.
    IllegalInstruction,
    /// The call stack or local memory of a thread is used up.
    StackOverflow,
    /// The instruction limit of [`crate::Config`] was reached, or all warps wait for ever.
    Timeout,
}

impl Kind {
    /// The name that reports print.
    pub fn name(self) -> &'static str {
        match self {
            Kind::OutOfBounds => "out-of-bounds",
            Kind::Misaligned => "misaligned",
            Kind::UseAfterFree => "use-after-free",
            Kind::DoubleFree => "double-free",
            Kind::Uninitialised => "uninitialised",
            Kind::Race => "race",
            Kind::AsyncPending => "async-pending",
            Kind::BarrierDivergence => "barrier-divergence",
            Kind::InactiveLane => "inactive-lane",
            Kind::Leak => "leak",
            Kind::LaunchArgument => "launch-argument",
            Kind::Trap => "trap",
            Kind::Assert => "assert",
            Kind::IllegalInstruction => "illegal-instruction",
            Kind::StackOverflow => "stack-overflow",
            Kind::Timeout => "timeout",
        }
    }
}

/// A place in the source of a kernel, from `.loc`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    pub file: String,
    pub line: u32,
    /// For inlined code: the call's place, outermost last.
    pub inlined_at: Vec<(String, u32)>,
}

impl fmt::Display for Source {
    /// `FILE:LINE (inlined at FILE:LINE, …)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.inlined_at.is_empty() {
            return Ok(());
        }
        let places: Vec<_> = self.inlined_at.iter().map(|(file, line)| format!("{file}:{line}")).collect();
        write!(f, " (inlined at {})", places.join(", "))
    }
}

/// One report of a check, or the fault that ended a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub kernel: String,
    /// Line of the PTX text.
    pub ptx_line: u32,
    /// The line of the CUDA source, when the module was compiled with line information.
    pub source: Option<Source>,
    pub block: [u32; 3],
    pub thread: [u32; 3],
    pub address: Option<u64>,
    /// The allocation or variable that the address lies in, or lies nearest to.
    pub allocation: Option<String>,
    /// What happened, in words.
    pub note: String,
}

impl fmt::Display for Finding {
    /// `KIND: kernel NAME, FILE:LINE (inlined at …), block (x,y,z), thread (x,y,z), address 0x…, allocation …: note`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: kernel {}, ", self.kind.name(), self.kernel)?;
        match &self.source {
            Some(source) => write!(f, "{source}")?,
            None => write!(f, "ptx:{}", self.ptx_line)?,
        }
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(f, ", block ({bx},{by},{bz}), thread ({tx},{ty},{tz})")?;
        if let Some(address) = self.address {
            write!(f, ", address {address:#x}")?;
        }
        if let Some(allocation) = &self.allocation {
            write!(f, ", allocation {allocation}")?;
        }
        if !self.note.is_empty() {
            write!(f, ": {}", self.note)?;
        }
        Ok(())
    }
}
