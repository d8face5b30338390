//! What the parser gives: declarations and, for each body, a flat list of statements. Texts borrow from the source.

/// State spaces of variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
    /// Parameters of functions in registers.
    Register,
}

/// One value of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Init<'a> {
    Int(u64),
    F32(u32),
    F64(u64),
    /// Address of a symbol plus an offset; only the bits of the mask, moved down to bit 0.
    Address {
        name: &'a str,
        offset: i64,
        mask: u64,
    },
}

/// A variable or parameter.
#[derive(Clone, Debug)]
pub(crate) struct Variable<'a> {
    pub space: Space,
    pub name: &'a str,
    /// Type without its dot, such as `b8`.
    pub ty: &'a str,
    /// Bytes of one number.
    pub scalar: u32,
    pub align: u32,
    /// Bytes in all; 0 for an array without a size.
    pub bytes: u64,
    pub unsized_array: bool,
    pub external: bool,
    pub init: Vec<Init<'a>>,
    pub line: u32,
}

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand<'a> {
    /// A register, variable, label or function; `negated` for `!name`.
    Name {
        name: &'a str,
        negated: bool,
    },
    /// An element of a vector register.
    Component(&'a str, u32),
    /// `name+4` outside of brackets.
    Offset(&'a str, i64),
    Int(u64),
    F32(u32),
    /// A double; decimal floats too.
    F64(u64),
    /// `[base+offset]`; without a base, an absolute address.
    Memory {
        base: Option<&'a str>,
        offset: i64,
    },
    Vector(Vec<Operand<'a>>),
    /// `a|b`.
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// `-name`.
    Negative(Box<Operand<'a>>),
    /// `_`.
    Sink,
    /// `(a, b)` of a call.
    Group(Vec<Operand<'a>>),
}

/// A place in the source from `.loc`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Loc {
    pub file: u32,
    pub line: u32,
    pub column: u32,
    /// File, line, column of the call for inlined code.
    pub inlined_at: Option<(u32, u32, u32)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Instruction<'a> {
    pub line: u32,
    /// Predicate and whether it is negated.
    pub guard: Option<(&'a str, bool)>,
    /// `ld.global.v4.b32`.
    pub opcode: &'a str,
    pub operands: Vec<Operand<'a>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Statement<'a> {
    Label(&'a str, u32),
    /// `.reg .b32 %r<10>` (with a count) or a plain name.
    Register {
        ty: &'a str,
        name: &'a str,
        count: Option<u32>,
        /// Elements of a vector register; 1 for a plain one.
        vector: u32,
        line: u32,
    },
    Variable(Variable<'a>),
    Loc(Loc),
    Instruction(Instruction<'a>),
    /// `label: .branchtargets a, b;`: the label stands before it.
    Targets {
        names: Vec<&'a str>,
        line: u32,
    },
    /// `label: .callprototype …`: the label stands before it.
    Prototype {
        returns: Vec<Variable<'a>>,
        params: Vec<Variable<'a>>,
    },
    Open,
    Close,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub max_threads: Option<[u32; 3]>,
    pub required: Option<[u32; 3]>,
}

#[derive(Clone, Debug)]
pub(crate) struct FunctionText<'a> {
    pub name: &'a str,
    pub entry: bool,
    pub returns: Vec<Variable<'a>>,
    pub params: Vec<Variable<'a>>,
    pub attributes: Attributes,
    /// None for a declaration.
    pub body: Option<Vec<Statement<'a>>>,
    pub line: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Text<'a> {
    pub version: u32,
    pub target: u32,
    pub variables: Vec<Variable<'a>>,
    pub functions: Vec<FunctionText<'a>>,
    /// Number and name of `.file`.
    pub files: Vec<(u32, String)>,
    /// `.alias a, b`.
    pub aliases: Vec<(&'a str, &'a str)>,
}
