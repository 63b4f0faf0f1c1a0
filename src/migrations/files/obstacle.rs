//! What keeps the files of a set from a template.

use std::collections::HashSet;

use super::script::Script;
use crate::migrations::policy::deterministic::Determinism;
use crate::migrations::sql::code::names_table;
use crate::migrations::sql::position::location_of_byte;

/// Returns the first statement that may do different things in two empty schemas or at two times, as
/// file, line and reason. `outside`: tables of other schemas that the files lock when they run.
pub(crate) fn obstacle(scripts: &[&Script], outside: &HashSet<String>) -> Option<String> {
    let mut determinism = Determinism::new(outside);
    scripts.iter().find_map(|script| {
        let (offset, why) = script.statements.iter().find_map(|statement| {
            let range = statement.range.clone();
            let (at, why) = determinism.read(&script.text[range.clone()])?;
            Some((range.start + at, why))
        })?;
        Some(format!("{}: {why}", place(script, offset)))
    })
}

/// Returns file and line of the last statement that names a table and is more than a definition.
pub(crate) fn last_use(scripts: &[&Script], table: &str) -> Option<String> {
    scripts.iter().rev().find_map(|script| {
        let uses = script.statements.iter().rev().find(|statement| {
            !statement.only_defines() && names_table(&script.text[statement.range.clone()], table)
        })?;
        Some(place(script, uses.range.start))
    })
}

/// Returns whether any file names a table.
pub(crate) fn is_named(scripts: &[&Script], table: &str) -> bool {
    scripts.iter().any(|script| names_table(&script.text, table))
}

fn place(script: &Script, offset: usize) -> String {
    format!("{}, line {}", script.id, location_of_byte(&script.text, offset).line)
}
