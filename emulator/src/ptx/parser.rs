//! Tokens to declarations and statements. Every loop eats a token, and nesting is bounded, so that no text can hang it.

use super::ast::*;
use super::lexer::{Token, tokens};
use crate::error::ParseError;

/// Deepest nesting of braces and parentheses in one operand or initialiser.
pub(super) const DEEPEST: u32 = 32;

pub(super) struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
}

pub(super) type Result<T> = std::result::Result<T, ParseError>;

/// Parses a whole module.
pub(crate) fn parse(text: &str) -> Result<Text<'_>> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
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
            Token::Int(value) => format!("{value}"),
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

    // Constant expressions: sums of products of signed terms.

    fn term(&mut self, depth: u32) -> Result<u64> {
        if depth > DEEPEST {
            return self.error("an expression nested too deeply");
        }
        match self.peek() {
            Token::Int(value) => {
                self.next();
                Ok(value)
            }
            Token::Mark('-') => {
                self.next();
                Ok(self.term(depth + 1)?.wrapping_neg())
            }
            Token::Mark('+') => {
                self.next();
                self.term(depth + 1)
            }
            Token::Mark('~') => {
                self.next();
                Ok(!self.term(depth + 1)?)
            }
            Token::Mark('!') => {
                self.next();
                Ok(u64::from(self.term(depth + 1)? == 0))
            }
            Token::Mark('(') => {
                self.next();
                let value = self.expression(depth + 1)?;
                self.expect(')')?;
                Ok(value)
            }
            _ => self.error(format!("expected a number, found {}", self.found())),
        }
    }

    pub(super) fn expression(&mut self, depth: u32) -> Result<u64> {
        let mut sum = 0u64;
        let mut negative = false;
        loop {
            let mut product = self.term(depth)?;
            while self.eat('*') {
                product = product.wrapping_mul(self.term(depth)?);
            }
            sum = if negative { sum.wrapping_sub(product) } else { sum.wrapping_add(product) };
            negative = match self.peek() {
                Token::Mark('+') => false,
                Token::Mark('-') => true,
                _ => return Ok(sum),
            };
            self.next();
        }
    }

    pub(super) fn small(&mut self, what: &str) -> Result<u32> {
        let line = self.line();
        let value = self.expression(0)?;
        u32::try_from(value).map_err(|_| ParseError::new(line, format!("{what} {value} is too large")))
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

    /// `.space .align 4 .type name[n] = init, name2;`
    pub(super) fn variables(&mut self, external: bool) -> Result<Vec<Variable<'a>>> {
        let line = self.line();
        let word = self.word("a state space")?;
        let space = match word {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::Param,
            _ => return Err(ParseError::unsupported(line, format!("variables in '{word}' are not supported"))),
        };
        let mut out = Vec::new();
        let (ty, element, align) = self.variable_type()?;
        loop {
            let mut variable = self.variable_name(space, ty, element, align)?;
            variable.external = external;
            if self.eat('=') {
                self.initialiser(&mut variable.init, 0)?;
                let room = variable.bytes / u64::from(element.max(1));
                if variable.unsized_array {
                    variable.bytes = variable.init.len() as u64 * u64::from(element);
                    variable.unsized_array = false;
                } else if variable.init.len() as u64 > room {
                    return Err(ParseError::new(
                        line,
                        format!("'{}' has more initial values than elements", variable.name),
                    ));
                }
            }
            out.push(variable);
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')?;
        Ok(out)
    }

    /// Attributes and type of a declaration: type, element bytes, alignment.
    pub(super) fn variable_type(&mut self) -> Result<(&'a str, u32, u32)> {
        let (mut align, mut vector) = (None, 1);
        loop {
            let line = self.line();
            let Some(word) = self.directive() else {
                return self.error(format!("expected a type, found {}", self.found()));
            };
            self.next();
            match word {
                "align" => {
                    let value = self.small("an alignment")?;
                    if !value.is_power_of_two() || value > 4096 {
                        return Err(ParseError::new(line, format!("{value} is not an alignment")));
                    }
                    align = Some(value);
                }
                "v2" => vector = 2,
                "v4" => vector = 4,
                "ptr" | "global" | "const" | "shared" | "local" | "noalias" => {}
                "attribute" => {
                    return Err(ParseError::unsupported(line, ".attribute is not supported"));
                }
                _ => match type_bytes(word) {
                    Some(bytes) => {
                        let element = bytes * vector;
                        return Ok((word, element, align.unwrap_or(element)));
                    }
                    None => {
                        return Err(ParseError::unsupported(
                            line,
                            format!("type '.{word}' is not supported for variables"),
                        ));
                    }
                },
            }
        }
    }

    pub(super) fn variable_name(
        &mut self,
        space: Space,
        ty: &'a str,
        element: u32,
        align: u32,
    ) -> Result<Variable<'a>> {
        let line = self.line();
        let name = self.word("a variable's name")?;
        let (mut count, mut unsized_array) = (1u64, false);
        while self.eat('[') {
            if self.eat(']') {
                unsized_array = true;
                continue;
            }
            let size = self.expression(0)?;
            self.expect(']')?;
            count = count
                .checked_mul(size)
                .filter(|c| *c < 1 << 40)
                .ok_or_else(|| ParseError::new(line, format!("'{name}' is too large")))?;
        }
        let bytes = if unsized_array { 0 } else { count * u64::from(element) };
        Ok(Variable { space, name, ty, element, align, bytes, unsized_array, external: false, init: Vec::new(), line })
    }

    fn initialiser(&mut self, out: &mut Vec<Init<'a>>, depth: u32) -> Result<()> {
        if depth > DEEPEST {
            return self.error("an initialiser nested too deeply");
        }
        match self.peek() {
            Token::Mark('{') => {
                self.next();
                while !self.eat('}') {
                    self.initialiser(out, depth + 1)?;
                    if !self.eat(',') {
                        self.expect('}')?;
                        break;
                    }
                }
            }
            Token::F32(bits) => {
                self.next();
                out.push(Init::F32(bits));
            }
            Token::F64(bits) => {
                self.next();
                out.push(Init::F64(bits));
            }
            Token::Mark('-') if matches!(self.ahead(1), Token::F64(_)) => {
                self.next();
                if let Token::F64(bits) = self.next() {
                    out.push(Init::F64((-f64::from_bits(bits)).to_bits()));
                }
            }
            Token::Word(word) => {
                self.next();
                let name = if word == "generic" && self.eat('(') {
                    let name = self.word("a variable's name")?;
                    self.expect(')')?;
                    name
                } else {
                    word
                };
                let offset = if matches!(self.peek(), Token::Mark('+' | '-')) { self.expression(0)? as i64 } else { 0 };
                out.push(Init::Address(name, offset));
            }
            _ => {
                let value = self.expression(0)?;
                if self.peek() == Token::Mark('(') {
                    return Err(ParseError::unsupported(
                        self.line(),
                        "initial values made of parts of an address are not supported",
                    ));
                }
                out.push(Init::Int(value));
            }
        }
        Ok(())
    }
}
