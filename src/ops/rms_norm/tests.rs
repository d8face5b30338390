use super::*;
use crate::tape::gradcheck::{check, random};

#[test]
fn rms_norm_agrees_with_f64() {
    for (rows, width) in [(0, 4), (1, 1), (1, 9), (4, 16), (40, 33), (300, 2)] {
        let inputs = [random([rows, width], 1), random([width], 2)];
        check(&inputs, None, &|tape, v| rms_norm(tape, v[0], v[1], 1e-3), &|v| {
            let mut y = Vec::new();
            for row in v[0].chunks(width) {
                let mean = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
                y.extend(row.iter().zip(&v[1]).map(|(x, w)| x / (mean + 1e-3f32 as f64).sqrt() * w));
            }
            y
        });
    }
}
