//! `manyhead embed`: vectors of texts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use manyhead::data::ahead_detached;
use manyhead::interop::safetensors::{self, TensorData};
use manyhead::model::{Embeddings, Pool};
use manyhead::{Encoder, Error};
use serde_json::{Map, Value, json};

use super::common::{Chunks, Common, Failure, Output, Products, input_name};

/// Turn texts into vectors
#[derive(Args, Clone)]
#[command(
    after_help = "Input lines: a text, or {\"text\": …, \"text_pair\": …}, or {\"token_id\": […], \"type_id\": […]}; \
    a \"uid\" is handed on.\n\n\
    Output: JSON lines {\"index\", \"uid\", \"embedding\"}; or, for a name that ends in .safetensors, the tensor\n\
    `embeddings` [N, H] (with --pool none: `last_hidden` [T, H] and `cu_seqlens` [N + 1]).\n\n\
    Example:\n  manyhead embed --encoder minilm --input texts.txt --normalize --output vectors.safetensors"
)]
pub struct Arguments {
    /// Folder in Hugging Face layout, or a name: small (travels with the program), minilm (is fetched)
    #[arg(long, value_name = "DIR|NAME")]
    pub encoder: String,
    /// File to read; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,
    /// Mean over all tokens, first token, maximum, or no pooling
    #[arg(long, default_value = "mean", value_parser = ["mean", "cls", "max", "none"])]
    pub pool: String,
    /// Divide each vector by its L2 norm
    #[arg(long)]
    pub normalize: bool,
    /// FILE.safetensors or FILE.jsonl; - is JSON lines on standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Longest sequence in tokens; longer texts are cut [default: as the encoder allows]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    #[command(flatten)]
    pub products: Products,
}

/// Lines embedded at a time.
const CHUNK: usize = 256;
/// Chunks that are ready while one is computed.
const AHEAD: usize = 1;

/// One line of input as tokens.
struct Line {
    uid: Option<Value>,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
}

/// Lines as tokens.
struct Chunk {
    lines: Vec<Line>,
    /// What is wrong with the line behind them; nothing follows then.
    failure: Option<Failure>,
}

/// Reads and tokenises, chunk by chunk, in a second thread.
struct Source {
    chunks: Chunks,
    reader: Reader,
    ended: bool,
}

impl Iterator for Source {
    type Item = Result<Chunk, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let chunk = self.chunk().transpose();
        // Behind a failure nothing is read any more: on a pipe it would be taken from whoever reads it next.
        self.ended = !matches!(&chunk, Some(Ok(Chunk { failure: None, .. })));
        chunk
    }
}

impl Source {
    fn chunk(&mut self) -> Result<Option<Chunk>, Failure> {
        let texts = self.chunks.read()?;
        if texts.is_empty() {
            return Ok(None);
        }
        let (reader, mut lines) = (&self.reader, Vec::with_capacity(texts.len()));
        for parsed in reader.encoder.device().host().map(&texts, |(line, text)| reader.parse(*line, text)) {
            match parsed {
                Ok(line) => lines.push(line),
                Err(failure) => return Ok(Some(Chunk { lines, failure: Some(failure) })),
            }
        }
        Ok(Some(Chunk { lines, failure: None }))
    }
}

struct Reader {
    encoder: Arc<Encoder>,
    path: PathBuf,
    max_length: usize,
}

impl Reader {
    fn fail(&self, line: usize, message: impl Into<String>) -> Failure {
        Error::input(input_name(&self.path), line, message).into()
    }

    fn parse(&self, line: usize, text: &str) -> Result<Line, Failure> {
        let object: Option<Map<String, Value>> =
            if text.starts_with('{') { serde_json::from_str(text).ok() } else { None };
        let jsonl = self.path.extension().is_some_and(|suffix| suffix == "jsonl" || suffix == "json");
        match object {
            Some(object) if jsonl || object.contains_key("text") || object.contains_key("token_id") => {
                self.parse_object(line, &object)
            }
            // A text may begin with a brace; one that begins like our objects is meant as one.
            None if jsonl || text.starts_with("{\"") => {
                Err(self.fail(line, "is not a JSON object; close it, or quote it"))
            }
            _ => self.encode(line, None, text, None),
        }
    }

    fn encode(&self, line: usize, uid: Option<Value>, text: &str, pair: Option<&str>) -> Result<Line, Failure> {
        let encoding = self.encoder.tokenizer().encode(text, pair, self.max_length);
        let encoding = encoding.map_err(|e| self.fail(line, e.to_string()))?;
        Ok(Line { uid, ids: encoding.ids, type_ids: encoding.type_ids })
    }

    fn parse_object(&self, line: usize, object: &Map<String, Value>) -> Result<Line, Failure> {
        let uid = object.get("uid").cloned();
        if let Some(ids) = object.get("token_id") {
            let vocabulary = self.encoder.net().vocab_size();
            let ids = self.numbers(line, "token_id", ids, vocabulary)?;
            let type_ids = match object.get("type_id") {
                Some(types) => self.numbers(line, "type_id", types, self.encoder.net().type_vocab_size())?,
                None => vec![0; ids.len()],
            };
            if ids.is_empty() || ids.len() != type_ids.len() || ids.len() > self.max_length {
                let message = format!(
                    "{} token ids and {} type ids; expected as many of both, from 1 to {}",
                    ids.len(),
                    type_ids.len(),
                    self.max_length
                );
                return Err(self.fail(line, message));
            }
            return Ok(Line { uid, ids, type_ids });
        }
        let text = |key: &str| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(self.fail(line, format!("'{key}' is {other}, not a text"))),
        };
        let first = text("text")?.ok_or_else(|| self.fail(line, "expected the key 'text' or 'token_id'"))?;
        self.encode(line, uid, first, text("text_pair")?)
    }

    fn numbers(&self, line: usize, key: &str, value: &Value, limit: usize) -> Result<Vec<u32>, Failure> {
        let wrong = || self.fail(line, format!("'{key}' must be a list of whole numbers"));
        let number = |value: &Value| match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) if (number as usize) < limit => Ok(number),
            Some(number) => {
                Err(self.fail(line, format!("'{key}' {number} is too large; this encoder's largest is {}", limit - 1)))
            }
            None => Err(wrong()),
        };
        value.as_array().ok_or_else(wrong)?.iter().map(number).collect()
    }
}

/// Runs the subcommand.
pub fn run(arguments: Arguments, common: &Common) -> Result<(), Failure> {
    let to_safetensors = arguments.output.extension().is_some_and(|suffix| suffix == "safetensors");
    if !to_safetensors && arguments.output != Path::new("-") {
        let suffix = arguments.output.extension().and_then(|suffix| suffix.to_str());
        if suffix != Some("jsonl") {
            let message = format!("{} must end in .safetensors or .jsonl", arguments.output.display());
            return Err(Error::argument("--output", message).into());
        }
    }
    let device = common.device_in(&arguments.products)?;
    let encoder = Arc::new(Encoder::load(common.encoder_folder(&arguments.encoder)?, &device)?);
    if !encoder.unexpected().is_empty() {
        common.say(&format!("not used from the checkpoint: {}", encoder.unexpected().join(", ")));
    }
    let limit = encoder.net().max_length();
    let max_length = arguments.max_length.unwrap_or(limit);
    if max_length > limit || max_length < 3 {
        let message = format!("{max_length} tokens; this encoder takes from 3 to {limit}");
        return Err(Error::argument("--max-length", message).into());
    }
    let pool = Pool::parse(&arguments.pool).unwrap_or(Pool::Mean);
    let reader = Reader { encoder: encoder.clone(), path: arguments.input.clone(), max_length };
    let source = Source { chunks: Chunks::open(&arguments.input, CHUNK)?, reader, ended: false };
    let mut all = Embeddings { width: encoder.width(), data: Vec::new(), cu_seqlens: vec![0] };
    let mut output = if to_safetensors { None } else { Some(Output::open(&arguments.output)?) };
    let mut index = 0usize;
    // Not waited for: a read from a pipe that somebody else holds open would never end.
    for chunk in ahead_detached(encoder.device().host(), AHEAD, source) {
        let Chunk { lines, failure } = chunk?;
        let tokens: Vec<_> = lines.iter().map(|line| (line.ids.as_slice(), line.type_ids.as_slice())).collect();
        let vectors = encoder.embed_tokens(&tokens, pool, arguments.normalize)?;
        match &mut output {
            // What stands before a bad line is still answered.
            Some(output) => {
                for (i, line) in lines.into_iter().enumerate() {
                    output.line(&line_json(index, line.uid, vectors.text(i), vectors.width, pool))?;
                    index += 1;
                }
                output.flush()?;
            }
            None => all.extend(&vectors),
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    match output {
        Some(output) => output.finish(),
        None => write_tensors(&arguments.output, &all, pool),
    }
}

fn line_json(index: usize, uid: Option<Value>, rows: &[f32], width: usize, pool: Pool) -> String {
    let mut object = Map::new();
    object.insert("index".into(), json!(index));
    object.extend(uid.map(|uid| ("uid".to_string(), uid)));
    let embedding = match pool {
        Pool::None => json!(rows.chunks(width.max(1)).collect::<Vec<_>>()),
        _ => json!(rows),
    };
    object.insert("embedding".into(), embedding);
    Value::Object(object).to_string()
}

fn write_tensors(path: &Path, all: &Embeddings, pool: Pool) -> Result<(), Failure> {
    let rows = [all.data.len() / all.width.max(1), all.width];
    let borders: Vec<i64> = all.cu_seqlens.iter().map(|border| *border as i64).collect();
    let borders_shape = [borders.len()];
    let mut tensors: Vec<(&str, &[usize], TensorData<'_>)> = Vec::new();
    match pool {
        Pool::None => {
            tensors.push(("last_hidden", &rows, TensorData::F32(&all.data)));
            tensors.push(("cu_seqlens", &borders_shape, TensorData::I64(&borders)));
        }
        _ => tensors.push(("embeddings", &rows, TensorData::F32(&all.data))),
    }
    Ok(safetensors::write(path, &tensors, None)?)
}
