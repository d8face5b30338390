//! Loads and stores, moves between address spaces, prefetches and cache hints.

pub(crate) mod store;
mod whole;

use self::store::{store_generic, store_global, store_local, store_shared};
use super::types::Ty;
use super::{Flow, Ins, Slot, put, spread};
use crate::compile::Result;
use crate::compile::blank;
use crate::compile::decode::{Decoder, WIDE, no_operation};
use crate::counters::Class;
use crate::exec::access::{Window, lanes, number, window};
use crate::exec::shared::{bytes_of_word, worse};
use crate::exec::{Cx, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
use crate::isa::exec;
use crate::program::{Bank, Special};
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
    if d.take("volatile") || d.take("relaxed") || d.take("mmio") {
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
            let which = match to {
                Named::Global => Window::Global,
                Named::Shared => Window::Shared,
                Named::Local => Window::Local,
                Named::Param => Window::Param,
                Named::Generic => return Ok(false),
            };
            d.emit(Ins { exec: is_space, class: Class::Integer, d: dest, a, flags: which as u16, ..blank() });
            Ok(true)
        }
        "prefetch" | "prefetchu" | "applypriority" | "discard" => {
            space(d);
            hints(d);
            d.take_if(|m| m == "L1" || m == "L2");
            if d.op == "discard" {
                return Ok(false);
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

fn is_space(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = *u64::get(cx.w, i.a);
    let bits = lanes(mask).fold(0, |bits, lane| bits | u32::from(window(at[lane]) as u16 == i.flags) << lane);
    let known = u64::defined(cx.w, i.a);
    super::put_pred(cx.w, i.d, mask, bits, known);
    Flow::Next
}

pub(crate) fn access(i: &Ins, write: bool) -> Access {
    match (i.flags & STRONG != 0, write) {
        (true, _) if i.flags & IN_BLOCK != 0 => Access::StrongInBlock,
        (true, _) => Access::Strong,
        (false, true) => Access::Write,
        (false, false) => Access::Read,
    }
}

/// Writes loaded elements `k` of the lanes, extended to their registers.
#[inline(always)]
fn put_element(cx: &mut Cx, i: &Ins, mask: u32, k: usize, known: u32, value: impl Fn(usize) -> u64) {
    let index = cx.g.program.lists[i.list as usize + k];
    if i.flags & LONG != 0 {
        let mut out = [0u64; 32];
        for lane in lanes(mask) {
            out[lane] = value(lane);
        }
        put(cx.w, index, mask, &out, known);
        return;
    }
    let mut out = [0u32; 32];
    if i.flags & SIGNED == 0 && mask == u32::MAX {
        for (lane, out) in out.iter_mut().enumerate() {
            *out = value(lane) as u32;
        }
        put(cx.w, index, mask, &out, known);
        return;
    }
    if i.flags & SIGNED != 0 {
        let shift = 32 - 8 * u32::from(i.width);
        let keep = if i.flags & HALF != 0 { 0xffff } else { u32::MAX };
        for lane in lanes(mask) {
            out[lane] = ((((value(lane) as u32) << shift) as i32) >> shift) as u32 & keep;
        }
    } else {
        for lane in lanes(mask) {
            out[lane] = value(lane) as u32;
        }
    }
    put(cx.w, index, mask, &out, known);
}

/// Notes which bits of an element just loaded lie in bytes that were never written.
#[cold]
fn put_unwritten(cx: &mut Cx, i: &Ins, mask: u32, k: usize, mut undefined: [u64; 32]) {
    let index = cx.g.program.lists[i.list as usize + k];
    let top = 8 * u32::from(i.width) - 1;
    if i.flags & SIGNED != 0 {
        let keep = if i.flags & HALF != 0 { 0xffff } else { u64::MAX };
        for bits in undefined.iter_mut().filter(|bits| **bits >> top & 1 != 0) {
            *bits |= u64::MAX << top & keep;
        }
    }
    let from = spread::Source { values: [0; 32], undefined, memory: u32::MAX };
    if i.flags & LONG != 0 {
        let values = *u64::get(cx.w, index);
        spread::put_loose(cx.w, index, mask, &values, &from);
    } else {
        let values = *u32::get(cx.w, index);
        spread::put_loose(cx.w, index, mask, &values, &from);
    }
}

fn load_global(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    load_global_at(cx, i, mask, &at)
}

fn load_global_at(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32]) -> Flow {
    let bytes = usize::from(i.width) * usize::from(i.count);
    cx.b.counters.load_requests += 1;
    cx.b.counters.load_sectors += Cx::sectors(at, mask, bytes as u64);
    cx.b.counters.load_bytes += bytes as u64 * u64::from(mask.count_ones());
    let mut left = mask;
    while left != 0 {
        let (index, part) = match cx.allocation(at, left, bytes as u64, bytes as u64, false) {
            Ok(found) => found,
            Err(flow) => return flow,
        };
        left &= !part;
        let g = cx.g;
        let allocation = &*g.snapshot.allocations[index];
        cx.check_written(allocation, at, part, bytes);
        cx.check_read(index, at, part, bytes, access(i, false));
        let (data, start) = (&allocation.data, allocation.address);
        if whole::load(cx, i, part, at, data, start) {
            break;
        }
        for k in 0..usize::from(i.count) {
            let skip = k * usize::from(i.width);
            match i.width {
                1 => {
                    put_element(cx, i, part, k, part, |lane| u64::from(data.load8((at[lane] - start) as usize + skip)))
                }
                2 => {
                    put_element(cx, i, part, k, part, |lane| u64::from(data.load16((at[lane] - start) as usize + skip)))
                }
                4 => {
                    put_element(cx, i, part, k, part, |lane| u64::from(data.load32((at[lane] - start) as usize + skip)))
                }
                _ => put_element(cx, i, part, k, part, |lane| data.load64((at[lane] - start) as usize + skip)),
            }
        }
    }
    if i.flags & STRONG != 0 {
        cx.b.polls += 1;
        lanes(mask).for_each(|lane| cx.pick_up_at(at[lane]));
    }
    Flow::Next
}

fn load_shared(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    load_shared_at(cx, i, mask, &at)
}

fn load_shared_at(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32]) -> Flow {
    let bytes = usize::from(i.width) * usize::from(i.count);
    if let Err(flow) = cx.check_shared(at, mask, bytes as u64, bytes as u64, false) {
        return flow;
    }
    if i.flags & STRONG != 0 {
        lanes(mask).for_each(|lane| cx.pick_up_at(at[lane]));
    }
    cx.wavefronts(at, mask, bytes as u32);
    cx.read_shared(at, mask, bytes, access(i, false));
    let data = std::mem::take(&mut cx.b.shared.bytes);
    for k in 0..usize::from(i.count) {
        let skip = k * usize::from(i.width);
        match i.width {
            1 => put_element(cx, i, mask, k, mask, |lane| u64::from(data[at[lane] as usize + skip])),
            2 => put_element(cx, i, mask, k, mask, |lane| {
                number(&data[at[lane] as usize + skip..at[lane] as usize + skip + 2])
            }),
            4 => put_element(cx, i, mask, k, mask, |lane| {
                number(&data[at[lane] as usize + skip..at[lane] as usize + skip + 4])
            }),
            _ => put_element(cx, i, mask, k, mask, |lane| {
                number(&data[at[lane] as usize + skip..at[lane] as usize + skip + 8])
            }),
        }
    }
    cx.b.shared.bytes = data;
    Flow::Next
}

fn load_local(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    load_local_at(cx, i, mask, &at)
}

fn load_local_at(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32]) -> Flow {
    let bytes = usize::from(i.width) * usize::from(i.count);
    if let Err(flow) = cx.check_local(at, mask, bytes as u64, bytes as u64, false) {
        return flow;
    }
    let data = std::mem::take(&mut cx.w.local);
    let capacity = cx.w.local_capacity;
    let width = usize::from(i.width);
    for k in 0..usize::from(i.count) {
        let place = |lane: usize| lane * capacity + at[lane] as usize + k * width;
        // What was never written counts where it is used: copies of structs move their padding too.
        let written = &cx.w.local_written;
        let whole = |lane: usize| written[place(lane)..place(lane) + width].iter().all(|bits| *bits == 0xff);
        let known = lanes(mask).fold(0, |m, lane| m | u32::from(whole(lane)) << lane);
        let undefined: [u64; 32] = if mask & !known == 0 {
            [0; 32]
        } else {
            std::array::from_fn(|lane| match mask >> lane & 1 {
                1 => number(&written[place(lane)..place(lane) + width]) ^ u64::MAX >> (64 - 8 * width),
                _ => 0,
            })
        };
        put_element(cx, i, mask, k, known, |lane| number(&data[place(lane)..place(lane) + width]));
        if mask & !known != 0 {
            put_unwritten(cx, i, mask, k, undefined);
        }
    }
    cx.w.local = data;
    Flow::Next
}

fn load_param(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    load_param_at(cx, i, mask, &at)
}

fn load_param_at(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32]) -> Flow {
    let width = usize::from(i.width);
    let bytes = width * usize::from(i.count);
    let params = cx.g.params;
    for lane in lanes(mask) {
        if at[lane].wrapping_add(bytes as u64) > params.len() as u64 || at[lane] > params.len() as u64 {
            let place = Some(format!("parameters of {} bytes", params.len()));
            return cx.fault(
                crate::Kind::OutOfBounds,
                lane as u32,
                Some(at[lane]),
                place,
                format!("read of {bytes} bytes"),
            );
        }
    }
    for k in 0..usize::from(i.count) {
        put_element(cx, i, mask, k, mask, |lane| {
            number(&params[at[lane] as usize + k * width..at[lane] as usize + (k + 1) * width])
        });
    }
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

fn load_generic(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    for (window, part, base) in windows(&at, mask) {
        if part == 0 {
            continue;
        }
        let inside = at.map(|address| address.wrapping_sub(base));
        let flow = match window {
            Window::Global => load_global_at(cx, i, part, &at),
            Window::Shared => load_shared_at(cx, i, part, &inside),
            Window::Local => load_local_at(cx, i, part, &inside),
            Window::Param => load_param_at(cx, i, part, &inside),
        };
        if flow != Flow::Next {
            return flow;
        }
    }
    Flow::Next
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
