//! Functions: their heads, bodies, instructions and operands.

use super::ast::*;
use super::lexer::Token;
use super::parser::{DEEPEST, Parser, Result, type_bytes};
use crate::error::ParseError;

/// A numbered name's stem and number; `%r01` has no number.
pub(crate) fn split_number(name: &str) -> (&str, Option<u32>) {
    let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (stem, number) = name.split_at(digits);
    (stem, if number.len() > 1 && number.starts_with('0') { None } else { number.parse().ok() })
}

impl<'a> Parser<'a> {
    // Functions.

    fn params(&mut self) -> Result<Vec<Variable<'a>>> {
        let mut out = Vec::new();
        if !self.eat('(') {
            return Ok(out);
        }
        while !self.eat(')') {
            let line = self.line();
            let space = match self.word("'.param'")? {
                ".param" => Space::Param,
                ".reg" => Space::Register,
                word => return Err(ParseError::new(line, format!("expected '.param', found '{word}'"))),
            };
            let ty = self.variable_type()?;
            // `.param .u64 .ptr .global .align 1 name`
            while let Some(word) = self.directive() {
                self.next();
                match word {
                    "ptr" | "global" | "const" | "shared" | "local" | "noalias" | "param" => {}
                    "align" => {
                        self.small("an alignment")?;
                    }
                    _ => {
                        return Err(ParseError::unsupported(
                            line,
                            format!("'.{word}' on a parameter is not supported"),
                        ));
                    }
                }
            }
            out.push(self.variable_name(space, ty)?.0);
            if !self.eat(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(out)
    }

    fn triple(&mut self) -> Result<[u32; 3]> {
        let mut out = [1; 3];
        for place in &mut out {
            *place = self.small("a block size")?;
            if !self.eat(',') {
                break;
            }
        }
        Ok(out)
    }

    pub(super) fn function(&mut self) -> Result<FunctionText<'a>> {
        let entry = self.word("a function")? == ".entry";
        let line = self.line();
        let mut attributes = Attributes::default();
        while let Some("noreturn" | "unique") = self.directive() {
            self.next();
        }
        let returns = if entry { Vec::new() } else { self.params()? };
        let name = self.word("a function's name")?;
        let params = self.params()?;
        loop {
            let line = self.line();
            let Some(word) = self.directive() else { break };
            self.next();
            match word {
                "maxntid" => attributes.max_threads = Some(self.triple()?),
                "reqntid" => attributes.required = Some(self.triple()?),
                "minnctapersm" | "maxnctapersm" | "maxnreg" => {
                    self.small("a limit")?;
                }
                "noreturn" => {}
                "pragma" => {
                    self.next();
                    self.eat(';');
                }
                _ => return Err(ParseError::unsupported(line, format!("'.{word}' on a function is not supported"))),
            }
        }
        let body = if self.eat('{') {
            Some(self.body()?)
        } else {
            self.expect(';')?;
            None
        };
        Ok(FunctionText { name, entry, returns, params, attributes, body, line })
    }

    pub(super) fn loc(&mut self) -> Result<Loc> {
        let file = self.small("a file number")?;
        let line = self.small("a line")?;
        let column = self.small("a column")?;
        let mut inlined_at = None;
        while self.eat(',') {
            match self.word("'function_name' or 'inlined_at'")? {
                "inlined_at" => {
                    inlined_at = Some((self.small("a file number")?, self.small("a line")?, self.small("a column")?));
                }
                "function_name" => {
                    self.next();
                    if matches!(self.peek(), Token::Mark('+')) {
                        self.next();
                        self.small("an offset")?;
                    }
                }
                word => return self.error(format!("'{word}' in a .loc")),
            }
        }
        Ok(Loc { file, line, column, inlined_at })
    }

    fn body(&mut self) -> Result<Vec<Statement<'a>>> {
        self.vectors.clear();
        let mut out = Vec::new();
        let mut depth = 0u32;
        loop {
            let line = self.line();
            match self.peek() {
                Token::Mark('{') => {
                    self.next();
                    depth += 1;
                    out.push(Statement::Open);
                }
                Token::Mark('}') => {
                    self.next();
                    if depth == 0 {
                        return Ok(out);
                    }
                    depth -= 1;
                    out.push(Statement::Close);
                }
                Token::Mark(';') => {
                    self.next();
                }
                Token::Mark('@') => {
                    self.next();
                    let negated = self.eat('!');
                    let guard = self.word("a predicate")?;
                    let instruction = self.instruction(Some((guard, negated)), line)?;
                    out.push(Statement::Instruction(instruction));
                }
                Token::Word(word) if self.ahead(1) == Token::Mark(':') => {
                    self.next();
                    self.next();
                    out.push(Statement::Label(word, line));
                }
                Token::Word(word) if word.starts_with('.') => self.body_directive(word, &mut out)?,
                Token::Word(_) => {
                    let instruction = self.instruction(None, line)?;
                    out.push(Statement::Instruction(instruction));
                }
                Token::End => return self.error("a function's '{' without its '}'"),
                _ => return self.error(format!("expected an instruction, found {}", self.found())),
            }
        }
    }

    fn body_directive(&mut self, word: &'a str, out: &mut Vec<Statement<'a>>) -> Result<()> {
        let line = self.line();
        match word {
            ".reg" => {
                self.next();
                let mut vector = 1;
                let ty = loop {
                    let Some(word) = self.directive() else {
                        return self.error(format!("expected a type, found {}", self.found()));
                    };
                    self.next();
                    match word {
                        "v2" => vector = 2,
                        "v4" => vector = 4,
                        "align" => {
                            self.small("an alignment")?;
                        }
                        _ => break word,
                    }
                };
                if ty != "pred" && type_bytes(ty).is_none() {
                    return Err(ParseError::unsupported(line, format!("registers of type '.{ty}' are not supported")));
                }
                loop {
                    let name = self.word("a register's name")?;
                    let mut count = None;
                    if self.eat('<') {
                        // No expression: its `>` would be taken for a comparison.
                        let Token::Int(number, _) = self.next() else {
                            return self.error("a number of registers is needed");
                        };
                        count = Some(u32::try_from(number).unwrap_or(u32::MAX));
                        self.expect('>')?;
                    }
                    if vector > 1 {
                        self.vectors.insert(name, (vector, count));
                    }
                    out.push(Statement::Register { ty, name, count, vector, line });
                    if !self.eat(',') {
                        break;
                    }
                }
                self.expect(';')
            }
            ".local" | ".shared" | ".param" | ".global" | ".const" => {
                out.extend(self.variables(false)?.into_iter().map(Statement::Variable));
                Ok(())
            }
            ".loc" => {
                self.next();
                out.push(Statement::Loc(self.loc()?));
                Ok(())
            }
            ".pragma" => {
                self.next();
                while !self.eat(';') {
                    if self.next() == Token::End {
                        return self.error("a .pragma without its ';'");
                    }
                }
                Ok(())
            }
            ".branchtargets" | ".calltargets" => {
                self.next();
                let mut names = Vec::new();
                loop {
                    names.push(self.word("a label")?);
                    if !self.eat(',') {
                        break;
                    }
                }
                self.expect(';')?;
                out.push(Statement::Targets { names, line });
                Ok(())
            }
            ".callprototype" => {
                self.next();
                let returns = self.params()?;
                self.word("a name")?;
                let params = self.params()?;
                while let Some("noreturn") = self.directive() {
                    self.next();
                }
                self.expect(';')?;
                out.push(Statement::Prototype { returns, params });
                Ok(())
            }
            _ => Err(ParseError::unsupported(line, format!("'{word}' is not supported in a function"))),
        }
    }

    // Instructions.

    fn instruction(&mut self, guard: Option<(&'a str, bool)>, line: u32) -> Result<Instruction<'a>> {
        let opcode = self.word("an instruction")?;
        let mut operands = Vec::new();
        self.groups = opcode == "call" || opcode.starts_with("call.");
        if !self.eat(';') {
            loop {
                let operand = self.operand(0).map_err(|mut error| {
                    error.message = format!("instruction '{opcode}': {}", error.message);
                    error
                })?;
                operands.push(operand);
                if !self.eat(',') {
                    break;
                }
            }
            self.expect(';')?;
        }
        Ok(Instruction { line, guard, opcode, operands })
    }

    /// Elements of a vector register of that name.
    fn vector_elements(&self, name: &str) -> Option<u32> {
        if self.vectors.is_empty() {
            return None;
        }
        if let Some((elements, None)) = self.vectors.get(name) {
            return Some(*elements);
        }
        let (stem, number) = split_number(name);
        match (self.vectors.get(stem), number) {
            (Some((elements, Some(count))), Some(number)) if number < *count => Some(*elements),
            _ => None,
        }
    }

    fn operand(&mut self, depth: u32) -> Result<Operand<'a>> {
        if depth > DEEPEST {
            return self.error("an operand nested too deeply");
        }
        let operand = match self.peek() {
            Token::Mark('[') => {
                self.next();
                let base = match self.peek() {
                    Token::Word(word) => {
                        self.next();
                        Some(word)
                    }
                    _ => None,
                };
                let offset = match self.peek() {
                    Token::Mark(']' | ',') if base.is_some() => 0,
                    _ => self.expression(0)? as i64,
                };
                if self.peek() == Token::Mark(',') {
                    return Err(ParseError::unsupported(
                        self.line(),
                        "addresses with coordinates (tensor maps, textures) are not supported",
                    ));
                }
                self.expect(']')?;
                Operand::Memory { base, offset }
            }
            Token::Mark(open @ ('{' | '(')) if open == '{' || self.groups => {
                self.next();
                let close = if open == '{' { '}' } else { ')' };
                let mut list = Vec::new();
                while !self.eat(close) {
                    list.push(self.operand(depth + 1)?);
                    if !self.eat(',') {
                        self.expect(close)?;
                        break;
                    }
                }
                if open == '{' { Operand::Vector(list) } else { Operand::Group(list) }
            }
            Token::Mark('!') if matches!(self.ahead(1), Token::Word(_)) => {
                self.next();
                Operand::Name { name: self.word("a predicate")?, negated: true }
            }
            Token::Word("_") => {
                self.next();
                Operand::Sink
            }
            Token::Word(name) => {
                self.next();
                match self.peek() {
                    Token::Mark('+' | '-') => Operand::Offset(name, self.expression(0)? as i64),
                    _ => match self.vector_elements(name) {
                        Some(count) => Operand::Vector((0..count).map(|k| Operand::Component(name, k)).collect()),
                        None => Operand::Name { name, negated: false },
                    },
                }
            }
            Token::F32(bits) => {
                self.next();
                Operand::F32(bits)
            }
            Token::F64(bits) => {
                self.next();
                Operand::F64(bits)
            }
            Token::Mark('-') if matches!(self.ahead(1), Token::F64(_) | Token::F32(_)) => {
                self.next();
                match self.next() {
                    Token::F32(bits) => Operand::F32(bits ^ 0x8000_0000),
                    Token::F64(bits) => Operand::F64(bits ^ (1 << 63)),
                    _ => return self.error("a sign without a number"),
                }
            }
            Token::Mark('-') if matches!(self.ahead(1), Token::Word(_)) => {
                self.next();
                Operand::Negative(Box::new(self.operand(depth + 1)?))
            }
            _ => Operand::Int(self.expression(0)?),
        };
        if self.eat('|') {
            let second = self.operand(depth + 1)?;
            return Ok(Operand::Pair(Box::new(operand), Box::new(second)));
        }
        Ok(operand)
    }
}
