//! What the MT-DNN toolkit gets wrong in its tasks, data and heads, and what is right: a test a defect, named for the
//! right behaviour. Those of training are in `toolkit_defects_training.rs`, those of what is predicted and written in
//! `toolkit_defects_output.rs`.
//!
//! | defect of the toolkit | test here |
//! |---|---|
//! | ranking preprocessing calls int() on the list of labels, `olabel` is never made | `a_ranking_row_keeps_the_label_of_every_candidate` |
//! | ranking takes a softmax over one column: all predictions are 0 | `a_ranking_predicts_the_candidate_with_the_highest_score` |
//! | ranking needs the same number of candidates in the whole batch | `questions_with_different_numbers_of_candidates_share_a_batch` |
//! | ranking checks the length of the first two candidates only | `the_length_limit_holds_for_every_candidate` |
//! | a training sample beyond the limit is dropped without a word | `a_text_beyond_the_limit_is_cut_and_counted_and_stays` |
//! | `eval()` on data files | `list_literals_of_a_data_file_are_never_evaluated` |
//! | the last sentence of a CoNLL file is dropped | `the_last_sentence_of_a_conll_file_is_read` |
//! | the length limit of sentences counts words: more than 512 tokens | `the_length_limit_of_a_sentence_counts_sub_tokens` |
//! | an unknown label becomes None | `an_unknown_label_is_an_error` |
//! | `fever`: n_class 2 with 3 labels | `n_class_and_the_number_of_labels_must_agree` |
//! | UNK id 100 hard-coded | `an_unknown_word_has_the_unknown_token_of_the_tokenizer` |
//! | `dropout_p` absent: crash at the first batch | `a_task_without_dropout_p_trains` |
//! | `pdb.set_trace()` in loaders | `a_bad_row_is_an_error_with_its_line_or_is_counted` |
//! | preprocessing wants every split | `a_split_without_a_file_is_no_error` |
//! | the pooler's activation is always the identity | `the_activation_of_the_head_is_the_one_asked_for` |
//! | padding is attended to, and the stored mask ignored | `there_is_no_padding_and_a_text_has_the_same_bits_alone_and_packed` |
//! | XLM-R padded with the wrong id | `there_is_no_padding_and_a_text_has_the_same_bits_alone_and_packed` |
//! | 0.1 packed the hypothesis first | `the_premise_comes_first_and_has_type_0` |
//! | weights loaded with strict=False: a random encoder | `an_encoder_with_a_tensor_missing_is_refused_by_its_name` |
//! | Pearson of a classification head takes too many scores | `a_metric_that_does_not_belong_to_the_task_is_refused` |
//! | AUC takes every second score and changes the scores of later metrics | `auc_is_the_area_and_leaves_other_metrics_alone` |
//! | the SAN head crashes; span, cloze and masked-word tasks are not registered | `what_cannot_be_trained_is_refused_by_name` |
//! | `config.json` is not JSON | `the_files_of_a_saved_model_are_valid_json` |
//! | QQP rows with too few columns are passed over without a word | `a_source_row_with_too_few_columns_is_an_error_or_counted` |

#[path = "support/rows.rs"]
mod memory;
mod support;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use manyhead::data::Dataset;
use manyhead::data::import::{ImportOptions, glue};
use manyhead::data::readers::{BadRows, Content, Labels, RowReader};
use manyhead::interop::safetensors::{self, TensorData, TensorFile};
use manyhead::metrics::{Metric, Score, classification};
use manyhead::model::{HeadOptions, Pool, PoolerChoice};
use manyhead::tasks::{Label, Prediction, TaskDef};
use manyhead::{Device, Encoder, Error, MultiTaskModel, TaskFile, TrainOptions, Trainer, TrainingData};
use memory::{data, error, ranking, read, refused_task, rows, single, tagging, task};
use support::{MAX_LENGTH, World};

fn encoder(world: &World) -> Encoder {
    Encoder::load(world.path("model"), &Device::cpu(1).unwrap()).unwrap()
}

fn model(world: &World, task: &TaskDef) -> MultiTaskModel {
    let options = HeadOptions { dropout: Some(0.0), ..Default::default() };
    MultiTaskModel::new(encoder(world), std::slice::from_ref(task), options).unwrap()
}

/// A text as a tokenised split.
fn dataset(world: &World, task: &TaskDef, text: &str, max_length: usize) -> Dataset {
    let path = world.path("rows");
    fs::write(&path, text).unwrap();
    let encoder = encoder(world);
    let (tokenizer, cpu) = (encoder.tokenizer(), encoder.device().host());
    Dataset::read(task, &path, Labels::Required, &BadRows::Refuse.into(), tokenizer, max_length, cpu).unwrap()
}

// ---------------------------------------------------------------------------------------------------------------
// Ranking

#[test]
fn a_ranking_row_keeps_the_label_of_every_candidate() {
    let canonical = rows(&ranking(""), "q\ta,b,c\t1,0,2\tpremise\tx\ty\tz\n");
    assert_eq!(canonical[0].label, Some(Label::Ranked(vec![1.0, 0.0, 2.0])));
    let csv = rows(&ranking("data: {train: x.csv}"), "uid,label,premise,hypothesis\nq,1,p,x\nq,0,p,y\nq,2,p,z\n");
    assert_eq!(csv[0].label, canonical[0].label);
}

#[test]
fn a_ranking_predicts_the_candidate_with_the_highest_score() {
    let world = World::new();
    let model = model(&world, &ranking(""));
    let candidates = |texts: [&str; 3]| Content::Candidates {
        premise: "w1 w2".into(),
        hypotheses: texts.map(String::from).to_vec(),
    };
    let orders = [["w3", "w4 w5", "w6"], ["w4 w5", "w6", "w3"], ["w6", "w3", "w4 w5"]].map(candidates);
    let mut best = Vec::new();
    for (question, prediction) in orders.iter().zip(model.predict_contents(0, &orders).unwrap()) {
        let Prediction::Ranked { scores, best: place } = prediction else { panic!("{prediction:?}") };
        let Content::Candidates { hypotheses, .. } = question else { unreachable!() };
        assert!(scores.iter().all(|score| *score <= scores[place]), "{scores:?}");
        best.push(hypotheses[place].clone());
    }
    assert!(best[0] == best[1] && best[1] == best[2], "wherever it stands: {best:?}");
}

#[test]
fn questions_with_different_numbers_of_candidates_share_a_batch() {
    let world = World::new();
    let task = ranking("");
    let data = dataset(&world, &task, "a\t\t1\tw1\tw2\nb\t\t0,0,1\tw1\tw2\tw3\tw4\nc\t\t1,0\tw1\tw2\tw3\n", MAX_LENGTH);
    let batch = data.batch(&[0, 1, 2]).unwrap();
    assert_eq!((batch.examples(), &batch.groups[..]), (3, &[0, 1, 4, 6][..]));
    assert_eq!(data.labels(&[1]).unwrap(), [Label::Ranked(vec![0.0, 0.0, 1.0])]);
    let evaluation = model(&world, &task).evaluate(0, &data).unwrap();
    assert!(evaluation.loss.is_finite() && evaluation.predictions.len() == 3);
}

#[test]
fn the_length_limit_holds_for_every_candidate() {
    let world = World::new();
    let long = "w5 ".repeat(30);
    let text = format!("q\t\t1,0,0,0\tw1\tw2\tw3\tw4\t{long}\n");
    let data = dataset(&world, &ranking(""), &text, 10);
    let packed = data.batch(&[0]).unwrap().packed;
    let lengths: Vec<u32> = packed.cu_seqlens.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(lengths, [5, 5, 5, 10], "[CLS] w1 [SEP] w2 [SEP], and the fourth is cut");
    assert_eq!(data.truncated(), 1);
}

// ---------------------------------------------------------------------------------------------------------------
// Rows

#[test]
fn a_text_beyond_the_limit_is_cut_and_counted_and_stays() {
    let world = World::new();
    let data = dataset(&world, &single(""), &format!("0\t1\t{}\n1\t0\tw1\n", "w2 ".repeat(50)), 12);
    assert_eq!((data.len(), data.truncated(), data.length(0), data.length(1)), (2, 1, 12, 3));
}

#[test]
fn list_literals_of_a_data_file_are_never_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let attack = format!("__import__('pathlib').Path('{}').touch()", trace.display());
    for (task, text) in [
        (tagging(""), format!("u\t['O']\t{attack}\n")),
        (tagging(""), format!("u\t['O']\t[{attack}]\n")),
        (tagging(""), format!("u\t{attack}\t['w']\n")),
        (tagging("data: {train: x.tsv, quoting: none}"), format!("words\ttags\n[\"w\" + {attack}]\tO\n")),
    ] {
        assert!(error(&task, &text).contains("expected"), "{text}");
    }
    assert!(!trace.exists());
}

#[test]
fn the_last_sentence_of_a_conll_file_is_read() {
    let task = tagging(&data("conll"));
    for end in ["", "\n", "\n\n"] {
        let read = rows(&task, &format!("a O\n\nb B-A\nc I-A{end}"));
        assert_eq!(read.len(), 2, "{end:?}");
        assert_eq!(read[1].label, Some(Label::Tags(vec![1, 2])));
    }
}

#[test]
fn the_length_limit_of_a_sentence_counts_sub_tokens() {
    let world = World::new();
    let task = tagging("");
    // The first word has five sub-tokens: w1 - w2 - w3.
    let data = dataset(&world, &task, "u\t['B-A', 'O', 'I-A']\t['w1-w2-w3', 'w4', 'w5']\n", 8);
    let batch = data.batch(&[0]).unwrap();
    assert_eq!(batch.packed.tokens(), 8, "[CLS], five of the first word, one of the second, [SEP]");
    // Each word is learnt at its first sub-token; the third one was cut off, and is told.
    assert_eq!(batch.words.unwrap().of(0), [1, 6, -1]);
    assert_eq!((data.truncated(), data.truncated_words()), (1, 1));
}

#[test]
fn an_unknown_label_is_an_error() {
    let task = task("data_format: PremiseOnly\ntask_type: Classification\nn_class: 2\nlabels: [no, yes]");
    assert_eq!(
        error(&task, "1\tno\tx\n2\tmaybe\ty\n"),
        "rows:2: column 2 (label): unknown label 'maybe'; task 'toy' knows no, yes"
    );
}

#[test]
fn n_class_and_the_number_of_labels_must_agree() {
    let fever = "data_format: PremiseAndOneHypothesis\ntask_type: Classification\nn_class: 2\nlabels: [c, n, e]";
    assert_eq!(
        refused_task(fever),
        "tasks.yml:7: task 'toy': labels: 3 labels, but n_class is 2; give one label for each class"
    );
}

#[test]
fn an_unknown_word_has_the_unknown_token_of_the_tokenizer() {
    let world = World::new();
    let encoder = encoder(&world);
    let vocabulary = fs::read_to_string(world.path("model/vocab.txt")).unwrap();
    let place = |token: &str| vocabulary.lines().position(|line| line == token).unwrap() as u32;
    let encoding = encoder.tokenizer().encode("w1 strange", None, MAX_LENGTH).unwrap();
    assert_eq!(encoding.ids, ["[CLS]", "w1", "[UNK]", "[SEP]"].map(place));
    assert_ne!(place("[UNK]"), 100);
}

#[test]
fn a_bad_row_is_an_error_with_its_line_or_is_counted() {
    let (task, text) = (single(""), "1\t1\tx\n2\ty\n3\t0\tz\n");
    let refused = read(&task, text.as_bytes(), Labels::Required).unwrap_err();
    assert!(matches!(refused, Error::Input { line: Some(2), .. }), "{refused}");
    let source = Box::new(Cursor::new(text));
    let reader = RowReader::from_reader(&task, Path::new("rows"), source, Labels::Required).unwrap();
    let mut reader = reader.bad_rows(BadRows::Skip);
    assert_eq!((reader.by_ref().filter(Result::is_ok).count(), reader.skipped().count), (2, 1));
}

#[test]
fn a_split_without_a_file_is_no_error() {
    let world = World::new();
    let tasks = world.tasks().tasks;
    let all: Vec<TaskDef> = tasks
        .into_iter()
        .map(|task| TaskDef { split_names: ["train", "dev", "test", "extra"].map(String::from).to_vec(), ..task })
        .collect();
    fs::remove_file(world.path("data/pair_dev.tsv")).unwrap();
    let data = TrainingData::read(&world.model(1, None), &all, Some(&world.path("data")), BadRows::Refuse).unwrap();
    assert_eq!(data.tasks.iter().map(|task| task.dev.len()).collect::<Vec<_>>(), [1, 0, 1]);
}

#[test]
fn a_source_row_with_too_few_columns_is_an_error_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("QQP")).unwrap();
    let header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate";
    fs::write(folder.path().join("QQP/train.tsv"), format!("{header}\n1\t1\t2\ta\tb\t0\n2\t1\t2\n")).unwrap();
    let out = folder.path().join("out");
    let refused = glue(folder.path(), &out, &[], &ImportOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::Input { line: Some(3), .. }), "{refused}");
    let options = ImportOptions { skip_bad_rows: true, ..Default::default() };
    let done = glue(folder.path(), &out, &[], &options).unwrap();
    assert_eq!((done.splits[0].rows, done.splits[0].bad_rows), (1, 1));
}

// ---------------------------------------------------------------------------------------------------------------
// Heads and encoders

#[test]
fn a_task_without_dropout_p_trains() {
    let world = World::new();
    let tasks = world.tasks().tasks;
    assert_eq!(tasks[0].dropout_p, None);
    let mut model = world.model(1, None);
    let data = world.data(&model);
    let options = TrainOptions { max_updates: Some(3), check: true, ..Default::default() };
    assert_eq!(Trainer::new(options).run(&mut model, &data, &mut ()).unwrap().updates, 3);
}

#[test]
fn the_activation_of_the_head_is_the_one_asked_for() {
    let world = World::new();
    let texts = [("w1 w2 w30", None), ("w4", None), ("w20 w21", None)];
    type Function = fn(f64) -> f64;
    let functions: [(&str, Function); 3] =
        [("tanh", f64::tanh), ("relu", |z| z.max(0.0)), ("sigmoid", |z| 1.0 / (1.0 + (-z).exp()))];
    for (name, activation) in functions {
        let task = task(&format!("data_format: PremiseOnly\ntask_type: Classification\nn_class: 2\nactf: {name}"));
        let options = HeadOptions { dropout: Some(0.0), pooler: PoolerChoice::Fresh, ..Default::default() };
        let mut model = MultiTaskModel::new(encoder(&world), &[task], options).unwrap();
        // Large weights, so that the activations differ from each other and from none.
        let dense = model.encoder().params().find("heads.toy.dense.weight").unwrap();
        model.encoder_mut().params_mut().get_mut(dense).iter_mut().for_each(|weight| *weight *= 20.0);
        let values = |name: &str| -> Vec<f64> {
            let params = model.encoder().params();
            params.get(params.find(name).unwrap()).iter().map(|x| *x as f64).collect()
        };
        // y = x Wᵀ + b, W [out, in].
        let affine = |x: &[f64], part: &str| -> Vec<f64> {
            let (weight, bias) =
                (values(&format!("heads.toy.{part}.weight")), values(&format!("heads.toy.{part}.bias")));
            let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            weight.chunks(x.len()).zip(bias).map(|(row, bias)| dot(row) + bias).collect()
        };
        let first = model.encoder().embed(&texts, Pool::Cls, false).unwrap();
        for (i, prediction) in model.predict(0, &texts).unwrap().iter().enumerate() {
            let hidden: Vec<f64> = first.text(i).iter().map(|x| *x as f64).collect();
            let pooled: Vec<f64> = affine(&hidden, "dense").into_iter().map(activation).collect();
            let logits = affine(&pooled, "out");
            let expected = 1.0 / (1.0 + (logits[1] - logits[0]).exp());
            let Prediction::Class { probabilities, .. } = prediction else { panic!("{prediction:?}") };
            assert!((probabilities[0] as f64 - expected).abs() < 1e-5, "{name}: {probabilities:?}, not {expected}");
        }
    }
}

#[test]
fn there_is_no_padding_and_a_text_has_the_same_bits_alone_and_packed() {
    let world = World::new();
    let model = model(&world, &single(""));
    let texts: Vec<String> = [1, 30, 7, 2, 19].iter().map(|n| "w7 w8 w9 ".repeat(*n)[..3 * n].to_string()).collect();
    let texts: Vec<(&str, Option<&str>)> = texts.iter().map(|text| (text.as_str(), None)).collect();
    let together = model.predict(0, &texts).unwrap();
    for (text, prediction) in texts.iter().zip(&together) {
        assert_eq!(&model.predict(0, &[*text]).unwrap()[0], prediction);
    }
    let data = dataset(&world, &single(""), "0\t1\tw1\n1\t0\tw1 w2 w3 w4\n", MAX_LENGTH);
    assert_eq!(data.batch(&[0, 1]).unwrap().packed.tokens(), 3 + 6, "tokens of the texts and no others");
}

#[test]
fn the_premise_comes_first_and_has_type_0() {
    let world = World::new();
    let pair = task("data_format: PremiseAndOneHypothesis\ntask_type: Classification\nn_class: 2");
    let packed = dataset(&world, &pair, "0\t1\tw1 w2\tw3\n", MAX_LENGTH).batch(&[0]).unwrap().packed;
    // [CLS] 2, [SEP] 3, w0 5.
    assert_eq!((&packed.ids[..], &packed.type_ids[..]), (&[2, 6, 7, 3, 8, 3][..], &[0, 0, 0, 0, 1, 1][..]));
}

#[test]
fn an_encoder_with_a_tensor_missing_is_refused_by_its_name() {
    let world = World::new();
    let path = world.path("model/model.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let left_out = "encoder.layer.1.output.dense.weight";
    let names: Vec<String> = encoder(&world).params().entries().iter().map(|entry| entry.name.clone()).collect();
    assert!(names.iter().any(|name| name == left_out));
    let kept: Vec<_> = names.iter().filter(|name| *name != left_out).map(|n| (n, file.read_f32(n).unwrap())).collect();
    let kept: Vec<(&str, &[usize], TensorData)> =
        kept.iter().map(|(name, (shape, values))| (name.as_str(), &shape[..], TensorData::F32(values))).collect();
    safetensors::write(&path, &kept, None).unwrap();
    let error = Encoder::load(world.path("model"), &Device::cpu(1).unwrap()).err().unwrap();
    assert!(error.to_string().contains(left_out), "{error}");
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let definition = |kind: &str, san: &str| {
        let yaml = format!("toy:\n  {}\n  metric_meta: [ACC]\n  enable_san: {san}\n", kind.replace('\n', "\n  "));
        TaskFile::parse("tasks.yml", &yaml).and_then(|file| file.tasks[0].kind().map(|_| ()))
    };
    let pairs = "data_format: PremiseAndOneHypothesis\ntask_type: Classification\nn_class: 3";
    definition(pairs, "false").unwrap();
    let cases = [
        (pairs, "true", "enable_san: true is not implemented"),
        ("data_format: MLM\ntask_type: MaskLM\nn_class: 30522", "false", "task_type MaskLM is not implemented"),
        (
            "data_format: ClozeChoice\ntask_type: ClozeChoice\nn_class: 1",
            "false",
            "task_type ClozeChoice is not implemented",
        ),
        (
            "data_format: CLUE_GEN\ntask_type: SeqenceGenerationMRC\nn_class: 1",
            "false",
            "task_type SeqenceGenerationMRC is not implemented",
        ),
    ];
    for (kind, san, expected) in cases {
        let message = definition(kind, san).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_files_of_a_saved_model_are_valid_json() {
    let world = World::new();
    let folder = world.path("saved");
    model(&world, &single("")).save(&folder).unwrap();
    let mut found = 0;
    for (name, content) in support::files(&folder).iter().filter(|(name, _)| name.ends_with(".json")) {
        serde_json::from_slice::<serde_json::Value>(content).unwrap_or_else(|e| panic!("{name}: {e}"));
        found += 1;
    }
    assert!(found >= 2, "config.json and manyhead.json");
}

// ---------------------------------------------------------------------------------------------------------------
// Metrics

#[test]
fn a_metric_that_does_not_belong_to_the_task_is_refused() {
    for (kind, metric) in [("Classification\nn_class: 2", "Pearson"), ("Regression\nn_class: 1", "ACC")] {
        let mut task = task(&format!("data_format: PremiseOnly\ntask_type: {kind}"));
        task.metrics = vec![metric.to_string()];
        let message = task.metric_list().unwrap_err().to_string();
        assert!(message.contains("task 'toy'") && message.contains(metric), "{message}");
    }
}

#[test]
fn auc_is_the_area_and_leaves_other_metrics_alone() {
    let (labels, predictions) = ([0, 1, 1, 0, 1], [0, 0, 1, 1, 1]);
    // Of the six pairs of a positive and a negative one, (0.4, 0.6) alone is the wrong way round.
    let probabilities = [0.1, 0.4, 0.9, 0.6, 0.7];
    let value = |metric| classification(metric, &labels, &predictions, Some(&probabilities), 2).unwrap();
    let accuracy = value(Metric::Accuracy);
    assert_eq!((value(Metric::Auc), accuracy.clone()), (Score::Value(5.0 / 6.0), Score::Value(3.0 / 5.0)));
    assert_eq!(value(Metric::Accuracy), accuracy, "after AUC as before it");
    let three = classification(Metric::Auc, &labels, &predictions, Some(&probabilities), 3).unwrap_err().to_string();
    assert!(three.contains("AUC is defined for two classes"), "{three}");
}
