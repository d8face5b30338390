//! Makes a small encoder from a large one, its vocabulary cut down to what a corpus needs.
//!
//! `cargo run --release --example 03-student -- model-folder layers=3,embedding=128,vocabulary=8000 text.txt out-folder`

use manyhead::data::PieceCounts;
use manyhead::model::student::{StudentSpec, build};
use manyhead::{Device, Encoder, Error, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, spec, corpus, out] = arguments.as_slice() else {
        return Err(Error::argument("arguments", "give a model folder, sizes, a text file and a folder to write"));
    };
    let device = Device::cpu(0)?;
    let teacher = Encoder::load(folder, &device)?;

    let mut counts = PieceCounts::new(teacher.tokenizer(), device.host());
    counts.add_text(corpus.as_ref())?;
    let student = build(&teacher, &StudentSpec::parse(spec)?, Some(&counts), 1)?;
    student.save(out)?;

    let size = |encoder: &Encoder| (encoder.params().count(), encoder.tokenizer().vocab_size());
    println!("{} texts; parameters and pieces: {:?} -> {:?}", counts.texts(), size(&teacher), size(&student));
    Ok(())
}
