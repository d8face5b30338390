//! How a launch is run: the device, the checks, the schedule, the limits.

/// Which checks are on. Out-of-bounds, misaligned and use-after-free accesses always fault, as on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    pub uninitialised: bool,
    pub race: bool,
    pub async_pending: bool,
    pub barrier_divergence: bool,
    pub inactive_lane: bool,
}

impl Checks {
    pub const ALL: Checks =
        Checks { uninitialised: true, race: true, async_pending: true, barrier_divergence: true, inactive_lane: true };
    pub const NONE: Checks = Checks {
        uninitialised: false,
        race: false,
        async_pending: false,
        barrier_divergence: false,
        inactive_lane: false,
    };

    /// Reads `all`, `none`, or names parted by commas; a name with `-` before it is taken out of all.
    pub fn parse(text: &str) -> Result<Checks, String> {
        let mut checks = if text.trim_start().starts_with('-') { Checks::ALL } else { Checks::NONE };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, on) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
            match name {
                "all" => checks = if on { Checks::ALL } else { Checks::NONE },
                "none" | "off" => checks = Checks::NONE,
                "uninitialised" => checks.uninitialised = on,
                "race" => checks.race = on,
                "async-pending" => checks.async_pending = on,
                "barrier-divergence" => checks.barrier_divergence = on,
                "inactive-lane" => checks.inactive_lane = on,
                _ => {
                    return Err(format!(
                        "unknown check '{name}'; known: all, none, uninitialised, race, async-pending, barrier-divergence, inactive-lane"
                    ));
                }
            }
        }
        Ok(checks)
    }
}

/// How to run launches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// 80 or 90.
    pub arch: u32,
    pub checks: Checks,
    /// Shuffles the order of blocks and of the warps of a block; 0 keeps them in order.
    pub seed: u64,
    /// Host threads; 0 takes what the machine has.
    pub threads: usize,
    /// Warp instructions after which a launch counts as endless; 0 means no limit.
    pub max_instructions: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config { arch: 80, checks: Checks::ALL, seed: 0, threads: 1, max_instructions: 0 }
    }
}

/// A device's limits, as `cuDeviceGetAttribute` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub multiprocessors: u32,
    /// Dynamic and static shared bytes of a block, with the opt-in attribute.
    pub shared_per_block_optin: u32,
    pub shared_per_block: u32,
    pub shared_per_multiprocessor: u32,
    pub registers_per_block: u32,
    pub threads_per_multiprocessor: u32,
    pub blocks_per_multiprocessor: u32,
    pub threads_per_block: u32,
}

impl Limits {
    /// A100 for 80, H100 for 90.
    pub fn of(arch: u32) -> Limits {
        let (multiprocessors, optin, per) = if arch >= 90 { (132, 232_448, 233_472) } else { (108, 166_912, 167_936) };
        Limits {
            multiprocessors,
            shared_per_block_optin: optin,
            shared_per_block: 49_152,
            shared_per_multiprocessor: per,
            registers_per_block: 65_536,
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
            threads_per_block: 1024,
        }
    }
}
