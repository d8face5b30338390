use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::device::Device;
use crate::model::{Embeddings, Pool};
use crate::rng::Stream;
use crate::tape::Params;

const WIDTH: usize = 16;
const WORDS: &str = "cat dog bird sat ran flew ##er the on under tree house zebra quick";
const TEXTS: [(&str, Option<&str>); 5] = [
    ("the cat sat on a tree", None),
    ("dogs ran under houses!", Some("a bird flew")),
    ("a", None),
    ("zebra, quicker; b7", Some("")),
    ("", None),
];

/// `[PAD] [UNK] [CLS] [SEP] [MASK]`, ASCII with its forms inside a word, two other letters, words.
fn vocabulary() -> Vec<String> {
    let mut all: Vec<String> = "[PAD] [UNK] [CLS] [SEP] [MASK]".split(' ').map(String::from).collect();
    all.extend((33..127u8).map(char::from).filter(|c| !c.is_ascii_uppercase()).map(String::from));
    all.extend(('a'..='z').chain('0'..='9').map(|c| format!("##{c}")));
    all.extend(["é", "##é", "日"].map(String::from));
    all.extend(WORDS.split(' ').map(String::from));
    all
}

fn config() -> Value {
    json!({
        "model_type": "bert", "vocab_size": vocabulary().len(), "hidden_size": WIDTH, "num_hidden_layers": 4,
        "num_attention_heads": 4, "intermediate_size": 24, "hidden_act": "gelu", "max_position_embeddings": 32,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2, "initializer_range": 0.02, "_name_or_path": "somewhere",
        "cls_token_id": 2, "mask_token_id": 4, "custom": [1],
    })
}

/// Random weights for a configuration, the same for a name and shape, none of them 0 or 1; then changed.
fn params(config: &Value, change: impl Fn(&str, &mut [f32])) -> Params {
    let mut params = Params::default();
    encoders::build(Path::new("config.json"), config, &mut params).unwrap();
    for id in params.ids().collect::<Vec<_>>() {
        let name = params.entry(id).name.clone();
        let base = if name.contains("LayerNorm.weight") { 1.0 } else { 0.0 };
        let stream = Stream { seed: 11, step: crate::hash::of(name.as_bytes()).low(), instance: 1 };
        let values = params.get_mut(id);
        values.iter_mut().enumerate().for_each(|(i, x)| *x = base + 0.2 * stream.normal(i) as f32);
        change(&name, values);
    }
    params
}

/// Writes a model folder and loads it.
fn folder(dir: &Path, config: &Value, params: &Params) -> Encoder {
    let tensor = |id| {
        let entry: &crate::tape::Entry = params.entry(id);
        let data = crate::interop::safetensors::TensorData::F32(params.get(id));
        (entry.name.as_str(), entry.shape.extents(), data)
    };
    let tensors: Vec<_> = params.ids().map(tensor).collect();
    crate::interop::safetensors::write(dir.join("model.safetensors"), &tensors, None).unwrap();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("vocab.txt"), vocabulary().join("\n") + "\n").unwrap();
    Encoder::load(dir, &Device::cpu(1).unwrap()).unwrap()
}

fn teacher_of(config: &Value, change: impl Fn(&str, &mut [f32])) -> Encoder {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), config, &params(config, change))
}

fn teacher() -> Encoder {
    teacher_of(&config(), |_, _| {})
}

fn student(teacher: &Encoder, spec: &str) -> Encoder {
    build(teacher, &StudentSpec::parse(spec).unwrap(), None, 7).unwrap()
}

fn states(encoder: &Encoder) -> Embeddings {
    encoder.embed(&TEXTS, Pool::None, false).unwrap()
}

fn close(found: &Embeddings, expected: &Embeddings, tolerance: f64) {
    assert_eq!((found.width, &found.cu_seqlens), (expected.width, &expected.cu_seqlens));
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let size = square(&mut expected.data.iter().map(|x| *x as f64));
    let off = square(&mut found.data.iter().zip(&expected.data).map(|(x, y)| *x as f64 - *y as f64));
    assert!(off <= tolerance * size, "{} of {size}", off);
}

#[test]
fn a_student_of_all_layers_is_its_teacher() {
    let teacher = teacher();
    for spec in ["layers=4", "take=0-1-2-3,heads=4,hidden=16", "take=first", "positions=24"] {
        let student = student(&teacher, spec);
        assert!(states(&student) == states(&teacher), "{spec}");
        let pooler = |encoder: &Encoder| {
            let dense = encoder.net().pooler().unwrap().dense;
            [dense.weight, dense.bias].map(|id| encoder.params().get(id).to_vec())
        };
        assert_eq!(pooler(&student), pooler(&teacher), "{spec}");
    }
}

/// Against a folder with the same weights whose configuration has fewer layers.
#[test]
fn taken_layers_compute_what_the_teachers_do() {
    let teacher = teacher();
    for (spec, taken) in
        [("take=first,layers=2", [0, 1]), ("layers=2", [1, 3]), ("take=last,layers=2", [2, 3]), ("take=0-3", [0, 3])]
    {
        let mut small = config();
        small["num_hidden_layers"] = 2.into();
        let all = params(&config(), |_, _| {});
        let mut weights = params(&small, |_, _| {});
        for id in weights.ids().collect::<Vec<_>>() {
            let mut name = weights.entry(id).name.clone();
            for (layer, from) in taken.into_iter().enumerate().rev() {
                let prefix = format!("encoder.layer.{layer}.");
                if let Some(part) = name.strip_prefix(&prefix) {
                    name = format!("encoder.layer.{from}.{part}");
                    break;
                }
            }
            weights.get_mut(id).copy_from_slice(all.get(all.find(&name).unwrap()));
        }
        let dir = tempfile::tempdir().unwrap();
        let expected = folder(dir.path(), &small, &weights);
        assert!(states(&student(&teacher, spec)) == states(&expected), "{spec}");
    }
}

/// A student whose embeddings hold all that the teacher's do, after a projection, is its teacher up to rounding.
#[test]
fn factorised_embeddings_that_lose_nothing_change_nothing() {
    let electra = json!({"model_type": "electra", "embedding_size": 12});
    for (kind, width) in [(json!({}), WIDTH), (electra, 12)] {
        let mut config = config();
        config.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        // Five directions in all, and a common offset, which the normalisation takes away.
        let flat = |name: &str, values: &mut [f32]| {
            if !name.ends_with("embeddings.weight") {
                return;
            }
            for row in values.chunks_exact_mut(width) {
                let factors: Vec<f32> = row[..5].to_vec();
                for (k, x) in row.iter_mut().enumerate() {
                    let direction = |i: usize| ((i + 2) as f32 * (k as f32 + 0.5)).cos();
                    *x = 0.3 * factors[0] + (0..5).map(|i| factors[i] * direction(i)).sum::<f32>();
                }
            }
        };
        let teacher = teacher_of(&config, flat);
        for size in [6, 9] {
            let student = student(&teacher, &format!("embedding={size}"));
            assert_eq!(student.net().model_type(), "electra");
            assert_eq!((student.net().embedding_size(), student.width()), (size, WIDTH));
            // Rounding of f32 tables, amplified by four layers.
            close(&states(&student), &states(&teacher), 1e-5);
        }
        // Four dimensions cannot hold five directions.
        let lossy = states(&student(&teacher, "embedding=3"));
        let off = lossy.data.iter().zip(&states(&teacher).data).any(|(x, y)| (x - y).abs() > 1e-2);
        assert!(off);
    }
}

/// No map into as few dimensions keeps more of the squares than principal directions do; at random it is their even share.
#[test]
fn narrow_embeddings_keep_the_principal_directions() {
    let teacher = teacher_of(&config(), |name, values| {
        if [POSITION, TYPE].contains(&name) {
            values.fill(0.0);
        }
    });
    let word = |encoder: &Encoder| encoder.params().get(encoder.params().find(WORD).unwrap()).to_vec();
    let full = word(&teacher);
    let energy = |values: &[f32], width: usize| {
        let centred = values.chunks_exact(width).flat_map(|row| {
            let mean = row.iter().map(|x| *x as f64).sum::<f64>() / width as f64;
            row.iter().map(move |x| (*x as f64 - mean).powi(2))
        });
        centred.sum::<f64>()
    };
    let mut last = 0.0;
    for size in [2, 4, 8, 12, 15] {
        let student = student(&teacher, &format!("hidden={size},heads=1"));
        assert_eq!((student.net().model_type(), student.width()), ("bert", size));
        let narrow = word(&student);
        assert_eq!(narrow.len() / size, full.len() / WIDTH);
        // What the student's normalisation subtracts is nothing.
        for row in narrow.chunks_exact(size) {
            assert!(row.iter().sum::<f32>().abs() < 1e-5);
        }
        let share = energy(&narrow, size) / energy(&full, WIDTH);
        let even = (size - 1) as f64 / (WIDTH - 1) as f64;
        assert!(share > even && share < 1.0 + 1e-6 && share > last, "{size}: {share} of {even}");
        last = share;
    }
    assert!(last > 0.92);
}

#[test]
fn neurons_that_say_nothing_go_first() {
    let mut config = config();
    config["num_hidden_layers"] = 2.into();
    let dead = |neuron: usize| neuron.is_multiple_of(3);
    let teacher = teacher_of(&config, |name, values| {
        if name.ends_with("output.dense.weight") && !name.contains("attention") {
            values.chunks_exact_mut(24).for_each(|row| {
                row.iter_mut().enumerate().filter(|(i, _)| dead(*i)).for_each(|(_, x)| *x = 0.0);
            });
        }
    });
    let student = student(&teacher, "intermediate=16");
    assert_eq!(student.net().config()["intermediate_size"], 16);
    // The same sums, in another grouping.
    close(&states(&student), &states(&teacher), 1e-6);
}

#[test]
fn what_is_random_is_made_by_the_seed() {
    let teacher = teacher();
    let make = |spec: &str, seed| {
        let encoder = build(&teacher, &StudentSpec::parse(spec).unwrap(), None, seed).unwrap();
        encoder.params().arena().to_vec()
    };
    for spec in ["hidden=8,layers=2", "hidden=32,layers=6", "hidden=8,embedding=4,layers=1", "init=random"] {
        assert_eq!(make(spec, 1), make(spec, 1), "{spec}");
        assert_ne!(make(spec, 1), make(spec, 2), "{spec}");
        assert!(make(spec, 1).iter().all(|x| x.is_finite()), "{spec}");
    }
    assert_eq!(make("layers=2", 1), make("layers=2", 2));
    let random = student(&teacher, "layers=2,init=random");
    let word = random.params().get(random.params().find(WORD).unwrap());
    let deviation = (word.iter().map(|x| (*x as f64).powi(2)).sum::<f64>() / word.len() as f64).sqrt();
    assert!((deviation - 0.02).abs() < 0.002, "{deviation}");
}

#[test]
fn the_configuration_is_the_teachers_with_other_sizes() {
    let config = student(&teacher(), "layers=3,hidden=8,embedding=6,positions=20").net().config();
    for (key, value) in [
        ("model_type", json!("electra")),
        ("architectures", json!(["ElectraModel"])),
        ("hidden_size", json!(8)),
        ("embedding_size", json!(6)),
        ("num_hidden_layers", json!(3)),
        ("num_attention_heads", json!(2)),
        ("intermediate_size", json!(12)),
        ("max_position_embeddings", json!(20)),
        ("hidden_dropout_prob", json!(0.1)),
        ("attention_probs_dropout_prob", json!(0.2)),
        ("cls_token_id", json!(2)),
        ("custom", json!([1])),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    for key in ["_name_or_path", "add_pooling_layer"] {
        assert!(config.get(key).is_none(), "{key}");
    }
    let bert = student(&teacher(), "hidden=8,layers=1").net().config();
    assert_eq!((&bert["model_type"], &bert["add_pooling_layer"]), (&json!("bert"), &json!(true)));
    assert!(bert.get("embedding_size").is_none());
}

#[test]
fn students_are_saved_loaded_and_taught_from_again() {
    let teacher = teacher();
    let corpus = corpus(&teacher, &["the cats sat on a tree", "a quick zebra"]);
    for spec in
        ["layers=2", "layers=3,hidden=8", "layers=3,embedding=5", "layers=2,hidden=8,embedding=10,vocabulary=118"]
    {
        let student = build(&teacher, &StudentSpec::parse(spec).unwrap(), Some(&corpus), 1).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("student");
        student.save(&path).unwrap();
        let loaded = Encoder::load(&path, teacher.device()).unwrap();
        assert!(loaded.unexpected().is_empty(), "{spec}: {:?}", loaded.unexpected());
        assert!(states(&loaded) == states(&student), "{spec}");
        assert_eq!(loaded.net().config(), student.net().config(), "{spec}");
        assert_eq!(loaded.tokenizer().fingerprint(), student.tokenizer().fingerprint(), "{spec}");

        // A student of the student: of all its layers, and of the last one.
        let same = build(&loaded, &StudentSpec::parse("take=first").unwrap(), None, 1).unwrap();
        assert!(states(&same) == states(&student), "{spec}");
        assert_eq!(same.net().config(), student.net().config(), "{spec}");
        let last = build(&loaded, &StudentSpec::parse("layers=1,embedding=3").unwrap(), None, 1).unwrap();
        assert_eq!((last.net().model_type(), last.net().config()["num_hidden_layers"].as_u64()), ("electra", Some(1)));
        assert!(states(&last).data.iter().all(|x| x.is_finite()));
    }
}

fn corpus<'t>(teacher: &'t Encoder, lines: &[&str]) -> PieceCounts<'t> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    fs::write(&path, lines.join("\n")).unwrap();
    let mut counts = PieceCounts::new(teacher.tokenizer(), teacher.device().host());
    counts.add_text(&path).unwrap();
    counts
}

#[test]
fn a_pruned_vocabulary_changes_nothing_in_its_corpus() {
    let teacher = teacher();
    let lines: Vec<&str> = TEXTS.iter().flat_map(|(text, pair)| [*text, pair.unwrap_or("")]).collect();
    let corpus = corpus(&teacher, &lines);
    let all = vocabulary().len();
    for size in [115, 124, all] {
        let spec = StudentSpec::parse(&format!("vocabulary={size}")).unwrap();
        let student = build(&teacher, &spec, Some(&corpus), 1).unwrap();
        assert_eq!((student.net().vocab_size(), student.tokenizer().vocab_size()), (size, size));
        if size > 115 {
            assert!(states(&student) == states(&teacher), "{size}");
        }
        let config = student.net().config();
        for (key, token) in [("pad_token_id", "[PAD]"), ("cls_token_id", "[CLS]"), ("mask_token_id", "[MASK]")] {
            assert_eq!(config[key].as_u64(), student.tokenizer().token_to_id(token).map(u64::from), "{key}");
        }
    }
    let refused = |spec: &str, corpus| {
        let spec = StudentSpec::parse(spec).unwrap();
        build(&teacher, &spec, corpus, 1).err().unwrap().to_string()
    };
    assert!(refused("vocabulary=120", None).contains("vocabulary: a corpus is needed"));
    assert!(refused("vocabulary=100", Some(&corpus)).contains("vocabulary: 100 pieces; special tokens"));
    assert!(refused("vocabulary=9999", Some(&corpus)).contains("vocabulary: 9999 pieces; the vocabulary has"));
    let other = build(&teacher, &StudentSpec::parse("vocabulary=124").unwrap(), Some(&corpus), 1).unwrap();
    let of_other = PieceCounts::new(other.tokenizer(), other.device().host());
    assert!(refused("vocabulary=120", Some(&of_other)).contains("corpus: its pieces were counted by another"));
}

#[test]
fn a_specification_that_does_not_fit_the_teacher_is_refused_by_its_key() {
    let teacher = teacher();
    for (spec, part) in [
        ("layers=5", "layers: 5 layers; the teacher has 4"),
        ("take=0-4", "take: there is no layer 4"),
        ("hidden=8,take=first", "take: a student of hidden=8"),
        ("hidden=10", "heads: give it: hidden=10 is no multiple of 4"),
        ("hidden=10,heads=3", "heads: 3 heads do not divide hidden=10"),
        ("hidden=1024,heads=2", "heads: 2 heads of hidden=1024 are 512 wide"),
        ("heads=2", "heads: 2 heads would cut the teacher's 4"),
        ("intermediate=25", "intermediate: 25 neurons; the teacher has 24"),
        ("embedding=17", "embedding: 17 numbers"),
        ("positions=33", "positions: 33 tokens; the teacher takes 32"),
    ] {
        let message = build(&teacher, &StudentSpec::parse(spec).unwrap(), None, 1).err().unwrap().to_string();
        assert!(message.starts_with("--student: ") && message.contains(part), "{spec}: {message}");
    }
    for spec in ["layers=5,init=random", "heads=2,init=random", "embedding=17,intermediate=25,init=random,positions=40"]
    {
        assert!(build(&teacher, &StudentSpec::parse(spec).unwrap(), None, 1).is_ok(), "{spec}");
    }
}
