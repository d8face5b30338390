//! The building's walls: what a room of `src/` may import, and what no room may hold.
//!
//! A room (a folder or file directly in `src/`) imports itself and rooms below it, in the order of [`ROOMS`]. Files
//! have at most [`MAX_LINES`] lines. The library neither prints, nor exits, nor panics by name. `unsafe` stands in
//! the lowest floor and in the kernels alone, each time with its reason. Code under `#[cfg(test)]` may import and
//! unwrap what it likes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// From the lowest floor to the highest.
const ROOMS: [&str; 19] = [
    "error", "hash", "device", "rng", "tensor", "tape", "ops", "nn", "metrics", "interop", "encoders", "heads",
    "losses", "tasks", "data", "model", "train", "report", "bin",
];
/// What the crate's root gives out under a short name, and the room that it lives in.
const SHORT_NAMES: [(&str, &str); 3] = [("Device", "device"), ("Error", "error"), ("Result", "error")];
const MAX_LINES: usize = 600;
const FORBIDDEN: [&str; 12] = [
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "dbg!",
    "todo!",
    "unimplemented!",
    "unreachable!",
    "panic!",
    "process::exit",
    ".unwrap()",
    ".expect(",
];
/// How far above an `unsafe` its reason may stand.
const REASON_LINES: usize = 4;

#[test]
fn the_rooms_of_src_keep_their_walls() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    read(&root, &root, &mut sources);
    assert!(sources.len() > 20, "only {} files in {}", sources.len(), root.display());
    let found = violations(&sources);
    assert!(found.is_empty(), "{} violation(s):\n{}", found.len(), found.join("\n"));
}

/// All Rust files below `folder`: path relative to `root` with `/`, and content.
fn read(root: &Path, folder: &Path, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let parts = path.strip_prefix(root).unwrap().iter().map(|part| part.to_string_lossy());
            sources.insert(parts.collect::<Vec<_>>().join("/"), fs::read_to_string(&path).unwrap());
        }
    }
}

fn violations(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut codes = BTreeMap::new();
    let mut test_files = Vec::new();
    for (path, text) in sources {
        let mut code = without_text(text);
        for module in blank_tests(&mut code) {
            let folder = folder_of(path);
            test_files.push(format!("{folder}{module}.rs"));
            test_files.push(format!("{folder}{module}/"));
        }
        codes.insert(path, code);
    }
    for (path, text) in sources {
        let code = &codes[path];
        let lines = text.lines().count();
        if lines > MAX_LINES {
            found.push(format!("{path}: {lines} lines, more than {MAX_LINES}: look for the missing wall"));
        }
        reasons(path, text, &mut found);
        if test_files.iter().any(|test| path == test || (test.ends_with('/') && path.starts_with(test.as_str()))) {
            continue;
        }
        if path != "lib.rs" {
            imports(path, code, &mut found);
        }
        if !path.starts_with("bin/") {
            for word in FORBIDDEN {
                for at in words(code, word) {
                    found.push(format!("{path}:{}: {word} in the library", line_of(code, at)));
                }
            }
        }
    }
    found
}

/// Where the modules that a file declares lie: `a/mod.rs` → `a/`, `a/b.rs` → `a/b/`, `lib.rs` → ``.
fn folder_of(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    match stem.strip_suffix("mod") {
        Some(folder) if folder.is_empty() || folder.ends_with('/') => folder.into(),
        _ if stem == "lib" => String::new(),
        _ => format!("{stem}/"),
    }
}

/// The room of a file, and how many `super` lead from its module to the crate's root.
fn room_of(path: &str) -> (&str, usize) {
    let parts: Vec<_> = path.trim_end_matches(".rs").split('/').collect();
    (parts[0], parts.len() - usize::from(parts.last() == Some(&"mod")))
}

/// Imports of rooms that are not below, through `crate::` or through `super::` from a room's top.
fn imports(path: &str, code: &str, found: &mut Vec<String>) {
    let (room, depth) = room_of(path);
    let floor = |name: &str| ROOMS.iter().position(|room| *room == name);
    let Some(own) = floor(room) else {
        return found.push(format!("{path}: the room {room} has no floor: give it its place in ROOMS"));
    };
    let mut reached: Vec<(usize, String)> = Vec::new();
    for at in words(code, "crate::") {
        reached.extend(first_names(&code[at + "crate::".len()..]).into_iter().map(|name| (at, name)));
    }
    let up = "super::".repeat(depth);
    for at in words(code, &up).filter(|at| !code[..*at].ends_with("super::")) {
        reached.extend(first_names(&code[at + up.len()..]).into_iter().map(|name| (at, name)));
    }
    for (at, name) in reached {
        let short = SHORT_NAMES.iter().find(|(short, _)| *short == name);
        let name = short.map_or(name.as_str(), |(_, room)| room);
        let line = line_of(code, at);
        match floor(name) {
            Some(floor) if floor <= own => {}
            Some(_) => found.push(format!("{path}:{line}: {room} imports {name}, which lies above it")),
            None => found.push(format!("{path}:{line}: {name} has no floor: give it its place in ROOMS")),
        }
    }
}

/// The first name of a path, or of each path of a group: `a::b` → a; `{a::{b, c}, d}` → a, d.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(name(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Every `unsafe` stands where it may, with its reason above it.
fn reasons(path: &str, text: &str, found: &mut Vec<String>) {
    let parts: Vec<_> = path.split('/').collect();
    let allowed = matches!(parts[..], ["device" | "interop", ..] | ["ops", _, "cpu.rs"]);
    let lines: Vec<_> = text.lines().collect();
    let code = without_text(text);
    for (index, code) in code.lines().enumerate() {
        if words(code, "unsafe").next().is_none() {
            continue;
        }
        let place = format!("{path}:{}", index + 1);
        if !allowed {
            found.push(format!("{place}: unsafe outside of device, interop and the kernels of ops"));
        }
        let says = |line: &&str| line.contains("// SAFETY:") || line.contains("# Safety");
        if !lines[index.saturating_sub(REASON_LINES)..=index].iter().any(says) {
            found.push(format!("{place}: unsafe without // SAFETY: or # Safety within {REASON_LINES} lines above it"));
        }
    }
}

/// The text with comments and the content of string and character literals replaced by spaces; lines stay.
fn without_text(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + block_comment(rest)
        } else if let Some(length) = literal(bytes, at) {
            at + length
        } else {
            at += 1;
            continue;
        };
        code[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        at = end;
    }
    String::from_utf8(code).unwrap()
}

/// Length of the block comment, which may hold others.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of the string or character literal that begins at `at`; None if there is none (a lifetime, for example).
fn literal(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let inside_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    // r"…", r#"…"#, br#"…"#
    let prefix = if rest.starts_with(b"br") { 2 } else { usize::from(rest[0] == b'r') };
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    if prefix > 0 && !inside_word && rest.get(prefix + hashes) == Some(&b'"') {
        let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
        let body = prefix + hashes + 1;
        let end = rest[body..].windows(close.len()).position(|window| window == close);
        return Some(end.map_or(rest.len(), |end| body + end + close.len()));
    }
    let quote = rest[0];
    if quote == b'\'' {
        let character = std::str::from_utf8(&rest[1..rest.len().min(5)]);
        let text = character.or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()])).ok()?;
        let first = text.chars().next()?;
        if first != '\\' {
            let length = 1 + first.len_utf8();
            return (rest.get(length) == Some(&b'\'')).then_some(length + 1);
        }
    } else if quote != b'"' {
        return None;
    }
    let mut end = 1;
    while end < rest.len() && rest[end] != quote {
        end += if rest[end] == b'\\' { 2 } else { 1 };
    }
    Some((end + 1).min(rest.len()))
}

/// Blanks every item under `#[cfg(test)]` (or `all(test, …)`); returns the modules that are files of their own.
fn blank_tests(code: &mut String) -> Vec<String> {
    let mut modules = Vec::new();
    for start in ["#[cfg(test)]", "#[cfg(all(test,"] {
        while let Some(at) = code.find(start) {
            let rest = &code[at..];
            let stop = rest.find([';', '{']).unwrap_or(rest.len());
            let head = &rest[..stop];
            let length = if rest[stop..].starts_with('{') {
                let mut depth = 0;
                let close = rest[stop..].char_indices().find(|(_, c)| {
                    depth += i32::from(*c == '{') - i32::from(*c == '}');
                    depth == 0
                });
                close.map_or(rest.len(), |(end, _)| stop + end + 1)
            } else {
                if let Some(name) = head.split_once("mod ").map(|(_, name)| name.trim()) {
                    modules.push(name.to_owned());
                }
                stop
            };
            let blank: String = rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            code.replace_range(at..at + length, &blank);
        }
    }
    modules
}

/// Where `word` stands in the code, not as the end of a longer word (nor, if it ends in a letter, as its beginning).
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = word.starts_with(part) && code[..*at].ends_with(part);
        let after = word.ends_with(part) && code[*at + word.len()..].starts_with(part);
        !before && !after
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The violations of one made-up file.
fn of(path: &str, text: &str) -> Vec<String> {
    violations(&BTreeMap::from([(path.to_owned(), text.to_owned())]))
}

#[test]
fn an_import_from_above_is_found_in_every_form() {
    for text in [
        "use crate::train::Optimizer;",
        "use crate::{error::{Error, Result}, train::x};",
        "use crate::{\n    error,\n    train,\n};",
        "fn f() -> crate::train::X {}",
        "use super::super::train::X;",
    ] {
        let found = of("nn/linear.rs", text);
        assert!(found.len() == 1 && found[0].contains("nn imports train"), "{text}: {found:?}");
    }
    assert_eq!(of("nn/mod.rs", "use super::train;").len(), 1);
    assert_eq!(of("error.rs", "use super::Device;").len(), 1);
    assert_eq!(
        of("nn/mod.rs", "use crate::attic::X;"),
        ["nn/mod.rs:1: attic has no floor: give it its place in ROOMS"]
    );
    assert_eq!(of("attic.rs", "").len(), 1);
    for text in ["use crate::ops;", "use crate::nn::x;", "use super::train;", "// crate::train", "\"crate::train\""] {
        assert_eq!(of("nn/linear.rs", text), [""; 0], "{text}");
    }
}

#[test]
fn what_the_library_must_not_do_is_found_with_its_line() {
    for word in FORBIDDEN {
        let found = of("nn/linear.rs", &format!("\n;{word}"));
        assert_eq!(found, [format!("nn/linear.rs:2: {word} in the library")]);
        assert_eq!(of("bin/manyhead/main.rs", &format!("\n;{word}")), [""; 0]);
        for text in ["// @", "/* /* @ */ @ */", "'\"'; \"\\\"@\"", "r#\"\"@\"#", "#[cfg(test)]\nmod tests {{} @ }"] {
            assert_eq!(of("nn/linear.rs", &text.replace('@', word)), [""; 0], "{text} {word}");
        }
    }
    assert_eq!(of("nn/linear.rs", "my_println!()"), [""; 0]);
    assert_eq!(of("nn/linear.rs", "fn f<'a>(x: &'a str) { x.unwrap() }").len(), 1);
    let long = "\n".repeat(MAX_LINES + 1);
    assert_eq!(of("nn/linear.rs", &long).len(), 1);
}

#[test]
fn a_test_module_in_a_file_of_its_own_is_test_code() {
    let sources = |declaration: &str| {
        let text = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        BTreeMap::from([text("nn/mod.rs", declaration), text("nn/checks.rs", "use crate::train; x.unwrap()")])
    };
    assert_eq!(violations(&sources("#[cfg(test)]\nmod checks;")), [""; 0]);
    assert_eq!(violations(&sources("mod checks;")).len(), 2);
}

#[test]
fn unsafe_needs_its_place_and_its_reason() {
    let block = "\n\n\n\n\nfn f() {\n    unsafe { g() }\n}";
    let with_reason = "// SAFETY: g asks for nothing.\nunsafe { g() }\n/// # Safety\n/// None.\npub unsafe fn h() {}";
    for path in ["device/cpu/gemm.rs", "interop/safetensors.rs", "ops/pool/cpu.rs"] {
        assert_eq!(of(path, block).len(), 1, "{path}");
        assert_eq!(of(path, with_reason), [""; 0], "{path}");
    }
    assert_eq!(of("ops/pool/mod.rs", with_reason).len(), 2);
    assert_eq!(of("nn/linear.rs", block).len(), 2);
    assert_eq!(of("nn/linear.rs", "// unsafe\nlet unsafety = \"unsafe\";"), [""; 0]);
}
