//! Registers of which only some bits are undefined. Compilers leave bits undefined that nobody looks at: the other half
//! of a packed register, bytes that a `prmt` does not select, bits beside a bit field, the padding of a copied struct.
//! So what is undefined is followed bit by bit through the instructions that move bits, and counts where it is used.
//!
//! Nothing here costs time while everything is defined: a lane that is marked as defined has no entry.

use super::{Flow, Ins, Slot, put};
use crate::exec::{Cx, Warp};
use std::collections::HashMap;

/// How undefined bits of the sources make bits of the result undefined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Any undefined bit makes the whole result undefined.
    #[default]
    Whole,
    /// Bits only move and combine with their like; that many sources carry bits, the others say where they go.
    Bits(u8),
    /// Any bit that can change the result makes the whole of it undefined: of a narrow source, those of its type.
    Any,
    /// Carries run upwards: the lowest undefined bit and all above it, within that many bits.
    Up(u8),
    /// 16 bits and 16 bits, each for itself.
    Halves,
    /// The first source makes the upper 16 bits, the second one the lower.
    Pair,
}

impl Spread {
    /// What an instruction does, by its name, types and modifiers.
    pub fn of(op: &str, types: &[super::types::Ty], mods: &[&str]) -> Spread {
        use super::types::Ty;
        let first = types.first().copied();
        let integer = |ty: Ty| !ty.float() && !matches!(ty, Ty::Pred | Ty::Tf32 | Ty::B128);
        let packed = |ty: Ty| matches!(ty, Ty::F16x2 | Ty::Bf16x2);
        match (op, first) {
            ("mov" | "and" | "or" | "xor" | "not" | "lop3" | "brev", _) => Spread::Bits(4),
            ("shl" | "shr" | "bfe" | "szext", _) => Spread::Bits(1),
            ("shf" | "prmt" | "bfi", _) => Spread::Bits(2),
            ("cvt", Some(Ty::F16x2 | Ty::Bf16x2)) if types.get(1) == Some(&Ty::F32) => Spread::Pair,
            ("cvt", Some(_)) if types.len() == 2 && integer(types[1]) && !packed(types[1]) => {
                if integer(types[0]) {
                    Spread::Bits(1)
                } else {
                    Spread::Any
                }
            }
            ("add" | "sub" | "mul" | "fma" | "min" | "max" | "neg" | "abs" | "ex2" | "tanh", Some(ty))
                if packed(ty) =>
            {
                Spread::Halves
            }
            // Pairs of integers are named by a modifier.
            _ if mods.iter().any(|name| matches!(*name, "u16x2" | "s16x2")) => Spread::Halves,
            ("add" | "sub" | "mul" | "mad" | "neg", Some(ty))
                if integer(ty) && !["hi", "sat", "cc"].iter().any(|name| mods.contains(name)) =>
            {
                Spread::Up(if mods.contains(&"wide") { 2 * ty.bits() as u8 } else { ty.bits() as u8 })
            }
            _ => Spread::Whole,
        }
    }
}

/// The undefined bits of one register.
#[derive(Clone, Default)]
struct Entry {
    /// By lane; none for a lane means all of its bits.
    bits: [u64; 32],
    /// Lanes that got them from memory which was never written, as padding is.
    memory: u32,
}

/// The undefined bits of a warp's registers, where they are known: by width and place of the register.
#[derive(Default)]
pub(crate) struct Loose(HashMap<(bool, usize), Entry>);

impl Loose {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Drops what is known of lanes of one register.
    pub fn forget(&mut self, wide: bool, at: usize, mask: u32) {
        let Some(entry) = self.0.get_mut(&(wide, at)) else { return };
        entry.memory &= !mask;
        crate::exec::access::lanes(mask).for_each(|lane| entry.bits[lane] = 0);
        if entry.bits == [0; 32] {
            self.0.remove(&(wide, at));
        }
    }

    /// Drops what is known of lanes of a range of registers.
    pub fn forget_range(&mut self, wide: bool, range: std::ops::Range<usize>, mask: u32) {
        if !self.0.is_empty() {
            range.for_each(|at| self.forget(wide, at, mask));
        }
    }
}

/// A source of an instruction with what is undefined of it.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub values: [u64; 32],
    pub undefined: [u64; 32],
    pub memory: u32,
}

/// Reads a register with its undefined bits.
pub(crate) fn source<T: Slot>(w: &Warp, index: u16) -> Source {
    let (known, at) = (T::defined(w, index), T::place(w, index));
    let entry = w.loose.0.get(&(T::WIDE, at));
    let all = if T::WIDE { u64::MAX } else { 0xffff_ffff };
    let undefined = std::array::from_fn(|lane| {
        if known >> lane & 1 != 0 {
            return 0;
        }
        match entry.map_or(0, |entry| entry.bits[lane]) {
            0 => all,
            bits => bits,
        }
    });
    Source { values: T::get(w, index).map(T::wide), undefined, memory: entry.map_or(0, |entry| entry.memory & !known) }
}

/// Lanes in which the low bits of a register are defined, and lanes in which they look like a copy of a struct's padding:
/// what is undefined comes from unwritten memory, and is a byte alone or a part of the whole.
pub(crate) fn low_bits<T: Slot>(w: &Warp, index: u16, bits: u32) -> (u32, u32) {
    let known = T::defined(w, index);
    if known == u32::MAX {
        return (known, 0);
    }
    let source = source::<T>(w, index);
    let low = u64::MAX >> (64 - bits.clamp(1, 64));
    let defined = (0..32).fold(0, |mask, lane| mask | u32::from(source.undefined[lane] & low == 0) << lane);
    let part = |lane: usize| bits == 8 || source.undefined[lane] & low != low;
    (defined, (0..32).fold(0, |mask, lane| mask | u32::from(part(lane)) << lane) & source.memory & !defined)
}

/// Writes lanes of a register with the bits that are undefined in them.
pub(crate) fn put_loose<T: Slot>(w: &mut Warp, index: u16, mask: u32, values: &[T; 32], from: &Source) {
    let all = if T::WIDE { u64::MAX } else { 0xffff_ffff };
    let known = (0..32).fold(0, |known, lane| known | u32::from(from.undefined[lane] & all == 0) << lane);
    put(w, index, mask, values, known);
    let part = mask & !known;
    let worth = (0..32).any(|lane| part >> lane & 1 != 0 && from.undefined[lane] & all != all);
    if !worth && from.memory & part == 0 {
        return;
    }
    let place = (T::WIDE, T::place(w, index));
    let entry = w.loose.0.entry(place).or_default();
    entry.memory = entry.memory & !mask | from.memory & part;
    for lane in crate::exec::access::lanes(part) {
        entry.bits[lane] = from.undefined[lane] & all;
    }
}

/// Runs an instruction whose sources are not all defined.
#[cold]
#[inline(never)]
pub(crate) fn run<D: Slot>(cx: &mut Cx, i: &Ins, mask: u32, sources: &[Source], f: &dyn Fn([u64; 4]) -> D) -> Flow {
    let mut values = [D::default(); 32];
    let mut out = Source { values: [0; 32], undefined: [0; 32], memory: 0 };
    let all = if D::WIDE { u64::MAX } else { 0xffff_ffff };
    for lane in crate::exec::access::lanes(mask) {
        let (mut at, mut loose) = ([0; 4], [0; 4]);
        for (k, source) in sources.iter().enumerate() {
            (at[k], loose[k]) = (source.values[lane], source.undefined[lane]);
        }
        values[lane] = f(at);
        let any = loose.iter().fold(0, |all, bits| all | bits);
        if any == 0 {
            continue;
        }
        let halves = |bits: u64| [0xffff, 0xffff_0000].into_iter().filter(|half| bits & half != 0).sum::<u64>();
        out.undefined[lane] = all
            & match i.spread {
                Spread::Whole => all,
                Spread::Bits(data) if loose[usize::from(data).min(4)..].iter().all(|bits| *bits == 0) => {
                    changes(at, loose, usize::from(data).min(sources.len()), f)
                }
                Spread::Bits(_) => all,
                Spread::Any if changes(at, loose, sources.len(), f) == 0 => 0,
                Spread::Any => all,
                Spread::Up(bits) => !0 << any.trailing_zeros() & u64::MAX >> (64 - u32::from(bits.clamp(1, 64))),
                Spread::Halves => halves(any),
                Spread::Pair => halves(if loose[0] != 0 { 0xffff_0000 } else { 0 } | u64::from(loose[1] != 0)),
            };
    }
    // What was computed is no copy any more.
    if matches!(i.spread, Spread::Bits(_)) {
        out.memory = sources.iter().fold(0, |all, source| all | source.memory);
    }
    put_loose(cx.w, i.d, mask, &values, &out);
    Flow::Next
}

/// Bits of the result that undefined bits can change: each source's are tried as zeros and as ones.
fn changes<D: Slot>(at: [u64; 4], loose: [u64; 4], data: usize, f: &dyn Fn([u64; 4]) -> D) -> u64 {
    let mut zeros = at;
    for k in 0..4 {
        zeros[k] &= !loose[k];
    }
    let base = f(zeros).wide();
    (1..1u32 << data).fold(0, |changed, set| {
        let mut tried = zeros;
        for k in (0..data).filter(|k| set >> k & 1 != 0) {
            tried[k] |= loose[k];
        }
        changed | (f(tried).wide() ^ base)
    })
}
