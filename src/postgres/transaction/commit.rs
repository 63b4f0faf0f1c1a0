//! Resolves an in-doubt COMMIT: one that was sent and whose reply was lost.

use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;

use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::service::failure::ServerError;

/// Returns whether this transaction, as `pg_current_xact_id()` names it, was committed. It waits for one that
/// is in progress; one that the server does not know was lost in a crash.
///
/// # Errors
///
/// The last error, after [`RECONNECT_TIMEOUT`].
pub(crate) async fn was_committed(
    database: &Database,
    transaction: &str,
    lost: ServerError,
) -> Result<bool, ServerError> {
    let sql = format!("SELECT pg_xact_status({})", escape_literal(transaction));
    let deadline = Instant::now() + RECONNECT_TIMEOUT;
    let mut error = lost;
    while Instant::now() < deadline {
        let session = database.session(RECONNECT_TIMEOUT).await?;
        match session.read(&sql).await {
            Ok(rows) => match rows.first().and_then(|row| row.optional(0)) {
                Some("in progress") => {}
                status => return Ok(status == Some("committed")),
            },
            Err(lost) if is_connection_lost(&lost) => error = server_error(&lost),
            // The server does not know the id, or no longer.
            Err(_) => return Ok(false),
        }
        drop(session);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(error)
}
