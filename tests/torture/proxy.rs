//! Stands between the program and the server, counts what the program says, and hangs up at one of its messages.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The name of a server's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// What happens at a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never gets it.
    Before,
    /// The server gets it, the program nothing of the answer.
    After,
    /// The program gets the first bytes of the answer.
    Within,
    /// As `Before`, on all connections at once.
    All,
}

impl Cut {
    /// The kinds that are tried at every message.
    pub(crate) const EVERYWHERE: [Self; 4] = [Self::Before, Self::After, Self::Within, Self::All];
}

/// A listening proxy; what it carries ends when it is dropped.
pub(crate) struct Proxy {
    folder: tempfile::TempDir,
    line: Arc<Line>,
}

/// What all connections share.
struct Line {
    upstream: PathBuf,
    cut: Option<(usize, Cut)>,
    said: AtomicUsize,
    fired: AtomicBool,
    closed: AtomicBool,
    streams: Mutex<Vec<UnixStream>>,
}

/// How far the answers on one connection have come. A session's start and each query end in one `ReadyForQuery`.
#[derive(Default)]
struct Answers {
    ready: usize,
    /// Hang up after so many `ReadyForQuery` and so many bytes more.
    limit: Option<(usize, usize)>,
}

impl Proxy {
    /// Listens in a folder of its own for the server behind the socket in `upstream`; at the message with
    /// this number, counted from 1 over all connections, it cuts.
    pub(crate) fn start(upstream: &Path, cut: Option<(usize, Cut)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let line = Arc::new(Line {
            upstream: upstream.join(SOCKET),
            cut,
            said: AtomicUsize::new(0),
            fired: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let accepting = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), false) = (client, accepting.closed.load(Ordering::SeqCst)) else {
                    return;
                };
                accepting.carry(client);
            }
        });
        Self { folder, line }
    }

    /// Returns the folder to connect through.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns how many messages came so far.
    pub(crate) fn said(&self) -> usize {
        self.line.said.load(Ordering::SeqCst)
    }

    /// Returns whether the message of the cut came.
    pub(crate) fn has_cut(&self) -> bool {
        self.line.fired.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.closed.store(true, Ordering::SeqCst);
        self.line.hang_up();
        // The listening thread looks at `closed` when a client connects.
        let _ = UnixStream::connect(self.folder.path().join(SOCKET));
    }
}

impl Line {
    fn hang_up(&self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.drain(..) {
            close(&stream);
        }
    }

    fn carry(self: &Arc<Self>, client: UnixStream) {
        // A server that is down hangs up here too.
        let Ok(server) = UnixStream::connect(&self.upstream) else {
            return;
        };
        let answers = Arc::new(Mutex::new(Answers::default()));
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        drop(streams);
        let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let told = Arc::clone(&answers);
        thread::spawn(move || {
            let _ = carry_answers(&ends.1, &ends.0, &told);
            close(&ends.0);
            close(&ends.1);
        });
        let line = Arc::clone(self);
        thread::spawn(move || {
            if line.questions(&client, &server, &answers).is_err() {
                close(&client);
                close(&server);
            }
        });
    }

    /// Carries the program's messages; an error ends the connection, `Ok` leaves that to the answers.
    fn questions(
        &self,
        client: &UnixStream,
        mut server: &UnixStream,
        answers: &Mutex<Answers>,
    ) -> io::Result<()> {
        let mut reader = BufReader::new(client);
        let mut asked = 0;
        loop {
            let message = message(&mut reader, asked > 0)?;
            let number = self.said.fetch_add(1, Ordering::SeqCst) + 1;
            let is_answered = asked == 0 || matches!(message[0], b'Q' | b'S');
            if let Some((at, cut)) = self.cut
                && at == number
            {
                self.fired.store(true, Ordering::SeqCst);
                match cut {
                    Cut::All => {
                        self.hang_up();
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                    Cut::Before | Cut::After | Cut::Within => {
                        let extra = if cut == Cut::Within { 3 + number % 9 } else { 0 };
                        // Held while it is sent, so that no answer passes before the limit is set.
                        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                        answers.limit = Some((asked, extra));
                        if cut != Cut::Before {
                            server.write_all(&message)?;
                        }
                        // A COPY from the program was answered before its `Sync` came.
                        let is_over = answers.ready > asked || extra == 0 && answers.ready >= asked;
                        if is_over || !is_answered {
                            return Err(io::ErrorKind::ConnectionAborted.into());
                        }
                        return Ok(());
                    }
                }
            }
            server.write_all(&message)?;
            asked += usize::from(is_answered);
        }
    }
}

/// Carries the server's messages until it hangs up or the limit is reached.
fn carry_answers(
    server: &UnixStream,
    mut client: &UnixStream,
    answers: &Mutex<Answers>,
) -> io::Result<()> {
    let mut reader = BufReader::new(server);
    loop {
        let message = message(&mut reader, true)?;
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((ready, extra)) = answers.limit
            && answers.ready >= ready
        {
            return client.write_all(&message[..extra.min(message.len())]);
        }
        client.write_all(&message)?;
        // Behind the beginning of a COPY from the program the server ignores the `Sync` that came with it.
        answers.ready += usize::from(matches!(message[0], b'Z' | b'G'));
        if answers.limit == Some((answers.ready, 0)) {
            return Ok(());
        }
    }
}

fn close(stream: &UnixStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Reads one message whole; only the first one of a session has no type in front of its length.
fn message(reader: &mut impl Read, has_type: bool) -> io::Result<Vec<u8>> {
    let head = if has_type { 5 } else { 4 };
    let mut message = vec![0; head];
    reader.read_exact(&mut message)?;
    let length =
        message[head - 4..].iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    message.resize(head - 4 + length, 0);
    reader.read_exact(&mut message[head..])?;
    Ok(message)
}
