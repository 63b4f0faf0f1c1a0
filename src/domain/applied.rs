//! Scripts that were applied: a row of a history table, and a script of this run.

use std::time::Duration;

use serde::Serialize;

use super::script::{ScriptId, ScriptRef};
use super::serialize::seconds;

/// One row of a history table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The version that was applied.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Its checksum at that time.
    pub checksum: u64,
    /// When, as RFC 3339 text.
    pub applied_on: String,
}

/// A script that is applied, and how long its statements took on the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AppliedScript {
    /// Which one.
    #[serde(flatten)]
    pub script: ScriptRef,
    /// From its first statement to the end of its last.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
}

impl ScriptId {
    /// Returns the history row that applying the script inserts; the server sets its time.
    pub fn claimed(&self) -> Applied {
        Applied {
            version: self.version,
            name: self.name.clone(),
            checksum: self.checksum,
            applied_on: String::new(),
        }
    }
}
