//! What the tests stand on.

#[path = "../../harness/cluster.rs"]
pub(crate) mod cluster;
pub(crate) mod console;
pub(crate) mod contents;
pub(crate) mod database;
pub(crate) mod eventually;
pub(crate) mod modules;
pub(crate) mod own_server;
pub(crate) mod pooler;
pub(crate) mod pricesync;
pub(crate) mod project;
pub(crate) mod pty;
#[path = "../../harness/query.rs"]
pub(crate) mod query;
pub(crate) mod server;
#[path = "../../harness/server_programs.rs"]
pub(crate) mod server_programs;
pub(crate) mod sessions;
pub(crate) mod transcript;
