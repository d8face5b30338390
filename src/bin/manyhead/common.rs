//! What all subcommands share: common flags, where encoders come from, input and output, failures.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use manyhead::device::{Cuda, CudaOptions, DeviceName, GRAPHS_VARIABLE, Graphs, Isa, Precision};
use manyhead::interop::fetch;
use manyhead::{Device, Error};

/// Flags of every subcommand.
#[derive(Args, Clone)]
pub struct Common {
    /// Where to compute: auto, cpu, cuda, cuda:N
    #[arg(long, global = true, env = "MANYHEAD_DEVICE", default_value = "auto", help_heading = "Common")]
    pub device: String,
    /// Threads; 0 = as many as this process may use
    #[arg(long, global = true, default_value_t = 0, help_heading = "Common")]
    pub threads: usize,
    /// Folder for fetched weights and tokenised data, which can be deleted at any time [default: the user's cache folder]
    #[arg(long, global = true, env = fetch::CACHE_VARIABLE, value_name = "DIR", help_heading = "Common", value_parser = clap::value_parser!(OsString))]
    pub cache: Option<OsString>,
    /// On a GPU, operands of products in f32 are rounded to tf32, which tensor cores multiply: as --precision tf32
    #[arg(long, global = true, help_heading = "Common")]
    pub tf32: bool,
    /// On a GPU, launch kernels in CUDA graphs where the driver has them: off, pieces (of up to 64 kernels), whole (all from one
    /// wait to the next). The numbers are the same
    #[arg(long, global = true, env = GRAPHS_VARIABLE, default_value = Graphs::Off.name(), value_name = "off|pieces|whole", help_heading = "Common")]
    pub graphs: String,
    /// On a GPU, the tiles of matrix products are chosen by the time that they take, once for each shape: kept in the cache.
    /// Results have the same bits
    #[arg(long, global = true, help_heading = "Common")]
    pub tune: bool,
    /// No talk on standard error, only errors
    #[arg(long, short, global = true, help_heading = "Common")]
    pub quiet: bool,
    /// Results as JSON on standard output
    #[arg(long, global = true, help_heading = "Common")]
    pub json: bool,
    /// The device, once it has been asked for.
    #[arg(skip)]
    opened: OnceLock<Device>,
}

/// The flag of subcommands that use a model.
#[derive(Args, Clone)]
pub struct Products {
    /// What products are computed from: f32, bf16, tf32 and f16 (on a GPU alone), int8 (on the CPU alone: linear layers of the
    /// encoder; measure what it costs with eval --compare-f32), or auto (bf16 where this processor multiplies it faster than f32, never int8)
    #[arg(long, default_value = "f32", value_parser = Precision::NAMES)]
    pub precision: String,
}

/// The values of `train --precision`. What has no gradients is not shown, but read, to be refused with the reason.
pub fn training_precisions() -> PossibleValuesParser {
    let known = |name: &str| Precision::parse(name, Isa::Portable);
    let hidden = |name: &str| known(name).is_ok_and(|precision| precision.check_training("").is_err());
    PossibleValuesParser::new(Precision::NAMES.map(|name| PossibleValue::new(name).hide(hidden(name))))
}

impl Common {
    /// The device that the flags ask for. Who asks for a GPU by name gets the compiler for its kernels fetched.
    pub fn device(&self) -> Result<Device, Failure> {
        match self.opened.get() {
            Some(device) => Ok(device.clone()),
            None => {
                let device = self.open_device()?;
                if let Device::Cuda(_) = device {
                    self.say(&format!("on {device}"));
                }
                if self.tune {
                    device.tune();
                }
                Ok(self.opened.get_or_init(|| device).clone())
            }
        }
    }

    fn open_device(&self) -> Result<Device, Failure> {
        // An empty environment variable is as good as none.
        let name = if self.device.is_empty() { "auto" } else { &self.device };
        let graphs = if self.graphs.is_empty() { Graphs::Off } else { Graphs::parse(&self.graphs)? };
        let options = || CudaOptions { cache: self.cache_folder().ok(), graphs };
        Ok(match DeviceName::parse(name)? {
            DeviceName::Cpu => Device::cpu(self.threads)?,
            DeviceName::Auto => {
                let (device, reason) = Device::auto(self.threads, options())?;
                if let Some(reason) = reason.filter(|reason| reason.present) {
                    self.say(&format!("on the CPU: {} (--device cuda fetches what can be fetched)", reason.why));
                }
                device
            }
            DeviceName::Cuda(ordinal) => {
                let named = std::env::var_os(fetch::NVRTC_VARIABLE).is_some_and(|folder| !folder.is_empty());
                if !named && let Some(driver) = Cuda::lacks_compiler(options().cache.as_deref()) {
                    fetch::nvrtc_for(driver, &self.cache_folder()?, &|message| self.say(message))?;
                }
                Device::cuda(ordinal, self.threads, options())?
            }
        })
    }

    /// The processor: for commands that compute nothing on a device.
    pub fn host(&self) -> Result<Device, Failure> {
        Ok(Device::cpu(self.threads)?)
    }

    /// The same with products in the precision of `--precision`.
    pub fn device_in(&self, precision: &Products) -> Result<Device, Failure> {
        let precision = self.precision(&precision.precision);
        let device = self.device_for(precision)?;
        Ok(device.with_precision(device.parse_precision(precision)?))
    }

    /// What `--precision` asks for, with `--tf32` taken account of.
    pub fn precision<'a>(&self, given: &'a str) -> &'a str {
        if self.tf32 && matches!(given, "auto" | "f32") { "tf32" } else { given }
    }

    /// [`Common::device`] for a precision: who left the choice of the device to us gets the CPU for one that the GPU lacks.
    pub fn device_for(&self, precision: &str) -> Result<Device, Failure> {
        let device = self.device()?;
        let left_to_us = self.device.is_empty() || self.device == "auto";
        let lacking = |device: &Device| device.parse_precision(precision).is_err();
        if left_to_us && matches!(device, Device::Cuda(_)) && lacking(&device) {
            let host = self.host()?;
            if !lacking(&host) {
                self.say(&format!("on the CPU: {device} has no products in {precision}"));
                return Ok(host);
            }
        }
        Ok(device)
    }

    /// One line for the user, unless they asked for quiet.
    pub fn say(&self, message: &str) {
        if !self.quiet {
            tell(message);
        }
    }

    /// The folder of an encoder: a path, or a name that is fetched into the cache.
    pub fn encoder_folder(&self, encoder: &str) -> Result<PathBuf, Failure> {
        let path = Path::new(encoder);
        if path.exists() || encoder.contains(std::path::MAIN_SEPARATOR) {
            return Ok(path.to_path_buf());
        }
        Ok(fetch::named(encoder, &self.cache_folder()?, &|message| self.say(message))?)
    }

    /// The folder for what is fetched and tokenised.
    pub fn cache_folder(&self) -> Result<PathBuf, Failure> {
        Ok(fetch::cache_dir(self.cache.as_deref().filter(|folder| !folder.is_empty()).map(Path::new))?)
    }
}

/// So many of something: "1 row", "2 rows".
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// One line on standard error. A closed standard error (`2>&1 | head`) must not end a run.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Why a command ends without success.
pub enum Failure {
    /// An error of the library.
    Error(Error),
    /// A training run in this folder was stopped by the user after so many updates.
    Interrupted { update: u64, out: PathBuf, command: &'static str },
    /// Whoever read our output has gone: nothing to report.
    OutputClosed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match &error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Error(error),
        }
    }
}

impl Failure {
    /// Tells the user and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Failure::Interrupted { update, out, command } => {
                let run = out.join("run.yml");
                tell(&format!(
                    "manyhead: interrupted after update {update}; to go on: manyhead {command} --run {} --resume",
                    run.display()
                ));
                ExitCode::from(130)
            }
            Failure::Error(error) => {
                tell(&format!("manyhead: error: {error}"));
                ExitCode::from(error.exit_code())
            }
            Failure::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

/// What clap has to say about wrong usage, in one line.
pub fn usage_message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines = lines.filter(|line| !line.starts_with("For more information"));
    let mut message = String::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        let gap = match line.starts_with("tip: ") {
            _ if message.is_empty() => "",
            true => "; ",
            false => " ",
        };
        message.push_str(gap);
        message.push_str(line);
    }
    message
}

/// Opens a file, or standard input for `-`.
pub fn open_input(path: &Path) -> Result<BufReader<Box<dyn Read + Send>>, Failure> {
    if path == Path::new("-") {
        return Ok(BufReader::with_capacity(1 << 16, Box::new(io::stdin())));
    }
    if path.is_dir() {
        return Err(Error::input(path, None, "is a folder; give a file, or - for standard input").into());
    }
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    Ok(BufReader::with_capacity(1 << 16, Box::new(file)))
}

/// How a message names an input.
pub fn input_name(path: &Path) -> &Path {
    if path == Path::new("-") { Path::new("standard input") } else { path }
}

/// A file that appears under its name only when it is finished, or standard output for `-`.
pub struct Output {
    path: PathBuf,
    temporary: Option<PathBuf>,
    writer: Box<dyn Write>,
}

impl Output {
    /// Opens a file, or standard output for `-`.
    pub fn open(path: &Path) -> Result<Output, Failure> {
        if path == Path::new("-") {
            let path = PathBuf::from("standard output");
            return Ok(Output { path, temporary: None, writer: Box::new(BufWriter::new(io::stdout())) });
        }
        if path.is_dir() {
            return Err(Error::input(path, None, "is a folder; give the name of a file").into());
        }
        let path = match std::fs::metadata(path) {
            // A renaming would put a file in the place of /dev/null, a pipe or a terminal.
            Ok(there) if !there.is_file() => {
                let file = File::options().write(true).open(path).map_err(|e| Error::io("write", path, e))?;
                let writer = Box::new(BufWriter::new(file));
                return Ok(Output { path: path.to_path_buf(), temporary: None, writer });
            }
            // What a link points to is replaced, not the link.
            Ok(_) => path.canonicalize().map_err(|e| Error::io("write", path, e))?,
            Err(_) => path.to_path_buf(),
        };
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).map_err(|e| Error::io("write", &path, e))?;
        Ok(Output { path, temporary: Some(temporary), writer: Box::new(BufWriter::new(file)) })
    }

    /// Writes one line.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.writer.write_all(line.as_bytes()).and_then(|()| self.writer.write_all(b"\n"));
        written.map_err(|e| Error::io("write", &self.path, e).into())
    }

    /// Writes whatever `fill` does.
    pub fn fill(&mut self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        fill(&mut self.writer).map_err(|e| Error::io("write", &self.path, e).into())
    }

    /// Hands everything on; a reader at the other end of a pipe sees it now.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|e| Error::io("write", &self.path, e).into())
    }

    /// Gives a file its name.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.flush()?;
        if let Some(temporary) = self.temporary.take() {
            // On the disk before it has its name.
            let synced = File::open(&temporary).and_then(|file| file.sync_all());
            synced.map_err(|e| Error::io("write", &self.path, e))?;
            std::fs::rename(&temporary, &self.path).map_err(|e| Error::io("write", &self.path, e))?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Prints a result to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut output = Output::open(Path::new("-"))?;
    output.line(text.trim_end_matches('\n'))?;
    output.finish()
}

/// Lines in chunks: up to `most`, or as many as are there without waiting.
pub struct Chunks {
    reader: BufReader<Box<dyn Read + Send>>,
    path: PathBuf,
    line: usize,
    most: usize,
    /// Comes after the lines that stand before it.
    failure: Option<Failure>,
}

/// A longer line is no text. Limits and messages are those of the readers of data files.
const LONGEST_LINE: usize = 1 << 20;

impl Chunks {
    /// Opens a file, or standard input for `-`.
    pub fn open(path: &Path, most: usize) -> Result<Chunks, Failure> {
        Ok(Chunks { reader: open_input(path)?, path: path.to_path_buf(), line: 0, most, failure: None })
    }

    /// The next lines with their numbers, counted from 1; empty at the end. A line that cannot be read is an error of
    /// the call after the one that gave the lines before it.
    pub fn read(&mut self) -> Result<Vec<(usize, String)>, Failure> {
        let mut lines = Vec::new();
        while lines.len() < self.most && self.failure.is_none() {
            match self.next_line() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(failure) => self.failure = Some(failure),
            }
            // On a pipe: answer what has come before waiting for more.
            if self.path == Path::new("-") && !self.reader.buffer().contains(&b'\n') {
                break;
            }
        }
        match self.failure.take_if(|_| lines.is_empty()) {
            Some(failure) => Err(failure),
            None => Ok(lines),
        }
    }

    fn next_line(&mut self) -> Result<Option<(usize, String)>, Failure> {
        let name = input_name(&self.path);
        let mut bytes = Vec::new();
        // Room for the longest line, its ending and a byte-order mark; one byte more shows that there is too much.
        let mut limited = (&mut self.reader).take(LONGEST_LINE as u64 + 6);
        limited.read_until(b'\n', &mut bytes).map_err(|e| Error::io("read", name, e))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        let refuse = |message: String| Err(Error::input(name, self.line, message).into());
        if self.line == 1 && (bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])) {
            return refuse("the file is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW".into());
        }
        if self.line == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.len() > LONGEST_LINE {
            return refuse(format!(
                "the line is longer than {LONGEST_LINE} bytes; is this a text file with one row a line?"
            ));
        }
        if let Some(place) = text.iter().position(|byte| *byte == 0) {
            return refuse(format!("a NUL byte at byte {} of the line; is this a text file? Remove it", place + 1));
        }
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Some((self.line, text.to_string()))),
            Err(e) => refuse(format!(
                "not valid UTF-8 at byte {} of the line; convert the file to UTF-8",
                e.valid_up_to() + 1
            )),
        }
    }
}
