//! The state of one schema: its history compared with the migration files.

use super::plan::{Drift, Plan};

/// What a look at one schema found, before anything is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// The schema does not exist.
    Missing,
    /// It is being dropped, and is half gone.
    Dropping,
    /// The tenant was dropped after it had been listed.
    Dropped,
    /// Its history agrees with the files.
    Known(Plan),
    /// Its history and the files disagree; holds the highest applied version too.
    Drifted(Vec<Drift>, Option<i64>),
    /// Its history cannot be read; says why.
    Damaged(String),
    /// Its history could not be read in time: another session has locked it. Says who.
    Locked(String),
}
