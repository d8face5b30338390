use super::*;
use crate::tape::gradcheck::{check, devices, random};

/// The loss by its definition, row by row.
pub fn reference(logits: &[f64], groups: &[u32], targets: &[i32], options: &CrossEntropyOptions) -> f64 {
    let (mut sum, mut weight, mut count) = (0.0, 0.0, 0.0);
    for (row, pair) in groups.windows(2).enumerate() {
        if targets[row] == IGNORE {
            continue;
        }
        let x = &logits[pair[0] as usize..pair[1] as usize];
        let maximum = x.iter().cloned().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = maximum + x.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln();
        let class_weight = |c: usize| options.class_weights.as_ref().map_or(1.0, |w| w[c] as f64);
        let sample_weight = options.sample_weights.as_ref().map_or(1.0, |w| w[row] as f64);
        let target = targets[row] as usize;
        let open: Vec<usize> = (0..x.len()).filter(|c| x[*c].is_finite()).collect();
        let soft: f64 = open.iter().map(|c| class_weight(*c) * (log_sum - x[*c])).sum::<f64>() / open.len() as f64;
        let smoothing = options.smoothing as f64;
        sum += sample_weight * ((1.0 - smoothing) * class_weight(target) * (log_sum - x[target]) + smoothing * soft);
        weight += sample_weight * class_weight(target);
        count += 1.0;
    }
    match options.reduction {
        Reduction::Mean => sum / weight,
        Reduction::RowMean => sum / count,
        Reduction::Sum => sum,
    }
}

#[test]
fn cross_entropy_with_all_options_agrees_with_f64() {
    for (rows, width) in [(1, 2), (5, 3), (40, 17)] {
        let groups: Vec<u32> = (0..=rows as u32).map(|i| i * width as u32).collect();
        let targets: Arc<[i32]> =
            (0..rows as i32).map(|i| if i % 4 == 3 { IGNORE } else { i * 5 % width as i32 }).collect();
        let class_weights: Arc<[f32]> = (0..width).map(|c| 0.5 + c as f32).collect();
        let sample_weights: Arc<[f32]> = (0..rows).map(|r| 0.25 * (r % 5 + 1) as f32).collect();
        for smoothing in [0.0, 0.2] {
            for reduction in [Reduction::Mean, Reduction::RowMean, Reduction::Sum] {
                for weights in [false, true] {
                    let options = CrossEntropyOptions {
                        rows: Rows::Width,
                        class_weights: weights.then(|| class_weights.clone()),
                        sample_weights: weights.then(|| sample_weights.clone()),
                        smoothing,
                        reduction,
                    };
                    check(
                        &[random([rows, width], 1)],
                        None,
                        &|tape, v| cross_entropy(tape, v[0], &targets, options.clone()),
                        &|v| vec![reference(&v[0], &groups, &targets, &options)],
                    );
                }
            }
        }
    }
}

#[test]
fn groups_of_different_size_agree_with_f64() {
    let groups: Arc<[u32]> = [0u32, 3, 4, 9].into();
    let targets: Arc<[i32]> = [2, 0, IGNORE].into();
    let options = CrossEntropyOptions { rows: Rows::Groups(groups.clone()), smoothing: 0.1, ..Default::default() };
    check(&[random([9, 1], 1)], None, &|tape, v| cross_entropy(tape, v[0], &targets, options.clone()), &|v| {
        vec![reference(&v[0], &groups, &targets, &options)]
    });
}

fn run(device: &Device, logits: &[f32], width: usize, targets: &[i32]) -> Result<(f32, Vec<f32>)> {
    let params = crate::tape::Params::default();
    let mut tape = Tape::recording(&params, device, Default::default(), None);
    tape.check_slots(true);
    let x = tape.leaf_from([logits.len() / width, width], logits)?;
    let options = CrossEntropyOptions { smoothing: 0.1, ..Default::default() };
    let loss = cross_entropy(&mut tape, x, &targets.to_vec().into(), options)?;
    let gradient = tape.gradient(loss, &[x])?;
    Ok((tape.scalar(loss)?, gradient[0].data().to_vec()))
}

#[test]
fn huge_and_masked_logits_give_finite_losses_and_no_gradient_to_masked_classes() {
    for device in devices() {
        let (loss, gradient) = run(&device, &[1e4, -1e4, f32::NEG_INFINITY, 0.0], 4, &[0]).unwrap();
        // Smoothing over the three open classes: 0.1 / 3 · (0 + 2e4 + 1e4).
        assert!((loss - 1000.0).abs() < 1e-2, "{device:?}: {loss}");
        assert_eq!(gradient[2], 0.0);
        assert!(gradient.iter().all(|g| g.is_finite()), "{device:?}: {gradient:?}");
    }
}

#[test]
fn masked_and_impossible_targets_are_refused_and_no_counted_row_gives_zero() {
    for device in devices() {
        let masked = run(&device, &[0.0, f32::NEG_INFINITY], 2, &[1]);
        match &device {
            Device::Cpu(_) => {
                let expected = "cross_entropy: target 1 of row 0 is a masked class (its logit is -inf)";
                assert_eq!(masked.unwrap_err().to_string(), expected);
            }
            // The host does not see the logits.
            Device::Cuda(_) => assert_eq!(masked.unwrap().0, f32::INFINITY),
        }
        assert!(run(&device, &[0.0, 0.0], 2, &[2]).unwrap_err().to_string().contains("not one of 2 classes"));
        assert!(run(&device, &[0.0, 0.0], 2, &[-2]).is_err());
        assert_eq!(run(&device, &[0.0, 0.0], 2, &[IGNORE]).unwrap(), (0.0, vec![0.0, 0.0]), "{device:?}");
        assert_eq!(run(&device, &[], 2, &[]).unwrap(), (0.0, vec![]), "{device:?}");
    }
}
