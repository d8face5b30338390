//! What every command that trains asks for besides the options of learning: what, into where, and how often.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::distill::Distillation;
use super::super::run_folder::Existing;
use super::options::{absolute, path_or_name};

/// What is trained, and into where.
#[derive(Args, Clone)]
pub struct Job {
    /// Task file (MT-DNN's YAML)
    #[arg(long, value_name = "FILE")]
    pub tasks: PathBuf,
    /// Folder in Hugging Face layout, or a name: small (travels with the program), minilm (is fetched)
    #[arg(long, value_name = "DIR|NAME")]
    pub encoder: String,
    /// Output folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder of TASK_SPLIT.tsv, for tasks without `data:`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Job {
    /// The data folder, for what takes one by reference.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// As `run.yml` has it, of a run into `out`.
    pub fn list(&self, out: &Path) -> Vec<(String, String)> {
        let mut run = vec![
            ("tasks".to_string(), absolute(&self.tasks)),
            ("encoder".to_string(), path_or_name(Path::new(&self.encoder))),
            ("out".to_string(), absolute(out)),
        ];
        run.extend(self.data_dir.as_ref().map(|folder| ("data-dir".to_string(), absolute(folder))));
        run
    }
}

/// Whether the files' own soft labels are learnt, and how.
#[derive(Args, Clone)]
pub struct SoftLabels {
    /// Learn from the soft labels that the training files hold (`softlabel`), beside the labels, as the options of distillation
    /// say; tasks without any learn from their labels alone
    #[arg(help_heading = "Distillation", long)]
    pub soft_labels: bool,
    #[command(flatten)]
    pub distillation: Distillation,
}

impl SoftLabels {
    /// As `run.yml` has it.
    pub fn list(&self) -> Vec<(String, String)> {
        if !self.soft_labels {
            return Vec::new();
        }
        let how = self.distillation.list().into_iter().map(|(name, value)| (name.to_string(), value));
        std::iter::once(("soft-labels".into(), "true".into())).chain(how).collect()
    }
}

/// What to do about a command that has run before.
#[derive(Args, Clone, Default)]
pub struct Again {
    /// Take the options of this file; flags given besides it win
    #[arg(long, value_name = "FILE")]
    pub run: Option<PathBuf>,
    /// Go on where the command in the output folder stopped
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Delete what the command in the output folder has left
    #[arg(long)]
    pub overwrite: bool,
}

impl Again {
    /// What the flags say of an output folder that is there.
    pub fn existing(&self) -> Existing {
        match (self.resume, self.overwrite) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Overwrite,
            _ => Existing::Refuse,
        }
    }
}
