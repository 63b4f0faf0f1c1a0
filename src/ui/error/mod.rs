//! How failures and findings read: headline, excerpt of the file, causes, hints.
//! Imports `domain`, `service`, and `style` and `text` of `ui`.
//! Start with `explanation.rs` (the layout), then `explain.rs` (the words for each kind of failure).

pub(super) mod excerpt;
pub(super) mod explain;
pub(super) mod explanation;
mod hints;
