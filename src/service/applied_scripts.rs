//! What was applied in thousands of schemas, kept once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::domain::applied::AppliedScript;
use crate::domain::script::ScriptRef;

/// What one schema got: the scripts, which it shares with the schemas that got the same,
/// and how long each took, which is its own.
///
/// Fifty thousand schemas that get ten migrations are four megabytes this way.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AppliedScripts {
    scripts: Arc<[ScriptRef]>,
    /// In microseconds.
    took: Box<[u64]>,
}

impl AppliedScripts {
    /// Returns the scripts in the order in which they were applied, with their times.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ScriptRef, Duration)> {
        let times = self
            .took
            .iter()
            .map(|&micros| Duration::from_micros(micros));
        self.scripts.iter().zip(times)
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scripts.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scripts.is_empty()
    }
}

impl FromIterator<AppliedScript> for AppliedScripts {
    fn from_iter<I: IntoIterator<Item = AppliedScript>>(scripts: I) -> Self {
        ScriptInterner::default().keep(scripts.into_iter().collect())
    }
}

impl fmt::Debug for AppliedScripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for AppliedScripts {
    /// As a list of [`AppliedScript`].
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|(script, took)| AppliedScript {
            script: script.clone(),
            took,
        }))
    }
}

/// Remembers the last list of scripts, which the next schema most likely got too.
#[derive(Debug, Default)]
pub(super) struct ScriptInterner(Arc<[ScriptRef]>);

impl ScriptInterner {
    pub(super) fn keep(&mut self, applied: Vec<AppliedScript>) -> AppliedScripts {
        let took = applied
            .iter()
            .map(|script| u64::try_from(script.took.as_micros()).unwrap_or(u64::MAX))
            .collect();
        if !self
            .0
            .iter()
            .eq(applied.iter().map(|applied| &applied.script))
        {
            self.0 = applied.into_iter().map(|applied| applied.script).collect();
        }
        AppliedScripts {
            scripts: Arc::clone(&self.0),
            took,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::script::Prefix;

    fn applied(version: i64, micros: u64) -> AppliedScript {
        AppliedScript {
            script: ScriptRef {
                prefix: Prefix::Versioned,
                version,
                name: "x".into(),
            },
            took: Duration::from_micros(micros),
        }
    }

    #[test]
    fn schemas_that_got_the_same_share_it() {
        let mut sharing = ScriptInterner::default();
        let first = sharing.keep(vec![applied(1, 10), applied(2, 20)]);
        let second = sharing.keep(vec![applied(1, 11), applied(2, 21)]);
        let third = sharing.keep(vec![applied(2, 22)]);
        assert!(Arc::ptr_eq(&first.scripts, &second.scripts));
        assert_eq!(third.len(), 1);
        let times: Vec<u128> = second.iter().map(|(_, took)| took.as_micros()).collect();
        assert_eq!(times, [11, 21]);
    }

    #[test]
    fn programs_read_a_plain_list() {
        let scripts: AppliedScripts = [applied(8, 1_900_000)].into_iter().collect();
        assert_eq!(
            serde_json::to_string(&scripts).expect("plain data"),
            r#"[{"version":8,"name":"x","took":1.9}]"#
        );
    }
}
