//! The rules: what each is called, how much it matters, and what it is about.

use std::fmt;

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Hint,
    /// Costs something on a fleet or a busy table.
    Warning,
    /// Will fail, or is going to be refused, on some schema.
    Error,
}

/// A rule by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A foreign key to a table that all tenants share, with work behind it in its transaction.
    FkToShared,
    /// A column that comes with a constant default.
    AddColumnDefault,
    /// A column that changes its type.
    AlterColumnType,
    /// A statement that writes the whole table anew.
    RewritesTable,
    /// A column that may not be NULL and has no value for the rows that are there.
    NotNullColumn,
    /// An index that is built under a lock against writes.
    IndexWithoutConcurrently,
    /// A constraint that is checked against every row under a lock.
    ConstraintScan,
    /// `SET NOT NULL`, which reads the table under a lock.
    SetNotNull,
    /// What the program that is running now still uses is taken away or renamed.
    BreaksRunningCode,
    /// `LOCK TABLE`.
    LockTable,
    /// `TRUNCATE`.
    Truncate,
    /// `VACUUM FULL` and `CLUSTER`.
    VacuumFull,
    /// `IF NOT EXISTS`, which accepts whatever is there under that name.
    IfNotExists,
    /// Several tables of running tenants are locked until the same COMMIT.
    SeveralLocks,
    /// Rows or structure outside of the tenant's schema, or a name that hides a table there.
    OutsideSchema,
    /// What PostgreSQL 17 looks up in another `search_path` than 16.
    SearchPath17,
    /// A statement that the parser does not know, so nothing was looked for in it.
    NotRead,
}

impl Rule {
    /// Every rule, the fleet's own first.
    pub const ALL: [Self; 17] = [
        Self::FkToShared,
        Self::AddColumnDefault,
        Self::AlterColumnType,
        Self::OutsideSchema,
        Self::SearchPath17,
        Self::RewritesTable,
        Self::NotNullColumn,
        Self::IndexWithoutConcurrently,
        Self::ConstraintScan,
        Self::SetNotNull,
        Self::BreaksRunningCode,
        Self::LockTable,
        Self::Truncate,
        Self::VacuumFull,
        Self::IfNotExists,
        Self::SeveralLocks,
        Self::NotRead,
    ];

    /// Returns the name, as findings and `-- pricesync: allow` give it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FkToShared => "fk-to-shared",
            Self::AddColumnDefault => "add-column-default",
            Self::AlterColumnType => "alter-column-type",
            Self::RewritesTable => "rewrites-table",
            Self::NotNullColumn => "not-null-column",
            Self::IndexWithoutConcurrently => "index-without-concurrently",
            Self::ConstraintScan => "constraint-scan",
            Self::SetNotNull => "set-not-null",
            Self::BreaksRunningCode => "breaks-running-code",
            Self::LockTable => "lock-table",
            Self::Truncate => "truncate",
            Self::VacuumFull => "vacuum-full",
            Self::IfNotExists => "if-not-exists",
            Self::SeveralLocks => "several-locks",
            Self::OutsideSchema => "outside-schema",
            Self::SearchPath17 => "search-path-17",
            Self::NotRead => "not-read",
        }
    }

    /// Returns the rule of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// Returns the rule whose name is most similar to a misspelled one.
    #[must_use]
    pub fn similar(name: &str) -> Option<&'static str> {
        Self::ALL
            .into_iter()
            .map(|rule| (strsim::jaro_winkler(rule.name(), name), rule.name()))
            .filter(|(similarity, _)| *similarity > 0.8)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, name)| name)
    }

    /// Returns how much its findings matter.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::NotNullColumn | Self::OutsideSchema => Severity::Error,
            Self::SeveralLocks | Self::NotRead => Severity::Hint,
            _ => Severity::Warning,
        }
    }

    /// Returns what it is about, in a few words.
    #[must_use]
    pub const fn subject(self) -> &'static str {
        match self {
            Self::FkToShared => "a key to a shared table, with work behind it in its transaction",
            Self::AddColumnDefault => {
                "ADD COLUMN ... DEFAULT, which some servers pay for with the whole catalog"
            }
            Self::AlterColumnType => "ALTER COLUMN ... TYPE: the same, and a rewrite of the table",
            Self::RewritesTable => {
                "a volatile default, serial, identity, a stored column, SET LOGGED; UPDATE without WHERE, REFRESH"
            }
            Self::NotNullColumn => "ADD COLUMN ... NOT NULL without a value for existing rows",
            Self::IndexWithoutConcurrently => "an index built, dropped or built anew under a lock",
            Self::ConstraintScan => "a constraint checked against every row under a lock",
            Self::SetNotNull => "SET NOT NULL on a table that is in use",
            Self::BreaksRunningCode => {
                "DROP or RENAME of what running programs use, and DROP ... CASCADE"
            }
            Self::LockTable => "LOCK TABLE",
            Self::Truncate => "TRUNCATE",
            Self::VacuumFull => "VACUUM FULL, CLUSTER",
            Self::IfNotExists => "IF NOT EXISTS, which hides that schemas differ",
            Self::SeveralLocks => "several tables in use, locked until the same COMMIT",
            Self::OutsideSchema => {
                "a change outside of the tenant's schema, or a table that hides one there"
            }
            Self::SearchPath17 => {
                "indexes and materialized views over functions that look names up"
            }
            Self::NotRead => "a statement that the parser does not know",
        }
    }

    /// Returns whether its cost grows with the number of tenants, so that a run warns of it too.
    #[must_use]
    pub const fn weighs_on_the_fleet(self) -> bool {
        matches!(
            self,
            Self::FkToShared | Self::AddColumnDefault | Self::AlterColumnType
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_by_its_own_name_only() {
        for rule in Rule::ALL {
            assert_eq!(Rule::named(rule.name()), Some(rule));
            assert!(
                rule.name()
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            );
        }
        assert_eq!(Rule::named("fk_to_shared"), None);
    }
}
