//! Puts the CUDA sources of `kernels/` into the library: a table of names and texts. Nothing is compiled here; NVRTC does
//! that on the machine that has the GPU.

use std::fmt::Write;
use std::path::Path;

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    let folder = Path::new(&root).join("kernels");
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = std::fs::read_dir(&folder).expect("the folder of the kernels");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry of the folder").path()).collect();
    files.sort();
    let mut text = format!("const COMMON: &str = include_str!({:?});\n", folder.join("common.cuh"));
    text.push_str("const KERNELS: &[Source] = &[\n");
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "cu")) {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8");
        writeln!(text, "    ({name:?}, include_str!({path:?})),").expect("text grows");
    }
    text.push_str("];\n");
    std::fs::write(Path::new(&out).join("kernels.rs"), text).expect("the table of kernels");
}
