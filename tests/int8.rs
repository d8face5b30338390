//! Int8 inference of whole models: near to f32, the same bits whatever the threads and the company, and no training.

#[path = "support/mod.rs"]
mod support;

use manyhead::device::{Cpu, Isa, Precision};
use manyhead::encoders;
use manyhead::model::Pool;
use manyhead::nn::PackedBatch;
use manyhead::rng::Stream;
use manyhead::tape::{Params, Tape, TapeMemory};
use manyhead::train::OptimizerKind;
use manyhead::{Device, Encoder, TrainOptions, Trainer};
use serde_json::json;
use support::{Record, World, options};

fn device(isa: Isa, threads: usize, precision: Precision) -> Device {
    Device::Cpu(Cpu::new(threads, isa).unwrap()).with_precision(precision)
}

fn relative_error(values: &[f32], exact: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut values.iter().zip(exact).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut exact.iter().map(|x| f64::from(*x)))
}

/// Each of the two layers has four quantised products behind each other (v, output, both of feed-forward), each with two
/// operands in error by 0.9 % at most (numbers up to 4 times their deviation, 4 / 127 / √12): 2.6 % for a layer's branches
/// if all errors were independent and nothing were added to them. Two layers: 3.6 %. Residuals and normalisation lessen
/// it; it is the bound that is tested.
const BOUND: f64 = 0.036;

#[test]
fn hidden_states_of_an_encoder_are_near_those_of_f32_on_every_instruction_set() {
    let config = json!({
        "model_type": "bert", "vocab_size": 97, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 200, "hidden_act": "gelu", "max_position_embeddings": 200, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    });
    let mut params = Params::default();
    let net = encoders::build(std::path::Path::new("config.json"), &config, &mut params).unwrap();
    for id in params.ids().collect::<Vec<_>>() {
        let name = params.entry(id).name.clone();
        let stream = Stream { seed: 4, step: id.index() as u64, instance: 0 };
        let deviation = if name.ends_with("LayerNorm.weight") { 0.1 } else { 0.12 };
        let mean = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        let numbers = params.get_mut(id).iter_mut().enumerate();
        numbers.for_each(|(i, x)| *x = mean + deviation * stream.normal(i) as f32);
    }
    let sequence = |length: u32| (0..length).map(|i| (i * i + 7 * length) % 97).collect::<Vec<u32>>();
    let sequences = [1, 150, 70, 5].map(sequence);
    let types = sequences.each_ref().map(|ids| vec![0u32; ids.len()]);
    let batch = PackedBatch::pack(sequences.iter().zip(&types).map(|(ids, types)| (&ids[..], &types[..]))).unwrap();
    let hidden = |device: &Device| {
        let mut tape = Tape::inference(&params, device, TapeMemory::default());
        let hidden = net.forward(&mut tape, &batch).unwrap();
        tape.view(hidden).unwrap().data.to_vec()
    };
    for isa in Isa::usable() {
        let [exact, one, three] = [(1, Precision::F32), (1, Precision::Int8), (3, Precision::Int8)]
            .map(|(threads, precision)| hidden(&device(isa, threads, precision)));
        assert_eq!(one, three, "{isa:?}: one thread and three");
        let error = relative_error(&one, &exact);
        println!("{isa:?}: relative error {error:.5}");
        assert!(error < BOUND && error > 1e-3, "{isa:?}: {error}");
    }
}

#[test]
fn texts_have_the_same_vectors_alone_and_in_company_and_after_a_change_of_precision() {
    let world = World::new();
    let int8 = Device::cpu(2).unwrap().with_precision(Precision::Int8);
    let mut encoder = Encoder::load(world.path("model"), &int8).unwrap();
    let texts = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11", "w2 w2"].map(|text| (text, None));
    let together = encoder.embed(&texts, Pool::None, false).unwrap();
    for (i, text) in texts.iter().enumerate() {
        let alone = encoder.embed(&[*text], Pool::None, false).unwrap();
        assert_eq!(alone.text(0), together.text(i), "{text:?}");
    }
    encoder.set_precision(Precision::F32);
    let exact = encoder.embed(&texts, Pool::None, false).unwrap();
    assert_ne!(exact, together);
    assert!(relative_error(&together.data, &exact.data) < BOUND);
    encoder.set_precision(Precision::Int8);
    assert_eq!(encoder.embed(&texts, Pool::None, false).unwrap(), together);
}

#[test]
fn training_in_int8_is_refused_and_a_model_that_infers_in_int8_can_be_trained_in_f32() {
    let world = World::new();
    let train = |own: Precision, precision: Option<Precision>| {
        let mut model = world.model(1, None);
        model.encoder_mut().set_precision(own);
        let data = world.data(&model);
        let options = TrainOptions { precision, max_updates: Some(2), ..options(OptimizerKind::AdamW) };
        Trainer::new(options).run(&mut model, &data, &mut Record::default()).map(|_| model)
    };
    for (own, precision) in [(Precision::F32, Some(Precision::Int8)), (Precision::Int8, None)] {
        let message = train(own, precision).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("--precision: int8 is for inference"), "{message}");
    }
    let model = train(Precision::Int8, Some(Precision::F32)).unwrap();
    assert_eq!(model.encoder().device().precision(), Precision::Int8);
    let dev = &world.data(&model).tasks[0].dev[0].1;
    let evaluation = model.evaluate(0, dev).unwrap();
    assert!(evaluation.loss.is_finite() && evaluation.predictions.len() == evaluation.examples);
}
