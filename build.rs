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
        // common.cuh is for all; X.cuh for X.cu and X_….cu, and for whoever names it; what it names itself stands before it.
        let read = |file: String| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let family = name.split('_').next().unwrap_or(name);
        let names = |text: &str, shared: &str| {
            let found = format!("{shared}.cuh");
            let whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            shared != "common" && text.match_indices(&found).any(|(at, _)| whole(at))
        };
        let own = read(format!("{name}.cu"));
        let direct = |shared: &&str| *shared == family || names(&own, shared);
        let direct: Vec<&str> = named("cuh").into_iter().filter(direct).collect();
        let texts: String = direct.iter().map(|shared| read(format!("{shared}.cuh"))).collect();
        let before = named("cuh").into_iter().filter(|shared| !direct.contains(shared) && names(&texts, shared));
        let shared: Vec<&str> = std::iter::once("common").chain(before).chain(direct.iter().copied()).collect();
        let shared: String = shared.iter().map(|name| format!("SHARED_{}, ", name.to_uppercase())).collect();
        writeln!(text, "    ({name:?}, &[{shared}OWN_{}]),", name.to_uppercase()).expect("text grows");
    }
    text.push_str("];\n");
    std::fs::write(Path::new(&out).join("kernels.rs"), text).expect("the table of kernels");
}
