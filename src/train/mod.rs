//! Training: what turns gradients into better parameters.
//!
//! Above the tape and the parameter arenas, below the command line. [`Optimizer`] changes the arena in one fused pass,
//! [`grad_norm`] and [`clip_factor`] bound its gradients, and [`Schedule`] says how fast. All of it is a function of
//! its inputs alone: the same bits with any number of threads.

pub mod clip;
pub mod optimizer;
mod pieces;
pub mod schedule;

pub use clip::{check_norm, clip_factor, grad_norm};
pub use optimizer::{Optimizer, OptimizerKind, OptimizerOptions};
pub use schedule::{Schedule, ScheduleKind, warmup_updates};
