use super::*;
use crate::rng::Stream;
use crate::tape::gradcheck::{check, devices, random};
use crate::tape::{Params, Random, TapeMemory};

/// Probabilities by their definition, then · v; `kept(token, head, key)` is the dropout factor.
fn reference(
    v: &[Vec<f64>],
    cu_seqlens: &[u32],
    heads: usize,
    width: usize,
    causal: bool,
    kept: &dyn Fn(usize, usize, usize) -> f64,
) -> Vec<f64> {
    let d = width / heads;
    let mut y = vec![0.0; v[0].len()];
    for pair in cu_seqlens.windows(2) {
        let (first, last) = (pair[0] as usize, pair[1] as usize);
        for head in 0..heads {
            let at = |t: usize| t * width + head * d;
            for i in first..last {
                let end = if causal { i + 1 } else { last };
                let scores: Vec<f64> = (first..end)
                    .map(|j| (0..d).map(|c| v[0][at(i) + c] * v[1][at(j) + c]).sum::<f64>() * 0.3f32 as f64)
                    .collect();
                let total: f64 = scores.iter().map(|s| s.exp()).sum();
                for (j, score) in (first..end).zip(&scores) {
                    let probability = score.exp() / total * kept(i, head, j - first);
                    for c in 0..d {
                        y[at(i) + c] += probability * v[2][at(j) + c];
                    }
                }
            }
        }
    }
    y
}

#[test]
fn packed_attention_agrees_with_f64() {
    for (heads, width, cu_seqlens) in
        [(1, 1, vec![0u32, 1]), (2, 6, vec![0, 1, 1, 8, 11]), (3, 15, vec![0, 9]), (1, 2, vec![0, 150, 153])]
    {
        let tokens = *cu_seqlens.last().unwrap() as usize;
        let longest = cu_seqlens.windows(2).map(|p| p[1] - p[0]).max().unwrap() as usize;
        let cu_seqlens: Arc<[u32]> = cu_seqlens.into();
        let inputs = [1, 2, 3].map(|seed| random([tokens, width], seed));
        for causal in [false, true] {
            for dropout in [0.0, 0.5] {
                let stream = Stream { seed: 8, step: 1, instance: 0 };
                let kept = |token: usize, head: usize, key: usize| {
                    let element = (token * heads + head) * longest.next_multiple_of(4) + key;
                    if dropout == 0.0 {
                        1.0
                    } else if stream.word(element) >= 1 << 31 {
                        2.0
                    } else {
                        0.0
                    }
                };
                let options = AttentionOptions { heads, scale: 0.3, causal, dropout };
                check(
                    &inputs,
                    Some(Random::new(8, 1)),
                    &|tape, v| attention(tape, [v[0], v[1], v[2]], &cu_seqlens, options),
                    &|v| reference(v, &cu_seqlens, heads, width, causal, &kept),
                );
            }
        }
    }
}

#[test]
fn a_sequence_gives_the_same_bits_alone_and_packed() {
    let (heads, width) = (2, 64);
    let cu_seqlens: Arc<[u32]> = [0u32, 5, 205, 206, 270].into();
    let inputs = [1, 2, 3].map(|seed| random([270, width], seed).data);
    let options = AttentionOptions { heads, scale: 0.2, causal: false, dropout: 0.1 };
    for device in devices() {
        let params = Params::default();
        let run = |range: std::ops::Range<usize>, cu_seqlens: &Arc<[u32]>| {
            let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
            let part = |data: &Vec<f32>| data[range.start * width..range.end * width].to_vec();
            let vars = [0, 1, 2].map(|i| tape.leaf_from([range.len(), width], &part(&inputs[i])).unwrap());
            let y = attention(&mut tape, vars, cu_seqlens, options).unwrap();
            let output = tape.view(y).unwrap().data.to_vec();
            let gradients = tape.backward_from(&[(y, &part(&inputs[0]))], None, &vars).unwrap();
            let mut all = vec![output];
            all.extend(gradients.iter().map(|g| g.data().to_vec()));
            all
        };
        let packed = run(0..270, &cu_seqlens);
        for pair in cu_seqlens.windows(2) {
            let range = pair[0] as usize..pair[1] as usize;
            let alone = run(range.clone(), &[0u32, range.len() as u32].into());
            for (whole, alone) in packed.iter().zip(&alone) {
                assert_eq!(&whole[range.start * width..range.end * width], alone, "{device:?} {range:?}");
            }
        }
    }
}
