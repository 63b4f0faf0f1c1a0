//! Options of a run that the command line, the settings and the engine share.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Whether a failed schema stops the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// No further schema is started.
    Stop,
    /// The others are migrated.
    Continue,
    /// No further schema is started once this many have failed.
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
    /// The time that such a transaction should take at most: it holds the locks of all its schemas.
    pub time: Duration,
}

impl GroupLimit {
    /// Each schema has a transaction of its own.
    pub const ONE: Self = Self { schemas: 1, time: Duration::ZERO };
}
