//! What stores do, space by space.

use super::*;
use crate::memory::Allocation;

/// The register of element `k`.
#[inline(always)]
fn register(cx: &Cx, i: &Ins, k: usize) -> u16 {
    cx.g.program.lists[i.list as usize + k]
}

/// Where element `k` is defined, and where it is not because a struct's padding is copied.
#[inline(always)]
fn defined(cx: &Cx, i: &Ins, k: usize) -> (u32, u32) {
    let (index, bits) = (register(cx, i, k), 8 * u32::from(i.width));
    if i.flags & LONG != 0 {
        spread::low_bits::<u64>(cx.w, index, bits)
    } else {
        spread::low_bits::<u32>(cx.w, index, bits)
    }
}

/// The value of element `k` in every lane.
#[inline(always)]
fn element(cx: &Cx, i: &Ins, k: usize) -> [u64; 32] {
    let index = register(cx, i, k);
    if i.flags & LONG != 0 {
        return *u64::get(cx.w, index);
    }
    let mut wide = [0; 32];
    for (wide, value) in wide.iter_mut().zip(u32::get(cx.w, index)) {
        *wide = u64::from(*value);
    }
    wide
}

/// The bytes that a lane stores.
#[inline(always)]
pub(crate) fn stored(cx: &Cx, i: &Ins, lane: usize) -> [u8; 32] {
    let (width, mut new) = (usize::from(i.width), [0u8; 32]);
    for k in 0..usize::from(i.count) {
        let index = register(cx, i, k);
        if i.flags & LONG != 0 {
            new[8 * k..8 * k + 8].copy_from_slice(&u64::get(cx.w, index)[lane].to_le_bytes());
        } else {
            let value = u32::get(cx.w, index)[lane].to_le_bytes();
            match width {
                4 => new[4 * k..4 * k + 4].copy_from_slice(&value),
                2 => new[2 * k..2 * k + 2].copy_from_slice(&value[..2]),
                _ => new[k] = value[0],
            }
        }
    }
    new
}

/// Reports elements that were never written. Gives the lanes that copy a struct's padding: that is no fault, and leaves
/// the copy's bytes unwritten.
#[inline(always)]
fn check_defined(cx: &mut Cx, i: &Ins, mask: u32) -> u32 {
    let mut padded = 0;
    for k in 0..usize::from(i.count) {
        let (known, padding) = defined(cx, i, k);
        let unknown = mask & !known & !padding;
        if unknown != 0 {
            cx.undefined(unknown, "the stored value");
        }
        padded |= mask & padding;
    }
    padded
}

/// For each byte of element `k` in a lane, the bits that are defined.
#[cold]
fn defined_bits(cx: &Cx, i: &Ins, k: usize) -> [[u8; 8]; 32] {
    let index = cx.g.program.lists[i.list as usize + k];
    let source =
        if i.flags & LONG != 0 { spread::source::<u64>(cx.w, index) } else { spread::source::<u32>(cx.w, index) };
    source.undefined.map(|bits| (!bits).to_le_bytes())
}

pub(super) fn store_global(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    match store_global_at(cx, i, mask, &at) {
        Flow::Next if i.flags & STRONG != 0 => cx.rest(),
        flow => flow,
    }
}

fn store_global_at(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32]) -> Flow {
    let bytes = usize::from(i.width) * usize::from(i.count);
    cx.b.counters.store_requests += 1;
    cx.b.counters.store_sectors += Cx::sectors(at, mask, bytes as u64);
    cx.b.counters.store_bytes += bytes as u64 * u64::from(mask.count_ones());
    let padded = check_defined(cx, i, mask);
    if i.flags & RELEASE != 0 {
        cx.fence(i.flags & IN_BLOCK == 0);
    }
    if i.flags & STRONG != 0 {
        lanes(mask).for_each(|lane| cx.leave_at(at[lane]));
    }
    let mut left = mask;
    while left != 0 {
        let (index, part) = match cx.allocation(at, left, bytes as u64, bytes as u64, true) {
            Ok(found) => found,
            Err(flow) => return flow,
        };
        left &= !part;
        let g = cx.g;
        let allocation = &*g.snapshot.allocations[index];
        cx.check_write(index, at, part, bytes, access(i, true), Some(i));
        cx.mark_written(allocation, at, part & !padded, bytes);
        if part & padded != 0 {
            mark_but_padding(cx, i, allocation, at, part & padded);
        }
        let (data, start) = (&allocation.data, allocation.address);
        if whole::store(cx, i, part, at, data, start) {
            break;
        }
        for k in 0..usize::from(i.count) {
            let value = element(cx, i, k);
            let skip = k * usize::from(i.width);
            for lane in lanes(part) {
                let place = (at[lane] - start) as usize + skip;
                match i.width {
                    1 => data.store8(place, value[lane] as u8),
                    2 => data.store16(place, value[lane] as u16),
                    4 => data.store32(place, value[lane] as u32),
                    _ => data.store64(place, value[lane]),
                }
            }
        }
    }
    cx.w.effects[i.e as usize] |= mask;
    Flow::Next
}

/// Marks the bytes of a store as written that are not a struct's padding.
#[cold]
fn mark_but_padding(cx: &Cx, i: &Ins, allocation: &Allocation, at: &[u64; 32], part: u32) {
    for k in 0..usize::from(i.count) {
        let bits = defined_bits(cx, i, k);
        for byte in 0..usize::from(i.width) {
            let written = lanes(part).fold(0, |m, lane| m | u32::from(bits[lane][byte] != 0) << lane);
            let place = at.map(|address| address + (k * usize::from(i.width) + byte) as u64);
            cx.mark_written(allocation, &place, written, 1);
        }
    }
}

pub(super) fn store_shared(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    match store_shared_at(cx, i, mask, &at) {
        Flow::Next if i.flags & STRONG != 0 => cx.rest(),
        flow => flow,
    }
}

fn store_shared_at(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32]) -> Flow {
    let width = usize::from(i.width);
    let bytes = width * usize::from(i.count);
    if let Err(flow) = cx.check_shared(at, mask, bytes as u64, bytes as u64, true) {
        return flow;
    }
    if i.flags & RELEASE != 0 {
        cx.fence(i.flags & IN_BLOCK == 0);
    }
    cx.wavefronts(at, mask, bytes as u32);
    let checks = cx.g.config.checks;
    let stamp = cx.shared_stamp(access(i, true));
    let padded = check_defined(cx, i, mask);
    for lane in lanes(mask) {
        let place = at[lane] as usize;
        if checks.async_pending && cx.b.shared.is_pending(place, bytes) {
            cx.pending_shared(at[lane], lane, "write");
        }
        if let Some(stamp) = stamp {
            let conflict = if bytes >= 4 && access(i, true) == Access::Write {
                let mine = stamp.of(lane as u32, 15);
                cx.b.shared.write_words(place / 4..(place + bytes) / 4, mine, &cx.w.clocks)
            } else {
                let (first, last) = (place / 4, (place + bytes - 1) / 4);
                (first..=last).fold(None, |conflict, word| {
                    let mine = stamp.of(lane as u32, bytes_of_word(word, place, bytes));
                    worse(conflict, cx.b.shared.touch(word, access(i, true), mine, &cx.w.clocks))
                })
            };
            if let Some(conflict) = conflict
                && !(conflict.write && same_shared(cx, i, lane, place, bytes))
            {
                let mine = stamp.of(lane as u32, bytes_of_word(place / 4, place, bytes));
                cx.shared_race(at[lane], mine, true, conflict);
            }
        }
        let new = stored(cx, i, lane);
        cx.b.shared.store(place, &new, bytes);
    }
    cx.w.effects[i.e as usize] |= mask;
    if i.flags & STRONG != 0 {
        lanes(mask).for_each(|lane| cx.leave_at(at[lane]));
    }
    if mask & padded != 0 {
        for k in 0..usize::from(i.count) {
            let bits = defined_bits(cx, i, k);
            for lane in lanes(mask & padded) {
                for byte in (0..width).filter(|byte| bits[lane][*byte] == 0) {
                    cx.b.shared.written[at[lane] as usize + k * width + byte] = 0;
                }
            }
        }
    }
    Flow::Next
}

/// Whether these bytes are there already. Several threads may write the same value to one place: that is no race.
#[cold]
fn same_shared(cx: &Cx, i: &Ins, lane: usize, place: usize, bytes: usize) -> bool {
    let shared = &cx.b.shared;
    shared.bytes[place..place + bytes] == stored(cx, i, lane)[..bytes]
        && !shared.written[place..place + bytes].contains(&0)
}

pub(super) fn store_local(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    store_local_at(cx, i, mask, &at)
}

fn store_local_at(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32]) -> Flow {
    let width = usize::from(i.width);
    let bytes = width * usize::from(i.count);
    if let Err(flow) = cx.check_local(at, mask, bytes as u64, bytes as u64, true) {
        return flow;
    }
    let capacity = cx.w.local_capacity;
    for k in 0..usize::from(i.count) {
        let (value, (known, _)) = (element(cx, i, k), defined(cx, i, k));
        for lane in lanes(mask) {
            let place = lane * capacity + at[lane] as usize + k * width;
            cx.w.local[place..place + width].copy_from_slice(&value[lane].to_le_bytes()[..width]);
            cx.w.local_written[place..place + width].fill(0xff);
        }
        if mask & !known != 0 {
            let bits = defined_bits(cx, i, k);
            for lane in lanes(mask & !known) {
                let place = lane * capacity + at[lane] as usize + k * width;
                cx.w.local_written[place..place + width].copy_from_slice(&bits[lane][..width]);
            }
        }
    }
    cx.w.effects[i.e as usize] |= mask;
    Flow::Next
}

pub(super) fn store_generic(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    for (window, part, base) in windows(&at, mask) {
        if part == 0 {
            continue;
        }
        let inside = at.map(|address| address.wrapping_sub(base));
        let flow = match window {
            Window::Global | Window::Param => store_global_at(cx, i, part, &at),
            Window::Shared => store_shared_at(cx, i, part, &inside),
            Window::Local => store_local_at(cx, i, part, &inside),
        };
        if flow != Flow::Next {
            return flow;
        }
    }
    if i.flags & STRONG != 0 { cx.rest() } else { Flow::Next }
}
