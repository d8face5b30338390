//! Tokens of PTX.

use crate::error::ParseError;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// Names, opcodes with their dots, directives with the dot before them.
    Word(&'a str),
    /// A whole number, and whether it has the suffix of an unsigned one.
    Int(u64, bool),
    F32(u32),
    F64(u64),
    Text(&'a str),
    Mark(char),
    End,
}

/// Longest name accepted: longer ones are no PTX and only slow comparisons down.
const LONGEST_WORD: usize = 16_384;

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

fn goes_on(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.' | b'@')
}

/// All tokens with their lines; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>, ParseError> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let (mut at, mut line) = (0, 1u32);
    while at < bytes.len() {
        let byte = bytes[at];
        let rest = &bytes[at..];
        match byte {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => at += 1,
            b'/' if rest.starts_with(b"//") => at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => {
                let Some(end) = rest[2..].windows(2).position(|pair| pair == b"*/") else {
                    return Err(ParseError::new(line, "a comment that starts here has no end"));
                };
                line += rest[..end + 2].iter().filter(|b| **b == b'\n').count() as u32;
                at += end + 4;
            }
            b'"' => {
                let Some(end) = rest[1..].iter().position(|b| *b == b'"' || *b == b'\n') else {
                    return Err(ParseError::new(line, "a text that starts here has no end"));
                };
                if rest[1 + end] == b'\n' {
                    return Err(ParseError::new(line, "a text that starts here has no end"));
                }
                out.push((Token::Text(&text[at + 1..at + 1 + end]), line));
                at += end + 2;
            }
            // `.5` is a number, `.v2` a word.
            b'0'..=b'9' | b'.' if byte != b'.' || rest.get(1).is_some_and(u8::is_ascii_digit) => {
                let (token, length) = number(&text[at..], line)?;
                out.push((token, line));
                at += length;
            }
            _ if starts_word(byte) => {
                let mut end = at + 1;
                // `.global.u32` is two words, as `.global .u32` is; `ld.global.u32` is one.
                let directive = byte == b'.';
                while end < bytes.len() && !(directive && bytes[end] == b'.') {
                    // `shared::cta` is one word; a single colon ends a label.
                    if bytes[end] == b':'
                        && bytes.get(end + 1) == Some(&b':')
                        && bytes.get(end + 2).is_some_and(|b| goes_on(*b))
                    {
                        end += 2;
                    } else if goes_on(bytes[end]) {
                        end += 1;
                    } else {
                        break;
                    }
                }
                if end - at > LONGEST_WORD {
                    return Err(ParseError::new(line, format!("a name of {} characters", end - at)));
                }
                out.push((Token::Word(&text[at..end]), line));
                at = end;
            }
            b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>' | b',' | b';' | b':' | b'=' | b'+' | b'-' | b'*'
            | b'/' | b'!' | b'~' | b'|' | b'&' | b'^' | b'@' | b'?' => {
                out.push((Token::Mark(byte as char), line));
                at += 1;
            }
            0 => break, // driver images end with a NUL
            _ => {
                let found = text[at..].chars().next().unwrap_or('?');
                return Err(ParseError::new(line, format!("the character {found:?} is not PTX")));
            }
        }
    }
    out.push((Token::End, line));
    Ok(out)
}

/// A whole number by its digits and suffix.
fn based(digits: &str, radix: u32) -> Option<Token<'static>> {
    let plain = digits.strip_suffix(['U', 'u']);
    let value = u64::from_str_radix(plain.unwrap_or(digits), radix).ok()?;
    Some(Token::Int(value, plain.is_some()))
}

/// A number at the start of `text` and its length.
fn number(text: &str, line: u32) -> Result<(Token<'_>, usize), ParseError> {
    let bytes = text.as_bytes();
    let word = bytes.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'.')).unwrap_or(bytes.len());
    let bad = |found: &str| ParseError::new(line, format!("'{found}' is not a number"));
    if bytes[0] == b'0' && bytes.len() > 1 {
        let digits = text.get(2..word).unwrap_or("");
        match bytes[1] {
            b'f' | b'F' if digits.len() == 8 => {
                let bits = u32::from_str_radix(digits, 16).map_err(|_| bad(&text[..word]))?;
                return Ok((Token::F32(bits), word));
            }
            b'd' | b'D' if digits.len() == 16 => {
                let bits = u64::from_str_radix(digits, 16).map_err(|_| bad(&text[..word]))?;
                return Ok((Token::F64(bits), word));
            }
            b'x' | b'X' => {
                return based(digits, 16).map(|token| (token, word)).ok_or_else(|| bad(&text[..word]));
            }
            b'b' | b'B' => {
                return based(digits, 2).map(|token| (token, word)).ok_or_else(|| bad(&text[..word]));
            }
            _ => {}
        }
    }
    let mut end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    let whole = end;
    if bytes.get(end) == Some(&b'.') {
        end += 1;
        end += bytes[end..].iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len() - end);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let digits = bytes[end + 1 + sign..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits > 0 {
            end += 1 + sign + digits;
        }
    }
    if end > whole {
        let value: f64 = text[..end].parse().map_err(|_| bad(&text[..end]))?;
        return Ok((Token::F64(value.to_bits()), end));
    }
    let digits = &text[..whole];
    let radix = if digits.len() > 1 && digits.starts_with('0') { 8 } else { 10 };
    let value = u64::from_str_radix(digits, radix).map_err(|_| bad(digits))?;
    let suffix = usize::from(matches!(bytes.get(whole), Some(b'U' | b'u')));
    if bytes.get(whole + suffix).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        return Err(bad(&text[..word]));
    }
    Ok((Token::Int(value, suffix != 0), whole + suffix))
}
