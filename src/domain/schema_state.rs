//! The state of one schema: its history compared with the migration files.

use super::hint::Hint;
use super::plan::{Drift, Plan};

/// The state of a schema, read without a lock on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The schema does not exist.
    Missing,
    /// Dropping it started and did not finish.
    Dropping,
    /// The tenant was dropped after it had been listed.
    Dropped,
    /// Its history agrees with the files.
    Known(Plan),
    /// Its history and the files disagree; holds the highest applied version too.
    Drifted(Vec<Drift>, Option<i64>),
    /// Its history cannot be read; holds the reason.
    Damaged(String),
    /// Its history could not be read in time because another session locked it; names the session.
    Locked(String),
}

/// What a state means for a run, from harmless to serious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing to do.
    UpToDate,
    /// Migrations are pending.
    Pending,
    /// The tenant was dropped or is being dropped; a run skips it.
    Skipped,
    /// It has to be fixed before it can be migrated.
    OutOfSync,
    /// Its history is locked, so what is pending is not known.
    Locked,
}

impl SchemaState {
    /// Returns what the state means for a run.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Known(plan) if plan.pending.is_empty() => Severity::UpToDate,
            Self::Known(_) => Severity::Pending,
            Self::Dropping | Self::Dropped => Severity::Skipped,
            Self::Missing | Self::Drifted(..) | Self::Damaged(_) => Severity::OutOfSync,
            Self::Locked(_) => Severity::Locked,
        }
    }

    /// Returns the state in one or two words, for listings.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Known(plan) if plan.pending.is_empty() => "up to date",
            Self::Known(_) => "pending",
            Self::Drifted(..) => "drifted",
            Self::Damaged(_) => "history damaged",
            Self::Locked(_) => "history locked",
            Self::Missing => "no schema",
            Self::Dropping => "dropping",
            Self::Dropped => "dropped",
        }
    }

    /// Returns what is wrong; empty where history and files agree. `selection` is the option that
    /// selects the tenant, such as `--tenant=acme`.
    pub fn problems(&self, selection: &str) -> Vec<Hint> {
        match self {
            Self::Known(_) | Self::Dropped => Vec::new(),
            Self::Missing => vec!["the schema does not exist".into()],
            Self::Dropping => self.hint(selection).into_iter().collect(),
            Self::Drifted(drifts, _) => drifts.iter().map(|d| d.to_string().into()).collect(),
            Self::Damaged(why) => vec![format!("the history is damaged: {why}").into()],
            Self::Locked(session) => vec![session.as_str().into()],
        }
    }

    /// Returns what to do about the state, where a command helps.
    pub fn hint(&self, selection: &str) -> Option<Hint> {
        let status = || format!("status {selection}");
        match self {
            Self::Missing => Some(Self::missing_hint()),
            Self::Dropping => Some(Hint::command(
                "its drop did not finish; finish it",
                format!("drop-schema {selection}"),
            )),
            Self::Drifted(..) => Some(Hint::command("show which migrations differ", status())),
            Self::Damaged(_) => Some(Hint::command("show the damage", status())),
            Self::Known(_) | Self::Dropped | Self::Locked(_) => None,
        }
    }

    /// Returns what to do about a tenant without a schema.
    pub fn missing_hint() -> Hint {
        Hint::command("restore a backup, or create the schema without data", "doctor --fix missing")
    }
}
