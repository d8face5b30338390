//! Tasks: what a user asks the heads to learn.
//!
//! - [`TaskFile`] reads MT-DNN's task definition YAML as it stands, plus Manyhead's own keys (`data`, `multi_label`,
//!   `weight`, `learning_rate`, `max_length`), and refuses by name, with the line, whatever it does not understand.
//! - [`TaskDef`] is one task: its kind, its classes and labels, its losses and metrics, where its data lies.
//! - [`Label`] is a label of a sample, read by the rules of its task; [`SoftLabels`] are what a teacher said of samples.
//!
//! This floor knows nothing of `data/`: it says where files are and what a label means; `data/` reads them.

mod adversarial_change;
mod agreement;
mod batch;
mod classification;
mod data_spec;
mod embedding;
mod fields;
mod file;
mod kind;
mod label;
pub(crate) mod message;
mod multi_label;
mod names;
mod ranking;
mod read_task;
mod regression;
mod sequence_labeling;
mod soft_labels;
mod tag_scheme;
mod task;
mod taught;
mod write;
pub(crate) mod yaml;

pub use adversarial_change::{AdversarialChange, AdversarialSettings, CleanSide, Masks};
pub use agreement::Agreement;
pub use batch::{TaskBatch, WordRows};
pub(crate) use data_spec::SOFT;
pub use data_spec::{Column, Columns, DataSpec, UNLABELLED};
pub use file::TaskFile;
pub use kind::{HeadSite, Kind, Prediction};
pub use label::Label;
pub use names::{ACTIVATIONS, DataFormat, Format, LossName, METRICS, Quoting, TaskType};
pub use soft_labels::SoftLabels;
pub use tag_scheme::{Scheme, to_iob2};
pub use task::TaskDef;
pub use taught::{Outputs, TeacherValues};
pub use write::to_yaml;
pub(crate) use write::{canonical_soft, quoted};
