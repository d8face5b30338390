//! Runs a whole module of PTX: kernel `t`, whose only parameter is the address of the output.

use software_gpu::{Config, Failure, Launch, Memory, Module, Report, launch};

pub const HEAD: &str = ".version 9.0\n.target sm_80\n.address_size 64\n";

/// A module around a kernel's body; `declarations` stand before the kernel. `%rd1` is the address of the thread's own
/// `words` output words, `%r1` its number.
pub fn text(declarations: &str, body: &str, words: usize) -> String {
    format!(
        "{HEAD}{declarations}\n.visible .entry t(.param .u64 out)\n{{\n.reg .pred %p<16>;\n.reg .b16 %rs<16>;\n.reg .b32 %r<64>;\n.reg .b64 %rd<64>;\n\
         mov.u32 %r1, %tid.x;\nld.param.u64 %rd2, [out];\nmad.wide.u32 %rd1, %r1, {}, %rd2;\n{body}\nret;\n}}\n",
        4 * words
    )
}

/// Runs it for some threads and gives each one's output words.
pub fn run(text: &str, threads: u32, words: usize) -> (Result<Report, Failure>, Vec<Vec<u32>>) {
    let memory = Memory::new(1 << 22);
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}")).load(&memory).unwrap();
    let bytes = u64::from(threads) * words as u64 * 4;
    let out = memory.alloc(bytes).unwrap();
    memory.fill(out, &[0], bytes).unwrap();
    let params = out.to_le_bytes();
    let shape = Launch { grid: [1, 1, 1], block: [threads, 1, 1], dynamic_shared: 0, params: &params };
    let config = Config { arch: module.target().max(80), max_instructions: 10_000_000, ..Config::default() };
    let result = launch(&memory, &module, "t", &shape, &config);
    let mut got = vec![0; bytes as usize];
    memory.read(out, &mut got).unwrap();
    let numbers: Vec<u32> = got.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    (result, numbers.chunks_exact(words).map(<[u32]>::to_vec).collect())
}

/// Runs it and expects no finding and the model's words in every thread.
#[track_caller]
pub fn good(text: &str, threads: u32, words: usize, model: impl Fn(u32) -> Vec<u32>) {
    let (result, got) = run(text, threads, words);
    let report = result.unwrap_or_else(|failure| panic!("{failure}\n{text}"));
    assert!(report.findings.is_empty(), "{}\n{text}", report.findings[0]);
    for (thread, got) in got.iter().enumerate() {
        assert_eq!(*got, model(thread as u32), "thread {thread}\n{text}");
    }
}
