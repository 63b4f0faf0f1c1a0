//! Detects a pooler by the process id that a connection received for cancelling.
//!
//! A server sends its backend's own id. A pooler makes one up, because its clients share backends; so
//! where the id is not `pg_backend_pid()` there is a pooler. The driver does not expose the id, so it is
//! read from the cancel request that the driver would send.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::join;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::io::{DuplexStream, ReadBuf, duplex};
use tokio_postgres::Client;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// The length of the request for TLS; the cancel request is twice as long (manual section 55.7).
const SSL_REQUEST: usize = 8;

/// Returns the process id of the connection's cancel key. Sends nothing to the server.
pub(crate) async fn process_id(client: &Client) -> Option<i32> {
    let (drivers_end, mut our_end) = duplex(64);
    let token = client.cancel_token();
    let read = async move {
        let mut start = [0; SSL_REQUEST];
        our_end.read_exact(&mut start).await.ok()?;
        if usize::from(start[3]) == SSL_REQUEST {
            our_end.write_all(b"S").await.ok()?;
            our_end.read_exact(&mut start).await.ok()?;
        }
        // The length and the code are read; the process id and the secret follow.
        our_end.read_i32().await.ok()
    };
    let (_, process_id) = join(token.cancel_query_raw(drivers_end, Unencrypted), read).await;
    process_id
}

/// Replaces TLS for bytes that do not leave this process.
struct Unencrypted;

struct InMemory(DuplexStream);

impl TlsConnect<DuplexStream> for Unencrypted {
    type Stream = InMemory;
    type Error = io::Error;
    type Future = Ready<io::Result<InMemory>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        ready(Ok(InMemory(stream)))
    }
}

impl TlsStream for InMemory {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for InMemory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for InMemory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
