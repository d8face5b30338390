//! Tokens to declarations and statements. Every loop eats a token, and nesting is bounded, so that no text can hang it.

use super::ast::*;
use super::lexer::{Token, tokens};
use crate::error::ParseError;

/// Deepest nesting of braces and parentheses in one operand or initialiser.
const DEEPEST: u32 = 32;

struct Parser<'a> {
    tokens: Vec<(Token<'a>, u32)>,
    at: usize,
}

type Result<T> = std::result::Result<T, ParseError>;

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
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at].0
    }

    fn ahead(&self, by: usize) -> Token<'a> {
        self.tokens[(self.at + by).min(self.tokens.len() - 1)].0
    }

    fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, mark: char) -> bool {
        let found = self.peek() == Token::Mark(mark);
        if found {
            self.next();
        }
        found
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ParseError::new(self.line(), message))
    }

    fn found(&self) -> String {
        match self.peek() {
            Token::Word(word) => format!("'{word}'"),
            Token::Int(value) => format!("{value}"),
            Token::F32(_) | Token::F64(_) => "a float".into(),
            Token::Text(text) => format!("\"{text}\""),
            Token::Mark(mark) => format!("'{mark}'"),
            Token::End => "the end of the text".into(),
        }
    }

    fn expect(&mut self, mark: char) -> Result<()> {
        if self.eat(mark) { Ok(()) } else { self.error(format!("expected '{mark}', found {}", self.found())) }
    }

    fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.peek() {
            Token::Word(word) => {
                self.next();
                Ok(word)
            }
            _ => self.error(format!("expected {what}, found {}", self.found())),
        }
    }

    fn directive(&self) -> Option<&'a str> {
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

    fn expression(&mut self, depth: u32) -> Result<u64> {
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

    fn small(&mut self, what: &str) -> Result<u32> {
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
    fn variables(&mut self, external: bool) -> Result<Vec<Variable<'a>>> {
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
    fn variable_type(&mut self) -> Result<(&'a str, u32, u32)> {
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

    fn variable_name(&mut self, space: Space, ty: &'a str, element: u32, align: u32) -> Result<Variable<'a>> {
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

    // Functions.

    fn params(&mut self) -> Result<Vec<Variable<'a>>> {
        let mut out = Vec::new();
        if !self.eat('(') {
            return Ok(out);
        }
        while !self.eat(')') {
            let line = self.line();
            match self.word("'.param'")? {
                ".param" => {
                    let (ty, element, align) = self.variable_type()?;
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
                    out.push(self.variable_name(Space::Param, ty, element, align)?);
                }
                ".reg" => {
                    return Err(ParseError::unsupported(line, "functions with register parameters are not supported"));
                }
                word => return Err(ParseError::new(line, format!("expected '.param', found '{word}'"))),
            }
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

    fn function(&mut self) -> Result<FunctionText<'a>> {
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

    fn loc(&mut self) -> Result<Loc> {
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
                let Some(mut ty) = self.directive() else {
                    return self.error(format!("expected a type, found {}", self.found()));
                };
                self.next();
                if matches!(ty, "v2" | "v4") {
                    return Err(ParseError::unsupported(line, "registers that are vectors are not supported"));
                }
                if let Some(("align", _)) = self.directive().map(|d| (d, ())) {
                    self.next();
                    self.small("an alignment")?;
                }
                if ty != "pred" && type_bytes(ty).is_none() {
                    return Err(ParseError::unsupported(line, format!("registers of type '.{ty}' are not supported")));
                }
                if ty == "tf32" {
                    ty = "b32";
                }
                loop {
                    let name = self.word("a register's name")?;
                    let mut count = None;
                    if self.eat('<') {
                        count = Some(self.small("a number of registers")?);
                        self.expect('>')?;
                    }
                    out.push(Statement::Register { ty, name, count, line });
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
                self.params()?;
                self.word("a name")?;
                self.params()?;
                while let Some("noreturn") = self.directive() {
                    self.next();
                }
                self.expect(';')?;
                out.push(Statement::Prototype);
                Ok(())
            }
            _ => Err(ParseError::unsupported(line, format!("'{word}' is not supported in a function"))),
        }
    }

    // Instructions.

    fn instruction(&mut self, guard: Option<(&'a str, bool)>, line: u32) -> Result<Instruction<'a>> {
        let opcode = self.word("an instruction")?;
        let mut operands = Vec::new();
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
                let offset =
                    if self.peek() == Token::Mark(']') && base.is_some() { 0 } else { self.expression(0)? as i64 };
                if self.peek() == Token::Mark(',') {
                    return Err(ParseError::unsupported(
                        self.line(),
                        "addresses with coordinates (tensor maps, textures) are not supported",
                    ));
                }
                self.expect(']')?;
                Operand::Memory { base, offset }
            }
            Token::Mark(open @ ('{' | '(')) => {
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
            Token::Mark('!') => {
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
                    _ => Operand::Name { name, negated: false },
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
            _ => Operand::Int(self.expression(0)?),
        };
        if self.eat('|') {
            let second = self.operand(depth + 1)?;
            return Ok(Operand::Pair(Box::new(operand), Box::new(second)));
        }
        Ok(operand)
    }
}
