//! Chunks of input lines, parsed and tokenised: what can be done with the next lines while these are computed.

use std::path::Path;
use std::sync::Arc;

use manyhead::MultiTaskModel;
use manyhead::data::readers::Content;
use manyhead::data::{Dataset, ahead_detached};
use serde_json::Value;

use super::super::common::{Chunks, Failure};
use super::input::Layout;

/// Lines predicted at a time.
const LINES: usize = 256;
/// Chunks that are ready while one is computed: one is enough, and each can be as large as its lines.
const AHEAD: usize = 1;

/// Lines as samples.
pub struct Chunk {
    /// Number of the line, and uid.
    pub origins: Vec<(usize, Option<Value>)>,
    pub contents: Vec<Content>,
    pub dataset: manyhead::Result<Dataset>,
    /// What is wrong with the line behind them; nothing follows then.
    pub failure: Option<Failure>,
}

/// The chunks of the input at `path`, tokenised for a task of the model in a second thread. It is not waited for: a
/// read from a pipe that somebody else holds open would never end.
pub fn chunks(
    path: &Path,
    layout: Layout,
    model: &Arc<MultiTaskModel>,
    task: usize,
) -> Result<impl Iterator<Item = Result<Chunk, Failure>> + use<>, Failure> {
    let source = Source { lines: Chunks::open(path, LINES)?, layout, model: model.clone(), task, ended: false };
    Ok(ahead_detached(model.encoder().device().host(), AHEAD, source))
}

struct Source {
    lines: Chunks,
    layout: Layout,
    model: Arc<MultiTaskModel>,
    task: usize,
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
        self.ended = !matches!(&chunk, Some(Ok(Chunk { failure: None, dataset: Ok(_), .. })));
        chunk
    }
}

impl Source {
    fn chunk(&mut self) -> Result<Option<Chunk>, Failure> {
        let lines = self.lines.read()?;
        if lines.is_empty() {
            return Ok(None);
        }
        let (mut origins, mut contents, mut failure) = (Vec::new(), Vec::new(), None);
        for (line, text) in &lines {
            match self.layout.parse(*line, text) {
                Ok(query) => {
                    origins.push((query.line, query.uid));
                    contents.push(query.content);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let dataset = self.model.tokenise(self.task, &contents);
        Ok(Some(Chunk { origins, contents, dataset, failure }))
    }
}
