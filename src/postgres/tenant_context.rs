//! A connection that sees one tenant, for as long as a transaction lasts.

use std::fmt::Write as _;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use super::diagnostics::server_error;
use super::pool::{Database, Route, Session};
use super::transaction::RESET;
use crate::domain::schema_name::SchemaName;
use crate::service::event::ServerError;

/// A transaction whose `search_path` is one tenant, then what was asked for.
///
/// It ends with [`TenantContext::commit`] or [`TenantContext::rollback`], and the connection
/// goes back clean. Dropped without either, the connection is closed, which rolls back:
/// nobody can borrow a connection that still sees a tenant.
#[derive(Debug)]
pub struct TenantContext {
    session: Option<Session>,
}

impl Database {
    /// Opens a transaction that sees the tenant's schema first, then `search_path`.
    ///
    /// # Errors
    ///
    /// What the server says; `3F000` where the schema does not exist or may not be used,
    /// because a missing schema would silently show the next one of the path.
    pub async fn tenant(
        &self,
        schema: &SchemaName,
        search_path: &[SchemaName],
    ) -> Result<TenantContext, ServerError> {
        let session = self.session(Duration::ZERO).await?;
        let mut path = schema.quoted().to_string();
        for other in search_path {
            let _ = write!(path, ", {}", other.quoted());
        }
        let opening = format!(
            "BEGIN; {}SET LOCAL search_path TO {path}; SELECT 1 WHERE current_schema() = {}",
            if self.facts().route == Route::Pooled {
                RESET
            } else {
                ""
            },
            escape_literal(schema.as_str())
        );
        let client = session.client();
        let (reset, begun) =
            futures_util::future::join(client.simple_query("DISCARD ALL"), session.rows(&opening))
                .await;
        let seen = reset.and(begun);
        let context = TenantContext {
            session: Some(session),
        };
        match seen {
            Ok(rows) if rows.is_empty() => Err(ServerError {
                sqlstate: Some("3F000".to_owned()),
                message: format!(
                    "schema '{schema}' does not exist, or may not be used by this role"
                ),
                ..ServerError::default()
            }),
            Ok(_) => Ok(context),
            Err(error) => Err(server_error(&error)),
        }
    }
}

impl TenantContext {
    /// Returns the driver's client, within the transaction.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.session
            .as_ref()
            .expect("present until the end")
            .client()
    }

    /// Commits, and gives the connection back.
    ///
    /// # Errors
    ///
    /// The driver's error; the connection is closed then.
    pub async fn commit(self) -> Result<(), Error> {
        self.end("COMMIT").await
    }

    /// Rolls back, and gives the connection back.
    ///
    /// # Errors
    ///
    /// As [`TenantContext::commit`].
    pub async fn rollback(self) -> Result<(), Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &str) -> Result<(), Error> {
        self.client().simple_query(how).await?;
        // Only a connection whose transaction has ended may be borrowed again.
        drop(self.session.take());
        Ok(())
    }
}

impl Drop for TenantContext {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.discard();
        }
    }
}
