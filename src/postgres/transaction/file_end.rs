//! Ends what a script leaves behind in a transaction that continues with another script, so that each
//! file starts in the same state whatever ran before it.
//!
//! `docs/design.md` lists each kind of state, with how it ends.

use super::settings::{CLEAN, CLEAN_POOLED, SettingScope, settings};
use crate::domain::target::Target;
use crate::migrations::Script;
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::sql_file::filled;

/// Runs deferred triggers, as COMMIT would. Constraints that are created later in the transaction are not
/// deferred then either, so it is right behind the last script, and behind one that set the same mode.
pub(crate) const RUN_DEFERRED: &str = "SET CONSTRAINTS ALL IMMEDIATE;\n";

/// Returns the statement that runs deferred triggers between two scripts. `may_defer`: as in [`file_end`].
pub(crate) fn run_deferred(script: &Script, may_defer: bool) -> String {
    if may_defer && !script.mentions_constraints {
        set_constraints("k.condeferrable", "IMMEDIATE") + ";\n"
    } else {
        RUN_DEFERRED.to_owned()
    }
}

/// Returns the statement that sets the mode of these constraints of the schema (a condition on `k` in
/// `pg_constraint`). `SET CONSTRAINTS` has no form that restores the defaults.
fn set_constraints(which: &str, mode: &str) -> String {
    filled(
        include_str!("file_end.sql"),
        &[("{which}", which.to_owned()), ("{mode}", mode.to_owned())],
    )
}

/// Returns the statements between a script and the next one, behind [`run_deferred`]; behind a pooler
/// also those after the last one. `may_defer`: the schema may have constraints that are deferrable.
pub(crate) fn file_end(options: &EngineOptions, target: &Target, may_defer: bool) -> String {
    let (clean, deallocate) = match options.route {
        Route::Direct => (CLEAN, "DEALLOCATE ALL; "),
        Route::Pooled => (CLEAN_POOLED, ""),
    };
    let settings = settings(options, target, SettingScope::Transaction);
    let defer_again =
        if may_defer { set_constraints("k.condeferred", "DEFERRED") } else { String::new() };
    format!("{clean}{deallocate}{settings}{defer_again};\n")
}

/// Returns whether a schema may have constraints that are deferrable once these scripts have
/// run: an earlier file or another tool may have created one, or a script does.
pub(crate) fn may_defer(has_history: bool, scripts: &[&Script]) -> bool {
    has_history || scripts.iter().any(|script| script.mentions_deferral)
}
