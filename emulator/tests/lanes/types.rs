//! Integer types for models that are written once for all of them.

use super::{check, integers};

/// An integer type: name, register stem, how the result gets to `%rd0`.
#[derive(Clone, Copy)]
pub struct Int {
    pub name: &'static str,
    pub register: &'static str,
    pub out: &'static str,
    pub bits: u32,
    pub signed: bool,
}

pub const OUT16: &str = "cvt.u64.u16 %rd0, %rs10;";
pub const OUT32: &str = "cvt.u64.u32 %rd0, %r10;";
pub const OUT64: &str = "mov.b64 %rd0, %rd10;";

pub const TYPES: [Int; 6] = [
    Int { name: "u16", register: "%rs", out: OUT16, bits: 16, signed: false },
    Int { name: "s16", register: "%rs", out: OUT16, bits: 16, signed: true },
    Int { name: "u32", register: "%r", out: OUT32, bits: 32, signed: false },
    Int { name: "s32", register: "%r", out: OUT32, bits: 32, signed: true },
    Int { name: "u64", register: "%rd", out: OUT64, bits: 64, signed: false },
    Int { name: "s64", register: "%rd", out: OUT64, bits: 64, signed: true },
];

impl Int {
    /// The number that some bits stand for.
    pub fn value(self, bits: u64) -> i128 {
        let top = 128 - self.bits;
        let high = u128::from(bits) << top;
        if self.signed { (high as i128) >> top } else { (high >> top) as i128 }
    }

    pub fn bits_of(self, value: i128) -> u64 {
        value as u64 & (u64::MAX >> (64 - self.bits))
    }

    pub fn range(self) -> (i128, i128) {
        if self.signed { (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1) } else { (0, (1 << self.bits) - 1) }
    }

    pub fn check<const N: usize>(self, op: &str, model: impl Fn([i128; N]) -> i128) {
        let operands: String = (1..=N).map(|k| format!(", {}{k}", self.register)).collect();
        let snippet = format!("{op}.{} {}10{operands}; {}", self.name, self.register, self.out);
        check(&snippet, &integers::<N>(), |row| self.bits_of(model(row.map(|a| self.value(a)))));
    }
}
