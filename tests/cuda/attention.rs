//! Attention over packed sequences, forward and backward.

use crate::harness::*;

pub struct Case {
    pub heads: usize,
    pub head_dim: usize,
    pub queries: Vec<u32>,
    pub keys: Vec<u32>,
    pub scale: f32,
    pub causal: bool,
    pub mask: Mask,
    /// Numbers by which pointers miss a multiple of 16 bytes.
    pub offset: usize,
}

/// What comes out, in f64 or of the device.
pub struct Results<T> {
    pub y: Vec<T>,
    pub log_sum_exp: Vec<T>,
    /// Of q, k and v.
    pub gradients: [Vec<T>; 3],
}

impl Case {
    /// Attention of every token to all tokens of its sequence.
    pub fn new(heads: usize, head_dim: usize, borders: &[u32]) -> Case {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (queries, keys) = (borders.to_vec(), borders.to_vec());
        Case { heads, head_dim, queries, keys, scale, causal: false, mask: Mask::NONE, offset: 0 }
    }

    pub fn across(heads: usize, head_dim: usize, queries: &[u32], keys: &[u32]) -> Case {
        Case { queries: queries.to_vec(), ..Case::new(heads, head_dim, keys) }
    }

    pub fn causal(self) -> Case {
        Case { causal: true, ..self }
    }

    pub fn dropout(self, p: f32) -> Case {
        Case { mask: some_mask(p), ..self }
    }

    pub fn offset(self) -> Case {
        Case { offset: 1, ..self }
    }

    pub fn scale(self, scale: f32) -> Case {
        Case { scale, ..self }
    }

    pub fn what(&self) -> String {
        let Case { heads, head_dim, queries, keys, scale, causal, offset, .. } = self;
        format!("{heads} heads of {head_dim}, {queries:?} to {keys:?}, {scale}, causal {causal}, offset {offset}")
    }

    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    pub fn rows(&self) -> [usize; 2] {
        [&self.queries, &self.keys].map(|borders| *borders.last().unwrap() as usize)
    }

    pub fn mask_stride(&self) -> usize {
        self.keys.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap().next_multiple_of(4) as usize
    }

    /// q, k, v and dy.
    pub fn inputs(&self) -> [Vec<f32>; 4] {
        let [queries, keys] = self.rows().map(|rows| rows * self.width());
        [normals(1, queries), normals(2, keys), normals(3, keys), normals(4, queries)]
    }

    /// Every (row of q, rows of k that it may see, head).
    pub fn rows_and_keys(&self) -> Vec<(usize, std::ops::Range<usize>, usize)> {
        let mut all = Vec::new();
        for (queries, keys) in self.queries.windows(2).zip(self.keys.windows(2)) {
            for query in queries[0]..queries[1] {
                let end = if self.causal { keys[0] + query - queries[0] + 1 } else { keys[1] };
                for head in 0..self.heads {
                    all.push((query as usize, keys[0] as usize..end as usize, head));
                }
            }
        }
        all
    }

    /// The definition, in f64, and the largest score that it has met. Gradients by the formulas of the op's page, which the
    /// first test compares with differences.
    pub fn reference(&self, q: &[f64], k: &[f64], v: &[f64], dy: &[f64]) -> (Results<f64>, f64) {
        let (d, width, stride) = (self.head_dim, self.width(), self.mask_stride());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let add =
            |to: &mut [f64], factor: f64, from: &[f64]| to.iter_mut().zip(from).for_each(|(to, x)| *to += factor * x);
        let mut y = vec![0.0; q.len()];
        let mut log_sum_exp = vec![0.0; q.len() / d];
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|values| vec![0.0; values.len()]);
        let mut largest = 0.0f64;
        for (query, keys, head) in self.rows_and_keys() {
            let at = |row: usize| row * width + head * d..row * width + head * d + d;
            let scores: Vec<f64> =
                keys.clone().map(|key| self.scale as f64 * dot(&q[at(query)], &k[at(key)])).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            largest = scores.iter().fold(largest, |largest, score| largest.max(score.abs()));
            let shift = most + scores.iter().map(|score| (score - most).exp()).sum::<f64>().ln();
            log_sum_exp[query * self.heads + head] = shift;
            // Keys count from the start of the sequence.
            let factor = |i: usize| self.mask.factor((query * self.heads + head) * stride + i);
            let weights: Vec<f64> = scores.iter().map(|score| (score - shift).exp()).collect();
            for (i, (key, weight)) in keys.clone().zip(&weights).enumerate() {
                add(&mut y[at(query)], weight * factor(i), &v[at(key)]);
                add(&mut dv[at(key)], weight * factor(i), &dy[at(query)]);
            }
            let mean = dot(&y[at(query)], &dy[at(query)]);
            for (i, (key, weight)) in keys.clone().zip(&weights).enumerate() {
                let slope = self.scale as f64 * weight * (dot(&dy[at(query)], &v[at(key)]) * factor(i) - mean);
                add(&mut dq[at(query)], slope, &k[at(key)]);
                add(&mut dk[at(key)], slope, &q[at(query)]);
            }
        }
        (Results { y, log_sum_exp, gradients: [dq, dk, dv] }, largest)
    }

    /// The same on the device; a gradient is added to what is there if `add` has something for it.
    fn run(&self, gpu: &Gpu, [q, k, v, dy]: &[Vec<f32>; 4], add: [Option<&[f32]>; 3]) -> Results<f32> {
        let [rows, _] = self.rows();
        let (head, forward, backward) = match self.head_dim {
            0..=32 => (32, (64, 128, 45_056), (64, 128, 54_784)),
            33..=64 => (64, (64, 128, 69_632), (64, 128, 61_696)),
            65..=128 => (128, (64, 128, 76_800), (32, 128, 72_448)),
            _ => (256, (16, 128, 85_504), (8, 64, 84_608)),
        };
        let launch = |(rows, threads, shared): (u32, u32, u32), borders: &[u32]| {
            let longest = borders.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            let grid = [longest.div_ceil(rows).max(1), self.heads as u32, borders.len() as u32 - 1];
            Launch { grid, block: [threads, 1, 1], shared }
        };
        let op = Parameters(self, gpu.upload(&self.queries), gpu.upload(&self.keys));
        let [q, k, v, dy] = [q, k, v, dy].map(|values| gpu.upload_at(values, self.offset));
        let room = |len: usize| match self.offset {
            0 => gpu.room::<f32>(len),
            offset => gpu.upload_at(&vec![f32::NAN; len], offset),
        };
        let (y, log_sum_exp) = (room(rows * self.width()), gpu.room::<f32>(rows * self.heads));
        let [forward_kernel, query_kernel, key_kernel] =
            ["forward", "query_gradient", "key_gradients"].map(|name| format!("attention_{name}_{head}"));
        let arguments: [&dyn Argument; 6] = [&y, &log_sum_exp, &q, &k, &v, &op];
        gpu.launch("attention", &forward_kernel, launch(forward, &self.queries), &arguments);

        let products = gpu.room::<f32>(rows * self.heads);
        let products_launch = Launch::new([(rows * self.heads).div_ceil(8) as u32, 1, 1], [64, 1, 1]);
        let (rows, heads, head_dim) = (rows as u32, self.heads as u32, self.head_dim as u32);
        let arguments: [&dyn Argument; 6] = [&products, &dy, &y, &rows, &heads, &head_dim];
        gpu.launch("attention", "attention_products", products_launch, &arguments);
        let lens = self.rows().map(|rows| rows * self.width());
        let slots = [0, 1, 2].map(|i| match add[i] {
            Some(values) => gpu.upload_at(values, self.offset),
            None => room(lens[i.min(1)]),
        });
        let accumulate = add.map(|values| values.is_some() as i32);
        let arguments: [&dyn Argument; 9] = [&slots[0], &accumulate[0], &q, &k, &v, &dy, &log_sum_exp, &products, &op];
        gpu.launch("attention", &query_kernel, launch(backward, &self.queries), &arguments);
        let arguments: [&dyn Argument; 11] =
            [&slots[1], &accumulate[1], &slots[2], &accumulate[2], &q, &k, &v, &dy, &log_sum_exp, &products, &op];
        gpu.launch("attention", &key_kernel, launch(backward, &self.keys), &arguments);
        Results { y: gpu.read(y), log_sum_exp: gpu.read(log_sum_exp), gradients: slots.map(|slot| gpu.read(slot)) }
    }

    /// What a score, and with it the log-sum-exp, may be off. A score is a chain of head_dim roundings of partial sums, each
    /// off by up to 2⁻²⁴ of about a third of the largest score: they add up like √head_dim, here to some 1.5 times that.
    /// It is rounded when it is scaled, and so are the maximum and L, which is larger by up to the logarithm of the keys.
    pub fn score_error(&self, largest_score: f64) -> f64 {
        let logarithm = (self.mask_stride() as f64).ln();
        6e-8 * (largest_score * (3.0 + (self.head_dim as f64).sqrt() / 2.0) + logarithm + 1.0)
    }

    /// What a result may be off, by its largest number: a probability is off by what its score is; sums over keys or queries
    /// and over the numbers of dy · v follow.
    fn tolerance(&self, largest_score: f64) -> f64 {
        let longest = self.mask_stride().max(self.rows()[0]) as f64;
        self.score_error(largest_score) + 6e-8 * ((self.head_dim as f64).sqrt() + longest.sqrt())
    }

    fn check(&self, gpu: &Gpu) {
        let inputs = self.inputs();
        let [q, k, v, dy] = inputs.each_ref().map(|values| wide(values));
        let (expected, largest) = self.reference(&q, &k, &v, &dy);
        let tolerance = self.tolerance(largest);
        let start = [normals(5, q.len()), normals(6, k.len()), normals(7, k.len())];
        let start = start.each_ref().map(|values| Some(values.as_slice()));
        // Each gradient has a flag of its own.
        for add in [[start[0], None, start[2]], [None, start[1], None]] {
            let got = self.run(gpu, &inputs, add);
            let what =
                |name: &str| format!("{name} of {}, added: {:?}", self.what(), add.map(|values| values.is_some()));
            assert_close(&what("y"), &got.y, &expected.y, tolerance);
            let bound = self.score_error(largest);
            assert_within(&what("log-sum-exp"), &got.log_sum_exp, &expected.log_sum_exp, bound);
            for (i, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
                match add[i] {
                    None => assert_close(&what(name), &got.gradients[i], &expected.gradients[i], tolerance),
                    Some(start) => {
                        let sums = plus(start, &expected.gradients[i]);
                        assert_close(&what(name), &got.gradients[i], &sums, tolerance);
                    }
                }
            }
        }
    }
}

/// `Attention` in attention.cu.
struct Parameters<'a>(&'a Case, Buffer, Buffer);

impl Argument for Parameters<'_> {
    fn words(&self) -> Vec<u64> {
        let Parameters(case, queries, keys) = self;
        let pair = |low: u32, high: u32| low as u64 | (high as u64) << 32;
        let mut words = [queries.words(), keys.words()].concat();
        words.push(pair(case.heads as u32, case.head_dim as u32));
        words.push(pair(case.scale.to_bits(), case.causal as u32));
        words.extend(case.mask.words());
        // The mask ends in the middle of a word.
        *words.last_mut().unwrap() |= (case.mask_stride() as u64) << 32;
        words
    }
}

/// Sequences of one token, of none, of less than a tile, and of more.
pub const BORDERS: [u32; 5] = [0, 1, 1, 6, 77];

#[test]
fn gradients_are_differences_of_the_definition() {
    let gpu = Gpu::new();
    let cases = [
        Case::new(2, 3, &[0, 1, 5]),
        Case::new(1, 4, &[0, 4, 6]).causal().dropout(0.3),
        Case::across(2, 2, &[0, 1, 1, 3], &[0, 4, 6, 8]).dropout(0.2),
    ];
    for case in cases {
        let inputs = case.inputs();
        let [q, k, v, dy] = inputs.each_ref().map(|values| wide(values));
        let (lens, all) = ([q.len(), k.len()], [&q[..], &k, &v].concat());
        let loss = |all: &[f64]| {
            let (q, rest) = all.split_at(lens[0]);
            let (k, v) = rest.split_at(lens[1]);
            let (results, _) = case.reference(q, k, v, &dy);
            results.y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let (expected, largest) = (slopes(&all, loss), case.reference(&q, &k, &v, &dy));
        let got = case.run(&gpu, &inputs, [None; 3]).gradients.concat();
        assert_close(&case.what(), &got, &expected, case.tolerance(largest.1));
        // The formulas that the other tests rely on: differences are good to 1e-9.
        for (formula, expected) in largest.0.gradients.concat().iter().zip(&expected) {
            assert!((formula - expected).abs() < 1e-8, "{}: {formula}, not {expected}", case.what());
        }
    }
}

#[test]
fn heads_of_all_sizes_are_those_of_f64() {
    let gpu = Gpu::new();
    let cases = [
        Case::new(3, 1, &BORDERS),
        Case::new(2, 3, &BORDERS).causal().dropout(0.1),
        Case::new(2, 8, &BORDERS).causal().offset(),
        Case::new(2, 32, &BORDERS).dropout(0.1),
        Case::new(1, 32, &BORDERS).causal(),
        Case::new(2, 33, &BORDERS).causal(),
        Case::new(2, 64, &BORDERS).causal().dropout(0.1),
        Case::new(1, 64, &BORDERS).offset(),
        Case::new(1, 66, &BORDERS).dropout(0.5),
        Case::new(1, 128, &BORDERS).causal().dropout(0.1),
        Case::new(1, 129, &[0, 1, 1, 35]),
        Case::new(1, 256, &[0, 1, 1, 35]).causal().dropout(0.1),
    ];
    cases.iter().for_each(|case| case.check(&gpu));
}

#[test]
fn queries_may_have_borders_of_their_own() {
    let gpu = Gpu::new();
    // The first tokens alone; more queries than keys; a sequence without queries.
    let first = ([0, 1, 2, 3], [0, 3, 70, 75]);
    let across = ([0, 9, 9, 79], [0, 2, 7, 40]);
    for (queries, keys) in [first, across] {
        for head_dim in [20, 64, 96, 160] {
            Case::across(1, head_dim, &queries, &keys).dropout(0.1).check(&gpu);
        }
    }
}

/// Scores that would overflow without their maximum, of either sign, which grows from tile to tile; and a factor of 0.
#[test]
fn scores_may_be_large_and_their_factor_negative_or_zero() {
    let gpu = Gpu::new();
    // With ±60 there are rows whose log-sum-exp is so far below 0 that a key that is not there would have a weight of ∞.
    for (head_dim, scale) in [(16, 12.0), (64, -3.0), (8, 0.0), (16, 60.0), (16, -60.0)] {
        let case = Case::new(1, head_dim, &BORDERS).scale(scale);
        case.check(&gpu);
        case.causal().check(&gpu);
    }
}

/// A sequence gives the same bits alone and between others: tiles count from its start.
#[test]
fn a_sequence_does_not_depend_on_its_neighbours() {
    let gpu = Gpu::new();
    for head_dim in [24, 64] {
        let (packed, alone) =
            (Case::new(2, head_dim, &[0, 5, 75, 80]).causal(), Case::new(2, head_dim, &[0, 70]).causal());
        let inputs = packed.inputs();
        let (from, len) = (5 * packed.width(), 70 * packed.width());
        let all = packed.run(&gpu, &inputs, [None; 3]);
        let one = alone.run(&gpu, &inputs.each_ref().map(|values| values[from..][..len].to_vec()), [None; 3]);
        assert_eq!(one.y, all.y[from..][..len]);
        assert_eq!(one.log_sum_exp, all.log_sum_exp[5 * 2..][..70 * 2]);
        for (one, all) in one.gradients.iter().zip(&all.gradients) {
            assert_eq!(*one, all[from..][..len]);
        }
    }
}

/// Each pointer in turn one number past a multiple of 16 bytes, at a head that vectors could be used for.
#[test]
fn no_pointer_need_be_aligned() {
    let gpu = Gpu::new();
    let case = Case::new(2, 8, &[0, 5, 12]).causal().dropout(0.1);
    let inputs = case.inputs();
    let start = [&inputs[0], &inputs[1], &inputs[2]].map(|values| normals(5, values.len()));
    let run = |shifted: usize| {
        gpu.shift(shifted);
        let Results { y, log_sum_exp, gradients } =
            case.run(&gpu, &inputs, start.each_ref().map(|values| Some(values.as_slice())));
        [vec![y, log_sum_exp], gradients.to_vec()].concat()
    };
    let expected = run(0);
    // Two lists of borders, q, k, v, dy, y, L, D and three gradients.
    for shifted in 1..=12 {
        assert_eq!(run(shifted), expected, "allocation {shifted}");
    }
    gpu.shift(0);
}
