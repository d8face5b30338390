use super::*;
use crate::tape::gradcheck::{check, random};

#[test]
fn squared_errors_agree_with_f64() {
    // None; more than one block of a GPU has.
    for count in [0, 1, 7, 1500] {
        let weights: Arc<[f32]> = (0..count).map(|i| 0.5 + i as f32).collect();
        for (weighted, reduction) in
            [(false, Reduction::Mean), (true, Reduction::Mean), (true, Reduction::RowMean), (true, Reduction::Sum)]
        {
            let chosen = weighted.then(|| weights.clone());
            let run = |tape: &mut Tape<'_>, v: &[Var]| weighted_mse(tape, v[0], v[1], chosen.clone(), reduction);
            check(&[random([count, 1], 1), random([count], 2)], None, &run, &|v| {
                let w = |i: usize| if weighted { weights[i] as f64 } else { 1.0 };
                let sum: f64 = (0..count).map(|i| w(i) * (v[0][i] - v[1][i]).powi(2)).sum();
                let total: f64 = (0..count).map(w).sum();
                // Of nothing it is 0.
                let over = |divisor: f64| if divisor == 0.0 { sum } else { sum / divisor };
                vec![match reduction {
                    Reduction::Sum => sum,
                    Reduction::RowMean => over(count as f64),
                    Reduction::Mean => over(total),
                }]
            });
        }
    }
}
