//! Teachers' outputs on disk: made once, the same bytes after any interruption, refused where they are damaged or of
//! something else.

mod support;
#[allow(dead_code)]
#[path = "support/teachers.rs"]
mod teachers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use manyhead::data::Dataset;
use manyhead::train::distillation::{Consultation, Keep, Stored, Teacher, TeacherOutputs};
use manyhead::{Device, Error, MultiTaskModel, Result};
use support::{copy_folder, files};
use teachers::{Fixture, LENGTH, NAMES, SENTENCES, asked, consult, expected, same_bits};

const ROWS: usize = 1500;

/// A teacher, and enough texts for several batches.
struct School {
    fixture: Fixture,
    teacher: Teacher,
    data: Dataset,
}

impl School {
    fn new() -> School {
        let fixture = Fixture::new();
        let text = |i: usize| (0..8 + i % 7).map(|j| format!(" w{}", (i * i + 3 * j) % 60)).collect::<String>();
        let rows: String = (0..ROWS).map(|i| format!("{i}\t{}\t{}\n", i % 3, text(i).trim())).collect();
        fs::write(fixture.world.path("data/class_train.tsv"), rows).unwrap();
        let teacher = fixture.teacher(1, LENGTH);
        let data = fixture.data(&teacher.model).tasks.swap_remove(0).train;
        School { fixture, teacher, data }
    }

    /// Outputs and hidden states in `name`, `also` being told how far it is.
    fn consult(&self, name: &str, stop: &AtomicBool, also: &mut dyn FnMut(usize, &Path)) -> Result<TeacherOutputs> {
        let folder = self.fixture.world.path(name);
        let keep = Keep::Folder(folder.clone());
        let how = Consultation {
            layers: &[1],
            projected: Some(2),
            top: Some(2),
            stop: Some(stop),
            ..asked(&keep, Stored::F16)
        };
        self.teacher.consult(0, &self.data, "pass", &how, &mut |done, _| also(done, &folder))
    }

    /// A pass to the end: its files, and from where it was computed to where.
    fn finish(&self, name: &str) -> (BTreeMap<String, Vec<u8>>, Vec<usize>) {
        let mut steps = Vec::new();
        self.consult(name, &AtomicBool::new(false), &mut |done, _| steps.push(done)).unwrap();
        let mut found = files(&self.fixture.world.path(name));
        found.retain(|file, _| !file.ends_with(".lock"));
        (found, steps)
    }
}

#[test]
fn a_pass_that_was_stopped_or_killed_anywhere_ends_with_the_same_bytes() {
    let school = School::new();
    let (straight, steps) = school.finish("straight");
    assert!(steps.len() > 5 && steps.last() == Some(&ROWS), "{steps:?}");
    let names: Vec<&str> = straight.keys().map(String::as_str).collect();
    let wanted = ["borders", "classes", "hidden-1", "manifest.json", "projections-2", "values"];
    assert_eq!(names, wanted.map(|name| format!("pass/{name}")));
    let path = |name: &str| school.fixture.world.path(name);
    for (place, at) in steps.iter().enumerate() {
        // Stopped: it has noted how far it is, and goes on there, also if bytes were written after that note.
        let stop = AtomicBool::new(false);
        let stopped = school.consult("stopped", &stop, &mut |done, _| stop.store(done >= *at, Ordering::Relaxed));
        assert!(matches!(stopped, Err(Error::Interrupted { .. })), "{at}: {:?}", stopped.err());
        assert!(path("stopped/pass/progress.json").exists() && !path("stopped/pass/manifest.json").exists());
        for name in ["values", "borders", "classes", "hidden-1", "projections-2"].into_iter().skip(place % 2) {
            let file = path("stopped/pass").join(name);
            let torn = [fs::read(&file).unwrap(), vec![0x5a; 3 + place]].concat();
            fs::write(file, torn).unwrap();
        }
        let (found, later) = school.finish("stopped");
        assert!(found == straight, "stopped at {at}");
        assert!(later[0] >= *at && later[0] > 0, "{at}: it went on from {later:?}");
        fs::remove_dir_all(path("stopped")).unwrap();

        // Killed: what lies there at this moment.
        let killed = &mut |done: usize, folder: &Path| {
            if done == *at {
                copy_folder(folder, &path("killed"));
            }
        };
        school.consult("running", &AtomicBool::new(false), killed).unwrap();
        let (found, _) = school.finish("killed");
        assert!(found == straight, "killed at {at}");
        fs::remove_dir_all(path("running")).unwrap();
    }
    // Nothing is left to do: nobody is asked.
    let (found, steps) = school.finish("straight");
    assert!(found == straight && steps == [ROWS]);
}

#[test]
fn what_is_damaged_is_refused_by_name_and_made_anew_once_it_is_deleted() {
    let school = School::new();
    let (straight, _) = school.finish("straight");
    let whole = school.fixture.world.path("straight");
    let folder = school.fixture.world.path("damaged");
    let refused = |name: &str, change: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>| {
        copy_folder(&whole, &folder);
        let file = folder.join(name);
        match change(fs::read(&file).unwrap()) {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let error = school.consult("damaged", &AtomicBool::new(false), &mut |_, _| ()).unwrap_err();
        error.to_string()
    };
    for name in straight.keys().filter(|name| !name.ends_with("manifest.json")) {
        let cut = refused(name, &|mut bytes| {
            bytes.pop();
            Some(bytes)
        });
        let flipped = refused(name, &|mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            Some(bytes)
        });
        for message in [cut, flipped] {
            assert!(
                message.contains(name) && message.contains("is damaged") && message.contains("delete"),
                "{message}"
            );
        }
        assert!(refused(name, &|_| None).contains(name));
    }
    let manifest = "pass/manifest.json";
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert!(refused(manifest, &|bytes| Some(bytes[..bytes.len() / 2].to_vec())).contains("not valid JSON"));
    assert!(refused(manifest, &|_| Some(b"{}".into())).contains("another teacher"));
    let without = refused(manifest, &|bytes| Some(text(bytes).replace("\"values\"", "\"other\"").into_bytes()));
    assert!(without.contains("other"), "{without}");
    // A list that leaves out a file: what is there does not fit.
    let short = refused(manifest, &|bytes| {
        let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        manifest["files"].as_object_mut().unwrap().remove("classes");
        Some(manifest.to_string().into_bytes())
    });
    assert!(short.contains("does not fit the other files"), "{short}");
    fs::remove_dir_all(&folder).unwrap();
    assert!(school.finish("damaged").0 == straight);
    // A pass that was stopped, and has lost a part since.
    let stop = AtomicBool::new(false);
    school.consult("cut", &stop, &mut |done, _| stop.store(done > 0, Ordering::Relaxed)).unwrap_err();
    let file = school.fixture.world.path("cut/pass/values");
    fs::write(&file, &fs::read(&file).unwrap()[1..]).unwrap();
    let error = school.consult("cut", &AtomicBool::new(false), &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("values") && error.contains("delete the folder"), "{error}");
}

#[test]
fn outputs_of_something_else_are_refused_in_a_folder_and_stand_beside_in_the_cache() {
    let fixture = Fixture::new();
    let (teacher, other) = (fixture.teacher(1, LENGTH), fixture.teacher(2, LENGTH));
    let data = fixture.data(&teacher.model);
    let (folder, cache) = (Keep::Folder(fixture.outputs()), Keep::Cache(fixture.world.path("cache")));
    let train = &data.tasks[0].train;
    let ask = |teacher: &Teacher, task: usize, dataset: &Dataset, how: &Consultation<'_>| {
        let mut asked = 0;
        let found = teacher.consult(task, dataset, "same", how, &mut |done, _| asked += usize::from(done == 0));
        (found, asked)
    };
    for keep in [&folder, &cache] {
        assert_eq!(ask(&teacher, 0, train, &asked(keep, Stored::F32)).1, 1);
        assert_eq!(ask(&teacher, 0, train, &asked(keep, Stored::F32)).1, 0);
    }
    let usual = |keep| asked(keep, Stored::F32);
    type Change<'a> = (&'a str, &'a Teacher, usize, &'a Dataset, &'a dyn Fn(&'a Keep) -> Consultation<'a>);
    let changes: [Change<'_>; 8] = [
        ("another teacher", &other, 0, train, &usual),
        ("other data", &teacher, 0, &data.tasks[0].dev[0].1, &usual),
        ("another task", &teacher, 1, &data.tasks[1].train, &usual),
        ("another form of numbers (--store)", &teacher, 0, train, &|keep| asked(keep, Stored::F16)),
        ("another number of classes (--top-k)", &teacher, 0, train, &|keep| Consultation {
            top: Some(1),
            ..usual(keep)
        }),
        ("another 'layers'", &teacher, 0, train, &|keep| Consultation { layers: &[1], ..usual(keep) }),
        ("another 'layers'", &teacher, 0, train, &|keep| Consultation { layers: &[2], ..usual(keep) }),
        ("another 'projected'", &teacher, 0, train, &|keep| Consultation { projected: Some(1), ..usual(keep) }),
    ];
    for (what, teacher, task, dataset, how) in changes {
        let (found, computed) = ask(teacher, task, dataset, &how(&folder));
        let message = found.unwrap_err().to_string();
        assert!(message.contains(what) && message.contains("outputs/same") && computed == 0, "{what}: {message}");
        // Beside what is there, once.
        for computed in [1, 0] {
            let (found, asked) = ask(teacher, task, dataset, &how(&cache));
            assert_eq!(asked, computed, "{what}");
            assert!(!found.unwrap().values(0).is_empty());
        }
    }
    assert_eq!(fs::read_dir(fixture.world.path("cache/teachers")).unwrap().count(), 9);
    assert_eq!(ask(&teacher, 0, train, &usual(&folder)).1, 0, "what was refused has harmed nothing");
    // Half a pass of another teacher is refused like a whole one.
    let stop = AtomicBool::new(true);
    let half = Keep::Folder(fixture.world.path("half"));
    let (stopped, _) = ask(&teacher, 0, train, &Consultation { stop: Some(&stop), ..usual(&half) });
    assert!(matches!(stopped, Err(Error::Interrupted { .. })));
    let message = ask(&other, 0, train, &usual(&half)).0.unwrap_err().to_string();
    assert!(message.contains("another teacher"), "{message}");
}

#[test]
fn a_teacher_is_known_by_the_files_of_its_folder() {
    let fixture = Fixture::new();
    let teacher = fixture.teacher(1, LENGTH);
    let train = fixture.data(&teacher.model).tasks.swap_remove(0).train;
    let keep = Keep::Cache(fixture.world.path("cache"));
    let folder: PathBuf = teacher.folder.clone();
    let again = |folder: &Path| {
        let model = MultiTaskModel::load(folder, &Device::cpu(1).unwrap()).unwrap();
        let teacher = Teacher::new(model, folder).unwrap();
        consult(&teacher, 0, &train, &asked(&keep, Stored::F32)).1
    };
    assert_eq!(again(&folder), train.len());
    // Wherever it lies.
    let moved = fixture.world.path("moved");
    copy_folder(&folder, &moved);
    assert_eq!(again(&moved), 0);
    for name in ["heads.safetensors", "model.safetensors"] {
        let mut bytes = fs::read(moved.join(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::remove_file(moved.join(name)).unwrap();
        fs::write(moved.join(name), bytes).unwrap();
        assert_eq!(again(&moved), train.len(), "{name}");
    }
}

#[test]
fn two_at_once_compute_it_once() {
    let school = School::new();
    let other = MultiTaskModel::load(&school.teacher.folder, &Device::cpu(1).unwrap()).unwrap();
    let other = Teacher::new(other, &school.teacher.folder).unwrap();
    let keep = Keep::Cache(school.fixture.world.path("cache"));
    let barrier = Barrier::new(2);
    let one = |teacher: &Teacher| {
        barrier.wait();
        let (found, computed) = consult(teacher, 0, &school.data, &asked(&keep, Stored::F16));
        (found.unwrap().values(ROWS - 1), computed)
    };
    let [a, b] = std::thread::scope(|scope| {
        let handles = [&school.teacher, &other].map(|teacher| scope.spawn(|| one(teacher)));
        handles.map(|handle| handle.join().unwrap())
    });
    assert_eq!(a.1 + b.1, ROWS);
    assert!(same_bits(&a.0, &b.0) && a.0.len() == 3);
}

#[test]
fn the_largest_of_a_distribution_are_kept_and_the_others_share_the_rest() {
    let fixture = Fixture::new();
    let teacher = fixture.teacher(1, LENGTH);
    let data = fixture.data(&teacher.model);
    for (task, data) in data.tasks.iter().enumerate() {
        for top in [1, 2, 3, 100] {
            let keep = Keep::Cache(fixture.world.path("cache"));
            let how = Consultation { top: Some(top), ..asked(&keep, Stored::F32) };
            let found = consult(&teacher, task, &data.train, &how).0.unwrap();
            let classes = match NAMES[task] {
                "class" | "tags" => 3,
                "pair" => 2,
                // Candidates, labels beside each other and numbers are all kept.
                _ => 0,
            };
            let all = top >= classes;
            assert_eq!(found.is_of_logits(), all);
            for example in 0..SENTENCES.len() {
                let logits = expected(&teacher.model, task, &data.train, example, LENGTH);
                let values = found.values(example);
                if all {
                    assert!(same_bits(&values, &logits), "{} {top}", NAMES[task]);
                    continue;
                }
                assert_eq!(values.len(), logits.len());
                for (row, logits) in values.chunks(classes).zip(logits.chunks(classes)) {
                    if logits[0].is_nan() {
                        assert!(row.iter().all(|x| x.is_nan()), "{row:?}");
                        continue;
                    }
                    let powers: Vec<f64> = logits.iter().map(|x| f64::from(*x).exp()).collect();
                    let sum: f64 = powers.iter().sum();
                    let mut order: Vec<usize> = (0..classes).collect();
                    order.sort_by(|a, b| powers[*b].total_cmp(&powers[*a]));
                    let kept: f64 = order[..top].iter().map(|i| powers[*i] / sum).sum();
                    for (place, class) in order.iter().enumerate() {
                        let share = (1.0 - kept) / (classes - top) as f64;
                        let wanted = if place < top { powers[*class] / sum } else { share };
                        let found = f64::from(row[*class]).exp();
                        assert!((found - wanted).abs() < 1e-6, "{} {top}: {found}, not {wanted}", NAMES[task]);
                    }
                }
            }
        }
    }
}
