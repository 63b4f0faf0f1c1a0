//! Why an operation on the local server failed.

use std::io;
use std::path::{Path, PathBuf};

/// Why a local server could not be found, started, stopped or deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// No server programs on this machine; holds the places that were searched.
    #[error(
        "no PostgreSQL server programs (initdb, postgres) on this machine; searched {}. Install them \
         with \"apt-get install postgresql\" or \"brew install postgresql\", or set \
         PRICESYNC_PG_BIN to the directory that has them",
        .0.join(", ")
    )]
    NoBinaries(Vec<String>),
    /// `PRICESYNC_PG_BIN` names a directory without usable server programs.
    #[error("PRICESYNC_PG_BIN is \"{dir}\", but {why}")]
    NotBinaries {
        /// The value of the variable.
        dir: PathBuf,
        /// The reason.
        why: String,
    },
    /// The data needs another major version than the machine has.
    #[error(
        "the data in \"{data}\" was written by PostgreSQL {wanted}, this machine has {}; \
         install {wanted} (\"apt-get install postgresql-{wanted}\" or \
         \"brew install postgresql@{wanted}\"), set PRICESYNC_PG_BIN, or destroy the \
         local server to start again from nothing",
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    OtherMajor {
        /// The existing data.
        data: PathBuf,
        /// The major version that wrote it.
        wanted: u32,
        /// The major versions that were found.
        found: Vec<u32>,
    },
    /// A file operation failed.
    #[error("could not {action} \"{path}\": {source}")]
    File {
        /// What was attempted, as in "could not …".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The directory belongs to another user of this machine.
    #[error(
        "\"{path}\" belongs to another user (uid {owner}); run pricesync as that user, or use \
         another directory"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// The directory holds files that are not a local server's.
    #[error(
        "\"{0}\" has files that are not a local server's; use an empty or a new directory, or \
         delete it if it is what is left of one"
    )]
    NotEmpty(PathBuf),
    /// pricesync runs as root, which the server refuses, and neither `postgres` nor `nobody` exists.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has neither a user \"postgres\" nor \
         a user \"nobody\" to run it as"
    )]
    NoAccount,
    /// A program could not be run, or not as the user it must run as.
    #[error("could not run \"{program}\" as the user with uid {uid}: {source}")]
    Program {
        /// The program.
        program: PathBuf,
        /// The user id it was to run as.
        uid: u32,
        /// The operating system's error.
        source: io::Error,
    },
    /// `initdb` failed; holds what it printed.
    #[error("initdb failed: {}", .0.trim_end())]
    Initdb(String),
    /// The server did not start in time.
    #[error("the local server did not start; \"{log}\" ends with:\n{}", tail.trim_end())]
    DidNotStart {
        /// The server's log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server answered, but refused; holds its SQLSTATE and message.
    #[error("the local server refused: {message} ({code})")]
    Refused {
        /// The SQLSTATE, five characters.
        code: String,
        /// The server's message.
        message: String,
    },
    /// The server runs on another port than the one asked for.
    #[error(
        "cannot use port {wanted}: the local server already runs {}; stop it first",
        running.map_or_else(|| "without a port".to_owned(), |port| format!("on port {port}"))
    )]
    OtherPort {
        /// The port that was asked for.
        wanted: u16,
        /// The port that it opened, if any.
        running: Option<u16>,
    },
    /// A server that pricesync did not start uses the data.
    #[error("a server that pricesync did not start (pid {pid}) uses \"{data}\"; stop it first")]
    Foreign {
        /// Its process id.
        pid: u32,
        /// The data.
        data: PathBuf,
    },
    /// Timed out waiting for another process that starts or stops the server; holds the lock file.
    #[error(
        "another process has been starting or stopping the local server for too long (it holds \
         \"{0}\")"
    )]
    Busy(PathBuf),
    /// Processes of the server are still running after a shutdown request.
    #[error("timed out stopping the local server: some of its processes still use \"{0}\"")]
    DidNotStop(PathBuf),
    /// The supervisor's arguments are not the ones that pricesync passes.
    #[error("invalid arguments of the internal supervisor command: {0}")]
    InvalidArgs(String),
}

impl LocalError {
    /// Returns a function that wraps an I/O error with the action and the file.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}
