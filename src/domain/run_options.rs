//! Options of a run that the command line, the settings and the engine share.

use std::num::NonZeroUsize;
use std::time::Duration;

/// What a failed schema means for the schemas that were not started yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// No further schema is started.
    Stop,
    /// They are migrated.
    Continue,
    /// They are migrated until this many schemas have failed.
    StopAfter(NonZeroUsize),
}

/// What is applied in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    /// All pending files of a schema.
    Schema,
    /// Each file.
    Migration,
}

/// How many schemas are migrated in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimit {
    /// At most how many schemas.
    pub schemas: usize,
    /// How long such a transaction should take: it keeps the locks of all its schemas until it ends.
    pub time: Duration,
}

impl GroupLimit {
    /// Each schema has a transaction of its own.
    pub const ONE: Self = Self { schemas: 1, time: Duration::ZERO };
}
