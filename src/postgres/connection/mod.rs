//! Connections: how a server is named, reached, pooled and asked what it is.
//!
//! Imports no other room of `postgres`. Start reading at [`database`].

pub(crate) mod catalog_sql;
mod connector;
pub mod conninfo;
pub mod database;
pub mod options;
pub(crate) mod pooler;
pub mod server_error;
pub mod session;
pub(crate) mod session_cache;
pub(crate) mod sql_file;
pub mod tls;
