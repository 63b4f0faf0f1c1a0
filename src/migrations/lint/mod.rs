//! Lint: what migrations should not do to a fleet or a busy table, although nothing forbids it.
//!
//! May import: `domain`, `sql`, `files`. Needs no server.
//! Start reading at: `rules/`; `extract.rs` turns statements into the effects that rules check.

mod check;
mod default_value;
mod effect;
mod extract;
mod extract_alter;
mod finding;
mod rule;
mod rules;
mod transaction;

use std::collections::HashSet;

pub use finding::Finding;
pub use rule::{Definition, Severity};
pub use rules::Rule;

use effect::Effect;
use extract::{ParsedFile, parse_all};
use transaction::TransactionState;

use crate::domain::script::Scope;
use crate::migrations::files::load_error::{LoadError, LoadErrors, Problem};
use crate::migrations::files::script::Script;
use crate::migrations::files::set::MigrationSet;
use crate::migrations::sql::directives::Transaction;

/// Both sets, parsed.
#[derive(Debug)]
pub struct Linter<'a> {
    shared: LintedSet<'a>,
    tenant: LintedSet<'a>,
}

/// One set, parsed.
#[derive(Debug)]
struct LintedSet<'a> {
    scripts: &'a MigrationSet,
    files: Vec<ParsedFile>,
    /// Every table that a file creates.
    tables: HashSet<String>,
}

impl<'a> Linter<'a> {
    /// Parses both sets.
    ///
    /// # Errors
    ///
    /// Every unknown rule in an `allow` directive.
    pub fn new(shared: &'a MigrationSet, tenant: &'a MigrationSet) -> Result<Self, LoadErrors> {
        let mut errors = Vec::new();
        let linter = Self {
            shared: LintedSet::parse(shared, &mut errors),
            tenant: LintedSet::parse(tenant, &mut errors),
        };
        if errors.is_empty() { Ok(linter) } else { Err(LoadErrors(errors)) }
    }

    /// Returns the findings of every file, each as a transaction of its own: tables of earlier files
    /// are in use.
    pub fn every_file(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for scope in [Scope::Shared, Scope::Tenant] {
            for index in 0..self.set(scope).files.len() {
                findings.extend(self.transaction(scope, &[index]));
            }
        }
        findings
    }

    /// Returns the findings of files, by their positions in the set, that will run in one schema:
    /// those that share a transaction are checked together.
    pub fn pending(&self, scope: Scope, files: &[usize], one_transaction: bool) -> Vec<Finding> {
        let set = self.set(scope);
        let inside = |index: &usize| set.files[*index].transaction == Transaction::Inside;
        files
            .chunk_by(|a, b| one_transaction && inside(a) && inside(b))
            .flat_map(|files| self.transaction(scope, files))
            .collect()
    }

    fn transaction(&self, scope: Scope, files: &[usize]) -> Vec<Finding> {
        let scripts = self.set(scope).scripts.scripts();
        let mut findings = check::findings(TransactionState::new(self, scope, files));
        findings.retain(|finding| {
            let mut allowances = scripts[finding.file].allowances.iter();
            !allowances.any(|allowed| allowed.covers(finding.rule.name(), finding.statement))
        });
        findings
    }

    const fn set(&self, scope: Scope) -> &LintedSet<'a> {
        match scope {
            Scope::Shared => &self.shared,
            Scope::Tenant => &self.tenant,
        }
    }
}

impl<'a> LintedSet<'a> {
    fn parse(scripts: &'a MigrationSet, errors: &mut Vec<LoadError>) -> Self {
        let files = parse_all(scripts.scripts());
        errors.extend(scripts.scripts().iter().flat_map(unknown_rules));
        let statements = files.iter().flat_map(|file| &file.statements);
        let effects = statements.flat_map(|statement| &statement.effects);
        let tables = effects.filter_map(|(_, effect)| match effect {
            Effect::CreateTable { table, .. } => Some(table.relation.clone()),
            _ => None,
        });
        Self { scripts, tables: tables.collect(), files }
    }
}

/// Returns an error for each rule that a file allows and that does not exist.
fn unknown_rules(script: &Script) -> impl Iterator<Item = LoadError> + '_ {
    let unknown = script.allowances.iter().filter(|allowed| Rule::named(&allowed.rule).is_none());
    unknown.map(|allowed| {
        let similar = Rule::similar(&allowed.rule);
        let problem = Problem::UnknownRule { name: allowed.rule.clone(), similar };
        LoadError::at(&script.path, &script.text, allowed.comment, problem)
    })
}

#[cfg(test)]
mod tests;
