//! One transaction in one schema: opens it under the schema's lock, runs, checks and commits it.
//!
//! Imports `connection`. Start reading at `open`, then `batch`.

pub(crate) mod advisory_lock;
mod attempts;
pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod escape_guard;
pub(crate) mod file_end;
pub(crate) mod final_check;
pub mod history;
pub(crate) mod ledger;
pub(crate) mod lock_monitor;
pub(crate) mod open;
pub(crate) mod retry;
pub(crate) mod settings;
