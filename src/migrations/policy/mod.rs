//! What SQL may not do, and how a text is kept inside its transaction and its schema.
//!
//! May import: `domain`, `sql`. Knows texts and statements, not files.
//! Start reading at: `check.rs`, which applies `forbidden.rs` to each statement.

pub(crate) mod adhoc;
pub(crate) mod check;
pub(crate) mod deterministic;
mod filled;
mod forbidden;
pub(crate) mod refusal;
pub(crate) mod timeouts;
mod volatile;
pub(crate) mod wrap_in_do;
