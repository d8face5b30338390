//! A teacher's outputs for one data set, on disk: computed once, read from mapped files ever after.
//!
//! A folder has one file a kind of output, numbers in f16 or f32, example after example in the data set's order; `borders`
//! says where the values of each example begin. While the teacher runs, `progress.json` says from time to time how far it
//! is: after a kill the pass goes on from there, and since an example gives the same bits in any batch, it ends with the
//! same bytes. `manifest.json`, with size and hash of every file, is written last. Both name the teacher and the data: what
//! was made by or from others is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::f16;
use memmap2::Mmap;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::hash;
use crate::interop::{atomic, mapped};
use crate::tasks::Outputs;

const MANIFEST: &str = "manifest.json";
const PROGRESS: &str = "progress.json";
const VALUES: &str = "values";
const BORDERS: &str = "borders";
const CLASSES: &str = "classes";
/// Of the layout.
const VERSION: u64 = 1;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// 16 bits: 11 significant ones, up to 65,504.
    #[default]
    F16,
    /// As they are.
    F32,
}

impl Stored {
    /// Reads `f16` or `f32`.
    pub fn parse(name: &str) -> Option<Stored> {
        Some(match name {
            "f16" => Stored::F16,
            "f32" => Stored::F32,
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stored::F16 => "f16",
            Stored::F32 => "f32",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Stored::F16 => 2,
            Stored::F32 => 4,
        }
    }
}

/// What a folder of outputs is of: all of it must be the same for it to be used again.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The hash of the teacher's files.
    pub teacher: String,
    /// The task's name, kind, number of classes, labels.
    pub task: String,
    /// The hash of the tokens and labels that it was run over.
    pub data: String,
    /// What its products were computed in.
    pub precision: String,
    /// Examples.
    pub examples: usize,
    /// Tokens.
    pub tokens: usize,
    /// How numbers are stored.
    pub stored: Stored,
    /// Values kept of a distribution over more classes.
    pub top: Option<usize>,
    /// Hidden states, and the layer of queries, keys and values.
    pub layers: Vec<usize>,
    /// The layer whose queries, keys and values are kept.
    pub projected: Option<usize>,
    /// Width of hidden states.
    pub width: usize,
}

impl Identity {
    fn fields(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("teacher", self.teacher.clone().into()),
            ("task", self.task.clone().into()),
            ("data", self.data.clone().into()),
            ("precision", self.precision.clone().into()),
            ("examples", self.examples.into()),
            ("tokens", self.tokens.into()),
            ("stored", self.stored.name().into()),
            ("top", self.top.into()),
            ("layers", self.layers.clone().into()),
            ("projected", self.projected.into()),
            ("width", self.width.into()),
            ("version", VERSION.into()),
        ]
    }

    /// The hash of all of it: a name for the folder.
    pub fn key(&self) -> String {
        let mut hasher = hash::Hasher::new();
        for (name, value) in self.fields() {
            hasher.text(name).text(&value.to_string());
        }
        hasher.digest().to_string()
    }

    fn json(&self) -> Value {
        self.fields().into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    /// # Errors
    /// The first thing in which a folder's outputs differ, by name, with both values.
    fn check(&self, folder: &Path, found: &Value) -> Result<()> {
        for (name, wanted) in self.fields() {
            let there = found.get(name).unwrap_or(&Value::Null);
            if *there != wanted {
                let what = match name {
                    "teacher" => "another teacher".to_string(),
                    "data" => "other data".to_string(),
                    "task" => "another task".to_string(),
                    "stored" => "another form of numbers (--store)".to_string(),
                    "top" => "another number of classes (--top-k)".to_string(),
                    name => format!("another '{name}'"),
                };
                let message = format!(
                    "holds a teacher's outputs for {what} ({there}, not {wanted}); give another folder, or delete it"
                );
                return Err(Error::input(folder, None, message));
            }
        }
        Ok(())
    }

    /// Names and numbers a token of the files with states; a layer that is asked for twice has one file.
    fn token_files(&self) -> Vec<(String, usize)> {
        let hidden = self.layers.iter().map(|layer| (format!("hidden-{layer}"), self.width));
        let projected = self.projected.map(|layer| (format!("projections-{layer}"), 3 * self.width));
        hidden.chain(projected).collect()
    }
}

/// A folder that is being filled.
pub struct Writer {
    folder: PathBuf,
    identity: Identity,
    outputs: Outputs,
    files: Vec<(String, BufWriter<File>, u64)>,
    values: u64,
    examples: usize,
}

impl Writer {
    /// Goes on where an earlier pass ended, or begins. `outputs` is what the values of an example mean.
    ///
    /// # Errors
    /// A folder with outputs of something else; the disk.
    pub fn open(folder: &Path, identity: &Identity, outputs: Outputs) -> Result<Writer> {
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let progress = read_json(&folder.join(PROGRESS))?;
        if let Some(progress) = &progress {
            identity.check(folder, progress.get("of").unwrap_or(&Value::Null))?;
        }
        let done = |key: &str| progress.as_ref().and_then(|p| p.get(key)?.as_u64()).unwrap_or(0);
        let sizes = progress.as_ref().and_then(|progress| progress.get("bytes")).cloned().unwrap_or_default();
        let mut names: Vec<String> = identity.token_files().into_iter().map(|(name, _)| name).collect();
        names.extend([VALUES.to_string(), BORDERS.to_string()]);
        names.extend(top_of(identity, outputs).map(|_| CLASSES.to_string()));
        let mut files: Vec<(String, BufWriter<File>, u64)> = Vec::new();
        for name in names {
            if files.iter().any(|(known, ..)| *known == name) {
                continue;
            }
            let path = folder.join(&name);
            let length = sizes.get(&name).and_then(Value::as_u64).unwrap_or(0);
            let file = OpenOptions::new().create(true).read(true).append(true).open(&path);
            let file = file.map_err(|e| Error::io("open", &path, e))?;
            let there = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
            if there < length {
                let message = format!("has {there} bytes, of {length} that were written");
                return Err(damaged(&path, None, &message));
            }
            // What came after the last note is made again.
            file.set_len(length).map_err(|e| Error::io("cut", &path, e))?;
            files.push((name, BufWriter::with_capacity(1 << 20, file), length));
        }
        let (examples, values) = (done("examples") as usize, done("values"));
        let mut writer = Writer { folder: folder.into(), identity: identity.clone(), outputs, files, values, examples };
        if writer.files.iter().any(|(name, _, length)| name == BORDERS && *length == 0) {
            writer.write(BORDERS, &0u64.to_le_bytes())?;
        }
        Ok(writer)
    }

    /// Examples that are done.
    pub fn examples(&self) -> usize {
        self.examples
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let missing = || Error::argument("outputs", format!("there is no file {name}"));
        let (_, file, length) = self.files.iter_mut().find(|(known, ..)| known == name).ok_or_else(missing)?;
        *length += bytes.len() as u64;
        file.write_all(bytes).map_err(|e| Error::io("write", self.folder.join(name), e))
    }

    fn write_numbers(&mut self, name: &str, numbers: impl Iterator<Item = f32>) -> Result<()> {
        let mut bytes = Vec::new();
        let mut lost = None;
        match self.identity.stored {
            Stored::F16 => numbers.for_each(|x| {
                let rounded = f16::from_f32(x);
                if rounded.is_infinite() && x.is_finite() {
                    lost = Some(x);
                }
                bytes.extend_from_slice(&rounded.to_le_bytes());
            }),
            Stored::F32 => numbers.for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
        }
        if let Some(x) = lost {
            let message = format!("an output of the teacher, {x}, is beyond f16; keep them in f32 (--store f32)");
            return Err(Error::input(self.folder.join(name), None, message));
        }
        self.write(name, &bytes)
    }

    /// Adds the values of the next example.
    ///
    /// # Errors
    /// The disk.
    pub fn push_values(&mut self, values: &[f32]) -> Result<()> {
        match top_of(&self.identity, self.outputs) {
            None => {
                self.values += values.len() as u64;
                self.write_numbers(VALUES, values.iter().copied())?;
            }
            Some((classes, top)) => {
                for row in values.chunks_exact(classes) {
                    let (kept, numbers) = largest(row, top);
                    self.values += numbers.len() as u64;
                    self.write_numbers(VALUES, numbers.into_iter())?;
                    let bytes: Vec<u8> = kept.iter().flat_map(|class| class.to_le_bytes()).collect();
                    self.write(CLASSES, &bytes)?;
                }
            }
        }
        self.examples += 1;
        let border = self.values.to_le_bytes();
        self.write(BORDERS, &border)
    }

    /// Adds states of the next tokens: of all layers in the identity's order, then queries, keys and values side by side.
    ///
    /// # Errors
    /// The disk; states that nobody asked for.
    pub fn push_states(&mut self, place: usize, states: &[f32]) -> Result<()> {
        let names = self.identity.token_files();
        let missing = || Error::argument("outputs", format!("no states {place} were asked for"));
        let (name, _) = names.get(place).ok_or_else(missing)?;
        if names.iter().take(place).any(|(known, _)| known == name) {
            return Ok(());
        }
        self.write_numbers(name, states.iter().copied())
    }

    /// Notes down how far it is.
    ///
    /// # Errors
    /// The disk.
    pub fn note(&mut self) -> Result<()> {
        let mut bytes = serde_json::Map::new();
        for (name, file, length) in &mut self.files {
            file.flush().map_err(|e| Error::io("write", self.folder.join(&name), e))?;
            bytes.insert(name.clone(), (*length).into());
        }
        let progress = json!({
            "of": self.identity.json(), "examples": self.examples, "values": self.values, "bytes": bytes,
        });
        atomic::write_bytes(self.folder.join(PROGRESS), format!("{progress}\n").as_bytes())
    }

    /// Seals the folder.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(mut self) -> Result<()> {
        self.note()?;
        let mut files = serde_json::Map::new();
        for (name, file, _) in self.files.drain(..) {
            let path = self.folder.join(&name);
            let file = file.into_inner().map_err(|e| Error::io("write", &path, e.into_error()))?;
            file.sync_all().map_err(|e| Error::io("write", &path, e))?;
            let (bytes, hash) = hash::of_file(&path)?;
            files.insert(name, json!({"bytes": bytes, "hash": hash.to_string()}));
        }
        let manifest = json!({"of": self.identity.json(), "files": files});
        atomic::write_bytes(self.folder.join(MANIFEST), format!("{manifest:#}\n").as_bytes())?;
        let progress = self.folder.join(PROGRESS);
        fs::remove_file(&progress).map_err(|e| Error::io("delete", &progress, e))
    }
}

/// Number of classes and of those that are kept, where not all are.
fn top_of(identity: &Identity, outputs: Outputs) -> Option<(usize, usize)> {
    match outputs {
        Outputs::Distributions(classes) if !outputs.are_whole(identity.top) => Some((classes, identity.top?)),
        _ => None,
    }
}

/// The classes of the `top` largest logits, the earlier one of equals, rising; their log-probabilities, and that which each of
/// the others gets: the rest in equal shares.
fn largest(row: &[f32], top: usize) -> (Vec<u32>, Vec<f32>) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let sum: f64 = row.iter().map(|x| (f64::from(*x) - most).exp()).sum();
    let log = |x: f32| f64::from(x) - most - sum.ln();
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    let value = |class: &u32| row.get(*class as usize).copied().unwrap_or(f32::NAN);
    order.sort_by(|a, b| value(b).total_cmp(&value(a)).then(a.cmp(b)));
    let rest: f64 = order.iter().skip(top).map(|class| log(value(class)).exp()).sum();
    let mut kept: Vec<u32> = order.iter().copied().take(top).collect();
    kept.sort_unstable();
    let mut numbers: Vec<f32> = kept.iter().map(|class| log(value(class)) as f32).collect();
    numbers.push((rest / (row.len() - top).max(1) as f64).ln() as f32);
    (kept, numbers)
}

/// A folder that is finished.
#[derive(Debug)]
pub struct TeacherOutputs {
    identity: Identity,
    outputs: Outputs,
    files: Vec<(String, Option<Mmap>)>,
    borders: Vec<u64>,
}

impl TeacherOutputs {
    /// Opens a folder; None if no pass has come to its end there.
    ///
    /// # Errors
    /// Outputs of another teacher or of other data; damage.
    pub fn open(folder: &Path, identity: &Identity, outputs: Outputs) -> Result<Option<TeacherOutputs>> {
        let Some(manifest) = read_json(&folder.join(MANIFEST))? else { return Ok(None) };
        identity.check(folder, manifest.get("of").unwrap_or(&Value::Null))?;
        let listed = manifest.get("files").and_then(Value::as_object);
        let listed = listed.ok_or_else(|| Error::config(folder.join(MANIFEST), "files", "is missing"))?;
        let mut files = Vec::new();
        for (name, seal) in listed {
            let path = folder.join(name);
            if !path.is_file() {
                return Err(damaged(&path, None, "is missing"));
            }
            let (bytes, hash) = hash::of_file(&path)?;
            let same = seal.get("hash").and_then(Value::as_str) == Some(hash.to_string().as_str());
            if seal.get("bytes").and_then(Value::as_u64) != Some(bytes) || !same {
                return Err(damaged(&path, None, "is damaged: its content is not what was written"));
            }
            let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
            files.push((name.clone(), if bytes == 0 { None } else { Some(mapped::map(&file, &path)?) }));
        }
        let mut all = TeacherOutputs { identity: identity.clone(), outputs, files, borders: Vec::new() };
        let words = all.bytes(BORDERS).chunks_exact(8);
        all.borders = words.map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())).collect();
        all.check(folder)?;
        Ok(Some(all))
    }

    fn bytes(&self, name: &str) -> &[u8] {
        let found = self.files.iter().find(|(known, _)| known == name);
        found.and_then(|(_, map)| map.as_deref()).unwrap_or_default()
    }

    /// Sizes that fit each other: nothing is cut by borders that lie.
    fn check(&self, folder: &Path) -> Result<()> {
        let size = self.identity.stored.bytes();
        let mut fits = self
            .identity
            .token_files()
            .iter()
            .all(|(name, width)| self.bytes(name).len() == self.identity.tokens * width * size);
        let values = self.bytes(VALUES).len() / size;
        fits &= self.borders.len() == self.identity.examples + 1
            && self.borders.first() == Some(&0)
            && self.borders.last() == Some(&(values as u64))
            && self.borders.windows(2).all(|pair| pair[0] <= pair[1]);
        if let Some((_, top)) = top_of(&self.identity, self.outputs) {
            fits &= self.bytes(CLASSES).len() == values / (top + 1) * top * 4;
        }
        match fits {
            true => Ok(()),
            false => Err(damaged(&folder.join(BORDERS), None, "does not fit the other files")),
        }
    }

    fn numbers(&self, name: &str, range: std::ops::Range<usize>) -> Vec<f32> {
        let size = self.identity.stored.bytes();
        let bytes = self.bytes(name).get(range.start * size..range.end * size).unwrap_or_default();
        match self.identity.stored {
            Stored::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Stored::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        }
    }

    /// The values of example `i`; none if there is no such example.
    pub fn values(&self, i: usize) -> Vec<f32> {
        let Some([start, end]) = self.borders.get(i..i + 2) else { return Vec::new() };
        let numbers = self.numbers(VALUES, *start as usize..*end as usize);
        let Some((classes, top)) = top_of(&self.identity, self.outputs) else { return numbers };
        let first = *start as usize / (top + 1) * top;
        let kept = self.bytes(CLASSES).chunks_exact(4).skip(first);
        let mut kept = kept.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
        let mut values = Vec::new();
        for row in numbers.chunks_exact(top + 1) {
            let begin = values.len();
            values.resize(begin + classes, row[top]);
            for number in &row[..top] {
                if let Some(place) = kept.next().and_then(|class| values.get_mut(begin + class)) {
                    *place = *number;
                }
            }
        }
        values
    }

    /// States number `place`, in the order of the layers that were asked for, queries, keys and values last, of some tokens.
    pub fn states(&self, place: usize, tokens: std::ops::Range<usize>) -> Vec<f32> {
        let files = self.identity.token_files();
        let Some((name, width)) = files.get(place) else { return Vec::new() };
        self.numbers(name, tokens.start * width..tokens.end * width)
    }

    /// What they are known by.
    pub fn key(&self) -> String {
        self.identity.key()
    }

    /// Whether the values are the teacher's logits, not log-probabilities of which the smaller ones are levelled.
    pub fn is_of_logits(&self) -> bool {
        self.outputs.are_whole(self.identity.top)
    }

    /// Width of hidden states.
    pub fn width(&self) -> usize {
        self.identity.width
    }
}

/// A file that is not what was written there.
fn damaged(path: &Path, line: Option<usize>, what: &str) -> Error {
    let folder = path.parent().unwrap_or(path).display();
    Error::input(path, line, format!("{what}; delete the folder {folder}, it is made anew"))
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
        Ok(text) => {
            let read = serde_json::from_str(&text);
            read.map(Some).map_err(|e| damaged(path, Some(e.line()), &format!("is not valid JSON: {e}")))
        }
    }
}
