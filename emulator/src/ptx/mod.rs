//! Text to statements: a tokeniser and a parser that know PTX's grammar and no instruction.

pub(crate) mod ast;
mod body;
mod expression;
mod lexer;
mod parser;
mod variables;

pub(crate) use body::split_number;
pub(crate) use parser::{parse, type_bytes};
