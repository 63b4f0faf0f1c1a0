//! Errors of connection parameters.

use std::io;
use std::path::PathBuf;

/// Why connection parameters were rejected before connecting.
///
/// No variant holds a password, or a part of a connection string that may be part of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnInfoError {
    /// The string is neither a URL nor `key=value` pairs.
    #[error("the connection string is neither a postgresql:// URL nor key=value pairs")]
    NotConnectionText,
    /// The string is a URL for another kind of server, or for a driver of another language.
    #[error("'{scheme}://' is not a URL for PostgreSQL")]
    ForeignScheme {
        /// The part before `://`.
        scheme: String,
    },
    /// An `@` or `/` inside a URL's user name or password moves the rest into the host.
    #[error("the URL's user name or password contains an unescaped '@' or '/'")]
    UnescapedSecret,
    /// A `%` in a URL is not followed by two hexadecimal digits, or is `%00`, or does not give UTF-8.
    #[error("the URL's {part} is not valid percent-encoding")]
    PercentEncoding {
        /// Which part of the URL: `user`, `password`, `host`, ...
        part: &'static str,
    },
    /// The URL is malformed; holds the reason.
    #[error("the URL is malformed: {0}")]
    UrlSyntax(&'static str),
    /// The port in a URL is not a number from 1 to 65535; not quoted, because it may be a password.
    #[error("the URL's port is not a number from 1 to 65535")]
    UrlPort,
    /// The `key=value` string is malformed.
    #[error("the connection string is malformed: {what} (character {position})")]
    KeyValueSyntax {
        /// The reason.
        what: &'static str,
        /// The position in characters, from 1.
        position: usize,
    },
    /// A parameter that libpq does not have.
    #[error("unknown connection parameter '{}'", parameter.escape_debug())]
    UnknownParameter {
        /// The name as written.
        parameter: String,
        /// The most similar parameter.
        nearest: Option<&'static str>,
    },
    /// An unknown parameter right after the password: probably the second half of the password.
    #[error("an unknown parameter follows the password in the connection string")]
    UnquotedPassword,
    /// A parameter with a value outside its range.
    #[error("{parameter} '{}' ({origin}) is not valid: expected {expected}", value.escape_debug())]
    InvalidValue {
        /// The parameter.
        parameter: &'static str,
        /// Its value.
        value: String,
        /// The accepted values.
        expected: &'static str,
        /// Where the value came from.
        origin: String,
    },
    /// A parameter that is not supported and cannot be ignored safely.
    #[error("cannot use {parameter} ({origin}): {why}")]
    Unsupported {
        /// The parameter.
        parameter: &'static str,
        /// The reason, without a full stop.
        why: &'static str,
        /// Where the value came from.
        origin: String,
    },
    /// Lists of hosts, addresses or ports of different lengths.
    #[error(
        "{parameter} lists {found} {}, but there {} {hosts} {}",
        plural(*found, "value", "values"),
        plural(*hosts, "is", "are"),
        plural(*hosts, "host", "hosts")
    )]
    ListLengths {
        /// The parameter whose list is too short or too long.
        parameter: &'static str,
        /// Its length.
        found: usize,
        /// The number of hosts.
        hosts: usize,
    },
    /// No service file defines the service.
    #[error("service '{}' is not defined{}", service.escape_debug(), places(read))]
    UnknownService {
        /// The service's name.
        service: String,
        /// The files that were read.
        read: Vec<PathBuf>,
    },
    /// A service file has a line that cannot be used. The line itself is not quoted.
    #[error("{path}:{line}: {what}")]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        what: &'static str,
    },
    /// A service file could not be read.
    #[error("service file {path} cannot be read")]
    UnreadableServiceFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        error: io::Error,
    },
    /// An environment variable is not UTF-8.
    #[error("{variable} is not valid UTF-8")]
    NotUtf8 {
        /// The variable.
        variable: &'static str,
    },
    /// No user is set, and the operating system has no name for this process's user.
    #[error("no database user is set, and this process's user has no name")]
    NoUser,
    /// `sslrootcert=system` together with a mode that does not verify the host name.
    #[error("sslmode={sslmode} is too weak for sslrootcert=system")]
    WeakSystemRoot {
        /// The mode.
        sslmode: &'static str,
    },
    /// `sslnegotiation=direct` together with a mode that could fall back to plaintext.
    #[error("sslmode={sslmode} is too weak for sslnegotiation=direct")]
    WeakDirectNegotiation {
        /// The mode.
        sslmode: &'static str,
    },
    /// `sslmode=verify-full` with an address, and no host name to compare with the certificate.
    #[error("sslmode=verify-full needs a host name, and only hostaddr is given")]
    NoNameToVerify,
}

impl ConnInfoError {
    /// Returns a hint, where the message does not contain one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotConnectionText => {
                "write postgresql://user@host:5432/database or 'host=... user=... dbname=...'"
                    .to_owned()
            }
            Self::ForeignScheme { scheme } => match scheme.split_once('+') {
                Some((_, driver)) => {
                    format!("drop the driver's name '+{driver}': postgresql://...")
                }
                None => "the URL starts with postgresql:// or postgres://".to_owned(),
            },
            Self::UnescapedSecret => "percent-encode the password: '@' is %40, '/' is %2F, \
                 ':' is %3A, '%' is %25; or take it out of the URL and use PGPASSWORD or ~/.pgpass"
                .to_owned(),
            Self::PercentEncoding { .. } => "a '%' itself is written %25".to_owned(),
            Self::UrlPort => "if that is part of a password, percent-encode it ('@' is %40, \
                 '/' is %2F, ':' is %3A) and end it with '@host'"
                .to_owned(),
            Self::KeyValueSyntax { .. } | Self::UnquotedPassword => {
                "quote values that contain spaces: password='two words'; inside, write \\' and \\\\"
                    .to_owned()
            }
            Self::UnknownParameter { nearest: Some(nearest), .. } => {
                format!("did you mean '{nearest}'?")
            }
            Self::UnknownService { .. } => {
                "define it in ~/.pg_service.conf or point PGSERVICEFILE at the file".to_owned()
            }
            Self::NoUser => "set one: user=..., PGUSER, or postgresql://user@...".to_owned(),
            Self::WeakSystemRoot { .. } => "use sslmode=verify-full, or omit sslmode".to_owned(),
            Self::WeakDirectNegotiation { .. } => {
                "use sslmode=require, verify-ca or verify-full".to_owned()
            }
            Self::NoNameToVerify => {
                "add host=<the name in the certificate> beside hostaddr".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }
}

const fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// Returns ` in <file> or <file>`, or nothing without a file.
fn places(files: &[PathBuf]) -> String {
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    if files.is_empty() { String::new() } else { format!(" in {}", files.join(" or ")) }
}
