//! What a running kernel consists of: the grid that all blocks see, a block with its shared memory, a warp with its
//! registers, and the context that instructions get.

pub(crate) mod access;
pub(crate) mod barriers;
pub(crate) mod block;
pub(crate) mod findings;
pub(crate) mod grid;
mod local;
pub(crate) mod order;
pub(crate) mod past;
pub(crate) mod races;
pub(crate) mod shared;
mod special;
pub(crate) mod suspects;
pub(crate) mod warp;

pub(crate) use block::Block;
pub(crate) use grid::Grid;
pub(crate) use warp::{Wait, Warp};

/// Generic addresses of shared memory start here; allocations lie above.
pub(crate) const SHARED_WINDOW: u64 = 0x7e00_0000_0000;
/// Generic addresses of local memory.
pub(crate) const LOCAL_WINDOW: u64 = 0x7e80_0000_0000;
/// Generic addresses of kernel parameters.
pub(crate) const PARAM_WINDOW: u64 = 0x7ec0_0000_0000;
/// Bytes of each window.
pub(crate) const WINDOW: u64 = 1 << 24;
/// Addresses of functions: number times 16 above this.
pub(crate) const FUNCTION_WINDOW: u64 = 0x7d00_0000_0000;

/// What an instruction works on.
pub(crate) struct Cx<'a> {
    pub w: &'a mut Warp,
    pub b: &'a mut Block,
    pub g: &'a Grid<'a>,
}
