//! Softmax and cross-entropy: rows by width and by groups, weights, smoothing, rows that do not count, masked classes.

use crate::harness::*;

/// One loss.
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

    fn check(&self, gpu: &Gpu, what: &str) {
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
            let logits = gpu.upload(&self.logits);
            let statistics = gpu.room::<f32>(3 * rows);
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
            // Rows' losses in f32: exp, log and a sum of some terms of one sign, an ulp or two each.
            assert_close(&format!("{what} loss"), &gpu.read(value), &[loss], 1e-6);
            // Sums of a few f32 weights, exact in f64 but for the order.
            assert!((gpu.read::<f64>(by)[0] - divisor).abs() <= 1e-14 * divisor, "{what}");
            for (accumulate, shifted) in [(0i32, 0), (1, 1)] {
                gpu.shift(shifted);
                let start = normals(9, len);
                let dlogits = if accumulate == 1 { gpu.upload(&start) } else { gpu.room::<f32>(len) };
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
                assert_within(&format!("{what} dlogits"), &gpu.read(dlogits), &expected, 5e-7 * size);
            }
        }
    }
}

#[test]
fn rows_by_width() {
    let gpu = Gpu::new();
    for (rows, width) in [(1usize, 1usize), (1, 2), (9, 3), (6, 17), (3, 4), (2, 260)] {
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
            case.check(&gpu, &format!("{rows} x {width} {reduction}"));
        }
    }
}

#[test]
fn rows_by_groups_masked_classes_and_no_row_that_counts() {
    let gpu = Gpu::new();
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
    case.check(&gpu, "groups");
    for masked in [0, 5, 12, 49] {
        case.logits[masked] = f32::NEG_INFINITY;
    }
    case.check(&gpu, "masked");
    case.targets = vec![-1; 4];
    case.check(&gpu, "none counts");
}

#[test]
fn a_logit_that_is_no_number_shows_in_the_loss() {
    let gpu = Gpu::new();
    let (hidden, none): (f32, Option<Buffer>) = (f32::NEG_INFINITY, None);
    for row in
        [vec![f32::NAN, 1.0, 2.0], vec![hidden, hidden, hidden, hidden, f32::NAN, 1.0], vec![1.0, f32::NAN, hidden]]
    {
        for block in ROW_BLOCKS {
            let statistics = gpu.room::<f32>(3);
            let target = row.iter().position(|logit| *logit == 1.0).unwrap() as i32;
            gpu.launch(
                "cross_entropy",
                "cross_entropy_forward",
                Launch::rows(1, block),
                &[
                    &statistics,
                    &gpu.upload(&row),
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
