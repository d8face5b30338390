//! A list as Python writes it, `['B-PER', "O'Neil", 0]`: read, never evaluated.
//!
//! One flat list of strings and whole numbers. Strings are in single or double quotes, with Python's escapes; a
//! number stands for its own text. A comma may follow the last item.

use crate::tasks::message::shown;

/// The items of a list. The error says what was expected and what stood there, at which character.
pub(super) fn list(text: &str) -> Result<Vec<String>, String> {
    let mut parser = Parser { text, at: 0 };
    parser.blanks();
    if !parser.takes('[') {
        return Err(parser.expected("a list like ['a', 'b']"));
    }
    let mut items = Vec::new();
    loop {
        parser.blanks();
        if parser.takes(']') {
            break;
        }
        items.push(parser.item()?);
        parser.blanks();
        if !parser.takes(',') {
            if parser.takes(']') {
                break;
            }
            return Err(parser.expected("a comma or ]"));
        }
    }
    parser.blanks();
    if parser.peek().is_some() {
        return Err(parser.expected("nothing after the list"));
    }
    Ok(items)
}

/// The items of a cell: a list as Python or JSON write it, or words parted by blanks.
///
/// A list is what begins with a bracket that a quote, a number or the closing bracket follows: `[ laughs ]` are words,
/// and so is `[1] see also`, where neither the end nor the syntax of a list follows the closing bracket.
pub(super) fn list_or_blanks(text: &str) -> Result<Vec<String>, String> {
    let inside = text.trim_start().strip_prefix('[').map(str::trim_start);
    let is_list =
        inside.is_some_and(|rest| rest.starts_with(|c: char| matches!(c, '\'' | '"' | ']') || c.is_ascii_digit()));
    let words = || text.split_whitespace().map(str::to_string).collect();
    if !is_list {
        return Ok(words());
    }
    // JSON has escapes that Python has not: `\/`, and characters beyond U+FFFF in two halves.
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(items) => Ok(items),
        Err(_) => list(text.trim()).or_else(|error| if is_prose(text) { Ok(words()) } else { Err(error) }),
    }
}

/// Whether a text that begins like a list of numbers goes on as no list does: `[1] see also`. A text whose first item
/// is quoted is not asked: a broken list of texts must not become words.
fn is_prose(text: &str) -> bool {
    let inside = text.trim_start().strip_prefix('[').unwrap_or("");
    let rest = inside.split_once(']').map_or("", |(_, rest)| rest.trim_start());
    !inside.trim_start().starts_with(['\'', '"']) && !rest.is_empty() && !rest.starts_with([',', ']', '\'', '"'])
}

struct Parser<'a> {
    text: &'a str,
    /// A byte, always at the border of a character.
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn takes(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.next();
        }
        there
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|c| c == ' ') {
            self.next();
        }
    }

    fn expected(&self, what: &str) -> String {
        let rest = self.text.get(self.at..).unwrap_or("");
        let character = 1 + self.text.get(..self.at).map_or(0, |before| before.chars().count());
        let found = if rest.is_empty() { "the end".to_string() } else { shown(rest) };
        format!("expected {what} at character {character}, found {found}")
    }

    fn item(&mut self) -> Result<String, String> {
        match self.peek() {
            Some(quote @ ('\'' | '"')) => self.string(quote),
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(),
            Some('[' | '(' | '{') => Err(self.expected("a text in quotes or a whole number (lists do not nest)")),
            _ => Err(self.expected("a text in quotes or a whole number")),
        }
    }

    fn number(&mut self) -> Result<String, String> {
        let start = self.at;
        self.takes('-');
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_')) {
            self.next();
        }
        let text = self.text.get(start..self.at).unwrap_or("");
        match text.parse::<i64>() {
            Ok(value) => Ok(value.to_string()),
            Err(_) => {
                self.at = start;
                Err(self.expected("a text in quotes or a whole number"))
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<String, String> {
        let start = self.at;
        self.next();
        let mut out = String::new();
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(out),
                Some('\\') => out.push(self.escape()?),
                Some(c) => out.push(c),
                None => {
                    self.at = start;
                    return Err(self.expected(&format!("a closing {quote}")));
                }
            }
        }
    }

    /// What follows a backslash. `\N{…}` and octal numbers are not read.
    fn escape(&mut self) -> Result<char, String> {
        let start = self.at;
        let digits = match self.next() {
            Some(c @ ('\\' | '\'' | '"')) => return Ok(c),
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        let code = self.text.get(self.at..self.at + digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = code.filter(|_| digits > 0).and_then(|code| u32::from_str_radix(code, 16).ok());
        match code.and_then(char::from_u32) {
            Some(c) => {
                self.at += digits;
                Ok(c)
            }
            None => {
                self.at = start;
                Err(self.expected("one of \\\\ \\' \\\" n r t xHH uHHHH UHHHHHHHH after a backslash"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{list, list_or_blanks};

    #[test]
    fn lists_are_read_as_python_writes_them() {
        let items = |text| list(text).unwrap().join("|");
        assert_eq!(items("['B-PER', \"O'Neil\", 'a\"b']"), "B-PER|O'Neil|a\"b");
        assert_eq!(items(" [ 0 , -1,12 , ] "), "0|-1|12");
        assert_eq!(items(r"['\'', '\\', '\xe9', '\u20ac', '\U0001f602', '\t']"), "'|\\|é|€|😂|\t");
        assert!(list("[]").unwrap().is_empty());
        assert_eq!(items("['é', '[', ',']"), "é|[|,");
    }

    #[test]
    fn a_cell_is_a_list_or_words_parted_by_blanks() {
        let items = |text| list_or_blanks(text).unwrap().join("|");
        assert_eq!(items(" ['a b', \"c\"] "), "a b|c");
        assert_eq!(items(r#"["\ud83d\ude02", "\/", "O'Neil"]"#), "😂|/|O'Neil");
        assert_eq!(items("[0, 3]"), "0|3");
        assert_eq!(items("a  b\u{a0}c "), "a|b|c");
        assert_eq!(items("[ laughs ] yes"), "[|laughs|]|yes");
        assert_eq!(items("[1] see also"), "[1]|see|also");
        assert_eq!(items("[] [2, 3] x"), "[]|[2,|3]|x");
        assert!(list_or_blanks("[1.5]").is_err() && list_or_blanks("[1], [2]").is_err());
        assert!(list_or_blanks("['a' 'b'] c").is_err(), "a broken list of texts");
        assert!(list_or_blanks("[]").unwrap().is_empty() && list_or_blanks(" ").unwrap().is_empty());
        assert!(list_or_blanks("['a' 'b']").unwrap_err().contains("expected a comma"), "as numpy prints lists");
    }

    #[test]
    fn what_is_no_list_of_words_is_refused_with_its_place() {
        for (text, expected) in [
            ("", "expected a list like ['a', 'b'] at character 1, found the end"),
            ("a b", "expected a list like ['a', 'b'] at character 1, found 'a b'"),
            ("['a' 'b']", "expected a comma or ] at character 6, found ''b']'"),
            ("['a", "expected a closing ' at character 2, found ''a'"),
            ("['a'", "expected a comma or ] at character 5, found the end"),
            (
                "[['a']]",
                "expected a text in quotes or a whole number (lists do not nest) at character 2, found '['a']]'",
            ),
            (
                "[__import__('os')]",
                "expected a text in quotes or a whole number at character 2, found '__import__('os')]'",
            ),
            ("[1.5]", "expected a text in quotes or a whole number at character 2, found '1.5]'"),
            ("['a'] + []", "expected nothing after the list at character 7, found '+ []'"),
        ] {
            assert_eq!(list(text).unwrap_err(), expected, "{text}");
        }
        assert!(list(r"['\ud800']").unwrap_err().contains("after a backslash"));
        assert!(list(r"['\é']").is_err());
    }
}
