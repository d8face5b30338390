//! The exponential moving average of the weights.
//!
//! After each update: shadow ← γ · shadow + (1 − γ) · θ, in f32 as shadow += (1 − γ)(θ − shadow); it begins as the
//! weights before the first update. Evaluation and the best model take the shadow, training the weights themselves.
//! (MT-DNN 0.1, where this comes from with γ = 0.995, stored the live weights under the name of the shadow.)

use super::optimizer::cuda;
use super::pieces;
use crate::device::{Buffer, Device, Dtype};
use crate::error::{Error, Result};
use crate::model::MultiTaskModel;
use crate::tape::Params;

/// The shadow weights, with the layout of the parameter arena.
#[derive(Clone, Debug)]
pub(super) struct Ema {
    decay: f64,
    shadow: Buffer,
}

impl Ema {
    pub fn new(decay: f64, model: &MultiTaskModel) -> Ema {
        Ema { decay, shadow: Buffer::from_vec(model.encoder().params().arena().to_vec()) }
    }

    /// Brings the shadow to where the model computes, so that no update is the first to need the room.
    ///
    /// # Errors
    /// No room for it.
    pub fn place(&self, model: &MultiTaskModel) -> Result<()> {
        match model.encoder().device() {
            Device::Cpu(_) => Ok(()),
            Device::Cuda(cuda) => self.shadow.on(cuda).map(|_| ()),
        }
    }

    /// Moves the shadow after an update.
    ///
    /// # Errors
    /// Those of the device.
    pub fn update(&mut self, model: &MultiTaskModel) -> Result<()> {
        follow(model.encoder().device(), &mut self.shadow, model.encoder().params(), (1.0 - self.decay) as f32)
    }

    /// Puts the shadow into the model and the model's weights here; twice is as before.
    ///
    /// # Errors
    /// Those of the device.
    pub fn swap(&mut self, model: &mut MultiTaskModel) -> Result<()> {
        model.encoder_mut().params.swap_arena(&mut self.shadow)
    }

    /// # Errors
    /// Those of the device.
    pub fn shadow(&self) -> Result<&[f32]> {
        self.shadow.host()
    }

    /// # Errors
    /// Another number of weights.
    pub fn restore(&mut self, shadow: Vec<f32>) -> Result<()> {
        if shadow.len() != self.shadow.len() {
            let message = format!("{} averaged weights, where the model has {}", shadow.len(), self.shadow.len());
            return Err(Error::argument("EMA", message));
        }
        self.shadow.copy_from(&shadow)
    }
}

/// shadow += share · (θ − shadow), where the weights θ are.
///
/// # Errors
/// Those of the device.
pub(super) fn follow(device: &Device, shadow: &mut Buffer, params: &Params, share: f32) -> Result<()> {
    match device {
        Device::Cpu(cpu) => {
            let weights = params.arena();
            cpu.for_pieces([shadow.host_mut()], pieces::PIECE, |start, [shadow]| {
                for (shadow, weight) in shadow.iter_mut().zip(&weights[start..]) {
                    *shadow += share * (weight - *shadow);
                }
            });
            Ok(())
        }
        Device::Cuda(cuda) => cuda::follow(cuda, shadow.on_mut(cuda)?, params.arena_on(cuda, Dtype::F32)?, share),
    }
}
