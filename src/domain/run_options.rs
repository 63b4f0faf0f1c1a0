//! Options of a run that the command line, the settings and the engine share.

use std::num::NonZeroUsize;
use std::time::Duration;

/// What happens to the rest of the fleet after a schema failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing new is started.
    Stop,
    /// The others go on.
    Continue,
    /// The others go on until so many have failed.
    StopAfter(NonZeroUsize),
}

/// What is applied or rolled back as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    /// All pending files of a schema.
    Schema,
    /// Each file by itself.
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
    pub const ONE: Self = Self {
        schemas: 1,
        time: Duration::ZERO,
    };
}
