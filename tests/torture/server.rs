//! A server of our own, to be crashed, filled and exhausted.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::query::query;
use crate::server_programs::give;

/// The superuser.
const USER: &str = "postgres";

/// A server on a unix socket, stopped and removed when dropped.
pub(crate) struct Server {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Server {
    /// Makes a cluster and serves it with these settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = tempfile::Builder::new()
            .prefix("pricesync-torture-")
            .tempdir_in(if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() })
            .unwrap();
        give(folder.path());
        let data = folder.path().join("data");
        Cluster::create(&data, USER);
        let settings = [&["listen_addresses=", "full_page_writes=off"], settings].concat();
        let cluster = Cluster::start(&data, folder.path(), &settings);
        Self { cluster: cluster.unwrap_or_else(|log| panic!("{log}")), folder }
    }

    /// Starts it after a [crash](Self::crash).
    pub(crate) fn resume(&self) {
        assert!(self.cluster.resume(), "the server starts: {}", self.log());
    }

    /// Stops it at once and without a shutdown, as a crash would.
    pub(crate) fn crash(&self) {
        self.cluster.stop("immediate");
    }

    /// Returns what it has logged.
    pub(crate) fn log(&self) -> String {
        self.cluster.log()
    }

    /// Returns the folder of its socket, which its user may write in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the URL of a database for a role.
    pub(crate) fn url_as(&self, role: &str, database: &str) -> String {
        url(self.folder(), role, database)
    }

    /// Returns the URL of a database for the superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_as(USER, database)
    }

    /// Runs statements in a database, each message a transaction of its own.
    pub(crate) fn execute(&self, database: &str, statements: &[&str]) {
        for sql in statements {
            query(&self.url(database), sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }

    /// Makes a database that is a copy of another one, which no session may be connected to.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let sql = format!("CREATE DATABASE {to} TEMPLATE {from}");
        let deadline = Instant::now() + Duration::from_mins(5);
        loop {
            match query(&self.url(USER), &sql) {
                Ok(_) => return,
                // A session that has just ended may still be seen in it.
                Err(error) => assert!(Instant::now() < deadline, "{sql}: {error:?}"),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Drops a database and ends its sessions.
    pub(crate) fn drop(&self, database: &str) {
        self.execute(USER, &[&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")]);
    }
}

/// Returns the URL of a database behind the socket in a folder.
pub(crate) fn url(folder: &Path, role: &str, database: &str) -> String {
    format!("postgres:///{database}?host={}&user={role}", folder.display())
}
