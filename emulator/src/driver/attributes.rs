//! `cuDeviceGetAttribute`: the table of attributes, for an A100 (sm_80) and an H100 (sm_90).

use std::ffi::c_int;

use crate::Limits;

/// The last attribute that CUDA 13.0 knows.
const LAST: c_int = 147;

/// The value of an attribute by its number in the driver's header; none for a number that is no attribute.
///
/// What this device cannot do (textures, managed memory, peers, graphs of memory nodes, IPC …) reads 0, so that a
/// program which asks first takes its other path.
pub(crate) fn attribute(which: c_int, arch: u32, limits: &Limits) -> Option<c_int> {
    let hopper = arch >= 90;
    let value = |value: u32| value as c_int;
    Some(match which {
        1 => value(limits.threads_per_block),
        // The block's dimensions, then the grid's.
        2 | 3 => 1024,
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => 65_535,
        8 => value(limits.shared_per_block),
        // Constant memory.
        9 => 65_536,
        // The warp.
        10 => 32,
        // The pitch of a 2-D copy.
        11 => c_int::MAX,
        12 => value(limits.registers_per_block),
        // Clock in kHz: the figure of the real part; nothing here takes time by it.
        13 => {
            if hopper {
                1_980_000
            } else {
                1_410_000
            }
        }
        // Texture alignment and pitch alignment, surface alignment.
        14 | 30 => 512,
        51 => 32,
        // Copies overlap with kernels; engines that do so.
        15 => 1,
        40 => 1,
        16 => value(limits.multiprocessors),
        // Concurrent kernels.
        31 => 1,
        // ECC.
        32 => 1,
        // PCI bus, device, domain.
        33 => 0x53,
        34 => 0,
        50 => 0,
        // Memory clock in kHz, bus width in bits, L2 bytes.
        36 => {
            if hopper {
                2_619_000
            } else {
                1_593_000
            }
        }
        37 => 5120,
        38 => {
            if hopper {
                50 << 20
            } else {
                40 << 20
            }
        }
        39 => value(limits.threads_per_multiprocessor),
        // Unified addressing: `cuMemcpy` tells device from host by the address.
        41 => 1,
        75 => value(arch / 10),
        76 => value(arch % 10),
        // Stream priorities; L1 caching of global and local memory.
        78..=80 => 1,
        81 => value(limits.shared_per_multiprocessor),
        82 => value(limits.registers_per_block),
        // Single to double precision.
        87 => 2,
        // Cooperative launches run all blocks, but not at once: refused, so 0 (95, 96).
        97 => value(limits.shared_per_block_optin),
        // Host memory can be registered.
        99 => 1,
        106 => value(limits.blocks_per_multiprocessor),
        // Shared memory that the system keeps of every block.
        111 => 1024,
        // Memory pools.
        115 => 1,
        // Mapped host memory is given by cuMemHostGetDevicePointer.
        19 => 1,
        126 => 1,
        // No NUMA node.
        131 | 134 => -1,
        _ if (1..=LAST).contains(&which) => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_devices_differ_where_the_real_ones_do() {
        let get = |which, arch| attribute(which, arch, &Limits::of(arch)).unwrap();
        assert_eq!((get(75, 80), get(76, 80), get(75, 90), get(76, 90)), (8, 0, 9, 0));
        assert_eq!((get(16, 80), get(16, 90)), (108, 132));
        assert_eq!((get(97, 80), get(97, 90)), (166_912, 232_448));
        assert_eq!(get(10, 80), 32);
        assert!(attribute(0, 80, &Limits::of(80)).is_none() && attribute(148, 80, &Limits::of(80)).is_none());
    }
}
