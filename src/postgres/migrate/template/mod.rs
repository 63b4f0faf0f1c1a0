//! Templates: one script that fills an empty schema as all files one after another would.
//!
//! Creating the final tables costs the server less than repeating their history. The script is
//! generated from the catalog and the rows after the files have run in a scratch schema, and is used only
//! if another scratch schema that it created has the same fingerprint and the same rows. So an object that
//! the DDL generator does not support costs the template, and no schema differs. Files that are more than
//! definitions run twice, at two times in two schemas, and must leave the same.

pub(crate) mod apply;
mod rows;
pub(crate) mod store;

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::migrations::{self, MigrationSet, Script, is_named, last_use, obstacle};
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::connection::sql_file::filled;
use crate::postgres::schema::ddl;
use crate::postgres::schema::fingerprint::{Fingerprint, digest};
use crate::postgres::transaction::batch::{Batch, BatchError};
use crate::postgres::transaction::escape_guard::{Findings, outside};
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::open::{
    OpenOutcome, OpenTransaction, interpret, probe, rollback,
};
use crate::postgres::transaction::settings::{begin, discard};
use crate::service::event::Progress;
use crate::service::failure::ServerError;

pub(crate) use apply::{TemplateMismatch, TemplateRun};
use rows::Rows;
#[cfg(feature = "cli")]
pub(crate) use store::stored_refusal;
pub(crate) use store::{StoredTemplate, Templates, load, store};

/// Increased when the DDL generator changes, so that older templates are replaced.
const FORMAT: &str = "4";

/// Between two runs of the files, so that a time in whole seconds differs.
const PAUSE: &str = "SELECT pg_catalog.pg_sleep(1.01)";

/// A script that fills a schema as the files do; both results were compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// Statements with unqualified names, to be run with the schema as `search_path`.
    pub(crate) sql: String,
    /// Hash of the [`Fingerprint`] of the schema that they create, with an empty history table; then a
    /// space and the hash of the rows, if there are any.
    pub(crate) fingerprint: String,
}

impl Template {
    /// Returns whether it writes rows.
    pub(crate) fn has_rows(&self) -> bool {
        self.fingerprint.contains(' ')
    }
}

/// Returns what a template's schema is compared with.
fn proof(fingerprint: &Fingerprint, rows: &Rows) -> String {
    let hash = fingerprint.hash();
    if rows.is_empty() { hash } else { format!("{hash} {}", rows.hash()) }
}

/// A template, or why there is none.
pub(crate) type Compiled = Result<Template, String>;

/// Returns the scripts that one transaction applies to an empty schema.
pub(crate) fn in_one_transaction(set: &MigrationSet) -> Vec<&Script> {
    let mut scripts: Vec<&Script> = set.scripts().iter().collect();
    scripts.truncate(migrations::in_one_transaction(&scripts, &BTreeSet::new()));
    scripts
}

/// Returns the digest of everything on which the template for these scripts depends.
///
/// `public` describes the shared schema, whose tables the scripts may name.
fn key(scripts: &[&Script], options: &EngineOptions, role: &str, public: &str) -> String {
    let mut texts = vec![
        FORMAT.to_owned(),
        options.server_version.to_string(),
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

/// Compiles the template for these scripts in transactions that are rolled back: one or two run the files,
/// one the generated script. The guard checks all, so that it can be skipped where the template later
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
    if scripts.is_empty() {
        return Ok(Err("no file runs in the transaction that creates a tenant".to_owned()));
    }
    if let Some(why) = obstacle(scripts, &HashSet::new()) {
        return Ok(Err(why));
    }
    let session = database.session(Duration::ZERO).await?;
    let compiled = compile_in(database, &session, options, scripts).await;
    finish(session, compiled).await
}

/// Returns the table and column names that these scripts create in an empty schema, or why that cannot be
/// determined. The transaction is rolled back.
pub(crate) async fn columns(
    database: &Database,
    options: &EngineOptions,
    scripts: &[&Script],
) -> Result<Result<Vec<(String, String)>, String>, ServerError> {
    if let Some(why) = obstacle(scripts, &HashSet::new()) {
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
    let table = &options.history_table;
    let first = Rehearsal::run(database, session, options, scripts).await?;
    if let Some(why) = first.rows.refusal() {
        return Err(why);
    }
    let ddl = ddl::read(session, &first.schema, Some(table)).await.map_err(reason)?;
    let mention = ddl.mentions.iter().find(|it| it.text.contains(first.schema.as_str()));
    if let Some(mention) = mention {
        return Err(format!("{} contains the name of the schema", mention.what));
    }
    // The guard would report the locks of the first schema.
    rollback(session).await.map_err(reason)?;
    if !scripts.iter().all(|script| script.only_defines()) {
        if !first.rows.is_empty() {
            session.rows(PAUSE).await.map_err(reason)?;
        }
        let second = Rehearsal::run(database, session, options, scripts).await?;
        rollback(session).await.map_err(reason)?;
        if let Some(why) = first.differs_from(&second, scripts) {
            return Err(why);
        }
    }
    let try_with = async |explicit: bool| {
        let sql = ddl.script(&first.rows.statements(), explicit)?;
        if sql.contains(first.schema.as_str()) {
            return Err("an object contains the name of the schema".to_owned());
        }
        let template = Template { sql, fingerprint: proof(&first.fingerprint, &first.rows) };
        let equal = first.compare_with(database, session, options, scripts, &template).await;
        equal.map(|()| template)
    };
    let compiled = try_with(false).await;
    if compiled.is_ok() {
        return compiled;
    }
    // Files that grant or revoke need statements that cost time in each schema.
    rollback(session).await.map_err(reason)?;
    try_with(true).await.or(compiled)
}

/// What the files left in a scratch schema, in the open transaction.
struct Rehearsal {
    schema: SchemaName,
    fingerprint: Fingerprint,
    rows: Rows,
}

impl Rehearsal {
    /// Runs the files. The reason for an error is in the files: they change or read another schema.
    async fn run(
        database: &Database,
        session: &Session,
        options: &EngineOptions,
        scripts: &[&Script],
    ) -> Result<Self, String> {
        let (schema, table) = (scratch_schema(), &options.history_table);
        let check = FinalCheck::Guard(options.guard_rules.without_writes());
        let findings = run_files(session, options, &schema, scripts, &check).await?;
        let outside =
            filled(include_str!("outside.sql"), &[("{schema}", escape_literal(schema.as_str()))]);
        let read = session.rows(&outside).await.map_err(reason)?;
        refuse_changes(database, &schema, findings, "the files change").await?;
        let read = read.iter().filter_map(|row| row.optional(0)).map(str::to_owned);
        let read: HashSet<String> = read.collect();
        if let Some(why) = obstacle(scripts, &read) {
            return Err(why);
        }
        if let Some(table) = read.iter().find(|table| !is_named(scripts, table)) {
            return Err(format!("the files read {table} of another schema, which may change"));
        }
        let fingerprint = Fingerprint::read(session, &schema, table).await.map_err(reason)?;
        let rows = Rows::read(session, &schema, table).await.map_err(reason)?;
        Ok(Self { schema, fingerprint, rows })
    }

    /// Returns what another run of the files left differently.
    fn differs_from(&self, second: &Self, scripts: &[&Script]) -> Option<String> {
        if let Some(line) = self.fingerprint.first_difference(&second.fingerprint) {
            return Some(format!("the files create something else in each run: {line}"));
        }
        let difference = self.rows.first_difference(&second.rows, &self.schema);
        let difference = difference.or_else(|| self.rows.of_the_day())?;
        let place = last_use(scripts, difference.table.trim_matches('"'));
        Some(place.map_or_else(|| difference.to_string(), |place| format!("{place}: {difference}")))
    }

    /// Runs the template and fails if it leaves something else than the files.
    async fn compare_with(
        &self,
        database: &Database,
        session: &Session,
        options: &EngineOptions,
        scripts: &[&Script],
        template: &Template,
    ) -> Result<(), String> {
        let (schema, table) = (scratch_schema(), &options.history_table);
        let check = FinalCheck::Guard(options.guard_rules.without_writes());
        let opened = open_scratch(session, options, &scratch_target(&schema)).await?;
        let template_run = TemplateRun {
            template,
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
        refuse_changes(database, &schema, findings, "the template changes").await?;
        let found = Fingerprint::read(session, &schema, table).await.map_err(reason)?;
        if let Some(line) = self.fingerprint.first_difference(&found) {
            return Err(format!("the template creates a different schema: {line}"));
        }
        let rows = Rows::read(session, &schema, table).await.map_err(reason)?;
        match self.rows.first_difference(&rows, &self.schema) {
            Some(difference) => Err(format!("the template writes other rows: {difference}")),
            None => Ok(()),
        }
    }
}

/// Fails if a transaction changed something outside its schema.
async fn refuse_changes(
    database: &Database,
    schema: &SchemaName,
    findings: Findings,
    what: &str,
) -> Result<(), String> {
    let changed = outside(database, None, schema, findings).await;
    match changed.map_err(|error| error.to_string())?.describe(&[]).first() {
        Some(object) => Err(format!("{what} {object}")),
        None => Ok(()),
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
    session.rows(discard(options.route)).await.map_err(reason)?;
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
