//! What the tests stand on.

pub(crate) mod cluster;
pub(crate) mod console;
pub(crate) mod contents;
pub(crate) mod database;
pub(crate) mod eventually;
pub(crate) mod modules;
pub(crate) mod pooler;
pub(crate) mod pricesync;
pub(crate) mod project;
pub(crate) mod pty;
pub(crate) mod server;
pub(crate) mod sessions;
pub(crate) mod transcript;
