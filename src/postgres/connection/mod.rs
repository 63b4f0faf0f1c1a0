//! Connections: how the server is named, reached, pooled and asked what it is.
//!
//! Imports no other room of `postgres`. Start reading at [`database`].

pub mod conninfo;
pub mod database;
pub(crate) mod pooler;
pub mod server_error;
pub mod tls;
