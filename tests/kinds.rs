//! Every kind of task from files to predictions: it learns, it is evaluated, saved, loaded, and predicts the same bits.

mod support;

use std::fs;
use std::path::Path;

use manyhead::data::complete_labels;
use manyhead::data::readers::{BadRows, Content};
use manyhead::metrics::{Metric, Score};
use manyhead::model::HeadOptions;
use manyhead::tasks::{Kind, Label, Prediction, TaskDef, TaskFile};
use manyhead::train::{TaskData, evaluate_all, read_split};
use manyhead::{Device, Encoder, MultiTaskModel, TrainOptions, Trainer, TrainingData};
use support::{MAX_LENGTH, World};

const RANKING: &str = "rank:
  data_format: PremiseAndMultiHypothesis
  task_type: Ranking
  n_class: 1
  metric_meta: [ACC, MAP, MRR, 'P@1']
  enable_san: false
";
const TAGGING: &str = "tags:
  data_format: Seqence
  task_type: SeqenceLabeling
  n_class: 3
  labels: [O, B-A, I-A]
  metric_meta: [SeqEval, SeqEvalList, ACC]
  enable_san: false
";
const TOPICS: &str = "topics:
  data_format: PremiseOnly
  task_type: Classification
  multi_label: true
  n_class: 3
  labels: [a, b, c]
  metric_meta: [F1MIC, F1MAC, ACC]
  enable_san: false
";

/// A tiny model with these tasks, and their data.
struct Fixture {
    world: World,
    tasks: Vec<TaskDef>,
}

impl Fixture {
    fn new(yaml: &str, files: &[(&str, String)]) -> Fixture {
        let world = World::new();
        for (name, text) in files {
            fs::write(world.path("data").join(name), text).unwrap();
        }
        let tasks = TaskFile::parse(world.path("tasks.yml"), yaml).unwrap().tasks;
        let tasks = complete_labels(&tasks, Some(&world.path("data")), BadRows::Refuse).unwrap();
        Fixture { world, tasks }
    }

    fn model(&self) -> MultiTaskModel {
        let encoder = Encoder::load(self.world.path("model"), &Device::cpu(2).unwrap()).unwrap();
        MultiTaskModel::new(encoder, &self.tasks, HeadOptions { dropout: Some(0.0), ..Default::default() }).unwrap()
    }

    fn data(&self, model: &MultiTaskModel) -> TrainingData {
        TrainingData::read(model, &self.tasks, Some(&self.world.path("data")), BadRows::Refuse).unwrap()
    }

    /// Trains for so many epochs. Returns the model and its losses on the dev split before and after.
    fn train(&self, epochs: u64) -> (MultiTaskModel, Vec<(f64, f64)>) {
        let mut model = self.model();
        let data = self.data(&model);
        let (before, _) = evaluate_all(&model, &data).unwrap();
        let options = TrainOptions { epochs, batch_size: 8, learning_rate: 4e-3, check: true, ..Default::default() };
        Trainer::new(options).run(&mut model, &data, &mut ()).unwrap();
        let (after, _) = evaluate_all(&model, &data).unwrap();
        let losses = before.iter().zip(&after).map(|(before, after)| (before.loss, after.loss)).collect();
        (model, losses)
    }
}

/// Numbers from 0 below `n`, the same every time.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 1u64;
    move |n| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    }
}

/// The right candidate is the one that holds the word w0.
fn questions(rows: usize) -> String {
    let mut below = numbers();
    let row = |row| {
        let candidates = 2 + below(4);
        let right = below(candidates);
        let texts: Vec<String> =
            (0..candidates).map(|i| format!("{} w{}", if i == right { "w0" } else { "w5" }, 10 + below(30))).collect();
        let labels: Vec<&str> = (0..candidates).map(|i| if i == right { "1" } else { "0" }).collect();
        let ids: Vec<String> = (0..candidates).map(|i| format!("c{i}")).collect();
        format!("q{row}\t{}\t{}\tw{}\t{}\n", ids.join(","), labels.join(","), 10 + below(30), texts.join("\t"))
    };
    (0..rows).map(row).collect()
}

/// w0 begins an entity, w1 goes on with it.
fn sentences(rows: usize) -> Vec<Vec<(String, &'static str)>> {
    let mut below = numbers();
    let mut sentence = || {
        let mut words = Vec::new();
        for _ in 0..1 + below(5) {
            match below(3) {
                0 => words.push(("w0".to_string(), "B-A")),
                1 => words.extend([("w0".to_string(), "B-A"), ("w1".to_string(), "I-A")]),
                _ => words.push((format!("w{}", 10 + below(30)), "O")),
            }
        }
        words
    };
    (0..rows).map(|_| sentence()).collect()
}

fn conll(sentences: &[Vec<(String, &str)>]) -> String {
    let text =
        |words: &Vec<(String, &str)>| words.iter().map(|(word, name)| format!("{word}\t{name}\n")).collect::<String>();
    // Without a blank line after the last one.
    sentences.iter().map(text).collect::<Vec<_>>().join("\n")
}

fn lists(sentences: &[Vec<(String, &str)>]) -> String {
    let list = |items: Vec<&str>| format!("['{}']", items.join("', '"));
    let row = |(i, words): (usize, &Vec<(String, &str)>)| {
        let tags = list(words.iter().map(|(_, tag)| *tag).collect());
        format!("{i}\t{tags}\t{}\n", list(words.iter().map(|(word, _)| word.as_str()).collect()))
    };
    sentences.iter().enumerate().map(row).collect()
}

/// The words w0, w1 and w2 are the topics a, b and c.
fn topics(rows: usize) -> String {
    let mut below = numbers();
    let mut row = |row: usize| {
        let chosen: Vec<usize> = (0..3).filter(|_| below(2) == 1).collect();
        let words: Vec<String> = chosen.iter().map(|topic| format!("w{topic} ")).collect();
        let labels: Vec<&str> = chosen.iter().map(|topic| ["a", "b", "c"][*topic]).collect();
        format!("{row}\t{}\t{}w{}\n", labels.join(","), words.concat(), 10 + below(30))
    };
    (0..rows).map(&mut row).collect()
}

fn value(model: &MultiTaskModel, data: &TaskData, task: usize, metric: Metric) -> f64 {
    let evaluation = model.evaluate(task, &data.dev[0].1).unwrap();
    match evaluation.metrics.iter().find(|(name, _)| *name == metric) {
        Some((_, Score::Value(value))) => *value,
        other => panic!("{other:?}"),
    }
}

/// Saved and loaded, alone or together, a sample is predicted with the same bits.
fn assert_same_predictions(model: &MultiTaskModel, folder: &Path, task: usize, contents: &[Content]) {
    model.save(folder).unwrap();
    let loaded = MultiTaskModel::load(folder, &Device::cpu(1).unwrap()).unwrap();
    let together = model.predict_contents(task, contents).unwrap();
    assert_eq!(loaded.predict_contents(task, contents).unwrap(), together);
    for (i, prediction) in together.iter().enumerate() {
        assert_eq!(&loaded.predict_contents(task, &contents[i..=i]).unwrap()[0], prediction);
    }
}

fn words(text: &str) -> Content {
    Content::Words(text.split(' ').map(String::from).collect())
}

fn candidates(premise: &str, hypotheses: &[&str]) -> Content {
    Content::Candidates {
        premise: premise.into(),
        hypotheses: hypotheses.iter().map(|text| text.to_string()).collect(),
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Learning

#[test]
fn the_three_kinds_learn_together_and_predict_the_same_bits_after_loading() {
    let sentences = sentences(100);
    let fixture = Fixture::new(
        &[RANKING, TAGGING, TOPICS].concat(),
        &[
            ("rank_train.tsv", questions(100)),
            ("rank_dev.tsv", questions(30)),
            ("tags_train.tsv", lists(&sentences)),
            ("tags_dev.tsv", lists(&sentences[..30])),
            ("topics_train.tsv", topics(100)),
            ("topics_dev.tsv", topics(30)),
        ],
    );
    let (model, losses) = fixture.train(18);
    for (task, (before, after)) in fixture.tasks.iter().zip(&losses) {
        assert!(*after < 0.4 * before, "{}: {before} to {after}", task.name);
    }
    let data = fixture.data(&model);
    for metric in [Metric::Accuracy, Metric::MeanAveragePrecision, Metric::MeanReciprocalRank, Metric::PrecisionAt1] {
        assert!(value(&model, &data.tasks[0], 0, metric) > 0.9, "{metric:?}");
    }
    for metric in [Metric::SeqEval, Metric::SeqEvalList, Metric::Accuracy] {
        assert!(value(&model, &data.tasks[1], 1, metric) > 0.9, "{metric:?}");
    }
    for metric in [Metric::F1Micro, Metric::F1Macro, Metric::Accuracy] {
        assert!(value(&model, &data.tasks[2], 2, metric) > 0.85, "{metric:?}");
    }
    let folder = fixture.world.path("saved");
    let questions =
        [candidates("w11", &["w5 w12", "w0 w13"]), candidates("w11", &["w0 w12", "w5", "w5 w13", "w5 w14", "w5"])];
    assert_same_predictions(&model, &folder, 0, &questions);
    let best: Vec<_> = model.predict_contents(0, &questions).unwrap();
    assert!(
        matches!((&best[0], &best[1]), (Prediction::Ranked { best: 1, scores }, Prediction::Ranked { best: 0, .. }) if scores.len() == 2)
    );
    let sentences = [words("w20 w0 w1 w0 w30"), words("w0")];
    assert_same_predictions(&model, &folder, 1, &sentences);
    assert_eq!(model.predict_contents(1, &sentences).unwrap()[0], Prediction::Tags(vec![0, 1, 2, 1, 0]));
    let texts = [Content::texts("w2 w0 w11", None), Content::texts("w11", None)];
    assert_same_predictions(&model, &folder, 2, &texts);
    assert!(
        matches!(&model.predict_contents(2, &texts).unwrap()[0], Prediction::Classes { classes, .. } if *classes == [0, 2])
    );
    // A sample of another kind is no crash.
    assert!(model.predict_contents(1, &texts).is_err());
    assert!(model.predict_contents(0, &sentences).is_err());
}

#[test]
fn a_model_that_only_labels_words_is_loaded_as_it_was_saved() {
    let sentences = sentences(60);
    let files = [("tags_train.conll", conll(&sentences)), ("tags_dev.conll", conll(&sentences[..20]))];
    // The labels stand only in the training file.
    let keys = "  data: {train: data/tags_train.conll, dev: data/tags_dev.conll}\n";
    let fixture = Fixture::new(&(TAGGING.replace("  labels: [O, B-A, I-A]\n", "") + keys), &files);
    assert_eq!(fixture.tasks[0].labels.as_deref().unwrap(), ["O", "B-A", "I-A"]);
    let (model, losses) = fixture.train(8);
    assert!(losses[0].1 < 0.4 * losses[0].0, "{losses:?}");
    assert_same_predictions(&model, &fixture.world.path("saved"), 0, &[words("w0 w1 w30"), words("w3")]);
    // An evaluation may leave the labels to the model.
    let task = TaskDef { labels: None, ..fixture.tasks[0].clone() };
    let dataset = read_split(&model, 0, &task, "dev", None, BadRows::Refuse).unwrap().unwrap();
    assert_eq!(dataset.len(), 20);
}

#[test]
fn tokenised_files_train_like_the_texts_they_were_made_of() {
    let fixture = Fixture::new(
        &[RANKING, &TAGGING.replace("tags:", "words:"), &TAGGING.replace("tags:", "ids:")].concat(),
        &[
            ("rank_train.json", "{\"token_id\": [[2, 5, 3, 5, 3], [2, 5, 3, 10, 3]], \"type_id\": [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]], \"label\": 1}\n".into()),
            ("words_train.tsv", "0\t['B-A', 'O']\t['w0', 'w7']\n".into()),
            ("ids_train.json", "{\"token_id\": [2, 5, 12, 3], \"type_id\": [0, 0, 0, 0], \"label\": [-1, 1, 0, -1]}\n".into()),
        ],
    );
    let model = fixture.model();
    let data = fixture.data(&model);
    let batch = |task: usize| data.tasks[task].train.batch(&[0]).unwrap();
    let (words, ids) = (batch(1), batch(2));
    assert_eq!(words.packed.ids, ids.packed.ids);
    assert_eq!(words.words.unwrap().rows, ids.words.unwrap().rows);
    assert_eq!(data.tasks[1].train.labels(&[0]).unwrap(), data.tasks[2].train.labels(&[0]).unwrap());
    assert_eq!(*batch(0).groups, [0, 2]);
    // An id beyond the vocabulary and a sequence beyond the limit are refused with their line.
    let path = fixture.world.path("data").join("ids_train.json");
    for (text, expected) in [
        ("{\"token_id\": [2, 900000, 3], \"label\": [-1, 0, -1]}\n".to_string(), "is beyond the vocabulary of 65"),
        (format!("{{\"token_id\": {:?}, \"label\": {:?}}}\n", [5; 50], [0; 50]), "50 tokens, the limit is 40"),
    ] {
        fs::write(&path, text).unwrap();
        let error =
            read_split(&model, 2, &fixture.tasks[2], "train", Some(&fixture.world.path("data")), BadRows::Refuse);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("ids_train.json:1: ") && error.contains(expected), "{error}");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// What a batch holds, and what is scored

#[test]
fn questions_of_different_size_share_a_batch() {
    let rows = "a\tx,y\t0,1\tw1\tw2\tw3\nb\tx,y,z\t1,0,0\tw1\tw2\tw3\tw4\nc\tx\t1\tw1\tw2\nd\tx,y\t1,1\tw1\tw2\tw3\n";
    let fixture = Fixture::new(RANKING, &[("rank_train.tsv", rows.into())]);
    let model = fixture.model();
    let train = &fixture.data(&model).tasks[0].train;
    let batch = train.batch(&[1, 0, 2, 3]).unwrap();
    assert_eq!(*batch.groups, [0, 3, 5, 6, 8]);
    assert_eq!((batch.examples(), batch.packed.sequences()), (4, 8));
    let loss = |examples: &[u32]| {
        let mut tape =
            manyhead::tape::Tape::inference(model.encoder().params(), model.encoder().device(), Default::default());
        let (batch, labels) = (train.batch(examples).unwrap(), train.labels(examples).unwrap());
        let loss = model.loss(&mut tape, 0, &batch, &labels).unwrap();
        tape.scalar(loss).unwrap() as f64
    };
    // Questions without a right one (c: a single candidate; d: all alike) do not count.
    assert!((loss(&[0, 1, 2, 3]) - (loss(&[0]) + loss(&[1])) / 2.0).abs() < 1e-6);
    assert_eq!((loss(&[2]), loss(&[3])), (0.0, 0.0));
}

/// The kind of a task and its definition, to score by hand.
fn tagging(labels: &str, metric: &str) -> TaskDef {
    let count = labels.split(',').count();
    let yaml =
        TAGGING.replace("[O, B-A, I-A]", &format!("[{labels}]")).replace("n_class: 3", &format!("n_class: {count}"));
    let yaml = yaml.replace("[SeqEval, SeqEvalList, ACC]", &format!("[{metric}]"));
    TaskFile::parse("tasks.yml", &yaml).unwrap().tasks.remove(0)
}

fn score(kind: &dyn Kind, task: &TaskDef, metric: Metric, gold: &[&str], predicted: &[&str]) -> f64 {
    let class = |tag: &str| task.labels.as_ref().unwrap().iter().position(|label| label == tag).unwrap();
    let gold: Vec<Label> = gold
        .iter()
        .map(|tags| Label::Tags(tags.split(' ').map(|tag| task.parse_tag(tag).unwrap()).collect()))
        .collect();
    let predicted: Vec<Prediction> =
        predicted.iter().map(|tags| Prediction::Tags(tags.split(' ').map(class).collect())).collect();
    match kind.metric(task, metric, &gold, &predicted).unwrap() {
        Score::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn iob1_and_bioes_score_as_iob2_does() {
    let schemes = [
        (
            "O, B-A, I-A, B-B, I-B",
            ["B-A I-A O B-A", "B-A B-A I-A O B-B", "O O"],
            ["B-A I-A O B-B", "B-A B-A O O B-B", "O B-A"],
        ),
        (
            "O, I-A, B-A, I-B",
            ["I-A I-A O I-A", "I-A B-A I-A O I-B", "O O"],
            ["I-A I-A O I-B", "I-A B-A O O I-B", "O I-A"],
        ),
        (
            "O, B-A, I-A, E-A, S-A, B-B, S-B",
            ["B-A E-A O S-A", "S-A B-A E-A O S-B", "O O"],
            ["B-A E-A O S-B", "S-A S-A O O S-B", "O S-A"],
        ),
    ];
    for (labels, gold, predicted) in schemes {
        let task = tagging(labels, "SeqEval");
        let kind = task.kind().unwrap();
        // 3 of 6 predicted and of 5 true entities: precision 3/6, recall 3/5.
        let f1 = score(kind, &task, Metric::SeqEval, &gold, &predicted);
        assert!((f1 - 2.0 * 0.5 * 0.6 / 1.1).abs() < 1e-12, "{labels}: {f1}");
        // By sentence: 1 of 2 and 2; 2 of 3 and 3; nothing there but one predicted.
        let mean = score(kind, &task, Metric::SeqEvalList, &gold, &predicted);
        assert!((mean - (0.5 + 2.0 / 3.0 + 0.0) / 3.0).abs() < 1e-12, "{labels}: {mean}");
    }
}

#[test]
fn labels_of_what_is_no_word_are_neither_predicted_nor_scored() {
    let task = tagging("O, B-A, X, CLS, SEP", "SeqEval, ACC");
    let kind = task.kind().unwrap();
    assert_eq!(score(kind, &task, Metric::Accuracy, &["O X B-A"], &["O O B-A"]), 1.0);
    assert_eq!(score(kind, &task, Metric::SeqEval, &["O X B-A"], &["O B-A B-A"]), 1.0);
    assert!((0..5).map(|class| task.labels_words(class)).eq([true, true, false, false, false]));
    // The head has five outputs, and three of them are never chosen.
    let fixture = Fixture::new(
        &TAGGING.replace("[O, B-A, I-A]", "[X, CLS, SEP, O]").replace("n_class: 3", "n_class: 4"),
        &[("tags_train.tsv", "0\t['O']\t['w0']\n".into())],
    );
    let model = fixture.model();
    let predicted = model.predict_contents(0, &[words("w0 w1 w2 w3 w4 w5 w6 w7")]).unwrap();
    assert_eq!(predicted, [Prediction::Tags(vec![3; 8])]);
}

#[test]
fn words_beyond_the_limit_are_counted_and_scored_as_o() {
    let long = MAX_LENGTH + 20;
    let list = |item: &str| format!("[{}]", vec![format!("'{item}'"); long].join(", "));
    // U+200B is a word of which the tokenizer makes nothing.
    let text = format!("0\t{}\t{}\n1\t['B-A', 'O']\t['w0', '\u{200b}']\n", list("B-A"), list("w0"));
    let fixture = Fixture::new(TAGGING, &[("tags_train.tsv", text.clone()), ("tags_dev.tsv", text)]);
    let model = fixture.model();
    let dataset = &fixture.data(&model).tasks[0].train;
    let fitting = MAX_LENGTH - 2;
    assert_eq!((dataset.truncated(), dataset.truncated_words()), (1, long - fitting));
    assert_eq!(dataset.empty_words(), 1);
    let evaluation = model.evaluate(0, dataset).unwrap();
    let Prediction::Tags(tags) = &evaluation.predictions[0] else { panic!() };
    assert_eq!((tags.len(), &tags[fitting..]), (long, &vec![0; long - fitting][..]));
    // Even a model that finds every entity it sees does not find those.
    let labels = dataset.labels(&[0]).unwrap();
    let found = [vec![1; fitting], vec![0; long - fitting]].concat();
    let task = &fixture.tasks[0];
    let score = task.kind().unwrap().metric(task, Metric::Accuracy, &labels, &[Prediction::Tags(found)]).unwrap();
    assert_eq!(score, Score::Value(fitting as f64 / long as f64));
}

#[test]
fn metrics_that_do_not_fit_are_refused_by_name() {
    let refused = |yaml: &str| {
        let task = TaskFile::parse("tasks.yml", yaml).unwrap().tasks.remove(0);
        task.metric_list().unwrap_err().to_string()
    };
    assert_eq!(
        refused(&RANKING.replace("[ACC, MAP, MRR, 'P@1']", "[F1]")),
        "tasks.yml:1: task 'rank': metric F1: metric_meta: F1 is a metric of classification, not of ranking"
    );
    assert_eq!(
        refused(&TAGGING.replace("[O, B-A, I-A]", "[O, NN, VB]")),
        "tasks.yml:1: task 'tags': metric SeqEval: metric_meta: SeqEval needs tags of entities (O, B-TYPE, I-TYPE, \
         E-TYPE, S-TYPE), the task has the label 'NN'; use ACC"
    );
    assert_eq!(
        refused(&TOPICS.replace("[F1MIC, F1MAC, ACC]", "[MCC]")),
        "tasks.yml:1: task 'topics': metric MCC: metric_meta: MCC is not defined for sets of classes; use F1MIC, \
         F1MAC or ACC"
    );
}

#[test]
fn labels_from_the_data_must_be_as_many_as_n_class_says() {
    let world = World::new();
    let path = world.path("data").join("tags_train.tsv");
    fs::write(&path, "0\t['B-B', 'O', 'I-A']\t['w0', 'w1', 'w2']\n1\t['B-A']\t['w0']\n").unwrap();
    let yaml = TAGGING.replace("  labels: [O, B-A, I-A]\n", "");
    let tasks = TaskFile::parse("tasks.yml", &yaml).unwrap().tasks;
    let error = complete_labels(&tasks, Some(&world.path("data")), BadRows::Refuse).unwrap_err().to_string();
    let expected = format!(
        "tasks.yml:1: task 'tags': n_class is 3, but {} has 4 labels: O, B-A, B-B, I-A; write 'n_class: 4', or list \
         all labels as 'labels'",
        path.display()
    );
    assert_eq!(error, expected);
}
