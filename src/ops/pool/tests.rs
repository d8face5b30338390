use super::*;
use crate::tape::gradcheck::{check, random};

#[test]
fn pooling_of_sequences_of_any_length_agrees_with_f64() {
    for (width, cu_seqlens) in [(3, vec![0u32]), (1, vec![0, 1]), (5, vec![0, 3, 4, 11]), (33, vec![0, 40])] {
        let tokens = *cu_seqlens.last().unwrap() as usize;
        let cu_seqlens: Arc<[u32]> = cu_seqlens.into();
        for pooling in [Pooling::First, Pooling::Mean, Pooling::Max] {
            let mut x = random([tokens, width], 1);
            if pooling == Pooling::Max {
                // No two alike in a column, in 16 bits either: at a tie a maximum has no slope.
                let number = |i: usize| 1.0 + ((i / width * 17 + i % width * 5) % 41) as f32 / 64.0;
                x.data = (0..tokens * width).map(number).collect();
            }
            check(&[x], None, &|tape, v| pool(tape, v[0], &cu_seqlens, pooling), &|v| {
                let mut y = Vec::new();
                for pair in cu_seqlens.windows(2) {
                    for c in 0..width {
                        let column = (pair[0]..pair[1]).map(|t| v[0][t as usize * width + c]);
                        y.push(match pooling {
                            Pooling::First => v[0][pair[0] as usize * width + c],
                            Pooling::Mean => column.sum::<f64>() / (pair[1] - pair[0]) as f64,
                            Pooling::Max => column.fold(f64::NEG_INFINITY, f64::max),
                        });
                    }
                }
                y
            });
        }
    }
}

#[test]
fn an_empty_sequence_and_wrong_cu_seqlens_are_refused() {
    let params = crate::tape::Params::default();
    let device = crate::Device::cpu(1).unwrap();
    let mut tape = Tape::recording(&params, &device, Default::default(), None);
    let x = tape.leaf_from([2, 1], &[0.0; 2]).unwrap();
    for (cu_seqlens, message) in [
        (vec![0u32, 1, 1, 2], "sequence 1 has no token"),
        (vec![0, 1], "cu_seqlens must rise"),
        (vec![0, 2, 1, 2], "cu_seqlens must rise"),
        (vec![], "cu_seqlens must rise"),
    ] {
        let error = pool(&mut tape, x, &cu_seqlens.into(), Pooling::Mean).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
