//! The files that share a transaction, walked statement by statement.

use std::collections::HashSet;

use super::effect::{Act, Checked};
use super::extract::Read;
use super::finding::{Finding, Said};
use super::rule::Rule;
use super::{Linter, fleet, tables};
use crate::domain::script::Scope;
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::position::location_of_byte;
use crate::migrations::sql::relations::RelationName;

/// Files that run in one schema and commit together, and what they did so far.
pub(super) struct InTransaction<'a> {
    pub(super) linter: &'a Linter<'a>,
    pub(super) scope: Scope,
    files: &'a [usize],
    /// Whether what is locked stays locked until the last statement is done.
    pub(super) holds_locks: bool,
    /// Tables that nobody else can see yet.
    created: HashSet<String>,
    /// Constraints that were added and not checked.
    pub(super) unchecked: HashSet<String>,
    /// Tables that others use and that are locked by now.
    pub(super) locked: Vec<String>,
    /// The statements from the last one on that is more than a foreign key, as a count from
    /// the first file's first statement.
    last_work: usize,
    /// How many statements there are.
    total: usize,
    /// The place of the present statement among them.
    pub(super) ordinal: usize,
    /// The file of the present statement.
    pub(super) file: usize,
}

impl<'a> InTransaction<'a> {
    pub(super) fn new(linter: &'a Linter<'a>, scope: Scope, files: &'a [usize]) -> Self {
        let readings = &linter.half(scope).readings;
        let statements = || files.iter().flat_map(|&file| &readings[file].statements);
        let last_work = statements()
            .enumerate()
            .filter(|(_, it)| !only_keys(it))
            .last();
        Self {
            linter,
            scope,
            files,
            holds_locks: (files.iter())
                .all(|&file| readings[file].transaction == Transaction::Inside),
            created: HashSet::new(),
            unchecked: HashSet::new(),
            locked: Vec::new(),
            last_work: last_work.map_or(0, |(ordinal, _)| ordinal),
            total: statements().count(),
            ordinal: 0,
            file: 0,
        }
    }

    /// Returns everything that the rules find, in the order of the statements.
    pub(super) fn findings(mut self) -> Vec<Finding> {
        let (linter, scope) = (self.linter, self.scope);
        let half = linter.half(scope);
        let mut found = Vec::new();
        for &file in self.files {
            self.file = file;
            let script = &half.set.scripts()[file];
            let mut unread = false;
            for statement in &half.readings[file].statements {
                let start = statement.range.start;
                let mut say = |at: usize, said: Said| {
                    found.push(Finding {
                        scope,
                        file,
                        statement: start,
                        path: script.path.clone(),
                        place: location_of_byte(&script.text, at),
                        rule: said.rule,
                        severity: said.severity,
                        message: said.message,
                        cost: said.cost,
                        safer: said.safer,
                    });
                };
                match &statement.acts {
                    Some(acts) => {
                        for (at, act) in acts {
                            for said in self.judge(act) {
                                say(*at, said);
                            }
                        }
                    }
                    // Once for a file: a dump of rows would say it thousands of times.
                    None if !unread => {
                        unread = true;
                        say(start, not_read());
                    }
                    None => {}
                }
                self.ordinal += 1;
            }
        }
        found
    }

    fn judge(&mut self, act: &Act) -> Vec<Said> {
        let outside = fleet::outside(self, act);
        if !outside.is_empty() {
            return outside;
        }
        let mut said = fleet::judge(self, act);
        said.extend(tables::judge(self, act));
        said.extend(fleet::locks(self, act));
        match act {
            Act::CreateTable { table, .. } => {
                self.created.insert(table.relation.clone());
            }
            Act::AddConstraint {
                name: Some(name),
                at_once: false,
                ..
            } => {
                self.unchecked.insert(name.clone());
            }
            _ => {}
        }
        said
    }

    /// Returns whether others may be using a table: it was there before this transaction.
    pub(super) fn in_use(&self, table: &RelationName) -> bool {
        !self.created.contains(&table.relation)
    }

    /// Returns how many statements follow that are more than a foreign key, and whether
    /// they include another file's; `None` where nothing of that kind follows.
    pub(super) fn work_behind(&self) -> Option<(usize, usize)> {
        let files_behind = self
            .files
            .iter()
            .rev()
            .take_while(|&&file| file != self.file)
            .count();
        (self.holds_locks && self.ordinal < self.last_work)
            .then(|| (self.total - 1 - self.ordinal, files_behind))
    }

    /// Returns whether an earlier file, or an earlier statement, has a
    /// `CHECK (column IS NOT NULL)` for a column.
    pub(super) fn proven(&self, table: &RelationName, column: &str) -> bool {
        let readings = &self.linter.half(self.scope).readings[..=self.file];
        let statements = readings.iter().flat_map(|reading| &reading.statements);
        let mut acts = statements
            .filter_map(|statement| statement.acts.as_ref())
            .flatten();
        acts.any(|(_, act)| {
            matches!(act, Act::AddConstraint { table: other, kind: Checked::Check, not_null: Some(proven), .. }
                if other == table && proven == column)
        })
    }
}

fn only_keys(statement: &Read) -> bool {
    let is_key = |act: &Act| {
        matches!(
            act,
            Act::Key { .. }
                | Act::AddConstraint {
                    kind: Checked::Key,
                    ..
                }
        )
    };
    (statement.acts.as_ref())
        .is_some_and(|acts| !acts.is_empty() && acts.iter().all(|(_, act)| is_key(act)))
}

fn not_read() -> Said {
    Said::new(
        Rule::NotRead,
        "the parser does not know this statement, or it is too long for it",
        "nothing was looked for in it",
        "read it with the eyes of a reviewer",
    )
}
