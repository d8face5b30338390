//! What a term adds to the loss and to its gradients.

use super::*;

#[test]
fn without_perturbation_and_with_the_same_masks_smart_is_the_plain_loss() {
    let (_world, model, data) = prepared();
    for task in 0..model.tasks().len() {
        let batch = Batch::new(&model, &data, task);
        let (plain, plain_gradients) = step(&batch, &AdversarialOptions::default());
        assert_eq!(plain.terms, [("task", plain.loss)]);
        for method in [Method::Smart, Method::Alum, Method::Pdr] {
            let still = with(method, |settings| (settings.noise, settings.epsilon) = (Some(0.0), Some(0.0)));
            let (report, gradients) = step(&batch, &still);
            assert_eq!((report.loss, term(&report, method.name())), (plain.loss, 0.0), "{task} {method:?}");
            assert_eq!(report.perturbations, [(method.name(), 0.0)]);
            // The other pass adds zeros, up to rounding of sums.
            assert!(distance(&gradients, &plain_gradients) <= 1e-5 * size(&plain_gradients), "{task} {method:?}");
        }
        // With fresh masks the term is that of two dropouts.
        let fresh =
            with(Method::Smart, |s| (s.noise, s.epsilon, s.dropout) = (Some(0.0), Some(0.0), Some(Masks::Fresh)));
        assert!(term(&step(&batch, &fresh).0, "smart") > 1e-6, "task {task}");
    }
}

#[test]
fn perturbations_have_the_size_that_they_should_and_climb() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    for (norm, level) in [
        (Norm::Inf, Level::Token),
        (Norm::Inf, Level::Sequence),
        (Norm::L2, Level::Token),
        (Norm::L2, Level::Sequence),
        (Norm::L1, Level::Token),
        (Norm::L1, Level::Sequence),
    ] {
        let large = with(Method::Smart, |s| {
            (s.norm, s.level, s.steps) = (Some(norm), Some(level), Some(3));
            (s.noise, s.step_size, s.epsilon) = (Some(1e-3), Some(10.0), Some(0.5));
        });
        let (report, _) = step(&batch, &large);
        let (_, found) = report.perturbations[0];
        assert!((found - 0.5).abs() < 1e-4, "{norm:?} {level:?}: {found}");
        // Without a projection that acts, a step goes along the gradient, and up.
        let free = with(Method::Smart, |s| {
            (s.norm, s.level, s.steps) = (Some(norm), Some(level), Some(2));
            (s.noise, s.step_size, s.epsilon) = (Some(1e-3), Some(1e-2), Some(1e6));
        });
        let (report, _) = step(&batch, &free);
        assert_eq!(report.trace.len(), 3);
        for pair in report.trace.windows(2) {
            let moved = pair[1].perturbation.iter().zip(&pair[0].perturbation).map(|(a, b)| a - b);
            let along: f64 = moved.zip(&pair[1].gradient).map(|(m, g)| (m * g) as f64).sum();
            assert!(along > 0.0, "{norm:?} {level:?}");
        }
        assert!(report.trace[2].loss > report.trace[1].loss, "{norm:?} {level:?}: the second step starts higher");
    }
}

#[test]
fn every_method_works_on_every_kind_of_task_and_none_leaves_a_parameter_out() {
    let (_world, model, data) = prepared();
    for task in 0..model.tasks().len() {
        let batch = Batch::new(&model, &data, task);
        let (plain, plain_gradients) = step(&batch, &AdversarialOptions::default());
        for method in Method::ALL {
            let (report, gradients) = step(&batch, &with(method, |_| ()));
            assert!(report.loss.is_finite() && report.dropped.is_empty() && !report.spoilt, "{task} {method:?}");
            assert_eq!(gradients.len(), plain_gradients.len(), "{task} {method:?}");
            assert!(distance(&gradients, &plain_gradients) > 0.0, "{task} {method:?}");
            match method {
                Method::FreeLb => assert_eq!((report.passes.len(), report.terms.len()), (3, 1)),
                // Half of each pass's loss, and half of the symmetric KL between them.
                Method::RDrop => {
                    let other = report.loss - 0.5 * plain.loss - 0.5 * term(&report, "rdrop");
                    let again = with(method, |settings| settings.weight = Some(0.25));
                    let weighted = step(&batch, &again).0;
                    let expected = 0.5 * plain.loss + other + 0.125 * term(&report, "rdrop");
                    assert!((weighted.loss - expected).abs() < 1e-6, "{task}: {} {expected}", weighted.loss);
                    // The other pass has other masks, and is no worse or better on the whole.
                    assert!(other > 0.25 * plain.loss && other < plain.loss && other != 0.5 * plain.loss);
                }
                _ => assert_eq!(term(&report, "task"), plain.loss, "{task} {method:?}"),
            }
        }
    }
}

/// A student with factorised embeddings: perturbations have the width of the embeddings, and the gradient reaches the projection
/// and the words behind it.
#[test]
fn encoders_with_a_projection_are_perturbed_before_it() {
    let (world, model, data) = prepared();
    let spec = StudentSpec::parse("embedding=6,layers=1").unwrap();
    let student = build(model.encoder(), &spec, None, 1).unwrap();
    let model = MultiTaskModel::new(student, &world.tasks().tasks, HeadOptions::default()).unwrap();
    assert_eq!((model.encoder().net().embedding_size(), model.encoder().width()), (6, 32));
    let batch = Batch::new(&model, &data, 0);
    let plain = step(&batch, &AdversarialOptions::default()).1;
    for method in Method::ALL {
        let (report, gradients) = step(&batch, &with(method, |_| ()));
        assert!(report.loss.is_finite() && report.dropped.is_empty() && !report.spoilt, "{method:?}");
        assert_eq!(gradients.len(), plain.len(), "{method:?}");
        assert!(distance(&gradients, &plain) > 0.0, "{method:?}");
    }
}

#[test]
fn terms_combine() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let methods = [Method::Alum, Method::Fgm, Method::RDrop].map(|method| (method, Settings::default())).to_vec();
    let proximal = Some(ProximalOptions { weight: 1.0, momentum: Momentum::Published });
    let options = AdversarialOptions { methods, proximal, ..Default::default() };
    let (report, _) = step(&batch, &options);
    let names: Vec<&str> = report.terms.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["task", "alum", "rdrop", "bregman", "fgm"]);
    // The teacher is the model itself: nothing lies between them, and the same masks are drawn.
    assert_eq!(term(&report, "bregman"), 0.0);
    assert!(term(&report, "fgm") > term(&report, "task"), "a step along the gradient raises the loss");
    let rdrop = step(&batch, &with(Method::RDrop, |_| ())).0;
    let alone = step(&batch, &with(Method::Fgm, |_| ())).0;
    // Its direction is that of the loss against the labels, whatever stands beside it.
    assert!((term(&report, "fgm") - term(&alone, "fgm")).abs() < 1e-5);
    let sum = rdrop.loss + term(&report, "alum") + term(&report, "fgm");
    assert!((report.loss - sum).abs() < 1e-5 && rdrop.loss != alone.loss, "{} {sum}", report.loss);
}

/// FreeLB takes the place of the loss against the labels, in full, in half beside R-Drop, and leaves FGM its direction.
#[test]
fn freelb_is_the_loss_beside_other_terms_too() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let of = |methods: &[Method]| {
        let methods = methods.iter().map(|method| (*method, Settings::default())).collect();
        step(&batch, &AdversarialOptions { methods, ..Default::default() }).0
    };
    let free = of(&[Method::FreeLb]);
    assert_eq!(free.terms, [("freelb", free.loss)]);
    let with_fgm = of(&[Method::FreeLb, Method::Fgm]);
    let names: Vec<&str> = with_fgm.terms.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["freelb", "fgm"]);
    assert!(term(&with_fgm, "fgm") > free.loss && with_fgm.perturbations[1].1 > 0.99);
    assert!((with_fgm.loss - free.loss - term(&with_fgm, "fgm")).abs() < 1e-6);
    let with_rdrop = of(&[Method::FreeLb, Method::RDrop]);
    let own = with_rdrop.loss - 0.5 * free.loss - 0.5 * term(&with_rdrop, "rdrop");
    assert!(own > 0.25 * free.loss && own < free.loss, "half of the loss of R-Drop's own pass: {own}");
    // FreeLB has no weight, and one of 0 for all others does not switch it off.
    let settings = Settings { weight: Some(0.0), ..Default::default() };
    let methods = [Method::FreeLb, Method::Smart].map(|method| (method, Settings::default())).to_vec();
    let report = step(&batch, &AdversarialOptions { methods, settings, ..Default::default() }).0;
    assert_eq!(report.terms, [("freelb", free.loss)]);
}

/// The proximal term's momentum, as published: 0.99 for the first tenth of the updates.
#[test]
fn the_teacher_follows_as_published() {
    let at = |update| Momentum::Published.at(update, 100);
    assert_eq!([at(0), at(9), at(10), at(99)], [0.99, 0.99, 0.999, 0.999]);
    let (_world, model, _) = prepared();
    let proximal = Some(ProximalOptions { weight: 1.0, momentum: Momentum::Constant(0.75) });
    let options = AdversarialOptions { proximal, ..Default::default() };
    let mut teacher = Terms::new(&options, [None], model.encoder().params()).unwrap();
    let mut moved = model.encoder().params().clone();
    moved.arena_mut().iter_mut().for_each(|weight| *weight += 1.0);
    teacher.after_update(&moved, model.encoder().device(), 0, 10).unwrap();
    let before = model.encoder().params().arena();
    assert!(
        teacher.teacher().unwrap().unwrap().iter().zip(before).all(|(t, w)| (t - w - 0.25).abs() < 1e-5 || *w == 0.0)
    );
}

/// At a radius that bf16 can tell apart the term is about the same in both precisions; the published one it cannot.
#[test]
fn terms_in_bf16_are_those_of_f32_where_bf16_can_tell_perturbations_apart() {
    let (_world, mut model, data) = prepared();
    let mut terms = |epsilon: f64| {
        let options = with(Method::Smart, |s| {
            (s.epsilon, s.step_size, s.noise) = (Some(epsilon), Some(epsilon), Some(epsilon / 10.0));
        });
        assert_eq!(options.drowns_in_bf16().is_some(), epsilon < 1e-3);
        [Precision::F32, Precision::Bf16].map(|precision| {
            model.encoder_mut().set_precision(precision);
            term(&step(&Batch::new(&model, &data, 0), &options).0, "smart")
        })
    };
    let [exact, rounded] = terms(1.0);
    assert!((rounded / exact - 1.0).abs() < 0.2, "{exact:e} {rounded:e}");
    let [exact, rounded] = terms(1e-5);
    let off = (rounded / exact - 1.0).abs();
    assert!(exact > 0.0 && (off.is_nan() || off >= 0.5), "{exact:e} {rounded:e}");
}

/// Gradients of batches add up, and a task's weight and the number of batches of an update scale terms as they scale losses.
#[test]
fn terms_scale_with_the_loss() {
    let (_world, model, data) = prepared();
    let batch = Batch::new(&model, &data, 0);
    let params = model.encoder().params();
    for method in [Method::Smart, Method::FreeLb, Method::Fgm, Method::RDrop] {
        let gradients = |scales: &[f32]| {
            let mut terms = Terms::new(&with(method, |_| ()), [None], params).unwrap();
            let mut gradients = Gradients::new(params);
            for scale in scales {
                let device = model.encoder().device();
                let mut tape = Tape::recording(params, device, TapeMemory::default(), Some(Random::new(3, 5)));
                let enters = BatchOptions { task: 0, update: 0, scale: *scale, check: false };
                let noise = BatchNoise { seed: 3, batch: 5 };
                terms.batch(&mut tape, &batch, &noise, enters, &mut gradients).unwrap();
            }
            touched(params, &gradients)
        };
        let (one, two) = (gradients(&[1.0]), gradients(&[0.25, 0.5]));
        let scaled: Vec<f32> = one.iter().map(|g| 0.75 * g).collect();
        assert!(distance(&two, &scaled) < 1e-5 * size(&one), "{method:?}");
    }
}
