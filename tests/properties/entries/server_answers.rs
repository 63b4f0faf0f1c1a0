//! Any rows, errors and bytes as what a server answers.

use std::num::NonZeroUsize;
use std::time::Duration;

use pricesync::domain::catalog::TenantCatalog as _;
use pricesync::domain::schema_name::SchemaName;
use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::Database;
use pricesync::postgres::connection::tls;
use pricesync::postgres::report::locks;
use pricesync::postgres::tenants::catalog::PostgresCatalog;
use pricesync::postgres::transaction::history;
use pricesync::settings::CatalogLayout;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Separates the answers, each to one message of the client.
const SEPARATOR: u8 = 0x1e;

/// Panics if pricesync does when it connects to a server with these answers and reads the tenants,
/// a history and the locks.
pub fn server_answers(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("a socket");
        let client = client(folder.path().display().to_string());
        tokio::select! {
            () = client => {}
            () = serve(&listener, bytes) => {}
        }
    });
}

async fn client(host: String) {
    let url = format!("host={host} user=me dbname=shop sslmode=disable");
    let options = ConnectOptions::resolve(Some(&url), &Environment::from_pairs([("USER", "me")]))
        .expect("the string is valid");
    let tls = tls::connector(&options).expect("TLS is not used");
    let Ok(database) = Database::open(&options, tls, NonZeroUsize::MIN, Duration::ZERO).await
    else {
        return;
    };
    let schema = SchemaName::parse("acme").expect("the name is valid");
    if let Ok(session) = database.session(Duration::ZERO).await {
        let _ = history::read_all(&session, &[&schema], "refinery_schema_history").await;
        let _ = locks::held(&session).await;
    }
    let _ = PostgresCatalog::new(database, &CatalogLayout::default()).list().await;
}

/// Accepts one connection after the other and ends when the answers do.
async fn serve(listener: &UnixListener, bytes: &[u8]) {
    let mut answers = bytes.split(|&byte| byte == SEPARATOR);
    while let Ok((mut stream, _)) = listener.accept().await {
        // The startup message: no password, and the connection is ready.
        let ready = [&message(b'R', &[0; 4])[..], &message(b'Z', b"I")].concat();
        if !reply(&mut stream, &ready).await {
            continue;
        }
        loop {
            let Some(answer) = answers.next() else { return };
            // The client may wait for the rest of bytes that are no complete message.
            if !reply(&mut stream, &encode(answer)).await || answer.starts_with(b"!") {
                break;
            }
        }
    }
}

/// Waits for a message and answers it; returns whether the connection is open.
async fn reply(stream: &mut UnixStream, answer: &[u8]) -> bool {
    let mut request = vec![0; 16 << 10];
    let read = stream.read(&mut request).await.unwrap_or(0);
    read > 0 && stream.write_all(answer).await.is_ok()
}

/// Returns an answer's bytes: those behind `!`; an error with the SQLSTATE and text behind `E`;
/// otherwise rows, one a line, with values separated by tabs.
fn encode(answer: &[u8]) -> Vec<u8> {
    match answer {
        [b'!', bytes @ ..] => bytes.to_vec(),
        [b'E', text @ ..] => {
            let (code, text) = text.split_at(text.len().min(5));
            let fields = [b"SERROR\0C", code, b"\0M", text, b"\0\0"].concat();
            [message(b'E', &fields), message(b'Z', b"I")].concat()
        }
        rows => {
            let rows: Vec<Vec<&[u8]>> = rows
                .split(|&byte| byte == b'\n')
                .map(|row| row.split(|&byte| byte == b'\t').collect())
                .collect();
            let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
            let mut fields = count(columns);
            for _ in 0..columns {
                // The name, then table, column, type (text), size, modifier and format.
                fields.extend(b"c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
            }
            let mut bytes = message(b'T', &fields);
            for row in &rows {
                let mut values = count(columns);
                for column in 0..columns {
                    match row.get(column).copied() {
                        None | Some(b"\\N") => values.extend((-1_i32).to_be_bytes()),
                        Some(value) => {
                            values.extend(u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
                            values.extend(value);
                        }
                    }
                }
                bytes.extend(message(b'D', &values));
            }
            [bytes, message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
        }
    }
}

fn count(columns: usize) -> Vec<u8> {
    u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes().to_vec()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind], &length[..], body].concat()
}
