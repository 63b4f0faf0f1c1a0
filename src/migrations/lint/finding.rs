//! One finding of a rule.

use std::path::PathBuf;

use super::rule::Severity;
use super::rules::Rule;
use crate::domain::script::{Location, Scope};

/// What a rule found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The set of the file.
    pub scope: Scope,
    /// The file's position in its set.
    pub file: usize,
    /// The byte at which the statement begins.
    pub(super) statement: usize,
    /// The path of the file.
    pub path: PathBuf,
    /// The location in the file.
    pub location: Location,
    /// The rule.
    pub rule: Rule,
    /// The severity, which may differ from the rule's.
    pub severity: Severity,
    /// What the statement does.
    pub message: String,
    /// What that costs.
    pub cost: String,
    /// A safer way to do the same.
    pub safer: String,
}
