//! The values of registers that are filled when a frame is made: constants, special registers, addresses.

use super::{FUNCTION_WINDOW, Grid, Warp};
use crate::program::Special;

impl Warp {
    /// What a filled register holds in each lane.
    pub fn fill(&self, special: Special, block: [u32; 3], depth: usize, g: &Grid) -> [u64; 32] {
        let lanes = |value: fn(u64) -> u64| std::array::from_fn(|lane| value(lane as u64));
        let same = match special {
            Special::Bits(bits) => bits,
            Special::Tid(axis) => return self.coordinates(axis as usize, g.block),
            Special::LaneId => return lanes(|lane| lane),
            Special::LaneMaskEq => return lanes(|lane| 1 << lane),
            Special::LaneMaskLt => return lanes(|lane| (1 << lane) - 1),
            Special::LaneMaskLe => return lanes(|lane| (2 << lane) - 1),
            Special::LaneMaskGt => return lanes(|lane| 0xffff_ffff & !((2 << lane) - 1)),
            Special::LaneMaskGe => return lanes(|lane| 0xffff_ffff & !((1 << lane) - 1)),
            Special::Frame(offset) => return self.stack[depth].map(|start| u64::from(start + offset)),
            Special::Ntid(axis) => u64::from(g.block[axis as usize]),
            Special::Ctaid(axis) => u64::from(block[axis as usize]),
            Special::Nctaid(axis) => u64::from(g.grid[axis as usize]),
            Special::WarpId => u64::from(self.number),
            Special::NumWarps => u64::from(g.block.iter().product::<u32>().div_ceil(32)),
            Special::SmId => {
                let number =
                    block[0] as u64 + g.grid[0] as u64 * (block[1] as u64 + g.grid[1] as u64 * block[2] as u64);
                number % u64::from(crate::Limits::of(g.config.arch).multiprocessors)
            }
            Special::NumSm => u64::from(crate::Limits::of(g.config.arch).multiprocessors),
            Special::GridId => g.snapshot.launch,
            Special::DynamicShared => u64::from(g.dynamic_shared),
            Special::TotalShared => u64::from(g.shared_bytes),
            Special::ExternShared => u64::from(g.dynamic_base),
            Special::Variable(number, offset) => g.variables[number as usize].wrapping_add(offset as u64),
            Special::FunctionAddress(number) => FUNCTION_WINDOW + u64::from(number) * 16,
        };
        [same; 32]
    }

    /// One coordinate of each lane's thread.
    fn coordinates(&self, axis: usize, block: [u32; 3]) -> [u64; 32] {
        let mut thread = self.thread(0, block);
        std::array::from_fn(|_| {
            let value = u64::from(thread[axis]);
            thread[0] += 1;
            if thread[0] == block[0] {
                thread[0] = 0;
                thread[1] += 1;
            }
            if thread[1] == block[1] {
                thread[1] = 0;
                thread[2] += 1;
            }
            value
        })
    }
}
