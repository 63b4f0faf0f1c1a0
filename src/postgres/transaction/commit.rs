//! What became of a COMMIT that was sent and not answered.

use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;

use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::service::failure::ServerError;

/// Returns whether this transaction, as `pg_current_xact_id()` calls it, was committed. The server may
/// not have come to it yet, so a transaction that is in progress is waited for; one that the
/// server knows nothing of was taken away by a crash.
///
/// # Errors
///
/// What was said last, where it could not be found out within a minute.
pub(crate) async fn was_committed(
    database: &Database,
    transaction: &str,
    lost: ServerError,
) -> Result<bool, ServerError> {
    let sql = format!("SELECT pg_xact_status({})", escape_literal(transaction));
    let give_up = Instant::now() + RECONNECT_TIMEOUT;
    let mut said = lost;
    while Instant::now() < give_up {
        let session = database.session(RECONNECT_TIMEOUT).await?;
        match session.read(&sql).await {
            Ok(rows) => match rows.first().and_then(|row| row.optional(0)) {
                Some("in progress") => {}
                status => return Ok(status == Some("committed")),
            },
            Err(error) if is_connection_lost(&error) => said = server_error(&error),
            // Its number was never given out, as far as the server remembers.
            Err(_) => return Ok(false),
        }
        drop(session);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(said)
}
