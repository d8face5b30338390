//! Softmax and cross-entropy: rows by width and by groups, weights, smoothing, rows that do not count, masked classes.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::numbers::*;

/// Numbers of a row's statistics.
const STATISTICS: usize = 5;

/// One loss.
#[derive(Clone)]
struct Case {
    /// Borders of the rows; width is that of the rows if they have one.
    borders: Vec<u32>,
    width: Option<usize>,
    logits: Vec<f32>,
    targets: Vec<i32>,
    class_weights: Option<Vec<f32>>,
    sample_weights: Option<Vec<f32>>,
    smoothing: f32,
    reduction: i32,
}

impl Case {
    /// (loss, divisor) by the definition.
    fn reference(&self, logits: &[f64]) -> (f64, f64) {
        let (mut sum, mut weight, mut count) = (0.0, 0.0, 0.0);
        for (row, pair) in self.borders.windows(2).enumerate().filter(|(row, _)| self.targets[*row] >= 0) {
            let x = &logits[pair[0] as usize..pair[1] as usize];
            let maximum = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = maximum + x.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln();
            let class_weight = |c: usize| self.class_weights.as_ref().map_or(1.0, |w| w[c] as f64);
            let sample_weight = self.sample_weights.as_ref().map_or(1.0, |w| w[row] as f64);
            let target = self.targets[row] as usize;
            let open: Vec<usize> = (0..x.len()).filter(|c| x[*c] != f64::NEG_INFINITY).collect();
            let soft: f64 = open.iter().map(|c| class_weight(*c) * (log_sum - x[*c])).sum::<f64>() / open.len() as f64;
            let smoothing = self.smoothing as f64;
            sum +=
                sample_weight * ((1.0 - smoothing) * class_weight(target) * (log_sum - x[target]) + smoothing * soft);
            weight += sample_weight * class_weight(target);
            count += 1.0;
        }
        let divisor = [weight, count, 1.0][self.reduction as usize];
        let divisor = if divisor == 0.0 { 1.0 } else { divisor };
        (sum / divisor, divisor)
    }

    /// Checks kernels of every kind of number, on logits that can be stored in each.
    fn check(&self, what: &str) {
        for kind in KINDS {
            let case = Case { logits: all_stored(kind, &self.logits), ..self.clone() };
            case.check_kind(&Gpu::of(kind), kind, &format!("{kind:?} {what}"));
        }
    }

    fn check_kind(&self, gpu: &Gpu, kind: Dtype, what: &str) {
        let rows = self.targets.len();
        let len = self.logits.len();
        let groups = self.width.is_none().then(|| gpu.upload(&self.borders));
        let (rows_, width_) = (rows as u32, self.width.unwrap_or(0) as u32);
        let targets = gpu.upload(&self.targets);
        let class_weights = self.class_weights.as_ref().map(|weights| gpu.upload(weights));
        let sample_weights = self.sample_weights.as_ref().map(|weights| gpu.upload(weights));
        let upstream = -0.7f32;
        let (loss, divisor) = self.reference(&wide(&self.logits));
        // A masked class has no slope: finite differences of −∞ are no number.
        let slope: Vec<f64> = slopes(&wide(&self.logits), |logits| self.reference(logits).0)
            .iter()
            .map(|slope| if slope.is_nan() { 0.0 } else { slope * upstream as f64 })
            .collect();
        for shifted in 0..5 {
            let block = ROW_BLOCKS[shifted % 3];
            gpu.shift(shifted);
            let launch = Launch::rows(rows, block);
            let logits = put(gpu, kind, &self.logits);
            let statistics = gpu.room::<f32>(STATISTICS * rows);
            gpu.launch(
                "cross_entropy",
                "cross_entropy_forward",
                launch,
                &[&statistics, &logits, &targets, &groups, &class_weights, &rows_, &width_, &self.smoothing],
            );
            let (value, by) = (gpu.room::<f32>(1), gpu.room::<f64>(1));
            gpu.launch(
                "cross_entropy",
                "cross_entropy_reduce",
                Launch::new([1; 3], [block[0], 1, 1]),
                &[&value, &by, &statistics, &targets, &class_weights, &sample_weights, &rows_, &self.reduction],
            );
            // Rows' losses in f32: exp, log and a sum of some terms of one sign, an ulp or two each. Σ exp has an error that
            // log makes an absolute one, and exp2 of numbers of 16 bits may be two ulps off, of an argument rounded once.
            let fast = if kind == Dtype::F32 { 0.0 } else { 5e-7 };
            assert_within(&format!("{what} loss"), &gpu.read(value), &[loss], 1e-6 * loss.abs() + fast);
            // Sums of a few f32 weights, exact in f64 but for the order.
            assert!((gpu.read::<f64>(by)[0] - divisor).abs() <= 1e-14 * divisor, "{what}");
            for (accumulate, shifted) in [(0i32, 0), (1, 1)] {
                gpu.shift(shifted);
                let start = all_stored(kind, &normals(9, len));
                let dlogits = if accumulate == 1 { put(gpu, kind, &start) } else { room(gpu, kind, len) };
                gpu.launch(
                    "cross_entropy",
                    "cross_entropy_backward",
                    launch,
                    &[
                        &dlogits,
                        &accumulate,
                        &gpu.upload(&[upstream]),
                        &by,
                        &statistics,
                        &logits,
                        &targets,
                        &groups,
                        &class_weights,
                        &sample_weights,
                        &rows_,
                        &width_,
                        &self.smoothing,
                    ],
                );
                let expected = if accumulate == 1 { plus(&start, &slope) } else { slope.clone() };
                // p − 1[c], differences of numbers up to 1, times weights: an error of some 6e-8 each.
                let most = |weights: &Option<Vec<f32>>| weights.iter().flatten().fold(1.0f32, |a, b| a.max(*b)) as f64;
                let size = most(&self.class_weights) * most(&self.sample_weights) / divisor + 3.0 * accumulate as f64;
                let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
                let stored = if kind == Dtype::F32 { 0.0 } else { unit(kind) * largest };
                let fast = if kind == Dtype::F32 { 1.0 } else { 4.0 };
                let got = get(gpu, kind, dlogits);
                assert_within(&format!("{what} dlogits"), &got, &expected, fast * 5e-7 * size + stored);
            }
        }
    }
}

#[test]
fn rows_by_width() {
    for (rows, width) in [(1usize, 1usize), (1, 2), (9, 3), (6, 17), (3, 4), (2, 264), (3, 301)] {
        for reduction in 0..3 {
            let weights = reduction != 1 || width == 17;
            let case = Case {
                borders: (0..=rows).map(|row| (row * width) as u32).collect(),
                width: Some(width),
                logits: normals(1, rows * width).iter().map(|x| 40.0 + 3.0 * x).collect(),
                targets: (0..rows).map(|row| if row % 4 == 3 { -1 } else { (row * 5 % width) as i32 }).collect(),
                class_weights: weights.then(|| (0..width).map(|c| 0.5 + (c % 7) as f32).collect()),
                sample_weights: weights.then(|| (0..rows).map(|row| 0.25 * (row % 5 + 1) as f32).collect()),
                smoothing: if reduction == 0 { 0.0 } else { 0.2 },
                reduction,
            };
            case.check(&format!("{rows} x {width} {reduction}"));
        }
    }
}

#[test]
fn rows_by_groups_masked_classes_and_no_row_that_counts() {
    let mut case = Case {
        borders: vec![0, 3, 4, 11, 50],
        width: None,
        logits: normals(2, 50),
        targets: vec![2, 0, -1, 30],
        class_weights: None,
        sample_weights: Some(vec![0.5, 2.0, 1.0, 1.5]),
        smoothing: 0.1,
        reduction: 0,
    };
    case.check("groups");
    for masked in [0, 5, 12, 49] {
        case.logits[masked] = f32::NEG_INFINITY;
    }
    case.check("masked");
    case.targets = vec![-1; 4];
    case.check("none counts");
}

/// Rows of a vocabulary: every thread has several packs, more than it reads at once; rows begin at all places of a pack, and
/// the largest logit comes late.
#[test]
fn long_rows_of_odd_width() {
    let (rows, width) = (3usize, 9001usize);
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        let mut logits: Vec<f32> = normals(1, rows * width).iter().map(|x| 2.0 * x).collect();
        logits[width - 3] = 15.0;
        logits[width + 5] = f32::NEG_INFINITY;
        let logits = all_stored(kind, &logits);
        let targets = [17i32, 4, 9000];
        let (smoothing, rows_, width_, none) = (0.1f32, rows as u32, width as u32, None::<Buffer>);
        // Of one row by itself, in f64.
        let (mut losses, mut slopes) = (vec![], vec![]);
        for (x, target) in logits.chunks(width).zip(targets) {
            let x = wide(x);
            let maximum = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = maximum + x.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln();
            let open = x.iter().filter(|x| x.is_finite()).count() as f64;
            let soft: f64 = x.iter().filter(|x| x.is_finite()).map(|x| log_sum - x).sum();
            let smoothing = smoothing as f64;
            losses.push((1.0 - smoothing) * (log_sum - x[target as usize]) + smoothing / open * soft);
            slopes.extend(x.iter().enumerate().map(|(c, x)| {
                let hard = if c == target as usize { 1.0 - smoothing } else { 0.0 };
                if x.is_finite() { (x - log_sum).exp() - hard - smoothing / open } else { 0.0 }
            }));
        }
        // dlogits as far from a multiple of 16 bytes as the logits, and not.
        for shifted in [0, 1, 5] {
            gpu.shift(shifted);
            let (x, t) = (put(&gpu, kind, &logits), gpu.upload(&targets));
            let (statistics, one, by) = (gpu.room::<f32>(STATISTICS * rows), gpu.upload(&[1f32]), gpu.upload(&[1f64]));
            let launch = Launch::rows(rows, [256, 1]);
            let arguments: [&dyn Argument; 8] = [&statistics, &x, &t, &none, &none, &rows_, &width_, &smoothing];
            gpu.launch("cross_entropy", "cross_entropy_forward", launch, &arguments);
            let dx = room(&gpu, kind, rows * width);
            gpu.launch(
                "cross_entropy",
                "cross_entropy_backward",
                launch,
                &[&dx, &0i32, &one, &by, &statistics, &x, &t, &none, &none, &none, &rows_, &width_, &smoothing],
            );
            let statistics: Vec<f32> = gpu.read(statistics);
            let got: Vec<f32> = statistics.chunks(STATISTICS).map(|row| row[2]).collect();
            // Sums of 36 terms of one sign in each thread, and log: a few ulps; two more of exp2.
            assert_close(&format!("{kind:?} {shifted} losses"), &got, &losses, 1e-6);
            // p and what is taken from it, some ulps of f32 each, and what is stored: the shares of the smoothing are 1e-5.
            for (c, (got, slope)) in get(&gpu, kind, dx).into_iter().zip(&slopes).enumerate() {
                let bound = 1e-6 * (slope.abs() + 0.1) + unit(kind) * slope.abs();
                assert!((got as f64 - slope).abs() <= bound, "{kind:?} {shifted} dlogits[{c}]: {got}, not {slope}");
            }
        }
    }
}

#[test]
fn a_logit_that_is_no_number_shows_in_the_loss() {
    let (hidden, none): (f32, Option<Buffer>) = (f32::NEG_INFINITY, None);
    for row in
        [vec![f32::NAN, 1.0, 2.0], vec![hidden, hidden, hidden, hidden, f32::NAN, 1.0], vec![1.0, f32::NAN, hidden]]
    {
        for (kind, block) in KINDS.into_iter().zip(ROW_BLOCKS) {
            let gpu = Gpu::of(kind);
            let statistics = gpu.room::<f32>(STATISTICS);
            let target = row.iter().position(|logit| *logit == 1.0).unwrap() as i32;
            gpu.launch(
                "cross_entropy",
                "cross_entropy_forward",
                Launch::rows(1, block),
                &[
                    &statistics,
                    &put(&gpu, kind, &row),
                    &gpu.upload(&[target]),
                    &none,
                    &none,
                    &1u32,
                    &(row.len() as u32),
                    &0.0f32,
                ],
            );
            assert!(gpu.read::<f32>(statistics)[2].is_nan(), "{row:?}");
        }
    }
}
