//! Fine-tunes an encoder on all tasks of a task file and saves the model:
//! `cargo run --release --example 02-fine-tune -- MODEL_FOLDER TASKS.yml OUT`.

use manyhead::data::readers::BadRows;
use manyhead::model::HeadOptions;
use manyhead::{Device, Encoder, MultiTaskModel, TaskFile, TrainOptions, Trainer, TrainingData};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, tasks, out] = &arguments[..] else { return Err("give MODEL_FOLDER TASKS.yml OUT".into()) };
    let encoder = Encoder::load(folder, &Device::cpu(0)?)?;
    let tasks = TaskFile::read(tasks)?.tasks;
    let options = HeadOptions { max_length: Some(128), ..Default::default() };
    let mut model = MultiTaskModel::new(encoder, &tasks, options)?;
    let data = TrainingData::read(&model, &tasks, None, BadRows::Refuse)?;
    let options = TrainOptions { epochs: 1, learning_rate: 1e-4, ..Default::default() };
    let report = Trainer::new(options).run(&mut model, &data, &mut ())?;
    for result in &report.last {
        println!("{} {}: loss {:.3}, {:?}", result.task, result.split, result.loss, result.metrics);
    }
    model.save(out)?;
    println!("{:?}", model.predict(0, &[("What a wonderful day!", None)])?);
    Ok(())
}
