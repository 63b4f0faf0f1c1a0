//! Lists of applied scripts, stored once for all schemas that got the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::domain::applied::AppliedScript;
use crate::domain::script::ScriptRef;

/// The scripts that were applied in one schema, and how long each took.
///
/// The list of scripts is shared between schemas, the times are not: fifty thousand schemas with ten
/// migrations each take four megabytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AppliedScripts {
    scripts: Arc<[ScriptRef]>,
    /// Microseconds.
    took: Box<[u64]>,
}

impl AppliedScripts {
    /// Returns the scripts in the order in which they were applied, with their times.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ScriptRef, Duration)> {
        let times = self.took.iter().map(|&micros| Duration::from_micros(micros));
        self.scripts.iter().zip(times)
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
        serializer.collect_seq(
            self.iter().map(|(script, took)| AppliedScript { script: script.clone(), took }),
        )
    }
}

/// Shares the list of scripts of one schema with the next, which usually has the same.
#[derive(Debug, Default)]
pub(crate) struct ScriptInterner(Arc<[ScriptRef]>);

impl ScriptInterner {
    /// Returns the scripts with their list replaced by a shared one.
    pub(crate) fn intern(&mut self, applied: Vec<AppliedScript>) -> AppliedScripts {
        let took = applied
            .iter()
            .map(|script| u64::try_from(script.took.as_micros()).unwrap_or(u64::MAX))
            .collect();
        if !self.0.iter().eq(applied.iter().map(|applied| &applied.script)) {
            self.0 = applied.into_iter().map(|applied| applied.script).collect();
        }
        AppliedScripts { scripts: Arc::clone(&self.0), took }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::script::Prefix;

    fn applied(version: i64, micros: u64) -> AppliedScript {
        AppliedScript {
            script: ScriptRef { prefix: Prefix::Versioned, version, name: "x".into() },
            took: Duration::from_micros(micros),
        }
    }

    #[test]
    fn schemas_with_the_same_scripts_share_the_list() {
        let mut interner = ScriptInterner::default();
        let first = interner.intern(vec![applied(1, 10), applied(2, 20)]);
        let second = interner.intern(vec![applied(1, 11), applied(2, 21)]);
        let third = interner.intern(vec![applied(2, 22)]);
        assert!(Arc::ptr_eq(&first.scripts, &second.scripts));
        assert_eq!(third.iter().len(), 1);
        let times: Vec<u128> = second.iter().map(|(_, took)| took.as_micros()).collect();
        assert_eq!(times, [11, 21]);
    }

    #[test]
    fn the_json_is_a_plain_list() {
        let scripts = ScriptInterner::default().intern(vec![applied(8, 1_900_000)]);
        assert_eq!(
            serde_json::to_string(&scripts).expect("plain data"),
            r#"[{"version":8,"name":"x","took":1.9}]"#
        );
    }
}
