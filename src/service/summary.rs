//! The result of a run: an outcome for each schema, counted and grouped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::event::{Interrupt, Operation, Outcome};
use super::failure::MigrateError;
use crate::domain::applied::AppliedScript;
use crate::domain::serialize::is_default;
use crate::domain::target::Target;
use crate::domain::tenant::RefusedRow;

/// A schema and its outcome.
#[derive(Clone, Debug)]
pub struct SchemaOutcome {
    /// The schema.
    pub target: Arc<Target>,
    /// Its outcome.
    pub outcome: Outcome,
}

/// The result of a run: one outcome for each selected schema, in the order of the selection.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Summary {
    /// What was done.
    pub work: Operation,
    /// The number of the run in the run log; `None` where it is not stored.
    pub run: Option<i64>,
    /// The outcomes.
    pub outcomes: Vec<SchemaOutcome>,
    /// Rows of the tenant table whose schema name is not usable; counted as failed.
    pub refused: Vec<RefusedRow>,
    /// From the first event to the last.
    pub took: Duration,
    /// How urgently the run was interrupted.
    pub interrupted: Interrupt,
    /// The command line that started the run and can continue it, where it may be shown.
    pub command: Option<String>,
    /// The program with the options for the same database and files, such as `pricesync --local`;
    /// `None` where no command may be suggested.
    pub program: Option<String>,
    /// The options that define the goal, each with a leading space, such as ` --to 8`.
    pub options: String,
}

/// How many schemas have which outcome; the six add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Scripts were applied.
    pub migrated: usize,
    /// Nothing was pending.
    pub up_to_date: usize,
    /// A job other than a migration is done.
    #[serde(skip_serializing_if = "is_default")]
    pub done: usize,
    /// The job failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Not started.
    pub not_started: usize,
}

impl Counts {
    /// Adds one outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Migrated { .. } => self.migrated += 1,
            Outcome::UpToDate => self.up_to_date += 1,
            Outcome::Done { .. } => self.done += 1,
            Outcome::Failed { .. } => self.failed += 1,
            Outcome::Skipped { .. } => self.skipped += 1,
            Outcome::NotStarted { .. } => self.not_started += 1,
        }
    }

    /// Returns the sum.
    pub const fn total(&self) -> usize {
        self.migrated + self.up_to_date + self.done + self.failed + self.skipped + self.not_started
    }
}

/// Failures with the same [key](MigrateError::group_key).
#[derive(Clone, Debug)]
pub struct FailureGroup<'a> {
    /// The error of the first schema of the group.
    pub error: &'a MigrateError,
    /// Scripts that were committed in that schema before.
    pub applied: &'a [AppliedScript],
    /// Every schema of the group.
    pub targets: Vec<&'a Target>,
}

impl Summary {
    /// Returns how many schemas have which outcome.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in &self.outcomes {
            counts.add(&item.outcome);
        }
        counts.failed += self.refused.len();
        counts
    }

    /// Returns the groups of equal failures, the largest first.
    pub fn failure_groups(&self) -> Vec<FailureGroup<'_>> {
        let mut groups: BTreeMap<String, FailureGroup<'_>> = BTreeMap::new();
        for item in &self.outcomes {
            if let Outcome::Failed { error, applied } = &item.outcome {
                groups
                    .entry(error.group_key())
                    .or_insert_with(|| FailureGroup { error, applied, targets: Vec::new() })
                    .targets
                    .push(&item.target);
            }
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.targets.len()));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::ServerError;
    use super::*;
    use crate::domain::schema_name::SchemaName;
    use crate::domain::script::{Prefix, Scope, ScriptRef};
    use crate::domain::sqlstate;

    fn failed(schema: &str, sqlstate: &str, detail: &str) -> SchemaOutcome {
        SchemaOutcome {
            target: Arc::new(Target {
                schema: SchemaName::parse(schema).expect("legal"),
                label: schema.to_owned(),
                scope: Scope::Tenant,
            }),
            outcome: Outcome::Failed {
                error: Box::new(MigrateError::Script {
                    script: ScriptRef { prefix: Prefix::Versioned, version: 3, name: "x".into() },
                    file: "V3__x.sql".into(),
                    place: None,
                    error: ServerError {
                        sqlstate: Some(sqlstate.into()),
                        detail: Some(detail.into()),
                        ..ServerError::default()
                    },
                    blockers: Vec::new(),
                    attempts: 1,
                    rolled_back: true,
                }),
                applied: Vec::new(),
            },
        }
    }

    #[test]
    fn equal_failures_are_one_group_whatever_their_detail() {
        let summary = Summary {
            outcomes: vec![
                failed("a", sqlstate::UNDEFINED_TABLE, "x"),
                failed("b", sqlstate::UNIQUE_VIOLATION, "sku 1"),
                failed("c", sqlstate::UNIQUE_VIOLATION, "sku 2"),
            ],
            ..Summary::default()
        };
        let groups = summary.failure_groups();
        let labels: Vec<Vec<&str>> = groups
            .iter()
            .map(|group| group.targets.iter().map(|t| t.label.as_str()).collect())
            .collect();
        assert_eq!(labels, [vec!["b", "c"], vec!["a"]]);
    }
}
