//! Random initial weights.

use crate::rng::Stream;
use crate::tape::{ParamId, Params};

/// Fills a parameter with N(0, deviation²). The stream depends on the seed and the parameter's name, so that a weight
/// does not depend on what else there is in the model.
pub fn init_normal(params: &mut Params, id: ParamId, deviation: f32, seed: u64) {
    // FNV-1a of the name.
    let hash = params.entry(id).name.bytes();
    let hash = hash.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3));
    let stream = Stream { seed, step: hash, instance: u32::MAX };
    for (i, value) in params.get_mut(id).iter_mut().enumerate() {
        *value = (deviation as f64 * stream.normal(i)) as f32;
    }
}
