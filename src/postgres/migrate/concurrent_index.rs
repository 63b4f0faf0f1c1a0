//! Builds indexes with `CREATE INDEX CONCURRENTLY`: repeatable, and without leaving an invalid index.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::non_transactional::{
    LockOwner, NonTransactional, ScriptFailure, StatementError, failed,
};
use crate::domain::schema_name::QuotedIdentifier;
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::postgres::connection::session::Session;
use crate::service::event::{EventKind, Interrupt};
use crate::service::failure::MigrateError;

impl NonTransactional<'_> {
    /// Builds an index, unless an earlier attempt has; returns the result of the statement.
    pub(super) async fn build(
        &self,
        session: &Session,
        owner: &LockOwner,
        index: usize,
        name: &str,
        unconfirmed: Option<&str>,
    ) -> Result<Result<(), StatementError>, ScriptFailure> {
        let sql = &*self.text(index);
        let valid = self.is_valid(session, owner, name).await?;
        // An earlier attempt built it and lost the connection. For any other index of that name the server
        // returns an error.
        if valid == Some(true) && unconfirmed == Some(sql) {
            return Ok(Ok(()));
        }
        let rows = session.rows("SELECT current_setting('lock_timeout')").await?;
        let lock_timeout =
            escape_literal(rows.first().and_then(|row| row.optional(0)).unwrap_or("0"));
        // CREATE INDEX CONCURRENTLY waits for every older transaction, and blocks none meanwhile.
        session.rows("SET lock_timeout TO 0").await?;
        if valid == Some(false) {
            let dropped = self.drop_index(session, owner, name, Duration::ZERO).await;
            dropped.map_err(|error| self.statement_failed(index, error))?;
        }
        if valid != Some(true) {
            self.note_build(session, owner, Some(sql)).await?;
        }
        let built = self.monitored(session, owner, sql, Duration::ZERO).await;
        if let Err(StatementError { error, .. }) = &built
            && (is_connection_lost(error) || self.interrupts.level() == Interrupt::Cancel)
        {
            // The next attempt checks the index.
            return Ok(built);
        }
        let restored = format!("SET lock_timeout TO {lock_timeout}");
        session.rows(&restored).await?;
        let is_invalid = self.is_valid(session, owner, name).await? == Some(false);
        if is_invalid || built.is_err() {
            self.note_build(session, owner, None).await?;
        }
        if is_invalid {
            let wait = self.context.options.lock_timeout;
            // The failed build is the error; that its index could not be dropped is a warning.
            if let Err(StatementError { error, .. }) =
                self.drop_index(session, owner, name, wait).await
            {
                self.progress.send(EventKind::Notice {
                    severity: "WARNING".to_owned(),
                    message: format!(
                        "index '{name}' stays invalid until the next run drops it: {}",
                        server_error(&error)
                    ),
                });
            }
            if built.is_ok() {
                return Err(failed(MigrateError::InvalidIndex {
                    script: self.script.id.reference(),
                    indexes: vec![name.to_owned()],
                }));
            }
        }
        Ok(built)
    }

    /// Returns whether the index is valid; `None` if it does not exist.
    async fn is_valid(
        &self,
        session: &Session,
        owner: &LockOwner,
        name: &str,
    ) -> Result<Option<bool>, Error> {
        let sql = format!(
            "SELECT i.indisvalid FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
             WHERE c.relnamespace = {} AND c.relname = {}",
            owner.schema_oid,
            escape_literal(name)
        );
        let rows = session.rows(&sql).await?;
        Ok(rows.first().map(|row| row.is_true(0)))
    }

    async fn drop_index(
        &self,
        session: &Session,
        owner: &LockOwner,
        name: &str,
        lock_timeout: Duration,
    ) -> Result<(), StatementError> {
        let index = format!("{}.{}", self.target.schema.quoted(), QuotedIdentifier::new(name));
        let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
        self.monitored(session, owner, &sql, lock_timeout).await
    }

    /// Records the index build that is running, or with `None` that it failed. A successful one stays
    /// recorded until [`note_finished`](Self::note_finished), because the connection may be lost in between.
    async fn note_build(
        &self,
        session: &Session,
        owner: &LockOwner,
        build: Option<&str>,
    ) -> Result<(), Error> {
        let build = build.map_or_else(|| "NULL".to_owned(), escape_literal);
        self.note(session, owner, &format!("unanswered = {build}")).await
    }
}
