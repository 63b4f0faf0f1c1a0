//! Histories of all kinds, compared with sets of all kinds.

use pricesync::domain::applied::Applied;
use pricesync::domain::plan::{Goal, Plan};
use pricesync::domain::script::{Prefix, ScriptId};
use proptest::collection::btree_map;
use proptest::prelude::*;
use proptest::sample::select;

use crate::holds;

const VERSIONS: i64 = 12;

fn scripts() -> impl Strategy<Value = Vec<ScriptId>> {
    let prefix = prop_oneof![4 => Just(Prefix::Versioned), 1 => Just(Prefix::Unversioned)];
    btree_map(1..=VERSIONS, (prefix, select(["a", "b"].as_slice())), 0..=10).prop_map(|set| {
        let script = |(version, (prefix, name)): (i64, (Prefix, &str))| ScriptId {
            prefix,
            version,
            name: name.to_owned(),
            checksum: 1,
            raw_checksum: 2,
            crlf_checksum: 3,
        };
        set.into_iter().map(script).collect()
    })
}

/// For each version what the history says of it: mostly nothing or what the file says.
fn histories() -> impl Strategy<Value = Vec<u8>> {
    let ordinary =
        (0..=VERSIONS).prop_map(|last| (1..=VERSIONS).map(|v| u8::from(v <= last)).collect());
    let row = prop_oneof![6 => Just(0_u8), 6 => Just(1), 1 => 2_u8..6];
    prop_oneof![
        1 => ordinary,
        2 => proptest::collection::vec(row, usize::try_from(VERSIONS).expect("small")),
    ]
}

fn history(scripts: &[ScriptId], kinds: &[u8], strangers: bool) -> Vec<Applied> {
    let row = |(version, &kind): (i64, &u8)| {
        let script = scripts.iter().find(|script| script.version == version);
        let name = script.map_or("gone", |script| &*script.name);
        let (name, checksum) = match kind {
            0 => return None,
            1..=3 if script.is_some() => (name, u64::from(kind)),
            4 if script.is_some() => (name, 99),
            _ if script.is_some() || strangers => ("other", 1),
            _ => return None,
        };
        Some(Applied { version, name: name.to_owned(), checksum, applied_on: String::new() })
    };
    (1..=VERSIONS).zip(kinds).filter_map(row).collect()
}

fn agrees(row: &Applied, scripts: &[ScriptId]) -> bool {
    scripts.iter().any(|script| {
        script.version == row.version && script.name == row.name && script.accepts(row.checksum)
    })
}

#[test]
fn every_script_is_applied_pending_later_or_a_drift() {
    let goals = prop_oneof![Just(Goal::Latest), (0..=VERSIONS + 1).prop_map(Goal::Version)];
    let cases = (scripts(), histories(), any::<bool>(), goals);
    holds("histories", [4_000, 100_000], &cases, |(scripts, kinds, strangers, goal)| {
        let mut applied = history(&scripts, &kinds, strangers);
        let newest = applied.iter().map(|row| row.version).max();
        let has = |applied: &[Applied], script: &ScriptId| {
            applied.iter().any(|row| row.version == script.version)
        };
        let late = scripts.iter().filter(|script| {
            script.prefix == Prefix::Versioned
                && !has(&applied, script)
                && newest.is_some_and(|newest| script.version < newest)
        });
        let disagreeing =
            applied.iter().filter(|row| !agrees(row, &scripts)).map(|row| row.version);
        let mut wrong: Vec<_> = late.map(|script| script.version).chain(disagreeing).collect();
        wrong.sort_unstable();
        match Plan::compare(&scripts, &applied, goal) {
            Ok(plan) => {
                prop_assert_eq!(wrong, Vec::<i64>::new());
                prop_assert_eq!((plan.applied, plan.version), (applied.len(), newest));
                prop_assert!(plan.pending.is_sorted_by(|a, b| a < b));
                for (position, script) in scripts.iter().enumerate() {
                    let wanted = !has(&applied, script) && goal.includes(script.version);
                    prop_assert_eq!(plan.pending.contains(&position), wanted, "{}", script);
                }
                // Doing what is pending leaves nothing to do.
                applied.extend(plan.pending.iter().map(|&position| scripts[position].claimed()));
                applied.sort_by_key(|row| row.version);
                let again = Plan::compare(&scripts, &applied, goal);
                prop_assert_eq!(again.map(|plan| plan.pending), Ok(Vec::new()));
            }
            Err(drifts) => {
                let said: Vec<_> = drifts.iter().map(ToString::to_string).collect();
                prop_assert_eq!(said.len(), wrong.len(), "{:?} for {:?}", said, wrong);
                for version in wrong {
                    let named = |said: &String| said[1..].starts_with(&format!("{version}__"));
                    prop_assert_eq!(said.iter().filter(|said| named(said)).count(), 1);
                }
            }
        }
        Ok(())
    });
}
