use super::*;
use crate::rng::Stream;
use crate::tape::Random;
use crate::tape::gradcheck::{check, random};

#[test]
fn dropout_agrees_with_f64_and_its_mask_is_drawn_again_in_the_backward_pass() {
    for (rows, width) in [(0, 5), (1, 1), (3, 33), (40, 511)] {
        let stream = Stream { seed: 3, step: 9, instance: 4 };
        let random_state = Random { seed: 3, step: 9, instance: 4 };
        check(&[random([rows, width], 1)], Some(random_state), &|tape, v| dropout(tape, v[0], 0.25), &|v| {
            let kept = |i: usize| stream.word(i) >= 1 << 30;
            v[0].iter().enumerate().map(|(i, x)| if kept(i) { x / 0.75 } else { 0.0 }).collect()
        });
    }
}

#[test]
fn without_random_state_or_with_p_0_dropout_is_the_identity() {
    let params = crate::tape::Params::default();
    let device = crate::Device::cpu(1).unwrap();
    let mut tape = Tape::recording(&params, &device, Default::default(), None);
    let x = tape.leaf_from([2], &[1.0, 2.0]).unwrap();
    assert_eq!(dropout(&mut tape, x, 0.5).unwrap(), x);
    tape.set_random(Some(Random::new(1, 1)));
    assert_eq!(dropout(&mut tape, x, 0.0).unwrap(), x);
    let y = dropout(&mut tape, x, 0.5).unwrap();
    assert!(y != x);
}
