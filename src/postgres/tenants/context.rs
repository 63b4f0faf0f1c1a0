//! Runs a transaction with one tenant's schema as its `search_path`.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join3;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::postgres::connection::database::{Database, Route};
use crate::postgres::connection::server_error::{is_connection_lost, server_error, sqlstate_of};
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::settings::{CLEAN, RESET};
use crate::service::failure::ServerError;

/// A transaction whose `search_path` is one tenant's schema, followed by the given schemas.
///
/// [`TenantContext::commit`] and [`TenantContext::rollback`] reset the session and return it to the
/// pool. If the context is dropped without either, or while one of them or a query is running, the
/// connection is closed, which rolls back: no pooled connection still sees a tenant.
#[derive(Debug)]
pub struct TenantContext {
    session: Option<Session>,
    schema: SchemaName,
    /// When the transaction started, in seconds since 1970, as the server formats it.
    began: String,
    route: Route,
}

/// Why a transaction in a tenant's schema was not opened, committed or rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TenantError {
    /// No connection: the server is unreachable, rejected the login or has no free connection slot,
    /// or no pooled connection became free within 30 s. Nothing was done; a retry may succeed.
    #[error("no connection: {0}")]
    NoConnection(ServerError),
    /// The schema does not exist, or the role may not use it.
    #[error("schema '{0}' does not exist, or the role has no USAGE privilege on it")]
    SchemaMissing(SchemaName),
    /// The server refused it, or a statement had failed. The transaction is rolled back.
    #[error("{0}")]
    Refused(ServerError),
    /// A statement such as COMMIT had ended the transaction in this schema. The statements after it
    /// ran outside the transaction, and possibly in another schema.
    #[error("a statement ended the transaction in schema '{0}' early")]
    Ended(SchemaName),
    /// The reply to COMMIT was lost; the transaction may be committed or not.
    #[error("whether the transaction is committed is unknown: {0}")]
    InDoubt(ServerError),
}

impl Database {
    /// Opens a transaction whose `search_path` is the tenant's schema, then `search_path`.
    ///
    /// Waits at most 30 s for a free connection. For a shorter limit drop the future, such as with
    /// `tokio::time::timeout`; that has no side effects.
    ///
    /// # Errors
    ///
    /// [`TenantError::NoConnection`]; [`TenantError::SchemaMissing`], because names would resolve in
    /// the next schema of the path; [`TenantError::Refused`] with any other error of the server.
    pub async fn tenant(
        &self,
        schema: &SchemaName,
        search_path: &[SchemaName],
    ) -> Result<TenantContext, TenantError> {
        let route = self.facts().route;
        let mut path = schema.quoted().to_string();
        for other in search_path {
            let _ = write!(path, ", {}", other.quoted());
        }
        // A pooler may run each transaction in another session, whose advisory locks are not ours.
        let (before, within) = match route {
            Route::Direct => (CLEAN, ""),
            Route::Pooled => ("", RESET),
        };
        // now() is earlier if BEGIN met a transaction that was left open in the session.
        let opening = format!(
            "BEGIN; {within}SET LOCAL search_path TO {path}; \
             SELECT current_schema() IS NOT DISTINCT FROM {}, now() = statement_timestamp(), date_part('epoch', now())",
            escape_literal(schema.as_str())
        );
        loop {
            let session = self.session(Duration::ZERO).await.map_err(TenantError::NoConnection)?;
            let was_used = session.was_used();
            let mut context = TenantContext {
                session: Some(session),
                schema: schema.clone(),
                began: String::new(),
                route,
            };
            match context.open(before, &opening).await {
                Ok(Opening::Open) => return Ok(context),
                Ok(Opening::SchemaMissing) => {
                    return Err(TenantError::SchemaMissing(schema.clone()));
                }
                // Closes the connection and takes the next one, in the end a new one.
                Ok(Opening::Occupied) => {}
                Err(error)
                    if was_used
                        && (is_connection_lost(&error)
                            || sqlstate_of(&error)
                                == Some(sqlstate::IN_FAILED_SQL_TRANSACTION)
                            || sqlstate_of(&error) == Some(sqlstate::ACTIVE_SQL_TRANSACTION)) => {}
                Err(error) if is_connection_lost(&error) => {
                    return Err(TenantError::NoConnection(server_error(&error)));
                }
                Err(error) => return Err(TenantError::Refused(server_error(&error))),
            }
        }
    }
}

/// The result of opening the transaction.
enum Opening {
    Open,
    SchemaMissing,
    /// Another transaction was left open in the session.
    Occupied,
}

impl TenantContext {
    async fn open(&mut self, before: &str, opening: &str) -> Result<Opening, Error> {
        let session = self.session();
        let (cleaned, opened) = futures_util::future::join(
            session.client().simple_query(before),
            session.rows(opening),
        )
        .await;
        cleaned?;
        let rows = opened?;
        let cell = |column: usize| rows.last().and_then(|row| row.optional(column));
        if cell(1) != Some("t") {
            return Ok(Opening::Occupied);
        }
        if cell(0) != Some("t") {
            return Ok(Opening::SchemaMissing);
        }
        cell(2).unwrap_or_default().clone_into(&mut self.began);
        Ok(Opening::Open)
    }

    /// Returns the driver's client, inside the transaction.
    ///
    /// Session settings, advisory locks and LISTEN registrations end with the context.
    pub fn client(&self) -> &Client {
        self.session().client()
    }

    pub(super) fn session(&self) -> &Session {
        self.session.as_ref().expect("present until the end")
    }

    /// Commits and returns the connection to the pool.
    ///
    /// # Errors
    ///
    /// [`TenantError::Refused`] if the server refused or a statement had failed, even if its error
    /// was ignored; [`TenantError::Ended`]; [`TenantError::InDoubt`]. The connection is closed then.
    pub async fn commit(self) -> Result<(), TenantError> {
        self.end("COMMIT").await
    }

    /// Rolls back and returns the connection to the pool.
    ///
    /// # Errors
    ///
    /// [`TenantError::Ended`]; [`TenantError::Refused`] if the connection was lost, which rolls back
    /// too. The connection is closed then.
    pub async fn rollback(self) -> Result<(), TenantError> {
        self.end("ROLLBACK").await
    }

    /// Pipelines a check, COMMIT or ROLLBACK, and the reset. COMMIT of a failed transaction reports
    /// no error, but the check does; it also fails in another transaction, so that COMMIT rolls back.
    async fn end(mut self, how: &str) -> Result<(), TenantError> {
        let is_ours = format!(
            "SELECT 1 / (pg_catalog.date_part('epoch', pg_catalog.now()) = {}::pg_catalog.float8)::pg_catalog.int4",
            escape_literal(&self.began)
        );
        let clean = match self.route {
            Route::Direct => CLEAN,
            Route::Pooled => "",
        };
        let client = self.client();
        let (ours, ended, cleaned) = join3(
            client.simple_query(&is_ours),
            client.simple_query(how),
            client.simple_query(clean),
        )
        .await;
        match (ours, ended) {
            (Err(error), _) if sqlstate_of(&error) == Some(sqlstate::DIVISION_BY_ZERO) => {
                return Err(TenantError::Ended(self.schema.clone()));
            }
            // The server may still have executed the COMMIT that was pipelined.
            (Err(error), _) | (Ok(_), Err(error))
                if how == "COMMIT" && is_connection_lost(&error) =>
            {
                return Err(TenantError::InDoubt(server_error(&error)));
            }
            (Err(error), _) if how == "COMMIT" => {
                return Err(TenantError::Refused(server_error(&error)));
            }
            (_, Err(error)) => return Err(TenantError::Refused(server_error(&error))),
            // A failed statement is rolled back with the rest.
            (_, Ok(_)) => {}
        }
        if cleaned.is_ok() {
            // Only a connection whose transaction has ended returns to the pool.
            drop(self.session.take());
        }
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
