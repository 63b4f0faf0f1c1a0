//! One thing that a rule found, as people and programs are told it.

use std::path::PathBuf;

use super::rule::{Rule, Severity};
use crate::domain::script::{Location, Scope};

/// Something that a file does and should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which set the file belongs to.
    pub scope: Scope,
    /// The file's position in its set.
    pub file: usize,
    /// The byte at which the statement begins.
    pub(super) statement: usize,
    /// The file, as to show to people.
    pub path: PathBuf,
    /// Where.
    pub place: Location,
    /// By which rule.
    pub rule: Rule,
    /// How much it matters here.
    pub severity: Severity,
    /// What the statement does.
    pub message: String,
    /// What that costs.
    pub cost: String,
    /// How to do the same with less harm.
    pub safer: String,
}

/// What a rule says of a statement, before it is known where that is.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) rule: Rule,
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) cost: String,
    pub(super) safer: String,
}

impl Said {
    pub(super) fn new(
        rule: Rule,
        message: impl Into<String>,
        cost: impl Into<String>,
        safer: impl Into<String>,
    ) -> Self {
        Self {
            rule,
            severity: rule.severity(),
            message: message.into(),
            cost: cost.into(),
            safer: safer.into(),
        }
    }

    pub(super) fn at(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}
