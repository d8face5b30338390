use super::*;
use crate::rng::Stream;
use crate::tape::ParamId;
use crate::tape::gradcheck::{assert_near, cpu_devices, devices};

const KINDS: [OptimizerKind; 9] = [
    OptimizerKind::AdamW,
    OptimizerKind::Adamax,
    OptimizerKind::AdamaxLegacy,
    OptimizerKind::RAdam { decay_first: false },
    OptimizerKind::RAdam { decay_first: true },
    OptimizerKind::Sgd { momentum: 0.0, decoupled: false },
    OptimizerKind::Sgd { momentum: 0.0, decoupled: true },
    OptimizerKind::Sgd { momentum: 0.9, decoupled: false },
    OptimizerKind::Sgd { momentum: 0.9, decoupled: true },
];

fn options(kind: OptimizerKind) -> OptimizerOptions {
    OptimizerOptions { weight_decay: 0.1, ..OptimizerOptions::new(kind) }
}

fn normal(seed: u64, len: usize) -> Vec<f32> {
    let stream = Stream { seed, step: 0, instance: 0 };
    (0..len).map(|i| stream.normal(i) as f32).collect()
}

/// Entries `weight0`, `weight1`, … of these lengths, with random elements; the second one does not decay.
fn sample(lens: &[usize]) -> (Params, Vec<ParamId>) {
    let mut params = Params::default();
    let ids: Vec<_> = (0..lens.len()).map(|i| params.add(&format!("weight{i}"), [lens[i]]).unwrap()).collect();
    for (i, id) in ids.iter().enumerate() {
        params.get_mut(*id).copy_from_slice(&normal(i as u64, lens[i]));
    }
    params.set_decay(ids[1], false);
    (params, ids)
}

/// Gradients of everything, drawn from `seed`.
fn gradients(params: &Params, seed: u64) -> Gradients {
    let mut gradients = Gradients::new(params);
    gradients.zero_untouched(params).unwrap();
    for id in params.ids() {
        let data = gradients.get_mut(params, id).unwrap();
        data.copy_from_slice(&normal(seed * 100 + id.index() as u64, data.len()));
    }
    gradients
}

/// One element's rule in f64, as the papers write it: (θ, m, v) after step `t`.
fn rule(o: &OptimizerOptions, [x, m, v]: [f64; 3], g: f64, t: f64, rate: f64, decay: f64) -> [f64; 3] {
    let (b1, b2, eps) = (o.beta1, o.beta2, o.epsilon);
    let (c1, c2) = (1.0 - b1.powf(t), 1.0 - b2.powf(t));
    let mean = b1 * m + (1.0 - b1) * g;
    let square = b2 * v + (1.0 - b2) * g * g;
    let maximum = (b2 * v).max(g.abs() + eps);
    let shrunk = x * (1.0 - rate * decay);
    match o.kind {
        OptimizerKind::AdamW => [shrunk - rate * (mean / c1) / ((square / c2).sqrt() + eps), mean, square],
        OptimizerKind::Adamax => [shrunk - rate / c1 * mean / maximum, mean, maximum],
        OptimizerKind::AdamaxLegacy => [x - rate * (mean / (maximum + eps) + decay * x), mean, maximum],
        OptimizerKind::RAdam { decay_first } => {
            let most = 2.0 / (1.0 - b2) - 1.0;
            let rho = most - 2.0 * t * b2.powf(t) / c2;
            let change = if rho >= 5.0 {
                let r = (rho - 4.0) * (rho - 2.0) * most / ((most - 4.0) * (most - 2.0) * rho);
                rate * (r * c2).sqrt() / c1 * mean / (square.sqrt() + eps)
            } else {
                rate / c1 * mean
            };
            let x = if decay_first { shrunk - change } else { (x - change) * (1.0 - rate * decay) };
            [x, mean, square]
        }
        OptimizerKind::Sgd { momentum, decoupled } => {
            let g = if decoupled { g } else { g + decay * x };
            let b = momentum * m + g;
            [if decoupled { shrunk } else { x } - rate * b, b, 0.0]
        }
    }
}

#[test]
fn twenty_steps_agree_with_f64_on_every_device() {
    for kind in KINDS {
        let options = options(kind);
        for device in devices() {
            let (mut params, ids) = sample(&[37, 5, 1, 20]);
            let mut optimizer = Optimizer::new(options, &params).unwrap();
            let mut wide: Vec<[f64; 3]> = params.arena().iter().map(|x| [*x as f64, 0.0, 0.0]).collect();
            for step in 1..=20 {
                let gradients = gradients(&params, step);
                let rate = 1e-2 / step as f64;
                for id in &ids {
                    let entry = params.entry(*id);
                    for i in entry.range.clone() {
                        let decay = if entry.decay { 0.1 } else { 0.0 };
                        let g = 0.5 * gradients.arena()[i] as f64;
                        wide[i] = rule(&options, wide[i], g, step as f64, rate, decay);
                    }
                }
                optimizer.step(&device, &mut params, &gradients, rate, 0.5).unwrap();
            }
            let column = |c: usize| wide.iter().map(|w| w[c]).collect::<Vec<f64>>();
            assert_near(&format!("{kind:?} {device:?}"), params.arena(), &column(0), 2e-7, 0.0);
            let (first, second, steps) = optimizer.state().unwrap();
            if !first.is_empty() {
                assert_near(&format!("{kind:?} first moments"), first, &column(1), 1e-6, 0.0);
            }
            if !second.is_empty() {
                assert_near(&format!("{kind:?} second moments"), second, &column(2), 1e-6, 0.0);
            }
            assert_eq!(steps, [20; 4]);
        }
    }
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
    for kind in KINDS {
        let mut results = Vec::new();
        for device in cpu_devices() {
            let (mut params, _) = sample(&[70_001, 3, 40_000]);
            let mut optimizer = Optimizer::new(options(kind), &params).unwrap();
            for step in 0..3 {
                let gradients = gradients(&params, step);
                optimizer.step(&device, &mut params, &gradients, 1e-3, 0.9).unwrap();
            }
            let (first, second, _) = optimizer.state().unwrap();
            results.push([params.arena(), first, second].map(<[f32]>::to_vec));
        }
        assert!(results.iter().all(|result| *result == results[0]), "{kind:?}");
    }
}

#[test]
fn an_entry_that_takes_no_part_is_left_alone_and_its_clock_stands_still() {
    let device = Device::cpu(2).unwrap();
    for kind in KINDS {
        let (mut params, ids) = sample(&[40, 7, 19, 33]);
        let mut optimizer = Optimizer::new(options(kind), &params).unwrap();
        let all = gradients(&params, 1);
        optimizer.step(&device, &mut params, &all, 1e-2, 1.0).unwrap();
        // Now entry 0 is frozen and entry 2 untouched.
        let before = params.clone();
        let (first, second, _) = optimizer.state().unwrap();
        let moments = [first.to_vec(), second.to_vec()];
        params.set_trainable(ids[0], false);
        let mut some = Gradients::new(&params);
        params.set_trainable(ids[2], false);
        some.zero_untouched(&params).unwrap();
        params.set_trainable(ids[2], true);
        for id in [ids[1], ids[3]] {
            some.get_mut(&params, id).unwrap().fill(0.5);
        }
        optimizer.step(&device, &mut params, &some, 1e-2, 1.0).unwrap();
        for (id, active) in ids.iter().zip([false, true, false, true]) {
            assert_eq!(params.get(*id) != before.get(*id), active, "{kind:?} entry {id:?}");
            let range = params.entry(*id).range.clone();
            let (first, second, _) = optimizer.state().unwrap();
            for (moment, before) in [first, second].into_iter().zip(&moments).filter(|(_, before)| !before.is_empty()) {
                assert_eq!(moment[range.clone()] != before[range.clone()], active, "{kind:?}");
            }
        }
        assert_eq!(optimizer.state().unwrap().2, [1, 2, 1, 2]);
        // The gaps between entries stay zero.
        let mut gaps = params.arena().to_vec();
        ids.iter().for_each(|id| gaps[params.entry(*id).range.clone()].fill(0.0));
        assert!(gaps.iter().all(|gap| *gap == 0.0));
    }
}

#[test]
fn an_entry_that_joins_late_takes_its_own_first_step() {
    let device = Device::cpu(1).unwrap();
    for kind in KINDS {
        let run = |idle: u64| {
            let (mut params, ids) = sample(&[30, 30]);
            let mut optimizer = Optimizer::new(options(kind), &params).unwrap();
            let full = gradients(&params, 3);
            for _ in 0..idle {
                params.set_trainable(ids[1], false);
                optimizer.step(&device, &mut params, &full, 1e-2, 1.0).unwrap();
                params.set_trainable(ids[1], true);
            }
            optimizer.step(&device, &mut params, &full, 1e-2, 1.0).unwrap();
            params.get(ids[1]).to_vec()
        };
        assert_eq!(run(0), run(5), "{kind:?}");
    }
}

#[test]
fn a_restored_optimizer_goes_on_with_the_same_bits() {
    let device = Device::cpu(2).unwrap();
    for kind in KINDS {
        let (mut params, _) = sample(&[40, 7]);
        let mut optimizer = Optimizer::new(options(kind), &params).unwrap();
        let step = |optimizer: &mut Optimizer, params: &mut Params, number: u64| {
            let gradients = gradients(params, number);
            optimizer.step(&device, params, &gradients, 1e-2, 1.0).unwrap();
        };
        (0..7).for_each(|number| step(&mut optimizer, &mut params, number));
        let (mut copy, (first, second, steps)) = (params.clone(), optimizer.state().unwrap());
        let mut other = Optimizer::new(options(kind), &copy).unwrap();
        other.restore(first, second, steps).unwrap();
        step(&mut optimizer, &mut params, 7);
        step(&mut other, &mut copy, 7);
        assert_eq!(params.arena(), copy.arena(), "{kind:?}");
        assert_eq!(optimizer.state().unwrap(), other.state().unwrap(), "{kind:?}");
    }
}

#[test]
fn a_state_of_another_size_is_refused_and_changes_nothing() {
    let (params, _) = sample(&[40, 7]);
    let mut optimizer = Optimizer::new(options(OptimizerKind::AdamW), &params).unwrap();
    let len = params.arena().len();
    let ones = vec![1.0; len + 1];
    for (first, second, steps) in [(len - 1, len, 2), (len, 0, 2), (len, len + 1, 2), (len, len, 3)] {
        let error = optimizer.restore(&ones[..first], &ones[..second], &[1, 1, 1][..steps]).unwrap_err();
        assert!(error.to_string().starts_with("optimizer state"), "{error}");
        let (first, second, _) = optimizer.state().unwrap();
        assert!(first.iter().chain(second).all(|moment| *moment == 0.0));
    }
    let without = Optimizer::new(options(OptimizerKind::Sgd { momentum: 0.0, decoupled: false }), &params).unwrap();
    assert_eq!(without.state().unwrap(), (&[][..], &[][..], &[0, 0][..]));
}

#[test]
fn what_does_not_fit_is_refused_before_anything_changes() {
    let device = Device::cpu(1).unwrap();
    let (mut params, _) = sample(&[40, 7]);
    let mut optimizer = Optimizer::new(options(OptimizerKind::AdamW), &params).unwrap();
    let full = gradients(&params, 0);
    for (rate, scale) in [(f64::NAN, 1.0), (-1.0, 1.0), (1.0, f32::INFINITY)] {
        assert!(optimizer.step(&device, &mut params, &full, rate, scale).is_err());
    }
    let (mut other, _) = sample(&[40, 7, 1]);
    assert!(optimizer.step(&device, &mut other, &full, 1.0, 1.0).is_err());
    assert!(optimizer.step(&device, &mut params, &gradients(&other, 0), 1.0, 1.0).is_err());
    assert_eq!(optimizer.state().unwrap().2, [0, 0]);
    for wrong in [
        OptimizerOptions { beta1: 1.0, ..options(OptimizerKind::AdamW) },
        OptimizerOptions { beta2: -0.1, ..options(OptimizerKind::AdamW) },
        OptimizerOptions { epsilon: 0.0, ..options(OptimizerKind::Adamax) },
        OptimizerOptions { weight_decay: f64::NAN, ..options(OptimizerKind::AdamW) },
        options(OptimizerKind::Sgd { momentum: 1.0, decoupled: false }),
    ] {
        assert!(Optimizer::new(wrong, &params).is_err(), "{wrong:?}");
    }
}

#[test]
fn flag_names_are_those_of_the_interface() {
    for name in OptimizerKind::NAMES {
        assert!(OptimizerKind::parse(name).is_ok(), "{name}");
    }
    assert!(OptimizerKind::parse("adam").is_err());
    assert_eq!(OptimizerOptions::new(OptimizerKind::AdamaxLegacy).epsilon, 1e-6);
    assert_eq!(OptimizerOptions::new(OptimizerKind::Adamax).epsilon, 1e-8);
}

/// The bits of an arena: −0 is not 0.
fn bits(arena: &[f32]) -> Vec<u32> {
    arena.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn rows_that_no_batch_has_looked_up_are_left_out_and_nothing_changes_by_it() {
    use crate::ops::lookup;
    use crate::tape::{Tape, Var};
    use crate::train::clip::grad_norm;
    // Rows that are no multiple of a vector, in pieces of which the rows' borders know nothing.
    let (rows, width) = (5000, 19);
    for (kind, device) in KINDS.into_iter().flat_map(|kind| cpu_devices().into_iter().map(move |device| (kind, device)))
    {
        let mut params = Params::default();
        let (table, other) = (params.add("table", [rows, width]).unwrap(), params.add("other", [3]).unwrap());
        params.get_mut(table).copy_from_slice(&normal(1, rows * width));
        params.get_mut(table)[7] = -0.0;
        params.get_mut(other).fill(1.0);
        let mut plain = params.clone();
        let (mut optimizer, mut full) =
            (Optimizer::new(options(kind), &params).unwrap(), Optimizer::new(options(kind), &plain).unwrap());
        let mut sparse = Gradients::new(&params);
        for step in 0..4u64 {
            // Two batches an update, some rows again and again, one row twice in a batch.
            sparse.clear();
            for batch in 0..2 {
                let ids: std::sync::Arc<[u32]> =
                    (0..20u32).map(|i| (i * i * (1 + step as u32) + batch) % 4000).chain([5, 5]).collect();
                let mut tape = Tape::recording(&params, &device, Default::default(), None);
                let y = lookup(&mut tape, Var::Param(table), &ids).unwrap();
                let upstream = normal(step * 2 + u64::from(batch), ids.len() * width);
                tape.backward_from(&[(y, &upstream)], Some(&mut sparse), &[]).unwrap();
            }
            // The same gradient as one of which nothing is known.
            let mut dense = Gradients::new(&plain);
            dense.zero_untouched(&plain).unwrap();
            dense.get_mut(&plain, table).unwrap().copy_from_slice(sparse.get(&params, table).unwrap());
            let held = (0..rows).filter(|row| sparse.rows(table).holds(*row)).count();
            assert!(held < 60, "{held}");
            for row in 0..rows {
                let zeros = sparse.get(&params, table).unwrap()[row * width..][..width].iter().all(|g| *g == 0.0);
                assert!(sparse.rows(table).holds(row) || zeros, "{row}");
            }
            sparse.zero_untouched(&params).unwrap();
            let norms = [grad_norm(&device, &params, &sparse).unwrap(), grad_norm(&device, &plain, &dense).unwrap()];
            assert_eq!(norms[0].to_bits(), norms[1].to_bits(), "{kind:?} {device:?}");
            optimizer.step(&device, &mut params, &sparse, 1e-2, 0.5).unwrap();
            full.step(&device, &mut plain, &dense, 1e-2, 0.5).unwrap();
            assert_eq!(bits(params.arena()), bits(plain.arena()), "{kind:?} {device:?} {step}");
            if step == 1 {
                // An optimizer that has been put back finds out by itself which rows rest.
                let (first, second, steps) = optimizer.state().unwrap();
                let mut restored = Optimizer::new(options(kind), &params).unwrap();
                restored.restore(first, second, steps).unwrap();
                optimizer = restored;
            }
        }
    }
}
