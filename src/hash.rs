//! One hash for everything that must be recognised again: files, options, data, names.
//!
//! XXH3 with 128 bits (Collet, the xxHash specification 0.8). It finds damage and tells contents apart; it is no
//! defence against somebody who makes two contents alike on purpose.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};

/// What a [`Hasher`] comes to; shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

impl Digest {
    /// Its lower half, where 64 bits are enough.
    pub fn low(self) -> u64 {
        self.0 as u64
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A hash in the making.
#[derive(Clone, Default)]
pub struct Hasher(Xxh3);

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Adds bytes as they are: two pieces give what their concatenation gives.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Hasher {
        self.0.update(bytes);
        self
    }

    /// Adds a number.
    pub fn word(&mut self, word: u64) -> &mut Hasher {
        self.bytes(&word.to_le_bytes())
    }

    /// Adds a text and its end: "ab", "c" differs from "a", "bc".
    pub fn text(&mut self, text: &str) -> &mut Hasher {
        self.word(text.len() as u64).bytes(text.as_bytes())
    }

    /// The hash of all that was added.
    pub fn digest(&self) -> Digest {
        Digest(self.0.digest128())
    }
}

/// The hash of some bytes.
pub fn of(bytes: &[u8]) -> Digest {
    Hasher::new().bytes(bytes).digest()
}

/// Size and hash of a file.
pub fn of_file(path: &Path) -> Result<(u64, Digest)> {
    let failed = |source| Error::io("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok((size, hasher.digest()));
        }
        hasher.bytes(buffer.get(..count).unwrap_or_default());
        size += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of XXH3-128 with seed 0 as Python's package `xxhash` prints them.
    #[test]
    fn it_is_xxh3_with_128_bits() {
        assert_eq!(of(b"").to_string(), "99aa06d3014798d86001c324468d497f");
        assert_eq!(of(b"a").to_string(), "a96faf705af16834e6c632b61e964e1f");
        assert_eq!(of("Manyhead".repeat(100).as_bytes()).to_string(), "359459f2b43f95da0d7a6e8fa3c4359c");
    }

    #[test]
    fn pieces_and_files_give_what_the_whole_gives() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let mut hasher = Hasher::new();
        bytes.chunks(999).for_each(|chunk| {
            hasher.bytes(chunk);
        });
        assert_eq!(hasher.digest(), of(&bytes));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(of_file(&path).unwrap(), (3_000_000, of(&bytes)));
        assert!(of_file(&dir.path().join("none")).is_err());
    }

    #[test]
    fn the_borders_between_texts_count() {
        let of = |a: &str, b: &str| Hasher::new().text(a).text(b).digest();
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }
}
