//! Training: optimizers, schedules, the step, the loop, checkpoints.
//!
//! [`Trainer`] is the loop; [`Step`] is one update, for loops of one's own. [`Optimizer`] changes the arena in one
//! fused pass, [`grad_norm`] and [`clip_factor`] bound its gradients, [`Schedule`] says how fast. All of it is a
//! function of its inputs alone: the same bits with any number of threads. Nothing is printed: an [`Observer`] is told
//! what happens.

pub mod adversarial;
mod checkpoint;
pub mod clip;
mod cut;
mod data;
mod describe;
pub mod distillation;
mod ema;
mod loss_scale;
mod observer;
pub mod optimizer;
mod options;
mod pieces;
mod run_file;
pub mod schedule;
mod step;
mod trainer;

pub use adversarial::{AdversarialOptions, BatchReport};
pub use clip::{check_norm, clip_factor, grad_norm};
pub use data::{TaskData, TrainingData, read_split, read_split_to_predict};
pub use describe::describe_run;
pub use distillation::{DistillationOptions, Targets};
pub use loss_scale::LossScale;
pub use observer::{Event, Observer, SplitEvaluation, Totals};
pub use optimizer::{Optimizer, OptimizerKind, OptimizerOptions};
pub use options::{TrainOptions, Untouched};
pub use run_file::{RunOption, read_run_file, write_run_file};
pub use schedule::{Schedule, ScheduleKind, warmup_updates};
pub use step::Step;
pub use trainer::{TrainReport, Trainer, evaluate_all};
