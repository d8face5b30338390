//! Layers made of ops: a layer is a set of parameter ids and a forward function on a tape.

mod batch;
mod block;
mod init;
mod linear;
mod pooler;
mod states;

pub use batch::PackedBatch;
pub use block::{Block, BlockOptions, LayerNorm};
pub use init::init_normal;
pub use linear::Linear;
pub use pooler::Pooler;
pub use states::States;
