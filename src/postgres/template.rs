//! Templates: one script that makes an empty schema what all files one by one would make it.
//!
//! A script that says at once what a table is like at the end is cheaper for the server
//! than the history of the table. It is written from the server's own catalog, after the files
//! have run into a scratch schema, and is a template only if a second scratch schema that it
//! made has the same fingerprint. So whatever the writer does not know means that there is
//! no template, never that a tenant is different.

mod applying;
mod storage;
mod writing;

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use tokio_postgres::Error;

use super::diagnostics::server_error;
use super::fingerprint::{Fingerprint, digest};
use super::guard::seen_by_others;
use super::migrator::Rules;
use super::pool::{Database, Session};
use super::runner;
use super::transaction::{
    Batch, Ending, Opening, Reach, WorkError, begin, interpret, probe, rollback, settings,
};
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::migrations::{MigrationSet, Script, Transaction};
use crate::service::event::{Progress, ServerError, Target};

pub(super) use applying::{Applying, Unfit};
pub(super) use storage::{Kept, Templates, load, store};

/// Counted up when the writer learns something, so that older templates are written anew.
const FORMAT: &str = "1";

/// A script that makes a schema, proven to make the same as the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    /// Statements with bare names, to run with the schema as the path.
    pub(super) sql: String,
    /// Hash of the [`Fingerprint`] of what they make, together with an empty history table.
    pub(super) fingerprint: String,
}

/// A template, or why there is none.
pub(super) type Compiled = Result<Template, String>;

/// Returns the scripts that one transaction applies to an empty schema: those before the
/// first one that runs without a transaction.
pub(super) fn together(set: &MigrationSet) -> Vec<&Script> {
    let inside = |script: &&Script| script.transaction == Transaction::Inside;
    set.scripts().iter().take_while(inside).collect()
}

/// Returns the digest of everything that a template for these scripts is made from.
///
/// `public` is the state of the shared schema, whose tables the scripts may name.
fn key(scripts: &[&Script], rules: &Rules, role: &str, public: &str) -> String {
    let mut texts = vec![
        FORMAT.to_owned(),
        (rules.server_version / 10_000).to_string(),
        role.to_owned(),
        public.to_owned(),
        rules.history_table.clone(),
        rules.search_path.len().to_string(),
    ];
    texts.extend(rules.search_path.iter().map(ToString::to_string));
    for script in scripts {
        texts.extend([script.id.to_string(), script.text.to_string()]);
    }
    digest(texts.iter().map(String::as_str))
}

/// Writes the template for these scripts in a transaction that is rolled back.
///
/// # Errors
///
/// Only connections that cannot be had or break. Whatever else is in the way is the reason
/// why there is no template.
pub(super) async fn compile(
    database: &Database,
    rules: &Rules,
    scripts: &[&Script],
) -> Result<Compiled, ServerError> {
    if let Some(why) = scripts.iter().find_map(|script| script.unpredictable()) {
        return Ok(Err(why));
    }
    let session = database.session(Duration::ZERO).await?;
    let compiled = rehearse(database, &session, rules, scripts).await;
    if let Err(error) = rollback(&session).await {
        session.discard();
        return Err(server_error(&error));
    }
    Ok(compiled.unwrap_or_else(|error| Err(error.to_string())))
}

async fn rehearse(
    database: &Database,
    session: &Session,
    rules: &Rules,
    scripts: &[&Script],
) -> Result<Compiled, ServerError> {
    let said = |error: Error| server_error(&error);
    let table = &rules.history_table;
    let replayed = match replay(database, session, rules, scripts).await? {
        Ok(schema) => schema,
        Err(why) => return Ok(Err(why)),
    };
    let wanted = Fingerprint::read(session, &replayed, table)
        .await
        .map_err(said)?;
    if let Some(filled) = wanted.filled_table() {
        return Ok(Err(format!("the files leave rows behind: {filled}")));
    }
    let sql = match writing::script(session, &replayed, table)
        .await
        .map_err(said)?
    {
        Ok(sql) => sql,
        Err(why) => return Ok(Err(why)),
    };
    if sql.contains(replayed.as_str()) {
        return Ok(Err("something holds the name of the schema".to_owned()));
    }
    let made = scratch();
    let target = target(&made);
    let whole = format!(
        "CREATE SCHEMA {}; {}{} {sql}",
        made.quoted(),
        settings(rules, &target, Reach::Transaction),
        runner::create_history(&made, table)
    );
    if let Err(error) = session.rows(&whole).await {
        let why = format!("the template did not run: {}", server_error(&error));
        return Ok(Err(why));
    }
    let found = Fingerprint::read(session, &made, table)
        .await
        .map_err(said)?;
    Ok(match wanted.first_difference(&found) {
        Some(line) => Err(format!("the template made something else: {line}")),
        None => Ok(Template {
            sql,
            fingerprint: found.hash(),
        }),
    })
}

/// Runs the scripts into a scratch schema the way a tenant gets them.
async fn replay(
    database: &Database,
    session: &Session,
    rules: &Rules,
    scripts: &[&Script],
) -> Result<Result<SchemaName, String>, ServerError> {
    let said = |error: Error| server_error(&error);
    let schema = scratch();
    let target = target(&schema);
    session.rows("DISCARD ALL").await.map_err(said)?;
    let open = format!(
        "{}CREATE SCHEMA {}; {}",
        begin(rules, &target),
        schema.quoted(),
        probe(&schema, &rules.history_table)
    );
    let rows = session.rows(&open).await.map_err(said)?;
    let Opening::Ready(opened) = interpret(&rows, &schema) else {
        return Ok(Err("the scratch schema could not be entered".to_owned()));
    };
    let create_history = runner::create_history(&schema, &rules.history_table);
    let mut batch = Batch::new(Some(create_history.trim_end_matches(';')));
    for script in scripts {
        batch.push(&schema, &rules.history_table, script, false);
    }
    let (silent, _nobody) = Progress::channel();
    let mut touched = match batch
        .run(session, &opened, &schema, &Ending::Guarded, &silent)
        .await
    {
        Ok(worked) => worked.touched,
        Err(WorkError::Identity(_, why)) => return Ok(Err(why)),
        Err(WorkError::NoLedger) => unreachable!("it is not asked here"),
        Err(WorkError::Script(_, _, error) | WorkError::Ours(error)) => return Err(said(error)),
    };
    if touched.is_open() {
        let other = database.session(Duration::ZERO).await?;
        let seen = seen_by_others(&other, &schema, &touched).await;
        touched.outside.extend(seen.map_err(said)?);
    }
    Ok(match touched.outside.first() {
        Some(what) => Err(format!("the files touch {what}")),
        None => Ok(schema),
    })
}

/// Nobody can guess the name, so nothing in a file can mean it.
fn scratch() -> SchemaName {
    let chance = |salt: u8| RandomState::new().hash_one((Instant::now(), salt));
    let name = format!("pricesync_scratch_{:016x}{:016x}", chance(0), chance(1));
    SchemaName::parse(&name).expect("50 plain letters and digits, which nobody has reserved")
}

fn target(schema: &SchemaName) -> Target {
    Target {
        schema: schema.clone(),
        label: "template".to_owned(),
        scope: Scope::Tenant,
    }
}
