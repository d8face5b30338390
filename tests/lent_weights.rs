//! Weights that stay in their file: the same numbers as copied ones, with the same checks, and nobody writes to the file.

mod support;

use std::fs;

use manyhead::interop::safetensors::{self, Dtype, TensorData, TensorFile};
use manyhead::train::OptimizerKind;
use manyhead::{Device, Encoder, Trainer};
use support::{Record, World, options};

const WORDS: &str = "embeddings.word_embeddings.weight";

fn load(world: &World, threads: usize) -> manyhead::Result<Encoder> {
    Encoder::load(world.path("model"), &Device::cpu(threads).unwrap())
}

/// A safetensors file with `gap` blanks more in its header: they move all tensors.
fn moved(bytes: &[u8], gap: usize) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = [&bytes[8..8 + length], &b" ".repeat(gap)].concat();
    [&(header.len() as u64).to_le_bytes(), &header[..], &bytes[8 + length..]].concat()
}

#[test]
fn weights_are_those_of_the_file_wherever_they_lie_in_it() {
    let world = World::new();
    let path = world.path("model/model.safetensors");
    let file = TensorFile::open(&path).unwrap();
    // Read number by number, not lent.
    let expected: Vec<Vec<f32>> = file.names().map(|name| file.read_f32(name).unwrap().1).collect();
    let names: Vec<String> = file.names().map(String::from).collect();
    let bytes = fs::read(&path).unwrap();
    for gap in [0, 1, 2, 4, 7] {
        fs::write(world.path("moved"), moved(&bytes, gap)).unwrap();
        let lies_right = gap % 4 == 0;
        let lent = TensorFile::open(world.path("moved")).unwrap().lend_f32(WORDS).unwrap();
        assert_eq!(lent.is_some(), lies_right && cfg!(target_endian = "little"), "gap {gap}");
        fs::rename(world.path("moved"), &path).unwrap();
        let encoder = load(&world, 2).unwrap();
        let params = encoder.params();
        for (name, values) in names.iter().zip(&expected) {
            assert_eq!(params.get(params.find(name).unwrap()), values, "gap {gap}: {name}");
        }
        for (name, values) in names.iter().zip(&expected) {
            let range = params.entry(params.find(name).unwrap()).range.clone();
            assert_eq!(&params.arena()[range], values, "gap {gap}: {name} in the arena");
        }
    }
}

#[test]
fn numbers_of_another_kind_are_converted() {
    let world = World::new();
    let path = world.path("model/model.safetensors");
    let file = TensorFile::open(&path).unwrap();
    // 1.5 in half precision.
    let halves: Vec<Vec<u16>> = file.tensors().iter().map(|t| vec![0x3e00; t.shape.iter().product()]).collect();
    let tensors: Vec<(&str, &[usize], TensorData)> = file
        .tensors()
        .iter()
        .zip(&halves)
        .map(|(t, half)| (t.name.as_str(), &t.shape[..], TensorData::F16(half)))
        .collect();
    safetensors::write(&path, &tensors, None).unwrap();
    assert_eq!(TensorFile::open(&path).unwrap().info(WORDS).unwrap().dtype, Dtype::F16);
    let encoder = load(&world, 1).unwrap();
    assert!(encoder.params().ids().all(|id| encoder.params().get(id).iter().all(|x| *x == 1.5)));
}

#[test]
fn a_weight_that_is_not_finite_is_named_wherever_it_stands() {
    let world = World::new();
    let (config, path) = (world.path("model/config.json"), world.path("model/model.safetensors"));
    // A table of several pieces, which are looked at in parallel.
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("1200"));
    fs::write(&config, text.replace("1200", "20000")).unwrap();
    let file = TensorFile::open(&path).unwrap();
    for (places, first) in [(vec![0], 0), (vec![639_999], 639_999), (vec![600_000, 300_000, 262_144], 262_144)] {
        let mut table = vec![0.25f32; 20_000 * 32];
        places.into_iter().for_each(|place| table[place] = f32::NAN);
        let values: Vec<(String, Vec<usize>, Vec<f32>)> = file
            .tensors()
            .iter()
            .map(|t| match t.name == WORDS {
                true => (t.name.clone(), vec![20_000, 32], table.clone()),
                false => (t.name.clone(), t.shape.clone(), file.read_f32(&t.name).unwrap().1),
            })
            .collect();
        let tensors: Vec<(&str, &[usize], TensorData)> =
            values.iter().map(|(name, shape, data)| (&name[..], &shape[..], TensorData::F32(data))).collect();
        // Replaced, not written over: the open file stays what it was.
        safetensors::write(&path, &tensors, None).unwrap();
        for threads in [1, 2] {
            let error = load(&world, threads).err().unwrap().to_string();
            assert!(error.contains(WORDS) && error.contains(&format!("element {first} is NaN")), "{error}");
        }
    }
}

#[test]
fn a_file_that_is_replaced_or_deleted_changes_no_model_that_was_read_from_it() {
    let world = World::new();
    let model = world.model(2, None);
    let texts = [("w1 w2 w3", None), ("w7", None)];
    let before = model.predict(0, &texts).unwrap();
    let bytes = fs::read(world.path("model/model.safetensors")).unwrap();
    fs::write(world.path("other"), moved(&bytes, 8)).unwrap();
    fs::rename(world.path("other"), world.path("model/model.safetensors")).unwrap();
    assert_eq!(model.predict(0, &texts).unwrap(), before);
    fs::remove_dir_all(world.path("model")).unwrap();
    assert_eq!(model.predict(0, &texts).unwrap(), before);
}

#[test]
fn training_changes_the_weights_and_not_their_file() {
    let world = World::new();
    let path = world.path("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let (model, updates) = world.train(2, &Trainer::new(options(OptimizerKind::AdamW)), &mut Record::default());
    assert!(updates.unwrap() > 0);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let file = TensorFile::open(&path).unwrap();
    let params = model.encoder().params();
    assert_ne!(params.get(params.find(WORDS).unwrap()), file.read_f32(WORDS).unwrap().1);
}
