//! The private `PostgreSQL` server of `--local`.
//!
//! Imports nothing else of this program. Start reading at [`LocalServer::start`] in `server.rs`.
//!
//! [`LocalServer::start`] turns a directory into a running server, with nothing but the
//! server's programs on the machine: no service, no Docker, no password, no port. The data is
//! disposable: the server runs without `fsync`, so a crash of the machine may damage it.
//!
//! Four files, all locked with `flock`, coordinate any number of processes. The kernel releases
//! such a lock when the last process that inherited it has ended:
//!
//! | file | held by | means |
//! |---|---|---|
//! | `lock` | the process that starts, stops or destroys it (and its `initdb`) | the state is changing |
//! | `users` | every [`LocalServer`], shared | the server has a user |
//! | `supervisor` | the supervisor, as its standard input | the server is supervised |
//! | `serving` | every process of the server, as its standard input | the data is in use |
//!
//! The supervisor is a hidden subcommand of pricesync ([`SUPERVISE`]); it is the parent of the
//! server, and stops it some time after the last user is gone.

mod account;
mod binaries;
mod cluster;
mod data_dir;
mod directory;
mod error;
mod lock;
mod log;
mod postmaster;
mod readiness;
mod server;
mod status;
mod supervisor;
mod supervisor_args;

use std::path::PathBuf;
use std::time::Duration;

pub use error::LocalError;
pub use server::LocalServer;
pub use status::{Status, destroy, status, stop};
pub use supervisor::supervise;
pub use supervisor_args::SUPERVISE;

/// The interval of polling while another process starts or stops.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The superuser of every local server.
const USER: &str = "postgres";

/// The database that every local server has.
const DATABASE: &str = "pricesync";

/// `PostgreSQL`'s usual port. Without TCP it is only a part of the socket's file name.
const DEFAULT_PORT: u16 = 5432;

/// Which local server is meant, and how it is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// The directory of this server, usually `<project>/.pricesync/postgres`. It is created when
    /// missing and must otherwise be empty or ours, because `destroy` deletes it. A relative path
    /// counts from the current directory.
    ///
    /// When root runs pricesync and the server's user cannot reach this directory, the data is
    /// kept below `/var/lib/pricesync` instead; see [`LocalServer::data_dir`].
    pub data_dir: PathBuf,
    /// How long after its last user the server is stopped; 10 minutes by default. Only the start
    /// that brings the server up decides this.
    pub idle: Duration,
    /// The port to open on 127.0.0.1; `None` (the default) opens a Unix socket only.
    pub port: Option<u16>,
    /// The pricesync program to run as the supervisor; `None` (the default) means the running
    /// program. Tests need it, their running program is not pricesync.
    pub supervisor: Option<PathBuf>,
}

impl LocalOptions {
    /// Returns the defaults for a server in this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            idle: Duration::from_mins(10),
            port: None,
            supervisor: None,
        }
    }
}
