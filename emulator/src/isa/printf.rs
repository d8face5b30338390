//! `vprintf` and `__assertfail`, which the device provides.

use super::Flow;
use super::memory::thread_bytes;
use crate::error::Kind;
use crate::exec::Cx;
use crate::exec::access::{lanes, number};
use crate::program::CallSite;

/// Longest text that is read from the device.
const LONGEST: usize = 4096;

/// A parameter of the call as a number.
fn argument(cx: &Cx, site: &CallSite, lane: usize, which: usize) -> u64 {
    let Some(place) = site.args.get(which) else { return 0 };
    let start = lane * cx.w.local_capacity + (cx.w.stack[cx.w.depth as usize][lane] + place.offset) as usize;
    let bytes = place.bytes.min(8) as usize;
    cx.w.local.get(start..start + bytes).map_or(0, number)
}

fn text(cx: &Cx, lane: usize, address: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while out.len() < LONGEST {
        let byte = thread_bytes(cx, lane, address + out.len() as u64, 1)?[0];
        if byte == 0 {
            break;
        }
        out.push(byte);
    }
    Some(out)
}

/// Prints for each lane; gives the number of arguments as the device does.
pub(crate) fn vprintf(cx: &mut Cx, site: &CallSite, mask: u32) -> Flow {
    for lane in lanes(mask) {
        let (format, args) = (argument(cx, site, lane, 0), argument(cx, site, lane, 1));
        let Some(format) = text(cx, lane, format) else {
            return cx.fault(Kind::OutOfBounds, lane as u32, Some(format), None, "the format of a printf");
        };
        let mut out = Vec::new();
        let Some(count) = print(cx, lane, &format, args, &mut out) else {
            return cx.fault(Kind::OutOfBounds, lane as u32, Some(args), None, "the arguments of a printf");
        };
        cx.g.printed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(&out);
        if let Some(place) = site.results.first() {
            let start = lane * cx.w.local_capacity + (cx.w.stack[cx.w.depth as usize][lane] + place.offset) as usize;
            cx.w.local[start..start + 4].copy_from_slice(&(count as u32).to_le_bytes());
            cx.w.local_written[start..start + 4].fill(0xff);
        }
    }
    Flow::Next
}

/// One conversion of a format.
#[derive(Default)]
struct Conversion {
    minus: bool,
    plus: bool,
    space: bool,
    hash: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

fn print(cx: &Cx, lane: usize, format: &[u8], args: u64, out: &mut Vec<u8>) -> Option<usize> {
    let (mut at, mut offset, mut count) = (0, 0u64, 0);
    let mut next = |bytes: u64| -> Option<u64> {
        offset = offset.next_multiple_of(bytes);
        let value = number(&thread_bytes(cx, lane, args + offset, bytes as usize)?);
        offset += bytes;
        count += 1;
        Some(value)
    };
    while at < format.len() {
        if format[at] != b'%' {
            out.push(format[at]);
            at += 1;
            continue;
        }
        let start = at;
        at += 1;
        let mut c = Conversion::default();
        while let Some(flag) = format.get(at) {
            match flag {
                b'-' => c.minus = true,
                b'+' => c.plus = true,
                b' ' => c.space = true,
                b'#' => c.hash = true,
                b'0' => c.zero = true,
                _ => break,
            }
            at += 1;
        }
        if format.get(at) == Some(&b'*') {
            c.width = (next(4)? as i32).unsigned_abs().min(4096) as usize;
            at += 1;
        }
        while let Some(digit) = format.get(at).filter(|b| b.is_ascii_digit()) {
            c.width = (c.width * 10 + usize::from(digit - b'0')).min(4096);
            at += 1;
        }
        if format.get(at) == Some(&b'.') {
            at += 1;
            let mut precision = 0;
            if format.get(at) == Some(&b'*') {
                precision = (next(4)? as i32).clamp(0, 4096) as usize;
                at += 1;
            }
            while let Some(digit) = format.get(at).filter(|b| b.is_ascii_digit()) {
                precision = (precision * 10 + usize::from(digit - b'0')).min(4096);
                at += 1;
            }
            c.precision = Some(precision);
        }
        let mut long = false;
        while let Some(size) = format.get(at).filter(|b| b"hlLqjzt".contains(b)) {
            long |= b"lqjzt".contains(size);
            at += 1;
        }
        let Some(kind) = format.get(at) else {
            out.extend_from_slice(&format[start..]);
            break;
        };
        at += 1;
        let bytes = if long { 8 } else { 4 };
        let signed = |value: u64| if long { value as i64 } else { i64::from(value as i32) };
        match kind {
            b'%' => out.push(b'%'),
            b'd' | b'i' => {
                let value = signed(next(bytes)?);
                let sign = if value < 0 {
                    "-"
                } else if c.plus {
                    "+"
                } else if c.space {
                    " "
                } else {
                    ""
                };
                pad(&c, sign, digits(value.unsigned_abs().to_string(), &c), c.precision.is_none(), out);
            }
            b'u' => pad(&c, "", digits(next(bytes)?.to_string(), &c), c.precision.is_none(), out),
            b'x' => {
                let value = next(bytes)?;
                pad(
                    &c,
                    if c.hash && value != 0 { "0x" } else { "" },
                    digits(format!("{value:x}"), &c),
                    c.precision.is_none(),
                    out,
                );
            }
            b'X' => {
                let value = next(bytes)?;
                pad(
                    &c,
                    if c.hash && value != 0 { "0X" } else { "" },
                    digits(format!("{value:X}"), &c),
                    c.precision.is_none(),
                    out,
                );
            }
            b'o' => pad(&c, "", digits(format!("{:o}", next(bytes)?), &c), c.precision.is_none(), out),
            b'c' => pad(&c, "", char::from(next(4)? as u8).to_string(), false, out),
            b'p' => pad(&c, "0x", format!("{:x}", next(8)?), false, out),
            b's' => {
                let mut found = text(cx, lane, next(8)?)?;
                found.truncate(c.precision.unwrap_or(LONGEST));
                pad(&c, "", String::from_utf8_lossy(&found).into_owned(), false, out);
            }
            b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' | b'A' => {
                let value = f64::from_bits(next(8)?);
                let sign = if value.is_sign_negative() {
                    "-"
                } else if c.plus {
                    "+"
                } else if c.space {
                    " "
                } else {
                    ""
                };
                let mut body = float(value.abs(), *kind, &c);
                if kind.is_ascii_uppercase() {
                    body = body.to_uppercase();
                }
                pad(&c, sign, body, value.is_finite(), out);
            }
            _ => out.extend_from_slice(&format[start..at]),
        }
    }
    Some(count)
}

/// At least as many digits as the precision asks.
fn digits(text: String, c: &Conversion) -> String {
    let least = c.precision.unwrap_or(1);
    if text == "0" && least == 0 {
        return String::new();
    }
    format!("{}{text}", "0".repeat(least.saturating_sub(text.len())))
}

fn pad(c: &Conversion, sign: &str, body: String, zeros: bool, out: &mut Vec<u8>) {
    let missing = c.width.saturating_sub(sign.len() + body.len());
    if c.minus {
        out.extend(format!("{sign}{body}{}", " ".repeat(missing)).bytes());
    } else if c.zero && zeros {
        out.extend(format!("{sign}{}{body}", "0".repeat(missing)).bytes());
    } else {
        out.extend(format!("{}{sign}{body}", " ".repeat(missing)).bytes());
    }
}

/// A non-negative float as C prints it.
fn float(value: f64, kind: u8, c: &Conversion) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return "inf".into();
    }
    let precision = c.precision.unwrap_or(6);
    match kind.to_ascii_lowercase() {
        b'f' => format!("{value:.precision$}"),
        b'e' => exponent(&format!("{value:.precision$e}")),
        _ => {
            let significant = precision.max(1);
            let scientific = format!("{value:.*e}", significant - 1);
            let power: i32 = scientific.split('e').nth(1).and_then(|e| e.parse().ok()).unwrap_or(0);
            let (mut body, tail) = if power < -4 || power >= significant as i32 {
                let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
                (mantissa.to_string(), exponent(&format!("1e{power}"))[1..].to_string())
            } else {
                (format!("{value:.*}", (significant as i32 - 1 - power).max(0) as usize), String::new())
            };
            if !c.hash && body.contains('.') {
                body.truncate(body.trim_end_matches('0').trim_end_matches('.').len());
            }
            body + &tail
        }
    }
}

/// `1.5e7` as C writes it: `1.5e+07`.
fn exponent(text: &str) -> String {
    let Some((mantissa, power)) = text.split_once('e') else { return text.into() };
    let power: i32 = power.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

/// `__assertfail(message, file, line, function, char size)`.
pub(crate) fn assert_fail(cx: &mut Cx, site: &CallSite, mask: u32) -> Flow {
    let lane = mask.trailing_zeros() as usize;
    let part = |which| {
        text(cx, lane, argument(cx, site, lane, which))
            .map(|t| String::from_utf8_lossy(&t).into_owned())
            .unwrap_or_default()
    };
    let (message, file, function) = (part(0), part(1), part(3));
    let line = argument(cx, site, lane, 2) as u32;
    cx.fault(Kind::Assert, lane as u32, None, None, format!("{file}:{line}: {function}: assertion `{message}` failed"))
}
