//! A small reader of JSON: enough for report files, and safe for any other text.

use std::fmt::Write as _;

/// How deep lists and objects may lie in each other.
const DEEPEST: u32 = 64;

/// A JSON value. Objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A member that is a number; 0 if there is none.
    pub fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Json::Number(number)) => *number,
            _ => 0.0,
        }
    }

    /// A member that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A member that is a list; empty if there is none.
    pub fn list(&self, name: &str) -> &[Json] {
        match self.get(name) {
            Some(Json::List(list)) => list,
            _ => &[],
        }
    }
}

/// Reads one value and nothing after it. The error says where it stopped.
pub(crate) fn parse(text: &str) -> Result<Json, String> {
    let mut reader = Reader { text: text.as_bytes(), at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at < reader.text.len() { reader.fail("nothing more was expected") } else { Ok(value) }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn fail<T>(&self, what: &str) -> Result<T, String> {
        let line = self.text[..self.at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        Err(format!("line {line}, byte {}: {what}", self.at))
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over a byte if it is the next one after white space.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, depth: u32) -> Result<Json, String> {
        if depth > DEEPEST {
            return self.fail("too deep");
        }
        self.space();
        match self.text.get(self.at) {
            Some(b'{') => {
                self.at += 1;
                let mut members = Vec::new();
                if self.take(b'}') {
                    return Ok(Json::Object(members));
                }
                loop {
                    self.space();
                    let name = self.string()?;
                    if !self.take(b':') {
                        return self.fail("a colon was expected");
                    }
                    members.push((name, self.value(depth + 1)?));
                    if self.take(b'}') {
                        return Ok(Json::Object(members));
                    }
                    if !self.take(b',') {
                        return self.fail("a comma or } was expected");
                    }
                }
            }
            Some(b'[') => {
                self.at += 1;
                let mut list = Vec::new();
                if self.take(b']') {
                    return Ok(Json::List(list));
                }
                loop {
                    list.push(self.value(depth + 1)?);
                    if self.take(b']') {
                        return Ok(Json::List(list));
                    }
                    if !self.take(b',') {
                        return self.fail("a comma or ] was expected");
                    }
                }
            }
            Some(b'"') => Ok(Json::Text(self.string()?)),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.iter().position(|byte| b",]} \t\r\n".contains(byte)).unwrap_or(rest.len());
                let word = std::str::from_utf8(&rest[..end]).unwrap_or("");
                let value = match word {
                    "null" => Json::Null,
                    "true" => Json::Bool(true),
                    "false" => Json::Bool(false),
                    // Rust reads words such as `inf`, which are no JSON.
                    _ if word.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => match word.parse() {
                        Ok(number) => Json::Number(number),
                        Err(_) => return self.fail("no number"),
                    },
                    _ => return self.fail("a value was expected"),
                };
                self.at += end;
                Ok(value)
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        if self.text.get(self.at) != Some(&b'"') {
            return self.fail("a string was expected");
        }
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let Some(byte) = self.text.get(self.at) else { return self.fail("the string does not end") };
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(out).or_else(|_| self.fail("no UTF-8")),
                b'\\' => {
                    let escape = self.text.get(self.at).copied();
                    self.at += 1;
                    match escape {
                        Some(plain @ (b'"' | b'\\' | b'/')) => out.push(plain),
                        Some(b'n') => out.push(b'\n'),
                        Some(b't') => out.push(b'\t'),
                        Some(b'r') => out.push(b'\r'),
                        Some(b'b') => out.push(8),
                        Some(b'f') => out.push(12),
                        Some(b'u') => {
                            let digits =
                                self.text.get(self.at..self.at + 4).and_then(|four| std::str::from_utf8(four).ok());
                            let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
                                return self.fail("four hexadecimal digits were expected");
                            };
                            self.at += 4;
                            // Halves of a pair do not occur in reports; they become the replacement character.
                            let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                        _ => return self.fail("an unknown escape"),
                    }
                }
                byte => out.push(*byte),
            }
        }
    }
}

/// A number with commas between thousands.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && !out.ends_with('-') {
            out.push(',');
        }
        let _ = write!(out, "{digit}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let value = parse(" {\"a\": [1, -2.5e3, true, null], \"b\":{\"c\":\"x\\n\\u00e9\\\"\"} } ").unwrap();
        assert_eq!(value.list("a")[1], Json::Number(-2500.0));
        assert_eq!(value.get("b").unwrap().text("c"), Some("x\né\""));
        assert_eq!((value.number("nothing"), value.list("nothing")), (0.0, &[][..]));
    }

    #[test]
    fn broken_texts_are_errors_and_not_panics() {
        let whole = "{\"a\":[1,{\"b\":\"\\u00e9\"}],\"c\":null}";
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "{end}");
        }
        for text in ["", "inf", "1 2", "[1,]", "{\"a\" 1}", "\"\\x\"", "\"\\u00\"", "-", "nul"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn thousands_are_parted() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0.0, 999.0, 1e3, 1_234_567.0].map(thousands).as_slice());
    }
}
