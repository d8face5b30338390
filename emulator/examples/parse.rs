//! Parses PTX files and says what each module holds, or the first line that is refused.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("{path}: {error}");
                return ExitCode::from(2);
            }
        };
        match software_gpu::Module::parse(&text) {
            Ok(module) => {
                for function in module.functions() {
                    println!(
                        "{path}: {} ({} bytes of parameters, {} shared, {} local)",
                        function.name, function.param_bytes, function.static_shared, function.local_bytes
                    );
                }
            }
            Err(error) => {
                println!("{path}: {error}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}
