use super::*;
use crate::tape::gradcheck::{check, devices, random};
use crate::tape::{Params, TapeMemory};

#[test]
fn sums_agree_with_f64() {
    let run = |tape: &mut Tape<'_>, v: &[Var]| add(tape, v[0], v[1]);
    for shape in [[0, 2], [3, 7], [1, 1], [200, 100]] {
        let inputs = [random(shape, 1), random(shape, 2)];
        if shape[0] < 100 {
            check(&inputs, None, &run, &|v| v[0].iter().zip(&v[1]).map(|(a, b)| a + b).collect());
            continue;
        }
        // More than one thread's piece; element by element, without differences.
        for device in devices() {
            let params = Params::default();
            let mut tape = Tape::inference(&params, &device, TapeMemory::default());
            let v: Vec<Var> = inputs.iter().map(|x| tape.leaf_from(shape, &x.data).unwrap()).collect();
            let y = run(&mut tape, &v).unwrap();
            let expected = inputs[0].data.iter().zip(&inputs[1].data).map(|(a, b)| a + b);
            assert!(tape.view(y).unwrap().data.iter().copied().eq(expected));
            let short = tape.leaf_from([1, 7], &[0.0; 7]).unwrap();
            assert!(run(&mut tape, &[v[0], short]).is_err());
        }
    }
}
