//! Which file, which column, which label: the layouts of the nine GLUE tasks and of SNLI as tables.

/// A split, and the names its file has in the original and in the copies, without folder; the first that exists is
/// taken.
pub(super) struct SplitFiles {
    pub split: &'static str,
    /// May it have no labels?
    pub test: bool,
    pub names: &'static [&'static str],
}

/// How labels are written: what goes into the canonical file, and which spellings stand for it.
pub(super) enum LabelRule {
    /// (written, also accepted)
    Classes(&'static [(&'static str, &'static [&'static str])]),
    /// A number in this range, both ends included; written as it stands.
    Number(f64, f64),
}

/// A file without a header, known by its number of columns.
pub(super) struct Headerless {
    /// At least, and at most, so many columns.
    pub columns: (usize, usize),
    pub label: Option<usize>,
    pub premise: usize,
    pub hypothesis: Option<usize>,
}

/// One task.
pub(super) struct TableTask {
    /// Its name, without `_`: file names end at the first one.
    pub name: &'static str,
    /// Names of its folder, compared without regard to case.
    pub folders: &'static [&'static str],
    pub splits: &'static [SplitFiles],
    /// Names of the label's column, compared without regard to case, the most telling one first.
    pub label: &'static [&'static str],
    pub premise: &'static [&'static str],
    /// Empty for single texts.
    pub hypothesis: &'static [&'static str],
    /// Whether rows with labels keep the identifier of their file; otherwise they are numbered, as MT-DNN does it.
    pub own_uid: bool,
    pub labels: LabelRule,
    /// Labels that mean that the annotators did not agree.
    pub no_agreement: &'static [&'static str],
    pub headerless: &'static [Headerless],
    /// `metric_meta`, and `labels` where the classes have names.
    pub metrics: &'static str,
    pub label_list: Option<&'static str>,
    pub n_class: usize,
    pub dropout: &'static str,
    /// Told where labels were numbers although the classes have names.
    pub numbers_note: &'static str,
}

/// Columns that hold an identifier.
pub(super) const UIDS: &[&str] = &["index", "id", "idx"];

const TRAIN: SplitFiles = SplitFiles { split: "train", test: false, names: &["train.tsv", "train.csv"] };
const DEV: SplitFiles = SplitFiles {
    split: "dev",
    test: false,
    names: &["dev.tsv", "validation.tsv", "valid.tsv", "dev.csv", "validation.csv"],
};
const TEST: SplitFiles = SplitFiles { split: "test", test: true, names: &["test.tsv", "test.csv"] };
const USUAL: &[SplitFiles] = &[TRAIN, DEV, TEST];

const ZERO_ONE: LabelRule = LabelRule::Classes(&[("0", &[]), ("1", &[])]);
/// Hugging Face's copies write classes as numbers, with entailment as 0.
const ENTAILMENT: LabelRule = LabelRule::Classes(&[("not_entailment", &["1"]), ("entailment", &["0"])]);
const ENTAILMENT_NOTE: &str = "labels are numbers: read as 0 = entailment, 1 = not_entailment";
const ENTAILMENT_LIST: Option<&str> = Some("[not_entailment, entailment]");

/// The tasks in the order of the GLUE paper's table.
pub(super) const GLUE: [TableTask; 9] = [
    TableTask {
        name: "cola",
        folders: &["cola"],
        splits: &[
            SplitFiles { split: "train", test: false, names: &["train.tsv", "in_domain_train.tsv", "train.csv"] },
            SplitFiles {
                split: "dev",
                test: false,
                names: &["dev.tsv", "validation.tsv", "in_domain_dev.tsv", "dev.csv", "validation.csv"],
            },
            TEST,
        ],
        label: &["label"],
        premise: &["sentence"],
        hypothesis: &[],
        own_uid: false,
        labels: ZERO_ONE,
        no_agreement: &[],
        headerless: &[Headerless { columns: (4, 4), label: Some(1), premise: 3, hypothesis: None }],
        metrics: "[MCC, ACC]",
        label_list: None,
        n_class: 2,
        dropout: "0.05",
        numbers_note: "",
    },
    TableTask {
        name: "sst",
        folders: &["sst-2", "sst2", "sst", "sst2-small"],
        splits: &[
            SplitFiles { split: "train", test: false, names: &["train.tsv", "stsa.binary.train", "train.csv"] },
            SplitFiles {
                split: "dev",
                test: false,
                names: &["dev.tsv", "validation.tsv", "stsa.binary.dev", "dev.csv", "validation.csv"],
            },
            SplitFiles { split: "test", test: true, names: &["test.tsv", "stsa.binary.test", "test.csv"] },
        ],
        label: &["label"],
        premise: &["sentence", "text"],
        hypothesis: &[],
        own_uid: false,
        labels: ZERO_ONE,
        no_agreement: &[],
        headerless: &[Headerless { columns: (2, 2), label: Some(0), premise: 1, hypothesis: None }],
        metrics: "[ACC]",
        label_list: None,
        n_class: 2,
        dropout: "0.1",
        numbers_note: "",
    },
    TableTask {
        name: "mrpc",
        folders: &["mrpc"],
        splits: &[
            SplitFiles { split: "train", test: false, names: &["train.tsv", "msr_paraphrase_train.txt", "train.csv"] },
            DEV,
            SplitFiles { split: "test", test: true, names: &["test.tsv", "msr_paraphrase_test.txt", "test.csv"] },
        ],
        label: &["Quality", "label"],
        premise: &["#1 String", "sentence1", "text1"],
        hypothesis: &["#2 String", "sentence2", "text2"],
        own_uid: false,
        labels: ZERO_ONE,
        no_agreement: &[],
        headerless: &[],
        metrics: "[ACC, F1]",
        label_list: None,
        n_class: 2,
        dropout: "0.1",
        numbers_note: "",
    },
    TableTask {
        name: "stsb",
        folders: &["sts-b", "stsb", "stsbenchmark"],
        splits: &[
            SplitFiles {
                split: "train",
                test: false,
                names: &["train.tsv", "sts-train.csv", "stsb-en-train.csv", "train.csv"],
            },
            SplitFiles {
                split: "dev",
                test: false,
                names: &["dev.tsv", "validation.tsv", "sts-dev.csv", "stsb-en-dev.csv", "dev.csv", "validation.csv"],
            },
            SplitFiles {
                split: "test",
                test: true,
                names: &["test.tsv", "sts-test.csv", "stsb-en-test.csv", "test.csv"],
            },
        ],
        label: &["score", "similarity_score", "label"],
        premise: &["sentence1"],
        hypothesis: &["sentence2"],
        own_uid: false,
        labels: LabelRule::Number(0.0, 5.0),
        no_agreement: &[],
        headerless: &[
            Headerless { columns: (3, 3), label: Some(2), premise: 0, hypothesis: Some(1) },
            // The benchmark's own files: genre, file, year, number, score, two sentences, sometimes their sources.
            Headerless { columns: (7, 9), label: Some(4), premise: 5, hypothesis: Some(6) },
        ],
        metrics: "[Pearson, Spearman]",
        label_list: None,
        n_class: 1,
        dropout: "0.1",
        numbers_note: "",
    },
    TableTask {
        name: "qqp",
        folders: &["qqp"],
        splits: USUAL,
        label: &["is_duplicate", "label"],
        premise: &["question1"],
        hypothesis: &["question2"],
        own_uid: false,
        labels: ZERO_ONE,
        no_agreement: &[],
        headerless: &[],
        metrics: "[ACC, F1]",
        label_list: None,
        n_class: 2,
        dropout: "0.1",
        numbers_note: "",
    },
    TableTask {
        name: "mnli",
        folders: &["mnli", "multinli"],
        splits: &[
            TRAIN,
            SplitFiles {
                split: "matched_dev",
                test: false,
                names: &["dev_matched.tsv", "validation_matched.tsv", "validation_matched.csv"],
            },
            SplitFiles {
                split: "mismatched_dev",
                test: false,
                names: &["dev_mismatched.tsv", "validation_mismatched.tsv", "validation_mismatched.csv"],
            },
            SplitFiles { split: "matched_test", test: true, names: &["test_matched.tsv", "test_matched.csv"] },
            SplitFiles { split: "mismatched_test", test: true, names: &["test_mismatched.tsv", "test_mismatched.csv"] },
        ],
        label: &["gold_label", "label"],
        premise: &["sentence1", "premise"],
        hypothesis: &["sentence2", "hypothesis"],
        own_uid: true,
        labels: LabelRule::Classes(&[("contradiction", &["2"]), ("neutral", &["1"]), ("entailment", &["0"])]),
        no_agreement: &["-"],
        headerless: &[],
        metrics: "[ACC]",
        label_list: Some("[contradiction, neutral, entailment]"),
        n_class: 3,
        dropout: "0.1",
        numbers_note: "labels are numbers: read as 0 = entailment, 1 = neutral, 2 = contradiction",
    },
    TableTask {
        name: "qnli",
        folders: &["qnli"],
        splits: USUAL,
        label: &["label"],
        premise: &["question"],
        hypothesis: &["sentence"],
        own_uid: true,
        labels: ENTAILMENT,
        no_agreement: &[],
        headerless: &[],
        metrics: "[ACC]",
        label_list: ENTAILMENT_LIST,
        n_class: 2,
        dropout: "0.1",
        numbers_note: ENTAILMENT_NOTE,
    },
    TableTask {
        name: "rte",
        folders: &["rte"],
        splits: USUAL,
        label: &["label"],
        premise: &["sentence1"],
        hypothesis: &["sentence2"],
        own_uid: true,
        labels: ENTAILMENT,
        no_agreement: &[],
        headerless: &[],
        metrics: "[ACC]",
        label_list: ENTAILMENT_LIST,
        n_class: 2,
        dropout: "0.1",
        numbers_note: ENTAILMENT_NOTE,
    },
    TableTask {
        name: "wnli",
        folders: &["wnli"],
        splits: USUAL,
        label: &["label"],
        premise: &["sentence1"],
        hypothesis: &["sentence2"],
        own_uid: false,
        labels: ZERO_ONE,
        no_agreement: &[],
        headerless: &[],
        metrics: "[ACC]",
        label_list: None,
        n_class: 2,
        dropout: "0.1",
        numbers_note: "",
    },
];

/// SNLI: the files of the original and of the copies in circulation.
pub(super) const SNLI: TableTask = TableTask {
    name: "snli",
    folders: &[],
    splits: &[
        SplitFiles { split: "train", test: false, names: &["snli_1.0_train.txt", "train.tsv", "train.csv"] },
        SplitFiles {
            split: "dev",
            test: false,
            names: &["snli_1.0_dev.txt", "dev.tsv", "validation.tsv", "valid.tsv", "dev.csv", "validation.csv"],
        },
        SplitFiles { split: "test", test: true, names: &["snli_1.0_test.txt", "test.tsv", "test.csv"] },
    ],
    label: &["gold_label", "label"],
    premise: &["sentence1", "premise"],
    hypothesis: &["sentence2", "hypothesis"],
    own_uid: false,
    labels: LabelRule::Classes(&[("contradiction", &["2"]), ("neutral", &["1"]), ("entailment", &["0"])]),
    no_agreement: &["-", "-1"],
    headerless: &[],
    metrics: "[ACC]",
    label_list: Some("[contradiction, neutral, entailment]"),
    n_class: 3,
    dropout: "0.1",
    numbers_note: "labels are numbers: read as 0 = entailment, 1 = neutral, 2 = contradiction",
};
