//! Where templates are kept between runs, and who gets one within a run.

use crate::postgres::connection::options::EngineOptions;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use postgres_protocol::escape::escape_literal;
use tokio::sync::OnceCell;
use tokio_postgres::Error;

use super::{Compiled, Template, compile, key};
use crate::domain::schema_name::SchemaName;
use crate::migrations::Script;
use crate::postgres::bookkeeping;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::fingerprint::digest;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::ASYNC_COMMIT;
use crate::service::failure::ServerError;

/// Below so many empty schemas a run does not write a template that is not there yet.
const WORTH_COMPILING: usize = 20;

/// What is kept for some scripts.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Under which key.
    pub(crate) key: String,
    /// What was found; `None` where nothing is kept, or somebody edited it.
    pub(crate) compiled: Option<Compiled>,
}

impl Kept {
    /// Returns the template, if there is one.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.compiled.as_ref()?.as_ref().ok()
    }
}

/// Reads what is kept for these scripts, in one query where there is something.
///
/// A row counts only if the table belongs to us, to the owner of the database or to a
/// superuser, and if its seal fits: what stands in it will be run.
pub(crate) async fn load(
    session: &Session,
    options: &EngineOptions,
    role: &str,
    scripts: &[&Script],
) -> Result<Kept, Error> {
    let public = public_state(options);
    // As a value, not as an EXISTS, which the planner turns into a join that reads all of pg_class.
    let sql = format!(
        "SELECT {public}, t.key, t.sql, t.fingerprint, t.reason, t.seal FROM (SELECT) one LEFT JOIN {}.template t \
         ON (SELECT r.rolname = current_user OR r.rolsuper OR r.oid = (SELECT datdba FROM pg_database WHERE datname = current_database()) \
         FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = t.tableoid)",
        SchemaName::bookkeeping().quoted()
    );
    let rows = match session.read(&sql).await {
        Ok(rows) => rows,
        Err(error) if session.client().is_closed() => return Err(error),
        // No such table, or no right to read it: nothing is kept.
        Err(_) => session.read(&format!("SELECT {public}")).await?,
    };
    let state = rows
        .first()
        .and_then(|row| row.optional(0))
        .unwrap_or_default();
    let key = key(scripts, options, role, state);
    let cell = |row: &Row, column| row.optional(column).map(str::to_owned);
    let row = rows
        .iter()
        .find(|row| row.len() > 1 && row.optional(1) == Some(&key));
    let compiled = row.and_then(|row| {
        let (sql, fingerprint, reason) = (cell(row, 2), cell(row, 3), cell(row, 4));
        let compiled = match (sql, fingerprint, reason) {
            (Some(sql), Some(fingerprint), None) => Ok(Template { sql, fingerprint }),
            (None, None, Some(reason)) => Err(reason),
            _ => return None,
        };
        (row.optional(5) == Some(&seal(&key, &compiled))).then_some(compiled)
    });
    Ok(Kept { key, compiled })
}

/// Returns an expression for what `public` is like, as far as its own history tells.
fn public_state(options: &EngineOptions) -> String {
    let table = qualified(&SchemaName::public(), &options.history_table);
    let table_literal = escape_literal(&table);
    let query = escape_literal(&format!(
        "SELECT version, checksum FROM {table} ORDER BY version"
    ));
    format!(
        "CASE WHEN to_regclass({table_literal}) IS NOT NULL THEN encode(sha256(convert_to(\
         query_to_xml({query}, false, false, '')::text, 'UTF8')), 'hex') ELSE '' END"
    )
}

fn seal(key: &str, compiled: &Compiled) -> String {
    match compiled {
        Ok(template) => digest([key, &*template.sql, &*template.fingerprint].into_iter()),
        Err(reason) => digest([key, &**reason].into_iter()),
    }
}

/// Keeps what was compiled instead of whatever was kept before.
pub(crate) async fn store(
    database: &Database,
    options: &EngineOptions,
    key: &str,
    compiled: &Compiled,
) -> Result<(), ServerError> {
    use crate::postgres::connection::server_error::server_error;
    if let Err(error) = bookkeeping::ensure(database, options).await {
        let message = match error {
            crate::service::failure::MigrateError::Database { error, .. } => return Err(error),
            other => format!("{other:?}"),
        };
        return Err(ServerError {
            message,
            ..ServerError::default()
        });
    }
    let session = database.session(std::time::Duration::ZERO).await?;
    let literal = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), escape_literal);
    let (sql, fingerprint, reason) = match compiled {
        Ok(template) => (Some(&*template.sql), Some(&*template.fingerprint), None),
        Err(reason) => (None, None, Some(&**reason)),
    };
    let table = qualified(&SchemaName::bookkeeping(), "template");
    // As one message it is one transaction.
    let store = format!(
        "{ASYNC_COMMIT}; DELETE FROM {table}; INSERT INTO {table} (key, sql, fingerprint, reason, seal) VALUES ({}, {}, {}, {}, {}) \
         ON CONFLICT (key) DO NOTHING",
        escape_literal(key),
        literal(sql),
        literal(fingerprint),
        literal(reason),
        literal(Some(&seal(key, compiled)))
    );
    session
        .rows("DISCARD ALL")
        .await
        .map_err(|error| server_error(&error))?;
    match session.rows(&store).await {
        Ok(_) => Ok(()),
        Err(error) => Err(server_error(&error)),
    }
}

/// The template of a run, found once when the first schema wants it.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    /// How many empty schemas the survey has seen.
    empty: AtomicUsize,
    found: OnceCell<Option<Template>>,
    /// Whether a schema that it made in this run has been compared with its fingerprint.
    proven: AtomicBool,
    /// Whether it made something else than it should.
    refuted: AtomicBool,
}

impl Templates {
    /// Notes how many of the schemas that were surveyed are without a history.
    pub(crate) fn expect(&self, empty: usize) {
        self.empty.fetch_max(empty, Ordering::Relaxed);
    }

    /// Returns the template for the scripts, if empty schemas are expected and one is kept
    /// or worth compiling. Everybody waits for the first who asks. Nobody who asks may hold a connection.
    pub(crate) async fn get(
        &self,
        database: &Database,
        options: &EngineOptions,
        scripts: &[&Script],
    ) -> Option<&Template> {
        let empty = self.empty.load(Ordering::Relaxed);
        if empty == 0 || scripts.is_empty() || self.refuted.load(Ordering::Relaxed) {
            return None;
        }
        let find = || async {
            // Whatever is in the way, the files can be run.
            self.find(database, options, scripts, empty)
                .await
                .ok()
                .flatten()
        };
        self.found.get_or_init(find).await.as_ref()
    }

    async fn find(
        &self,
        database: &Database,
        options: &EngineOptions,
        scripts: &[&Script],
        empty: usize,
    ) -> Result<Option<Template>, ServerError> {
        use crate::postgres::connection::server_error::server_error;
        let said = |error: Error| server_error(&error);
        let session = database.session(std::time::Duration::ZERO).await?;
        let role = &database.facts().role;
        let kept = load(&session, options, role, scripts).await.map_err(said)?;
        if let Some(compiled) = kept.compiled {
            return Ok(compiled.ok());
        }
        if empty < WORTH_COMPILING {
            return Ok(None);
        }
        drop(session);
        let compiled = compile(database, options, scripts).await?;
        // It was compared with the files a moment ago.
        self.proven.store(compiled.is_ok(), Ordering::Relaxed);
        // The next run compiles it again where it cannot be kept.
        let _ = store(database, options, &kept.key, &compiled).await;
        Ok(compiled.ok())
    }

    /// Returns whether what the template makes has to be compared still.
    pub(crate) fn is_unproven(&self) -> bool {
        !self.proven.load(Ordering::Relaxed)
    }

    /// Notes that the template made what it should.
    pub(crate) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Notes that the template made something else, so that nobody gets it any more.
    pub(crate) fn refute(&self) {
        self.refuted.store(true, Ordering::Relaxed);
    }
}
