//! Text to statements: a tokeniser and a parser that know PTX's grammar and no instruction.

pub(crate) mod ast;
mod body;
mod lexer;
mod parser;

pub(crate) use parser::{parse, type_bytes};
