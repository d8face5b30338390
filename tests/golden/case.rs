//! What a family of golden cases works with: the case, its tensors, and the report of its comparisons.
//!
//! A family's runner reads its inputs through [`Case`], computes, and hands every result to [`Report`] together with
//! the expected value. It returns an error only where it could not compute; a value that is off is a matter of the
//! report. Tolerances are the case's own numbers, never constants of a runner.

#![allow(dead_code)] // each family uses its own part

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use manyhead::Device;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One case: a folder with `case.json`, or one data file of a folder of metrics.
pub struct Case {
    /// the folder
    pub dir: PathBuf,
    /// the path relative to the root of all cases, with `/`
    pub name: String,
    /// the content of `case.json`
    pub json: Value,
    /// the data file, where the folder holds a case in each
    pub file: Option<PathBuf>,
}

impl Case {
    /// The field `case`, for example `ops/attention-h1-d128`.
    pub fn id(&self) -> &str {
        self.json["case"].as_str().unwrap_or("")
    }

    /// The first part of [`id`](Self::id), for example `ops`.
    pub fn family(&self) -> &str {
        self.id().split('/').next().unwrap_or("")
    }

    /// Whether [`id`](Self::id) is `prefix` or begins with `prefix/` or `prefix-`: `ops/attention` covers
    /// `ops/attention-h1-d128`.
    pub fn is_a(&self, prefix: &str) -> bool {
        self.id().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '-']))
    }

    /// The object `config`.
    pub fn config(&self) -> &Value {
        &self.json["config"]
    }

    pub fn config_usize(&self, key: &str) -> Result<usize, String> {
        let number = self.config()[key].as_u64().ok_or_else(|| format!("config.{key} is not a whole number"))?;
        usize::try_from(number).map_err(|_| format!("config.{key} is too large"))
    }

    pub fn config_f64(&self, key: &str) -> Result<f64, String> {
        self.config()[key].as_f64().ok_or_else(|| format!("config.{key} is not a number"))
    }

    pub fn config_bool(&self, key: &str) -> Result<bool, String> {
        self.config()[key].as_bool().ok_or_else(|| format!("config.{key} is not true or false"))
    }

    pub fn config_str(&self, key: &str) -> Result<&str, String> {
        self.config()[key].as_str().ok_or_else(|| format!("config.{key} is not a text"))
    }

    /// The number `tolerance.<key>`.
    pub fn tolerance(&self, key: &str) -> Result<f64, String> {
        self.json["tolerance"][key].as_f64().ok_or_else(|| format!("tolerance.{key} is not a number"))
    }

    /// The absolute tolerance of values, under the name that the case gives it.
    pub fn atol(&self) -> Result<f64, String> {
        let keys = ["float32_atol", "value_atol", "atol"];
        keys.iter().find_map(|key| self.tolerance(key).ok()).ok_or_else(|| "the case has no tolerance atol".into())
    }

    /// The relative tolerance of values; 0 where the case has only an absolute one.
    pub fn rtol(&self) -> Result<f64, String> {
        let keys = ["float32_rtol", "value_rtol", "rtol"];
        match keys.iter().find_map(|key| self.tolerance(key).ok()) {
            Some(rtol) => Ok(rtol),
            None => self.atol().map(|_| 0.0),
        }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    pub fn exists(&self, file: &str) -> bool {
        self.path(file).is_file()
    }

    /// The JSON content of `file` in the case's folder.
    pub fn read_json(&self, file: &str) -> Result<Value, String> {
        read_json(&self.path(file))
    }

    /// All tensors of the safetensors file `file`, a path relative to the case's folder (`../shared/x` is possible).
    pub fn tensors(&self, file: &str) -> Result<Tensors, String> {
        Tensors::read(&self.path(file))
    }
}

/// The device that all cases run on: `MANYHEAD_DEVICE`, or `auto`.
pub fn device() -> manyhead::Result<Device> {
    let mut device = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = &*device {
        return Ok(device.clone());
    }
    let name = std::env::var("MANYHEAD_DEVICE").ok().filter(|name| !name.is_empty());
    let made = Device::parse(name.as_deref().unwrap_or("auto"), 0)?;
    Ok(device.insert(made).clone())
}

static DEVICE: Mutex<Option<Device>> = Mutex::new(None);

/// Gives the device back: memory that it still had at the end of the process would be a leak.
pub fn close_device() {
    DEVICE.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// The content of a JSON file.
pub fn read_json(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// The elements of a tensor. Bytes and booleans are widened to I64.
#[derive(Debug, Clone)]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

#[derive(Debug, Clone)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

/// The tensors of one file. A getter's error names the file, the tensor, and what is wrong.
pub struct Tensors {
    file: String,
    tensors: BTreeMap<String, Tensor>,
}

impl Tensors {
    pub fn read(path: &Path) -> Result<Tensors, String> {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let stored = SafeTensors::deserialize(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in stored.iter() {
            let bytes = view.data();
            let data = match view.dtype() {
                Dtype::F32 => Data::F32(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
                Dtype::F64 => Data::F64(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect()),
                Dtype::I64 => Data::I64(bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect()),
                Dtype::U8 | Dtype::BOOL => Data::I64(bytes.iter().map(|&b| i64::from(b)).collect()),
                other => return Err(format!("{file}: tensor {name} has the element type {other:?}")),
            };
            tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), data });
        }
        Ok(Tensors { file, tensors })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensors whose names begin with `prefix`, with what follows it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Tensor)> + 'a {
        self.tensors.iter().filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub fn get(&self, name: &str) -> Result<&Tensor, String> {
        self.tensors.get(name).ok_or_else(|| format!("{}: there is no tensor {name}", self.file))
    }

    pub fn shape(&self, name: &str) -> Result<&[usize], String> {
        self.get(name).map(|tensor| tensor.shape.as_slice())
    }

    pub fn f32(&self, name: &str) -> Result<&[f32], String> {
        self.get(name)?.f32().map_err(|error| format!("{}: tensor {name} {error}", self.file))
    }

    pub fn i64(&self, name: &str) -> Result<&[i64], String> {
        self.get(name)?.i64().map_err(|error| format!("{}: tensor {name} {error}", self.file))
    }

    /// The elements as f64, from f64 or f32.
    pub fn f64(&self, name: &str) -> Result<Vec<f64>, String> {
        self.get(name)?.f64().map_err(|error| format!("{}: tensor {name} {error}", self.file))
    }

    /// A single number, from f64 or f32.
    pub fn scalar(&self, name: &str) -> Result<f64, String> {
        match self.f64(name)?.as_slice() {
            [number] => Ok(*number),
            all => Err(format!("{}: tensor {name} has {} elements, not one", self.file, all.len())),
        }
    }

    /// Whole numbers that must not be negative: ids, positions, cu_seqlens.
    pub fn usizes(&self, name: &str) -> Result<Vec<usize>, String> {
        let convert = |&number: &i64| {
            usize::try_from(number).map_err(|_| format!("{}: tensor {name} contains {number}", self.file))
        };
        self.i64(name)?.iter().map(convert).collect()
    }

    /// Whole numbers of at most 32 bits.
    pub fn i32s(&self, name: &str) -> Result<Vec<i32>, String> {
        let convert = |&number: &i64| {
            i32::try_from(number).map_err(|_| format!("{}: tensor {name} contains {number}", self.file))
        };
        self.i64(name)?.iter().map(convert).collect()
    }
}

impl Tensor {
    pub fn f32(&self) -> Result<&[f32], String> {
        match &self.data {
            Data::F32(data) => Ok(data),
            _ => Err("is not of type float32".into()),
        }
    }

    pub fn i64(&self) -> Result<&[i64], String> {
        match &self.data {
            Data::I64(data) => Ok(data),
            _ => Err("is not of type int64".into()),
        }
    }

    pub fn f64(&self) -> Result<Vec<f64>, String> {
        match &self.data {
            Data::F32(data) => Ok(data.iter().map(|&number| f64::from(number)).collect()),
            Data::F64(data) => Ok(data.clone()),
            Data::I64(_) => Err("is not of a float type".into()),
        }
    }
}

/// A gradient: (name, got, expected).
pub type Gradient<'a> = (&'a str, &'a [f32], &'a [f32]);

/// A tensor after training: (name, got, expected, before training).
pub type Trained<'a> = (&'a str, &'a [f32], &'a [f32], &'a [f32]);

/// How gradients are compared where a case does not say.
const GRADIENT_RULE: &str = "norm(g - expected) <= 2e-4 * norm(expected) + 1e-6 * G";

/// The comparisons of one case.
#[derive(Default)]
pub struct Report {
    /// the text that holds the two constants of the gradient rule
    gradient_rule: Option<String>,
    /// the text that holds the constant of the rule for final weights
    weights_rule: Option<String>,
    worst: Option<(f64, String)>,
    failures: Vec<String>,
}

impl Report {
    pub fn new(json: &Value) -> Report {
        let text = |keys: &[&str]| keys.iter().find_map(|key| json["tolerance"][key].as_str()).map(str::to_owned);
        Report {
            gradient_rule: text(&["gradient_rule", "step0_gradients"]),
            weights_rule: text(&["weights_rule"]),
            ..Report::default()
        }
    }

    /// Largest error / allowed of all comparisons, and where it was; `None` if nothing was compared.
    pub fn worst(&self) -> Option<(f64, &str)> {
        self.worst.as_ref().map(|(ratio, name)| (*ratio, name.as_str()))
    }

    /// A line for each comparison that failed.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Records an error beside what is allowed; the other comparisons end here. NaN fails; 0 of 0 passes.
    pub fn ratio(&mut self, name: &str, error: f64, allowed: f64, detail: impl FnOnce() -> String) {
        let ratio = match error / allowed {
            _ if error == 0.0 => 0.0,
            ratio if ratio.is_nan() => f64::INFINITY,
            ratio => ratio,
        };
        if self.worst.as_ref().is_none_or(|(worst, _)| ratio > *worst) {
            self.worst = Some((ratio, name.to_owned()));
        }
        if ratio > 1.0 {
            self.failures.push(format!("{name}: {}", detail()));
        }
    }

    /// Something is wrong that no number measures.
    pub fn fail(&mut self, name: &str, why: impl Display) {
        self.ratio(name, f64::INFINITY, 1.0, || why.to_string());
    }

    /// Every element: `|got − expected| ≤ atol + rtol·|expected|`. Equal infinities are equal; NaN never is.
    pub fn close(&mut self, name: &str, got: &[f32], expected: &[f32], atol: f64, rtol: f64) {
        self.elements(name, got, expected, atol, rtol);
    }

    /// The same for f64.
    pub fn close_f64(&mut self, name: &str, got: &[f64], expected: &[f64], atol: f64, rtol: f64) {
        self.elements(name, got, expected, atol, rtol);
    }

    /// The same for one number.
    pub fn scalar(&mut self, name: &str, got: f64, expected: f64, atol: f64, rtol: f64) {
        self.elements(name, &[got], &[expected], atol, rtol);
    }

    /// The same for a number that may be undefined: then it must be so on both sides.
    pub fn optional(&mut self, name: &str, got: Option<f64>, expected: Option<f64>, atol: f64, rtol: f64) {
        match (got, expected) {
            (Some(got), Some(expected)) => self.scalar(name, got, expected, atol, rtol),
            (None, None) => self.ratio(name, 0.0, 1.0, String::new),
            _ => self.fail(name, format!("expected {expected:?}, got {got:?}")),
        }
    }

    fn elements<T: Copy + Into<f64>>(&mut self, name: &str, got: &[T], expected: &[T], atol: f64, rtol: f64) {
        if !self.same_length(name, got.len(), expected.len()) {
            return;
        }
        // (ratio, error, allowed, index) of the worst element; an empty tensor agrees with an empty one
        let mut worst = (0.0, 0.0, 1.0, 0);
        for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            let (got, expected): (f64, f64) = (got.into(), expected.into());
            let allowed = atol + rtol * expected.abs();
            let error = if got == expected { 0.0 } else { (got - expected).abs() };
            // An infinity that was expected allows nothing but itself.
            let ratio = match error / allowed {
                _ if error == 0.0 => 0.0,
                _ if !error.is_finite() => f64::INFINITY,
                ratio => ratio,
            };
            if ratio > worst.0 {
                worst = (ratio, if error.is_finite() { error } else { f64::INFINITY }, allowed, index);
            }
        }
        let (_, error, allowed, index) = worst;
        let allowed = if error.is_finite() { allowed } else { 1.0 };
        self.ratio(name, error, allowed, || {
            let (got, expected): (f64, f64) = (got[index].into(), expected[index].into());
            format!("element {index}: expected {expected:?}, got {got:?}, allowed ±{allowed:.1e}")
        });
    }

    /// Every element must be equal.
    pub fn exact<T: PartialEq + Debug>(&mut self, name: &str, got: &[T], expected: &[T]) {
        if !self.same_length(name, got.len(), expected.len()) {
            return;
        }
        match got.iter().zip(expected).position(|(got, expected)| got != expected) {
            Some(i) => self.fail(name, format!("element {i}: expected {:?}, got {:?}", expected[i], got[i])),
            None => self.ratio(name, 0.0, 1.0, String::new),
        }
    }

    fn same_length(&mut self, name: &str, got: usize, expected: usize) -> bool {
        if got != expected {
            self.fail(name, format!("expected {expected} elements, got {got}"));
        }
        got == expected
    }

    /// The case's gradient rule, `norm(g − e) ≤ 2e-4·norm(e) + 1e-6·G` with G the largest norm of any expected
    /// gradient in the list: hand in all gradients of the case at once.
    pub fn gradients(&mut self, gradients: &[Gradient]) {
        // A case that states no rule goes by the one for all.
        let rule = Some(self.gradient_rule.as_deref().unwrap_or(GRADIENT_RULE));
        let constant = |factor: &str| rule.and_then(|rule| number_before(rule, factor));
        let (Some(relative), Some(absolute)) = (constant("* norm(expected)"), constant("* G")) else {
            return self.fail("gradient rule", "the case has none that can be read");
        };
        let largest = gradients.iter().map(|(_, _, expected)| norm(expected)).fold(0.0, f64::max);
        for &(name, got, expected) in gradients {
            if self.same_length(name, got.len(), expected.len()) {
                let (error, size) = (distance(got, expected), norm(expected));
                let allowed = relative * size + absolute * largest;
                self.ratio(name, error, allowed, || {
                    format!(
                        "expected norm {size:.6e}, got {:.6e}; off by {error:.3e}, allowed {allowed:.3e}",
                        norm(got)
                    )
                });
            }
        }
    }

    /// The rule for trained weights, over all tensors together, except those that it names after "except":
    /// `norm(final − expected) ≤ 1e-2·norm(expected − initial)`.
    pub fn weights(&mut self, weights: &[Trained]) {
        let rule = self.weights_rule.clone().unwrap_or_default();
        let Some(relative) = number_before(&rule, "* norm(expected") else {
            return self.fail("weights rule", "the case has none that can be read");
        };
        let except = rule.split_once("except ").and_then(|(_, rest)| rest.split(':').next()).map(str::trim);
        let (mut error, mut moved, mut worst) = (0.0, 0.0, (-1.0, ""));
        for &(name, got, expected, initial) in weights {
            if except.is_some_and(|except| name.ends_with(except)) {
                continue;
            }
            if !self.same_length(name, got.len(), expected.len())
                || !self.same_length(name, initial.len(), expected.len())
            {
                return;
            }
            let off = distance(got, expected).powi(2);
            if off.is_nan() || off > worst.0 {
                worst = (off, name);
            }
            error += off;
            moved += distance(expected, initial).powi(2);
        }
        let (error, allowed) = (f64::sqrt(error), relative * f64::sqrt(moved));
        let name = format!("weights, most of it {}", worst.1);
        self.ratio(&name, error, allowed, || format!("off by {error:.3e} in all, allowed {allowed:.3e}"));
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

/// The number that stands directly before `factor` in `text`.
fn number_before(text: &str, factor: &str) -> Option<f64> {
    text[..text.find(factor)?].split_whitespace().next_back()?.parse().ok()
}
