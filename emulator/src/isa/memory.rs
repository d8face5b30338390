//! Loads and stores, moves between address spaces, prefetches and cache hints.

mod load;
pub(crate) mod store;
mod whole;

pub(crate) use self::load::access;
use self::load::{load_generic, load_global, load_local, load_param, load_shared};
use self::store::{store_generic, store_global, store_local, store_shared};
use super::types::Ty;
use super::{Flow, Ins, Slot, put, spread};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::{Decoder, WIDE};
use crate::compile::no_operation;
use crate::counters::Class;
use crate::exec::access::{Window, lanes, number, window};
use crate::exec::shared::{bytes_of_word, worse};
use crate::exec::{Cx, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
use crate::isa::exec;
use crate::program::{Bank, Program, Special};
use crate::race::Access;

const SIGNED: u16 = 1;
/// The destination register has 16 bits.
const HALF: u16 = 2;
pub(crate) const STRONG: u16 = 4;
pub(crate) const ACQUIRE: u16 = 8;
pub(crate) const RELEASE: u16 = 16;
/// Elements go to 64-bit registers.
const LONG: u16 = 32;
/// The order holds within the block only.
pub(crate) const IN_BLOCK: u16 = 0x1000;

/// State spaces as instructions name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// Takes the state space; generic without one.
pub(crate) fn space(d: &mut Decoder) -> Named {
    if d.take("global") || d.take("const") {
        Named::Global
    } else if d.take("shared") || d.take("shared::cta") {
        Named::Shared
    } else if d.take("local") {
        Named::Local
    } else if d.take("param") || d.take("param::entry") || d.take("param::func") {
        Named::Param
    } else {
        Named::Generic
    }
}

/// Takes cache hints, which change nothing here.
pub(crate) fn hints(d: &mut Decoder) {
    d.take_if(|m| {
        matches!(m, "ca" | "cg" | "cs" | "cv" | "lu" | "wb" | "wt" | "nc")
            || m.starts_with("L1::")
            || m.starts_with("L2::")
    });
}

/// Takes the memory order and scope, as flags.
pub(crate) fn order(d: &mut Decoder) -> u16 {
    let mut flags = 0;
    if d.take("weak") {
        return 0;
    }
    if d.take("volatile") | d.take("relaxed") | d.take("mmio") {
        flags |= STRONG;
    }
    if d.take("acquire") {
        flags |= STRONG | ACQUIRE;
    }
    if d.take("release") {
        flags |= STRONG | RELEASE;
    }
    if d.take("acq_rel") {
        flags |= STRONG | ACQUIRE | RELEASE;
    }
    if d.take_any(&["cta", "cluster", "gpu", "sys"]) == Some("cta") {
        flags |= IN_BLOCK;
    }
    flags
}

pub(crate) fn decode(d: &mut Decoder) -> Result<bool> {
    match d.op {
        "ld" | "ldu" => load(d),
        "st" => store(d),
        "cvta" => cvta(d),
        "isspacep" => {
            let constant = d.has("const");
            let to = space(d);
            let narrow = d.declared_bits(1) == Some(32);
            let a = d.source(1, if narrow { Ty::U32 } else { Ty::U64 })?;
            let a = if narrow {
                let wide = d.fresh(64)?;
                d.emit(Ins { exec: exec!(|a: u32| u64::from(a)), a, d: wide, ..blank() });
                wide
            } else {
                a
            };
            let operand = d.operand(0)?;
            let dest = d.dest_pred(operand)?;
            let exec: super::Exec = if constant { is_constant } else { is_space };
            let which = match to {
                Named::Global => Window::Global,
                Named::Shared => Window::Shared,
                Named::Local => Window::Local,
                Named::Param => Window::Param,
                Named::Generic => return Ok(false),
            };
            d.emit(Ins { exec, class: Class::Integer, d: dest, a, flags: which as u16, ..blank() });
            Ok(true)
        }
        "prefetch" | "prefetchu" | "applypriority" | "discard" => {
            space(d);
            hints(d);
            d.take_if(|m| m == "L1" || m == "L2");
            if d.op == "discard" {
                return discard(d);
            }
            d.emit(Ins { exec: no_operation, class: Class::Control, ..blank() });
            Ok(true)
        }
        "createpolicy" => {
            d.take_if(|m| matches!(m, "fractional" | "range" | "global" | "cvt") || m.starts_with("L2"));
            let b = d.constant64(0)?;
            let dest = d.dest(0, Ty::B64)?;
            d.emit(Ins { exec: exec!(|a: u64| a), class: Class::Move, d: dest, a: b, ..blank() });
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// What is discarded may stay as it is: any value will do. The place must be one.
fn discard(d: &mut Decoder) -> Result<bool> {
    d.expect(2, 2)?;
    let address = d.address(0)?;
    if d.integer(1)? != 128 || address.kernel_param {
        return d.error("128 bytes of global memory can be discarded");
    }
    let flags = if address.wide { WIDE } else { 0 };
    let exec: super::Exec = |cx, i, mask| {
        let at = cx.addresses(i, mask);
        let mut left = mask;
        while left != 0 {
            match cx.allocation(&at, left, 128, 128, true) {
                Ok((_, part)) => left &= !part,
                Err(flow) => return flow,
            }
        }
        Flow::Next
    };
    let (a, imm) = (address.base, address.offset);
    d.emit(Ins { exec, class: Class::Control, flags, a, imm, ..blank() });
    Ok(true)
}

fn vector(d: &mut Decoder) -> u8 {
    if d.take("v2") {
        2
    } else if d.take("v4") {
        4
    } else if d.take("v8") {
        8
    } else {
        1
    }
}

fn load(d: &mut Decoder) -> Result<bool> {
    let named = space(d);
    hints(d);
    let mut flags = order(d);
    d.take("unified");
    let count = vector(d);
    let ty = d.ty()?;
    if matches!(ty, Ty::Pred | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32) || u32::from(count) * ty.bytes() > 32 {
        return Ok(false);
    }
    d.expect(2, 3)?;
    let address = d.address(1)?;
    let operand = d.operand(0)?;
    let targets: Vec<_> = match operand {
        crate::ptx::ast::Operand::Vector(list) if list.len() == count as usize => list.iter().collect(),
        crate::ptx::ast::Operand::Vector(_) => return d.error("as many registers as elements are needed"),
        _ if count == 1 => vec![operand],
        _ => return d.error("a list of registers is needed"),
    };
    let mut list = Vec::new();
    let (mut width, mut elements) = (ty.bytes() as u8, count);
    if ty == Ty::B128 {
        (width, elements) = (8, count * 2);
    }
    for target in targets {
        let at = d.dest_of(target, ty)?;
        list.push(at);
        if ty == Ty::B128 {
            list.push(at + 1);
        }
        if ty.bits() < 32
            && let crate::ptx::ast::Operand::Name { name, .. } = target
            && d.register(name)?.bits <= 16
        {
            flags |= HALF;
        }
    }
    if ty.signed() {
        flags |= SIGNED;
    }
    if ty.bits() >= 64 {
        flags |= LONG;
    }
    if address.wide {
        flags |= WIDE;
    }
    let list = d.list(&list);
    let (exec, class): (super::Exec, Class) = match named {
        Named::Global => (load_global, Class::LoadGlobal),
        Named::Shared => (load_shared, Class::LoadShared),
        Named::Local => (load_local, Class::LoadLocal),
        Named::Param if address.kernel_param || (d.c.in_kernel && !address.frame) => (load_param, Class::LoadConstant),
        Named::Param => (load_local, Class::LoadLocal),
        Named::Generic => (load_generic, Class::LoadGlobal),
    };
    let base = if address.kernel_param { d.constant64(0)? } else { address.base };
    if address.kernel_param && named != Named::Param {
        return d.error("a kernel parameter is in .param space");
    }
    d.emit(Ins { exec, class, flags, width, count: elements, a: base, imm: address.offset, list, ..blank() });
    Ok(true)
}

fn store(d: &mut Decoder) -> Result<bool> {
    let named = space(d);
    hints(d);
    let mut flags = order(d);
    let count = vector(d);
    let ty = d.ty()?;
    if matches!(ty, Ty::Pred | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32) || u32::from(count) * ty.bytes() > 32 {
        return Ok(false);
    }
    d.expect(2, 3)?;
    let address = d.address(0)?;
    let operand = d.operand(1)?;
    let sources: Vec<_> = match operand {
        crate::ptx::ast::Operand::Vector(list) if list.len() == count as usize => list.iter().collect(),
        crate::ptx::ast::Operand::Vector(_) => return d.error("as many values as elements are needed"),
        _ if count == 1 => vec![operand],
        _ => return d.error("a list of values is needed"),
    };
    let (mut width, mut elements) = (ty.bytes() as u8, count);
    if ty == Ty::B128 {
        (width, elements) = (8, count * 2);
    }
    let mut list = Vec::new();
    for source in sources {
        let at = d.source_of(source, ty)?;
        list.push(at);
        if ty == Ty::B128 {
            list.push(at + 1);
        }
    }
    if ty.bits() >= 64 {
        flags |= LONG;
    }
    if address.wide {
        flags |= WIDE;
    }
    if address.kernel_param {
        return d.error("kernel parameters cannot be written");
    }
    let list = d.list(&list);
    let (exec, class): (super::Exec, Class) = match named {
        Named::Global => (store_global, Class::StoreGlobal),
        Named::Shared => (store_shared, Class::StoreShared),
        Named::Local | Named::Param => (store_local, Class::StoreLocal),
        Named::Generic => (store_generic, Class::StoreGlobal),
    };
    let e = d.effect();
    let (a, imm) = (address.base, address.offset);
    d.emit(Ins { exec, class, flags, width, count: elements, a, e, imm, list, ..blank() });
    Ok(true)
}

/// A load of a register from the frame: 8-byte parts go to 64-bit registers.
pub(crate) fn frame_load(lists: &mut Vec<u16>, register: u16, bytes: u32, base: u16) -> Ins {
    frame_access(lists, register, bytes, base, load_local)
}

/// A store of a register to the frame.
pub(crate) fn frame_store(program: &mut Program, register: u16, bytes: u32, base: u16) -> Ins {
    let e = program.dataflow.new_effect();
    Ins { e, ..frame_access(&mut program.lists, register, bytes, base, store_local) }
}

fn frame_access(lists: &mut Vec<u16>, register: u16, bytes: u32, base: u16, exec: super::Exec) -> Ins {
    let list = lists.len() as u32;
    let count = if bytes > 8 { 2 } else { 1 };
    lists.extend((0..count).map(|part| register + part));
    let flags = WIDE | if bytes >= 8 { LONG } else { 0 };
    Ins { exec, flags, width: bytes.min(8) as u8, count: count as u8, a: base, list, ..blank() }
}

fn cvta(d: &mut Decoder) -> Result<bool> {
    let to = d.take("to");
    let named = space(d);
    let ty = d.ty()?;
    if ty.bits() != 64 {
        return Ok(false);
    }
    let of_frame = d.c.in_kernel;
    let base = match named {
        Named::Global => 0,
        Named::Shared => SHARED_WINDOW,
        Named::Local => LOCAL_WINDOW,
        Named::Param if of_frame => PARAM_WINDOW,
        Named::Param => LOCAL_WINDOW,
        Named::Generic => return Ok(false),
    };
    let base = if to { base.wrapping_neg() } else { base };
    let a = d.source(1, ty)?;
    let b = d.filled(Bank::R64, Special::Bits(base))?;
    let dest = d.dest(0, ty)?;
    d.emit(Ins { exec: exec!(|a: u64, b: u64| a.wrapping_add(b)), class: Class::Integer, d: dest, a, b, ..blank() });
    Ok(true)
}

/// Constant variables lie in global memory; their addresses tell them.
fn is_constant(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = *u64::get(cx.w, i.a);
    let (variables, places) = (&cx.g.program.variables, &cx.g.variables);
    let inside = |address: u64| {
        let mut all = variables.iter().zip(places.iter());
        all.any(|(variable, start)| variable.constant && address.wrapping_sub(*start) < variable.bytes)
    };
    let bits = lanes(mask).fold(0, |bits, lane| bits | u32::from(inside(at[lane])) << lane);
    let known = u64::defined(cx.w, i.a);
    super::put_pred(cx.w, i.d, mask, bits, known);
    Flow::Next
}

fn is_space(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = *u64::get(cx.w, i.a);
    // The parameters' window is a part of the global one.
    let global = i.flags == Window::Global as u16;
    let inside = |window: Window| window as u16 == i.flags || (global && window == Window::Param);
    let bits = lanes(mask).fold(0, |bits, lane| bits | u32::from(inside(window(at[lane]))) << lane);
    let known = u64::defined(cx.w, i.a);
    super::put_pred(cx.w, i.d, mask, bits, known);
    Flow::Next
}

/// Splits lanes by the window that their generic addresses point into; addresses become offsets in it.
pub(crate) fn windows(at: &[u64; 32], mask: u32) -> [(Window, u32, u64); 4] {
    let mut out = [
        (Window::Global, 0, 0),
        (Window::Shared, 0, SHARED_WINDOW),
        (Window::Local, 0, LOCAL_WINDOW),
        (Window::Param, 0, PARAM_WINDOW),
    ];
    for lane in lanes(mask) {
        out[window(at[lane]) as usize].1 |= 1 << lane;
    }
    out
}

/// Bytes of a thread's memory at a generic or local address, for functions of the device.
pub(crate) fn thread_bytes(cx: &Cx, lane: usize, address: u64, count: usize) -> Option<Vec<u8>> {
    match window(address) {
        Window::Local => {
            let offset = (address - LOCAL_WINDOW) as usize;
            let start = lane * cx.w.local_capacity + offset;
            (offset + count <= cx.w.local_capacity).then(|| cx.w.local[start..start + count].to_vec())
        }
        Window::Shared => {
            let offset = (address - SHARED_WINDOW) as usize;
            cx.b.shared.bytes.get(offset..offset + count).map(<[u8]>::to_vec)
        }
        Window::Param => None,
        Window::Global => {
            let allocation = &cx.g.snapshot.allocations[cx.g.snapshot.find(address)?];
            let offset = address - allocation.address;
            let mut out = vec![0; count];
            (offset + count as u64 <= allocation.bytes).then(|| allocation.data.read(offset as usize, &mut out))?;
            Some(out)
        }
    }
}

const _: () = assert!(WINDOW > 1 << 20);
