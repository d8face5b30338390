//! What stores do, space by space.

use super::*;

/// The value of element `k` in every lane, and where it is defined.
#[inline(always)]
fn element(cx: &Cx, i: &Ins, k: usize) -> ([u64; 32], u32) {
    let index = cx.g.program.lists[i.list as usize + k];
    if i.flags & LONG != 0 {
        (*u64::get(cx.w, index), u64::defined(cx.w, index))
    } else {
        (u32::get(cx.w, index).map(u64::from), u32::defined(cx.w, index))
    }
}

pub(super) fn store_global(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    store_global_at(cx, i, mask, &at)
}

fn store_global_at(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32]) -> Flow {
    let bytes = usize::from(i.width) * usize::from(i.count);
    cx.b.counters.store_requests += 1;
    cx.b.counters.store_sectors += Cx::sectors(at, mask, bytes as u64);
    cx.b.counters.store_bytes += bytes as u64 * u64::from(mask.count_ones());
    let mut values = [([0u64; 32], 0u32); 8];
    for (k, value) in values.iter_mut().enumerate().take(usize::from(i.count)) {
        *value = element(cx, i, k);
        if mask & !value.1 != 0 {
            cx.undefined(mask & !value.1, "the stored value");
        }
    }
    let new = |lane: usize| new_bytes(&values, i, lane);
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
        cx.check_write(index, at, part, bytes, access(i, true), Some(&new));
        cx.mark_written(allocation, at, part, bytes);
        let (data, start) = (&allocation.data, allocation.address);
        for k in 0..usize::from(i.count) {
            let value = &values[k].0;
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

/// The bytes that a lane stores.
fn new_bytes(values: &[([u64; 32], u32); 8], i: &Ins, lane: usize) -> [u8; 32] {
    let (width, mut new) = (usize::from(i.width), [0u8; 32]);
    for (k, (value, _)) in values.iter().enumerate().take(usize::from(i.count)) {
        new[k * width..(k + 1) * width].copy_from_slice(&value[lane].to_le_bytes()[..width]);
    }
    new
}

pub(super) fn store_shared(cx: &mut Cx, i: &Ins, mask: u32) -> Flow {
    let at = cx.addresses(i, mask);
    store_shared_at(cx, i, mask, &at)
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
    let mut values = [([0u64; 32], 0u32); 8];
    for k in 0..usize::from(i.count) {
        values[k] = element(cx, i, k);
        if mask & !values[k].1 != 0 {
            cx.undefined(mask & !values[k].1, "the stored value");
        }
    }
    for lane in lanes(mask) {
        let new = new_bytes(&values, i, lane);
        let place = at[lane] as usize;
        if checks.async_pending && cx.b.shared.is_pending(place, bytes) {
            cx.pending_shared(at[lane], lane, "write");
        }
        // Several threads may write the same value to one place: that is no race.
        let same = cx.b.shared.bytes[place..place + bytes] == new[..bytes]
            && !cx.b.shared.written[place..place + bytes].contains(&0);
        if let Some(stamp) = stamp {
            for word in place / 4..=(place + bytes - 1) / 4 {
                let mine = stamp.of(lane as u32, bytes_of_word(word, place, bytes));
                if let Some(conflict) = cx.b.shared.touch(word, access(i, true), mine, &cx.w.clocks)
                    && !(same && conflict.write)
                {
                    cx.shared_race(at[lane], mine, true, conflict);
                }
            }
        }
        cx.b.shared.bytes[place..place + bytes].copy_from_slice(&new[..bytes]);
        cx.b.shared.written[place..place + bytes].fill(1);
    }
    cx.w.effects[i.e as usize] |= mask;
    if i.flags & STRONG != 0 {
        lanes(mask).for_each(|lane| cx.leave_at(at[lane]));
    }
    Flow::Next
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
        let (value, known) = element(cx, i, k);
        for lane in lanes(mask) {
            let place = lane * capacity + at[lane] as usize + k * width;
            cx.w.local[place..place + width].copy_from_slice(&value[lane].to_le_bytes()[..width]);
            cx.w.local_written[place..place + width].fill((known >> lane & 1) as u8);
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
    Flow::Next
}
