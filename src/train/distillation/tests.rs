//! What is kept of outputs, by hand.

use super::outputs::{Identity, Stored, TeacherOutputs, Writer};
use crate::error::Result;
use crate::tasks::Outputs;

fn identity(stored: Stored, top: Option<usize>, examples: usize) -> Identity {
    let text = |text: &str| text.to_string();
    let (teacher, task, data, precision) = (text("t"), text("a"), text("d"), text("f32"));
    let (tokens, layers, projected, width) = (0, Vec::new(), None, 0);
    Identity { teacher, task, data, precision, examples, tokens, stored, top, layers, projected, width }
}

/// What comes back of rows of logits, an example each.
fn kept(rows: &[&[f32]], outputs: Outputs, stored: Stored, top: Option<usize>) -> Result<Vec<Vec<f32>>> {
    let folder = tempfile::tempdir().unwrap();
    let identity = identity(stored, top, rows.len());
    let mut writer = Writer::open(folder.path(), &identity, outputs)?;
    rows.iter().try_for_each(|row| writer.push_values(row))?;
    writer.finish()?;
    let found = TeacherOutputs::open(folder.path(), &identity, outputs)?.unwrap();
    Ok((0..rows.len()).map(|i| found.values(i)).collect())
}

fn assert_near(found: &[f32], wanted: &[f64], relative: f64) {
    assert_eq!(found.len(), wanted.len());
    for (x, p) in found.iter().zip(wanted) {
        let near = (f64::from(*x) - p.ln()).abs() <= relative * p.ln().abs() || f64::from(*x) == p.ln();
        assert!(near, "{found:?}, not the logarithms of {wanted:?}");
    }
}

#[test]
fn the_largest_are_kept_by_hand() {
    // Probabilities 8, 4, 2, 1, 1 of 16, shifted: a constant on all logits says nothing.
    let ln = |x: f64| (x.ln() + 3.0) as f32;
    let row = [ln(1.0), ln(8.0), ln(2.0), ln(4.0), ln(1.0)];
    let five = Outputs::Distributions(5);
    for (top, wanted) in [
        (1, [0.125, 0.5, 0.125, 0.125, 0.125]),
        (2, [1.0 / 12.0, 0.5, 1.0 / 12.0, 0.25, 1.0 / 12.0]),
        // Of equals the first.
        (4, [0.0625, 0.5, 0.125, 0.25, 0.0625]),
    ] {
        let found = kept(&[&row, &row], five, Stored::F32, Some(top)).unwrap();
        assert_eq!(found[0], found[1]);
        assert_near(&found[0], &wanted, 1e-6);
        let half = kept(&[&row], five, Stored::F16, Some(top)).unwrap();
        assert_near(&half[0], &wanted, 2f64.powi(-11) + 1e-6);
    }
    for top in [Some(5), Some(6), None] {
        assert_eq!(kept(&[&row], five, Stored::F32, top).unwrap(), [row]);
    }
}

#[test]
fn ties_and_excluded_classes() {
    let none = f32::NEG_INFINITY;
    let three = Outputs::Distributions(3);
    // Ties: the earlier class is kept; the others have the same anyhow.
    assert_near(&kept(&[&[2.0, 2.0, 2.0]], three, Stored::F32, Some(1)).unwrap()[0], &[1.0 / 3.0; 3], 1e-6);
    // The rest of what is left is nothing, also in f16.
    for stored in [Stored::F32, Stored::F16] {
        let found = kept(&[&[none, 1.0, 1.0], &[none, none, 4.0]], three, stored, Some(2)).unwrap();
        assert_near(&found[0], &[0.0, 0.5, 0.5], 2f64.powi(-11));
        assert_near(&found[1], &[0.0, 0.0, 1.0], 0.0);
        let found = kept(&[&[none, 7.0, none]], three, stored, Some(1)).unwrap();
        assert_near(&found[0], &[0.0, 1.0, 0.0], 0.0);
    }
    // A word of which nothing is said, between others; sentences of no word.
    let nan = f32::NAN;
    let words: &[&[f32]] = &[&[0.0, 0.0, 9.0, nan, nan, nan, 9.0, 0.0, 0.0], &[], &[0.0, 9.0, 0.0]];
    let found = kept(words, three, Stored::F32, Some(1)).unwrap();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [9, 0, 3]);
    assert!(found[0][3..6].iter().all(|x| x.is_nan()));
    let (best, rest) = (9f64.exp() / (9f64.exp() + 2.0), 1.0 / (9f64.exp() + 2.0));
    assert_near(&found[0][..3], &[rest, rest, best], 1e-5);
    assert_near(&found[0][6..], &[best, rest, rest], 1e-5);
    assert_near(&found[2], &[rest, best, rest], 1e-5);
}

#[test]
fn numbers_beyond_f16_are_refused_and_others_rounded() {
    let numbers = [65504.0, -65504.0, 1.0 / 3.0, 2f32.powi(-24), f32::NEG_INFINITY];
    let found = kept(&[&numbers], Outputs::Numbers, Stored::F16, None).unwrap().remove(0);
    for (found, x) in found.iter().zip(&numbers) {
        assert!(found == x || (found - x).abs() <= x.abs() / 2048.0, "{found}, not {x}");
    }
    for x in [65520.0, -1e6] {
        let message = kept(&[&[1.0, x]], Outputs::Numbers, Stored::F16, None).unwrap_err().to_string();
        assert!(message.contains("--store f32") && message.contains("values"), "{message}");
        assert_eq!(kept(&[&[1.0, x]], Outputs::Numbers, Stored::F32, None).unwrap(), [[1.0, x]]);
    }
}
