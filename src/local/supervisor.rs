//! The process that supervises the server and stops it after its last user has gone.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::POLL_INTERVAL;
use super::binaries::Binaries;
use super::data_dir::ServerDir;
use super::lock::FileLock;
use super::supervisor_args::SupervisorArgs;
use super::{LocalError, cluster, log, postmaster};

/// The interval between two checks for users.
const USERS_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long processes of the previous server may still use the data.
const SERVING_TIMEOUT: Duration = Duration::from_secs(5);

/// Supervises a server until it ends; the body of the hidden subcommand [`SUPERVISE`](super::SUPERVISE).
///
/// Takes the arguments after the subcommand's name. With `--bin`, starts the server first, as its
/// child. Returns when the server has ended, on its own or because it had no user for the idle time.
pub fn supervise(args: &[OsString]) -> Result<(), LocalError> {
    let orders = SupervisorArgs::parse(args)?;
    // Ctrl-C and a closed terminal must not stop the server. The call fails only for the leader of a
    // process group, when a user runs this by hand.
    let _ = rustix::process::setsid();
    let home = ServerDir::at(orders.home.clone())?;
    let child = match &orders.binaries {
        Some(dir) => Some(launch(&home, dir, orders.port)?),
        None => None,
    };
    Supervisor { identity: identity(&home.start_lock()), home, child, idle: orders.idle }.run()
}

fn launch(home: &ServerDir, dir: &Path, port: Option<u16>) -> Result<Child, LocalError> {
    let binaries = Binaries::at(dir).map_err(LocalError::InvalidArgs)?;
    let deadline = Instant::now() + SERVING_TIMEOUT;
    let serving = loop {
        if let Some(lock) = FileLock::try_exclusive(&home.serving())? {
            break lock;
        }
        if Instant::now() > deadline {
            return Err(LocalError::Busy(home.serving()));
        }
        thread::sleep(POLL_INTERVAL);
    };
    let mut command = cluster::serve(home, &binaries, port);
    command.stdout(log::open(&home.log())?).stderr(log::open(&home.log())?);
    serving
        .inherited()
        .and_then(|lock| command.stdin(lock).spawn())
        .map_err(|source| home.account().cannot_run(&dir.join("postgres"), source))
}

struct Supervisor {
    home: ServerDir,
    identity: Option<(u64, u64)>,
    /// The server, unless an earlier supervisor started it.
    child: Option<Child>,
    idle: Duration,
}

impl Supervisor {
    fn run(mut self) -> Result<(), LocalError> {
        let mut last_used = Instant::now();
        loop {
            thread::sleep(USERS_POLL_INTERVAL);
            if self.was_deleted() {
                self.abandon();
                return Ok(());
            }
            if self.has_ended()? {
                return Ok(());
            }
            if !FileLock::is_free(&self.home.users())? {
                last_used = Instant::now();
            } else if last_used.elapsed() >= self.idle
                && self.since_last_start() >= self.idle
                && self.retire()?
            {
                return Ok(());
            }
        }
    }

    fn has_ended(&mut self) -> Result<bool, LocalError> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => Ok(false),
                Ok(Some(status)) => {
                    self.log(&format!("the server has ended: {status}"));
                    Ok(true)
                }
                Err(error) => Err(LocalError::file("wait for", &self.home.data())(error)),
            },
            None => FileLock::is_free(&self.home.serving()),
        }
    }

    /// Returns the time since the last user's start, which a check may have missed.
    fn since_last_start(&self) -> Duration {
        fs::metadata(self.home.users())
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok())
            .unwrap_or(Duration::MAX)
    }

    /// Stops the server, unless another process is starting to use it; returns whether it did.
    fn retire(&mut self) -> Result<bool, LocalError> {
        let Some(_starting) = FileLock::try_existing(&self.home.start_lock())? else {
            return Ok(false);
        };
        let Some(_users) = FileLock::try_existing(&self.home.users())? else {
            return Ok(false);
        };
        self.log("no user left, stopping the server");
        let stopped = postmaster::stop(&self.home, self.child.as_ref().map(Pid::from_child));
        self.home.sweep_short_socket_dir();
        if let Some(child) = &mut self.child {
            if stopped.is_err() {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
        stopped.map(|()| true)
    }

    /// Returns whether the directory was deleted or moved. Its locks are invalid then, and another
    /// server may already use its path.
    fn was_deleted(&self) -> bool {
        self.identity.is_none() || identity(&self.home.start_lock()) != self.identity
    }

    fn abandon(mut self) {
        if let Some(child) = &mut self.child {
            // Its data is gone, so a clean shutdown has no purpose.
            let _ = kill_process(Pid::from_child(child), Signal::QUIT);
            let _ = child.wait();
        }
    }

    fn log(&self, text: &str) {
        // A missing log must not stop the supervisor.
        if let Ok(mut log) = log::open(&self.home.log()) {
            let _ = writeln!(log, "pricesync: {text}");
        }
    }
}

fn identity(file: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(file).ok()?;
    Some((meta.dev(), meta.ino()))
}
