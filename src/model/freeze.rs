//! What of an encoder is not trained, and how fast the heads are.

use super::MultiTaskModel;
use crate::encoders::Place;
use crate::error::{Error, Result};

/// What is frozen: it gets no gradient, no decay, and no update. Heads never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Freeze {
    /// Nothing more than is frozen already.
    #[default]
    Nothing,
    /// The embeddings, their normalisation included.
    Embeddings,
    /// All of the encoder, its own pooler included.
    Encoder,
    /// The embeddings and the first N layers.
    Layers(usize),
}

impl Freeze {
    /// Reads the value of `--freeze`: `embeddings`, `encoder`, or a number of layers.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Freeze> {
        match text {
            "embeddings" => Ok(Freeze::Embeddings),
            "encoder" => Ok(Freeze::Encoder),
            _ => text.parse().map(Freeze::Layers).map_err(|_| {
                let message = format!("'{text}' is none of embeddings, encoder, or a number of layers");
                Error::argument("--freeze", message)
            }),
        }
    }
}

impl MultiTaskModel {
    /// Freezes a part of the encoder. What is frozen already stays so.
    ///
    /// # Errors
    /// More layers than there are.
    pub fn freeze(&mut self, freeze: Freeze) -> Result<()> {
        let net = &self.encoder.net;
        let params = &self.encoder.params;
        let is_head = |name: &str| name.starts_with("heads.");
        let places: Vec<(_, Place)> = params.ids().map(|id| (id, net.place(&params.entry(id).name))).collect();
        let layers = places.iter().filter_map(|(_, place)| match place {
            Place::Layer(layer) => Some(layer + 1),
            _ => None,
        });
        let layers = layers.max().unwrap_or(0);
        if let Freeze::Layers(count) = freeze
            && count > layers
        {
            let message = format!("{count} layers; the encoder has {layers} (all of it: --freeze encoder)");
            return Err(Error::argument("--freeze", message));
        }
        for (id, place) in places {
            let frozen = match (freeze, place) {
                (Freeze::Nothing, _) => false,
                (Freeze::Encoder, _) => !is_head(&self.encoder.params.entry(id).name),
                (_, Place::Embeddings) => true,
                (Freeze::Layers(count), Place::Layer(layer)) => layer < count,
                _ => false,
            };
            if frozen {
                self.encoder.params.set_trainable(id, false);
            }
        }
        Ok(())
    }

    /// Gives the parameters of each task's head the multiplier η_task / `base` of the learning rate, where η_task is the
    /// task's own `learning_rate` (1 where it has none): with a schedule of peak `base` they then peak at η_task. The
    /// encoder, its own pooler included, keeps `base`.
    pub fn set_head_rates(&mut self, base: f64) {
        let rates: Vec<(String, f64)> = self
            .tasks()
            .map(|task| (format!("heads.{}.", task.name), task.learning_rate.map_or(1.0, |rate| rate / base)))
            .collect();
        let params = &mut self.encoder.params;
        let ids: Vec<_> = params.ids().collect();
        for id in ids {
            let name = &params.entry(id).name;
            // The longest name wins: tasks may be called `a` and `a.b`.
            let own = rates.iter().filter(|(prefix, _)| name.starts_with(prefix.as_str()));
            let rate = own.max_by_key(|(prefix, _)| prefix.len()).map_or(1.0, |(_, rate)| *rate);
            params.set_rate(id, rate);
        }
    }
}
