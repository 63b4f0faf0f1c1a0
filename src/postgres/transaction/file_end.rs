//! Ends what a script leaves behind in a transaction that continues with another script, so that each
//! file starts in the same state whatever ran before it.
//!
//! `docs/design.md` lists each kind of state, with how it ends.

use super::settings::{CLEAN, CLEAN_POOLED, SettingScope, settings};
use crate::domain::target::Target;
use crate::migrations::Script;
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::EngineOptions;

/// Runs deferred triggers, as COMMIT would.
pub(crate) const RUN_DEFERRED: &str = "SET CONSTRAINTS ALL IMMEDIATE;\n";

/// Defers again the constraints of the schema that are `INITIALLY DEFERRED`; `SET CONSTRAINTS` has no
/// form that restores the defaults.
const DEFER_AGAIN: &str = include_str!("file_end.sql");

/// Returns the statements between a script and the next one, behind [`RUN_DEFERRED`]; behind a pooler
/// also those after the last one. `may_defer`: the
/// schema may have constraints that are `INITIALLY DEFERRED`.
pub(crate) fn file_end(options: &EngineOptions, target: &Target, may_defer: bool) -> String {
    let (clean, deallocate) = match options.route {
        Route::Direct => (CLEAN, "DEALLOCATE ALL; "),
        Route::Pooled => (CLEAN_POOLED, ""),
    };
    let settings = settings(options, target, SettingScope::Transaction);
    let defer_again = if may_defer { DEFER_AGAIN } else { "" };
    format!("{clean}{deallocate}{settings}{defer_again};\n")
}

/// Returns whether a schema may have constraints that are `INITIALLY DEFERRED` once these scripts have
/// run: an earlier file or another tool may have created one, or a script does.
pub(crate) fn may_defer(has_history: bool, scripts: &[&Script]) -> bool {
    has_history || scripts.iter().any(|script| script.mentions_deferral)
}
