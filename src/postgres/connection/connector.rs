//! Opens connections for the pool and drives them, so that notices reach the schema they belong to.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use deadpool_postgres::Connect;
use tokio::task::JoinHandle;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conninfo::ConnectOptions;
use super::session::{Notices, value};
use crate::service::event::EventKind;

/// Connects to the first host that answers.
pub(super) struct Connector {
    pub(super) options: ConnectOptions,
    pub(super) tls: MakeRustlsConnect,
    pub(super) notices: Arc<Notices>,
}

impl Connector {
    /// Tries the hosts in their order and returns the error of the last one.
    async fn first_that_answers(&self) -> Result<(Client, Connection<Socket, TlsStream>), Error> {
        let mut attempts = self.options.attempts().into_iter().peekable();
        loop {
            let config =
                attempts.next().expect("there is at least one host, and the last one returns");
            let is_last = attempts.peek().is_none();
            let connecting = config.connect(self.tls.clone());
            match self.options.connect_timeout() {
                Some(limit) if !is_last => {
                    if let Ok(Ok(connected)) = tokio::time::timeout(limit, connecting).await {
                        return Ok(connected);
                    }
                }
                // The driver limits the socket; the pool limits the rest of the last attempt.
                _ => match connecting.await {
                    Err(_) if !is_last => {}
                    done => return done,
                },
            }
        }
    }
}

type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Connector {
    /// Ignores the pool's own configuration: each host has its own password and TLS mode.
    fn connect(&self, _: &Config) -> Connecting<'_> {
        Box::pin(async move {
            let (client, mut connection) = self.first_that_answers().await?;
            let pid: Arc<OnceLock<i32>> = Arc::default();
            let (notices, known_pid) = (Arc::clone(&self.notices), Arc::clone(&pid));
            let task = tokio::spawn(async move {
                while let Some(Ok(message)) =
                    poll_fn(|context| connection.poll_message(context)).await
                {
                    let AsyncMessage::Notice(notice) = message else {
                        continue;
                    };
                    let listener =
                        known_pid.get().and_then(|pid| notices.listeners().get(pid).cloned());
                    if let Some(progress) = listener {
                        progress.send(EventKind::Notice {
                            severity: notice.severity().to_owned(),
                            message: notice.message().to_owned(),
                        });
                    }
                }
            });
            let answer = client.simple_query("SELECT pg_backend_pid()").await?;
            if let Some(number) = answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => value(row, 0)?.parse().ok(),
                _ => None,
            }) {
                pid.get_or_init(|| number);
            }
            Ok((client, task))
        })
    }
}
