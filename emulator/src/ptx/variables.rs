//! Variables: spaces, types, sizes and initial values.

use super::ast::*;
use super::lexer::Token;
use super::parser::{DEEPEST, Parser, Result, type_bytes};
use crate::error::ParseError;

/// Most zeros that a list may leave out between two values.
const MOST_ZEROS: u64 = 1 << 20;

/// The type of a declaration.
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    pub name: &'a str,
    /// Bytes of one number.
    pub scalar: u32,
    /// Numbers of a vector; 1 without `.v2` or `.v4`.
    pub vector: u32,
    pub align: u32,
}

impl<'a> Parser<'a> {
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
        let ty = self.variable_type()?;
        loop {
            let (mut variable, dimensions) = self.variable_name(space, ty)?;
            variable.external = external;
            if self.eat('=') {
                if !matches!(space, Space::Global | Space::Const) {
                    return Err(ParseError::new(line, format!("'{}' cannot have initial values", variable.name)));
                }
                // A vector is one more dimension.
                let mut dimensions: Vec<u64> = dimensions;
                dimensions.push(u64::from(ty.vector));
                let room = if variable.unsized_array { 1 << 30 } else { dimensions.iter().product() };
                self.initialiser(&mut variable.init, &dimensions, room, 0)?;
                if variable.unsized_array {
                    let row = dimensions[1..].iter().product::<u64>().max(1);
                    variable.bytes = (variable.init.len() as u64).next_multiple_of(row) * u64::from(ty.scalar);
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

    /// Attributes and type of a declaration.
    pub(super) fn variable_type(&mut self) -> Result<Type<'a>> {
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
                    Some(scalar) => {
                        return Ok(Type { name: word, scalar, vector, align: align.unwrap_or(scalar * vector) });
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

    /// Name and array bounds; the bounds come too, 0 for one left open.
    pub(super) fn variable_name(&mut self, space: Space, ty: Type<'a>) -> Result<(Variable<'a>, Vec<u64>)> {
        let line = self.line();
        let name = self.word("a variable's name")?;
        let (mut count, mut unsized_array, mut dimensions) = (1u64, false, Vec::new());
        while self.eat('[') {
            if self.eat(']') {
                unsized_array = true;
                dimensions.push(0);
                continue;
            }
            let size = self.expression(0)?;
            self.expect(']')?;
            dimensions.push(size);
            count = count
                .checked_mul(size)
                .filter(|c| *c < 1 << 40)
                .ok_or_else(|| ParseError::new(line, format!("'{name}' is too large")))?;
        }
        let bytes = if unsized_array { 0 } else { count * u64::from(ty.scalar * ty.vector) };
        let variable = Variable {
            space,
            name,
            ty: ty.name,
            scalar: ty.scalar,
            align: ty.align,
            bytes,
            unsized_array,
            external: false,
            init: Vec::new(),
            line,
        };
        Ok((variable, dimensions))
    }

    /// One initial value, or a list in braces for the first of the dimensions; short lists are filled up with zeros.
    fn initialiser(&mut self, out: &mut Vec<Init<'a>>, dimensions: &[u64], room: u64, depth: u32) -> Result<()> {
        if depth > DEEPEST {
            return self.error("an initialiser nested too deeply");
        }
        if !self.eat('{') {
            let value = self.initial_value()?;
            out.push(value);
            return Ok(());
        }
        let rest = dimensions.get(1..).unwrap_or(&[]);
        let row = rest.iter().product::<u64>().max(1);
        // Where the next element starts: zeros are filled in only before one that has values.
        let mut start = out.len() as u64;
        while !self.eat('}') {
            if start > room || start.saturating_sub(out.len() as u64) > MOST_ZEROS {
                return self.error("more initial values than elements, or too many left out");
            }
            out.resize(start as usize, Init::Int(0));
            let braces = self.peek() == Token::Mark('{');
            self.initialiser(out, rest, room, depth + 1)?;
            if braces && out.len() as u64 > start.saturating_add(row) {
                return self.error("more initial values than elements");
            }
            start = if braces { start.saturating_add(row) } else { out.len() as u64 };
            if !self.eat(',') {
                self.expect('}')?;
                break;
            }
        }
        Ok(())
    }

    fn initial_value(&mut self) -> Result<Init<'a>> {
        Ok(match self.peek() {
            Token::F32(bits) => {
                self.next();
                Init::F32(bits)
            }
            Token::F64(bits) => {
                self.next();
                Init::F64(bits)
            }
            Token::Mark('-') if matches!(self.ahead(1), Token::F64(_) | Token::F32(_)) => {
                self.next();
                match self.next() {
                    Token::F32(bits) => Init::F32(bits ^ 0x8000_0000),
                    Token::F64(bits) => Init::F64(bits ^ (1 << 63)),
                    _ => return self.error("a sign without a number"),
                }
            }
            Token::Word(_) => {
                let (name, offset) = self.symbol()?;
                Init::Address { name, offset, mask: u64::MAX }
            }
            _ => {
                let mask = self.expression(0)?;
                if !self.eat('(') {
                    return Ok(Init::Int(mask));
                }
                // `0xff00(name)`: one byte of an address, or more of them.
                let (name, offset) = self.symbol()?;
                self.expect(')')?;
                Init::Address { name, offset, mask }
            }
        })
    }

    /// `name`, `generic(name)`, with an offset.
    fn symbol(&mut self) -> Result<(&'a str, i64)> {
        let word = self.word("a variable's name")?;
        let mut inner = 0;
        let name = if word == "generic" && self.eat('(') {
            let name = self.word("a variable's name")?;
            inner = self.offset()?;
            self.expect(')')?;
            name
        } else {
            word
        };
        Ok((name, inner.wrapping_add(self.offset()?)))
    }

    /// `+4`, `-4` or nothing.
    fn offset(&mut self) -> Result<i64> {
        if matches!(self.peek(), Token::Mark('+' | '-')) { Ok(self.expression(0)? as i64) } else { Ok(0) }
    }
}
