//! Opens a schema's transaction under its advisory lock and reads its history.
//!
//! All statements whose text does not depend on a reply are sent at once, so that a schema costs three
//! round trips: open, work, COMMIT.

use futures_util::future::{join3, try_join_all};
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::advisory_lock::CLASS;
use super::history::{self, History};
use super::settings::{BEGIN, SettingScope, begin, schema_settings, session_setup};
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::postgres::connection::catalog_sql::select_missing;
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::sqlstate_of;
use crate::postgres::connection::session::{Row, Session};

/// A transaction that is open in a schema, under the schema's lock.
pub(crate) struct OpenTransaction {
    /// Process id of its backend.
    pub(crate) pid: i32,
    pub(crate) schema_oid: u32,
    /// Whether the schema has a history table.
    pub(crate) has_history: bool,
    /// The history, read under the lock.
    pub(crate) history: History,
    pub(crate) identity: TransactionIdentity,
}

/// What a script must not change: transaction, roles, current schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionIdentity {
    /// As `pg_current_xact_id()` names it.
    pub(crate) transaction: String,
    pub(crate) role: String,
    pub(crate) session_role: String,
    pub(crate) schema: String,
}

impl OpenTransaction {
    /// Returns whether the second to fifth columns are the identity with which the transaction started.
    pub(crate) fn is_unchanged(&self, row: &Row) -> bool {
        let identity = &self.identity;
        [&identity.transaction, &identity.role, &identity.session_role, &identity.schema]
            .into_iter()
            .enumerate()
            .all(|(index, before)| row.optional(index + 1) == Some(before))
    }
}

/// The outcome of opening a transaction.
pub(crate) enum OpenOutcome {
    Ready(OpenTransaction),
    /// The schema does not exist.
    NoSchema,
    /// The tenant's row does not exist.
    NoTenant,
    /// The tenant is being dropped.
    Dropping,
    /// This role lacks USAGE on the schema, so that names would be looked up in other schemas.
    NotUsable(String),
    /// Another session holds the lock of the schema with this oid.
    Busy(u32),
    /// The history table exists, or does not, contrary to the expectation: retry with this one.
    Expect(bool),
}

/// Opens a transaction in the schema and reads its history, in one round trip.
///
/// `expect_history` is a guess, and [`OpenOutcome::Expect`] corrects it. Unless the outcome is
/// [`OpenOutcome::Ready`], the transaction is rolled back. Without a pooler the settings that hold for
/// every schema are the [session's](session_setup): repeating them costs a tenth of a small migration.
pub(crate) async fn open(
    session: &Session,
    options: &EngineOptions,
    target: &Target,
    expect_history: bool,
) -> Result<OpenOutcome, Error> {
    let schema = &target.schema;
    let mut opening = match options.route {
        Route::Direct => {
            BEGIN.to_owned() + &schema_settings(options, target, SettingScope::Transaction)
        }
        Route::Pooled => begin(options, target),
    };
    opening += &probe(schema, &options.history_table);
    let read = if expect_history {
        // NOWAIT: a waiting statement keeps a snapshot, for which a concurrent index build waits.
        format!(
            "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE NOWAIT; {}",
            history::qualified(schema, &options.history_table),
            history::select(schema, &options.history_table)
        )
    } else {
        String::new()
    };
    let setup = session_setup(session, options);
    let setup = try_join_all(setup.iter().map(|sql| session.client().simple_query(sql)));
    let (setup, opened, read) = join3(setup, session.rows(&opening), session.rows(&read)).await;
    setup?;
    let outcome = match opened {
        Ok(rows) => interpret(&rows, schema)?,
        Err(error) if sqlstate_of(&error) == Some(sqlstate::INVALID_SCHEMA_NAME) => {
            OpenOutcome::NoSchema
        }
        Err(error) => return Err(error),
    };
    let outcome = match outcome {
        OpenOutcome::Ready(opened) if opened.has_history != expect_history => {
            OpenOutcome::Expect(opened.has_history)
        }
        OpenOutcome::Ready(mut opened) => {
            opened.history = history::parse(&read?);
            return Ok(OpenOutcome::Ready(opened));
        }
        other => other,
    };
    rollback(session).await?;
    match outcome {
        OpenOutcome::NoSchema => explain_missing_schema(session, options, target).await,
        other => Ok(other),
    }
}

/// Returns why the schema does not exist, as far as the tenant's row tells.
///
/// A schema that exists needs no such query: it is pinned by its advisory lock, which `drop-schema`
/// takes too, and by the lock on its history table, for which `DROP SCHEMA` waits.
async fn explain_missing_schema(
    session: &Session,
    options: &EngineOptions,
    target: &Target,
) -> Result<OpenOutcome, Error> {
    if target.scope == Scope::Shared {
        return Ok(OpenOutcome::NoSchema);
    }
    let sql = format!(
        "{} AND t.schema_name = {}",
        select_missing(&options.tenants),
        escape_literal(target.schema.as_str())
    );
    let rows = session.read(&sql).await?;
    Ok(match rows.first() {
        None => OpenOutcome::NoTenant,
        Some(row) if row.is_true(1) => OpenOutcome::Dropping,
        Some(_) => OpenOutcome::NoSchema,
    })
}

/// Returns the statements that lock the schema and describe the transaction, for [`interpret`]. They
/// fail where the schema does not exist.
///
/// The lock is a statement of its own, because one that also read the catalog would see it as of before
/// the previous holder committed. No table is read, so there is almost nothing to plan.
pub(crate) fn probe(schema: &SchemaName, history_table: &str) -> String {
    let oid = format!("{}::regnamespace::oid", escape_literal(&schema.quoted().to_string()));
    format!(
        "SELECT {oid}, pg_try_advisory_xact_lock({CLASS}, {oid}::int4); \
         SELECT pg_backend_pid(), current_schema(), to_regclass({})::oid, current_user, session_user, pg_current_xact_id()",
        escape_literal(&history::qualified(schema, history_table)),
    )
}

/// Interprets the rows that [`probe`] returned among those of its message.
pub(crate) fn interpret(rows: &[Row], schema: &SchemaName) -> Result<OpenOutcome, Error> {
    // A `set_config` of the same message returns a row of one column.
    let of_length = |length: usize| rows.iter().find(|row| row.len() == length);
    let (Some(lock), Some(row)) = (of_length(2), of_length(6)) else {
        return Ok(OpenOutcome::NoSchema);
    };
    if row.optional(1) != Some(schema.as_str()) {
        return Ok(OpenOutcome::NotUsable(row.text(3)?.to_owned()));
    }
    let schema_oid = lock.parse(0)?;
    if !lock.is_true(1) {
        return Ok(OpenOutcome::Busy(schema_oid));
    }
    Ok(OpenOutcome::Ready(OpenTransaction {
        pid: row.parse(0)?,
        schema_oid,
        has_history: row.optional(2).is_some(),
        history: Ok(Vec::new()),
        identity: TransactionIdentity {
            transaction: row.text(5)?.to_owned(),
            role: row.text(3)?.to_owned(),
            session_role: row.text(4)?.to_owned(),
            schema: row.text(1)?.to_owned(),
        },
    }))
}

/// Rolls the transaction back.
pub(crate) async fn rollback(session: &Session) -> Result<(), Error> {
    session.client().simple_query("ROLLBACK").await.map(drop)
}
