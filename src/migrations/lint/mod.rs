//! What a migration should not do on a fleet, though nothing keeps it from it.
//!
//! The [seal](super::seal) refuses what would leave transaction or schema; this room warns
//! of what locks, rewrites, or costs something in every schema. It needs no server.

mod allow;
mod default_value;
mod effect;
mod extract;
mod extract_alter;
mod finding;
mod fleet;
pub mod rule;
mod tables;
mod transaction;

use std::collections::HashSet;

pub use finding::Finding;
pub use rule::{Rule, Severity};

use allow::Allowances;
use effect::Act;
use extract::{Reading, read_all};
use transaction::InTransaction;

use crate::domain::script::Scope;
use crate::migrations::files::load_error::LoadErrors;
use crate::migrations::files::set::MigrationSet;
use crate::migrations::sql::directives::Transaction;

/// Both sets, read once and judged as often as need be.
#[derive(Debug)]
pub struct Linter<'a> {
    shared: Half<'a>,
    tenant: Half<'a>,
}

/// One set, read.
#[derive(Debug)]
struct Half<'a> {
    set: &'a MigrationSet,
    readings: Vec<Reading>,
    allowances: Vec<Allowances>,
    /// Every table that any of its files creates.
    tables: HashSet<String>,
}

impl<'a> Linter<'a> {
    /// Reads both sets.
    ///
    /// # Errors
    ///
    /// Every rule that a file allows and that does not exist.
    pub fn new(shared: &'a MigrationSet, tenant: &'a MigrationSet) -> Result<Self, LoadErrors> {
        let mut errors = Vec::new();
        let linter = Self {
            shared: Half::read(shared, &mut errors),
            tenant: Half::read(tenant, &mut errors),
        };
        if errors.is_empty() {
            Ok(linter)
        } else {
            Err(LoadErrors(errors))
        }
    }

    /// Returns what there is to say of every file, each taken as a transaction by itself:
    /// what an earlier file made is in use.
    #[must_use]
    pub fn every_file(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for scope in [Scope::Shared, Scope::Tenant] {
            for index in 0..self.half(scope).readings.len() {
                found.extend(self.together(scope, &[index]));
            }
        }
        found
    }

    /// Returns what there is to say of files, by their positions in the set, that are about
    /// to run in one schema: those that share a transaction are judged together.
    #[must_use]
    pub fn pending(&self, scope: Scope, files: &[usize], one_transaction: bool) -> Vec<Finding> {
        let half = self.half(scope);
        let inside = |index: &usize| half.readings[*index].transaction == Transaction::Inside;
        let together = |a: &usize, b: &usize| one_transaction && inside(a) && inside(b);
        let mut found = Vec::new();
        for group in files.chunk_by(together) {
            found.extend(self.together(scope, group));
        }
        found
    }

    fn together(&self, scope: Scope, files: &[usize]) -> Vec<Finding> {
        let half = self.half(scope);
        let mut found = InTransaction::new(self, scope, files).findings();
        found.retain(|finding| {
            !half.allowances[finding.file].cover(finding.rule, finding.statement)
        });
        found
    }

    const fn half(&self, scope: Scope) -> &Half<'a> {
        match scope {
            Scope::Shared => &self.shared,
            Scope::Tenant => &self.tenant,
        }
    }
}

impl<'a> Half<'a> {
    fn read(set: &'a MigrationSet, errors: &mut Vec<crate::migrations::LoadError>) -> Self {
        let readings = read_all(set.scripts());
        let allowances = set.scripts().iter().map(|script| {
            Allowances::read(script).unwrap_or_else(|error| {
                errors.push(error);
                Allowances::default()
            })
        });
        Self {
            allowances: allowances.collect(),
            tables: created(&readings),
            set,
            readings,
        }
    }
}

fn created(readings: &[Reading]) -> HashSet<String> {
    let statements = readings.iter().flat_map(|reading| &reading.statements);
    let acts = statements
        .filter_map(|statement| statement.acts.as_ref())
        .flatten();
    acts.filter_map(|(_, act)| match act {
        Act::CreateTable { table, .. } => Some(table.relation.clone()),
        _ => None,
    })
    .collect()
}

#[cfg(test)]
mod tests;
