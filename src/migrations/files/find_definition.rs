//! Which file makes a table or view that was not there.

use super::bare_names::{
    Said, each_statement, made_by_tenants, made_in_public, may_make_tables, statement,
};
use super::script::Script;
use super::set::MigrationSet;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::{DefinedIn, Scope};

/// Returns which file makes the relation that `failed` did not find, as far as the files tell:
/// code and renaming may make things too. `together` are the scripts of its transaction, and all
/// others before it in its set are recorded as applied.
#[must_use]
pub fn maker_of(
    relation: &str,
    failed: &Script,
    together: &[&Script],
    (shared, tenant): (&MigrationSet, &MigrationSet),
    scope: Scope,
) -> Option<DefinedIn> {
    let set = match scope {
        Scope::Shared => shared,
        Scope::Tenant => tenant,
    };
    let here = set.scripts().iter().position(|one| one.id == failed.id)?;
    // Of each file, what it does last.
    let does: Vec<(usize, bool)> = (set.scripts().iter().enumerate())
        .filter_map(|(index, script)| Some((index, makes(script, relation)?)))
        .collect();
    if does.iter().any(|&(index, _)| index == here) {
        return None;
    }
    let reference = |index: usize| set.scripts()[index].id.reference();
    if let Some(&(index, true)) = does.iter().rfind(|&&(index, _)| index < here) {
        let is_recorded = together.iter().all(|one| one.id != set.scripts()[index].id);
        return is_recorded.then(|| DefinedIn::AppliedFile(reference(index)));
    }
    if let Some(&(index, _)) = does.iter().find(|&&(index, makes)| makes && index > here) {
        return Some(DefinedIn::LaterFile(reference(index)));
    }
    let is_simple =
        does.is_empty() && !may_make_tables(set) && !made_by_tenants(set).contains(relation);
    let is_shared = scope == Scope::Tenant
        && (may_make_tables(shared) || made_in_public(shared).contains_key(relation));
    (is_simple && !is_shared).then_some(DefinedIn::NoFile)
}

/// Returns whether the relation is there or gone after a script; `None` where the script does neither.
fn makes(script: &Script, relation: &str) -> Option<bool> {
    let mut last = None;
    let public = SchemaName::public();
    let is_it = |schema: Option<&str>, table: &str| {
        table == relation && schema.is_none_or(|schema| schema == public.as_str())
    };
    each_statement(script, |_, words| match statement(words) {
        Some(Said::Create { name, lasts: true }) if is_it(name.schema.as_deref(), &name.table) => {
            last = Some(true);
        }
        Some(Said::Drop(names)) => {
            let mut names = names.iter();
            if names.any(|name| is_it(name.schema.as_deref(), &name.table)) {
                last = Some(false);
            }
        }
        Some(Said::Alter(name, true)) if is_it(name.schema.as_deref(), &name.table) => {
            last = Some(false);
        }
        _ => {}
    });
    last
}
