//! Files compared with a schema's history: what is pending, or how the two disagree.

use std::fmt;

use serde::Serialize;

use super::applied::Applied;
use super::script::{Prefix, ScriptId};

/// The last version that a run applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// The newest one.
    #[default]
    Latest,
    /// This one.
    Version(i64),
}

impl Goal {
    /// Returns whether a script of this version is applied.
    pub const fn includes(self, version: i64) -> bool {
        match self {
            Self::Latest => true,
            Self::Version(last) => version <= last,
        }
    }
}

/// The pending migrations of one schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Positions of the pending scripts in the set that was compared, in the order of versions.
    pub pending: Vec<usize>,
    /// How many scripts of the set are in the history.
    pub applied: usize,
    /// The highest applied version, or `None` where nothing is applied.
    pub version: Option<i64>,
}

/// A difference between files and history, which stops the migration of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "drift", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Drift {
    /// The file was changed after it had been applied.
    Edited {
        /// The file, as `V3__name`.
        script: String,
        /// The checksum in the history.
        recorded: u64,
        /// The checksum of the file.
        found: u64,
    },
    /// The history has a version without a file.
    Vanished {
        /// The row, as `V3__name`.
        script: String,
    },
    /// The file is older than the newest applied version and was never applied.
    OutOfOrder {
        /// The file, as `V3__name`.
        script: String,
        /// The newest applied version.
        newest: i64,
    },
    /// The same version was applied under another name.
    Renamed {
        /// The file, as `V3__name`.
        script: String,
        /// The name in the history.
        recorded: String,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited { script, .. } => {
                write!(f, "{script}.sql was edited after it had been applied")
            }
            Self::Vanished { script } => {
                write!(f, "{script} is applied, but its file is gone")
            }
            Self::OutOfOrder { script, newest } => write!(
                f,
                "{script}.sql is older than the newest applied version {newest} and was never applied"
            ),
            Self::Renamed { script, recorded } => {
                write!(f, "{script}.sql was applied under another name, '{recorded}'")
            }
        }
    }
}

impl Plan {
    /// Compares an ordered set of scripts with a history that is ordered by version.
    ///
    /// # Errors
    ///
    /// Every [`Drift`] there is, not only the first.
    pub fn compare(
        scripts: &[ScriptId],
        applied: &[Applied],
        goal: Goal,
    ) -> Result<Self, Vec<Drift>> {
        let newest = applied.iter().map(|row| row.version).max();
        let mut drifts = Vec::new();
        for row in applied {
            match scripts.iter().find(|script| script.version == row.version) {
                None => drifts
                    .push(Drift::Vanished { script: format!("V{}__{}", row.version, row.name) }),
                Some(script) if script.name != row.name => drifts.push(Drift::Renamed {
                    script: script.to_string(),
                    recorded: row.name.clone(),
                }),
                Some(script) if !script.accepts(row.checksum) => drifts.push(Drift::Edited {
                    script: script.to_string(),
                    recorded: row.checksum,
                    found: script.checksum,
                }),
                Some(_) => {}
            }
        }
        let mut pending = Vec::new();
        for (position, script) in scripts.iter().enumerate() {
            if applied.iter().any(|row| row.version == script.version) {
                continue;
            }
            match newest {
                Some(newest) if script.prefix == Prefix::Versioned && script.version < newest => {
                    drifts.push(Drift::OutOfOrder { script: script.to_string(), newest });
                }
                _ if goal.includes(script.version) => pending.push(position),
                _ => {}
            }
        }
        if !drifts.is_empty() {
            return Err(drifts);
        }
        Ok(Self { pending, applied: applied.len(), version: newest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(prefix: Prefix, version: i64, name: &str) -> ScriptId {
        ScriptId {
            prefix,
            version,
            name: name.to_owned(),
            checksum: version.unsigned_abs() * 10,
            raw_checksum: version.unsigned_abs() * 10 + 1,
            crlf_checksum: version.unsigned_abs() * 10 + 2,
        }
    }

    fn versioned(versions: &[i64]) -> Vec<ScriptId> {
        versions.iter().map(|&v| script(Prefix::Versioned, v, "x")).collect()
    }

    fn row(version: i64) -> Applied {
        Applied {
            version,
            name: "x".to_owned(),
            checksum: version.unsigned_abs() * 10,
            applied_on: String::new(),
        }
    }

    #[test]
    fn everything_is_pending_in_an_empty_schema() {
        let plan = Plan::compare(&versioned(&[1, 2, 5]), &[], Goal::Latest).expect("no drift");
        assert_eq!(plan.pending, [0, 1, 2]);
        assert_eq!(plan.version, None);
    }

    #[test]
    fn a_goal_leaves_newer_scripts_pending_for_later() {
        let plan =
            Plan::compare(&versioned(&[1, 2, 5]), &[row(1)], Goal::Version(2)).expect("no drift");
        assert_eq!(plan.pending, [1]);
        assert_eq!(plan.applied, 1);
    }

    #[test]
    fn a_checksum_over_the_raw_bytes_is_accepted() {
        let mut raw = row(1);
        raw.checksum = 11;
        assert!(Plan::compare(&versioned(&[1]), &[raw], Goal::Latest).is_ok());
    }

    #[test]
    fn an_unversioned_script_may_come_late() {
        let scripts = [
            script(Prefix::Versioned, 1, "x"),
            script(Prefix::Unversioned, 2, "late"),
            script(Prefix::Versioned, 3, "x"),
        ];
        let plan = Plan::compare(&scripts, &[row(1), row(3)], Goal::Latest).expect("no drift");
        assert_eq!(plan.pending, [1]);
    }

    #[test]
    fn every_drift_is_named_not_only_the_first() {
        let scripts = [
            script(Prefix::Versioned, 1, "renamed"),
            script(Prefix::Versioned, 2, "x"),
            script(Prefix::Versioned, 3, "x"),
        ];
        let mut edited = row(3);
        edited.checksum = 999;
        let drifts =
            Plan::compare(&scripts, &[row(1), edited, row(4)], Goal::Latest).expect_err("drift");
        assert_eq!(
            drifts,
            [
                Drift::Renamed { script: "V1__renamed".into(), recorded: "x".into() },
                Drift::Edited { script: "V3__x".into(), recorded: 999, found: 30 },
                Drift::Vanished { script: "V4__x".into() },
                Drift::OutOfOrder { script: "V2__x".into(), newest: 4 },
            ]
        );
    }
}
