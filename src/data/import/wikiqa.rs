//! Questions and sentences that may answer them, in parallel files: `a.toks` (the question), `b.toks` (a sentence),
//! `id.txt` (the question's identifier), `sim.txt` (the sentence's relevance). WikiQA and TREC-QA go around like this.
//!
//! The lines of one question stand one behind the other and become one row. A bad line makes its whole question bad:
//! without one of its sentences it would be another question.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::parallel::{Parallel, split_folders};
use super::write::{TaskEntry, prepare, task_file, write_splits};
use super::{ImportOptions, Imported, ImportedSplit, check_name};
use crate::data::canonical::Rows;
use crate::error::{Error, Result};
use crate::tasks::message::shown;

const FILES: [&str; 4] = ["a.toks", "b.toks", "id.txt", "sim.txt"];

/// Reads the folders `train`, `dev` and `test` below `dir` and writes the ranking task `name` into `out`.
///
/// # Errors
/// No split; files of different lengths; a question whose lines do not stand together; an empty text or identifier, a
/// relevance that is no number, unless such are counted.
pub fn wikiqa(dir: &Path, out: &Path, name: &str, options: &ImportOptions) -> Result<Imported> {
    check_name(name)?;
    let splits = split_folders(dir, FILES[0]);
    if splits.is_empty() {
        let message = "holds no train/a.toks, dev/a.toks or test/a.toks; give the folder that has train and dev";
        return Err(Error::input(dir, None, message));
    }
    let target = |split: &str| format!("{name}_{split}.tsv");
    let mut names = vec!["tasks.yml".to_string()];
    names.extend(splits.iter().map(|(split, _)| target(split)));
    prepare(out, &names, options.overwrite)?;
    let mut read = Vec::new();
    for (split, folder) in &splits {
        let mut done = ImportedSplit::new(name, split, &folder.join(FILES[0]), &out.join(target(split)));
        let rows = read_split(&mut done, folder, options)?;
        read.push((done, rows));
    }
    let mut imported = Imported { splits: write_splits(read)?, ..Imported::default() };
    let entry = TaskEntry {
        name,
        data_format: "PremiseAndMultiHypothesis",
        task_type: "Ranking",
        n_class: 1,
        metrics: "[MAP, MRR, ACC]",
        loss: "RankCeCriterion",
        dropout: "0.1",
        labels: None,
        data: splits.iter().map(|(split, _)| (*split, target(split))).collect(),
    };
    let comment = "Questions with candidate sentences, written by `manyhead import wikiqa`.";
    imported.task_files.push(task_file(&out.join("tasks.yml"), comment, &[entry])?);
    Ok(imported)
}

/// A question that is being read.
struct Question {
    id: String,
    text: String,
    /// Line numbers from 0, relevances, sentences.
    candidates: Vec<(usize, String, String)>,
    bad: Option<Error>,
}

fn read_split(done: &mut ImportedSplit, folder: &Path, options: &ImportOptions) -> Result<Rows> {
    let mut files = Parallel::open(folder, &FILES)?;
    let (mut rows, mut seen) = (Rows::default(), HashMap::new());
    let mut open: Option<Question> = None;
    let (mut line, mut candidates) = (0, 0);
    // The last line of which nobody knows the question: it may be the first of what follows.
    let mut stray: Option<usize> = None;
    while let Some(lines) = files.next()? {
        line += 1;
        let lines = lines.map(|lines| <[String; 4]>::try_from(lines).unwrap_or_default()).and_then(|lines| {
            let known = !lines[2].trim().is_empty();
            if known { Ok(lines) } else { Err(files.error(FILES[2], "the identifier of the question is empty")) }
        });
        let [text, sentence, id, relevance] = match lines {
            Ok(lines) => lines,
            // It counts for the questions around it.
            Err(error) => {
                stray = Some(line);
                match &mut open {
                    Some(question) => {
                        question.bad.get_or_insert(error);
                    }
                    None => done.bad(error, options)?,
                }
                continue;
            }
        };
        let id = id.trim();
        if open.as_ref().is_none_or(|question| question.id != id) {
            candidates += close(open.take(), &mut rows, done, options)?;
            if let Some(first) = seen.insert(id.to_string(), line) {
                let message = format!("the question {} began on line {first} and others stood in between", shown(id));
                return Err(files.error(FILES[2], format!("{message}; its lines must stand together")));
            }
            let bad = stray.map(|stray| {
                files.error(FILES[2], format!("the bad line {stray} may be of the question {}; correct it", shown(id)))
            });
            open = Some(Question { id: id.to_string(), text: text.clone(), candidates: Vec::new(), bad });
        }
        stray = None;
        let Some(question) = &mut open else { continue };
        let relevance = relevance.trim();
        let wrong = if text.trim().is_empty() {
            Some((FILES[0], "the question is empty".to_string()))
        } else if text != question.text {
            let message = format!("another question than before under the same identifier {}", shown(&question.id));
            Some((FILES[0], format!("{message}: {}", shown(&text))))
        } else if sentence.trim().is_empty() {
            Some((FILES[1], "the sentence is empty".to_string()))
        } else if !relevance.parse::<f32>().is_ok_and(f32::is_finite) {
            Some((FILES[3], format!("expected a number, found {}", shown(relevance))))
        } else {
            None
        };
        match wrong {
            Some((file, message)) => {
                question.bad.get_or_insert(files.error(file, message));
            }
            None => question.candidates.push((line - 1, relevance.to_string(), sentence)),
        }
    }
    candidates += close(open, &mut rows, done, options)?;
    (done.rows, done.labelled, done.blanked) = (rows.count, rows.count, rows.blanked);
    done.require_rows()?;
    done.notes.push(format!("{candidates} candidates, {:.1} a question", candidates as f64 / rows.count.max(1) as f64));
    Ok(rows)
}

/// Writes a question that has been read; returns the number of its candidates.
fn close(open: Option<Question>, rows: &mut Rows, done: &mut ImportedSplit, options: &ImportOptions) -> Result<usize> {
    let Some(question) = open else { return Ok(0) };
    if let Some(error) = question.bad {
        done.bad(error, options)?;
        return Ok(0);
    }
    let count = question.candidates.len();
    let list = |cell: &dyn Fn(&(usize, String, String)) -> String| {
        question.candidates.iter().map(cell).collect::<Vec<_>>().join(",")
    };
    let (places, relevances) = (list(&|(line, _, _)| line.to_string()), list(&|(_, relevance, _)| relevance.clone()));
    let head = [question.id, places, relevances, question.text];
    let first = question.candidates.first().map(|(line, _, _)| line + 1);
    let sentences = question.candidates.into_iter().map(|(_, _, sentence)| sentence);
    match rows.push(head.into_iter().chain(sentences).map(Cow::Owned)) {
        Ok(()) => Ok(count),
        Err(message) => {
            let error = Error::input(&done.source, first, message);
            done.bad(error, options).map(|()| 0)
        }
    }
}
