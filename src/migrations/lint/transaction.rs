//! What the files of one transaction did before the current statement.

use std::collections::HashSet;

use super::effect::{ConstraintKind, Effect};
use super::extract::ParsedStatement;
use super::{LintedSet, Linter};
use crate::domain::script::Scope;
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::relations::RelationName;

/// Files that run in one schema and commit together, and what they did before the current effect.
pub(super) struct TransactionState<'a> {
    linter: &'a Linter<'a>,
    pub(super) set: &'a LintedSet<'a>,
    pub(super) scope: Scope,
    pub(super) files: &'a [usize],
    /// Whether locks last until the end of the last file.
    holds_locks: bool,
    /// Tables that are created here, so that other sessions cannot see them.
    created: HashSet<String>,
    /// Tables whose rows are all deleted here and that got no new ones.
    emptied: HashSet<String>,
    /// Constraints that are added here without checking existing rows.
    not_valid: HashSet<String>,
    /// Tables in use that are locked so far.
    pub(super) locked: Vec<String>,
    /// The number of the last statement that does more than add a foreign key.
    last_work: usize,
    /// The number of statements.
    total: usize,
    /// The number of the current statement.
    pub(super) current: usize,
    /// The file of the current statement.
    pub(super) file: usize,
}

impl<'a> TransactionState<'a> {
    pub(super) fn new(linter: &'a Linter<'a>, scope: Scope, files: &'a [usize]) -> Self {
        let set = linter.set(scope);
        let statements = || files.iter().flat_map(|&file| &set.files[file].statements);
        let work = statements().enumerate().filter(|(_, it)| !adds_only_keys(it));
        Self {
            linter,
            set,
            scope,
            files,
            holds_locks: (files.iter())
                .all(|&file| set.files[file].transaction == Transaction::Inside),
            created: HashSet::new(),
            emptied: HashSet::new(),
            not_valid: HashSet::new(),
            locked: Vec::new(),
            last_work: work.last().map_or(0, |(number, _)| number),
            total: statements().count(),
            current: 0,
            file: 0,
        }
    }

    /// Notes what an effect did.
    pub(super) fn record(&mut self, effect: &Effect) {
        self.locked.extend(self.newly_locked(effect));
        match effect {
            Effect::CreateTable { table: RelationName { relation: name, .. }, .. }
            | Effect::CreateType { name } => {
                self.created.insert(name.clone());
            }
            Effect::Truncate { tables, .. } => {
                self.emptied.extend(tables.iter().map(|table| table.relation.clone()));
            }
            Effect::Write { table, command: "DELETE", all_rows: true } => {
                self.emptied.insert(table.relation.clone());
            }
            Effect::Write { table, .. } => {
                self.emptied.remove(&table.relation);
            }
            Effect::AddConstraint { name: Some(name), checks_rows: false, .. } => {
                self.not_valid.insert(name.clone());
            }
            _ => {}
        }
    }

    /// Returns whether programs may use a table: it existed before this transaction.
    pub(super) fn in_use(&self, table: &RelationName) -> bool {
        !self.created.contains(&table.relation)
    }

    /// Returns whether the transaction deleted all rows of a table and added none.
    pub(super) fn is_emptied(&self, table: &RelationName) -> bool {
        self.holds_locks && self.emptied.contains(&table.relation)
    }

    /// Returns whether the current file uses an enum value after adding it.
    pub(super) fn uses_after_adding(&self, value: &str) -> bool {
        let script = &self.set.scripts.scripts()[self.file];
        let mut texts = script.statements.iter().map(|it| &script.text[it.range.clone()]);
        let adds = |text: &str| {
            text.get(..5).is_some_and(|it| it.eq_ignore_ascii_case("alter")) && text.contains(value)
        };
        texts.by_ref().any(adds) && texts.any(|text| text.contains(value))
    }

    /// Returns whether all files run inside a transaction.
    pub(super) const fn is_one_transaction(&self) -> bool {
        self.holds_locks
    }

    /// Returns whether a `CHECK` of a table is declared in a file up to the current one.
    pub(super) fn has_check(&self, table: &RelationName) -> bool {
        self.effects_so_far().any(|effect| match effect {
            Effect::DeclareCheck { table: other }
            | Effect::AddConstraint { table: other, kind: ConstraintKind::Check, .. } => {
                other == table
            }
            _ => false,
        })
    }

    /// Returns the table in use that an effect locks and that is not locked yet.
    pub(super) fn newly_locked(&self, effect: &Effect) -> Option<String> {
        let name = match effect {
            Effect::ForeignKey { to } if self.is_outside(to) => in_public(to),
            Effect::Remove { table, .. }
            | Effect::CreateIndex { table, concurrently: false, .. }
                if self.in_use(table) =>
            {
                table.to_string()
            }
            _ => effect.altered().filter(|table| self.in_use(table))?.to_string(),
        };
        (self.holds_locks && !self.locked.contains(&name)).then_some(name)
    }

    /// Returns whether an earlier statement of the transaction adds this constraint as `NOT VALID`.
    pub(super) fn was_added_not_valid(&self, constraint: &str) -> bool {
        self.holds_locks && self.not_valid.contains(constraint)
    }

    /// Returns the number of statements and of files that follow; `None` if they only add foreign
    /// keys.
    pub(super) fn work_after(&self) -> Option<(usize, usize)> {
        let files = self.files.iter().rev();
        let files_after = files.take_while(|&&file| file != self.file).count();
        (self.holds_locks && self.current < self.last_work)
            .then(|| (self.total - 1 - self.current, files_after))
    }

    /// Returns the effects of the set up to the current file.
    pub(super) fn effects_so_far(&self) -> impl Iterator<Item = &'a Effect> {
        self.set.files[..=self.file]
            .iter()
            .flat_map(|file| &file.statements)
            .flat_map(|statement| &statement.effects)
            .map(|(_, effect)| effect)
    }

    /// Returns whether a file up to the current one adds `CHECK (column IS NOT NULL)`.
    pub(super) fn has_not_null_check(&self, table: &RelationName, column: &str) -> bool {
        self.effects_so_far().any(|effect| {
            matches!(effect, Effect::AddConstraint { table: other, kind: ConstraintKind::Check, not_null: Some(checked), .. }
                if other == table && checked == column)
        })
    }

    /// Returns whether a file of the set creates this table.
    pub(super) fn creates_table(&self, table: &str) -> bool {
        self.set.tables.contains(table)
    }

    /// Returns whether a name in a file of the tenant set is not a table of the tenant: it has a
    /// schema, or only the shared set creates it.
    pub(super) fn is_outside(&self, table: &RelationName) -> bool {
        let is_qualified = (table.schema.as_deref()).is_some_and(|schema| schema != "pg_temp");
        self.scope == Scope::Tenant
            && (is_qualified || self.is_shared_name(table) && !self.creates_table(&table.relation))
    }

    /// Returns whether the shared set creates a table of this bare name.
    pub(super) fn is_shared_name(&self, table: &RelationName) -> bool {
        table.schema.is_none() && self.linter.shared.tables.contains(&table.relation)
    }
}

/// Returns a name with its schema, which is `public` if it is bare.
pub(super) fn in_public(table: &RelationName) -> String {
    match table.schema {
        Some(_) => table.to_string(),
        None => format!("public.{table}"),
    }
}

fn adds_only_keys(statement: &ParsedStatement) -> bool {
    let is_key = |effect: &Effect| {
        matches!(
            effect,
            Effect::ForeignKey { .. }
                | Effect::AddConstraint { kind: ConstraintKind::ForeignKey, .. }
        )
    };
    let effects = &statement.effects;
    !effects.is_empty() && effects.iter().all(|(_, effect)| is_key(effect))
}
