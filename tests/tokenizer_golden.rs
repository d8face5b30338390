//! The golden tokenizer case, until the golden runner takes it over.
#![cfg(feature = "cli")]

#[path = "golden/tokenizer.rs"]
mod tokenizer;

#[test]
fn golden_tokenizer() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer");
    assert_eq!(tokenizer::compare(&dir), Ok(600));
}
