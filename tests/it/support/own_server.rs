//! A server of a test's own, for what would disturb the others: standbys, settings, restarts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::cluster::Cluster;
use super::server_programs::give;

/// Stopped when dropped.
pub(crate) struct OwnServer {
    cluster: Cluster,
    dir: tempfile::TempDir,
}

impl OwnServer {
    /// Makes and starts one with these further settings, each as `name=value`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        give(dir.path());
        let data = dir.path().join("data");
        Cluster::create(&data, "postgres");
        let settings = [&["listen_addresses=", "shared_buffers=8MB"], settings].concat();
        let cluster = Cluster::start(&data, dir.path(), &settings);
        Self { cluster: cluster.unwrap_or_else(|log| panic!("{log}")), dir }
    }

    /// Returns the URL of a database on it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgresql:///{database}?host={}&user=postgres", self.dir.path().display())
    }

    /// Restarts it as a hot standby, which has no primary and so never gets on.
    pub(crate) fn becomes_a_standby(&self) {
        self.cluster.stop("fast");
        fs::write(self.data().join("standby.signal"), "").unwrap();
        self.resume();
    }

    /// Keeps a copy of everything as it is now.
    pub(crate) fn keeps(&self) {
        self.cluster.stop("fast");
        self.copy("data", "kept");
        self.resume();
    }

    /// Goes back to what was kept, as when a standby takes over that had not got everything.
    pub(crate) fn goes_back(&self) {
        self.cluster.stop("immediate");
        fs::remove_dir_all(self.data()).unwrap();
        self.copy("kept", "data");
        self.resume();
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn resume(&self) {
        assert!(self.cluster.resume(), "{}", self.cluster.log());
    }

    fn copy(&self, from: &str, to: &str) {
        let status =
            Command::new("cp").current_dir(self.dir.path()).args(["-a", from, to]).status();
        assert!(status.unwrap().success());
    }
}
