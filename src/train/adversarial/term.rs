//! What a term of the training step is, and what it sees: the batch's clean pass and the tape that it stands on.

use super::{AscentStep, Noise, Objective};
use crate::device::Buffer;
use crate::error::Result;
use crate::tape::{Mark, Random, Tape, Var};

/// The clean pass of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clean {
    /// The output of the embedding block.
    pub embedded: Var,
    /// The output of the head.
    pub logits: Var,
    /// Where the masks of the embedding block, and those after it, came from.
    pub masks: [Option<Random>; 2],
}

/// A batch on its way through the terms.
pub(super) struct Pass<'t, 'p> {
    pub tape: &'t mut Tape<'p>,
    pub objective: &'t dyn Objective,
    pub noise: &'t dyn Noise,
    /// The number of the term, which its noise is drawn by.
    pub number: u32,
    pub clean: Clean,
    /// Where the steps of the ascent are noted down, if anybody wants them.
    pub trace: Option<&'t mut Vec<AscentStep>>,
}

/// A term's loss on the tape, or why there is none.
pub(super) enum Added {
    /// Values on the tape and the factors that they enter the loss with.
    Losses {
        losses: Vec<(Var, f32)>,
        /// Of these the one that is reported, without its factor.
        value: Var,
        /// The size of the perturbation, in the term's own norm: the mean over tokens or sequences.
        size: Option<f64>,
    },
    /// The gradient of the ascent was not finite: the batch goes without this term.
    Dropped,
}

/// A term of the training step: it adds its own loss to that of the batch.
pub(super) trait Term {
    /// Its name in the log.
    fn name(&self) -> &'static str;

    fn add(&mut self, pass: &mut Pass<'_, '_>) -> Result<Added>;
}

impl Pass<'_, '_> {
    /// Notes a step of the ascent down, if anybody wants it; then it is read from the device.
    pub fn note(&mut self, loss: Option<Var>, gradient: &Buffer, perturbation: &Buffer) -> Result<()> {
        if let Some(trace) = &mut self.trace {
            let loss = loss.map_or(Ok(f32::NAN), |loss| self.tape.scalar(loss))?;
            trace.push(AscentStep::read(loss as f64, gradient, perturbation)?);
        }
        Ok(())
    }

    /// Runs `work` with the masks of the clean pass once more, from the embedding block on (`masks` 0) or after it (1);
    /// with `fresh` masks it draws others than any pass before.
    pub fn with_masks<T>(
        &mut self,
        fresh: bool,
        from: usize,
        work: impl FnOnce(&mut Tape<'_>, &dyn Objective) -> Result<T>,
    ) -> Result<T> {
        if fresh {
            return work(self.tape, self.objective);
        }
        let next = self.tape.random();
        self.tape.set_random(self.clean.masks[from]);
        let done = work(self.tape, self.objective);
        self.tape.set_random(next);
        done
    }

    /// Runs `work`, then forgets what it recorded.
    pub fn aside<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mark: Mark = self.tape.mark();
        let done = work(self);
        self.tape.rewind(mark);
        done
    }
}
