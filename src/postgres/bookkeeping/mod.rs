//! The schema `pricesync`: our own tables, made and upgraded by our own migrations.

pub mod run_log;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::plan::Goal;
use crate::domain::run_options::Atomic;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::MigrationSet;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT};
use crate::postgres::connection::server_error::{server_error, sqlstate_of};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::transaction::escape_guard::FINISH;
use crate::postgres::transaction::history::qualified;
use crate::service::event::Progress;
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::{Interrupts, SchemaJob as _};

/// For transactions that change nothing but our own tables: they wait for no standby. What they
/// note is proven or made again where it is lost, and a missing standby has to be told of first.
pub(crate) const UNCONFIRMED: &str = "SET LOCAL synchronous_commit TO local";

const FILES: &[(&str, &str)] = &[
    (
        "V1__unfinished_script.sql",
        include_str!("migrations/V1__unfinished_script.sql"),
    ),
    ("V2__ledger.sql", include_str!("migrations/V2__ledger.sql")),
    ("V3__runs.sql", include_str!("migrations/V3__runs.sql")),
    (
        "V4__template.sql",
        include_str!("migrations/V4__template.sql"),
    ),
    ("V5__trash.sql", include_str!("migrations/V5__trash.sql")),
    ("V6__finish.sql", FINISH),
];

/// Makes sure that the schema and its tables are there.
///
/// # Errors
///
/// What the server refuses, most often CREATE on the database.
pub(crate) fn ensure<'a>(database: &'a Database, options: &'a EngineOptions) -> Ensuring<'a> {
    Box::pin(async {
        let give_up = Instant::now() + RECONNECT_TIMEOUT;
        loop {
            // A run that gave up its ledger because of a broken connection would leave rows in
            // it that say what is no longer so.
            match create(database, options).await {
                Err(MigrateError::Database { error, .. })
                    if is_passing(&error) && Instant::now() < give_up => {}
                done => return done,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

/// Returns whether the connection was lost, or there was none to be had.
fn is_passing(error: &ServerError) -> bool {
    let code = error.sqlstate.as_deref();
    code.is_none_or(|code| {
        sqlstate::is_connection_lost(code) || code == sqlstate::TOO_MANY_CONNECTIONS
    })
}

/// Boxed and of a named type, because migrating may ask for the bookkeeping, which migrates.
type Ensuring<'a> = Pin<Box<dyn Future<Output = Result<(), MigrateError>> + Send + 'a>>;

/// Returns whether there is nothing to do, which is so but for the first time.
async fn is_current(session: &Session, options: &EngineOptions) -> bool {
    let history = qualified(&SchemaName::bookkeeping(), &options.history_table);
    let rows = session
        .read(&format!("SELECT count(*) FROM {history}"))
        .await;
    let applied = |row: &Row| row.optional(0)?.parse::<usize>().ok();
    // A newer pricesync may have been here; what it added is not in our way.
    rows.is_ok_and(|rows| rows.first().and_then(applied) >= Some(FILES.len()))
}

async fn create(database: &Database, options: &EngineOptions) -> Result<(), MigrateError> {
    let schema = SchemaName::bookkeeping();
    let failed = |error| MigrateError::Database {
        doing: format!("creating the schema {}", SchemaName::bookkeeping()),
        error,
    };
    let session = database.session(Duration::ZERO).await.map_err(failed)?;
    if is_current(&session, options).await {
        return Ok(());
    }
    // A role that may not create schemas may still use one that an administrator made.
    let sql = format!(
        "{UNCONFIRMED}; DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{schema}') \
         THEN CREATE SCHEMA IF NOT EXISTS {}; END IF; END $$",
        schema.quoted()
    );
    match session.rows(&sql).await {
        // Two sessions at once: IF NOT EXISTS is not safe against itself.
        Err(error)
            if !matches!(
                sqlstate_of(&error),
                Some(sqlstate::UNIQUE_VIOLATION | sqlstate::DUPLICATE_SCHEMA)
            ) =>
        {
            return Err(failed(server_error(&error)));
        }
        _ => {}
    }
    // The migration takes a connection of its own.
    drop(session);
    let set =
        Arc::new(MigrationSet::embedded(Scope::Tenant, FILES).expect("our own files are tested"));
    let options = EngineOptions {
        atomic: Atomic::Schema,
        goal: Goal::Latest,
        search_path: Vec::new(),
        unlisted: true,
        templates: false,
        ..options.clone()
    };
    let migrator = PostgresMigrator::new(database.clone(), options, Arc::clone(&set), set);
    let target = Target {
        schema,
        label: "pricesync".to_owned(),
        scope: Scope::Tenant,
    };
    let (silent, _) = Progress::channel();
    let (_nobody, interrupts) = Interrupts::new();
    let migrated = migrator.run(&target, &silent, interrupts).await;
    migrated.map(drop).map_err(|failed| *failed.error)
}
