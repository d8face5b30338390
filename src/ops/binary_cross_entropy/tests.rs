use super::*;
use crate::tape::gradcheck::{check, random};

fn reference(x: f64, t: f64) -> f64 {
    let p = 1.0 / (1.0 + (-x).exp());
    -t * p.ln() - (1.0 - t) * (1.0 - p).ln()
}

#[test]
fn binary_cross_entropy_agrees_with_f64() {
    for (rows, width) in [(1, 1), (3, 5), (2, 17), (3, 200)] {
        let count = rows * width;
        let targets: Arc<[f32]> = (0..count).map(|i| [0.0, 1.0, 0.25][i % 3]).collect();
        let run = |tape: &mut Tape<'_>, v: &[Var]| binary_cross_entropy(tape, v[0], &targets);
        check(&[random([rows, width], 3)], None, &run, &|v| {
            let sum: f64 = (0..count).map(|i| reference(v[0][i], targets[i] as f64)).sum();
            vec![sum / count as f64]
        });
    }
}

#[test]
fn large_logits_neither_overflow_nor_vanish() {
    let logits = [200.0, -200.0, 200.0, -200.0];
    assert_eq!(cpu::forward(&logits, &[1.0, 0.0, 0.0, 1.0]), 400.0);
    assert_eq!((sigmoid(200.0), sigmoid(-200.0), sigmoid(0.0)), (1.0, 0.0, 0.5));
    assert!(cpu::forward(&[f32::NAN], &[0.0]).is_nan());
}
