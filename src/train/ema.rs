//! The exponential moving average of the weights.
//!
//! After each update: shadow ← γ · shadow + (1 − γ) · θ, in f32 as shadow += (1 − γ)(θ − shadow); it begins as the
//! weights before the first update. Evaluation and the best model take the shadow, training the weights themselves.
//! (MT-DNN 0.1, where this comes from with γ = 0.995, stored the live weights under the name of the shadow.)

use super::pieces;
use crate::error::{Error, Result};
use crate::model::MultiTaskModel;

/// The shadow weights, with the layout of the parameter arena.
#[derive(Clone, Debug)]
pub(super) struct Ema {
    decay: f64,
    shadow: Vec<f32>,
}

impl Ema {
    pub fn new(decay: f64, model: &MultiTaskModel) -> Ema {
        Ema { decay, shadow: model.encoder().params().arena().to_vec() }
    }

    /// Moves the shadow after an update.
    pub fn update(&mut self, model: &MultiTaskModel) {
        let share = (1.0 - self.decay) as f32;
        let weights = model.encoder().params().arena();
        model.encoder().device().host().for_pieces([&mut self.shadow], pieces::PIECE, |start, [shadow]| {
            for (shadow, weight) in shadow.iter_mut().zip(&weights[start..]) {
                *shadow += share * (weight - *shadow);
            }
        });
    }

    /// Puts the shadow into the model and the model's weights here; twice is as before.
    pub fn swap(&mut self, model: &mut MultiTaskModel) {
        let weights = model.encoder_mut().params.arena_mut();
        // Of one length: `restore` sees to it.
        weights.iter_mut().zip(&mut self.shadow).for_each(|(weight, shadow)| std::mem::swap(weight, shadow));
    }

    pub fn shadow(&self) -> &[f32] {
        &self.shadow
    }

    /// # Errors
    /// Another number of weights.
    pub fn restore(&mut self, shadow: Vec<f32>) -> Result<()> {
        if shadow.len() != self.shadow.len() {
            let message = format!("{} averaged weights, where the model has {}", shadow.len(), self.shadow.len());
            return Err(Error::argument("EMA", message));
        }
        self.shadow = shadow;
        Ok(())
    }
}
