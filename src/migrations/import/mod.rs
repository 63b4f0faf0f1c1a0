//! Migrations of other tools, converted to files of a set.
//!
//! Imports `files`, `policy` and `sql`.
//! Start reading at: [`convert`].

mod halves;
pub mod history;
mod names;
mod tool;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use self::halves::{Halves, halves};
use self::names::{Half, Named, Version, named};
pub use self::tool::Tool;
use crate::domain::script::Scope;
use crate::migrations::files::folder;
use crate::migrations::files::new_script::words_of;
use crate::migrations::files::script_name::MAX_NAME_CHARS;
use crate::migrations::policy::check::check;
use crate::migrations::policy::refusal::Refusal;
use crate::migrations::sql::directives::{NO_TRANSACTION, Transaction};

/// How the comment starts that names the file of the other tool.
const ORIGIN: &str = "-- Imported from ";

/// A file of a set, converted from a file of another tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The file that it was converted from.
    pub origin: PathBuf,
    /// `V<version>__<name>`.
    pub stem: String,
    /// The text to write.
    pub text: String,
    /// The text of the file that undoes it, if the other tool has one.
    pub undo: Option<String>,
}

/// What was not converted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotConverted {
    /// A file of the other tool.
    pub path: PathBuf,
    /// From 1; `None` for the whole file.
    pub line: Option<usize>,
    /// Why, and what to do.
    pub why: String,
}

/// The files of a folder of another tool, as far as they can be converted.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// In the order of their versions.
    pub files: Vec<Imported>,
    /// In the order of their paths.
    pub problems: Vec<NotConverted>,
}

/// Converts the migrations in a folder of another tool. Writes nothing.
///
/// Versions stay if each is a whole number; otherwise the files are numbered from 1.
///
/// # Errors
///
/// The folder cannot be read.
pub fn convert(tool: Tool, dir: &Path, scope: Scope) -> io::Result<Conversion> {
    let mut problems = Vec::new();
    let mut found = BTreeMap::<Version, Pair>::new();
    for path in names::files(tool, dir)? {
        let Named { version, title, half } = match named(tool, &path) {
            Ok(Some(named)) => named,
            Ok(None) => continue,
            Err(why) => {
                problems.push(NotConverted { path, line: None, why });
                continue;
            }
        };
        let text = match read(&path) {
            Ok(text) => text,
            Err(why) => {
                problems.push(NotConverted { path, line: None, why });
                continue;
            }
        };
        let pair = found.entry(version).or_default();
        let place = if half == Half::Down { &mut pair.down } else { &mut pair.up };
        if let Some(first) = place {
            let why = format!("has the same version as {}", first.path.display());
            problems.push(NotConverted { path, line: None, why });
        } else {
            *place = Some(Source { path, title, text });
        }
    }
    let whole_numbers = found.keys().all(|version| version.number().is_some());
    let mut files = Vec::with_capacity(found.len());
    for (index, (version, pair)) in found.into_iter().enumerate() {
        let number = if whole_numbers { version.number() } else { i64::try_from(index + 1).ok() };
        match pair {
            Pair { up: Some(up), down } => {
                let number = number.unwrap_or_default();
                files.extend(imported(tool, scope, number, up, down.as_ref(), &mut problems));
            }
            Pair { up: None, down } => problems.extend(down.map(|down| NotConverted {
                path: down.path,
                line: None,
                why: "undoes a version that has no file".to_owned(),
            })),
        }
    }
    problems.sort();
    Ok(Conversion { files, problems })
}

/// Writes files into the folder of a set. Files that exist with the same text stay.
///
/// # Errors
///
/// A file exists with another text, or cannot be written. In the first case nothing was written.
pub fn write(dir: &Path, files: &[Imported]) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut to_write = Vec::new();
    for file in files {
        let texts = [(".sql", Some(&file.text)), (".undo.sql", file.undo.as_ref())];
        for (end, text) in texts {
            let Some(text) = text else { continue };
            let path = dir.join(format!("{}{end}", file.stem));
            match fs::read(&path) {
                Ok(there) if there == text.as_bytes() => {}
                Ok(_) => {
                    let error = io::Error::new(
                        io::ErrorKind::AlreadyExists,
                        "it exists with another text; nothing was written",
                    );
                    return Err((path, error));
                }
                Err(_) => to_write.push((path, text)),
            }
        }
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    for (path, text) in &to_write {
        // Complete or absent, so that an import that was killed can be repeated.
        let file = tempfile::Builder::new()
            .prefix(".pricesync-")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(dir);
        let mut file = file.map_err(failed(path))?;
        file.write_all(text.as_bytes()).map_err(failed(path))?;
        file.persist_noclobber(path).map_err(|error| (path.clone(), error.error))?;
    }
    Ok(to_write.into_iter().map(|(path, _)| path).collect())
}

/// Returns the version that a tool gave to the file that a text was imported from, as its history
/// contains it; `None` if the text was not imported from that tool.
pub fn origin(tool: Tool, text: &str) -> Option<String> {
    let mut lines = text.lines().take(2);
    let (name, file) = lines.find_map(|line| line.strip_prefix(ORIGIN)?.split_once(": "))?;
    if name != tool.name() {
        return None;
    }
    tool.key(Path::new(file))
}

/// The files of one version.
#[derive(Default)]
struct Pair {
    up: Option<Source>,
    down: Option<Source>,
}

struct Source {
    path: PathBuf,
    title: String,
    text: String,
}

fn imported(
    tool: Tool,
    scope: Scope,
    version: i64,
    up: Source,
    down: Option<&Source>,
    problems: &mut Vec<NotConverted>,
) -> Option<Imported> {
    let mut report = |path: &Path, (line, why): (usize, String)| {
        problems.push(NotConverted { path: path.to_owned(), line: Some(line), why });
    };
    for source in [Some(&up), down].into_iter().flatten() {
        for problem in tool.unknown_to_us(&source.text) {
            report(&source.path, problem);
        }
    }
    let mut name = words_of(&up.title).join("_");
    if name.is_empty() {
        "migration".clone_into(&mut name);
    }
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    let stem = format!("V{version}__{name}");
    if tool == Tool::Refinery {
        // Its checksum is in the histories.
        return Some(Imported { origin: up.path, stem, text: up.text, undo: None });
    }
    let Halves { up: text, down: second, mut transaction } = match halves(tool, &up.text) {
        Ok(halves) => halves,
        Err(problem) => {
            report(&up.path, problem);
            return None;
        }
    };
    if tool.runs_without_transaction(&up.path)
        || (tool.decides_itself() && needs_none(&text, scope))
    {
        transaction = Transaction::Outside;
    }
    let is_empty = check(&text, scope, transaction).statements.is_empty();
    // The version is in the histories, and a file needs a statement.
    let rest = if is_empty { "SELECT 1; -- the file contains no statement\n" } else { "" };
    let undo = second.or_else(|| down.map(|down| down.text.clone()));
    let undo = undo.filter(|undo| !check(undo, scope, transaction).statements.is_empty());
    let file = tool.shown(&up.path);
    let head = match transaction {
        Transaction::Outside => format!("{NO_TRANSACTION}\n"),
        Transaction::Inside => String::new(),
    };
    let comment = format!("{ORIGIN}{}: {file}\n\n", tool.name());
    Some(Imported {
        stem,
        text: format!("{head}{comment}{}{rest}", ended(&text)),
        undo: undo.map(|undo| format!("{head}{comment}{}", ended(&undo))),
        origin: up.path,
    })
}

/// Returns whether the server accepts a text only outside of a transaction.
fn needs_none(text: &str, scope: Scope) -> bool {
    let inside = check(text, scope, Transaction::Inside).refusals;
    inside.iter().any(|(_, refusal)| matches!(refusal, Refusal::NeedsNoTransaction(_)))
}

/// Returns a text without blank lines at both ends, with a line feed at its end.
fn ended(text: &str) -> String {
    match text.trim_matches(['\n', '\r']).trim_end() {
        "" => String::new(),
        text => format!("{text}\n"),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = folder::read(path).map_err(|problem| problem.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "invalid UTF-8".to_owned())?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}
