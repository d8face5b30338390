//! Constant expressions: 64-bit integers with the operators and precedences of C.

use super::lexer::Token;
use super::parser::{DEEPEST, Parser, Result};
use crate::error::ParseError;

/// A value and whether it is unsigned.
#[derive(Clone, Copy)]
struct Value {
    bits: u64,
    unsigned: bool,
}

impl Value {
    fn truth(truth: bool) -> Value {
        Value { bits: u64::from(truth), unsigned: false }
    }
}

/// Binary operators with their precedence, longest spelling first.
const OPERATORS: [(&str, u32); 18] = [
    ("||", 1),
    ("&&", 2),
    ("==", 6),
    ("!=", 6),
    ("<=", 7),
    (">=", 7),
    ("<<", 8),
    (">>", 8),
    ("|", 3),
    ("^", 4),
    ("&", 5),
    ("<", 7),
    (">", 7),
    ("+", 9),
    ("-", 9),
    ("*", 10),
    ("/", 10),
    ("%", 10),
];

fn apply(operator: &str, a: Value, b: Value) -> Option<Value> {
    let unsigned = a.unsigned || b.unsigned;
    let (x, y) = (a.bits, b.bits);
    let (sx, sy) = (x as i64, y as i64);
    let less = if unsigned { x < y } else { sx < sy };
    let number = |bits| Some(Value { bits, unsigned });
    match operator {
        "||" => Some(Value::truth(x != 0 || y != 0)),
        "&&" => Some(Value::truth(x != 0 && y != 0)),
        "==" => Some(Value::truth(x == y)),
        "!=" => Some(Value::truth(x != y)),
        "<" => Some(Value::truth(less)),
        ">=" => Some(Value::truth(!less)),
        "<=" => Some(Value::truth(less || x == y)),
        ">" => Some(Value::truth(!less && x != y)),
        "|" => number(x | y),
        "^" => number(x ^ y),
        "&" => number(x & y),
        "<<" => Some(Value { bits: x.checked_shl(y.min(64) as u32).unwrap_or(0), ..a }),
        ">>" if a.unsigned => Some(Value { bits: x.checked_shr(y.min(64) as u32).unwrap_or(0), ..a }),
        ">>" => Some(Value { bits: (sx >> y.min(63)) as u64, ..a }),
        "+" => number(x.wrapping_add(y)),
        "-" => number(x.wrapping_sub(y)),
        "*" => number(x.wrapping_mul(y)),
        "/" if unsigned => number(x.checked_div(y)?),
        "/" => number(sx.checked_div(sy)? as u64),
        _ if unsigned => number(x.checked_rem(y)?),
        _ => number(sx.checked_rem(sy)? as u64),
    }
}

impl<'a> Parser<'a> {
    fn operator(&self) -> Option<(&'static str, u32)> {
        let at = |by| match self.ahead(by) {
            Token::Mark(mark) => mark,
            // A lone `%` reads as a word.
            Token::Word("%") => '%',
            _ => '\0',
        };
        let found = |text: &str| text.chars().enumerate().all(|(k, c)| at(k) == c);
        OPERATORS.into_iter().find(|(text, _)| found(text))
    }

    fn term(&mut self, depth: u32) -> Result<Value> {
        if depth > DEEPEST {
            return self.error("an expression nested too deeply");
        }
        match self.peek() {
            Token::Int(bits, suffix) => {
                self.next();
                Ok(Value { bits, unsigned: suffix || bits >> 63 != 0 })
            }
            Token::Mark('-') => {
                self.next();
                let value = self.term(depth + 1)?;
                Ok(Value { bits: value.bits.wrapping_neg(), ..value })
            }
            Token::Mark('+') => {
                self.next();
                self.term(depth + 1)
            }
            Token::Mark('~') => {
                self.next();
                let value = self.term(depth + 1)?;
                Ok(Value { bits: !value.bits, ..value })
            }
            Token::Mark('!') => {
                self.next();
                Ok(Value::truth(self.term(depth + 1)?.bits == 0))
            }
            Token::Mark('(') => {
                self.next();
                if let Token::Word(cast @ (".s64" | ".u64")) = self.peek() {
                    self.next();
                    self.expect(')')?;
                    let bits = self.term(depth + 1)?.bits;
                    return Ok(Value { bits, unsigned: cast == ".u64" });
                }
                let value = self.value(depth + 1, 0)?;
                self.expect(')')?;
                Ok(value)
            }
            _ => self.error(format!("expected a number, found {}", self.found())),
        }
    }

    /// Operators of at least that precedence.
    fn value(&mut self, depth: u32, least: u32) -> Result<Value> {
        let mut value = self.term(depth)?;
        while let Some((operator, precedence)) = self.operator().filter(|found| found.1 > least) {
            let line = self.line();
            operator.chars().for_each(|_| {
                self.next();
            });
            let second = self.value(depth + 1, precedence)?;
            value = apply(operator, value, second).ok_or_else(|| ParseError::new(line, "a division by zero"))?;
        }
        if least == 0 && self.eat('?') {
            let first = self.value(depth + 1, 0)?;
            self.expect(':')?;
            let second = self.value(depth + 1, 0)?;
            return Ok(if value.bits != 0 { first } else { second });
        }
        Ok(value)
    }

    pub(super) fn expression(&mut self, depth: u32) -> Result<u64> {
        Ok(self.value(depth, 0)?.bits)
    }

    pub(super) fn small(&mut self, what: &str) -> Result<u32> {
        let line = self.line();
        let value = self.expression(0)?;
        u32::try_from(value).map_err(|_| ParseError::new(line, format!("{what} {value} is too large")))
    }
}
