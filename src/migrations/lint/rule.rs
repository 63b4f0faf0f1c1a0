//! What a rule consists of, and what it reports.

use std::fmt;

use serde::Serialize;

use super::effect::Effect;
use super::rules::Rule;
use super::transaction::TransactionState;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Hint,
    /// Costs time or blocks programs.
    Warning,
    /// Fails, or is rejected, in some schema.
    Error,
}

/// A rule's texts, examples and check.
#[derive(Debug)]
pub struct Definition {
    /// The name in findings and in `-- pricesync: allow`.
    pub name: &'static str,
    /// The severity of its findings.
    pub severity: Severity,
    /// Whether its cost grows with the number of tenants, so that a run warns too.
    pub grows_with_fleet: bool,
    /// What it finds.
    pub summary: &'static str,
    /// Why that is a problem.
    pub why: &'static str,
    /// What the server does, by version.
    pub server: &'static str,
    /// Files in which it reports something.
    pub found: &'static [&'static str],
    /// Files in which it reports nothing; the first is the safer form of the first found one.
    pub accepted: &'static [&'static str],
    /// Returns what it reports about an effect.
    pub(super) check: fn(&TransactionState<'_>, &Effect) -> Option<Violation>,
}

/// What a rule reports about a statement, before its location is known.
#[derive(Debug)]
pub(super) struct Violation {
    /// `None` for the rule's own.
    pub(super) severity: Option<Severity>,
    pub(super) message: String,
    pub(super) cost: String,
    pub(super) safer: String,
}

impl Violation {
    pub(super) fn new(
        message: impl Into<String>,
        cost: impl Into<String>,
        safer: impl Into<String>,
    ) -> Self {
        Self { severity: None, message: message.into(), cost: cost.into(), safer: safer.into() }
    }

    pub(super) fn with_severity(self, severity: Severity) -> Self {
        Self { severity: Some(severity), ..self }
    }
}

impl Rule {
    /// Returns the name in findings and in `-- pricesync: allow`.
    pub const fn name(self) -> &'static str {
        self.definition().name
    }

    /// Returns the rule of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.name() == name)
    }

    /// Returns the rule whose name is most similar to a misspelled one.
    pub(super) fn similar(name: &str) -> Option<&'static str> {
        Self::ALL
            .iter()
            .map(|rule| (strsim::jaro_winkler(rule.name(), name), rule.name()))
            .filter(|(similarity, _)| *similarity > 0.8)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, name)| name)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hint => "hint",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}
