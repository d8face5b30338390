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
    let named = |extension: &str| -> Vec<&str> {
        let files = files.iter().filter(|path| path.extension().is_some_and(|found| found == extension));
        files.map(|path| path.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8")).collect()
    };
    let mut text = String::new();
    for (extension, constant) in [("cuh", "SHARED"), ("cu", "OWN")] {
        for name in named(extension) {
            let (file, constant) = (format!("{name}.{extension}"), format!("{constant}_{}", name.to_uppercase()));
            let path = folder.join(&file);
            writeln!(text, "const {constant}: Part = ({file:?}, include_str!({path:?}));").expect("text grows");
        }
    }
    text.push_str("const KERNELS: &[Source] = &[\n");
    for name in named("cu") {
        // common.cuh is for all; X.cuh for X.cu and X_….cu, and for whoever names it.
        let own = std::fs::read_to_string(folder.join(format!("{name}.cu"))).expect("a kernel file");
        let family = name.split('_').next().unwrap_or(name);
        let wanted = |shared: &&str| *shared == "common" || *shared == family || own.contains(&format!("{shared}.cuh"));
        // "common" comes first.
        let mut shared: Vec<&str> = named("cuh").into_iter().filter(wanted).collect();
        shared.sort_by_key(|shared| *shared != "common");
        let shared: String = shared.iter().map(|name| format!("SHARED_{}, ", name.to_uppercase())).collect();
        writeln!(text, "    ({name:?}, &[{shared}OWN_{}]),", name.to_uppercase()).expect("text grows");
    }
    text.push_str("];\n");
    std::fs::write(Path::new(&out).join("kernels.rs"), text).expect("the table of kernels");
}
