//! A server of a test's own, for what would disturb the others: standbys, settings, restarts.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use super::server_programs::{as_server, give};

/// Stopped when dropped.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Makes and starts one with these further settings.
    pub(crate) fn start(settings: &str) -> Self {
        let cluster = Self { dir: tempfile::tempdir().unwrap() };
        give(cluster.dir.path());
        cluster.run(
            "initdb",
            &["-D", "data", "-U", "postgres", "-A", "trust", "-N", "--locale=C", "-E", "UTF8"],
        );
        let file = cluster.dir.path().join("data/postgresql.conf");
        let mut text = fs::read_to_string(&file).unwrap();
        let _ = write!(
            text,
            "\nlisten_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\nshared_buffers = 8MB\n{settings}\n",
            cluster.dir.path().display()
        );
        fs::write(&file, text).unwrap();
        cluster.run("pg_ctl", &["-D", "data", "-w", "-s", "-l", "log", "start"]);
        cluster
    }

    /// Returns the URL of a database on it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgresql:///{database}?host={}&user=postgres", self.dir.path().display())
    }

    /// Restarts it as a hot standby, which has no primary and so never gets on.
    pub(crate) fn becomes_a_standby(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-s", "-m", "fast", "stop"]);
        fs::write(self.dir.path().join("data/standby.signal"), "").unwrap();
        self.run("pg_ctl", &["-D", "data", "-w", "-s", "-l", "log", "start"]);
    }

    /// Keeps a copy of everything as it is now.
    pub(crate) fn keeps(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-s", "-m", "fast", "stop"]);
        self.copy("data", "kept");
        self.run("pg_ctl", &["-D", "data", "-w", "-s", "-l", "log", "start"]);
    }

    /// Goes back to what was kept, as when a standby takes over that had not got everything.
    pub(crate) fn goes_back(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-s", "-m", "immediate", "stop"]);
        fs::remove_dir_all(self.dir.path().join("data")).unwrap();
        self.copy("kept", "data");
        self.run("pg_ctl", &["-D", "data", "-w", "-s", "-l", "log", "start"]);
    }

    fn copy(&self, from: &str, to: &str) {
        let status =
            Command::new("cp").current_dir(self.dir.path()).args(["-a", from, to]).status();
        assert!(status.unwrap().success());
    }

    fn command(&self, program: &str) -> Command {
        let mut command = as_server(program, self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, program: &str, args: &[&str]) {
        let status = self.command(program).args(args).status().unwrap();
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert!(status.success(), "{program} {args:?}: {log}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl")
            .args(["-D", "data", "-w", "-s", "-m", "immediate", "stop"])
            .status();
    }
}
