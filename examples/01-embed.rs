//! Texts to vectors: `cargo run --release --example 01-embed -- MODEL_FOLDER`.
//!
//! MODEL_FOLDER is a Hugging Face folder with config.json, model.safetensors and tokenizer.json.

use manyhead::model::Pool;
use manyhead::{Device, Encoder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("give the folder of a model")?;
    let encoder = Encoder::load(folder, &Device::cpu(0)?)?;
    let texts =
        [("The cat sits outside.", None), ("A feline is resting in the open air.", None), ("Stocks fell.", None)];
    let vectors = encoder.embed(&texts, Pool::Mean, true)?;
    for (i, (text, _)) in texts.iter().enumerate() {
        let cosine: f32 = vectors.text(0).iter().zip(vectors.text(i)).map(|(a, b)| a * b).sum();
        println!("{cosine:.3}  {text}");
    }
    Ok(())
}
