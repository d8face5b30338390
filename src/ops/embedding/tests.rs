use super::*;
use crate::ops::layer_norm::tests::reference as layer_norm_reference;
use crate::rng::Stream;
use crate::tape::Random;
use crate::tape::gradcheck::{check, check_wide, random};

#[test]
fn the_embedding_block_agrees_with_f64() {
    type Case<'a> = (usize, &'a [u32], &'a [u32], &'a [u32]);
    let cases: [Case<'_>; 5] = [
        (4, &[], &[], &[]),
        (3, &[0], &[0], &[0]),
        (7, &[4, 1, 4, 4, 0], &[0, 1, 2, 0, 1], &[0, 0, 1, 1, 0]),
        (65, &[2; 40], &[3; 40], &[1; 40]),
        (3, &[0; 150], &[1; 150], &[1; 150]),
    ];
    for (width, ids, positions, types) in cases {
        let tokens = ids.len();
        let [ids, positions, types]: [Arc<[u32]>; 3] = [ids, positions, types].map(Into::into);
        let inputs = [
            random([5, width], 1),
            random([4, width], 2),
            random([width], 3),
            random([width], 4),
            random([2, width], 5),
            random([tokens, width], 6),
        ];
        let stream = Stream { seed: 1, step: 2, instance: 0 };
        // The last one: as adversarial training asks, the gradient of delta alone.
        for (with_type, with_delta, p, all) in [
            (true, true, 0.0, true),
            (false, false, 0.0, true),
            (true, false, 0.5, true),
            (false, true, 0.5, true),
            (true, true, 0.5, false),
        ] {
            let mut chosen = vec![0, 1, 2, 3];
            chosen.extend(with_type.then_some(4));
            chosen.extend(with_delta.then_some(5));
            let picked: Vec<_> = chosen
                .iter()
                .map(|i| crate::tape::gradcheck::Input {
                    shape: inputs[*i].shape,
                    data: inputs[*i].data.clone(),
                    differentiable: all || *i == 5,
                })
                .collect();
            let delta_at = chosen.len() - 1;
            let run = |tape: &mut Tape<'_>, v: &[Var]| {
                let all = EmbeddingInputs {
                    word: v[0],
                    position: v[1],
                    weight: v[2],
                    bias: v[3],
                    token_type: with_type.then(|| v[4]),
                    delta: with_delta.then(|| v[delta_at]),
                    epsilon: 1e-3,
                    dropout: p,
                };
                embedding(tape, all, &ids, &positions, &types)
            };
            // Of a row of a few numbers nearly all cancels in the gradient: see the tests of layer_norm.
            let check = if width < 8 { check_wide } else { check };
            check(&picked, Some(Random::new(1, 2)), &run, &|v| {
                let mut sum = vec![0.0; tokens * width];
                for t in 0..tokens {
                    for c in 0..width {
                        let s = &mut sum[t * width + c];
                        *s = v[0][ids[t] as usize * width + c] + v[1][positions[t] as usize * width + c];
                        if with_type {
                            *s += v[4][types[t] as usize * width + c];
                        }
                        if with_delta {
                            *s += v[delta_at][t * width + c];
                        }
                    }
                }
                let y = layer_norm_reference(&sum, &v[2], &v[3], 1e-3f32 as f64);
                let kept = |i: usize| {
                    if p == 0.0 {
                        1.0
                    } else if stream.word(i) >= 1 << 31 {
                        2.0
                    } else {
                        0.0
                    }
                };
                y.iter().enumerate().map(|(i, y)| y * kept(i)).collect()
            });
        }
    }
}
