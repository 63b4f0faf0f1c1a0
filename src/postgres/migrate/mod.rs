//! Migrates schemas: one by one, in groups, without a transaction, by template, as a dry run.
//!
//! Imports `connection`, `transaction`, `schema` and `bookkeeping`. Start reading at [`migrator`], then `schema`.

pub(crate) mod apply;
pub mod baseline;
pub(crate) mod concurrent_index;
pub mod context;
pub mod dry_run;
pub(crate) mod failure;
pub(crate) mod group;
pub mod migrator;
pub(crate) mod non_transactional;
pub mod other_history;
pub mod pending_hint;
pub(crate) mod refinery;
pub(crate) mod sample;
pub(crate) mod schema;
pub(crate) mod sql_preview;
pub mod status;
pub(crate) mod template;
