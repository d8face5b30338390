//! The embedding block, lookup, and the scatter of their gradients.

use manyhead::device::Dtype;

use crate::harness::*;
use crate::layer_norm::holders;
use crate::numbers::*;

const EPSILON: f32 = 1e-5;

/// What the host makes of the ids for the scatter.
struct Pieces {
    order: Vec<u32>,
    starts: Vec<u32>,
    rows: Vec<u32>,
    slots: Vec<u32>,
    combined_rows: Vec<u32>,
    combined_starts: Vec<u32>,
}

fn pieces(ids: &[u32], longest: usize) -> Pieces {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|token| ids[*token as usize]);
    let (mut starts, mut rows, mut slots) = (vec![0u32], vec![], vec![]);
    let (mut combined_rows, mut combined_starts) = (vec![], vec![0u32]);
    let mut partials = 0;
    for group in order.chunk_by(|a, b| ids[*a as usize] == ids[*b as usize]) {
        let id = ids[group[0] as usize];
        let several = group.len() > longest;
        for part in group.chunks(longest) {
            starts.push(starts.last().unwrap() + part.len() as u32);
            rows.push(id);
            slots.push(if several { partials } else { u32::MAX });
            partials += several as u32;
        }
        if several {
            combined_rows.push(id);
            combined_starts.push(partials);
        }
    }
    Pieces { order, starts, rows, slots, combined_rows, combined_starts }
}

/// Adds `dy` to a table on the device, by ids.
fn scatter(gpu: &Gpu, table: Buffer, dy: Buffer, ids: &[u32], width: usize, (longest, warps): (usize, u32)) {
    let made = pieces(ids, longest);
    let [order, starts, rows, slots] =
        [&made.order, &made.starts, &made.rows, &made.slots].map(|list| gpu.upload(list));
    let partial_rows = *made.combined_starts.last().unwrap() as usize;
    let partials = gpu.room::<f32>(partial_rows * width);
    let width_ = width as u32;
    let launch = |sums: usize| Launch::new([sums as u32, width_.div_ceil(128), 1], [32, warps, 1]);
    gpu.launch(
        "lookup",
        "lookup_scatter",
        launch(made.rows.len()),
        &[&table, &partials, &dy, &order, &starts, &rows, &slots, &width_],
    );
    if made.combined_rows.is_empty() {
        return;
    }
    let (rows, starts) = (gpu.upload(&made.combined_rows), gpu.upload(&made.combined_starts));
    gpu.launch(
        "lookup",
        "lookup_combine",
        launch(made.combined_rows.len()),
        &[&table, &partials, &rows, &starts, &width_],
    );
}

/// Longest pieces and warps of a block: a warp has none, one, or more rows than it reads at once.
const SCATTERS: [(usize, u32); 3] = [(3, 4), (64, 4), (40, 1)];

#[test]
fn lookup_and_its_scatter() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        for (tokens, entries, width) in [(1usize, 1usize, 1usize), (40, 3, 5), (70, 30, 64), (112, 2, 132)] {
            let (table, start) = (normals(1, entries * width), normals(4, entries * width));
            let (dy, ids) = (all_stored(kind, &normals(2, tokens * width)), indices(3, tokens, entries));
            let mut sums = wide(&start);
            for (t, id) in ids.iter().enumerate() {
                (0..width).for_each(|c| sums[*id as usize * width + c] += dy[t * width + c] as f64);
            }
            for shifted in 0..12 {
                let block = ROW_BLOCKS[shifted % 3];
                gpu.shift(shifted);
                let (y, t, list) = (room(&gpu, kind, tokens * width), gpu.upload(&table), gpu.upload(&ids));
                gpu.launch(
                    "lookup",
                    "lookup_forward",
                    Launch::rows(tokens, block),
                    &[&y, &t, &list, &(tokens as u32), &(width as u32)],
                );
                let expected: Vec<f32> =
                    ids.iter().flat_map(|id| &table[*id as usize * width..][..width]).copied().collect();
                assert_eq!(get(&gpu, kind, y), all_stored(kind, &expected), "a copy");
                let (target, dy) = (gpu.upload(&start), put(&gpu, kind, &dy));
                scatter(&gpu, target, dy, &ids, width, SCATTERS[shifted % 3]);
                // Up to 60 terms of size 1 for sums of size 5.
                assert_close("scatter", &gpu.read(target), &sums, 1e-6);
            }
        }
    }
}

/// y of the block in f64, before and after dropout; x̂ and r.
fn reference(sums: &[f64], weight: &[f64], bias: &[f64], mask: &Mask) -> [Vec<f64>; 3] {
    let width = weight.len();
    let [mut y, mut normalised, mut scales] = [vec![], vec![], vec![]];
    for s in sums.chunks(width) {
        let mean = s.iter().sum::<f64>() / width as f64;
        let variance = s.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / width as f64;
        scales.push(1.0 / (variance + EPSILON as f64).sqrt());
        for (c, s) in s.iter().enumerate() {
            normalised.push((s - mean) * scales.last().unwrap());
            y.push((normalised.last().unwrap() * weight[c] + bias[c]) * mask.factor(y.len()));
        }
    }
    [y, normalised, scales]
}

/// One embedding block: which optional inputs it has.
fn check(gpu: &Gpu, kind: Dtype, (tokens, width): (usize, usize), types: bool, delta: bool, mask: Mask) {
    let entries = [7usize, 5, 2];
    let tables: Vec<Vec<f32>> = (0..3).map(|i| normals(i as u64, entries[i] * width)).collect();
    let ids: Vec<Vec<u32>> = (0..3).map(|i| indices(10 + i as u64, tokens, entries[i])).collect();
    let [d, dy] = [20, 23].map(|seed| all_stored(kind, &normals(seed, tokens * width)));
    let (weight, bias) = (normals(21, width), normals(22, width));
    let sums = |tables: &[Vec<f64>], d: &[f64]| -> Vec<f64> {
        (0..tokens * width)
            .map(|e| {
                let (t, c) = (e / width, e % width);
                let used = if types { 3 } else { 2 };
                let tables: f64 = (0..used).map(|i| tables[i][ids[i][t] as usize * width + c]).sum();
                tables + if delta { d[e] } else { 0.0 }
            })
            .collect()
    };
    let wide_tables: Vec<Vec<f64>> = tables.iter().map(|table| wide(table)).collect();
    let (wide_d, w, b) = (wide(&d), wide(&weight), wide(&bias));
    let [y, normalised, scales] = reference(&sums(&wide_tables, &wide_d), &w, &b, &mask);
    let at = |values: &[f32]| gpu.upload(values);
    let lists = [0, 1, 2].map(|i| gpu.upload(&ids[i]));
    let (tokens_, width_) = (tokens as u32, width as u32);
    for shifted in 0..16 {
        let (ending, block) = holders(width)[shifted % holders(width).len()];
        gpu.shift(shifted);
        let type_inputs = types.then(|| (at(&tables[2]), lists[2]));
        let kept = [room(gpu, kind, tokens * width), room(gpu, kind, tokens * width), gpu.room::<f32>(tokens)];
        gpu.launch(
            "embedding",
            &format!("embedding_forward_{ending}"),
            Launch::rows(tokens.div_ceil(1 + shifted % 2), block),
            &[
                &kept[0],
                &kept[1],
                &kept[2],
                &at(&tables[0]),
                &lists[0],
                &at(&tables[1]),
                &lists[1],
                &type_inputs.map(|inputs| inputs.0),
                &type_inputs.map(|inputs| inputs.1),
                &delta.then(|| at(&d)),
                &at(&weight),
                &at(&bias),
                &tokens_,
                &width_,
                &EPSILON,
                &mask,
            ],
        );
        let what = format!("{kind:?} {tokens} x {width} {ending} {block:?}");
        // A handful of roundings of 6e-8 at numbers a few times as large as what comes out, and that of what is stored.
        let rounding = if kind == Dtype::F32 { 0.0 } else { unit(kind) };
        for (i, expected) in [&y, &normalised, &scales].into_iter().enumerate() {
            let (got, rounding) = if i < 2 { (get(gpu, kind, kept[i]), rounding) } else { (gpu.read(kept[i]), 0.0) };
            assert_close(&format!("{what} output {i}"), &got, expected, 2e-6 + rounding);
        }
        // The gradients of all inputs: ds by the kernel of layer normalisation, delta's beside it.
        let (ds, ddelta) = (room(gpu, kind, tokens * width), put(gpu, kind, &d));
        let none = None::<Buffer>;
        gpu.launch(
            "layer_norm",
            &format!("layer_norm_backward_{ending}"),
            Launch::rows(tokens, block),
            &[
                &ds,
                &0i32,
                &ddelta,
                &1i32,
                &none,
                &none,
                &put(gpu, kind, &dy),
                &kept[1],
                &kept[2],
                &at(&weight),
                &tokens_,
                &width_,
                &block[1],
                &mask,
                &Mask::NONE,
            ],
        );
        let loss = |tables: &[Vec<f64>], d: &[f64]| -> f64 {
            reference(&sums(tables, d), &w, &b, &mask)[0].iter().zip(&dy).map(|(y, dy)| y * *dy as f64).sum()
        };
        if delta {
            let expected = slopes(&wide_d, |d| loss(&wide_tables, d));
            // ds is r · (d − mean(d) − x̂ · mean(d · x̂)) with an error of a unit in x̂, and rounded.
            let got = get(gpu, kind, ddelta);
            assert_close(&format!("{what} ddelta"), &got, &plus(&d, &expected), 3e-6 + 4.0 * rounding);
        }
        for i in 0..if types { 3 } else { 2 } {
            let target = gpu.upload(&vec![0.0f32; tables[i].len()]);
            scatter(gpu, target, ds, &ids[i], width, SCATTERS[shifted % 3]);
            let expected = slopes(&wide_tables[i], |table| {
                let mut moved = wide_tables.clone();
                moved[i] = table.to_vec();
                loss(&moved, &wide_d)
            });
            // The same of each of a few ds.
            assert_close(&format!("{what} dtable {i}"), &gpu.read(target), &expected, 3e-6 + 4.0 * rounding);
        }
    }
}

#[test]
fn the_block_is_that_of_the_reference() {
    for kind in KINDS {
        let gpu = Gpu::of(kind);
        check(&gpu, kind, (1, 8), true, true, Mask::NONE);
        check(&gpu, kind, (13, 20), true, false, some_mask(0.1));
        check(&gpu, kind, (6, 33), false, true, some_mask(0.4));
        check(&gpu, kind, (5, 20), false, false, Mask::NONE);
    }
}
