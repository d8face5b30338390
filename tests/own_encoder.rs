//! The encoder that travels with the program: written once, whole, loaded as any other, and what it is worth without any training.
#![cfg(feature = "cli")]

use std::fs;

use manyhead::interop::{fetch, own};
use manyhead::model::Pool;
use manyhead::{Device, Encoder};

#[test]
fn it_is_written_once_and_again_where_it_was_damaged() {
    let cache = tempfile::tempdir().unwrap();
    let folder = fetch::named(own::SMALL, cache.path(), &|line| panic!("nothing is to be told: {line}")).unwrap();
    let written = |name: &str| fs::metadata(folder.join(name)).unwrap().modified().unwrap();
    let before = written("model.safetensors");
    assert_eq!(own::small(cache.path()).unwrap(), folder);
    assert_eq!(written("model.safetensors"), before, "it is there: nothing is written");
    fs::write(folder.join("model.safetensors"), "half").unwrap();
    own::small(cache.path()).unwrap();
    assert!(Encoder::load(&folder, &Device::cpu(1).unwrap()).is_ok());
    let names: Vec<_> = fs::read_dir(cache.path().join("weights")).unwrap().collect();
    assert_eq!(names.len(), 1, "no half-written folder is left");
}

#[test]
fn it_is_as_small_as_it_is_said_to_be() {
    let size = |name: &str| fs::metadata(format!("weights/small/{name}")).unwrap().len();
    assert!(size("model.safetensors") <= 3_000_000);
    assert!(size("tokenizer.json") <= 300_000);
}

/// Of each three texts the first two mean the same; the third shares words with the first.
const TEXTS: [[&str; 3]; 6] = [
    ["A man is playing a guitar.", "Someone plays an instrument.", "A man is eating a sandwich."],
    ["The weather is cold today.", "It is freezing outside.", "The weather report was cancelled today."],
    ["How old are you?", "What is your age?", "How far are you?"],
    ["I loved this movie.", "The film was wonderful.", "I loved this restaurant."],
    ["Play some jazz music.", "Put on a jazz song.", "Play a game of chess."],
    ["The battery died after two days.", "The battery does not last.", "The king died after two days."],
];

#[test]
fn texts_of_one_meaning_are_nearer_than_texts_of_the_same_words() {
    let cache = tempfile::tempdir().unwrap();
    let encoder = Encoder::load(own::small(cache.path()).unwrap(), &Device::cpu(1).unwrap()).unwrap();
    let texts: Vec<(&str, Option<&str>)> = TEXTS.iter().flatten().map(|text| (*text, None)).collect();
    let vectors = encoder.embed(&texts, Pool::Mean, true).unwrap();
    let near = |a: usize, b: usize| -> f32 { vectors.text(a).iter().zip(vectors.text(b)).map(|(x, y)| x * y).sum() };
    let right = (0..TEXTS.len()).filter(|i| near(3 * i, 3 * i + 1) > near(3 * i, 3 * i + 2)).count();
    assert!(right >= 5, "{right} of {}", TEXTS.len());
}
