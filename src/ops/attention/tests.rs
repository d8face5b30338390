use super::*;
use crate::ops::projections;
use crate::rng::Stream;
use crate::tape::gradcheck::{
    Input, bf16_devices, check_bf16_on, check_narrow, check_wide, cpu_bf16_devices, devices, random, random_with,
    run_on,
};
use crate::tape::{Params, Random, TapeMemory};

/// Probabilities by their definition, then · v; `kept(query, head, key)` is the dropout factor.
fn reference(
    v: &[Vec<f64>],
    [queries, keys]: [&[u32]; 2],
    heads: usize,
    width: usize,
    causal: bool,
    kept: &dyn Fn(usize, usize, usize) -> f64,
) -> Vec<f64> {
    let d = width / heads;
    let mut y = vec![0.0; v[0].len()];
    for (queries, keys) in queries.windows(2).zip(keys.windows(2)) {
        let (first, last) = (keys[0] as usize, keys[1] as usize);
        for head in 0..heads {
            let at = |t: usize| t * width + head * d..t * width + (head + 1) * d;
            for i in queries[0] as usize..queries[1] as usize {
                let end = if causal { i + 1 } else { last };
                let product = |j: usize| v[0][at(i)].iter().zip(&v[1][at(j)]).map(|(q, k)| q * k).sum::<f64>();
                let weights: Vec<f64> = (first..end).map(|j| (product(j) * 0.3f32 as f64).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in (first..end).zip(&weights) {
                    let probability = weight / total * kept(i, head, j - first);
                    y[at(i)].iter_mut().zip(&v[2][at(j)]).for_each(|(y, v)| *y += probability * v);
                }
            }
        }
    }
    y
}

/// The factors of a mask with p = 0.5 of seed 8, step 1, as Philox and the layout of the mask define them: number
/// (query · heads + head) · stride + key is dropped if its word is below 2³¹.
fn kept(dropout: f32, heads: usize, keys: &[u32]) -> impl Fn(usize, usize, usize) -> f64 + use<> {
    let longest = keys.windows(2).map(|p| p[1] - p[0]).max().unwrap() as usize;
    let stream = Stream { seed: 8, step: 1, instance: 0 };
    move |query, head, key| {
        let element = (query * heads + head) * longest.next_multiple_of(4) + key;
        match dropout {
            0.0 => 1.0,
            _ if stream.word(element) >= 1 << 31 => 2.0,
            _ => 0.0,
        }
    }
}

/// In f32, and on a CUDA device in 16 bits, with queries for which scores are about 1: a row that sees one key alone, nearly,
/// has a gradient that is what dy · v and D differ by, nearly nothing, and D is off by what y is rounded. P and y are rounded
/// on the way to the output; to the gradients these two, by way of D, dS, and what is stored; again as much for what
/// cancels in rows of few keys, and twice that for their chance: 16.
fn check(
    inputs: &[Input],
    random: Option<Random>,
    run: &dyn Fn(&mut Tape<'_>, &[Var]) -> Result<Var>,
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    check_wide(inputs, random, run, reference);
    let width = inputs[0].shape.width() as f32;
    let small = inputs.iter().enumerate().map(|(i, input)| {
        let factor = if i == 0 { 1.0 / (0.3 * width.sqrt()).max(1.0) } else { 1.0 };
        Input { data: input.data.iter().map(|x| factor * x).collect(), ..*input }
    });
    check_narrow([4, 16], &small.collect::<Vec<_>>(), random, run, reference);
}

#[test]
fn packed_attention_agrees_with_f64() {
    // Heads of up to 32, 64, 128 and 256 numbers have kernels of their own on a CUDA device.
    for (heads, width, cu_seqlens) in [
        (1, 1, vec![0u32, 1]),
        (2, 6, vec![0, 1, 1, 8, 11]),
        (3, 15, vec![0, 9]),
        (1, 2, vec![0, 150, 153]),
        (2, 66, vec![0, 3, 9]),
        (1, 65, vec![0, 3, 9]),
        (2, 258, vec![0, 4, 5]),
        (1, 256, vec![0, 1, 5]),
    ] {
        let tokens = *cu_seqlens.last().unwrap() as usize;
        let cu_seqlens: Arc<[u32]> = cu_seqlens.into();
        let inputs = [1, 2, 3].map(|seed| random([tokens, width], seed));
        for causal in [false, true] {
            for dropout in [0.0, 0.5] {
                let kept = kept(dropout, heads, &cu_seqlens);
                let options = AttentionOptions { heads, scale: 0.3, causal, dropout };
                check(
                    &inputs,
                    Some(Random::new(8, 1)),
                    &|tape, v| attention(tape, [v[0], v[1], v[2]], &cu_seqlens, options),
                    &|v| reference(v, [&cu_seqlens, &cu_seqlens], heads, width, causal, &kept),
                );
            }
        }
    }
}

/// What nobody wants is not written, and is not missed.
#[test]
fn each_gradient_comes_alone_too() {
    let cu_seqlens: Arc<[u32]> = [0u32, 5, 9].into();
    let options = AttentionOptions { heads: 2, scale: 0.3, causal: false, dropout: 0.0 };
    let kept = kept(0.0, 2, &cu_seqlens);
    for wanted in 0..3 {
        let mut inputs = [1, 2, 3].map(|seed| random([9, 12], seed));
        inputs.iter_mut().enumerate().for_each(|(i, input)| input.differentiable = i == wanted);
        check(&inputs, None, &|tape, v| attention(tape, [v[0], v[1], v[2]], &cu_seqlens, options), &|v| {
            reference(v, [&cu_seqlens, &cu_seqlens], 2, 12, false, &kept)
        });
    }
}

#[test]
fn keys_without_queries_have_gradients_of_zero_and_nothing_at_all_is_fine() {
    let options = AttentionOptions { heads: 2, scale: 0.3, causal: false, dropout: 0.0 };
    for device in devices() {
        for (queries, keys) in [([0u32, 0, 0], [0u32, 2, 5]), ([0, 0, 0], [0, 0, 0])] {
            let rows = keys[2] as usize;
            let params = Params::default();
            let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
            tape.check_slots(true);
            let q = tape.leaf_from([0, 8], &[]).unwrap();
            let [k, v] = [2, 3].map(|seed| tape.leaf_from([rows, 8], &random([rows, 8], seed).data).unwrap());
            let borders = [&Arc::from(queries), &Arc::from(keys)];
            let y = cross_attention(&mut tape, [q, k, v], borders, options).unwrap();
            assert!(tape.view(y).unwrap().data.is_empty());
            let gradients = tape.backward_from(&[(y, &[])], None, &[q, k, v]).unwrap();
            for (gradient, rows) in gradients.iter().zip([0, rows, rows]) {
                assert_eq!(gradient.data(), vec![0.0; rows * 8], "{device:?}");
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

/// x `[rows, in]` · Wᵀ + b, W `[width, in]`.
fn project(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let width_in = weight.len() / bias.len();
    let row = |x: &[f64]| -> Vec<f64> {
        let product = |w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        weight.chunks(width_in).zip(bias).map(|(w, b)| product(w) + b).collect()
    };
    x.chunks(width_in).flat_map(row).collect()
}

/// Self-attention of projected states, or that of queries with borders of their own.
struct Projected {
    queries: Option<Vec<u32>>,
    keys: Vec<u32>,
    heads: usize,
    width: usize,
    /// Width of the states that are projected.
    states: usize,
    dropout: f32,
}

impl Projected {
    fn check(&self) {
        let (run, reference) = (|t: &mut Tape<'_>, v: &[Var]| self.run(t, v), |v: &[_]| self.reference(v));
        check_wide(&self.inputs(), Some(Random::new(8, 1)), &run, &reference);
    }

    /// Three (W, b), then the states, then those of the queries if they are others. Queries and keys have the scale that
    /// makes scores about 1.
    fn inputs(&self) -> Vec<Input> {
        let rows = |borders: &[u32]| *borders.last().unwrap() as usize;
        let deviation = (0.3 * (self.width / self.heads) as f64).powf(-0.5) / (self.states as f64).sqrt();
        let mut inputs = Vec::new();
        for layer in 0..3 {
            inputs.push(random_with([self.width, self.states], 2 + layer, deviation));
            inputs.push(random_with([self.width], 5 + layer, 0.5 * deviation));
        }
        inputs.push(random([rows(&self.keys), self.states], 1));
        if let Some(queries) = &self.queries {
            inputs.push(random([rows(queries), self.states], 9));
        }
        inputs
    }

    fn borders(&self) -> [Arc<[u32]>; 2] {
        [self.queries.as_ref().unwrap_or(&self.keys), &self.keys].map(|borders| borders.as_slice().into())
    }

    fn run(&self, tape: &mut Tape<'_>, v: &[Var]) -> Result<Var> {
        let layers: Vec<(Var, Var)> = v[..6].chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let stacks = match v.get(7) {
            Some(queries) => vec![projections(tape, *queries, &layers[..1])?, projections(tape, v[6], &layers[1..])?],
            None => vec![projections(tape, v[6], &layers)?],
        };
        let options = AttentionOptions { heads: self.heads, scale: 0.3, causal: false, dropout: self.dropout };
        let [queries, keys] = self.borders();
        attention_of_projections(tape, &stacks, self.width, [&queries, &keys], options)
    }

    fn reference(&self, v: &[Vec<f64>]) -> Vec<f64> {
        let (states, [queries, keys]) = (&v[6], self.borders());
        let q = project(v.get(7).unwrap_or(states), &v[0], &v[1]);
        let qkv = [q, project(states, &v[2], &v[3]), project(states, &v[4], &v[5])];
        let kept = kept(self.dropout, self.heads, &keys);
        reference(&qkv, [&queries, &keys], self.heads, self.width, false, &kept)
    }
}

/// Blocks are of 64 queries and 128 keys: the third case has more of both.
#[test]
fn attention_of_projections_agrees_with_f64() {
    for (heads, width, states, keys) in [
        (2, 64, 3, vec![0, 1, 1, 8, 11]),
        (1, 64, 3, vec![0, 5, 9]),
        (1, 32, 1, vec![0, 130, 133]),
        (3, 18, 2, vec![0, 9, 12]),
    ] {
        for dropout in [0.0, 0.5] {
            let case = Projected { queries: None, keys: keys.clone(), heads, width, states, dropout };
            case.check();
        }
    }
}

#[test]
fn one_query_a_sequence_agrees_with_f64_from_projections_and_without() {
    // A sequence without queries may have keys or none.
    let borders = |queries: [u32; 5], keys: [u32; 5]| (queries.to_vec(), keys.to_vec());
    let lengths = borders([0, 1, 2, 3, 4], [0, 140, 141, 148, 150]);
    for (heads, width, states, (queries, keys)) in [
        (2, 64, 2, lengths.clone()),
        (1, 64, 2, lengths),
        (1, 32, 3, borders([0, 1, 1, 1, 2], [0, 4, 9, 9, 11])),
        (1, 32, 1, borders([0, 70, 70, 71, 72], [0, 3, 9, 12, 145])),
    ] {
        for dropout in [0.0, 0.5] {
            let (queries, keys) = (queries.clone(), keys.clone());
            let case = Projected { queries: Some(queries), keys, heads, width, states, dropout };
            case.check();
        }
    }
    let [queries, keys]: [Arc<[u32]>; 2] = [[0u32, 1, 2, 3].into(), [0u32, 150, 151, 155].into()];
    for (heads, width) in [(2, 6), (1, 32), (3, 15)] {
        let inputs = [random([3, width], 1), random([155, width], 2), random([155, width], 3)];
        for dropout in [0.0, 0.5] {
            let options = AttentionOptions { heads, scale: 0.3, causal: false, dropout };
            let kept = kept(dropout, heads, &keys);
            check(
                &inputs,
                Some(Random::new(8, 1)),
                &|tape, v| cross_attention(tape, [v[0], v[1], v[2]], [&queries, &keys], options),
                &|v| reference(v, [&queries, &keys], heads, width, false, &kept),
            );
        }
    }
}

/// Rounded on the way to the output: x and W of q, k and v, these three, and P. To the gradient of x or W: those, and
/// dy; P and v again for dP and D; dS and what it is multiplied with; dq, dk and dv as they are stored; W and x: 27 where
/// every path through the products is counted. Scores are about 1, so the error of P is that of the scores. The gradient
/// of the key's bias is left out: it is 0, and what rounding leaves of it has nothing to be compared with. A CUDA device
/// that stores numbers in 16 bits rounds no more.
#[test]
fn attention_of_projections_in_bf16_is_within_the_error_of_rounding() {
    for (queries, keys) in [(None, vec![0, 1, 8, 19]), (Some(vec![0, 1, 2, 3]), vec![0, 1, 8, 19])] {
        for (heads, width) in [(2, 64), (1, 64)] {
            for dropout in [0.0, 0.5] {
                let (queries, keys) = (queries.clone(), keys.clone());
                let case = Projected { queries, keys, heads, width, states: 24, dropout };
                let (run, reference) = (|t: &mut Tape<'_>, v: &[Var]| case.run(t, v), |v: &[_]| case.reference(v));
                let mut inputs = case.inputs();
                inputs[3].differentiable = false;
                let cpus = cpu_bf16_devices();
                check_bf16_on(&cpus, &inputs, Some(Random::new(8, 1)), [10, 27], &run, &reference);
                check_narrow([10, 27], &inputs, Some(Random::new(8, 1)), &run, &reference);
            }
        }
    }
}

#[test]
fn in_bf16_a_sequence_gives_the_same_bits_alone_and_packed() {
    let borders = [0u32, 5, 205, 206, 270];
    let case = |keys: Vec<u32>| Projected { queries: None, keys, heads: 2, width: 64, states: 24, dropout: 0.0 };
    let packed = case(borders.to_vec());
    let inputs = packed.inputs();
    let upstream = random([270, 64], 20).data;
    for device in bf16_devices() {
        let whole = run_on(&device, &inputs, None, &|tape, v| packed.run(tape, v), &upstream);
        for pair in borders.windows(2) {
            let range = pair[0] as usize..pair[1] as usize;
            let rows = |data: &[f32], width: usize| data[range.start * width..range.end * width].to_vec();
            let alone = case(vec![0, range.len() as u32]);
            let mut inputs = alone.inputs();
            inputs[6].data = rows(&packed.inputs()[6].data, 24);
            let one = run_on(&device, &inputs, None, &|tape, v| alone.run(tape, v), &rows(&upstream, 64));
            assert_eq!(one[0], rows(&whole[0], 64), "{device:?} {range:?}: output");
            assert_eq!(one[7], rows(&whole[7], 24), "{device:?} {range:?}: gradient of the states");
        }
    }
}

#[test]
fn borders_and_stacks_that_do_not_fit_are_refused() {
    let params = Params::default();
    let device = crate::Device::cpu(1).unwrap();
    let options = AttentionOptions { heads: 2, scale: 0.3, causal: false, dropout: 0.0 };
    // Keys of 5 rows, 8 wide; queries of as many rows as they have borders for, unless it is said otherwise.
    let refusal = |rows: usize, queries: &[u32], keys: &[u32], options: AttentionOptions| -> String {
        let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
        let q = tape.leaf_from([rows, 8], &vec![0.5; rows * 8]).unwrap();
        let [k, v] = [(); 2].map(|()| tape.leaf_from([5, 8], &[0.5; 40]).unwrap());
        let error = cross_attention(&mut tape, [q, k, v], [&queries.into(), &keys.into()], options).unwrap_err();
        let stacks = [(q, 1, rows), (k, 2, 5)]
            .map(|(_, layers, rows)| tape.leaf_from([layers, rows, 8], &vec![0.5; layers * rows * 8]).unwrap());
        let borders = [&Arc::from(queries), &Arc::from(keys)];
        let other = attention_of_projections(&mut tape, &stacks, 8, borders, options).unwrap_err();
        assert_eq!(error.to_string(), other.to_string());
        error.to_string()
    };
    for (rows, queries, keys, options, part) in [
        (2, &[0, 1, 2][..], &[0, 2, 4, 5][..], options, "different borders"),
        (2, &[0, 1, 2], &[0, 2, 5], AttentionOptions { causal: true, ..options }, "causal"),
        (2, &[0, 1, 2], &[0, 5, 5], options, "queries but no keys"),
        (3, &[0, 1, 2], &[0, 2, 5], options, "cu_seqlens"),
        (2, &[0, 1, 2], &[0, 2, 4], options, "cu_seqlens"),
        (2, &[0, 2, 1], &[0, 2, 5], options, "cu_seqlens"),
        (2, &[0, 1, 2], &[0, 2, 5], AttentionOptions { heads: 3, ..options }, "3 heads do not divide the width 8"),
    ] {
        let message = refusal(rows, queries, keys, options);
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    // What is not a stack of q, k and v of this width; heads that words of two numbers would be torn between.
    let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
    let mut stack = |extents: [usize; 3]| tape.leaf_from(extents, &vec![0.5; extents.iter().product()]).unwrap();
    let (whole, one, two, short, narrow, wide) =
        (stack([3, 5, 8]), stack([1, 5, 8]), stack([2, 5, 8]), stack([2, 4, 8]), stack([3, 5, 6]), stack([3, 5, 9]));
    let borders: Arc<[u32]> = [0u32, 2, 5].into();
    let mut attend = |stacks: &[Var], width, heads| {
        let options = AttentionOptions { heads, ..options };
        attention_of_projections(&mut tape, stacks, width, [&borders, &borders], options)
    };
    assert!(attend(&[whole], 8, 2).is_ok() && attend(&[one, two], 8, 2).is_ok());
    for (stacks, width, heads) in [
        (&[two][..], 8, 2),
        (&[one, one], 8, 2),
        (&[whole, one], 8, 2),
        (&[two, one], 8, 2),
        (&[one, one, one], 8, 2),
        (&[one, short], 8, 2),
        (&[narrow], 8, 2),
        (&[wide], 9, 3),
        (&[whole], 8, 3),
        (&[whole], 8, 0),
        (&[], 8, 2),
    ] {
        let error = attend(stacks, width, heads).unwrap_err().to_string();
        assert!(error.contains("attention"), "{stacks:?}: {error}");
    }
    // Gradients in words cannot be added up: the second reader of a stack is refused in the backward pass.
    let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
    let stack = tape.leaf_from([3, 5, 8], &[0.5; 120]).unwrap();
    let [a, b] =
        [(); 2].map(|()| attention_of_projections(&mut tape, &[stack], 8, [&borders, &borders], options).unwrap());
    let error = tape.backward_from(&[(a, &[1.0; 40]), (b, &[1.0; 40])], None, &[stack]).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cannot be added up"), "{error}");
}
