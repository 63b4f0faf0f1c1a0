//! Reading a tenant out of one snapshot.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use futures_util::StreamExt as _;
use postgres_protocol::escape::escape_literal;
use tokio::sync::mpsc::Sender;
use tokio_postgres::Error;

use super::progress::Steps;
use super::verify_ddl::DdlVerifier;
use super::{BackupError, about_schema};
use crate::archive::{
    ArchiveError, ArchivePart, Header, Section, SequenceRecord, TableHead, Trailer,
};
use crate::domain::schema_name::{QuotedIdentifier, SchemaName};
use crate::domain::sqlstate;
use crate::domain::tenant::Tenant;
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT};
use crate::postgres::connection::server_error::{server_error, sqlstate_of};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::ddl;
use crate::postgres::schema::fingerprint::{Fingerprint, digest};
use crate::postgres::schema::name_references;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::transaction::advisory_lock::CLASS;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::retry::TxError;
use crate::postgres::transaction::settings::RESET;
use crate::service::event::Progress;
use crate::service::failure::ServerError;

/// Rows travel in portions of this many bytes.
const PORTION: usize = 64 << 10;

/// What is read: a tenant of a catalog.
#[derive(Debug)]
pub struct Source<'a> {
    /// The catalog.
    pub catalog: &'a PostgresCatalog,
    /// The tenant.
    pub tenant: &'a Tenant,
    /// How long to wait for locks, which table holds histories.
    pub options: &'a EngineOptions,
    /// Which structures are known to come out as they were.
    pub verifier: &'a DdlVerifier,
    /// Whether rows are left out, those of the history excepted.
    pub schema_only: bool,
}

/// Reads a tenant and sends it piece by piece; what comes before the tables is handed to
/// `begin` first, which returns where the parts go.
///
/// One snapshot for all of it: a `REPEATABLE READ` transaction that locks the schema's tables
/// before its snapshot is taken, so that none is rewritten in between, and that holds the schema's
/// advisory lock in common with other readers, so that no migration runs meanwhile. Values of
/// sequences are read last, so that they are never behind the rows. Steps go to `progress`; what is
/// waited for is told by the catalog.
///
/// # Errors
///
/// [`BackupError`].
pub(super) async fn dump<B, F>(
    source: &Source<'_>,
    progress: &Progress,
    begin: B,
) -> Result<(), BackupError>
where
    B: FnOnce(Header) -> F,
    F: Future<Output = Result<Sender<Result<ArchivePart, ArchiveError>>, BackupError>>,
{
    let session = source
        .catalog
        .database()
        .session(RECONNECT_TIMEOUT)
        .await
        .map_err(|error| BackupError::Server {
            doing: "connecting".to_owned(),
            error,
        })?;
    let dumped = dump_in(&session, source, progress, begin).await;
    // Whatever state it is in: the snapshot ends with it.
    let ended = session.client().simple_query("ROLLBACK").await;
    if dumped.is_err() || ended.is_err() {
        session.discard();
    }
    dumped
}

async fn dump_in<B, F>(
    session: &Session,
    source: &Source<'_>,
    progress: &Progress,
    begin: B,
) -> Result<(), BackupError>
where
    B: FnOnce(Header) -> F,
    F: Future<Output = Result<Sender<Result<ArchivePart, ArchiveError>>, BackupError>>,
{
    let schema = &source.tenant.schema;
    let relations = enter(session, source).await?;
    let reading = || BackupError::server("reading the catalog");
    let structure = ddl::read(session, schema, None).await.map_err(reading())?;
    let mut mentions: Vec<String> = structure
        .mentions
        .iter()
        .filter(|mention| name_references::names(&mention.text, schema))
        .map(|mention| mention.what.clone())
        .collect();
    mentions.sort();
    mentions.dedup();
    let copy = structure.copy().map_err(BackupError::Unsupported)?;
    let lines = lasting(session, schema).await.map_err(reading())?;
    let fingerprint = digest(lines.iter().map(String::as_str));
    source
        .verifier
        .prove(source.catalog.database(), source.options, &copy, &lines)
        .await?;
    let header = describe(
        session,
        source,
        lines,
        fingerprint,
        mentions,
        &copy.about_schema,
    )
    .await?;
    let mut steps = Steps::begin(progress.clone(), &header.structure, 0);
    let to = begin(header).await?;
    let send = async |piece| {
        // Nobody takes it: whoever wrote has failed, and says why.
        to.send(Ok(piece)).await.map_err(|_| {
            BackupError::Archive(ArchiveError::Io(std::io::ErrorKind::BrokenPipe.into()))
        })
    };
    send(ArchivePart::Sql(Section::Before, copy.before)).await?;
    for relation in relations.iter().filter(|relation| relation.kind == "r") {
        let is_history = relation.name == source.options.history_table;
        if source.schema_only && !is_history {
            continue;
        }
        let head = TableHead {
            table: relation.name.clone(),
            columns: relation.columns.clone(),
        };
        let sql = format!("COPY {}.{} TO STDOUT", schema.quoted(), head.target());
        let doing = || BackupError::server(format!("copying table {}", relation.name));
        let rows = session.client().copy_out(&sql).await.map_err(doing())?;
        let mut rows = std::pin::pin!(rows);
        steps.table(&head.table);
        send(ArchivePart::Table(head)).await?;
        let mut portion = Vec::with_capacity(PORTION);
        while let Some(row) = rows.next().await {
            portion.extend_from_slice(&row.map_err(doing())?);
            if portion.len() >= PORTION {
                steps.moved(&portion);
                let full = std::mem::replace(&mut portion, Vec::with_capacity(PORTION));
                send(ArchivePart::Rows(full)).await?;
            }
        }
        if !portion.is_empty() {
            send(ArchivePart::Rows(portion)).await?;
        }
        send(ArchivePart::TableEnd).await?;
    }
    let sequences = if source.schema_only {
        Vec::new()
    } else {
        read_sequences(session, schema, &relations).await?
    };
    send(ArchivePart::Sql(
        Section::Sequences,
        set_sequences(&sequences),
    ))
    .await?;
    send(ArchivePart::Sql(Section::After, copy.after)).await?;
    let about = about_schema(&copy.about_schema, schema);
    send(ArchivePart::Sql(Section::Schema, about)).await?;
    send(ArchivePart::End(Trailer {
        sequences,
        ..Trailer::default()
    }))
    .await
}

/// A table, view or sequence of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Relation {
    name: String,
    kind: String,
    oid: String,
    /// Columns that can be written to.
    columns: Vec<String>,
}

/// Opens the transaction, with its locks before its snapshot.
async fn enter(session: &Session, source: &Source<'_>) -> Result<Vec<Relation>, BackupError> {
    let opening = |error: &Error| BackupError::refused("taking a snapshot", error);
    let retry = source.catalog.retry(source.options);
    let mut attempts = retry.attempts();
    loop {
        let outcome = enter_once(session, source).await;
        if outcome.is_err() {
            // Where this fails too, so does the next attempt.
            let _ = session.client().simple_query("ROLLBACK").await;
        }
        if let ControlFlow::Break(result) = attempts.next(opening, outcome).await {
            return result;
        }
    }
}

async fn enter_once(
    session: &Session,
    source: &Source<'_>,
) -> Result<Vec<Relation>, TxError<BackupError, Vec<Relation>>> {
    let Source {
        tenant, options, ..
    } = source;
    let schema = &tenant.schema;
    // Nothing that reads may run before the locks: it would take the snapshot.
    let (first, reset) = match options.route {
        Route::Pooled => ("RESET SESSION AUTHORIZATION; RESET ALL; ", RESET),
        Route::Direct => ("", ""),
    };
    session.client().simple_query("DISCARD ALL").await?;
    let expected = read_relations(session, schema, true).await?;
    let tables: Vec<String> = expected
        .iter()
        .filter(|relation| matches!(relation.kind.as_str(), "r" | "p"))
        .map(|relation| qualified(schema, &relation.name))
        .collect();
    let locks = if tables.is_empty() {
        String::new()
    } else {
        format!("LOCK TABLE {} IN ACCESS SHARE MODE; ", tables.join(", "))
    };
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {first}SET LOCAL lock_timeout TO {timeout}; {locks}{reset}\
         SET LOCAL search_path TO {}; SET LOCAL lock_timeout TO {timeout}; SET LOCAL statement_timeout TO 0; SET LOCAL idle_in_transaction_session_timeout TO 0; SET LOCAL row_security TO off; \
         SET LOCAL standard_conforming_strings TO on; SET LOCAL DateStyle TO ISO; SET LOCAL IntervalStyle TO postgres; \
         SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO 'hex'; SET LOCAL xmloption TO content; \
         SELECT n.oid, pg_try_advisory_xact_lock_shared({CLASS}, n.oid::int4) FROM pg_namespace n WHERE n.nspname = {}",
        schema.quoted(),
        escape_literal(schema.as_str()),
        timeout = options.lock_timeout.as_millis()
    );
    let changed = |cause: ServerError| TxError::Contention {
        error: BackupError::Server {
            doing: "taking a snapshot".to_owned(),
            error: cause.clone(),
        },
        cause: Box::new(cause),
        blockers: Vec::new(),
    };
    let rows = match session.rows(&sql).await {
        Ok(rows) => rows,
        // A table was dropped or renamed between the two reads.
        Err(error) if sqlstate_of(&error).is_some_and(sqlstate::is_missing_table) => {
            return Err(changed(server_error(&error)));
        }
        Err(error) => return Err(error.into()),
    };
    let Some(row) = rows.iter().find(|row| row.len() == 2) else {
        return Err(TxError::Refused(BackupError::TenantMissing));
    };
    if row.optional(1) != Some("t") {
        let oid = row.optional(0).and_then(|oid| oid.parse().ok());
        return Err(TxError::Busy(oid.unwrap_or_default()));
    }
    let found = read_relations(session, schema, false).await?;
    if found != expected {
        return Err(changed(ServerError {
            message: "the schema's tables were changed meanwhile".to_owned(),
            ..ServerError::default()
        }));
    }
    Ok(found)
}

/// Reads what is in the schema, through the schema's own entries in `pg_depend`.
async fn read_relations(
    session: &Session,
    schema: &SchemaName,
    alone: bool,
) -> Result<Vec<Relation>, Error> {
    let sql = format!(
        "SELECT c.oid, c.relkind, c.relname, a.attname FROM pg_catalog.pg_namespace n \
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = n.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
         JOIN pg_catalog.pg_class c ON c.oid = d.objid \
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND c.relkind = 'r' \
         WHERE n.nspname = {} AND c.relkind IN ('r', 'p', 'v', 'm', 'S') ORDER BY c.relname COLLATE pg_catalog.\"C\", a.attnum",
        escape_literal(schema.as_str())
    );
    let rows = if alone {
        session.read(&sql).await?
    } else {
        session.rows(&sql).await?
    };
    let mut relations: Vec<Relation> = Vec::new();
    for row in &rows {
        if relations.last().map(|last| &*last.oid) != Some(row.text(0)?) {
            relations.push(Relation {
                oid: row.text(0)?.to_owned(),
                kind: row.text(1)?.to_owned(),
                name: row.text(2)?.to_owned(),
                columns: Vec::new(),
            });
        }
        if let (Some(last), Some(column)) = (relations.last_mut(), row.optional(3)) {
            last.columns.push(column.to_owned());
        }
    }
    Ok(relations)
}

/// Returns what a schema is like, without what its rows and sequences say.
pub(super) async fn lasting(session: &Session, schema: &SchemaName) -> Result<Vec<String>, Error> {
    let fingerprint = Fingerprint::read(session, schema, "").await?;
    let lines = fingerprint.lines().iter();
    Ok(lines
        .filter(|line| !line.starts_with("state "))
        .cloned()
        .collect())
}

async fn describe(
    session: &Session,
    source: &Source<'_>,
    structure: Vec<String>,
    fingerprint: String,
    mentions: Vec<String>,
    about_schema: &[(String, String)],
) -> Result<Header, BackupError> {
    let tables = source.catalog.tables();
    let id = source.tenant.id;
    let domains = match &tables.domains {
        Some(domains) => format!(
            "(SELECT coalesce(json_agg(row_to_json(c) ORDER BY c.{}), '[]') FROM {} c WHERE c.{} = '{id}')",
            domains.id, domains.table, domains.tenant
        ),
        None => "'[]'".to_owned(),
    };
    let sql = format!(
        "SELECT (SELECT row_to_json(c) FROM {tenants} c WHERE c.{id_column} = '{id}'), {domains}, \
         t.slug, t.name, current_user, to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
         (SELECT coalesce(json_agg(d.domain ORDER BY d.is_primary DESC, d.id), '[]') FROM {hosts} d WHERE d.tenant_id = '{id}') \
         FROM {rows} t WHERE t.id = '{id}' AND t.schema_name = {schema}",
        tenants = tables.tenants,
        id_column = tables.id,
        hosts = tables.hosts,
        rows = tables.rows,
        schema = escape_literal(source.tenant.schema.as_str()),
    );
    let rows = session
        .rows(&sql)
        .await
        .map_err(BackupError::server("reading the tenant's row"))?;
    let Some(row) = rows.first() else {
        return Err(BackupError::TenantMissing);
    };
    let texts = || {
        let [slug, name, role] = [row.text(2)?, row.text(3)?, row.text(4)?];
        Ok((slug, name, role, row.text(5)?, row.text(6)?))
    };
    let (slug, name, role, taken_at, hosts) =
        texts().map_err(BackupError::server("reading the tenant's row"))?;
    let json = |column: usize| {
        serde_json::from_str(row.optional(column).unwrap_or_default())
            .map_err(|error| ArchiveError::Damaged(error.to_string()))
    };
    Ok(Header {
        tool: concat!("pricesync ", env!("CARGO_PKG_VERSION")).to_owned(),
        server_version: source.options.server_version,
        taken_at: taken_at.to_owned(),
        role: role.to_owned(),
        slug: slug.to_owned(),
        name: name.to_owned(),
        schema: source.tenant.schema.as_str().to_owned(),
        tenant: json(0)?,
        domains: json(1)?,
        hosts: serde_json::from_str(hosts).unwrap_or_default(),
        migrations: versions(session, source).await,
        fingerprint,
        structure,
        mentions,
        tenant_keys: tenant_keys(session, source).await?,
        about_schema: about_schema.to_vec(),
    })
}

/// Returns the tables and columns that refer to the tenant's id by a key of one column.
async fn tenant_keys(
    session: &Session,
    source: &Source<'_>,
) -> Result<Vec<(String, String)>, BackupError> {
    let tables = source.catalog.tables();
    let sql = format!(
        "SELECT DISTINCT c.relname, a.attname FROM pg_constraint k \
         JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1] \
         JOIN pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.confkey[1] \
         WHERE k.contype = 'f' AND cardinality(k.conkey) = 1 AND k.confrelid = {}::regclass \
         AND format('\"%s\"', replace(f.attname, '\"', '\"\"')) = {} AND n.nspname = {} AND c.relkind = 'r' ORDER BY 1, 2",
        escape_literal(&tables.tenants),
        escape_literal(&tables.id),
        escape_literal(source.tenant.schema.as_str())
    );
    let rows = session
        .rows(&sql)
        .await
        .map_err(BackupError::server("reading keys to the tenant's row"))?;
    let key = |row: &Row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
    let keys: Result<_, Error> = rows.iter().map(key).collect();
    keys.map_err(BackupError::server("reading keys to the tenant's row"))
}

/// Returns what the history says; nothing where there is none of our form.
async fn versions(session: &Session, source: &Source<'_>) -> Vec<i64> {
    let history = qualified(&source.tenant.schema, &source.options.history_table);
    let sql = format!(
        "SAVEPOINT pricesync_versions; SELECT version FROM {history} ORDER BY version; RELEASE SAVEPOINT pricesync_versions"
    );
    if let Ok(rows) = session.rows(&sql).await {
        return rows.iter().filter_map(number).collect();
    }
    // The snapshot goes on without it; where that fails too, the next statement says why.
    let back = "ROLLBACK TO SAVEPOINT pricesync_versions";
    let _ = session.client().simple_query(back).await;
    Vec::new()
}

fn number(row: &Row) -> Option<i64> {
    row.optional(0)?.parse().ok()
}

async fn read_sequences(
    session: &Session,
    schema: &SchemaName,
    relations: &[Relation],
) -> Result<Vec<SequenceRecord>, BackupError> {
    let selects: Vec<String> = relations
        .iter()
        .filter(|relation| relation.kind == "S")
        .map(|relation| {
            format!(
                "SELECT {}, last_value, is_called FROM {}",
                escape_literal(&relation.name),
                qualified(schema, &relation.name)
            )
        })
        .collect();
    if selects.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session
        .rows(&selects.join(" UNION ALL "))
        .await
        .map_err(BackupError::server("reading sequences"))?;
    let sequence = |row: &Row| {
        Ok(SequenceRecord {
            sequence: row.text(0)?.to_owned(),
            last_value: row.parse(1)?,
            is_called: row.is_true(2),
        })
    };
    let sequences: Result<_, Error> = rows.iter().map(sequence).collect();
    sequences.map_err(BackupError::server("reading sequences"))
}

fn set_sequences(sequences: &[SequenceRecord]) -> String {
    let mut sql = String::new();
    for one in sequences {
        let name = QuotedIdentifier::new(&one.sequence).to_string();
        let _ = writeln!(
            sql,
            "SELECT pg_catalog.setval({}, {}, {});",
            escape_literal(&name),
            one.last_value,
            one.is_called
        );
    }
    sql
}
