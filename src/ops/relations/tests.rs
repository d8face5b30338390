use super::*;
use crate::device::Precision;
use crate::ops::divergence::tests::softmax;
use crate::ops::projections;
use crate::tape::gradcheck::{Input, check, cpu_bf16_devices, devices, random, random_with};
use crate::tape::{Params, TapeMemory};

/// One side: its numbers, distance of rows, first column, numbers of a head.
struct Side<'a> {
    data: &'a [f64],
    stride: usize,
    start: usize,
    d: usize,
}

impl Side<'_> {
    /// The relations of a token with those of its sequence.
    fn row(&self, head: usize, row: usize, sequence: &Range<usize>) -> Vec<f64> {
        let token = |t: usize| &self.data[t * self.stride + self.start + head * self.d..][..self.d];
        let score = |other: usize| -> f64 { token(row).iter().zip(token(other)).map(|(a, b)| a * b).sum() };
        softmax(&sequence.clone().map(|other| score(other) / (self.d as f64).sqrt()).collect::<Vec<f64>>())
    }
}

/// The loss, as eq. 4 to 6 have it.
fn loss(student: Side<'_>, teacher: Side<'_>, borders: &[u32], heads: usize) -> f64 {
    let mut sum = 0.0;
    for pair in borders.windows(2) {
        let sequence = pair[0] as usize..pair[1] as usize;
        for (head, row) in (0..heads).flat_map(|head| sequence.clone().map(move |row| (head, row))) {
            let (r, goal) = (student.row(head, row, &sequence), teacher.row(head, row, &sequence));
            sum += goal.iter().zip(&r).map(|(goal, r)| goal * (goal / r).ln()).sum::<f64>();
        }
    }
    sum / (heads * *borders.last().unwrap() as usize) as f64
}

fn constant(input: Input) -> Input {
    Input { differentiable: false, ..input }
}

#[test]
fn relations_agree_with_f64() {
    // (borders, the student's width and columns, the teacher's, heads)
    for (borders, width, columns, teacher_width, teacher_columns, heads) in [
        (vec![0u32, 5, 5, 6, 15], 12, 0..12, 8, 0..8, 2),
        // Part of a wider matrix.
        (vec![0, 3, 7], 18, 6..12, 21, 14..21, 1),
        (vec![0, 1], 4, 0..4, 4, 0..4, 4),
        // More keys than a block has, and a head that is wider than a tile.
        (vec![0, 37], 70, 0..70, 72, 2..72, 1),
        // More rows than a block has, and one side alone that is wider than a tile.
        (vec![0, 70, 75], 66, 0..66, 21, 0..21, 1),
    ] {
        let rows = *borders.last().unwrap() as usize;
        let borders: Arc<[u32]> = borders.into();
        let inputs = [random([rows, width], 1), constant(random_with([rows, teacher_width], 2, 1.5))];
        let run = |tape: &mut Tape<'_>, v: &[Var]| {
            relations(tape, v[0], columns.clone(), v[1], teacher_columns.clone(), &borders, heads)
        };
        check(&inputs, None, &run, &|v| {
            let side = |i: usize, stride: usize, columns: &Range<usize>| Side {
                data: &v[i],
                stride,
                start: columns.start,
                d: columns.len() / heads,
            };
            let sides = (side(0, width, &columns), side(1, teacher_width, &teacher_columns));
            vec![loss(sides.0, sides.1, &borders, heads)]
        });
    }
}

/// The layers of a stack, as attention gets its queries, keys and values, are columns of one matrix.
#[test]
fn layers_of_a_stack_are_columns() {
    let borders: Arc<[u32]> = [0, 4, 6].into();
    let inputs = [random([3, 6, 4], 3), constant(random([6, 8], 4))];
    for layer in 0..3 {
        let columns = 4 * layer..4 * layer + 4;
        let run = |tape: &mut Tape<'_>, v: &[Var]| relations(tape, v[0], columns.clone(), v[1], 0..8, &borders, 2);
        check(&inputs, None, &run, &|v| {
            let student = Side { data: &v[0][layer * 24..][..24], stride: 4, start: 0, d: 2 };
            let teacher = Side { data: &v[1], stride: 8, start: 0, d: 4 };
            vec![loss(student, teacher, &borders, 2)]
        });
    }
}

#[test]
fn a_student_that_relates_as_its_teacher_does_costs_nothing() {
    for device in devices() {
        let params = Params::default();
        let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
        tape.check_slots(true);
        let data = random([9, 6], 5).data;
        let x = tape.leaf_from([9, 6], &data).unwrap();
        let teacher = tape.detached(x).unwrap();
        let borders: Arc<[u32]> = [0, 2, 9].into();
        let value = relations(&mut tape, x, 0..6, teacher, 0..6, &borders, 3).unwrap();
        let slopes = tape.gradient(value, &[x, teacher]).unwrap();
        assert!(tape.scalar(value).unwrap().abs() < 1e-6, "{device:?}");
        assert!(slopes.iter().all(|slopes| slopes.data().iter().all(|x| x.abs() < 1e-6)), "{device:?}");
        // No tokens.
        let none = tape.leaf_from([0, 6], &[]).unwrap();
        let value = relations(&mut tape, none, 0..6, none, 0..6, &[0].into(), 3).unwrap();
        assert_eq!(tape.scalar(value).unwrap(), 0.0, "{device:?}");
        assert!(tape.gradient(value, &[none]).unwrap()[0].data().is_empty());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in devices() {
        let params = Params::default();
        let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
        let x = tape.leaf_from([4, 6], &[0.5; 24]).unwrap();
        let (fewer, flat) = (tape.leaf_from([3, 6], &[0.0; 18]).unwrap(), tape.leaf_from([4], &[0.0; 4]).unwrap());
        let stack = tape.leaf_from([2, 4, 3], &[0.0; 24]).unwrap();
        let borders: Arc<[u32]> = [0, 4].into();
        #[allow(clippy::reversed_empty_ranges)]
        for (x, columns, y, others, borders, heads) in [
            (x, 0..6, fewer, 0..6, &borders, 1),
            (x, 0..6, flat, 0..1, &borders, 1),
            (x, 0..7, x, 0..6, &borders, 1),
            (x, 3..3, x, 0..6, &borders, 1),
            (x, 4..2, x, 0..6, &borders, 1),
            (x, usize::MAX - 1..usize::MAX, x, 0..6, &borders, 1),
            (x, 0..6, x, 0..6, &borders, 0),
            (x, 0..6, x, 0..6, &borders, 4),
            (x, 0..6, x, 0..6, &[0, 3].into(), 1),
            (stack, 2..4, x, 0..2, &borders, 1),
        ] {
            assert!(relations(&mut tape, x, columns, y, others, borders, heads).is_err(), "{device:?}");
        }
    }
}

/// There two numbers are one word of a stack.
#[test]
fn a_stack_of_words_is_refused() {
    for device in cpu_bf16_devices() {
        let params = Params::default();
        let mut tape = Tape::recording(&params, &device, TapeMemory::default(), None);
        let [x, weight, bias] = [([2, 4], 8), ([4, 4], 16), ([1, 4], 4)]
            .map(|(shape, len)| tape.leaf_from(shape, &vec![0.5; len]).unwrap());
        let bias = [tape.leaf_from([4], &[0.0; 4]).unwrap(), bias][0];
        let stack = projections(&mut tape, x, &[(weight, bias)]).unwrap();
        let Device::Cpu(cpu) = &device else { continue };
        let value = relations(&mut tape, stack, 0..2, x, 0..4, &[0, 2].into(), 1);
        assert_eq!(value.is_err(), cpu.words(2) != 2, "{device:?}");
        // A matrix is none of words, and its relations are f32.
        let alone = |device: &Device| {
            let mut tape = Tape::inference(&params, device, TapeMemory::default());
            let [x, y] = [6, 7].map(|seed| tape.leaf_from([5, 4], &random([5, 4], seed).data).unwrap());
            let value = relations(&mut tape, x, 0..4, y, 0..4, &[0, 5].into(), 2).unwrap();
            tape.scalar(value).unwrap().to_bits()
        };
        assert_eq!(alone(&device), alone(&device.with_precision(Precision::F32)), "{device:?}");
    }
}
