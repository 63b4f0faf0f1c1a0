//! Errors of connection parameters.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why connection parameters were rejected before connecting.
///
/// No variant holds a password, or a part of a connection string that may be part of one.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnInfoError {
    /// The string is neither a URL nor `key=value` pairs.
    NotConnectionText,
    /// The string is a URL for another kind of server, or for a driver of another language.
    ForeignScheme {
        /// The part before `://`.
        scheme: String,
    },
    /// An `@` or `/` inside a URL's user name or password moves the rest into the host.
    UnescapedSecret,
    /// A `%` in a URL is not followed by two hexadecimal digits, or is `%00`, or does not give UTF-8.
    PercentEncoding {
        /// Which part of the URL: `user`, `password`, `host`, ...
        part: &'static str,
    },
    /// The URL is malformed; holds the reason.
    UrlSyntax(&'static str),
    /// The port in a URL is not a number from 1 to 65535; not quoted, because it may be a password.
    UrlPort,
    /// The `key=value` string is malformed.
    KeyValueSyntax {
        /// The reason.
        what: &'static str,
        /// The position in characters, from 1.
        position: usize,
    },
    /// A parameter that libpq does not have.
    UnknownParameter {
        /// The name as written.
        parameter: String,
        /// The most similar parameter.
        nearest: Option<&'static str>,
    },
    /// An unknown parameter right after the password: probably the second half of the password.
    UnquotedPassword,
    /// A parameter with a value outside its range.
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
    Unsupported {
        /// The parameter.
        parameter: &'static str,
        /// The reason, without a full stop.
        why: &'static str,
        /// Where the value came from.
        origin: String,
    },
    /// Lists of hosts, addresses or ports of different lengths.
    ListLengths {
        /// The parameter whose list is too short or too long.
        parameter: &'static str,
        /// Its length.
        found: usize,
        /// The number of hosts.
        hosts: usize,
    },
    /// No service file defines the service.
    UnknownService {
        /// The service's name.
        service: String,
        /// The files that were read.
        read: Vec<PathBuf>,
    },
    /// A service file has a line that cannot be used. The line itself is not quoted.
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        what: &'static str,
    },
    /// A service file could not be read.
    UnreadableServiceFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// An environment variable is not UTF-8.
    NotUtf8 {
        /// The variable.
        variable: &'static str,
    },
    /// No user is set, and the operating system has no name for this process's user.
    NoUser,
    /// `sslrootcert=system` together with a mode that does not verify the host name.
    WeakSystemRoot {
        /// The mode.
        sslmode: &'static str,
    },
    /// `sslnegotiation=direct` together with a mode that could fall back to plaintext.
    WeakDirectNegotiation {
        /// The mode.
        sslmode: &'static str,
    },
    /// `sslmode=verify-full` with an address, and no host name to compare with the certificate.
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

impl fmt::Display for ConnInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnectionText => f.write_str(
                "the connection string is neither a postgresql:// URL nor key=value pairs",
            ),
            Self::ForeignScheme { scheme } => {
                write!(f, "'{scheme}://' is not a URL for PostgreSQL")
            }
            Self::UnescapedSecret => {
                f.write_str("the URL's user name or password contains an unescaped '@' or '/'")
            }
            Self::PercentEncoding { part } => {
                write!(f, "the URL's {part} is not valid percent-encoding")
            }
            Self::UrlSyntax(what) => write!(f, "the URL is malformed: {what}"),
            Self::UrlPort => f.write_str("the URL's port is not a number from 1 to 65535"),
            Self::KeyValueSyntax { what, position } => {
                write!(f, "the connection string is malformed: {what} (character {position})")
            }
            Self::UnknownParameter { parameter, .. } => {
                write!(f, "unknown connection parameter '{}'", parameter.escape_debug())
            }
            Self::UnquotedPassword => {
                f.write_str("an unknown parameter follows the password in the connection string")
            }
            Self::InvalidValue { parameter, value, expected, origin } => write!(
                f,
                "{parameter} '{}' ({origin}) is not valid: expected {expected}",
                value.escape_debug()
            ),
            Self::Unsupported { parameter, why, origin } => {
                write!(f, "cannot use {parameter} ({origin}): {why}")
            }
            Self::ListLengths { parameter, found, hosts } => write!(
                f,
                "{parameter} lists {found} {}, but there {} {hosts} {}",
                plural(*found, "value", "values"),
                plural(*hosts, "is", "are"),
                plural(*hosts, "host", "hosts"),
            ),
            Self::UnknownService { service, read } => {
                write!(f, "service '{}' is not defined", service.escape_debug())?;
                for (index, path) in read.iter().enumerate() {
                    let lead = if index == 0 { " in " } else { " or " };
                    write!(f, "{lead}{}", path.display())?;
                }
                Ok(())
            }
            Self::ServiceFile { path, line, what } => {
                write!(f, "{}:{line}: {what}", path.display())
            }
            Self::UnreadableServiceFile { path, .. } => {
                write!(f, "service file {} cannot be read", path.display())
            }
            Self::NotUtf8 { variable } => write!(f, "{variable} is not valid UTF-8"),
            Self::NoUser => {
                f.write_str("no database user is set, and this process's user has no name")
            }
            Self::WeakSystemRoot { sslmode } => {
                write!(f, "sslmode={sslmode} is too weak for sslrootcert=system")
            }
            Self::WeakDirectNegotiation { sslmode } => {
                write!(f, "sslmode={sslmode} is too weak for sslnegotiation=direct")
            }
            Self::NoNameToVerify => {
                f.write_str("sslmode=verify-full needs a host name, and only hostaddr is given")
            }
        }
    }
}

impl std::error::Error for ConnInfoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UnreadableServiceFile { error, .. } => Some(error),
            _ => None,
        }
    }
}

const fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}
