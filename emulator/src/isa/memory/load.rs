//! What loads do, space by space.

use super::*;

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

pub(super) fn load_global(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    match load_global_at(cx, i, mask, &at) {
        Flow::Next if i.flags & STRONG != 0 => cx.rest(),
        flow => flow,
    }
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

pub(super) fn load_shared(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    match load_shared_at(cx, i, mask, &at) {
        Flow::Next if i.flags & STRONG != 0 => cx.rest(),
        flow => flow,
    }
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

pub(super) fn load_local(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
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
            cx.w.unwritten = (cx.w.unwritten.0 | mask & !known, cx.w.pc);
        }
    }
    cx.w.local = data;
    Flow::Next
}

pub(super) fn load_param(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
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

pub(super) fn load_generic(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
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
    if i.flags & STRONG != 0 { cx.rest() } else { Flow::Next }
}
