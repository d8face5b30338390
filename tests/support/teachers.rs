//! A task of every kind on the tiny encoder, and teachers of them; what the tests of distillation have in common.

use std::fs;
use std::path::{Path, PathBuf};

use manyhead::data::Dataset;
use manyhead::data::readers::BadRows;
use manyhead::model::HeadOptions;
use manyhead::rng::Stream;
use manyhead::tape::{Tape, TapeMemory};
use manyhead::tasks::{TaskDef, TaskFile};
use manyhead::train::distillation::{Consultation, Keep, Stored, Teacher, TeacherOutputs, Teaching};
use manyhead::{Device, Encoder, MultiTaskModel, Result, TrainingData};

use super::support::{MAX_LENGTH, World};

/// The tasks, in the order of the file.
pub const NAMES: [&str; 6] = ["class", "pair", "value", "topics", "rank", "tags"];

const TASKS: &str = "\
class: {data_format: PremiseOnly, task_type: Classification, n_class: 3, metric_meta: [ACC], enable_san: false}
pair:
  {data_format: PremiseAndOneHypothesis, task_type: Classification, n_class: 2, metric_meta: [ACC], enable_san: false}
value:
  {data_format: PremiseAndOneHypothesis, task_type: Regression, n_class: 1, metric_meta: [Pearson], enable_san: false}
topics:
  {data_format: PremiseOnly, task_type: Classification, multi_label: true, n_class: 4, labels: [a, b, c, d],
   metric_meta: [F1MIC], enable_san: false}
rank:
  {data_format: PremiseAndMultiHypothesis, task_type: Ranking, n_class: 1, metric_meta: [ACC], enable_san: false}
tags:
  {data_format: Seqence, task_type: SeqenceLabeling, n_class: 3, labels: [O, B-A, I-A], metric_meta: [SeqEval],
   enable_san: false}
";

/// The number of words of each sentence of `tags`; longer ones are cut, and the word of place 1 of every third is empty.
pub const SENTENCES: [usize; 13] = [3, 1, 60, 5, 2, 38, 39, 7, 3, 41, 12, 4, 6];
/// The number of candidates of each question of `rank`.
pub const CANDIDATES: [usize; 13] = [2, 5, 1, 3, 4, 2, 2, 5, 3, 1, 4, 2, 3];

/// A folder with `model/`, `data/` and the tasks.
pub struct Fixture {
    pub world: World,
    pub tasks: Vec<TaskDef>,
}

impl Fixture {
    /// Thirteen training rows and as many of dev for each task.
    pub fn new() -> Fixture {
        let world = World::new();
        for (place, name) in NAMES.iter().enumerate() {
            for split in ["train", "dev"] {
                let seed = 2 * place as u64 + u64::from(split == "dev");
                fs::write(world.path("data").join(format!("{name}_{split}.tsv")), rows(name, seed)).unwrap();
            }
        }
        let tasks = TaskFile::parse(world.path("tasks.yml"), TASKS).unwrap().tasks;
        Fixture { world, tasks }
    }

    /// A model without dropout whose heads, and with `all` whose other weights, too, are moved at random.
    pub fn model(&self, seed: u64, all: bool, max_length: usize) -> MultiTaskModel {
        self.model_of(&self.world.path("model"), seed, all, max_length)
    }

    /// The same of another encoder.
    pub fn model_of(&self, encoder: &Path, seed: u64, all: bool, max_length: usize) -> MultiTaskModel {
        let encoder = Encoder::load(encoder, &Device::cpu(1).unwrap()).unwrap();
        let options = HeadOptions { dropout: Some(0.0), seed, max_length: Some(max_length), ..Default::default() };
        let mut model = MultiTaskModel::new(encoder, &self.tasks, options).unwrap();
        let params = model.encoder_mut().params_mut();
        params.try_own().unwrap();
        for (place, id) in params.ids().collect::<Vec<_>>().into_iter().enumerate() {
            let head = params.entry(id).name.starts_with("heads.");
            if !head && !all {
                continue;
            }
            let stream = Stream { seed: 100 + seed, step: place as u64, instance: 0 };
            let size = if head { 0.6 } else { 0.02 };
            for (i, weight) in params.get_mut(id).iter_mut().enumerate() {
                *weight += (size * (stream.uniform(i) - 0.5)) as f32;
            }
        }
        model
    }

    /// A teacher: such a model, saved in a folder.
    pub fn teacher(&self, seed: u64, max_length: usize) -> Teacher {
        let folder = self.world.path(&format!("teacher{seed}"));
        let model = self.model(seed, true, max_length);
        model.save(&folder).unwrap();
        Teacher::new(model, &folder).unwrap()
    }

    /// The data as a model cuts it.
    pub fn data(&self, model: &MultiTaskModel) -> TrainingData {
        TrainingData::read(model, &self.tasks, Some(&self.world.path("data")), BadRows::Refuse).unwrap()
    }

    /// Where outputs are kept.
    pub fn outputs(&self) -> PathBuf {
        self.world.path("outputs")
    }
}

/// The usual question to a teacher.
pub fn asked<'a>(keep: &'a Keep, stored: Stored) -> Consultation<'a> {
    Consultation { keep, stored, top: None, layers: &[], projected: None, stop: None }
}

/// Its answer, and how many examples it was computed for.
pub fn consult(
    teacher: &Teacher,
    task: usize,
    dataset: &Dataset,
    how: &Consultation<'_>,
) -> (Result<TeacherOutputs>, usize) {
    let (mut first, mut last) = (None, 0);
    let found = teacher.consult(task, dataset, &format!("{}-train-1", NAMES[task]), how, &mut |done, _| {
        first.get_or_insert(done);
        last = done;
    });
    (found, last - first.unwrap_or(last))
}

/// Teachers of a data set that all cut alike, in f32, in memory of the disk.
pub fn taught(student: &MultiTaskModel, teachers: &[Teacher], task: usize, dataset: &Dataset, keep: &Keep) -> Teaching {
    let outputs = teachers.iter().map(|teacher| consult(teacher, task, dataset, &asked(keep, Stored::F32)).0.unwrap());
    let all = outputs.collect();
    Teaching::of_teachers(all, student.outputs(task).unwrap(), false, (0, false), (dataset, dataset)).unwrap()
}

/// The logits of an example that goes through the model alone.
pub fn logits(model: &MultiTaskModel, task: usize, dataset: &Dataset, example: u32) -> Vec<f32> {
    let batch = dataset.batch(&[example]).unwrap();
    let encoder = model.encoder();
    let mut tape = Tape::inference(encoder.params(), encoder.device(), TapeMemory::default());
    let logits = model.logits(&mut tape, task, &batch.packed).unwrap();
    tape.view(logits).unwrap().data.to_vec()
}

/// Of each word of sentence `i`, cut to so many tokens, the row of its logits. The vocabulary has every word whole: `[CLS]`
/// is row 0, each word that is not empty has the next one, and `[SEP]` needs one more.
pub fn rows_of_words(i: usize, max_length: usize) -> Vec<Option<usize>> {
    let mut next = 1;
    let row = |word: usize| {
        if is_empty_word(i, word) {
            return None;
        }
        next += 1;
        (next < max_length).then(|| next - 1)
    };
    (0..SENTENCES[i]).map(row).collect()
}

fn is_empty_word(sentence: usize, word: usize) -> bool {
    sentence.is_multiple_of(3) && word == 1
}

/// What an example's outputs must be: its logits, or of sentences the rows of its words, nothing for those that have none.
pub fn expected(model: &MultiTaskModel, task: usize, dataset: &Dataset, example: usize, max_length: usize) -> Vec<f32> {
    let all = logits(model, task, dataset, example as u32);
    match NAMES[task] {
        "class" | "topics" => all[..if NAMES[task] == "class" { 3 } else { 4 }].to_vec(),
        "pair" => all[..2].to_vec(),
        "value" => all[..1].to_vec(),
        "rank" => all[..CANDIDATES[example]].to_vec(),
        _ => {
            let rows = rows_of_words(example, max_length);
            let row = |row: &Option<usize>| row.map_or(vec![f32::NAN; 3], |row| all[3 * row..3 * row + 3].to_vec());
            rows.iter().flat_map(row).collect()
        }
    }
}

/// Whether two lists have the same bits.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

fn rows(task: &str, seed: u64) -> String {
    let stream = Stream { seed: 40 + seed, step: 0, instance: 0 };
    let mut drawn = 0;
    let mut below = |n: usize| {
        drawn += 1;
        (stream.uniform(drawn) * n as f64) as usize % n
    };
    let mut text = |words: usize| (0..words).map(|_| format!("w{}", below(60))).collect::<Vec<_>>().join(" ");
    let mut all = String::new();
    for i in 0..SENTENCES.len() {
        let row = match task {
            "class" => format!("{}\t{}", i % 3, text(1 + i)),
            "pair" => format!("{}\t{}\t{}", i % 2, text(1 + i % 4), text(1 + i % 5)),
            "value" => format!("{:.2}\t{}\t{}", i as f64 / 7.0 - 1.0, text(2), text(1 + i)),
            "topics" => format!("{}\t{}", ["a", "a,c", "", "d"][i % 4], text(1 + i)),
            "rank" => {
                let count = CANDIDATES[i];
                let ids: Vec<String> = (0..count).map(|c| format!("c{c}")).collect();
                let labels: Vec<&str> = (0..count).map(|c| if c == i % count { "1" } else { "0" }).collect();
                let texts: Vec<String> = (0..count).map(|c| text(1 + c)).collect();
                format!("{}\t{}\t{}\t{}", ids.join(","), labels.join(","), text(3), texts.join("\t"))
            }
            _ => {
                let words = text(SENTENCES[i]);
                let words: Vec<String> = words.split(' ').map(String::from).collect();
                // U+200B is a word of which the tokenizer makes nothing.
                let word = |(place, word): (usize, &String)| match is_empty_word(i, place) {
                    true => "'\u{200b}'".to_string(),
                    false => format!("'{word}'"),
                };
                let tags: Vec<&str> = (0..words.len()).map(|place| ["'O'", "'B-A'"][place % 2]).collect();
                let words: Vec<String> = words.iter().enumerate().map(word).collect();
                format!("[{}]\t[{}]", tags.join(", "), words.join(", "))
            }
        };
        all += &format!("{i}\t{row}\n");
    }
    all
}

/// What the tests cut to where nothing else is said.
pub const LENGTH: usize = MAX_LENGTH;
