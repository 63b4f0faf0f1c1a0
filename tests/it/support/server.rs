//! One throw-away server for all tests of a run, whether they are threads or processes.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use pricesync::local::{LocalOptions, LocalServer};
use rustix::process::geteuid;

/// Names another server to test against; its user must be allowed to create databases.
const OVERRIDE: &str = "PRICESYNC_TEST_URL";

/// Names another directory for the server, for a user who may not write in `target/`.
const DIRECTORY: &str = "PRICESYNC_TEST_DIR";

/// Long enough for the next test process to come, short enough to leave nothing behind.
const IDLE: Duration = Duration::from_secs(3);

/// Returns the URL of a database on the tests' server, starting the server if need be.
///
/// The server stays until this process ends.
pub(crate) fn url() -> String {
    static SERVER: OnceLock<LocalServer> = OnceLock::new();
    if let Some(url) = overridden() {
        return url;
    }
    SERVER
        .get_or_init(|| {
            // Root and a plain user may test in the same checkout, but cannot share a server.
            let user = format!("uid-{}", geteuid().as_raw());
            let options = options(&directory().join(user).join("postgres"), IDLE);
            LocalServer::start(&options).expect("the tests' server starts")
        })
        .url()
}

/// Returns the URL of a foreign server, if the person who runs the tests named one.
pub(crate) fn overridden() -> Option<String> {
    env::var(OVERRIDE).ok().filter(|url| !url.is_empty())
}

/// Returns options whose supervisor is the program under test, not the test program.
pub(crate) fn options(data_dir: &Path, idle: Duration) -> LocalOptions {
    LocalOptions {
        idle,
        supervisor: Some(PathBuf::from(env!("CARGO_BIN_EXE_pricesync"))),
        ..LocalOptions::new(data_dir)
    }
}

fn directory() -> PathBuf {
    env::var_os(DIRECTORY).map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
}
