//! Why a set of connection words does not name a server.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why connection words were refused before any connection was tried.
///
/// No variant ever holds a password, and none holds a piece of a URL or of a `key=value`
/// text that may be part of one: texts are only quoted when they cannot be a secret.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnInfoError {
    /// The text is neither a URL nor `key=value` words.
    NotConnectionText,
    /// The text is a URL for another kind of server, or names a driver of another language.
    ForeignScheme {
        /// What stood before `://`.
        scheme: String,
    },
    /// An `@` or `/` inside a URL's user name or password moves the rest into the host.
    UnescapedSecret,
    /// A `%` in a URL is not followed by two hexadecimal digits, or is `%00`, or does not give UTF-8.
    PercentEncoding {
        /// Which part of the URL: `user`, `password`, `host`, ...
        part: &'static str,
    },
    /// The URL is malformed in a way that the sentence names.
    UrlSyntax(&'static str),
    /// The port in a URL is not a number from 1 to 65535; never quoted, it may be a password.
    UrlPort,
    /// The `key=value` text is malformed near a character, counted from 1.
    KeyValueSyntax {
        /// What is wrong.
        what: &'static str,
        /// Where, in characters from the start.
        position: usize,
    },
    /// A word that libpq does not know either.
    UnknownWord {
        /// The word as written.
        word: String,
        /// The known word nearest to it.
        nearest: Option<&'static str>,
    },
    /// An unknown word right behind the password: probably the password's own second half.
    UnquotedPassword,
    /// A known word with a value outside its range.
    InvalidValue {
        /// The word.
        word: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: &'static str,
        /// Where the value came from.
        origin: String,
    },
    /// A word that means something pricesync cannot promise, so it is not silently dropped.
    Unsupported {
        /// The word.
        word: &'static str,
        /// Why, as a sentence without a final period.
        why: &'static str,
        /// Where the value came from.
        origin: String,
    },
    /// Lists of hosts, addresses or ports of different lengths.
    ListLengths {
        /// The word whose list is too short or too long.
        word: &'static str,
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
        /// What is wrong.
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
    /// Nothing names a user and the operating system knows no name for this process's user.
    NoUser,
    /// `sslrootcert=system` together with a mode that would not check the certificate.
    WeakSystemRoot {
        /// The mode that was asked for.
        sslmode: &'static str,
    },
    /// `sslnegotiation=direct` together with a mode that could fall back to plaintext.
    WeakDirectNegotiation {
        /// The mode that was asked for.
        sslmode: &'static str,
    },
    /// `sslmode=verify-full` with an address and no name to compare with the certificate.
    NoNameToVerify,
}

impl ConnInfoError {
    /// Returns what to do about it, where the error itself does not say.
    #[must_use]
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
                "quote values that hold spaces: password='two words'; inside, write \\' and \\\\"
                    .to_owned()
            }
            Self::UnknownWord {
                nearest: Some(nearest),
                ..
            } => format!("did you mean '{nearest}'?"),
            Self::UnknownService { .. } => {
                "define it in ~/.pg_service.conf or point PGSERVICEFILE at the file".to_owned()
            }
            Self::NoUser => "name one: user=..., PGUSER, or postgresql://user@...".to_owned(),
            Self::WeakSystemRoot { .. } => {
                "use sslmode=verify-full, or leave sslmode out".to_owned()
            }
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
                "the connection text is neither a postgresql:// URL nor key=value words",
            ),
            Self::ForeignScheme { scheme } => {
                write!(f, "'{scheme}://' is not a URL for PostgreSQL")
            }
            Self::UnescapedSecret => {
                f.write_str("the URL's user name or password holds an unescaped '@' or '/'")
            }
            Self::PercentEncoding { part } => {
                write!(f, "the URL's {part} is not valid percent-encoding")
            }
            Self::UrlSyntax(what) => write!(f, "the URL is malformed: {what}"),
            Self::UrlPort => f.write_str("the URL's port is not a number from 1 to 65535"),
            Self::KeyValueSyntax { what, position } => {
                write!(
                    f,
                    "the connection words are malformed: {what} (character {position})"
                )
            }
            Self::UnknownWord { word, .. } => {
                write!(f, "unknown connection word '{}'", word.escape_debug())
            }
            Self::UnquotedPassword => {
                f.write_str("an unknown word follows the password in the connection words")
            }
            Self::InvalidValue {
                word,
                value,
                expected,
                origin,
            } => write!(
                f,
                "{word} '{}' ({origin}) is not valid: expected {expected}",
                value.escape_debug()
            ),
            Self::Unsupported { word, why, origin } => {
                write!(f, "{word} ({origin}) cannot be honoured: {why}")
            }
            Self::ListLengths { word, found, hosts } => write!(
                f,
                "{word} lists {found} {}, but there {} {hosts} {}",
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
                f.write_str("no database user is named and this process's user has no name")
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
