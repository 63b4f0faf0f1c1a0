//! A PgBouncer in front of the tests' server.

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::eventually::eventually;
use super::pricesync::Given;
use super::server;

/// Runs until it is dropped.
pub(crate) struct Pooler {
    process: Child,
    dir: tempfile::TempDir,
}

impl Pooler {
    /// Starts one with this many server connections for each database; nothing where there is no
    /// PgBouncer, which is an error in CI.
    pub(crate) fn start(mode: &str, size: usize) -> Option<Self> {
        if let Err(error) = Command::new("pgbouncer").arg("--version").output() {
            assert!(env::var_os("CI").is_none(), "pgbouncer: {error}");
            // Straight to the terminal: a test's own output is shown only when it fails.
            let _ = writeln!(std::io::stderr(), "skipped: pgbouncer is not installed");
            return None;
        }
        let url = server::url();
        let socket = url.split("host=").nth(1).expect("the server has a socket");
        let socket = socket.split('&').next().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let config = dir.path().join("pgbouncer.ini");
        let here = dir.path().display();
        fs::write(
            &config,
            format!(
                "[databases]\n* = host={socket} port=5432 user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
                 unix_socket_dir = {here}\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n\
                 query_wait_timeout = 600\n"
            ),
        )
        .unwrap();
        let mut command = Command::new("pgbouncer");
        command.arg(&config).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            // PgBouncer refuses to run as root; the server's user may enter the server's socket.
            let owner = fs::metadata(socket).unwrap();
            chown(dir.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
            command.uid(owner.uid()).gid(owner.gid());
        }
        let process = command.spawn().unwrap();
        let pooler = Self { process, dir };
        eventually("PgBouncer listens", || pooler.dir.path().join(".s.PGSQL.6432").exists());
        Some(pooler)
    }

    /// Returns the URL of a test's database behind it.
    pub(crate) fn url(&self, given: &Given) -> String {
        format!(
            "postgresql:///{}?host={}&port=6432&user=postgres",
            given.value("SELECT current_database()"),
            self.dir.path().display()
        )
    }

    /// Returns whether it has not crashed.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
