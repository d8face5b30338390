use super::*;
use crate::tape::gradcheck::{check, random};

#[test]
fn lookup_with_repeated_ids_agrees_with_f64() {
    // The last ones: more tokens of one id than a GPU adds up in one go; no token.
    for (entries, width, ids) in [
        (1, 1, vec![0]),
        (5, 7, vec![4, 0, 4, 4, 2]),
        (9, 130, (0..70).map(|i| i * i % 9).collect()),
        (3, 5, (0..200).map(|i| i % 7 % 3).collect()),
        (5, 7, vec![]),
    ] {
        let ids: Arc<[u32]> = ids.into();
        check(&[random([entries, width], 1)], None, &|tape, v| lookup(tape, v[0], &ids), &|v| {
            ids.iter().flat_map(|id| v[0][*id as usize * width..][..width].to_vec()).collect()
        });
    }
}

#[test]
fn an_id_beyond_the_table_is_an_error_that_names_the_token() {
    let params = crate::tape::Params::default();
    let device = crate::Device::cpu(1).unwrap();
    let mut tape = Tape::recording(&params, &device, Default::default(), None);
    let table = tape.leaf_from([2, 1], &[0.0; 2]).unwrap();
    let error = lookup(&mut tape, table, &[0, 1, 2].into()).unwrap_err();
    assert_eq!(error.to_string(), "lookup: id 2 of token 2 is beyond the table of 2");
}
