//! How far another tool has brought a schema, by the rows of its history.

use std::collections::BTreeSet;

use super::names::Version;
use super::{Tool, origin};
use crate::migrations::MigrationSet;

/// A row of the history of another tool, in the order in which the tool wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HistoryRow {
    /// The version; of node-pg-migrate the name of the file.
    pub key: String,
    /// Whether it is applied.
    pub is_applied: bool,
    /// What the row stands for.
    pub kind: RowKind,
}

/// What a row of a history stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowKind {
    /// One file.
    File,
    /// The file and all before it: of golang-migrate each row, of Flyway a baseline.
    UpTo,
    /// One file, which was undone.
    Undo,
}

/// Returns the last version of the set that a history says is applied; `None` if none is.
///
/// A file that was imported has the version that it had in the other tool; any other file is
/// expected to have the same version there.
///
/// # Errors
///
/// Why the history stands for no version of the set: a failed file, a gap, a file that is not in the set.
pub fn version_of(
    tool: Tool,
    set: &MigrationSet,
    rows: &[HistoryRow],
) -> Result<Option<i64>, String> {
    let keys: Vec<String> = set
        .scripts()
        .iter()
        .map(|script| {
            origin(tool, &script.text)
                .unwrap_or_else(|| tool.normal(&script.id.version.to_string()))
        })
        .collect();
    let mut applied = BTreeSet::new();
    for row in rows {
        let key = tool.normal(&row.key);
        let known = keys.contains(&key);
        match row.kind {
            RowKind::Undo => {
                applied.remove(&key);
            }
            RowKind::File if !row.is_applied && tool == Tool::Goose => {
                applied.remove(&key);
            }
            RowKind::File | RowKind::UpTo if !row.is_applied => {
                return Err(format!("version {key} of {} is not finished", tool.name()));
            }
            RowKind::File | RowKind::UpTo if !known => {
                return Err(format!("no file of the set is version {key} of {}", tool.name()));
            }
            RowKind::File => {
                applied.insert(key);
            }
            RowKind::UpTo => {
                let last = Version::parse(&key);
                let until = keys.iter().filter(|key| Version::parse(key) <= last);
                applied.extend(until.cloned());
            }
        }
    }
    let mut version = None;
    let mut missing = None;
    for (key, script) in keys.iter().zip(set.scripts()) {
        match (applied.contains(key), &missing) {
            (true, None) => version = Some(script.id.version),
            (true, Some(missing)) => {
                return Err(format!("{} is applied, but {missing} before it is not", script.id));
            }
            (false, _) => missing = missing.or_else(|| Some(script.id.to_string())),
        }
    }
    Ok(version)
}
