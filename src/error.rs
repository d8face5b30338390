//! The one error type of the library.
//!
//! Every variant says what was wrong, where it was (file, line, tensor, shape), and what to do about it.
//! The library never panics on input, never prints and never exits; the command line turns an [`Error`]
//! into one line on standard error and the exit code of [`Error::exit_code`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused: `action` ("read", "write", "create") on `path`.
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },
    /// A file's content is wrong. `line` counts from 1.
    Input { path: PathBuf, line: Option<usize>, message: String },
    /// A stored tensor is missing, misshapen or damaged.
    Tensor { path: PathBuf, tensor: String, message: String },
    /// A key of a model's configuration is missing, wrong, or asks for something that is not implemented.
    Config { path: PathBuf, key: String, message: String },
    /// An operation was given shapes or values it cannot work on.
    Shape { op: &'static str, message: String },
    /// An option or an argument of a call is out of its range.
    Argument { name: String, message: String },
    /// Asked for by name, and not implemented (yet).
    Unsupported { what: String, hint: String },
    /// After a backward pass these trainable parameters had received no gradient.
    NoGradient { parameters: Vec<String> },
    /// A loss or a gradient became NaN or infinite.
    NonFinite { what: String, hint: String },
    /// A device, or the software that drives it, is missing, refuses or fails.
    Device { device: String, message: String },
    /// A device has no memory left for `wanted` bytes; `free` and `total` are what its driver counts.
    DeviceMemory { device: String, wanted: usize, free: usize, total: usize },
    /// The stop flag was raised; what was done so far has been saved.
    Interrupted { update: u64 },
}

impl Error {
    /// `action` on `path` failed with `source`.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Error {
        Error::Io { action, path: path.as_ref().to_path_buf(), source: Arc::new(source) }
    }

    /// The content of `path` is wrong (at `line`, counted from 1, if it is known).
    pub fn input(path: impl AsRef<Path>, line: impl Into<Option<usize>>, message: impl Into<String>) -> Error {
        Error::Input { path: path.as_ref().to_path_buf(), line: line.into(), message: message.into() }
    }

    /// The tensor called `tensor` in `path` is missing, misshapen or damaged.
    pub fn tensor(path: impl AsRef<Path>, tensor: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Tensor { path: path.as_ref().to_path_buf(), tensor: tensor.into(), message: message.into() }
    }

    /// The configuration key `key` in `path` is missing or wrong.
    pub fn config(path: impl AsRef<Path>, key: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Config { path: path.as_ref().to_path_buf(), key: key.into(), message: message.into() }
    }

    /// The operation `op` cannot work on what it was given.
    pub fn shape(op: &'static str, message: impl Into<String>) -> Error {
        Error::Shape { op, message: message.into() }
    }

    /// The option or argument `name` is out of its range.
    pub fn argument(name: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Argument { name: name.into(), message: message.into() }
    }

    /// `what` is not implemented; `hint` says what to use instead.
    pub fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::Unsupported { what: what.into(), hint: hint.into() }
    }

    /// `device` is missing, refuses or fails.
    pub fn device(device: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Device { device: device.into(), message: message.into() }
    }

    /// 2 where the caller's usage or input is at fault, 130 after an interruption, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Io { source, .. } if is_wrong_path(source.kind()) => 2,
            Error::Io { .. } | Error::NoGradient { .. } | Error::NonFinite { .. } => 1,
            Error::Device { .. } | Error::DeviceMemory { .. } => 1,
            Error::Interrupted { .. } => 130,
            _ => 2,
        }
    }
}

/// Whoever gave the path is at fault.
fn is_wrong_path(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}

fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())?;
                if is_full(source.kind()) { write!(f, "; make room there") } else { Ok(()) }
            }
            Error::Input { path, line: Some(line), message } => write!(f, "{}:{line}: {message}", path.display()),
            Error::Input { path, line: None, message } => write!(f, "{}: {message}", path.display()),
            Error::Tensor { path, tensor, message } => write!(f, "{}: tensor {tensor}: {message}", path.display()),
            Error::Config { path, key, message } => write!(f, "{}: key '{key}': {message}", path.display()),
            Error::Shape { op, message } => write!(f, "{op}: {message}"),
            Error::Argument { name, message } => write!(f, "{name}: {message}"),
            Error::Unsupported { what, hint } => write!(f, "{what} is not implemented; {hint}"),
            Error::NoGradient { parameters } => {
                write!(f, "{} trainable parameter(s) got no gradient: {}", parameters.len(), parameters.join(", "))
            }
            Error::NonFinite { what, hint } => write!(f, "{what} is not finite; {hint}"),
            Error::Device { device, message } => write!(f, "{device}: {message}"),
            Error::DeviceMemory { device, wanted, free, total } => {
                let mebibytes = |bytes: &usize| bytes.div_ceil(1 << 20);
                write!(
                    f,
                    "{device}: no memory for {} MiB more ({} of {} MiB are free); lower --batch-size, or use --device cpu",
                    mebibytes(wanted),
                    mebibytes(free),
                    mebibytes(total)
                )
            }
            Error::Interrupted { update } => write!(f, "interrupted after update {update}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
