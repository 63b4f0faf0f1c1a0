//! Status, stop and deletion of the local server.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::POLL_INTERVAL;
use super::data_dir::ServerDir;
use super::lock::FileLock;
use super::readiness::{Readiness, ask};
use super::{DATABASE, LocalError, LocalOptions, cluster, postmaster, server};

/// How long the supervisor may take to notice that its server has ended.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(10);

/// The state of the local server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// It has no data; `start` creates it.
    NotCreated {
        /// Where it would be.
        data_dir: PathBuf,
    },
    /// There is data, and no server.
    Stopped {
        /// Where the data is.
        data_dir: PathBuf,
        /// The major version of `PostgreSQL` that the data needs.
        major: u32,
    },
    /// There is a server; it may be starting up or shutting down.
    Running {
        /// Where the data is.
        data_dir: PathBuf,
        /// The server's major version.
        major: u32,
        /// The server's process id.
        pid: u32,
        /// The directory of its socket.
        socket_dir: PathBuf,
        /// A connection URL.
        url: String,
    },
}

/// Returns the state of the server. Changes nothing and never waits.
pub fn status(options: &LocalOptions) -> Result<Status, LocalError> {
    let home = ServerDir::locate(options)?;
    let data_dir = home.root().to_owned();
    let Some(major) = cluster::major(&home) else {
        return Ok(Status::NotCreated { data_dir });
    };
    let running = home
        .postmaster()
        .filter(|running| ask(&home.socket(running.port), DATABASE) != Readiness::Silent);
    Ok(match running {
        None => Status::Stopped { data_dir, major },
        Some(running) => Status::Running {
            data_dir,
            major,
            pid: running.pid(),
            socket_dir: home.socket_dir(running.port),
            url: server::url(&home.socket_dir(running.port), running.port),
        },
    })
}

/// Stops the server even while it has users, and returns whether one was running.
///
/// Sessions are disconnected and their transactions rolled back. Returns when no process of the
/// server is left.
pub fn stop(options: &LocalOptions) -> Result<bool, LocalError> {
    let home = ServerDir::locate(options)?;
    if !home.exists() {
        return Ok(false);
    }
    let _starting = home.lock()?;
    stop_locked(&home)
}

/// Stops the server, deletes its data, and returns whether there was any.
pub fn destroy(options: &LocalOptions) -> Result<bool, LocalError> {
    let home = ServerDir::locate(options)?;
    if !home.exists() {
        return Ok(false);
    }
    let _starting = home.lock()?;
    stop_locked(&home)?;
    home.destroy()?;
    Ok(true)
}

fn stop_locked(home: &ServerDir) -> Result<bool, LocalError> {
    let was_running = !FileLock::is_free(&home.serving())?;
    if was_running {
        postmaster::stop(home, None)?;
        home.sweep_short_socket_dir();
    }
    let deadline = Instant::now() + SUPERVISOR_TIMEOUT;
    while !FileLock::is_free(&home.supervisor())? && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
    Ok(was_running)
}
