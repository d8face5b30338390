//! Loss scaling for f16, whose smallest numbers are 6e-8.
//!
//! The loss is multiplied by S before the backward pass, and the gradients of the parameters by 1/S in the optimizer's step:
//! small gradients of activations do not vanish (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2). S
//! is a power of two, so that nothing is rounded by it. It is halved when a gradient overflows, and that update is left
//! out; it is doubled after 2,000 updates in which none did.

/// Where it begins.
const FIRST: f64 = 65_536.0;
/// It goes no higher: an f32 gradient would overflow before an f16 one does.
const MOST: f64 = 16_777_216.0;
/// Updates without an overflow after which it is doubled.
const INTERVAL: u64 = 2000;

/// The factor of the loss, and for how many updates it has held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// S.
    pub scale: f64,
    /// Updates since it last changed.
    pub held: u64,
}

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale { scale: FIRST, held: 0 }
    }
}

impl LossScale {
    /// A scale that a checkpoint holds; None if it is none that a run can have.
    pub fn restored(scale: f64, held: u64) -> Option<LossScale> {
        let possible = (1.0..=MOST).contains(&scale) && scale.log2().fract() == 0.0 && held < INTERVAL;
        possible.then_some(LossScale { scale, held })
    }

    /// Takes account of an update; whether it may be made. At S = 1 an overflow is not one that a scale can help.
    pub fn allows(&mut self, finite: bool) -> bool {
        if finite {
            self.held += 1;
            if self.held == INTERVAL {
                *self = LossScale { scale: (2.0 * self.scale).min(MOST), held: 0 };
            }
        } else if self.scale > 1.0 {
            *self = LossScale { scale: self.scale / 2.0, held: 0 };
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_halve_it_and_two_thousand_updates_without_double_it() {
        let mut scale = LossScale::default();
        assert!(!scale.allows(false) && !scale.allows(false));
        assert_eq!(scale, LossScale { scale: 16_384.0, held: 0 });
        for update in 1..=2000 {
            assert_eq!(scale.scale, 16_384.0, "update {update}");
            assert!(scale.allows(true));
        }
        assert_eq!(scale, LossScale { scale: 32_768.0, held: 0 });
        (0..20).for_each(|_| {
            scale.allows(false);
        });
        assert!(scale.scale == 1.0 && scale.allows(false), "nothing is left to halve: the gradients are at fault");
        (0..100_000).for_each(|_| {
            scale.allows(true);
        });
        assert_eq!(scale.scale, 16_777_216.0);
    }

    #[test]
    fn only_what_a_run_can_have_is_restored() {
        assert_eq!(LossScale::restored(4096.0, 7), Some(LossScale { scale: 4096.0, held: 7 }));
        for (scale, held) in [(0.5, 0), (3.0, 0), (f64::NAN, 0), (33_554_432.0, 0), (2.0, 2000), (-2.0, 1)] {
            assert_eq!(LossScale::restored(scale, held), None, "{scale} {held}");
        }
    }
}
