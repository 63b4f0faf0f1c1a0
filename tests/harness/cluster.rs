//! A database cluster of a test, and the server on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::server_programs::as_server;

/// A data folder and its server, which runs without fsync and is stopped when dropped.
pub(crate) struct Cluster {
    data: PathBuf,
    options: String,
}

impl Cluster {
    /// Creates a cluster whose superuser connects without a password.
    pub(crate) fn create(data: &Path, superuser: &str) {
        let parent = data.parent().expect("a data folder is in another folder");
        let mut initdb = as_server("initdb", parent);
        initdb.arg("-D").arg(data).args(["-U", superuser, "-A", "trust", "-E", "UTF8"]);
        let made = initdb
            .args(["--no-sync", "--locale=C", "--wal-segsize=4"])
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts a server on a cluster, with its socket in `socket` and settings as `name=value`.
    ///
    /// # Errors
    ///
    /// What the server wrote to its log.
    pub(crate) fn start(data: &Path, socket: &Path, settings: &[&str]) -> Result<Self, String> {
        let settings = [&["fsync=off"], settings].concat();
        let options = format!("-k {} -c {}", socket.display(), settings.join(" -c "));
        let cluster = Self { data: data.to_owned(), options };
        if cluster.resume() { Ok(cluster) } else { Err(cluster.log()) }
    }

    /// Starts it again after [`Cluster::stop`], and returns whether it started.
    pub(crate) fn resume(&self) -> bool {
        self.pg_ctl(&["-l", "log", "-o", &self.options, "start"])
    }

    /// Stops it, by a mode of `pg_ctl`: `immediate` is like a crash.
    pub(crate) fn stop(&self, mode: &str) {
        self.pg_ctl(&["-m", mode, "stop"]);
    }

    /// Returns what the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.data.join("log")).unwrap_or_default()
    }

    fn pg_ctl(&self, args: &[&str]) -> bool {
        let mut command = as_server("pg_ctl", &self.data);
        command.args(["-w", "-s", "-D", "."]).args(args);
        // A server keeps these open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("pg_ctl runs").success()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop("immediate");
    }
}
