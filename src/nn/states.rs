//! Hidden states on their way through an encoder: what a student of them asks to see.

use crate::error::{Error, Result};
use crate::tape::Var;

/// Which states are wanted, and those that the encoder has noted down.
///
/// State 0 is the output of the embedding block, state l that of layer l, counted from 1.
#[derive(Clone, Debug, Default)]
pub struct States {
    wanted: Vec<usize>,
    projected: Option<usize>,
    hidden: Vec<Option<Var>>,
    projections: Option<[Var; 3]>,
}

impl States {
    /// Asks for the hidden states of `wanted`, and for the queries, keys and values of layer `projected` (from 1).
    pub fn of(wanted: &[usize], projected: Option<usize>) -> States {
        States { wanted: wanted.to_vec(), projected, hidden: vec![None; wanted.len()], projections: None }
    }

    /// Whether state `layer` is asked for: then it must not be given back to the tape.
    pub fn wants(&self, layer: usize) -> bool {
        self.wanted.contains(&layer)
    }

    /// Whether queries, keys and values of `layer` are asked for.
    pub fn wants_projections(&self, layer: usize) -> bool {
        self.projected == Some(layer)
    }

    /// Notes state `layer` down.
    pub fn note(&mut self, layer: usize, state: Var) {
        for (place, _) in self.hidden.iter_mut().zip(&self.wanted).filter(|(_, wanted)| **wanted == layer) {
            *place = Some(state);
        }
    }

    /// Notes queries, keys and values down, `[T, H]` each.
    pub fn note_projections(&mut self, projections: [Var; 3]) {
        self.projections = Some(projections);
    }

    /// The states in the order that they were asked for in.
    ///
    /// # Errors
    /// One that the encoder does not have.
    pub fn hidden(&self) -> Result<Vec<Var>> {
        let found = self.hidden.iter().zip(&self.wanted);
        found.map(|(state, layer)| state.ok_or_else(|| missing(*layer))).collect()
    }

    /// Queries, keys and values of the layer that was asked for; None if none was.
    ///
    /// # Errors
    /// A layer that the encoder does not have.
    pub fn projections(&self) -> Result<Option<[Var; 3]>> {
        match (self.projected, self.projections) {
            (Some(layer), None) => Err(missing(layer)),
            (_, found) => Ok(found),
        }
    }
}

fn missing(layer: usize) -> Error {
    Error::argument("layer", format!("the encoder has no layer {layer}, or does not show its states"))
}
