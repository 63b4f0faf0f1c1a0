//! Which relations the files of a set create, and which file creates one that was not found.

use std::collections::{HashMap, HashSet};

use super::script::Script;
use super::set::MigrationSet;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::{DefinedIn, Scope};
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::{Lexer, TokenKind};
use crate::migrations::sql::relations::{RelationChange, RelationName, change};

/// Returns which file creates `relation`, which `failed` did not find; `None` if the files do not
/// show it, because code or renaming may create it. `batch` are the scripts of the failed
/// transaction; all others before it in its set are recorded as applied.
pub fn find_definition(
    relation: &str,
    failed: &Script,
    batch: &[&Script],
    (shared, tenant): (&MigrationSet, &MigrationSet),
    scope: Scope,
) -> Option<DefinedIn> {
    let set = match scope {
        Scope::Shared => shared,
        Scope::Tenant => tenant,
    };
    let here = set.scripts().iter().position(|it| it.id == failed.id)?;
    // Whether the relation exists after each file that creates or drops it.
    let exists: Vec<(usize, bool)> = (set.scripts().iter().enumerate())
        .filter_map(|(index, script)| Some((index, exists_after(script, relation)?)))
        .collect();
    if exists.iter().any(|&(index, _)| index == here) {
        return None;
    }
    let reference = |index: usize| set.scripts()[index].id.reference();
    if let Some(&(index, true)) = exists.iter().rfind(|&&(index, _)| index < here) {
        let is_applied = batch.iter().all(|it| it.id != set.scripts()[index].id);
        return is_applied.then(|| DefinedIn::AppliedFile(reference(index)));
    }
    if let Some(&(index, _)) = exists.iter().find(|&&(index, exists)| exists && index > here) {
        return Some(DefinedIn::LaterFile(reference(index)));
    }
    let by_other_means = !exists.is_empty()
        || may_create_tables(set)
        || created_by_tenants(set).contains(relation)
        || scope == Scope::Tenant
            && (may_create_tables(shared) || created_in_public(shared).contains_key(relation));
    (!by_other_means).then_some(DefinedIn::NoFile)
}

/// Returns whether a script leaves the relation in existence; `None` if it neither creates nor drops
/// it.
fn exists_after(script: &Script, relation: &str) -> Option<bool> {
    let mut exists = None;
    each_change(script, |name, now_exists| {
        if name == relation {
            exists = Some(now_exists);
        }
    });
    exists
}

/// Calls `visit` for each table and view that a script creates or removes under a name that may be in
/// `public`, with whether it exists then.
fn each_change(script: &Script, mut visit: impl FnMut(&str, bool)) {
    each_statement(script, |_, keywords| {
        let (names, exists) = match change(keywords) {
            Some(RelationChange::Create { name, is_temporary: false }) => (vec![name], true),
            Some(RelationChange::Drop(names)) => (names, false),
            Some(RelationChange::Alter { name, renames: true }) => (vec![name], false),
            _ => return,
        };
        let in_public = |name: &RelationName| name.may_be_in(SchemaName::public().as_str());
        for (_, name) in names.iter().filter(|(_, name)| in_public(name)) {
            visit(&name.relation, exists);
        }
    });
}

/// Calls `visit` for each statement with the byte at which it begins in the file, and its keywords,
/// whose offsets count from there.
pub(crate) fn each_statement(script: &Script, mut visit: impl FnMut(usize, Keywords<'_>)) {
    for statement in &script.statements {
        let sql = &script.text[statement.range.clone()];
        visit(statement.range.start, Keywords::new(sql, &Lexer::statement(sql)));
    }
}

/// Returns the tables and views that exist in `public` after the shared set, each with the script
/// that creates it.
pub(crate) fn created_in_public(shared: &MigrationSet) -> HashMap<String, String> {
    let mut created = HashMap::new();
    for script in shared.scripts() {
        each_change(script, |name, exists| {
            if exists {
                created.insert(name.to_owned(), script.id.to_string());
            } else {
                created.remove(name);
            }
        });
    }
    created
}

/// Returns every name under which a file of the tenant set may create a relation.
pub(crate) fn created_by_tenants(tenant: &MigrationSet) -> HashSet<String> {
    let mut created = HashSet::new();
    for script in tenant.scripts() {
        each_statement(script, |_, keywords| {
            if let Some(RelationChange::Create { name: (_, name), .. }) = change(keywords) {
                created.insert(name.relation);
            }
            let named_after = (1..keywords.len()).filter(|&index| {
                let before = index - 1;
                let adds_rows = before > 0 && keywords.is_any(before - 1, &["insert", "merge"]);
                let into = keywords.is(before, "into") && !adds_rows;
                let renamed = keywords.is(before, "to") && keywords.is(0, "alter");
                into || renamed || keywords.is(before, "partition")
            });
            created.extend(named_after.filter_map(|index| keywords.identifier(index)));
        });
    }
    created
}

/// Returns whether a string in any file contains `CREATE`, `DROP` or `RENAME`, so that it may be code
/// that creates relations.
pub(crate) fn may_create_tables(set: &MigrationSet) -> bool {
    let is_definition = |word: &str| {
        let mut definitions = ["create", "drop", "rename"].iter();
        definitions.any(|definition| word.eq_ignore_ascii_case(definition))
    };
    set.scripts().iter().any(|script| {
        Lexer::new(&script.text).any(|token| {
            token.kind == TokenKind::Literal
                && script.text[token.start..token.end]
                    .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                    .any(is_definition)
        })
    })
}
