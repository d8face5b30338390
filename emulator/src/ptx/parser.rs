//! Tokens to declarations and statements. Every loop eats a token, and nesting is bounded, so that no text can hang it.

use super::ast::*;
use super::lexer::{Token, tokens};
use crate::error::ParseError;
use std::collections::HashMap;

/// Deepest nesting of braces and parentheses in one operand or initialiser.
pub(super) const DEEPEST: u32 = 32;

pub(super) struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
    /// Whether parentheses group operands, as in calls.
    pub(super) groups: bool,
    /// Vector registers of the function at hand: elements, and how many there are of a numbered name.
    pub(super) vectors: HashMap<&'a str, (u32, Option<u32>)>,
}

pub(super) type Result<T> = std::result::Result<T, ParseError>;

/// Parses a whole module.
pub(crate) fn parse(text: &str) -> Result<Text<'_>> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, groups: false, vectors: HashMap::new() };
    parser.module()
}

/// Bytes of a fundamental type.
pub(crate) fn type_bytes(ty: &str) -> Option<u32> {
    Some(match ty {
        "b8" | "u8" | "s8" | "e4m3" | "e5m2" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens[self.at].0
    }

    pub(super) fn ahead(&self, by: usize) -> Token<'a> {
        self.tokens[(self.at + by).min(self.tokens.len() - 1)].0
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    pub(super) fn eat(&mut self, mark: char) -> bool {
        let found = self.peek() == Token::Mark(mark);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ParseError::new(self.line(), message))
    }

    pub(super) fn found(&self) -> String {
        match self.peek() {
            Token::Word(word) => format!("'{word}'"),
            Token::Int(value, _) => format!("{value}"),
            Token::F32(_) | Token::F64(_) => "a float".into(),
            Token::Text(text) => format!("\"{text}\""),
            Token::Mark(mark) => format!("'{mark}'"),
            Token::End => "the end of the text".into(),
        }
    }

    pub(super) fn expect(&mut self, mark: char) -> Result<()> {
        if self.eat(mark) { Ok(()) } else { self.error(format!("expected '{mark}', found {}", self.found())) }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.peek() {
            Token::Word(word) => {
                self.next();
                Ok(word)
            }
            _ => self.error(format!("expected {what}, found {}", self.found())),
        }
    }

    pub(super) fn directive(&self) -> Option<&'a str> {
        match self.peek() {
            Token::Word(word) => word.strip_prefix('.'),
            _ => None,
        }
    }

    // Module level.

    fn module(&mut self) -> Result<Text<'a>> {
        let mut text = Text::default();
        let mut external = false;
        loop {
            let line = self.line();
            let Token::Word(word) = self.peek() else {
                if self.peek() == Token::End {
                    break;
                }
                if self.eat(';') {
                    continue;
                }
                return self.error(format!("expected a directive, found {}", self.found()));
            };
            match word {
                ".version" => {
                    self.next();
                    let Token::F64(bits) = self.next() else {
                        return Err(ParseError::new(line, ".version needs a number such as 8.0"));
                    };
                    text.version = (f64::from_bits(bits) * 10.0).round().clamp(0.0, 1e6) as u32;
                }
                ".target" => {
                    self.next();
                    loop {
                        let name = self.word("a target")?;
                        if let Some(number) = name.strip_prefix("sm_") {
                            let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                            let Ok(number) = digits.parse() else {
                                return Err(ParseError::new(line, format!("unknown target '{name}'")));
                            };
                            text.target = number;
                        } else if !matches!(name, "texmode_unified" | "texmode_independent" | "debug") {
                            return Err(ParseError::unsupported(line, format!("target '{name}' is not supported")));
                        }
                        if !self.eat(',') {
                            break;
                        }
                    }
                }
                ".address_size" => {
                    self.next();
                    if self.small("the address size")? != 64 {
                        return Err(ParseError::unsupported(line, "only .address_size 64 is supported"));
                    }
                }
                ".visible" | ".weak" | ".common" => {
                    self.next();
                }
                ".extern" => {
                    self.next();
                    external = true;
                    continue;
                }
                ".entry" | ".func" => {
                    let function = self.function()?;
                    text.functions.push(function);
                }
                ".file" => {
                    self.next();
                    let number = self.small("a file number")?;
                    let Token::Text(name) = self.next() else {
                        return Err(ParseError::new(line, ".file needs a name in quotes"));
                    };
                    text.files.push((number, name.to_string()));
                    while self.eat(',') {
                        self.small("a file attribute")?;
                    }
                }
                ".section" => {
                    self.next();
                    self.next();
                    self.expect('{')?;
                    self.skip_braces()?;
                }
                ".pragma" => {
                    self.next();
                    while !self.eat(';') {
                        if self.next() == Token::End {
                            return self.error("a .pragma without its ';'");
                        }
                    }
                }
                ".alias" => {
                    self.next();
                    let name = self.word("a name")?;
                    self.expect(',')?;
                    let of = self.word("a name")?;
                    self.expect(';')?;
                    text.aliases.push((name, of));
                }
                ".global" | ".const" | ".shared" | ".local" => {
                    let variables = self.variables(external)?;
                    text.variables.extend(variables);
                }
                ".loc" => {
                    self.next();
                    self.loc()?;
                }
                _ => return Err(ParseError::unsupported(line, format!("'{word}' is not supported at this place"))),
            }
            external = false;
        }
        if text.version == 0 {
            return Err(ParseError::new(1, "the text has no .version: not PTX"));
        }
        if text.target == 0 {
            return Err(ParseError::new(1, "the text has no .target"));
        }
        Ok(text)
    }

    fn skip_braces(&mut self) -> Result<()> {
        let mut depth = 1u32;
        while depth > 0 {
            match self.next() {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth -= 1,
                Token::End => return self.error("a '{' without its '}'"),
                _ => {}
            }
        }
        Ok(())
    }
}
