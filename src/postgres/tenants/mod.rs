//! The catalog of tenants: reads it, and creates, adopts, renames and drops tenants.
//!
//! Imports `connection`, `transaction`, `schema`, `bookkeeping` and `migrate`. Start reading at [`catalog`],
//! which reads, and [`admin`], which changes.

pub mod admin;
pub(crate) mod adopt;
pub mod catalog;
pub mod change;
pub(crate) mod conflicts;
pub mod context;
pub mod create;
pub mod domains;
pub mod drop;
pub(crate) mod mark;
pub(crate) mod new_row;
pub(crate) mod referencing_rows;
pub(crate) mod rename;
pub mod trash;
pub(crate) mod unfinished;
pub mod users;
pub mod where_clause;
