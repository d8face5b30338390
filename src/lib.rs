//! Manyhead fine-tunes BERT-family text encoders on many language-understanding tasks at once.

pub mod data;
pub mod device;
pub mod encoders;
pub mod error;
pub mod hash;
pub mod heads;
pub mod interop;
pub mod losses;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod ops;
pub mod report;
pub mod rng;
pub mod tape;
pub mod tasks;
pub mod tensor;
pub mod train;

pub use device::Device;
pub use error::{Error, Result};
pub use model::{Encoder, MultiTaskModel};
pub use tasks::TaskFile;
pub use train::{TrainOptions, Trainer, TrainingData};
