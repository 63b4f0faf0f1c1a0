//! Templates: one script that makes an empty schema what all files one by one would make it.
//!
//! A script that says at once what a table is like at the end is cheaper for the server
//! than the history of the table. It is written from the server's own catalog, after the files
//! have run into a scratch schema, and is a template only if a second scratch schema that it
//! made has the same fingerprint. So whatever the writer does not know means that there is
//! no template, never that a tenant is different.

pub(crate) mod apply;
pub(crate) mod store;

use crate::postgres::connection::options::EngineOptions;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::migrations::{MigrationSet, Script, Transaction};
use crate::postgres::connection::database::Database;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::ddl;
use crate::postgres::schema::fingerprint::{Fingerprint, digest};
use crate::postgres::transaction::batch::{Batch, Ending, WorkError};
use crate::postgres::transaction::escape_guard::outside;
use crate::postgres::transaction::open::{Opened, Opening, begin, interpret, probe, rollback};
use crate::service::event::Progress;
use crate::service::failure::ServerError;

pub(crate) use apply::{Applying, Unfit};
pub(crate) use store::{Kept, Templates, load, store};

/// Counted up when the writer learns something, so that older templates are written anew.
const FORMAT: &str = "3";

/// A script that makes a schema, proven to make the same as the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// Statements with bare names, to run with the schema as the path.
    pub(crate) sql: String,
    /// Hash of the [`Fingerprint`] of what they make, together with an empty history table.
    pub(crate) fingerprint: String,
}

/// A template, or why there is none.
pub(crate) type Compiled = Result<Template, String>;

/// Returns the scripts that one transaction applies to an empty schema: those before the
/// first one that runs without a transaction.
pub(crate) fn together(set: &MigrationSet) -> Vec<&Script> {
    let inside = |script: &&Script| script.transaction == Transaction::Inside;
    set.scripts().iter().take_while(inside).collect()
}

/// Returns the digest of everything that a template for these scripts is made from.
///
/// `public` is the state of the shared schema, whose tables the scripts may name.
fn key(scripts: &[&Script], options: &EngineOptions, role: &str, public: &str) -> String {
    let mut texts = vec![
        FORMAT.to_owned(),
        (options.server_version / 10_000).to_string(),
        role.to_owned(),
        public.to_owned(),
        options.history_table.clone(),
        options.search_path.len().to_string(),
    ];
    texts.extend(options.search_path.iter().map(ToString::to_string));
    texts.push(format!("{:?}", options.references));
    for script in scripts {
        texts.extend([script.id.to_string(), script.text.to_string()]);
    }
    digest(texts.iter().map(String::as_str))
}

/// Writes the template for these scripts, in two transactions that are rolled back: one for
/// the files, one for what was written. The guard looks on in both, so that it need not do so again
/// wherever the same script runs into a schema that is as empty.
///
/// # Errors
///
/// Only connections that cannot be had or break. Whatever else is in the way is the reason
/// why there is no template.
pub(crate) async fn compile(
    database: &Database,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Result<Compiled, ServerError> {
    if let Some(why) = scripts.iter().find_map(|script| script.nondeterminism()) {
        return Ok(Err(why));
    }
    let session = database.session(Duration::ZERO).await?;
    let compiled = rehearse(database, &session, options, scripts).await;
    if let Err(error) = rollback(&session).await {
        session.discard();
        return Err(server_error(&error));
    }
    Ok(compiled.unwrap_or_else(|error| Err(error.to_string())))
}

/// Returns the columns of every table that these scripts leave in an empty schema, or why that
/// cannot be told; rolled back.
///
/// # Errors
///
/// Only connections that cannot be had or break.
pub(crate) async fn columns(
    database: &Database,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Result<Result<Vec<(String, String)>, String>, ServerError> {
    if let Some(why) = scripts.iter().find_map(|script| script.nondeterminism()) {
        return Ok(Err(why));
    }
    let session = database.session(Duration::ZERO).await?;
    let columns = columns_in(&session, options, scripts).await;
    if let Err(error) = rollback(&session).await {
        session.discard();
        return Err(server_error(&error));
    }
    Ok(columns.unwrap_or_else(|error| Err(error.to_string())))
}

async fn columns_in(
    session: &Session,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Result<Result<Vec<(String, String)>, String>, ServerError> {
    let replayed = scratch();
    let opened = match enter(session, options, &replayed).await? {
        Ok(opened) => opened,
        Err(why) => return Ok(Err(why)),
    };
    let batch = Batch::new(&replayed, &options.history_table, false, scripts, false);
    let (silent, _nobody) = Progress::channel();
    match batch
        .run(session, &opened, &replayed, &Ending::Unguarded, &silent)
        .await
    {
        Ok(_) => {}
        Err(WorkError::Identity(_, why)) => return Ok(Err(why)),
        Err(WorkError::NoLedger) => unreachable!("it is not asked here"),
        Err(WorkError::Script(_, _, error) | WorkError::Ours(error)) => {
            return Err(server_error(&error));
        }
    }
    let sql = format!(
        "SELECT c.relname, a.attname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
         WHERE c.relnamespace = {} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> {}",
        opened.schema_oid,
        postgres_protocol::escape::escape_literal(&options.history_table)
    );
    let rows = session.rows(&sql).await;
    let rows = rows.map_err(|error| server_error(&error))?;
    let pair = |row: &Row| Some((row.optional(0)?.to_owned(), row.optional(1)?.to_owned()));
    Ok(Ok(rows.iter().filter_map(pair).collect()))
}

async fn rehearse(
    database: &Database,
    session: &Session,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Result<Compiled, ServerError> {
    let said = |error: Error| server_error(&error);
    let table = &options.history_table;
    let replayed = scratch();
    let opened = match enter(session, options, &replayed).await? {
        Ok(opened) => opened,
        Err(why) => return Ok(Err(why)),
    };
    let batch = Batch::new(&replayed, table, false, scripts, false);
    let (silent, _nobody) = Progress::channel();
    let touched = match batch
        .run(
            session,
            &opened,
            &replayed,
            &Ending::Guarded(options.references.clone()),
            &silent,
        )
        .await
    {
        Ok(worked) => worked.touched,
        Err(WorkError::Identity(_, why)) => return Ok(Err(why)),
        Err(WorkError::NoLedger) => unreachable!("it is not asked here"),
        Err(WorkError::Script(_, _, error) | WorkError::Ours(error)) => return Err(said(error)),
    };
    if let Some(what) = outside(database, None, &replayed, touched).await?.first() {
        return Ok(Err(format!("the files touch {what}")));
    }
    let wanted = Fingerprint::read(session, &replayed, table)
        .await
        .map_err(said)?;
    if let Some(filled) = wanted.filled_table() {
        return Ok(Err(format!("the files leave rows behind: {filled}")));
    }
    let structure = ddl::read(session, &replayed, Some(table))
        .await
        .map_err(said)?;
    let sql = match structure.script() {
        Ok(sql) => sql,
        Err(why) => return Ok(Err(why)),
    };
    if sql.contains(replayed.as_str()) {
        return Ok(Err("something holds the name of the schema".to_owned()));
    }
    // The guard would take the first schema's locks for an escape.
    rollback(session).await.map_err(said)?;

    let template = Template {
        sql,
        fingerprint: wanted.hash(),
    };
    let made = scratch();
    let opened = match enter(session, options, &made).await? {
        Ok(opened) => opened,
        Err(why) => return Ok(Err(why)),
    };
    let applying = Applying {
        template: &template,
        scripts,
        schema: &made,
        options,
        may_be_filled: false,
        proven: true,
    };
    let touched = match applying
        .run(
            session,
            &opened,
            &Ending::Guarded(options.references.clone()),
            &silent,
        )
        .await
    {
        Ok(worked) => worked.touched,
        Err(Unfit::Server(error)) => {
            let why = format!("the template did not run: {}", said(error));
            return Ok(Err(why));
        }
        Err(Unfit::Identity | Unfit::Different | Unfit::NoLedger) => {
            return Ok(Err("the template left its schema".to_owned()));
        }
    };
    if let Some(what) = outside(database, None, &made, touched).await?.first() {
        return Ok(Err(format!("the template touches {what}")));
    }
    let found = Fingerprint::read(session, &made, table)
        .await
        .map_err(said)?;
    Ok(match wanted.first_difference(&found) {
        Some(line) => Err(format!("the template made something else: {line}")),
        None => Ok(template),
    })
}

/// Makes a scratch schema in a transaction of its own, the way a tenant's is made.
async fn enter(
    session: &Session,
    options: &EngineOptions,
    schema: &SchemaName,
) -> Result<Result<Opened, String>, ServerError> {
    let said = |error: Error| server_error(&error);
    let target = Target {
        schema: schema.clone(),
        label: "template".to_owned(),
        scope: Scope::Tenant,
    };
    session.rows("DISCARD ALL").await.map_err(said)?;
    let open = format!(
        "{}CREATE SCHEMA {}; {}",
        begin(options, &target),
        schema.quoted(),
        probe(schema, &options.history_table)
    );
    let rows = session.rows(&open).await.map_err(said)?;
    Ok(match interpret(&rows, schema) {
        Opening::Ready(opened) => Ok(opened),
        _ => Err("the scratch schema could not be entered".to_owned()),
    })
}

/// Nobody can guess the name, so nothing in a file can mean it.
pub(crate) fn scratch() -> SchemaName {
    let chance = |salt: u8| RandomState::new().hash_one((Instant::now(), salt));
    let name = format!("pricesync_scratch_{:016x}{:016x}", chance(0), chance(1));
    SchemaName::parse(&name).expect("50 plain letters and digits, which nobody has reserved")
}
