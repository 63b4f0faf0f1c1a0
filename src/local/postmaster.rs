//! The running server, as its own `postmaster.pid` describes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::data_dir::ServerDir;
use super::lock::FileLock;
use super::{LocalError, POLL_INTERVAL};

/// How long a "fast" shutdown may take; it waits for a last checkpoint.
const FAST_STOP: Duration = Duration::from_secs(20);

/// How long an "immediate" shutdown may take; the server itself kills its children after 5 s.
const IMMEDIATE_STOP: Duration = Duration::from_secs(10);

/// The contents of `postmaster.pid` (manual section 73.1); the server may have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    pid: Pid,
    /// The port, which is also the end of the socket's file name.
    pub(super) port: u16,
    /// Whether it listens on TCP as well.
    pub(super) has_tcp: bool,
}

impl Postmaster {
    /// Reads the file, or returns `None` when it is missing or still being written.
    pub(super) fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(file(data)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid: i32 = lines.next()?.trim().parse().ok()?;
        let port = lines.nth(2)?.trim().parse().ok()?;
        // The next line is the socket's directory. It is not believed: in a copied project it is
        // the original's, whose server would answer.
        let listens_on = lines.nth(1)?;
        Some(Self { pid: Pid::from_raw(pid.max(0))?, port, has_tcp: !listens_on.trim().is_empty() })
    }

    /// Returns the process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns whether the process exists and works in this data directory.
    ///
    /// A recorded number says little: it may belong to a zombie (whose `cwd` cannot be read) or to
    /// a later process. Where there is no `/proc`, any process of that number is believed.
    pub(super) fn lives_in(&self, data: &Path) -> bool {
        if Path::new("/proc/self/cwd").exists() {
            let cwd = fs::read_link(format!("/proc/{}/cwd", self.pid()));
            cwd.is_ok_and(|cwd| fs::canonicalize(data).is_ok_and(|data| data == cwd))
        } else {
            test_kill_process(self.pid).is_ok()
        }
    }
}

/// Returns the path of `postmaster.pid`.
pub(super) fn file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

/// Stops the server and returns when none of its processes is left.
///
/// Requests a fast shutdown, which disconnects all sessions and rolls back their transactions, and
/// after 20 s an immediate one.
///
/// A supervisor passes its child; other callers read the pid file.
pub(super) fn stop(home: &ServerDir, child: Option<Pid>) -> Result<(), LocalError> {
    let steps = [(Signal::INT, FAST_STOP), (Signal::QUIT, IMMEDIATE_STOP)];
    for (signal, patience) in steps {
        if let Some(pid) = child.or_else(|| Some(home.postmaster()?.pid)) {
            // It may have ended meanwhile; the lock decides, not the signal.
            let _ = kill_process(pid, signal);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if FileLock::is_free(&home.serving())? {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
    Err(LocalError::DidNotStop(home.data()))
}

#[cfg(test)]
mod tests {
    use super::Postmaster;
    use std::path::Path;

    const FILE: &str = "4121\n/p/.pricesync/postgres/data\n1763942400\n5432\n/p/run\n\n  \
                        2891 65541\nready   \n";

    #[test]
    fn the_file_names_process_and_port() {
        let found = Postmaster::parse(FILE).unwrap();
        assert_eq!(found.pid(), 4121);
        assert_eq!(found.port, 5432);
        assert!(!found.has_tcp);
        let tcp = FILE.replace("/p/run\n\n", "/p/run\n127.0.0.1\n");
        assert!(Postmaster::parse(&tcp).unwrap().has_tcp);
    }

    #[test]
    fn an_incomplete_or_invalid_file_is_ignored() {
        for lines in 0..5 {
            let half: String = FILE.split_inclusive('\n').take(lines).collect();
            assert_eq!(Postmaster::parse(&half), None, "{half:?}");
        }
        assert_eq!(Postmaster::parse(&FILE.replace("4121", "-1")), None);
    }

    #[test]
    fn a_process_that_works_elsewhere_is_not_the_server() {
        let me = std::process::id().to_string();
        let found = Postmaster::parse(&FILE.replace("4121", &me)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        if Path::new("/proc/self/cwd").exists() {
            assert!(!found.lives_in(dir.path()));
            assert!(found.lives_in(&std::env::current_dir().unwrap()));
        }
    }
}
