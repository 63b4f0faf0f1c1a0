//! Readiness of the server, asked by the frontend protocol.
//!
//! The driver belongs to `postgres/`; the few messages needed here are in manual sections 55.2 and
//! 55.7.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{LocalError, USER};
use crate::domain::sqlstate;

/// How long one reply may take; `CREATE DATABASE` copies a few megabytes.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// No message at the start of a session is longer.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Version 3.0 of the protocol, which every supported server speaks.
const PROTOCOL: i32 = 196_608;

/// The server's reply to a connection to a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// No process listens, or it closes the connection.
    Silent,
    /// The server starts up or shuts down.
    NotYet,
    /// The database can be used.
    Ready,
    /// The server serves, but does not have this database.
    NoDatabase,
    /// Anything else; holds SQLSTATE and message.
    Refused {
        /// The SQLSTATE, five characters.
        code: String,
        /// The server's message.
        message: String,
    },
}

impl Readiness {
    fn to_error(code: String, message: String) -> Self {
        match code.as_str() {
            sqlstate::CANNOT_CONNECT_NOW => Self::NotYet,
            sqlstate::INVALID_CATALOG_NAME => Self::NoDatabase,
            // All connections are in use: crowded, but serving.
            sqlstate::TOO_MANY_CONNECTIONS => Self::Ready,
            _ => Self::Refused { code, message },
        }
    }
}

/// Asks the server at this socket for a session in this database, and leaves again.
pub(super) fn ask(socket: &Path, database: &str) -> Readiness {
    match Session::open(socket, database) {
        Ok(mut session) => {
            session.leave();
            Readiness::Ready
        }
        Err(Trouble::Server { code, message }) => Readiness::to_error(code, message),
        Err(Trouble::Stream) => Readiness::Silent,
    }
}

/// Creates a database; one that exists already is as good.
pub(super) fn create_database(socket: &Path, name: &str) -> Result<(), LocalError> {
    // template0, because a session may be connected to template1.
    let sql = format!("CREATE DATABASE \"{name}\" TEMPLATE template0");
    let result = Session::open(socket, USER).and_then(|mut session| {
        session.run(&sql)?;
        session.leave();
        Ok(())
    });
    match result {
        Err(Trouble::Server { code, message }) if code != sqlstate::DUPLICATE_DATABASE => {
            Err(LocalError::Refused { code, message })
        }
        // A connection that broke is asked about again by the caller.
        _ => Ok(()),
    }
}

enum Trouble {
    Server { code: String, message: String },
    Stream,
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Stream
    }
}

struct Session(BufReader<UnixStream>);

impl Session {
    fn open(socket: &Path, database: &str) -> Result<Self, Trouble> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        let mut session = Self(BufReader::new(stream));
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", USER, "database", database, ""] {
            body.extend(text.as_bytes());
            body.push(0);
        }
        session.send(None, &body)?;
        session.until_ready()?;
        Ok(session)
    }

    fn run(&mut self, sql: &str) -> Result<(), Trouble> {
        self.send(Some(b'Q'), format!("{sql}\0").as_bytes())?;
        self.until_ready()
    }

    fn leave(&mut self) {
        // Only politeness: the log shall not speak of a lost connection.
        let _ = self.send(Some(b'X'), &[]);
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> io::Result<()> {
        let length = i32::try_from(body.len() + 4).map_err(io::Error::other)?;
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend(length.to_be_bytes());
        message.extend(body);
        self.0.get_mut().write_all(&message)
    }

    fn until_ready(&mut self) -> Result<(), Trouble> {
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let length = length.checked_sub(4).filter(|n| *n <= MAX_MESSAGE_BYTES);
            let mut body = vec![0; length.ok_or(Trouble::Stream)?];
            self.0.read_exact(&mut body)?;
            match head[0] {
                b'Z' => return Ok(()),
                b'E' => return Err(server_error(&body)),
                // Anything but "no password needed" is not a server of ours.
                b'R' if body != [0; 4] => return Err(Trouble::Stream),
                _ => {}
            }
        }
    }
}

fn server_error(body: &[u8]) -> Trouble {
    let field = |kind: u8| {
        body.split(|byte| *byte == 0)
            .find_map(|field| field.strip_prefix(&[kind]))
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    };
    Trouble::Server { code: field(b'C'), message: field(b'M') }
}

#[cfg(test)]
mod tests {
    use super::{Readiness, ask};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn answer_to(reply: &'static [u8]) -> Readiness {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut startup = [0; 8];
            stream.read_exact(&mut startup).unwrap();
            stream.write_all(reply).unwrap();
        });
        let answer = ask(&socket, "pricesync");
        server.join().unwrap();
        answer
    }

    #[test]
    fn a_session_that_opens_is_ready() {
        let reply = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0Z\0\0\0\x05I";
        assert_eq!(answer_to(reply), Readiness::Ready);
    }

    #[test]
    fn a_server_that_starts_up_is_not_yet_ready() {
        let reply = b"E\0\0\0\x18SFATAL\0C57P03\0Mwait\0\0";
        assert_eq!(answer_to(reply), Readiness::NotYet);
    }

    #[test]
    fn a_missing_database_differs_from_other_refusals() {
        let reply = b"E\0\0\0\x16SFATAL\0C3D000\0Mno\0\0";
        assert_eq!(answer_to(reply), Readiness::NoDatabase);
        let reply = b"E\0\0\0\x16SFATAL\0C28000\0Mno\0\0";
        assert!(matches!(answer_to(reply), Readiness::Refused { code, .. } if code == "28000"));
    }

    #[test]
    fn a_missing_socket_and_a_hang_up_are_silence() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(&dir.path().join("s"), "pricesync"), Readiness::Silent);
        assert_eq!(answer_to(b"R\0\0"), Readiness::Silent);
        assert_eq!(answer_to(b"R\0\0\0\x08\0\0\0\x03"), Readiness::Silent);
    }
}
