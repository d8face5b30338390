//! Shadows that tell races: who touched a word last, and when.

/// One shadow per allocation of global memory; made when a checked launch first touches it.
pub(crate) struct GlobalShadow {}

impl GlobalShadow {
    pub fn new(_bytes: u64) -> Option<GlobalShadow> {
        Some(GlobalShadow {})
    }
}
