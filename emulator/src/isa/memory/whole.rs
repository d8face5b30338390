//! Global accesses of 4 to 16 bytes by all lanes of a warp, in pieces of up to 8 bytes: the common case of row kernels.

use super::*;
use crate::bytes::Bytes;

/// Loads registers of 32 bits from offsets that are in bounds and aligned; false for other shapes, and nothing done.
#[inline(always)]
pub(super) fn load(cx: &mut Cx, i: &Ins, mask: u32, at: &[u64; 32], data: &Bytes, start: u64) -> bool {
    if mask != u32::MAX || i.width != 4 || i.flags & (LONG | SIGNED) != 0 {
        return false;
    }
    let list = &cx.g.program.lists[i.list as usize..];
    match i.count {
        1 => {
            let mut out = [0; 32];
            for lane in 0..32 {
                out[lane] = data.load32((at[lane] - start) as usize);
            }
            put(cx.w, list[0], mask, &out, mask);
        }
        2 | 4 => {
            for pair in 0..usize::from(i.count / 2) {
                let mut out = [[0; 32]; 2];
                for lane in 0..32 {
                    let both = data.load64((at[lane] - start) as usize + 8 * pair);
                    (out[0][lane], out[1][lane]) = (both as u32, (both >> 32) as u32);
                }
                put(cx.w, list[2 * pair], mask, &out[0], mask);
                put(cx.w, list[2 * pair + 1], mask, &out[1], mask);
            }
        }
        _ => return false,
    }
    true
}

/// Stores defined registers of 32 bits to offsets that are in bounds and aligned; false for others, and nothing done.
#[inline(always)]
pub(super) fn store(cx: &Cx, i: &Ins, mask: u32, at: &[u64; 32], data: &Bytes, start: u64) -> bool {
    if mask != u32::MAX || i.width != 4 || i.flags & LONG != 0 {
        return false;
    }
    let list = &cx.g.program.lists[i.list as usize..][..usize::from(i.count)];
    if list.iter().any(|index| u32::defined(cx.w, *index) != u32::MAX) {
        return false;
    }
    match i.count {
        1 => {
            let values = u32::get(cx.w, list[0]);
            for lane in 0..32 {
                data.store32((at[lane] - start) as usize, values[lane]);
            }
        }
        2 | 4 => {
            for pair in 0..usize::from(i.count / 2) {
                let (low, high) = (u32::get(cx.w, list[2 * pair]), u32::get(cx.w, list[2 * pair + 1]));
                for lane in 0..32 {
                    let both = u64::from(low[lane]) | u64::from(high[lane]) << 32;
                    data.store64((at[lane] - start) as usize + 8 * pair, both);
                }
            }
        }
        _ => return false,
    }
    true
}
