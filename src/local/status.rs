//! Looking at the local server, stopping it, deleting it.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::data_dir::Home;
use super::lock::Lock;
use super::postmaster::GLANCE;
use super::readiness::{Answer, ask};
use super::{DATABASE, LocalError, LocalOptions, cluster, postmaster, server};

/// How long the supervisor may take to notice that its server is gone.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(10);

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// There is no data; `start` would create it.
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

/// Returns what there is, without changing anything or waiting for anybody.
pub fn status(options: &LocalOptions) -> Result<Status, LocalError> {
    let home = Home::locate(options)?;
    let data_dir = home.root().to_owned();
    let Some(major) = cluster::major(&home) else {
        return Ok(Status::NotCreated { data_dir });
    };
    let running = home
        .postmaster()
        .filter(|running| ask(&home.socket(running.port), DATABASE) != Answer::Silent);
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

/// Stops the server, whoever uses it, and returns whether there was one to stop.
///
/// Sessions are disconnected and their transactions rolled back. Returns when no process of the
/// server is left.
pub fn stop(options: &LocalOptions) -> Result<bool, LocalError> {
    let home = Home::locate(options)?;
    if !home.exists() {
        return Ok(false);
    }
    let _starting = home.lock()?;
    stop_locked(&home)
}

/// Stops the server, deletes its data, and returns whether there was any.
pub fn destroy(options: &LocalOptions) -> Result<bool, LocalError> {
    let home = Home::locate(options)?;
    if !home.exists() {
        return Ok(false);
    }
    let _starting = home.lock()?;
    stop_locked(&home)?;
    home.destroy()?;
    Ok(true)
}

fn stop_locked(home: &Home) -> Result<bool, LocalError> {
    let was_running = !Lock::is_free(&home.serving())?;
    if was_running {
        postmaster::stop(home, None)?;
        home.sweep_short_socket_dir();
    }
    let deadline = Instant::now() + SUPERVISOR_PATIENCE;
    while !Lock::is_free(&home.supervisor())? && Instant::now() < deadline {
        thread::sleep(GLANCE);
    }
    Ok(was_running)
}
