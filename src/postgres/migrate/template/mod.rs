//! Templates: one script that fills an empty schema as all files one after another would.
//!
//! Creating the final tables costs the server less than repeating their history. The script is
//! generated from the catalog after the files have run in a scratch schema, and is used only if a second
//! scratch schema that it created has the same fingerprint. So an object that the DDL generator does not
//! support costs the template, and no schema differs.

pub(crate) mod apply;
pub(crate) mod store;

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::migrations::{MigrationSet, Script, Transaction};
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::ddl;
use crate::postgres::schema::fingerprint::{Fingerprint, digest};
use crate::postgres::transaction::batch::{Batch, BatchError};
use crate::postgres::transaction::escape_guard::{Findings, outside};
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::open::{
    OpenOutcome, OpenTransaction, interpret, probe, rollback,
};
use crate::postgres::transaction::settings::begin;
use crate::service::event::Progress;
use crate::service::failure::ServerError;

pub(crate) use apply::{TemplateMismatch, TemplateRun};
pub(crate) use store::{StoredTemplate, Templates, load, store};

/// Increased when the DDL generator changes, so that older templates are replaced.
const FORMAT: &str = "3";

/// A script that fills a schema as the files do; both results were compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// Statements with unqualified names, to be run with the schema as `search_path`.
    pub(crate) sql: String,
    /// Hash of the [`Fingerprint`] of the schema that they create, with an empty history table.
    pub(crate) fingerprint: String,
}

/// A template, or why there is none.
pub(crate) type Compiled = Result<Template, String>;

/// Returns the scripts that one transaction applies to an empty schema: those before the first one that
/// runs without a transaction.
pub(crate) fn in_one_transaction(set: &MigrationSet) -> Vec<&Script> {
    let inside = |script: &&Script| script.transaction == Transaction::Inside;
    set.scripts().iter().take_while(inside).collect()
}

/// Returns the digest of everything on which the template for these scripts depends.
///
/// `public` describes the shared schema, whose tables the scripts may name.
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
    texts.push(format!("{:?}", options.guard_rules));
    for script in scripts {
        texts.extend([script.id.to_string(), script.text.to_string()]);
    }
    digest(texts.iter().map(String::as_str))
}

/// Compiles the template for these scripts in two transactions that are rolled back: one runs the files,
/// one the generated script. The guard checks both, so that it can be skipped where the template later
/// runs in an empty schema.
///
/// # Errors
///
/// A failed or lost connection. Every other problem is the reason why there is no template.
pub(crate) async fn compile(
    database: &Database,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Result<Compiled, ServerError> {
    if let Some(why) = scripts.iter().find_map(|script| script.nondeterminism()) {
        return Ok(Err(why));
    }
    let session = database.session(Duration::ZERO).await?;
    let compiled = compile_in(database, &session, options, scripts).await;
    finish(session, compiled).await
}

/// Returns the table and column names that these scripts create in an empty schema, or why that cannot be
/// determined. The transaction is rolled back.
///
/// # Errors
///
/// A failed or lost connection.
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
    finish(session, columns).await
}

/// Rolls back and passes the result on.
async fn finish<T>(session: Session, result: T) -> Result<T, ServerError> {
    if let Err(error) = rollback(&session).await {
        session.discard();
        return Err(server_error(&error));
    }
    Ok(result)
}

async fn columns_in(
    session: &Session,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Result<Vec<(String, String)>, String> {
    let schema = scratch_schema();
    run_files(session, options, &schema, scripts, &FinalCheck::Skip).await?;
    let sql = format!(
        "SELECT c.relname, a.attname FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
         WHERE n.nspname = {} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> {}",
        escape_literal(schema.as_str()),
        escape_literal(&options.history_table)
    );
    let rows = session.rows(&sql).await.map_err(reason)?;
    let pair = |row: &Row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
    rows.iter().map(pair).collect::<Result<_, _>>().map_err(reason)
}

async fn compile_in(
    database: &Database,
    session: &Session,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Compiled {
    let (schema, table) = (scratch_schema(), &options.history_table);
    let check = FinalCheck::Guard(options.guard_rules.without_writes());
    let findings = run_files(session, options, &schema, scripts, &check).await?;
    let changed = outside(database, None, &schema, findings).await;
    if let Some(what) = changed.map_err(|error| error.to_string())?.describe(&[]).first() {
        return Err(format!("the files change {what}"));
    }
    let expected = Fingerprint::read(session, &schema, table).await;
    let expected = expected.map_err(reason)?;
    if let Some(filled) = expected.filled_table() {
        return Err(format!("the files leave rows behind: {filled}"));
    }
    let ddl = ddl::read(session, &schema, Some(table)).await;
    let sql = ddl.map_err(reason)?.script()?;
    if sql.contains(schema.as_str()) {
        return Err("an object contains the name of the schema".to_owned());
    }
    // The guard would report the locks of the first schema.
    rollback(session).await.map_err(reason)?;

    let template = Template { sql, fingerprint: expected.hash() };
    let schema = scratch_schema();
    let opened = open_scratch(session, options, &scratch_target(&schema)).await?;
    let template_run = TemplateRun {
        template: &template,
        scripts,
        schema: &schema,
        options,
        requires_empty: false,
        is_verified: true,
    };
    let (silent, _receiver) = Progress::channel();
    let findings = match template_run.run(session, &opened, &check, &silent).await {
        Ok(outcome) => outcome.findings,
        Err(TemplateMismatch::Server(error)) => {
            return Err(format!("the template did not run: {}", reason(error)));
        }
        Err(
            TemplateMismatch::Identity
            | TemplateMismatch::Different
            | TemplateMismatch::LedgerMissing,
        ) => return Err("the template left its schema".to_owned()),
    };
    let changed = outside(database, None, &schema, findings).await;
    if let Some(what) = changed.map_err(|error| error.to_string())?.describe(&[]).first() {
        return Err(format!("the template changes {what}"));
    }
    let found = Fingerprint::read(session, &schema, table).await;
    match expected.first_difference(&found.map_err(reason)?) {
        Some(line) => Err(format!("the template creates a different schema: {line}")),
        None => Ok(template),
    }
}

/// Opens a transaction and runs the files in a scratch schema that it creates.
async fn run_files(
    session: &Session,
    options: &EngineOptions,
    schema: &SchemaName,
    scripts: &[&Script],
    check: &FinalCheck,
) -> Result<Findings, String> {
    let target = scratch_target(schema);
    let opened = open_scratch(session, options, &target).await?;
    let batch = Batch::new(options, &target, false, scripts, false);
    let (silent, _receiver) = Progress::channel();
    match batch.run(session, &opened, schema, check, &silent).await {
        Ok(outcome) => Ok(outcome.findings),
        Err(BatchError::Identity(_, why)) => Err(why),
        Err(BatchError::LedgerMissing) => unreachable!("the ledger is not written here"),
        Err(BatchError::Script(_, _, error) | BatchError::Internal(error)) => Err(reason(error)),
    }
}

fn scratch_target(schema: &SchemaName) -> Target {
    Target { schema: schema.clone(), label: "template".to_owned(), scope: Scope::Tenant }
}

/// Opens a transaction and creates a scratch schema in it, as for a tenant.
async fn open_scratch(
    session: &Session,
    options: &EngineOptions,
    target: &Target,
) -> Result<OpenTransaction, String> {
    let schema = &target.schema;
    session.rows("DISCARD ALL").await.map_err(reason)?;
    let open = format!(
        "{}CREATE SCHEMA {}; {}",
        begin(options, target),
        schema.quoted(),
        probe(schema, &options.history_table)
    );
    let rows = session.rows(&open).await.map_err(reason)?;
    match interpret(&rows, schema).map_err(reason)? {
        OpenOutcome::Ready(opened) => Ok(opened),
        _ => Err("the scratch schema cannot be used".to_owned()),
    }
}

/// Returns the reason why there is no template.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn reason(error: Error) -> String {
    server_error(&error).to_string()
}

/// Returns a name for a scratch schema that no file can contain.
pub(crate) fn scratch_schema() -> SchemaName {
    let chance = |salt: u8| RandomState::new().hash_one((Instant::now(), salt));
    let name = format!("pricesync_scratch_{:016x}{:016x}", chance(0), chance(1));
    SchemaName::parse(&name).expect("letters and digits are a valid name")
}
