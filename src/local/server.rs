//! Starting the local server, or joining the one that runs.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::POLL_INTERVAL;
use super::binaries::Binaries;
use super::data_dir::ServerDir;
use super::lock::FileLock;
use super::postmaster::Postmaster;
use super::readiness::{Readiness, ask, create_database};
use super::supervisor_args::SupervisorArgs;
use super::{DATABASE, DEFAULT_PORT, LocalError, LocalOptions, USER, cluster, log};

/// How long a server may take until it answers; after a crash it first repairs its data.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// How often a server that ends at once is started again. A second try helps when the last
/// server of this data was just being killed.
const LAUNCHES: u32 = 3;

/// A running server with the database `pricesync`, and the promise that it stays.
///
/// The server is not stopped while a value of this type lives, in any process. It is stopped
/// some time after the last one is gone, see [`LocalOptions::idle`].
#[must_use = "the server may stop as soon as this is dropped"]
#[derive(Debug)]
pub struct LocalServer {
    data_dir: PathBuf,
    socket_dir: PathBuf,
    port: u16,
    _user: FileLock,
}

impl LocalServer {
    /// Starts the server, or joins the one that runs; creates it when there is none.
    ///
    /// Any number of threads and processes may do this at once: one starts, the others wait and
    /// join. Blocks for about a second the first time, and at most for some minutes.
    pub fn start(options: &LocalOptions) -> Result<Self, LocalError> {
        let home = ServerDir::locate(options)?;
        let starting = home.create()?;
        if !home.has_data() {
            cluster::create(&home, &binaries(&home)?, &starting)?;
        }
        let running = bring_up(&home, options)?;
        let tcp_port = running.has_tcp.then_some(running.port);
        match options.port {
            Some(wanted) if tcp_port != Some(wanted) => {
                return Err(LocalError::OtherPort { wanted, running: tcp_port });
            }
            _ => {}
        }
        // Before the start lock is released: the supervisor stops no server while it is held.
        let user = FileLock::shared(&home.users())?;
        Ok(Self {
            data_dir: home.root().to_owned(),
            socket_dir: home.socket_dir(running.port),
            port: running.port,
            _user: user,
        })
    }

    /// Returns where the server's files are. This is not where they were asked for when root
    /// runs pricesync and the server's user cannot reach that place.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Returns the directory of the Unix socket, which only the server's user may enter.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Returns the port. Without [`LocalOptions::port`] it is 5432, and no more than a part of
    /// the socket's file name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the superuser's name; it has no password.
    pub fn user(&self) -> &str {
        USER
    }

    /// Returns the database's name.
    pub fn database(&self) -> &str {
        DATABASE
    }

    /// Returns a connection URL that libpq's programs understand as well.
    pub fn url(&self) -> String {
        url(&self.socket_dir, self.port)
    }
}

/// Returns the URL of the database behind a socket.
pub(super) fn url(socket_dir: &Path, port: u16) -> String {
    let mut url = format!("postgresql:///{DATABASE}?host=");
    for byte in socket_dir.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            write!(url, "%{byte:02X}").expect("a String takes any text");
        }
    }
    if port != DEFAULT_PORT {
        write!(url, "&port={port}").expect("a String takes any text");
    }
    write!(url, "&user={USER}").expect("a String takes any text");
    url
}

fn binaries(home: &ServerDir) -> Result<Binaries, LocalError> {
    Binaries::find(&home.data(), cluster::major(home))
}

/// Returns when the server accepts connections, the database exists and a supervisor runs.
///
/// Checks everything again after every step, because the server may end at any time.
fn bring_up(home: &ServerDir, options: &LocalOptions) -> Result<Postmaster, LocalError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut launches = 0;
    loop {
        let running = home.postmaster();
        let answer = running
            .as_ref()
            .map_or(Readiness::Silent, |running| ask(&home.socket(running.port), DATABASE));
        if let Some(watching) = FileLock::try_exclusive(&home.supervisor())? {
            let is_unused = FileLock::is_free(&home.serving())?;
            if is_unused && launches == LAUNCHES {
                return Err(did_not_start(home));
            }
            if is_unused {
                launches += 1;
                prepare(home, options)?.spawn(home, options, &watching)?;
            } else if answer != Readiness::Silent {
                SupervisorArgs::watch(home, options).spawn(home, options, &watching)?;
            }
        }
        match (answer, running) {
            (Readiness::Ready, Some(running)) => return Ok(running),
            (Readiness::NoDatabase, Some(running)) => {
                create_database(&home.socket(running.port), DATABASE)?;
            }
            (Readiness::Refused { code, message }, _) => {
                return Err(LocalError::Refused { code, message });
            }
            _ => thread::sleep(POLL_INTERVAL),
        }
        if Instant::now() > deadline {
            return Err(did_not_start(home));
        }
    }
}

fn prepare(home: &ServerDir, options: &LocalOptions) -> Result<SupervisorArgs, LocalError> {
    let port = options.port.unwrap_or(DEFAULT_PORT);
    let binaries = binaries(home)?;
    home.make_socket_dir(port)?;
    cluster::clear_stale_files(home, port)?;
    Ok(SupervisorArgs::serve(home, options, binaries.dir))
}

fn did_not_start(home: &ServerDir) -> LocalError {
    LocalError::DidNotStart { log: home.log(), tail: log::tail(&home.log()) }
}

#[cfg(test)]
mod tests {
    use super::url;
    use std::path::Path;

    #[test]
    fn the_url_keeps_strange_paths_and_names_an_unusual_port() {
        assert_eq!(
            url(Path::new("/p/run"), 5432),
            "postgresql:///pricesync?host=/p/run&user=postgres"
        );
        assert_eq!(
            url(Path::new("/a b&c/ộ"), 6000),
            "postgresql:///pricesync?host=/a%20b%26c/%E1%BB%99&port=6000&user=postgres"
        );
    }
}
