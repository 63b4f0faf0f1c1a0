//! Who may know whom: the table of `docs/design.md`, compared with what the files import; and that
//! what `docs/reliability.md` calls proven is tested.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder or file of `src/`, and which rooms of ours its code may name.
const MAY_KNOW: [(&str, &[&str]); 7] = [
    ("domain/", &["domain"]),
    ("migrations/", &["domain", "migrations"]),
    ("service/", &["domain", "service"]),
    ("ui/", &["domain", "service", "ui"]),
    ("local/", &["domain", "local"]),
    ("archive/", &["archive", "domain"]),
    (
        "postgres/",
        &[
            "archive",
            "domain",
            "migrations",
            "service",
            "settings",
            "postgres",
        ],
    ),
];

/// A foreign crate, or words that write to a stream, and the only places that may hold them.
const ONLY_IN: [(&str, &[&str]); 13] = [
    ("clap::", &["commands/", "lib.rs"]),
    ("tokio_postgres::", &["postgres/"]),
    ("deadpool_postgres::", &["postgres/connection/"]),
    ("refinery_core::", &["postgres/migrate/refinery.rs"]),
    (
        "squawk_syntax::",
        &[
            "migrations/sql/parser.rs",
            "migrations/lint/extract.rs",
            "migrations/lint/extract_alter.rs",
            "migrations/lint/default_value.rs",
        ],
    ),
    ("indicatif::", &["ui/"]),
    ("comfy_table::", &["ui/"]),
    ("toml::", &["settings/file.rs"]),
    ("anyhow::", &["commands/", "error.rs", "lib.rs"]),
    ("println!(", &[]),
    ("eprintln!(", &[]),
    ("process::exit", &[]),
    ("BEGIN;", &["postgres/"]),
];

/// Every source file with its path below `src/` and its code, without comments and unit tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
                let code: Vec<&str> = code
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"))
                    .collect();
                let name = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push((name, code.join("\n")));
            }
        }
    }
    assert!(found.len() > 60, "the sources are found");
    found
}

/// Files that hold only tests, beside the code they test.
fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.starts_with("ui/test_support/")
}

#[test]
fn rooms_know_only_those_below_them() {
    let mut offences = Vec::new();
    for (name, code) in sources() {
        let Some((_, allowed)) = MAY_KNOW.iter().find(|(room, _)| name.starts_with(room)) else {
            continue;
        };
        for part in code.split("crate::").skip(1) {
            let known: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if !allowed.contains(&known.as_str()) {
                offences.push(format!("src/{name} knows crate::{known}"));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn each_foreign_crate_has_its_place() {
    let mut offences = Vec::new();
    for (name, code) in sources() {
        for (words, places) in ONLY_IN {
            let at_home = places.iter().any(|place| name.starts_with(place));
            if !at_home && !is_test(&name) && code.contains(words) {
                offences.push(format!("src/{name} holds {words}"));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn sqlstates_are_written_in_one_file() {
    let mut offences = Vec::new();
    for (name, code) in sources() {
        for word in code.split('"').filter(|word| word.len() == 5) {
            let is_sqlstate = word.contains(|c: char| c.is_ascii_digit())
                && word
                    .chars()
                    .all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
            if is_sqlstate && name != "domain/sqlstate.rs" {
                offences.push(format!("src/{name} holds {word}"));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn no_file_is_named_after_nothing() {
    let vague = ["utils", "helpers", "common", "manager", "misc"];
    for (name, _) in sources() {
        assert!(!vague.iter().any(|word| name.contains(word)), "{name}");
    }
}

#[test]
fn every_promise_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let line = line.replace("\\|", "");
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, entry, promise, tests, _] = cells[..] else {
            wrong.push(format!("{line} has other than three cells"));
            continue;
        };
        if promise == "promise" {
            continue;
        }
        rows += 1;
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if entry.is_empty() || promise.is_empty() || named.is_empty() {
            wrong.push(format!("{line} has an empty cell"));
        }
        for name in named {
            let Some((place, test)) = name.rsplit_once("::") else {
                wrong.push(format!("{entry}: {name} has no file"));
                continue;
            };
            let file = if place.contains('/') {
                root.join(place)
            } else {
                root.join(format!("tests/it/{place}.rs"))
            };
            let source = fs::read_to_string(file).unwrap_or_default();
            let (before, is_there) = match source.split_once(&format!("fn {test}(")) {
                Some((before, _)) => (before, true),
                None => ("", false),
            };
            // Torture has a harness of its own.
            let is_run = place.starts_with("tests/torture/")
                || before
                    .lines()
                    .rev()
                    .take(4)
                    .any(|line| line.trim().ends_with("test]"));
            if !is_there || !is_run {
                wrong.push(format!("{entry}: {name} is no test"));
            }
        }
    }
    assert!(rows > 70, "the rows are found");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_file_that_answers_a_question_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/design.md")).unwrap();
    let (_, table) = page
        .split_once("\n| question | file |\n|---|---|\n")
        .unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let files: Vec<&str> = table
        .lines()
        .filter_map(|row| row.rsplit_once(" | "))
        .flat_map(|(_, files)| files.split('`').skip(1).step_by(2))
        .collect();
    assert!(files.len() > 60, "the rows are found");
    let missing: Vec<&&str> = files
        .iter()
        .filter(|file| !root.join(file).is_file())
        .collect();
    assert_eq!(missing, Vec::<&&str>::new());
}
