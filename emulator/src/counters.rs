//! What a launch did, counted per warp.

/// Classes of instructions, for the table of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    Move,
    Integer,
    Float,
    Double,
    Half,
    Convert,
    Special,
    LoadGlobal,
    StoreGlobal,
    LoadShared,
    StoreShared,
    LoadLocal,
    StoreLocal,
    LoadConstant,
    Atomic,
    Shuffle,
    Barrier,
    AsyncCopy,
    LoadMatrix,
    Matrix,
    Control,
}

impl Class {
    pub const COUNT: usize = 21;
    /// Names for JSON, by the class's number.
    pub const NAMES: [&'static str; Class::COUNT] = [
        "move",
        "integer",
        "float",
        "double",
        "half",
        "convert",
        "special",
        "load_global",
        "store_global",
        "load_shared",
        "store_shared",
        "load_local",
        "store_local",
        "load_constant",
        "atomic",
        "shuffle",
        "barrier",
        "async_copy",
        "load_matrix",
        "matrix",
        "control",
    ];
}

/// Counters of one launch, or the sum of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Warp instructions by [`Class`].
    pub warp_instructions: [u64; Class::COUNT],
    /// Lanes that executed them, summed.
    pub thread_instructions: u64,
    pub load_requests: u64,
    pub load_sectors: u64,
    /// Bytes that the lanes asked for.
    pub load_bytes: u64,
    pub store_requests: u64,
    pub store_sectors: u64,
    pub store_bytes: u64,
    /// `cp.async`: instructions that copy, those of them that read anything, their sectors, and the bytes that lanes
    /// asked for.
    pub async_copies: u64,
    pub async_requests: u64,
    pub async_sectors: u64,
    pub async_bytes: u64,
    /// Loads, stores, matrix loads, and the writes of `cp.async`.
    pub shared_requests: u64,
    pub shared_wavefronts: u64,
    /// Wavefronts that the width of the accesses needs at least.
    pub shared_wavefronts_ideal: u64,
    pub atomic_requests: u64,
    pub atomic_lanes: u64,
    /// Sectors of the atomics on global memory.
    pub atomic_sectors: u64,
    /// Warps arriving at barriers.
    pub barriers: u64,
    /// Multiply-adds of `mma`.
    pub matrix_macs: u64,
    pub divergent_branches: u64,
    pub blocks: u64,
    pub warps: u64,
}

impl Counters {
    /// All warp instructions.
    pub fn total(&self) -> u64 {
        self.warp_instructions.iter().sum()
    }

    /// Adds another launch's or thread's counters.
    pub fn add(&mut self, other: &Counters) {
        for (mine, theirs) in self.warp_instructions.iter_mut().zip(other.warp_instructions) {
            *mine += theirs;
        }
        for ((_, mine), (_, theirs)) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine += theirs;
        }
    }

    /// The single counters by name.
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        self.clone().fields_mut().into_iter().map(|(name, value)| (name, *value)).collect()
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut u64); 22] {
        [
            ("thread_instructions", &mut self.thread_instructions),
            ("load_requests", &mut self.load_requests),
            ("load_sectors", &mut self.load_sectors),
            ("load_bytes", &mut self.load_bytes),
            ("store_requests", &mut self.store_requests),
            ("store_sectors", &mut self.store_sectors),
            ("store_bytes", &mut self.store_bytes),
            ("async_copies", &mut self.async_copies),
            ("async_requests", &mut self.async_requests),
            ("async_sectors", &mut self.async_sectors),
            ("async_bytes", &mut self.async_bytes),
            ("shared_requests", &mut self.shared_requests),
            ("shared_wavefronts", &mut self.shared_wavefronts),
            ("shared_wavefronts_ideal", &mut self.shared_wavefronts_ideal),
            ("atomic_requests", &mut self.atomic_requests),
            ("atomic_lanes", &mut self.atomic_lanes),
            ("atomic_sectors", &mut self.atomic_sectors),
            ("barriers", &mut self.barriers),
            ("matrix_macs", &mut self.matrix_macs),
            ("divergent_branches", &mut self.divergent_branches),
            ("blocks", &mut self.blocks),
            ("warps", &mut self.warps),
        ]
    }
}
