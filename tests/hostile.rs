//! Broken files, and what a user is told about each: one line that says where and what to do next.
//!
//! `tests/fixtures/hostile/yaml-*.yml` are broken task files; every other file there belongs to the task of its name in
//! `data.yml`. The messages stand in `expected.txt`; after a change of wording `MANYHEAD_WRITE_EXPECTED=1 cargo test
//! --test hostile` writes it anew, and every line of the difference is to be read as a new user would.

use std::fmt::Write;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use manyhead::TaskFile;
use manyhead::data::readers::{Labels, RowReader, read_rows};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hostile")
}

/// "name: message", the folder's path taken out.
fn line(text: &mut String, name: &str, message: &str) {
    let folder = format!("{}/", folder().display());
    writeln!(text, "{name}\n    {}", message.replace(&folder, "")).unwrap();
}

fn all_messages() -> String {
    let mut names: Vec<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let data = TaskFile::read(folder().join("data.yml")).expect("data.yml itself is sound");
    let mut text = String::new();
    for name in &names {
        if name.starts_with("yaml-") {
            let error = TaskFile::read(folder().join(name)).expect_err(name);
            assert_eq!(error.exit_code(), 2, "{name}");
            line(&mut text, name, &error.to_string());
        } else if name.ends_with("sv") {
            let task =
                data.task(name.rsplit_once('.').unwrap().0).unwrap_or_else(|| panic!("{name} is not in data.yml"));
            let path = task.data_file("train", None).unwrap().unwrap();
            let error = read_rows(task, &path, Labels::Required).expect_err(name);
            assert_eq!(error.exit_code(), 2, "{name}");
            line(&mut text, name, &error.to_string());
        }
    }
    // Too large to be kept as files.
    let task = data.task("tsv-empty").unwrap();
    let bytes = [b"0\t1\t".to_vec(), vec![b'x'; 2 << 20], b"\n".to_vec()].concat();
    let long =
        RowReader::from_reader(task, Path::new("line-of-2-mb.tsv"), Box::new(Cursor::new(bytes)), Labels::Required);
    let error = long.unwrap().next().unwrap().expect_err("2 MB");
    line(&mut text, "line-of-2-mb.tsv (made by the test)", &error.to_string());
    let bomb = format!("toy: {}\n", "{a: ".repeat(200_000));
    let error = TaskFile::parse("deep.yml", &bomb).expect_err("deep");
    line(&mut text, "deep.yml (made by the test)", &error.to_string());
    let large = "# much text\n".repeat(100_000);
    let error = TaskFile::parse("large.yml", &large).expect_err("large");
    line(&mut text, "large.yml (made by the test)", &error.to_string());
    let many = format!("toy: [{}]\n", "x, ".repeat(300_000));
    let error = TaskFile::parse("many.yml", &many).expect_err("many");
    line(&mut text, "many.yml (made by the test)", &error.to_string());
    text
}

#[test]
fn every_broken_file_gets_the_message_that_was_agreed_on() {
    let (found, path) = (all_messages(), folder().join("expected.txt"));
    if std::env::var_os("MANYHEAD_WRITE_EXPECTED").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "files were added or taken away");
    assert!(found.lines().count() >= 2 * 30, "at least thirty files");
}

#[test]
fn every_message_names_its_file_and_is_one_line_of_sane_length() {
    for pair in all_messages().lines().collect::<Vec<_>>().chunks(2) {
        let name = pair[0].split(' ').next().unwrap();
        assert!(pair[1].contains(name), "{name}: {}", pair[1]);
        assert!(pair[1].len() < 400, "{name}: {} bytes", pair[1].len());
        assert!(!pair[1].contains(['\t', '\0', '\r']), "{name}: control characters");
    }
}
