//! What makes two runs the same.

use super::data::TrainingData;
use super::options::TrainOptions;
use crate::data::Dataset;
use crate::model::MultiTaskModel;

/// All but the weights it begins with that decides what a run comes to, as (name, value): a resumed run must have the same.
pub fn describe_run(options: &TrainOptions, model: &MultiTaskModel, data: &TrainingData) -> Vec<(String, String)> {
    let mut run: Vec<(String, String)> =
        options.describe().into_iter().map(|(name, value)| (format!("--{name}"), value)).collect();
    let precision = options.precision.unwrap_or(model.encoder().device().precision());
    run.push(("--precision".into(), precision.name().into()));
    run.extend(model.describe());
    let weights: Vec<f32> = model.tasks().map(|task| task.weight).collect();
    run.push(("the tasks' weights".into(), format!("{weights:?}")));
    for task in model.tasks() {
        run.extend(options.adversarial.describe(task));
    }
    let rates: Vec<Option<f64>> = model.tasks().map(|task| task.learning_rate).collect();
    run.push(("the tasks' learning rates".into(), format!("{rates:?}")));
    let train = data.tasks.iter().map(|task| &task.train);
    let unlabelled = data.tasks.iter().flat_map(|task| &task.unlabelled);
    run.push(("the training data (fingerprint)".into(), folded(train.chain(unlabelled).map(Dataset::fingerprint))));
    if options.distillation.is_some() {
        let teaching = data.tasks.iter().flat_map(|task| &task.teaching).flatten();
        run.push(("the teachers (fingerprint)".into(), folded(teaching.map(|teaching| teaching.fingerprint()))));
    }
    let dev = data.tasks.iter().flat_map(|task| &task.dev);
    run.push(("the dev data (fingerprint)".into(), folded(dev.map(|(_, dataset)| dataset.fingerprint()))));
    run
}

fn folded(fingerprints: impl Iterator<Item = u64>) -> String {
    format!("{:016x}", fingerprints.fold(0u64, |hash, fingerprint| hash.rotate_left(7) ^ fingerprint))
}
