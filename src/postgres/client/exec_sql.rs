//! Runs the SQL of `exec` in a tenant, in one transaction that cannot change other schemas.

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
use crate::domain::script::Location;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::AdhocSql;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::{GuardRules, RECONNECT_TIMEOUT};
use crate::postgres::connection::server_error::{
    error_in, inner_error, is_connection_lost, server_error,
};
use crate::postgres::connection::session::Session;
use crate::postgres::connection::sql_file::filled;
use crate::postgres::migrate::pending_hint::PendingHint;
use crate::postgres::transaction::escape_guard;
use crate::postgres::transaction::settings::{CLEAN_POOLED, discard, reset};
use crate::service::event::{Interrupt, Progress, Skipped};
use crate::service::exec_results::{Column, ColumnType, ResultWriter, ResultWriters};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::{Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob};

/// Runs the same statements in each tenant.
#[derive(Debug)]
pub struct Exec {
    /// The database of the tenants.
    pub database: Database,
    /// The statements, at least one.
    pub sql: AdhocSql,
    /// The schemas behind the tenant's own in `search_path`.
    pub search_path: Vec<SchemaName>,
    /// Whether the transaction is `READ WRITE`; the guard limits it to the tenant's schema.
    pub write: bool,
    /// `statement_timeout`; zero means no limit.
    pub timeout: Duration,
    /// `lock_timeout`; zero means no limit.
    pub lock_timeout: Duration,
    /// The shared tables that foreign keys may reference.
    pub guard_rules: GuardRules,
    /// Whether the output needs the types of the columns.
    pub typed: bool,
    /// Where the rows of each tenant go.
    pub shares: ResultWriters,
    /// The position of each tenant in the output.
    pub positions: HashMap<SchemaName, usize>,
    /// Finds whether a missing table or column is created by a pending migration.
    pub pending_hint: PendingHint,
}

/// Why `exec` failed in a tenant.
enum ExecError {
    /// A statement of the user, by its number from 0.
    Statement(usize, Error),
    /// A statement of pricesync, by what it does.
    Step(&'static str, Error),
    /// The server accepted all statements, and pricesync refuses the result.
    Refused(Box<MigrateError>),
}

impl ExecError {
    fn refused(doing: &str, message: String, hint: &'static str) -> Self {
        let error = ServerError { message, ..ServerError::default() };
        Self::Refused(Box::new(job_error(doing, error, vec![hint.into()])))
    }
}

impl SchemaJob for Exec {
    async fn run(&self, target: &Target, _: &Progress, mut interrupts: Interrupts) -> JobResult {
        let position = self.positions.get(&target.schema).copied();
        let position = position.unwrap_or_default();
        let mut writer = self.shares.of(position);
        let turn = self.shares.turn(position).await;
        let session = self
            .database
            .session(RECONNECT_TIMEOUT)
            .await
            .map_err(|error| failed("connecting", error, Vec::new()))?;
        let pid = match self.open(&session, target).await {
            Ok(pid) => pid,
            Err(failure) => {
                session.discard();
                return Err(self.job_failure(failure, target).await);
            }
        };
        drop(turn);
        let (done, cancelled) = {
            let mut work = std::pin::pin!(self.work(&session, target, &mut writer));
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
                // The next borrower resets the session.
                drop(session);
                writer.end().await;
                Ok(JobSuccess::Finished(result))
            }
            Err(failure) => {
                session.discard();
                if cancelled {
                    return Ok(JobSuccess::Skipped(Skipped::Interrupted));
                }
                Err(self.job_failure(failure, target).await)
            }
        }
    }
}

impl Exec {
    /// Opens the transaction and returns the backend's process id.
    async fn open(&self, session: &Session, target: &Target) -> Result<i32, ExecError> {
        let mut path = target.schema.quoted().to_string();
        for schema in &self.search_path {
            let _ = write!(path, ", {}", schema.quoted());
        }
        let mode = if self.write { "READ WRITE" } else { "READ ONLY" };
        let route = self.database.facts().route;
        let reset = reset(route);
        let values = [
            ("{mode}", mode.to_owned()),
            ("{reset}", reset.to_owned()),
            ("{path}", path),
            ("{statement_timeout}", self.timeout.as_millis().to_string()),
            ("{lock_timeout}", self.lock_timeout.as_millis().to_string()),
            ("{schema}", escape_literal(target.schema.as_str())),
        ];
        let opening = filled(include_str!("exec_open.sql"), &values);
        let client = session.client();
        let (reset, opened) =
            futures_util::future::join(client.simple_query(discard(route)), session.rows(&opening))
                .await;
        let entering = |error| ExecError::Step("entering the schema", error);
        reset.map_err(entering)?;
        let rows = opened.map_err(entering)?;
        let pid = rows.first().map(|row| row.parse(0).map_err(entering));
        pid.ok_or(ExecError::Refused(Box::new(MigrateError::SchemaMissing)))?
    }

    /// Runs the statements, ends the transaction, and returns the command tag of the last one.
    async fn work(
        &self,
        session: &Session,
        target: &Target,
        writer: &mut ResultWriter,
    ) -> Result<String, ExecError> {
        let client = session.client();
        let identity = self.identity(session).await?;
        let last = self.sql.statements().len() - 1;
        let mut result = String::new();
        for (number, statement) in self.sql.statements().enumerate() {
            let failed = |error| ExecError::Statement(number, error);
            let mut kinds = None;
            if !self.sql.is_parsed || (self.typed && number == last) {
                // Also makes sure that the server sees one statement.
                let prepared = client.prepare(statement).await.map_err(failed)?;
                kinds = Some(prepared.columns().iter().map(|c| c.type_().clone()).collect());
            }
            if number == last {
                result = self.last(session, statement, kinds, writer).await?;
            } else {
                client.simple_query(statement).await.map_err(failed)?;
            }
        }
        if self.identity(session).await? != identity {
            return Err(ExecError::refused(
                "running the SQL",
                "it changed the transaction, the role or search_path".to_owned(),
                "do not change them; exec sets them for each tenant",
            ));
        }
        if !self.write {
            let ended = client.simple_query("ROLLBACK").await;
            ended.map_err(|error| ExecError::Step("rolling back", error))?;
            return Ok(result);
        }
        // The guard must see the effects of deferred triggers.
        let deferred = client.simple_query("SET CONSTRAINTS ALL IMMEDIATE").await;
        deferred.map_err(|error| ExecError::Step("checking deferred constraints", error))?;
        self.stays_inside(session, target).await?;
        // Behind a pooler, what the session has would affect other clients.
        let reset = client.simple_query(CLEAN_POOLED).await;
        reset.map_err(|error| ExecError::Step("resetting the session", error))?;
        match client.simple_query("COMMIT").await {
            Ok(_) => Ok(result),
            Err(error) if is_connection_lost(&error) => {
                Err(ExecError::Refused(Box::new(job_error(
                    "COMMIT",
                    server_error(&error),
                    vec![
                        "the connection was lost, so the outcome is unknown: all changes are committed or none; \
                         check before you run it again"
                            .into(),
                    ],
                ))))
            }
            Err(error) => Err(ExecError::Step("COMMIT", error)),
        }
    }

    /// Returns the transaction's start, roles, schema and mode, which the SQL must not change.
    async fn identity(&self, session: &Session) -> Result<Vec<Option<String>>, ExecError> {
        let rows = session
            .rows("SELECT pg_catalog.now(), current_user, session_user, pg_catalog.current_schema(), pg_catalog.current_setting('transaction_read_only')")
            .await
            .map_err(|error| ExecError::Step("checking the transaction", error))?;
        Ok(rows
            .first()
            .map(|row| (0..row.len()).map(|at| row.optional(at).map(str::to_owned)).collect())
            .unwrap_or_default())
    }

    /// Runs the last statement, and sends its rows or its command tag to the output.
    async fn last(
        &self,
        session: &Session,
        statement: &str,
        kinds: Option<Vec<Type>>,
        writer: &mut ResultWriter,
    ) -> Result<String, ExecError> {
        let number = self.sql.statements().len() - 1;
        let failed = |error| ExecError::Statement(number, error);
        let messages = session.client().simple_query_raw(statement).await;
        let mut messages = std::pin::pin!(messages.map_err(failed)?);
        let (mut rows, mut has_columns, mut affected) = (0_u64, false, 0);
        while let Some(message) = messages.next().await {
            match message.map_err(failed)? {
                SimpleQueryMessage::RowDescription(columns) => {
                    has_columns = true;
                    let kind = |at: usize| {
                        let kinds = kinds.as_ref();
                        kinds.and_then(|kinds| kinds.get(at)).map(column_type)
                    };
                    let columns = columns.iter().enumerate().map(|(at, column)| Column {
                        name: column.name().to_owned(),
                        kind: kind(at).unwrap_or_default(),
                    });
                    announce(writer, columns.collect()).await?;
                }
                SimpleQueryMessage::Row(row) => {
                    rows += 1;
                    let values = (0..row.len()).map(|at| Ok(row.try_get(at)?.map(str::to_owned)));
                    writer.row(values.collect::<Result<_, Error>>().map_err(failed)?).await;
                }
                SimpleQueryMessage::CommandComplete(count) => affected = count,
                _ => {}
            }
        }
        if has_columns {
            return Ok(format!("{rows} row{}", if rows == 1 { "" } else { "s" }));
        }
        let name = self.sql.name(number);
        let tag = match name.as_str() {
            "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY" | "WITH" => {
                format!("{name} {affected}")
            }
            _ => name,
        };
        let result = Column { name: "result".to_owned(), kind: ColumnType::Text };
        announce(writer, vec![result]).await?;
        writer.row(vec![Some(tag.clone())]).await;
        Ok(tag)
    }

    /// Fails if the transaction changed anything outside the schema.
    async fn stays_inside(&self, session: &Session, target: &Target) -> Result<(), ExecError> {
        let looking = |error| ExecError::Step("checking for changes outside the schema", error);
        let path = "SET LOCAL search_path TO pg_catalog";
        session.client().simple_query(path).await.map_err(looking)?;
        let findings = escape_guard::inspect(session, &target.schema, &self.guard_rules, true)
            .await
            .map_err(looking)?;
        let outside = escape_guard::outside(&self.database, None, &target.schema, findings).await;
        let outside = outside.map_err(|error| {
            let doing = "looking at what was touched outside the schema";
            ExecError::Refused(Box::new(job_error(doing, error, Vec::new())))
        })?;
        if outside.is_empty() {
            return Ok(());
        }
        Err(ExecError::refused(
            "running the SQL",
            format!(
                "it changed objects outside the tenant's schema: {}",
                outside.describe(&[]).join(", ")
            ),
            "it was rolled back; change shared tables with a shared migration or psql",
        ))
    }

    async fn job_failure(&self, failure: ExecError, target: &Target) -> JobFailure {
        match failure {
            ExecError::Refused(error) => (*error).into(),
            ExecError::Step(doing, error) => failed(doing, server_error(&error), Vec::new()),
            ExecError::Statement(number, error) => {
                let sql = self.sql.statements().nth(number).unwrap_or_default();
                let mut server = error_in(sql, &error);
                let place = match error.as_db_error().and_then(|db| db.position()) {
                    Some(ErrorPosition::Original(position)) => {
                        Some(self.sql.location(number, *position as usize))
                    }
                    _ => self.sql.location_in_code(number, inner_error(&error)),
                };
                let at = match place {
                    Some(Location { line, column: Some(column), .. }) => {
                        format!("the SQL at {line}:{column}")
                    }
                    _ => format!("the SQL at line {}", self.sql.location(number, 1).line),
                };
                if server.has_sqlstate(sqlstate::QUERY_CANCELED) && !self.timeout.is_zero() {
                    server.hint = Some("raise --timeout, the limit for each statement".into());
                }
                if server.has_sqlstate(sqlstate::READ_ONLY_SQL_TRANSACTION) && !self.write {
                    server.hint = Some("exec is read-only; to change rows, add --write".into());
                }
                let hints = self.pending_hint.hint(target, &server).await.into_iter().collect();
                failed(&at, server, hints)
            }
        }
    }
}

/// Announces the columns of a tenant's rows, which must be those of the first tenant.
async fn announce(writer: &mut ResultWriter, columns: Vec<Column>) -> Result<(), ExecError> {
    let names = |columns: &[Column]| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        names.join(", ")
    };
    let own = names(&columns);
    writer.columns(columns).await.map_err(|first| {
        ExecError::refused(
            "merging the results",
            format!("its columns are {own}, and those of the first tenant {}", names(&first)),
            "name the columns instead of *, or migrate the tenants to one version",
        )
    })
}

/// Returns how the output represents values of a type.
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

fn job_error(doing: &str, error: ServerError, hints: Vec<Hint>) -> MigrateError {
    MigrateError::Job { doing: doing.to_owned(), error, hints }
}

fn failed(doing: &str, error: ServerError, hints: Vec<Hint>) -> JobFailure {
    job_error(doing, error, hints).into()
}
