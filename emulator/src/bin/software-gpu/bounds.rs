//! What the real parts could do: how many warps share a multiprocessor, and the least time that bytes and tensor
//! operations need. Figures are of the makers' data sheets (dense, SXM). A bound is never a claimed time.

/// A GPU by its figures.
pub(crate) struct Gpu {
    pub name: &'static str,
    /// Bytes a second.
    bandwidth: f64,
    /// bf16 operations a second of the tensor cores; a multiply-add is two.
    tensor: f64,
    /// Shared bytes of a multiprocessor.
    shared: f64,
}

pub(crate) const GPUS: [Gpu; 2] = [
    Gpu { name: "A100", bandwidth: 2.039e12, tensor: 312e12, shared: 167_936.0 },
    Gpu { name: "H100", bandwidth: 3.35e12, tensor: 989.4e12, shared: 233_472.0 },
];

/// Warps, blocks and registers of a multiprocessor, the same on both parts.
const WARPS: f64 = 64.0;
const BLOCKS: f64 = 32.0;
const REGISTERS: f64 = 65_536.0;
/// Shared memory that the system keeps of every block.
const RESERVED_SHARED: f64 = 1024.0;

impl Gpu {
    /// The least seconds for so many bytes and multiply-adds of the tensor cores, and which of the two it is.
    pub fn bound(&self, bytes: f64, macs: f64) -> (f64, &'static str) {
        let (by_bytes, by_tensor) = (bytes / self.bandwidth, 2.0 * macs / self.tensor);
        if by_tensor > by_bytes { (by_tensor, "tensor") } else { (by_bytes, "bytes") }
    }

    /// The share of a multiprocessor's warps that can be in flight, from 0 to 1.
    pub fn occupancy(&self, threads: f64, shared: f64, registers: Option<f64>) -> f64 {
        if threads < 1.0 {
            return 0.0;
        }
        let warps = (threads / 32.0).ceil();
        let round_up = |value: f64, to: f64| (value / to).ceil() * to;
        let by_shared = (self.shared / (round_up(shared, 128.0) + RESERVED_SHARED)).floor();
        // Registers are given to warps in units of 256, to threads in units of 8.
        let by_registers = registers.map_or(BLOCKS, |each| {
            let of_warp = round_up(round_up(each.max(1.0), 8.0) * 32.0, 256.0);
            ((REGISTERS / of_warp).floor() / warps).floor()
        });
        let blocks = (WARPS / warps).floor().min(by_shared).min(by_registers).min(BLOCKS);
        blocks * warps / WARPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occupancy_is_bounded_by_each_resource() {
        let [a100, h100] = &GPUS;
        assert_eq!(a100.occupancy(1024.0, 0.0, None), 1.0);
        // 32 blocks of one warp are half of the warps.
        assert_eq!(a100.occupancy(32.0, 0.0, None), 0.5);
        // 255 registers: 8,192 a warp, so 8 warps, two blocks of 4.
        assert_eq!(a100.occupancy(128.0, 0.0, Some(255.0)), 0.125);
        // 80 KiB each: two blocks of 8 warps on both, by shared memory.
        assert_eq!((a100.occupancy(256.0, 81_920.0, None), h100.occupancy(256.0, 81_920.0, None)), (0.25, 0.25));
        assert_eq!(a100.occupancy(0.0, 0.0, None), 0.0);
    }

    #[test]
    fn the_larger_time_bounds() {
        let [a100, _] = &GPUS;
        assert_eq!(a100.bound(2.039e6, 0.0), (1e-6, "bytes"));
        assert_eq!(a100.bound(0.0, 156e6), (1e-6, "tensor"));
    }
}
