//! The scripts that were applied to one schema and may be run in several schemas at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::migrations::Script;

/// How long the scripts for one schema may be, in bytes.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// The versions applied to the last schema that was migrated on its own, if they only define, so that
/// locks name everything that they change. A group runs no others.
#[derive(Debug, Default)]
pub(crate) struct Sample(Mutex<Vec<i64>>);

impl Sample {
    /// Replaces the sample; long scripts clear it.
    pub(crate) fn record(&self, scripts: &[&Script]) {
        let bytes: usize = scripts.iter().map(|script| script.text.len()).sum();
        let scripts = if bytes > MAX_TEXT_BYTES { &[] } else { scripts };
        let versions = scripts.iter().map(|script| script.id.version);
        *self.versions() = versions.collect();
    }

    pub(crate) fn is_recorded(&self) -> bool {
        !self.versions().is_empty()
    }

    /// Returns whether these scripts are the recorded ones.
    pub(crate) fn is(&self, scripts: &[&Script]) -> bool {
        let versions = scripts.iter().map(|script| &script.id.version);
        versions.eq(self.versions().iter())
    }

    fn versions(&self) -> MutexGuard<'_, Vec<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
