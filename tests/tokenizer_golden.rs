//! The golden tokenizer case without the golden runner. To be deleted when `tests/golden/main.rs` runs it.
#![cfg(feature = "cli")]

#[path = "golden/tokenizer.rs"]
mod tokenizer;

mod case {
    pub struct Case {
        pub dir: std::path::PathBuf,
    }

    impl Case {
        pub fn read_json(&self, file: &str) -> Result<serde_json::Value, String> {
            let bytes = std::fs::read(self.dir.join(file)).map_err(|error| error.to_string())?;
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())
        }
    }

    #[derive(Default)]
    pub struct Report {
        pub compared: usize,
    }

    impl Report {
        pub fn exact<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, got: &[T], expected: &[T]) {
            assert_eq!(got, expected, "{name}");
            self.compared += 1;
        }
    }
}

#[test]
fn golden_tokenizer() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer");
    let mut report = case::Report::default();
    tokenizer::run(&case::Case { dir }, &mut report).unwrap();
    // 150 items, two limits, two sources, six fields.
    assert_eq!(report.compared, 150 * 2 * 2 * 6);
}
