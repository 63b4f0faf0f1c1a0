//! Compares the imports of the sources with the rooms of `docs/design.md`, and the promises of
//! `docs/reliability.md` with the tests that it names.

use std::fs;
use std::path::Path;

use crate::support::modules::{Imports, Module, files_below, modules};

/// A room of `src/`, and the rooms that it may import.
const MAY_KNOW: [(&str, &[&str]); 7] = [
    ("domain/", &["domain"]),
    ("migrations/", &["domain", "migrations"]),
    ("service/", &["domain", "service"]),
    ("ui/", &["domain", "service", "ui"]),
    ("local/", &["domain", "local"]),
    ("archive/", &["archive", "domain"]),
    ("postgres/", &["archive", "domain", "migrations", "service", "settings", "postgres"]),
];

/// The rooms of `src/postgres` from left to right; those of one line do not import each other.
const SUB_ROOMS: [&[&str]; 8] = [
    &["connection"],
    &["transaction"],
    &["schema"],
    &["bookkeeping"],
    &["migrate"],
    &["tenants"],
    &["client", "report"],
    &["backup"],
];

/// A foreign crate, or words that write to a stream, and the only places that may hold them.
const ONLY_IN: [(&str, &[&str]); 13] = [
    ("clap::", &["commands/"]),
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

/// Files that hold only tests, beside the code they test.
fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.starts_with("ui/test_support/")
}

/// Returns what the files that are no tests import.
fn imports() -> Imports {
    let modules: Vec<Module> =
        modules().into_iter().filter(|module| !is_test(&module.file)).collect();
    Imports::of(&modules)
}

/// Returns the sub-room of `postgres/` that a file is in, with its place from left to right.
fn sub_room(file: &str) -> Option<(usize, &str)> {
    let name = file.strip_prefix("postgres/")?.split('/').next()?;
    let level = SUB_ROOMS.iter().position(|rooms| rooms.contains(&name))?;
    Some((level, name))
}

#[test]
fn rooms_import_only_rooms_below_them() {
    let mut offences = Vec::new();
    for (file, imported) in &imports().0 {
        let Some((_, allowed)) = MAY_KNOW.iter().find(|(room, _)| file.starts_with(room)) else {
            continue;
        };
        for other in imported {
            let room = other.trim_end_matches(".rs").split('/').next().unwrap();
            if !allowed.contains(&room) {
                offences.push(format!("{file} imports {other}"));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn sub_rooms_import_only_rooms_to_their_left() {
    let mut offences = Vec::new();
    for (file, imported) in &imports().0 {
        let is_in_postgres = file.starts_with("postgres/") && file != "postgres/mod.rs";
        let Some((level, room)) = sub_room(file) else {
            assert!(!is_in_postgres, "{file} is in no room of the table");
            continue;
        };
        for other in imported {
            if let Some((other_level, other_room)) = sub_room(other)
                && room != other_room
                && other_level >= level
            {
                offences.push(format!("{file} imports {other}"));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn no_cycle_of_files_is_longer_than_three() {
    let mut cycles = imports().cycles();
    cycles.retain(|cycle| cycle.len() > 3);
    assert_eq!(cycles, Vec::<Vec<String>>::new());
}

#[test]
fn each_foreign_crate_has_its_place() {
    let mut offences = Vec::new();
    for Module { file: name, code, .. } in modules() {
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
    for Module { file: name, code, .. } in modules() {
        for word in code.split('"').filter(|word| word.len() == 5) {
            let is_sqlstate = word.contains(|c: char| c.is_ascii_digit())
                && word.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
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
    for Module { file: name, .. } in modules() {
        assert!(!vague.iter().any(|word| name.contains(word)), "{name}");
    }
}

#[test]
fn tests_share_only_what_is_in_support() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut offences = Vec::new();
    for file in files_below(&folder) {
        let text = fs::read_to_string(&file).unwrap();
        for (index, line) in text.lines().enumerate() {
            let is_sibling = line.split("crate::").skip(1).any(|path| {
                !path.starts_with("support::") && path.starts_with(char::is_alphabetic)
            });
            if is_sibling && !file.ends_with("architecture.rs") && !file.ends_with("modules.rs") {
                offences.push(format!("{}:{}: {line}", file.display(), index + 1));
            }
        }
    }
    assert_eq!(offences, Vec::<String>::new());
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
                || before.lines().rev().take(4).any(|line| line.trim().ends_with("test]"));
            if !is_there || !is_run {
                wrong.push(format!("{entry}: {name} is not a test"));
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
    let (_, table) = page.split_once("\n| question | file |\n|---|---|\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let files: Vec<&str> = table
        .lines()
        .filter_map(|row| row.rsplit_once(" | "))
        .flat_map(|(_, files)| files.split('`').skip(1).step_by(2))
        .collect();
    assert!(files.len() > 60, "the rows are found");
    let missing: Vec<&&str> = files.iter().filter(|file| !root.join(file).is_file()).collect();
    assert_eq!(missing, Vec::<&&str>::new());
}
