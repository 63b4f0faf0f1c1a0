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

/// How many schemas share a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    /// At most how many schemas.
    pub most: usize,
    /// How long such a transaction is to take: all of them keep their locks until it ends.
    pub within: Duration,
}

impl Together {
    /// None do.
    pub const ALONE: Self = Self {
        most: 1,
        within: Duration::ZERO,
    };
}
