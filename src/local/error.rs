//! Why an operation on the local server failed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a local server could not be found, started, stopped or deleted.
#[derive(Debug)]
#[non_exhaustive]
pub enum LocalError {
    /// No server programs on this machine; holds the places that were searched.
    NoBinaries(Vec<String>),
    /// `PRICESYNC_PG_BIN` names a directory without usable server programs.
    NotBinaries {
        /// The value of the variable.
        dir: PathBuf,
        /// The reason.
        why: String,
    },
    /// The data needs another major version than the machine has.
    OtherMajor {
        /// The existing data.
        data: PathBuf,
        /// The major version that wrote it.
        wanted: u32,
        /// The major versions that were found.
        found: Vec<u32>,
    },
    /// A file operation failed.
    File {
        /// What was attempted, as in "could not …".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The directory belongs to another user of this machine.
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// The directory holds files that are not a local server's.
    NotEmpty(PathBuf),
    /// pricesync runs as root, which the server refuses, and neither `postgres` nor `nobody` exists.
    NoAccount,
    /// A program could not be run, or not as the user it must run as.
    Program {
        /// The program.
        program: PathBuf,
        /// The user id it was to run as.
        uid: u32,
        /// The operating system's error.
        source: io::Error,
    },
    /// `initdb` failed; holds what it printed.
    Initdb(String),
    /// The server did not start in time.
    DidNotStart {
        /// The server's log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server answered, but refused; holds its SQLSTATE and message.
    Refused {
        /// The SQLSTATE, five characters.
        code: String,
        /// The server's message.
        message: String,
    },
    /// The server runs on another port than the one asked for.
    OtherPort {
        /// The port that was asked for.
        wanted: u16,
        /// The port that it opened, if any.
        running: Option<u16>,
    },
    /// A server that pricesync did not start uses the data.
    Foreign {
        /// Its process id.
        pid: u32,
        /// The data.
        data: PathBuf,
    },
    /// Timed out waiting for another process that starts or stops the server; holds the lock file.
    Busy(PathBuf),
    /// Processes of the server are still running after a shutdown request.
    DidNotStop(PathBuf),
    /// The supervisor's arguments are not the ones that pricesync passes.
    InvalidArgs(String),
}

impl LocalError {
    /// Returns a function that wraps an I/O error with the action and the file.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBinaries(places) => write!(
                f,
                "no PostgreSQL server programs (initdb, postgres) on this machine; searched {}. \
                 Install them with \"apt-get install postgresql\" or \"brew install postgresql\", \
                 or set PRICESYNC_PG_BIN to the directory that has them",
                places.join(", ")
            ),
            Self::NotBinaries { dir, why } => {
                write!(f, "PRICESYNC_PG_BIN is \"{}\", but {why}", dir.display())
            }
            Self::OtherMajor { data, wanted, found } => {
                let found: Vec<_> = found.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "the data in \"{}\" was written by PostgreSQL {wanted}, this machine has {}; \
                     install {wanted} (\"apt-get install postgresql-{wanted}\" or \
                     \"brew install postgresql@{wanted}\"), set PRICESYNC_PG_BIN, or destroy the \
                     local server to start again from nothing",
                    data.display(),
                    found.join(", ")
                )
            }
            Self::File { action, path, source } => {
                write!(f, "could not {action} \"{}\": {source}", path.display())
            }
            Self::NotOurs { path, owner } => write!(
                f,
                "\"{}\" belongs to another user (uid {owner}); run pricesync as that user, or \
                 use another directory",
                path.display()
            ),
            Self::NotEmpty(path) => write!(
                f,
                "\"{}\" has files that are not a local server's; use an empty or a new directory, \
                 or delete it if it is what is left of one",
                path.display()
            ),
            Self::NoAccount => write!(
                f,
                "PostgreSQL refuses to run as root, and this machine has neither a user \
                 \"postgres\" nor a user \"nobody\" to run it as"
            ),
            Self::Program { program, uid, source } => write!(
                f,
                "could not run \"{}\" as the user with uid {uid}: {source}",
                program.display()
            ),
            Self::Initdb(output) => write!(f, "initdb failed: {}", output.trim_end()),
            Self::DidNotStart { log, tail } => write!(
                f,
                "the local server did not start; \"{}\" ends with:\n{}",
                log.display(),
                tail.trim_end()
            ),
            Self::Refused { code, message } => {
                write!(f, "the local server refused: {message} ({code})")
            }
            Self::OtherPort { wanted, running } => {
                write!(f, "cannot use port {wanted}: the local server ")?;
                match running {
                    Some(port) => write!(f, "already runs on port {port}")?,
                    None => write!(f, "already runs without a port")?,
                }
                write!(f, "; stop it first")
            }
            Self::Foreign { pid, data } => write!(
                f,
                "a server that pricesync did not start (pid {pid}) uses \"{}\"; stop it first",
                data.display()
            ),
            Self::Busy(path) => write!(
                f,
                "another process has been starting or stopping the local server for too long \
                 (it holds \"{}\")",
                path.display()
            ),
            Self::DidNotStop(data) => write!(
                f,
                "timed out stopping the local server: some of its processes still use \"{}\"",
                data.display()
            ),
            Self::InvalidArgs(why) => {
                write!(f, "invalid arguments of the internal supervisor command: {why}")
            }
        }
    }
}

impl std::error::Error for LocalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Program { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LocalError;

    #[test]
    fn missing_programs_show_the_commands_that_install_them() {
        let text =
            LocalError::NoBinaries(vec!["PATH".into(), "/usr/pgsql-*/bin".into()]).to_string();
        assert!(text.contains("searched PATH, /usr/pgsql-*/bin"), "{text}");
        assert!(text.contains("apt-get install postgresql"), "{text}");
        assert!(text.contains("brew install postgresql"), "{text}");
        assert!(text.contains("PRICESYNC_PG_BIN"), "{text}");
    }

    #[test]
    fn a_wrong_major_names_both_versions_and_the_data() {
        let text =
            LocalError::OtherMajor { data: "/p/data".into(), wanted: 17, found: vec![15, 18] }
                .to_string();
        assert!(text.contains("\"/p/data\" was written by PostgreSQL 17"), "{text}");
        assert!(text.contains("has 15, 18"), "{text}");
        assert!(text.contains("postgresql-17"), "{text}");
    }
}
