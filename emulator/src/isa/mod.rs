//! The instructions. Each file holds one group: how its opcodes are written and what a warp does for them, in one place.
//!
//! A decoded instruction carries a plain function that runs it for 32 lanes at once ([`Exec`]) and indices of registers;
//! constants and special registers are registers too, filled when a frame is made. So running an instruction is one
//! indirect call and loops over 32 lanes that the compiler vectorises.

pub(crate) mod types;

pub(crate) mod async_copy;
pub(crate) mod atomics;
pub(crate) mod barrier;
pub(crate) mod calls;
pub(crate) mod compare;
pub(crate) mod control;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod integer;
pub(crate) mod logic;
pub(crate) mod matrix;
pub(crate) mod mbarrier;
pub(crate) mod memory;
pub(crate) mod mma_narrow;
pub(crate) mod mma_single;
pub(crate) mod moves;
mod opcodes;
pub(crate) mod printf;
pub(crate) mod rounding;
pub(crate) mod spread;
pub(crate) mod video;
pub(crate) mod warp;
pub(crate) mod wide;

pub use opcodes::opcodes;
pub(crate) use opcodes::{absent, decoders, first_target};

use crate::counters::Class;
use crate::exec::{Cx, Warp};

/// What follows an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next instruction.
    Next,
    /// The warp's `pc` was set; its group is whole.
    Jump,
    /// Groups changed, or the current one waits: choose anew.
    Choose,
    /// The next instruction, after others had a turn.
    Rest,
    /// The launch faulted.
    Fault,
}

/// Runs one instruction for the lanes of a mask, which is never empty.
pub(crate) type Exec = fn(&mut Cx, &Ins, u32) -> Flow;

/// A decoded instruction.
#[derive(Clone, Copy)]
pub(crate) struct Ins {
    pub exec: Exec,
    /// Predicate register that guards it; 0 is always true.
    pub guard: u16,
    /// Exclusive-ored onto the guard: all ones for `@!p`.
    pub flip: u32,
    pub class: Class,
    /// 0 where an instruction of the text became several: only one of them is counted.
    pub counted: u8,
    /// What undefined bits of its sources do to its result.
    pub spread: spread::Spread,
    /// Bytes per element, elements, and flags: the group of the instruction knows what they mean.
    pub width: u8,
    pub count: u8,
    pub flags: u16,
    /// Destination and sources: indices into the frame's registers of the width that the instruction knows.
    pub d: u16,
    pub a: u16,
    pub b: u16,
    pub c: u16,
    pub e: u16,
    /// Start of a longer list of register indices in [`crate::program::Program::lists`].
    pub list: u32,
    /// Offset of an address, a constant, or the target of a branch.
    pub imm: i64,
}

/// A register width that lanes are stored in.
pub(crate) trait Slot: Copy + Default {
    /// 64 bits, not 32.
    const WIDE: bool;
    fn wide(self) -> u64;
    fn of(bits: u64) -> Self;
    /// Where the register lies among those of its width.
    fn place(w: &Warp, index: u16) -> usize;
    fn get(w: &Warp, index: u16) -> &[Self; 32];
    fn get_mut(w: &mut Warp, index: u16) -> &mut [Self; 32];
    fn defined(w: &Warp, index: u16) -> u32;
    fn defined_mut(w: &mut Warp, index: u16) -> &mut u32;
}

impl Slot for u32 {
    const WIDE: bool = false;
    #[inline(always)]
    fn wide(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn of(bits: u64) -> u32 {
        bits as u32
    }
    fn place(w: &Warp, index: u16) -> usize {
        w.base32 + index as usize
    }
    #[inline(always)]
    fn get(w: &Warp, index: u16) -> &[u32; 32] {
        &w.r32[w.base32 + index as usize]
    }
    #[inline(always)]
    fn get_mut(w: &mut Warp, index: u16) -> &mut [u32; 32] {
        &mut w.r32[w.base32 + index as usize]
    }
    #[inline(always)]
    fn defined(w: &Warp, index: u16) -> u32 {
        w.d32[w.base32 + index as usize]
    }
    #[inline(always)]
    fn defined_mut(w: &mut Warp, index: u16) -> &mut u32 {
        &mut w.d32[w.base32 + index as usize]
    }
}

impl Slot for u64 {
    const WIDE: bool = true;
    #[inline(always)]
    fn wide(self) -> u64 {
        self
    }
    #[inline(always)]
    fn of(bits: u64) -> u64 {
        bits
    }
    fn place(w: &Warp, index: u16) -> usize {
        w.base64 + index as usize
    }
    #[inline(always)]
    fn get(w: &Warp, index: u16) -> &[u64; 32] {
        &w.r64[w.base64 + index as usize]
    }
    #[inline(always)]
    fn get_mut(w: &mut Warp, index: u16) -> &mut [u64; 32] {
        &mut w.r64[w.base64 + index as usize]
    }
    #[inline(always)]
    fn defined(w: &Warp, index: u16) -> u32 {
        w.d64[w.base64 + index as usize]
    }
    #[inline(always)]
    fn defined_mut(w: &mut Warp, index: u16) -> &mut u32 {
        &mut w.d64[w.base64 + index as usize]
    }
}

const BIT: [u32; 32] = {
    let mut bits = [0; 32];
    let mut lane = 0;
    while lane < 32 {
        bits[lane] = 1 << lane;
        lane += 1;
    }
    bits
};

/// Writes the lanes of a mask, and whether they are defined.
#[inline(always)]
pub(crate) fn put<T: Slot>(w: &mut Warp, index: u16, mask: u32, values: &[T; 32], defined: u32) {
    let known = T::defined_mut(w, index);
    *known = (*known & !mask) | (defined & mask);
    if mask & !defined != 0 {
        forget::<T>(w, index, mask);
    }
    let lanes = T::get_mut(w, index);
    if mask == u32::MAX {
        *lanes = *values;
    } else {
        for lane in 0..32 {
            lanes[lane] = if mask & BIT[lane] != 0 { values[lane] } else { lanes[lane] };
        }
    }
}

/// Lanes that are undefined as a whole now.
#[cold]
#[inline(never)]
fn forget<T: Slot>(w: &mut Warp, index: u16, mask: u32) {
    let at = T::place(w, index);
    w.loose.forget(T::WIDE, at, mask);
}

/// Writes a predicate for the lanes of a mask.
#[inline(always)]
pub(crate) fn put_pred(w: &mut Warp, index: u16, mask: u32, values: u32, defined: u32) {
    let at = w.base_p + index as usize;
    w.p[at] = (w.p[at] & !mask) | (values & mask);
    w.dp[at] = (w.dp[at] & !mask) | (defined & mask);
}

#[inline(always)]
pub(crate) fn pred(w: &Warp, index: u16) -> u32 {
    w.p[w.base_p + index as usize]
}

#[inline(always)]
pub(crate) fn pred_defined(w: &Warp, index: u16) -> u32 {
    w.dp[w.base_p + index as usize]
}

/// `d = f(a)` in every lane.
#[inline(always)]
pub(crate) fn unary<A: Slot, D: Slot>(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(A) -> D) -> Flow {
    let w = &mut *cx.w;
    let defined = A::defined(w, i.a);
    if mask & !defined != 0 {
        let sources = [spread::source::<A>(w, i.a)];
        return spread::run(cx, i, mask, &sources, &|at| f(A::of(at[0])));
    }
    let a = A::get(w, i.a);
    let mut out = [D::default(); 32];
    for lane in 0..32 {
        out[lane] = f(a[lane]);
    }
    put(w, i.d, mask, &out, defined);
    Flow::Next
}

/// `d = f(a, b)` in every lane.
#[inline(always)]
pub(crate) fn binary<A: Slot, B: Slot, D: Slot>(cx: &mut Cx, i: &Ins, mask: u32, f: impl Fn(A, B) -> D) -> Flow {
    let w = &mut *cx.w;
    let defined = A::defined(w, i.a) & B::defined(w, i.b);
    if mask & !defined != 0 {
        let sources = [spread::source::<A>(w, i.a), spread::source::<B>(w, i.b)];
        return spread::run(cx, i, mask, &sources, &|at| f(A::of(at[0]), B::of(at[1])));
    }
    let (a, b) = (A::get(w, i.a), B::get(w, i.b));
    let mut out = [D::default(); 32];
    for lane in 0..32 {
        out[lane] = f(a[lane], b[lane]);
    }
    put(w, i.d, mask, &out, defined);
    Flow::Next
}

/// `d = f(a, b, c)` in every lane.
#[inline(always)]
pub(crate) fn ternary<A: Slot, B: Slot, C: Slot, D: Slot>(
    cx: &mut Cx,
    i: &Ins,
    mask: u32,
    f: impl Fn(A, B, C) -> D,
) -> Flow {
    let w = &mut *cx.w;
    let defined = A::defined(w, i.a) & B::defined(w, i.b) & C::defined(w, i.c);
    if mask & !defined != 0 {
        let sources = [spread::source::<A>(w, i.a), spread::source::<B>(w, i.b), spread::source::<C>(w, i.c)];
        return spread::run(cx, i, mask, &sources, &|at| f(A::of(at[0]), B::of(at[1]), C::of(at[2])));
    }
    let (a, b, c) = (A::get(w, i.a), B::get(w, i.b), C::get(w, i.c));
    let mut out = [D::default(); 32];
    for lane in 0..32 {
        out[lane] = f(a[lane], b[lane], c[lane]);
    }
    put(w, i.d, mask, &out, defined);
    Flow::Next
}

/// `d = f(a, b, c, e)` in every lane.
#[inline(always)]
pub(crate) fn quaternary<A: Slot, B: Slot, C: Slot, E: Slot, D: Slot>(
    cx: &mut Cx,
    i: &Ins,
    mask: u32,
    f: impl Fn(A, B, C, E) -> D,
) -> Flow {
    let w = &mut *cx.w;
    let defined = A::defined(w, i.a) & B::defined(w, i.b) & C::defined(w, i.c) & E::defined(w, i.e);
    if mask & !defined != 0 {
        let sources = [
            spread::source::<A>(w, i.a),
            spread::source::<B>(w, i.b),
            spread::source::<C>(w, i.c),
            spread::source::<E>(w, i.e),
        ];
        return spread::run(cx, i, mask, &sources, &|at| f(A::of(at[0]), B::of(at[1]), C::of(at[2]), E::of(at[3])));
    }
    let (a, b, c, e) = (A::get(w, i.a), B::get(w, i.b), C::get(w, i.c), E::get(w, i.e));
    let mut out = [D::default(); 32];
    for lane in 0..32 {
        out[lane] = f(a[lane], b[lane], c[lane], e[lane]);
    }
    put(w, i.d, mask, &out, defined);
    Flow::Next
}

/// An [`Exec`] of one, two, three or four sources from a closure on lane values.
macro_rules! exec {
    (|$a:ident: $ta:ty| $body:expr) => {
        (|cx: &mut crate::exec::Cx, i: &crate::isa::Ins, mask: u32| crate::isa::unary(cx, i, mask, |$a: $ta| $body))
            as crate::isa::Exec
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty| $body:expr) => {
        (|cx: &mut crate::exec::Cx, i: &crate::isa::Ins, mask: u32| {
            crate::isa::binary(cx, i, mask, |$a: $ta, $b: $tb| $body)
        }) as crate::isa::Exec
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty| $body:expr) => {
        (|cx: &mut crate::exec::Cx, i: &crate::isa::Ins, mask: u32| {
            crate::isa::ternary(cx, i, mask, |$a: $ta, $b: $tb, $c: $tc| $body)
        }) as crate::isa::Exec
    };
    (|$a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty, $e:ident: $te:ty| $body:expr) => {
        (|cx: &mut crate::exec::Cx, i: &crate::isa::Ins, mask: u32| {
            crate::isa::quaternary(cx, i, mask, |$a: $ta, $b: $tb, $c: $tc, $e: $te| $body)
        }) as crate::isa::Exec
    };
}
pub(crate) use exec;
