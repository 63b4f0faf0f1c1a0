//! The process that watches over a server, and stops it when nobody needs it any more.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::binaries::Binaries;
use super::data_dir::Home;
use super::lock::Lock;
use super::postmaster::GLANCE;
use super::supervisor_args::Orders;
use super::{LocalError, cluster, log, postmaster};

/// The pause between two looks at the users; it costs nothing even for hours.
const LOOK: Duration = Duration::from_millis(100);

/// How long the last server's processes may still use the data.
const SERVING_PATIENCE: Duration = Duration::from_secs(5);

/// Watches over a server until it is gone; the body of the hidden subcommand [`SUPERVISE`](super::SUPERVISE).
///
/// Takes the arguments after the subcommand's name. Starts the server first, if told so, as its
/// child. Returns after the server has been idle for long enough and was stopped, or has ended
/// in any other way.
pub fn supervise(args: &[OsString]) -> Result<(), LocalError> {
    let orders = Orders::parse(args)?;
    // Ctrl-C and the end of the terminal are for the command that started us. An error only says
    // that somebody runs this by hand, as the leader of a job.
    let _ = rustix::process::setsid();
    let home = Home::at(orders.home.clone())?;
    let child = match &orders.binaries {
        Some(dir) => Some(launch(&home, dir, orders.port)?),
        None => None,
    };
    Watch {
        identity: identity(&home.start_lock()),
        home,
        child,
        idle: orders.idle,
    }
    .run()
}

fn launch(home: &Home, dir: &Path, port: Option<u16>) -> Result<Child, LocalError> {
    let binaries = Binaries::at(dir).map_err(LocalError::Supervisor)?;
    let deadline = Instant::now() + SERVING_PATIENCE;
    let serving = loop {
        if let Some(lock) = Lock::try_alone(&home.serving())? {
            break lock;
        }
        if Instant::now() > deadline {
            return Err(LocalError::Busy(home.serving()));
        }
        thread::sleep(GLANCE);
    };
    let mut command = cluster::serve(home, &binaries, port);
    command
        .stdout(log::open(&home.log())?)
        .stderr(log::open(&home.log())?);
    serving
        .inherited()
        .and_then(|lock| command.stdin(lock).spawn())
        .map_err(|source| home.account().cannot_run(&dir.join("postgres"), source))
}

struct Watch {
    home: Home,
    identity: Option<(u64, u64)>,
    /// The server, unless an earlier supervisor started it.
    child: Option<Child>,
    idle: Duration,
}

impl Watch {
    fn run(mut self) -> Result<(), LocalError> {
        let mut last_used = Instant::now();
        loop {
            thread::sleep(LOOK);
            if self.has_lost_its_home() {
                self.abandon();
                return Ok(());
            }
            if self.has_ended()? {
                return Ok(());
            }
            if !Lock::is_free(&self.home.users())? {
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
                    self.say(&format!("the server has ended: {status}"));
                    Ok(true)
                }
                Err(error) => Err(LocalError::file("wait for", &self.home.data())(error)),
            },
            None => Lock::is_free(&self.home.serving()),
        }
    }

    /// Returns how long ago the last user came, who may have left between two looks.
    fn since_last_start(&self) -> Duration {
        fs::metadata(self.home.users())
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok())
            .unwrap_or(Duration::MAX)
    }

    /// Stops the server, unless somebody comes at this very moment.
    fn retire(&mut self) -> Result<bool, LocalError> {
        let Some(_starting) = Lock::try_existing(&self.home.start_lock())? else {
            return Ok(false);
        };
        let Some(_users) = Lock::try_existing(&self.home.users())? else {
            return Ok(false);
        };
        self.say("nobody uses the server any more, stopping it");
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

    /// Returns whether somebody deletes or has moved the directory, perhaps with `rm -r`. Its
    /// locks say nothing any more, and another server may already live in its place.
    fn has_lost_its_home(&self) -> bool {
        self.identity.is_none() || identity(&self.home.start_lock()) != self.identity
    }

    fn abandon(mut self) {
        if let Some(child) = &mut self.child {
            // It cannot save anything any more. Its exit status is of no use to anybody.
            let _ = kill_process(Pid::from_child(child), Signal::QUIT);
            let _ = child.wait();
        }
    }

    fn say(&self, text: &str) {
        // A supervisor without a log still does its work.
        if let Ok(mut log) = log::open(&self.home.log()) {
            let _ = writeln!(log, "pricesync: {text}");
        }
    }
}

fn identity(file: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(file).ok()?;
    Some((meta.dev(), meta.ino()))
}
