//! The schema `pricesync`: the tables of pricesync, created and upgraded by embedded migrations.
//!
//! Imports `connection` and `transaction`. Start reading at `ensure`; the tables are in `migrations/`.

pub mod run_log;

use std::ops::ControlFlow;

use tokio_postgres::Error;

use crate::domain::plan::{Goal, Plan};
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::{MigrationSet, Script};
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT};
use crate::postgres::connection::server_error::{is_connection_lost, server_error, sqlstate_of};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::transaction::batch::{Batch, BatchError};
use crate::postgres::transaction::escape_guard::create_finish;
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, open};
use crate::postgres::transaction::retry::{GaveUp, Retry, TxError};
use crate::postgres::transaction::settings::ASYNC_COMMIT;
use crate::service::event::Progress;
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::Interrupts;

const FILES: [(&str, &str); 5] = [
    ("V1__unfinished_script.sql", include_str!("migrations/V1__unfinished_script.sql")),
    ("V2__ledger.sql", include_str!("migrations/V2__ledger.sql")),
    ("V3__runs.sql", include_str!("migrations/V3__runs.sql")),
    ("V4__template.sql", include_str!("migrations/V4__template.sql")),
    ("V5__trash.sql", include_str!("migrations/V5__trash.sql")),
];

fn files() -> MigrationSet {
    let finish = create_finish();
    let files = [FILES.as_slice(), &[("V6__finish.sql", &finish)]].concat();
    MigrationSet::embedded(Scope::Tenant, &files).expect("the embedded files are valid")
}

/// Why the tables could not be created.
struct InstallError(MigrateError);

impl InstallError {
    fn database(error: ServerError) -> Self {
        Self(MigrateError::Database {
            doing: format!("creating the schema {}", SchemaName::bookkeeping()),
            error,
        })
    }
}

impl From<GaveUp> for InstallError {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::Locked { holder, waited } => Self(MigrateError::Locked { holder, waited }),
            GaveUp::NotConnected(error) | GaveUp::Lost(error) | GaveUp::Unknown(error) => {
                Self::database(error)
            }
            GaveUp::Cancelled => Self::database(ServerError {
                message: "interrupted".to_owned(),
                ..ServerError::default()
            }),
        }
    }
}

/// Creates or upgrades the schema and its tables where they are not current.
///
/// # Errors
///
/// The server's error, most often a missing CREATE privilege on the database.
pub(crate) async fn ensure(
    database: &Database,
    options: &EngineOptions,
    interrupts: Interrupts,
) -> Result<(), MigrateError> {
    let (silent, _) = Progress::channel();
    let retry = Retry::new(database, options, &silent, interrupts);
    let refused = |error: &Error| InstallError::database(server_error(error));
    let mut attempts = retry.attempts();
    loop {
        // A run that continues without the ledger after a lost connection would leave stale rows in it.
        let outcome = match database.session(RECONNECT_TIMEOUT).await {
            Ok(session) => {
                let installed = retry.until_cancelled(&session, install(&session, options)).await;
                let installed = match installed {
                    Ok(installed) => installed,
                    Err(gave_up) => Err(gave_up.into()),
                };
                if installed.is_err() {
                    session.discard();
                }
                installed
            }
            Err(error) => Err(TxError::Refused(InstallError::database(error))),
        };
        if let ControlFlow::Break(result) = attempts.next(refused, outcome).await {
            return result.map_err(|InstallError(error)| error);
        }
    }
}

/// Returns whether the tables are current, as they are from the second run on.
async fn is_current(session: &Session, options: &EngineOptions) -> bool {
    let history = qualified(&SchemaName::bookkeeping(), &options.history_table);
    let rows = session.read(&format!("SELECT count(*) FROM {history}")).await;
    let applied = |row: &Row| row.parse::<usize>(0).ok();
    // A newer version of pricesync may have added more, which is harmless.
    rows.is_ok_and(|rows| rows.first().and_then(applied) > Some(FILES.len()))
}

async fn install(session: &Session, options: &EngineOptions) -> Result<(), TxError<InstallError>> {
    if is_current(session, options).await {
        return Ok(());
    }
    let schema = SchemaName::bookkeeping();
    // A role without CREATE on the database may use a schema that an administrator created.
    let sql = format!(
        "{ASYNC_COMMIT}; DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{schema}') \
         THEN CREATE SCHEMA IF NOT EXISTS {}; END IF; END $$",
        schema.quoted()
    );
    match session.rows(&sql).await {
        // Another session created it at the same time: IF NOT EXISTS does not prevent that error.
        Err(error)
            if !matches!(
                sqlstate_of(&error),
                Some(sqlstate::UNIQUE_VIOLATION | sqlstate::DUPLICATE_SCHEMA)
            ) =>
        {
            return Err(error.into());
        }
        _ => {}
    }
    let options = EngineOptions { search_path: Vec::new(), ..options.clone() };
    let target = Target { schema, label: "pricesync".to_owned(), scope: Scope::Shared };
    let opened = open_transaction(session, &options, &target, true).await?;
    upgrade(session, &options, &target, &opened).await
}

async fn open_transaction(
    session: &Session,
    options: &EngineOptions,
    target: &Target,
    expect_history: bool,
) -> Result<OpenTransaction, TxError<InstallError>> {
    let refused = |message: String| {
        TxError::Refused(InstallError::database(ServerError {
            sqlstate: Some(sqlstate::INSUFFICIENT_PRIVILEGE.to_owned()),
            message,
            ..ServerError::default()
        }))
    };
    match open(session, options, target, expect_history).await? {
        OpenOutcome::Ready(opened) => Ok(opened),
        OpenOutcome::Expect(history) => {
            Box::pin(open_transaction(session, options, target, history)).await
        }
        OpenOutcome::Busy(oid) => Err(TxError::Busy(oid)),
        OpenOutcome::NotUsable(role) => {
            Err(refused(format!("role '{role}' lacks USAGE on the schema")))
        }
        OpenOutcome::NoSchema | OpenOutcome::NoTenant | OpenOutcome::Dropping => {
            Err(refused("the schema was dropped in the meantime".to_owned()))
        }
    }
}

/// Runs the pending migrations in the open transaction and commits it.
async fn upgrade(
    session: &Session,
    options: &EngineOptions,
    target: &Target,
    opened: &OpenTransaction,
) -> Result<(), TxError<InstallError>> {
    let failed = |error: MigrateError| TxError::Refused(InstallError(error));
    let set = files();
    let history = opened.history.as_ref();
    let history =
        history.map_err(|why| failed(MigrateError::DamagedHistory { why: why.clone() }))?;
    let plan = Plan::compare(set.ids(), history, Goal::Latest)
        .map_err(|drifts| failed(MigrateError::Drift { drifts }))?;
    let pending = plan.pending.iter().map(|&index| &set.scripts()[index]);
    let pending: Vec<&Script> = pending.collect();
    let batch = Batch::new(options, target, opened.has_history, &pending, false);
    let (silent, _) = Progress::channel();
    let outcome = batch.run(session, opened, &target.schema, &FinalCheck::Skip, &silent).await;
    match outcome {
        Ok(_) => {}
        Err(BatchError::Script(_, _, error) | BatchError::Internal(error)) => {
            return Err(error.into());
        }
        Err(BatchError::Identity(..) | BatchError::LedgerMissing) => {
            unreachable!("embedded files only define, and no ledger is written")
        }
    }
    match session.client().simple_query("COMMIT").await {
        // The next attempt reads what was committed.
        Err(error) if is_connection_lost(&error) => {
            Err(TxError::Lost(Box::new(server_error(&error))))
        }
        committed => Ok(committed.map(drop)?),
    }
}
