//! SQL that somebody typed, run in a tenant: in one transaction that cannot leave the tenant.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, SimpleQueryMessage};

use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::TypedSql;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::{RECONNECT_TIMEOUT, References};
use crate::postgres::connection::server_error::{error_in, is_connection_lost, server_error};
use crate::postgres::connection::session::Session;
use crate::postgres::migrate::pending_hint::Behind;
use crate::postgres::transaction::escape_guard;
use crate::postgres::transaction::open::reset;
use crate::service::event::{Interrupt, Progress, Skipped};
use crate::service::exec_results::{Column, ColumnType, ResultWriter, ResultWriters};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::{Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob};

/// Runs the same statements in each tenant.
#[derive(Debug)]
pub struct Exec {
    /// Where.
    pub database: Database,
    /// What.
    pub sql: TypedSql,
    /// What follows the tenant in `search_path`.
    pub search_path: Vec<SchemaName>,
    /// Whether the transaction may write, to the tenant's own schema.
    pub write: bool,
    /// How long a statement may run; zero is for ever.
    pub timeout: Duration,
    /// How long a statement waits for a lock; zero is for ever.
    pub lock_timeout: Duration,
    /// Which shared tables keys may point to.
    pub references: References,
    /// Whether the types of columns are asked for.
    pub typed: bool,
    /// Where the rows go.
    pub shares: ResultWriters,
    /// The positions of the tenants.
    pub positions: HashMap<SchemaName, usize>,
    /// Whether what does not exist is pending.
    pub behind: Behind,
}

/// How a statement of ours or of theirs ended badly.
enum Failure {
    /// This statement failed.
    Statement(usize, Error),
    /// Something around them failed.
    Ours(&'static str, Error),
    /// Said by us.
    Words(Box<MigrateError>),
}

impl SchemaJob for Exec {
    async fn run(&self, target: &Target, _: &Progress, mut interrupts: Interrupts) -> JobResult {
        let position = self.positions.get(&target.schema).copied();
        let position = position.unwrap_or_default();
        let mut share = self.shares.of(position);
        let entrance = self.shares.turn(position).await;
        let session = self
            .database
            .session(RECONNECT_TIMEOUT)
            .await
            .map_err(|error| failed("connecting", error, Vec::new()))?;
        let pid = match self.open(&session, target).await {
            Ok(pid) => pid,
            Err(failure) => {
                session.discard();
                return Err(self.explained(failure, target).await);
            }
        };
        drop(entrance);
        let (done, cancelled) = {
            let mut work = std::pin::pin!(self.work(&session, target, &mut share));
            tokio::select! {
                done = &mut work => (done, false),
                () = interrupts.reaches(Interrupt::Cancel) => {
                    self.database.cancel(pid).await;
                    (work.await, true)
                }
            }
        };
        match done {
            Ok(result) => {
                // A session whose transaction ended is reset by whoever borrows it next.
                drop(session);
                share.end().await;
                Ok(JobSuccess::Finished(result))
            }
            Err(failure) => {
                session.discard();
                if cancelled {
                    return Ok(JobSuccess::Skipped(Skipped::Interrupted));
                }
                Err(self.explained(failure, target).await)
            }
        }
    }
}

impl Exec {
    /// Opens the transaction and returns our backend's process id.
    async fn open(&self, session: &Session, target: &Target) -> Result<i32, Failure> {
        let mut path = target.schema.quoted().to_string();
        for schema in &self.search_path {
            let _ = write!(path, ", {}", schema.quoted());
        }
        let mode = if self.write {
            "READ WRITE"
        } else {
            "READ ONLY"
        };
        let reset = reset(self.database.facts().route);
        // Rows wait for whoever has to say first which columns there are, however long that takes: a
        // client that is gone is told from its connection, not from its silence.
        // The question is the transaction's first query, behind which the server lets nobody
        // change its mode.
        let opening = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED {mode}; {reset}SET LOCAL search_path TO {path}; \
             SET LOCAL statement_timeout TO {}; SET LOCAL lock_timeout TO {}; \
             SET LOCAL idle_in_transaction_session_timeout TO 0; SET LOCAL tcp_keepalives_idle TO 60; \
             SET LOCAL tcp_keepalives_interval TO 10; SET LOCAL tcp_keepalives_count TO 6; \
             SET LOCAL standard_conforming_strings TO on; \
             SELECT pg_catalog.pg_backend_pid() WHERE pg_catalog.current_schema() = {}",
            self.timeout.as_millis(),
            self.lock_timeout.as_millis(),
            escape_literal(target.schema.as_str())
        );
        let client = session.client();
        let (reset, begun) =
            futures_util::future::join(client.simple_query("DISCARD ALL"), session.rows(&opening))
                .await;
        let entering = |error| Failure::Ours("entering the schema", error);
        reset.map_err(entering)?;
        let rows = begun.map_err(entering)?;
        let pid = rows.first().map(|row| row.parse(0).map_err(entering));
        pid.ok_or(Failure::Words(Box::new(MigrateError::SchemaMissing)))?
    }

    /// Runs the statements, ends the transaction, and returns what came of them in a few words.
    async fn work(
        &self,
        session: &Session,
        target: &Target,
        share: &mut ResultWriter,
    ) -> Result<String, Failure> {
        let client = session.client();
        let identity = self.identity(session).await?;
        let last = self.sql.statements().len() - 1;
        let mut result = String::new();
        for (number, statement) in self.sql.statements().enumerate() {
            let failed = |error| Failure::Statement(number, error);
            let mut kinds = None;
            if !self.sql.is_parsed || (self.typed && number == last) {
                // The server, too, has to see one statement.
                let prepared = client.prepare(statement).await.map_err(failed)?;
                kinds = Some(
                    prepared
                        .columns()
                        .iter()
                        .map(|c| c.type_().clone())
                        .collect(),
                );
            }
            if number == last {
                result = self.last(session, statement, kinds, share).await?;
            } else {
                client.simple_query(statement).await.map_err(failed)?;
            }
        }
        if self.identity(session).await? != identity {
            return Err(Failure::Words(Box::new(MigrateError::Job {
                doing: "the SQL changed transaction, role or search path, which".to_owned(),
                error: ServerError {
                    message: "rolled back".to_owned(),
                    ..ServerError::default()
                },
                hints: vec!["leave them as they are; exec sets them for each tenant".into()],
            })));
        }
        if !self.write {
            let ended = client.simple_query("ROLLBACK").await;
            ended.map_err(|error| Failure::Ours("ending the transaction", error))?;
            return Ok(result);
        }
        // What is deferred has to happen before it is looked at what happened.
        let ours = |error| Failure::Ours("checking what was deferred", error);
        let deferred = client.simple_query("SET CONSTRAINTS ALL IMMEDIATE").await;
        deferred.map_err(ours)?;
        self.stays_inside(session, target).await?;
        // What the statements set for the session must not meet anybody behind a pooler.
        let reset = client.simple_query("RESET SESSION AUTHORIZATION; RESET ALL");
        reset.await.map_err(ours)?;
        match client.simple_query("COMMIT").await {
            Ok(_) => Ok(result),
            Err(error) if is_connection_lost(&error) => {
                Err(Failure::Words(Box::new(MigrateError::Job {
                    doing:
                        "the connection was lost during COMMIT, so the outcome is not known, which"
                            .to_owned(),
                    error: server_error(&error),
                    hints: vec![
                        "the server kept all of it or nothing; check before you run it again"
                            .into(),
                    ],
                })))
            }
            Err(error) => Err(Failure::Ours("COMMIT", error)),
        }
    }

    /// Transaction, role and schema.
    async fn identity(&self, session: &Session) -> Result<Vec<Option<String>>, Failure> {
        let rows = session
            .rows("SELECT pg_catalog.now(), current_user, session_user, pg_catalog.current_schema(), pg_catalog.current_setting('transaction_read_only')")
            .await
            .map_err(|error| Failure::Ours("looking at the transaction", error))?;
        Ok(rows
            .first()
            .map(|row| {
                (0..row.len())
                    .map(|at| row.optional(at).map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default())
    }

    /// Runs the last statement, whose result is the result.
    async fn last(
        &self,
        session: &Session,
        statement: &str,
        kinds: Option<Vec<Type>>,
        share: &mut ResultWriter,
    ) -> Result<String, Failure> {
        let number = self.sql.statements().len() - 1;
        let failed = |error| Failure::Statement(number, error);
        let messages = session.client().simple_query_raw(statement).await;
        let mut messages = std::pin::pin!(messages.map_err(failed)?);
        let (mut rows, mut brought, mut affected) = (0_u64, false, 0);
        while let Some(message) = messages.next().await {
            match message.map_err(failed)? {
                SimpleQueryMessage::RowDescription(columns) => {
                    brought = true;
                    let kind = |at: usize| {
                        let kinds = kinds.as_ref();
                        kinds.and_then(|kinds| kinds.get(at)).map(column_type)
                    };
                    let columns = columns.iter().enumerate().map(|(at, column)| Column {
                        name: column.name().to_owned(),
                        kind: kind(at).unwrap_or_default(),
                    });
                    agree(share, columns.collect()).await?;
                }
                SimpleQueryMessage::Row(row) => {
                    rows += 1;
                    let values = (0..row.len()).map(|at| row.get(at).map(str::to_owned));
                    share.row(values.collect()).await;
                }
                SimpleQueryMessage::CommandComplete(count) => affected = count,
                _ => {}
            }
        }
        if brought {
            return Ok(format!("{rows} row{}", if rows == 1 { "" } else { "s" }));
        }
        let name = self.sql.name(number);
        let tag = match name.as_str() {
            "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY" | "WITH" => {
                format!("{name} {affected}")
            }
            _ => name,
        };
        let result = Column {
            name: "result".to_owned(),
            kind: ColumnType::Text,
        };
        agree(share, vec![result]).await?;
        share.row(vec![Some(tag.clone())]).await;
        Ok(tag)
    }

    /// Refuses what was written outside the schema.
    async fn stays_inside(&self, session: &Session, target: &Target) -> Result<(), Failure> {
        let looking =
            |error| Failure::Ours("looking at what was touched outside the schema", error);
        let path = "SET LOCAL search_path TO pg_catalog";
        session.client().simple_query(path).await.map_err(looking)?;
        let touched = escape_guard::look(session, &target.schema, &self.references, true)
            .await
            .map_err(looking)?;
        let mut outside = touched.outside.clone();
        if touched.is_open() {
            let other = self.database.second_session().await;
            let other = other
                .map_err(|error| Failure::Words(Box::new(work("connecting", error, Vec::new()))))?;
            outside.extend(
                escape_guard::seen_by_others(&other, &target.schema, &touched)
                    .await
                    .map_err(looking)?,
            );
        }
        if outside.is_empty() {
            return Ok(());
        }
        Err(Failure::Words(Box::new(MigrateError::Job {
            doing: "the SQL reached outside the tenant's schema, which".to_owned(),
            error: ServerError {
                message: outside.join(", "),
                ..ServerError::default()
            },
            hints: vec![
                "it was rolled back; change shared tables with a shared migration or psql".into(),
            ],
        })))
    }

    async fn explained(&self, failure: Failure, target: &Target) -> JobFailure {
        match failure {
            Failure::Words(error) => (*error).into(),
            Failure::Ours(doing, error) => failed(doing, server_error(&error), Vec::new()),
            Failure::Statement(number, error) => {
                let sql = self.sql.statements().nth(number).unwrap_or_default();
                let mut said = error_in(sql, &error);
                let position = error.as_db_error().and_then(|db| match db.position() {
                    Some(ErrorPosition::Original(position)) => Some(*position as usize),
                    _ => None,
                });
                let place = self.sql.place(number, position.unwrap_or(1));
                let at = match (position, place.column) {
                    (Some(_), Some(column)) => format!("the SQL at {}:{column}", place.line),
                    _ => format!("the SQL at line {}", place.line),
                };
                if said.has_sqlstate(sqlstate::QUERY_CANCELED) && !self.timeout.is_zero() {
                    said.hint = Some("--timeout says how long a statement may run".to_owned());
                }
                if said.has_sqlstate(sqlstate::READ_ONLY_SQL_TRANSACTION) && !self.write {
                    said.hint = Some("exec only reads; --write lets it write".to_owned());
                }
                let hints = self.behind.hint(target, &said).await.into_iter().collect();
                failed(&at, said, hints)
            }
        }
    }
}

async fn agree(share: &mut ResultWriter, columns: Vec<Column>) -> Result<(), Failure> {
    let names = |columns: &[Column]| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        names.join(", ")
    };
    let own = names(&columns);
    share.columns(columns).await.map_err(|first| {
        Failure::Words(Box::new(MigrateError::Job {
            doing: "merging the result".to_owned(),
            error: ServerError {
                message: format!(
                    "its columns are {own}, and those of the first tenant {}",
                    names(&first)
                ),
                ..ServerError::default()
            },
            hints: vec![
                "name the columns instead of *, or migrate the tenants to one version".into(),
            ],
        }))
    })
}

/// Returns what the texts of a type are.
fn column_type(kind: &Type) -> ColumnType {
    match *kind {
        Type::INT2
        | Type::INT4
        | Type::INT8
        | Type::OID
        | Type::FLOAT4
        | Type::FLOAT8
        | Type::NUMERIC => ColumnType::Number,
        Type::BOOL => ColumnType::Flag,
        Type::JSON | Type::JSONB => ColumnType::Json,
        _ => ColumnType::Text,
    }
}

fn work(doing: &str, error: ServerError, hints: Vec<Hint>) -> MigrateError {
    MigrateError::Job {
        doing: doing.to_owned(),
        error,
        hints,
    }
}

fn failed(doing: &str, error: ServerError, hints: Vec<Hint>) -> JobFailure {
    work(doing, error, hints).into()
}
