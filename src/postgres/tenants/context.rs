//! A connection that sees one tenant, for as long as a transaction lasts.

use std::fmt::{self, Write as _};
use std::time::Duration;

use futures_util::future::join3;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, Error};

use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::postgres::connection::database::{Database, Route};
use crate::postgres::connection::server_error::{is_connection_lost, server_error, sqlstate_of};
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::settings::RESET;
use crate::service::failure::ServerError;

/// What `DISCARD ALL` does, but for the prepared statements: the driver keeps some of its own,
/// with which it asks for types that it does not know, and every tenant has types of its own.
const CLEAN: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; ";

/// A transaction whose `search_path` is one tenant, then what was asked for.
///
/// It ends with [`TenantContext::commit`] or [`TenantContext::rollback`], and the connection
/// goes back clean. Dropped without either, or while one of them or a query is being waited for,
/// the connection is closed, which rolls back: nobody can borrow a connection that still sees a
/// tenant.
#[derive(Debug)]
pub struct TenantContext {
    session: Option<Session>,
    schema: SchemaName,
    /// When the transaction began, in seconds since 1970, as the server writes it.
    began: String,
    route: Route,
}

/// Why there is no transaction in a tenant's schema, or why it did not end as it was told to.
#[derive(Debug)]
#[non_exhaustive]
pub enum TenantError {
    /// No connection was to be had: the server is not there, refused the login or is full, or
    /// everybody kept theirs for half a minute. Nothing was done; later it may work.
    NoConnection(ServerError),
    /// The schema does not exist, or the role may not use it.
    SchemaMissing(SchemaName),
    /// The server refused, or something had failed inside already. Nothing stays.
    Refused(ServerError),
    /// A statement inside, such as COMMIT, had ended the transaction in this schema. What ran
    /// behind it ran by itself and may have met another schema.
    Ended(SchemaName),
    /// The connection was lost before COMMIT was answered; it may have been done or not.
    Unanswered(ServerError),
}

impl fmt::Display for TenantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(error) => write!(f, "no connection: {error}"),
            Self::SchemaMissing(schema) => write!(
                f,
                "schema '{schema}' does not exist, or may not be used by this role"
            ),
            Self::Refused(error) => error.fmt(f),
            Self::Ended(schema) => write!(
                f,
                "a statement ended the transaction in schema '{schema}' before its time"
            ),
            Self::Unanswered(error) => {
                write!(f, "whether it was committed is unknown: {error}")
            }
        }
    }
}

impl std::error::Error for TenantError {}

impl Database {
    /// Opens a transaction that sees the tenant's schema first, then `search_path`.
    ///
    /// A free connection is waited for, for at most half a minute; whoever wants to wait less drops the future
    /// (`tokio::time::timeout`), and nothing of it stays.
    ///
    /// # Errors
    ///
    /// [`TenantError::NoConnection`]; [`TenantError::SchemaMissing`], because a missing schema
    /// would silently show the next one of the path; [`TenantError::Refused`] with what else the
    /// server says.
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
        // In a pooler's session RESET would come too late outside of the transaction, and CLEAN
        // would unlock what others hold.
        let (before, within) = match route {
            Route::Direct => (CLEAN, ""),
            Route::Pooled => ("", RESET),
        };
        // A transaction that somebody left open began before this message was sent.
        let opening = format!(
            "BEGIN; {within}SET LOCAL search_path TO {path}; \
             SELECT current_schema() IS NOT DISTINCT FROM {}, now() = statement_timestamp(), date_part('epoch', now())",
            escape_literal(schema.as_str())
        );
        loop {
            let session = self
                .session(Duration::ZERO)
                .await
                .map_err(TenantError::NoConnection)?;
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
                // Nothing was done yet. Others that the pool keeps may be as bad, and a new one
                // is good; each bad one is closed.
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

/// What came of opening the transaction.
enum Opening {
    Open,
    SchemaMissing,
    /// Another transaction had been left open in the session.
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

    /// Returns the driver's client, within the transaction.
    ///
    /// What is set for the session and what is prepared, locked or listened to there ends with
    /// the context too.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.session().client()
    }

    fn session(&self) -> &Session {
        self.session.as_ref().expect("present until the end")
    }

    /// Commits, and gives the connection back.
    ///
    /// # Errors
    ///
    /// [`TenantError::Refused`] where the server refused or a statement inside had failed, even
    /// if nobody looked at that; [`TenantError::Ended`]; [`TenantError::Unanswered`]. The
    /// connection is closed then.
    pub async fn commit(self) -> Result<(), TenantError> {
        self.end("COMMIT").await
    }

    /// Rolls back, and gives the connection back.
    ///
    /// # Errors
    ///
    /// [`TenantError::Ended`]; [`TenantError::Refused`] where the connection was lost, which
    /// rolls back too. The connection is closed then.
    pub async fn rollback(self) -> Result<(), TenantError> {
        self.end("ROLLBACK").await
    }

    /// The three are sent at once: COMMIT of a transaction that failed is no error of its own, so
    /// a question in front of it shows that and whether it is ours; its error makes
    /// COMMIT roll back.
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
            // The server may still have come to the COMMIT that was sent with it.
            (Err(error), _) | (Ok(_), Err(error))
                if how == "COMMIT" && is_connection_lost(&error) =>
            {
                return Err(TenantError::Unanswered(server_error(&error)));
            }
            (Err(error), _) if how == "COMMIT" => {
                return Err(TenantError::Refused(server_error(&error)));
            }
            (_, Err(error)) => return Err(TenantError::Refused(server_error(&error))),
            // What had failed inside is rolled back with the rest.
            (_, Ok(_)) => {}
        }
        if cleaned.is_ok() {
            // Only a connection whose transaction has ended may be borrowed again.
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
