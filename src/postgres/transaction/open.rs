//! One schema's transaction: opened, and proven to be where it should be; [`batch`](super::batch) fills it.
//!
//! What does not depend on an answer goes out together, so that a schema costs three
//! waits: for the opening, for the work, for COMMIT.

use crate::postgres::connection::options::EngineOptions;
use std::fmt::Write as _;

use futures_util::future::{join3, try_join_all};
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::advisory_lock::CLASS;
use super::history::{self, History};
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::postgres::connection::catalog_sql::select_missing;
use crate::postgres::connection::database::Route;
use crate::postgres::connection::server_error::sqlstate_of;
use crate::postgres::connection::session::{Row, Session};

/// A transaction that is open in a schema, under the schema's lock.
pub(crate) struct Opened {
    /// Our backend.
    pub(crate) pid: i32,
    /// The schema.
    pub(crate) schema_oid: u32,
    /// Whether the schema has a history table.
    pub(crate) has_history: bool,
    /// What it says, read under the lock.
    pub(crate) history: History,
    pub(crate) identity: Identity,
}

/// What a script may not change: transaction, roles, schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) transaction: String,
    pub(crate) role: String,
    pub(crate) session_role: String,
    pub(crate) schema: String,
}

impl Opened {
    /// Returns whether the columns from the second on show what the transaction began with.
    pub(crate) fn is_unchanged(&self, row: &Row) -> bool {
        let identity = &self.identity;
        [
            &identity.transaction,
            &identity.role,
            &identity.session_role,
            &identity.schema,
        ]
        .into_iter()
        .enumerate()
        .all(|(place, was)| row.optional(place + 1) == Some(was))
    }
}

/// What came of asking for a transaction.
pub(crate) enum Opening {
    /// It is open.
    Ready(Opened),
    /// There is no such schema.
    NoSchema,
    /// The tenant's row is gone.
    NoTenant,
    /// The tenant is being dropped.
    Dropping,
    /// The role may not use the schema, so that names would be looked up elsewhere.
    NotUsable(String),
    /// Another session holds the lock of the schema with this oid.
    Busy(u32),
    /// The expectation about the history table was wrong; ask again with this one.
    Expect(bool),
}

/// How far a setting reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It ends with the transaction, so that no pooler can hand it to somebody else.
    Transaction,
    /// It ends with the session, which must be thrown away afterwards.
    Session,
}

impl Reach {
    const fn set(self) -> &'static str {
        match self {
            Self::Transaction => "SET LOCAL",
            Self::Session => "SET",
        }
    }
}

/// Returns the statements that set everything a script depends on: nothing is left to what
/// the role or the database says.
pub(crate) fn settings(options: &EngineOptions, target: &Target, reach: Reach) -> String {
    whereabouts(options, target, reach) + &manners(options, reach)
}

/// Those of the settings that are one schema's.
pub(crate) fn whereabouts(options: &EngineOptions, target: &Target, reach: Reach) -> String {
    let set = reach.set();
    let mut sql = format!("{set} search_path TO {}", target.schema.quoted());
    if target.scope == Scope::Tenant {
        for schema in &options.search_path {
            let _ = write!(sql, ", {}", schema.quoted());
        }
    }
    sql.push_str("; ");
    if target.schema == SchemaName::bookkeeping() {
        let _ = write!(sql, "{set} synchronous_commit TO local; ");
    }
    sql
}

/// Those of the settings that are the same for every schema.
fn manners(options: &EngineOptions, reach: Reach) -> String {
    let set = reach.set();
    let mut sql = format!(
        "{set} lock_timeout TO {}; {set} statement_timeout TO {}; \
         {set} idle_in_transaction_session_timeout TO '5min'; {set} standard_conforming_strings TO on; \
         {set} client_min_messages TO notice; \
         SELECT set_config('synchronous_commit', 'on', {}) WHERE current_setting('synchronous_commit') = 'off'; ",
        options.lock_timeout.as_millis(),
        options.statement_timeout.as_millis(),
        reach == Reach::Transaction
    );
    if options.server_version >= 140_000 {
        // A killed client's backend ends within this time and frees its locks.
        let _ = write!(sql, "{set} client_connection_check_interval TO '2s'; ");
    }
    sql
}

/// What `DISCARD ALL` does, as far as a transaction may: a pooler that shares sessions may have
/// run that one in another. A temporary table that somebody left would come before the tenant's
/// table of the same name, and dropping it here would look to the guard like leaving the schema;
/// so that is an error for which the transaction is run again.
pub(crate) const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ALL; \
     DO $$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_depend \
     WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid = pg_catalog.pg_my_temp_schema()) \
     THEN RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'the pooler shares a session in which somebody left temporary tables'; \
     END IF; END $$; ";

/// Returns [`RESET`] where somebody else may have had the session.
pub(crate) fn reset(route: Route) -> &'static str {
    match route {
        Route::Pooled => RESET,
        Route::Direct => "",
    }
}

/// Returns the statement that goes before those that change the catalog's rows: what an
/// application's triggers there name without a schema is found as in the application.
/// It holds until COMMIT, with which deferred triggers run; nothing in it is a tenant's.
pub(crate) fn lookup(options: &EngineOptions) -> String {
    let path: Vec<String> = options
        .search_path
        .iter()
        .map(|schema| schema.quoted().to_string())
        .collect();
    if path.is_empty() {
        return "SET LOCAL search_path TO pg_catalog; ".to_owned();
    }
    format!("SET LOCAL search_path TO {}; ", path.join(", "))
}

/// For transactions that change only our own tables: they do not wait for a synchronous standby. What
/// they store is verified or stored again where it is lost, and a missing standby must be reported
/// before any wait for it.
pub(crate) const ASYNC_COMMIT: &str = "SET LOCAL synchronous_commit TO local";

pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ";

/// Returns the statements that open a transaction with these settings.
pub(crate) fn begin(options: &EngineOptions, target: &Target) -> String {
    format!(
        "{BEGIN}{}{}",
        reset(options.route),
        settings(options, target, Reach::Transaction)
    )
}

/// Returns the messages that make a session as it has to be before its first transaction: none for one
/// that was [kept](Session::was_kept). One that is nobody else's is told for good what holds for every schema.
pub(crate) fn fresh(session: &Session, options: &EngineOptions) -> Vec<String> {
    let mut messages = Vec::new();
    if !session.was_kept() {
        messages.push("DISCARD ALL".to_owned());
        if options.route == Route::Direct {
            messages.push(manners(options, Reach::Session));
        }
    }
    messages
}

/// Opens a transaction in the schema and reads its history, all in one train of messages.
///
/// `expect_history` is a guess; [`Opening::Expect`] says when it was wrong. Unless the
/// answer is [`Opening::Ready`] the transaction has been rolled back. Settings that hold for every
/// schema are not repeated in a [session that is ours](fresh): that takes the server a tenth of what a
/// small file does.
pub(crate) async fn open(
    session: &Session,
    options: &EngineOptions,
    target: &Target,
    expect_history: bool,
) -> Result<Opening, Error> {
    let schema = &target.schema;
    let is_ours = options.route == Route::Direct;
    let opening = if is_ours {
        BEGIN.to_owned() + &whereabouts(options, target, Reach::Transaction)
    } else {
        begin(options, target)
    };
    let opening = opening + &probe(schema, &options.history_table);
    let read = if expect_history {
        // NOWAIT: whoever waits here would hold a snapshot that an index build waits for.
        format!(
            "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE NOWAIT; {}",
            history::qualified(schema, &options.history_table),
            history::select(schema, &options.history_table)
        )
    } else {
        String::new()
    };
    let reset = fresh(session, options);
    let reset = try_join_all(reset.iter().map(|sql| session.client().simple_query(sql)));
    let (reset, begun, read) = join3(reset, session.rows(&opening), session.rows(&read)).await;
    reset?;
    let opening = match begun {
        Ok(probed) => interpret(&probed, schema),
        Err(error) if sqlstate_of(&error) == Some(sqlstate::INVALID_SCHEMA_NAME) => {
            Opening::NoSchema
        }
        Err(error) => return Err(error),
    };
    let opening = match opening {
        Opening::Ready(opened) if opened.has_history != expect_history => {
            Opening::Expect(opened.has_history)
        }
        Opening::Ready(mut opened) => {
            opened.history = history::parse(&read?);
            return Ok(Opening::Ready(opened));
        }
        other => other,
    };
    rollback(session).await?;
    match opening {
        Opening::NoSchema => why_no_schema(session, options, target).await,
        other => Ok(other),
    }
}

/// Tells why there is no schema: the tenant was dropped, perhaps created again since, or is being
/// dropped, or nobody knows. It is asked for only where the schema is missing: a schema that is
/// there is pinned by its lock, which `drop-schema` takes too, and by the lock on its history,
/// which `DROP SCHEMA` waits for.
async fn why_no_schema(
    session: &Session,
    options: &EngineOptions,
    target: &Target,
) -> Result<Opening, Error> {
    if target.scope == Scope::Shared {
        return Ok(Opening::NoSchema);
    }
    let sql = format!(
        "{} AND t.schema_name = {}",
        select_missing(&options.tenants),
        escape_literal(target.schema.as_str())
    );
    let rows = session.read(&sql).await?;
    Ok(match rows.first() {
        None => Opening::NoTenant,
        Some(row) if row.is_true(1) => Opening::Dropping,
        Some(_) => Opening::NoSchema,
    })
}

/// Is the schema there (an error otherwise), is it free, is it ours to use, has it a history?
///
/// The lock is a statement of its own: one that took it and looked around as well would see
/// what was there before whoever had the lock committed. No table is read, so that there is
/// next to nothing to plan.
pub(crate) fn probe(schema: &SchemaName, history_table: &str) -> String {
    let oid = format!(
        "{}::regnamespace::oid",
        escape_literal(&schema.quoted().to_string())
    );
    format!(
        "SELECT {oid}, pg_try_advisory_xact_lock({CLASS}, {oid}::int4); \
         SELECT pg_backend_pid(), current_schema(), to_regclass({})::oid, current_user, session_user, pg_current_xact_id()",
        escape_literal(&history::qualified(schema, history_table)),
    )
}

/// Reads the answer to [`probe`], found among the rows of its message.
pub(crate) fn interpret(rows: &[Row], schema: &SchemaName) -> Opening {
    // An earlier SELECT of the same message may have brought a row of one column.
    let of_length = |length: usize| rows.iter().find(|row| row.len() == length);
    let (Some(lock), Some(row)) = (of_length(2), of_length(6)) else {
        return Opening::NoSchema;
    };
    let cell = |column: usize| row.optional(column).unwrap_or_default();
    if cell(1) != schema.as_str() {
        return Opening::NotUsable(cell(3).to_owned());
    }
    let schema_oid = lock
        .optional(0)
        .and_then(|oid| oid.parse().ok())
        .unwrap_or_default();
    if !lock.is_true(1) {
        return Opening::Busy(schema_oid);
    }
    Opening::Ready(Opened {
        pid: cell(0).parse().unwrap_or_default(),
        schema_oid,
        has_history: row.optional(2).is_some(),
        history: Ok(Vec::new()),
        identity: Identity {
            transaction: cell(5).to_owned(),
            role: cell(3).to_owned(),
            session_role: cell(4).to_owned(),
            schema: cell(1).to_owned(),
        },
    })
}

/// Ends the transaction without a trace.
pub(crate) async fn rollback(session: &Session) -> Result<(), Error> {
    session.client().simple_query("ROLLBACK").await.map(drop)
}
