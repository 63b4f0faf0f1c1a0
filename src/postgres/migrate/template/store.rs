//! Stores templates between runs, and provides the template of a run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio::sync::OnceCell;
use tokio_postgres::Error;

use super::{Compiled, Template, compile, key};
use crate::domain::schema_name::SchemaName;
use crate::migrations::Script;
use crate::postgres::bookkeeping;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::fingerprint::digest;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::settings::{ASYNC_COMMIT, discard, reset};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::Interrupts;

/// With fewer empty schemas than this, a run does not compile a template.
const WORTH_COMPILING: usize = 20;

/// The stored template for some scripts.
#[derive(Debug)]
pub(crate) struct StoredTemplate {
    /// The digest of what it depends on.
    pub(crate) key: String,
    /// The template, or why there is none; `None` where nothing is stored or its seal is wrong.
    pub(crate) compiled: Option<Compiled>,
}

impl StoredTemplate {
    /// Returns the template, if it exists.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.compiled.as_ref()?.as_ref().ok()
    }
}

/// Reads the stored template for these scripts.
///
/// A template is SQL to be run, so a row is valid only if its seal is right and the table belongs to this
/// role, to the owner of the database or to a superuser.
pub(crate) async fn load(
    session: &Session,
    options: &EngineOptions,
    role: &str,
    scripts: &[&Script],
) -> Result<StoredTemplate, Error> {
    let public = public_state(options);
    // A scalar subquery, because the planner turns EXISTS into a join that reads all of pg_class.
    let sql = format!(
        "SELECT {public}, t.key, t.sql, t.fingerprint, t.reason, t.seal FROM (SELECT) one LEFT JOIN {}.template t \
         ON (SELECT r.rolname = current_user OR r.rolsuper OR r.oid = (SELECT datdba FROM pg_database WHERE datname = current_database()) \
         FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = t.tableoid)",
        SchemaName::bookkeeping().quoted()
    );
    let rows = match session.read(&sql).await {
        Ok(rows) => rows,
        Err(error) if session.client().is_closed() => return Err(error),
        // The table is missing or not readable: nothing is stored.
        Err(_) => session.read(&format!("SELECT {public}")).await?,
    };
    let state = rows.first().and_then(|row| row.optional(0)).unwrap_or_default();
    let key = key(scripts, options, role, state);
    let cell = |row: &Row, column| row.optional(column).map(str::to_owned);
    let row = rows.iter().find(|row| row.len() > 1 && row.optional(1) == Some(&key));
    let compiled = row.and_then(|row| {
        let (sql, fingerprint, reason) = (cell(row, 2), cell(row, 3), cell(row, 4));
        let compiled = match (sql, fingerprint, reason) {
            (Some(sql), Some(fingerprint), None) => Ok(Template { sql, fingerprint }),
            (None, None, Some(reason)) => Err(reason),
            _ => return None,
        };
        (row.optional(5) == Some(&seal(&key, &compiled))).then_some(compiled)
    });
    Ok(StoredTemplate { key, compiled })
}

/// Returns the stored reason why these scripts have no template.
#[cfg(feature = "cli")]
pub(crate) async fn stored_refusal(
    database: &Database,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Option<String> {
    let session = database.session(Duration::ZERO).await.ok()?;
    let stored = load(&session, options, &database.facts().role, scripts).await.ok()?;
    stored.compiled?.err()
}

/// Returns an expression for the state of `public` as its history records it, and for the settings that
/// change what literals mean.
fn public_state(options: &EngineOptions) -> String {
    let table = qualified(&SchemaName::public(), &options.history_table);
    let table_literal = escape_literal(&table);
    let query = escape_literal(&format!("SELECT version, checksum FROM {table} ORDER BY version"));
    format!(
        "concat_ws(' ', CASE WHEN to_regclass({table_literal}) IS NOT NULL THEN encode(sha256(convert_to(\
         query_to_xml({query}, false, false, '')::text, 'UTF8')), 'hex') ELSE '' END, \
         current_setting('TimeZone'), current_setting('DateStyle'), current_setting('IntervalStyle'), \
         current_setting('lc_monetary'), current_setting('xmloption'), current_setting('default_text_search_config'), \
         current_setting('default_tablespace'), current_setting('default_table_access_method'))"
    )
}

fn seal(key: &str, compiled: &Compiled) -> String {
    match compiled {
        Ok(template) => digest([key, &*template.sql, &*template.fingerprint].into_iter()),
        Err(reason) => digest([key, &**reason].into_iter()),
    }
}

/// Stores the compiled template and deletes all others.
pub(crate) async fn store(
    database: &Database,
    options: &EngineOptions,
    key: &str,
    compiled: &Compiled,
) -> Result<(), ServerError> {
    if let Err(error) = bookkeeping::ensure(database, options, Interrupts::never()).await {
        let message = match error {
            MigrateError::Database { error, .. } => return Err(error),
            other => format!("{other:?}"),
        };
        return Err(ServerError { message, ..ServerError::default() });
    }
    let session = database.session(Duration::ZERO).await?;
    let literal = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), escape_literal);
    let (sql, fingerprint, reason) = match compiled {
        Ok(template) => (Some(&*template.sql), Some(&*template.fingerprint), None),
        Err(reason) => (None, None, Some(&**reason)),
    };
    let table = qualified(&SchemaName::bookkeeping(), "template");
    // One message is one transaction.
    let store = format!(
        "{}{ASYNC_COMMIT}; DELETE FROM {table}; INSERT INTO {table} (key, sql, fingerprint, reason, seal) VALUES ({}, {}, {}, {}, {}) \
         ON CONFLICT (key) DO NOTHING",
        reset(options.route),
        escape_literal(key),
        literal(sql),
        literal(fingerprint),
        literal(reason),
        literal(Some(&seal(key, compiled)))
    );
    let discard = discard(options.route);
    session.rows(discard).await.map_err(|error| server_error(&error))?;
    let stored = session.rows(&store).await;
    stored.map(drop).map_err(|error| server_error(&error))
}

/// The template of a run, loaded or compiled for the first empty schema.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    /// How many empty schemas the survey found.
    empty: AtomicUsize,
    found: OnceCell<Option<Template>>,
    /// Whether the fingerprint of a schema that it filled in this run was right.
    verified: AtomicBool,
    /// Whether the fingerprint of a schema that it filled was wrong.
    rejected: AtomicBool,
}

impl Templates {
    /// Sets how many of the surveyed schemas have no history.
    pub(crate) fn expect(&self, empty: usize) {
        self.empty.fetch_max(empty, Ordering::Relaxed);
    }

    /// Returns the template for the scripts if empty schemas are expected and it is stored or worth
    /// compiling. All tasks wait for the first caller, so callers must not hold a connection.
    pub(crate) async fn get(
        &self,
        database: &Database,
        options: &EngineOptions,
        scripts: &[&Script],
    ) -> Option<&Template> {
        let empty = self.empty.load(Ordering::Relaxed);
        if empty == 0 || scripts.is_empty() || self.rejected.load(Ordering::Relaxed) {
            return None;
        }
        let find = || async {
            // On every error the files can be run.
            self.find(database, options, scripts, empty).await.ok().flatten()
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
        let said = |error: Error| server_error(&error);
        let session = database.session(Duration::ZERO).await?;
        let role = &database.facts().role;
        let stored = load(&session, options, role, scripts).await.map_err(said)?;
        if let Some(compiled) = stored.compiled {
            return Ok(compiled.ok());
        }
        if empty < WORTH_COMPILING {
            return Ok(None);
        }
        drop(session);
        let compiled = compile(database, options, scripts).await?;
        // Compiling has compared it with the files.
        self.verified.store(compiled.is_ok(), Ordering::Relaxed);
        // A template that cannot be stored is compiled again by the next run.
        let _ = store(database, options, &stored.key, &compiled).await;
        Ok(compiled.ok())
    }

    /// Returns whether the fingerprint need not be compared any more in this run.
    pub(crate) fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Relaxed)
    }

    /// Marks the template as verified: the fingerprint of a schema that it filled was right.
    pub(crate) fn verify(&self) {
        self.verified.store(true, Ordering::Relaxed);
    }

    /// Stops using the template in this run.
    pub(crate) fn reject(&self) {
        self.rejected.store(true, Ordering::Relaxed);
    }
}
