//! Random initial weights.

use crate::hash;
use crate::rng::Stream;
use crate::tape::{ParamId, Params};

/// Fills a parameter with N(0, deviation²). The stream depends on the seed and the parameter's name, so that a weight
/// does not depend on what else there is in the model.
pub fn init_normal(params: &mut Params, id: ParamId, deviation: f32, seed: u64) {
    let name = hash::of(params.entry(id).name.as_bytes()).low();
    let stream = Stream { seed, step: name, instance: u32::MAX };
    for (i, value) in params.get_mut(id).iter_mut().enumerate() {
        *value = (deviation as f64 * stream.normal(i)) as f32;
    }
}
