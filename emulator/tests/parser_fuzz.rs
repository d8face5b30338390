//! The parser meets damaged texts: it gives an error or a module, and never panics, hangs or eats memory.

mod lanes;

use lanes::Random;
use software_gpu::Module;
use std::time::{Duration, Instant};

fn texts() -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut texts =
        vec![include_str!("nvrtc/calls.ptx").to_string(), include_str!("nvrtc/seeded/sync.ptx").to_string()];
    for name in ["vadd_bf16", "softmax_f32", "matmul_bf16_pipelined", "atomics_int", "philox_words"] {
        texts.push(std::fs::read_to_string(folder.join(format!("vectors/{name}.ptx"))).unwrap());
    }
    texts
}

fn parse(text: &str) {
    let started = Instant::now();
    let _ = Module::parse(text);
    assert!(started.elapsed() < Duration::from_secs(5), "a text took too long");
}

#[test]
fn truncated_texts_are_survived() {
    for text in texts() {
        for end in (0..text.len()).step_by(text.len() / 150) {
            parse(&text[..end]);
        }
    }
}

#[test]
fn flipped_bytes_are_survived() {
    let mut random = Random(7);
    for text in texts() {
        for _ in 0..200 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..1 + random.next() % 4 {
                let at = (random.next() % bytes.len() as u64) as usize;
                bytes[at] = b" \t\n{}[]()<>;:,.@!%$_-+*/=|0123456789abcxyzXF\"\0"[(random.next() % 46) as usize];
            }
            parse(&String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn shuffled_lines_are_survived() {
    let mut random = Random(8);
    for text in texts() {
        for _ in 0..40 {
            let mut lines: Vec<_> = text.lines().collect();
            for _ in 0..3 {
                let (a, b) =
                    ((random.next() % lines.len() as u64) as usize, (random.next() % lines.len() as u64) as usize);
                lines.swap(a, b);
            }
            parse(&lines.join("\n"));
        }
    }
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let head = ".version 8.0\n.target sm_80\n.address_size 64\n";
    let body = |inner: &str| format!("{head}.visible .entry k() {{\n{inner}\nret;\n}}\n");
    for text in [
        body(&"{".repeat(100_000)),
        body(&format!("mov.u32 %r1, {};", "(".repeat(100_000))),
        body(&format!("mov.u32 %r1, {};", "-".repeat(100_000))),
        body(&format!("mov.u32 {}", "{".repeat(100_000))),
        body(".reg .b32 %r<4294967295>; mov.u32 %r4294967294, 1;"),
        body(".reg .b32 %r<99999999999>;"),
        body(".local .b8 x[99999999999999999999];"),
        body(".shared .b8 x[1099511627775];"),
        body(&format!("{};", "a".repeat(1_000_000))),
        format!("{head}.global .b8 x[1099511627775];"),
        format!("{head}.global .b8 x[] = {}", "{".repeat(100_000)),
        format!("{head}.section .debug_info {{ {}", "{".repeat(100_000)),
        "/*".into(),
        "\"".into(),
        String::new(),
    ] {
        parse(&text);
    }
}

#[test]
fn unknown_instructions_are_refused_by_name_with_their_line() {
    let text = ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k()\n{\n.reg .b32 %r<4>;\nmov.u32 %r1, 5;\nwgmma.fence.sync.aligned;\nret;\n}\n";
    let error = Module::parse(text).err().unwrap();
    assert_eq!(error.line, 8);
    assert!(error.unsupported && error.message.contains("wgmma.fence.sync.aligned"), "{error}");
}
