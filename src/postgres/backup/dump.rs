//! Dumps a tenant in one snapshot.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use futures_util::StreamExt as _;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::progress::StepProgress;
use super::verify_ddl::DdlVerifier;
use super::{BackupError, PartSender, about_schema};
use crate::archive::{
    ArchiveError, ArchivePart, Header, Section, SequenceRecord, TableHead, Trailer,
};
use crate::domain::schema_name::{QuotedIdentifier, SchemaName};
use crate::domain::sqlstate;
use crate::domain::tenant::Tenant;
use crate::postgres::connection::catalog_sql::id_literal;
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::server_error::{server_error, sqlstate_of};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::ddl::{self, SchemaCopy};
use crate::postgres::schema::fingerprint::{Fingerprint, digest};
use crate::postgres::schema::name_references;
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::transaction::advisory_lock::CLASS;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::retry::TxError;
use crate::postgres::transaction::settings::{RESET, discard};
use crate::service::event::Progress;
use crate::service::failure::ServerError;

/// Rows are sent in chunks of about this size.
const CHUNK_BYTES: usize = 64 << 10;

/// The tenant to dump.
#[derive(Debug)]
pub struct Source<'a> {
    /// The catalog, limits of lock waits, progress and interrupts.
    pub admin: &'a TenantAdmin,
    /// The tenant.
    pub tenant: &'a Tenant,
    /// Verifies the generated DDL.
    pub verifier: &'a DdlVerifier,
    /// Whether to leave out all rows but those of the history table.
    pub schema_only: bool,
}

/// Dumps a tenant: passes the header to `begin` and sends the parts to the channel that it returns.
///
/// One `REPEATABLE READ` transaction locks the schema's tables before it takes its snapshot, so that
/// no table is rewritten in between, and holds the schema's advisory lock in shared mode, so that no
/// migration runs. Positions of sequences are read last, so that they are never behind the rows.
/// Reports steps to `progress`, and lock waits to that of the source.
pub(super) async fn dump<B, F>(
    source: &Source<'_>,
    progress: &Progress,
    begin: B,
) -> Result<(), BackupError>
where
    B: FnOnce(Header) -> F,
    F: Future<Output = Result<PartSender, BackupError>>,
{
    let session = source.admin.database().session(RECONNECT_TIMEOUT).await;
    let session =
        session.map_err(|error| BackupError::Server { doing: "connecting".to_owned(), error })?;
    let dumped = async {
        let structure = read_structure(&session, source).await?;
        let lines = &structure.header.structure;
        let mut progress = StepProgress::new(progress.clone(), lines, 0);
        let (relations, copy) = (structure.relations, structure.copy);
        let sender = begin(structure.header).await?;
        send_parts(&session, source, &relations, copy, &sender, &mut progress).await
    };
    let retry = source.admin.retry();
    let dumped = match retry.until_cancelled(&session, dumped).await {
        Ok(dumped) => dumped,
        Err(gave_up) => Err(gave_up.into()),
    };
    if dumped.is_err() || session.client().simple_query("ROLLBACK").await.is_err() {
        session.discard();
    }
    dumped
}

/// The structure of a schema, as of the snapshot.
struct Structure {
    relations: Vec<Relation>,
    copy: SchemaCopy,
    header: Header,
}

/// Opens the snapshot, reads the structure and verifies the generated DDL.
async fn read_structure(session: &Session, source: &Source<'_>) -> Result<Structure, BackupError> {
    let schema = &source.tenant.schema;
    let relations = open_snapshot(session, source).await?;
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
    let lines = async { structure_lines(session, schema).await.map_err(reading()) };
    let lines = source.verifier.verify(source.admin, &copy, lines).await?;
    let header = read_header(session, source, lines, mentions, &copy.about_schema).await?;
    Ok(Structure { relations, copy, header })
}

/// Sends everything after the header.
async fn send_parts(
    session: &Session,
    source: &Source<'_>,
    relations: &[Relation],
    copy: SchemaCopy,
    sender: &PartSender,
    progress: &mut StepProgress,
) -> Result<(), BackupError> {
    let schema = &source.tenant.schema;
    send(sender, ArchivePart::Sql(Section::Before, copy.before)).await?;
    for relation in relations.iter().filter(|relation| relation.kind == "r") {
        if !source.schema_only || relation.name == source.admin.options.history_table {
            send_table(session, schema, relation, sender, progress).await?;
        }
    }
    let sequences = if source.schema_only {
        Vec::new()
    } else {
        read_sequences(session, schema, relations).await?
    };
    let positions = set_sequences(&sequences);
    send(sender, ArchivePart::Sql(Section::Sequences, positions)).await?;
    send(sender, ArchivePart::Sql(Section::After, copy.after)).await?;
    let about = about_schema(&copy.about_schema, schema);
    send(sender, ArchivePart::Sql(Section::Schema, about)).await?;
    let trailer = Trailer { sequences, ..Trailer::default() };
    send(sender, ArchivePart::End(trailer)).await
}

async fn send_table(
    session: &Session,
    schema: &SchemaName,
    relation: &Relation,
    sender: &PartSender,
    progress: &mut StepProgress,
) -> Result<(), BackupError> {
    let head = TableHead { table: relation.name.clone(), columns: relation.columns.clone() };
    let sql = format!("COPY {}.{} TO STDOUT", schema.quoted(), head.target());
    let doing = || BackupError::server(format!("copying table {}", relation.name));
    let rows = session.client().copy_out(&sql).await.map_err(doing())?;
    let mut rows = std::pin::pin!(rows);
    progress.start_table(&head.table);
    send(sender, ArchivePart::Table(head)).await?;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    while let Some(row) = rows.next().await {
        chunk.extend_from_slice(&row.map_err(doing())?);
        if chunk.len() >= CHUNK_BYTES {
            progress.add_rows(&chunk);
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_BYTES));
            send(sender, ArchivePart::Rows(full)).await?;
        }
    }
    if !chunk.is_empty() {
        send(sender, ArchivePart::Rows(chunk)).await?;
    }
    send(sender, ArchivePart::TableEnd).await
}

/// Sends a part. If the receiver is gone, the writer has failed and has the cause.
async fn send(sender: &PartSender, part: ArchivePart) -> Result<(), BackupError> {
    let closed = |_| ArchiveError::Io(std::io::ErrorKind::BrokenPipe.into());
    Ok(sender.send(Ok(part)).await.map_err(closed)?)
}

/// A table, view or sequence of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Relation {
    name: String,
    kind: String,
    oid: String,
    /// Columns that are not generated.
    columns: Vec<String>,
}

/// Opens the transaction; locks the tables before it takes the snapshot.
async fn open_snapshot(
    session: &Session,
    source: &Source<'_>,
) -> Result<Vec<Relation>, BackupError> {
    let opening = |error: &Error| BackupError::refused("taking a snapshot", error);
    let retry = source.admin.retry();
    let mut attempts = retry.attempts();
    loop {
        let outcome = try_open_snapshot(session, source).await;
        if outcome.is_err() {
            // If this fails too, so does the next attempt.
            let _ = session.client().simple_query("ROLLBACK").await;
        }
        if let ControlFlow::Break(result) = attempts.next(opening, outcome).await {
            return result;
        }
    }
}

async fn try_open_snapshot(
    session: &Session,
    source: &Source<'_>,
) -> Result<Vec<Relation>, TxError<BackupError, Vec<Relation>>> {
    let (tenant, options) = (source.tenant, &source.admin.options);
    let schema = &tenant.schema;
    // A query before the locks would take the snapshot.
    let (first, reset) = match options.route {
        Route::Pooled => ("RESET SESSION AUTHORIZATION; RESET ALL; ", RESET),
        Route::Direct => ("", ""),
    };
    session.client().simple_query(discard(options.route)).await?;
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
        error: BackupError::Server { doing: "taking a snapshot".to_owned(), error: cause.clone() },
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
            message: "another session changed the schema's tables".to_owned(),
            ..ServerError::default()
        }));
    }
    Ok(found)
}

/// Reads the schema's relations through `pg_depend`, whose index makes it fast with many schemas.
async fn read_relations(
    session: &Session,
    schema: &SchemaName,
    in_own_transaction: bool,
) -> Result<Vec<Relation>, Error> {
    let sql = format!(
        "SELECT c.oid, c.relkind, c.relname, a.attname FROM pg_catalog.pg_namespace n \
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = n.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
         JOIN pg_catalog.pg_class c ON c.oid = d.objid \
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND c.relkind = 'r' \
         WHERE n.nspname = {} AND c.relkind IN ('r', 'p', 'v', 'm', 'S') ORDER BY c.relname COLLATE pg_catalog.\"C\", a.attnum",
        escape_literal(schema.as_str())
    );
    let rows =
        if in_own_transaction { session.read(&sql).await? } else { session.rows(&sql).await? };
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

/// Returns the lines of the schema's fingerprint, without rows and positions of sequences.
pub(super) async fn structure_lines(
    session: &Session,
    schema: &SchemaName,
) -> Result<Vec<String>, Error> {
    let fingerprint = Fingerprint::read(session, schema, "").await?;
    let lines = fingerprint.lines().iter();
    Ok(lines.filter(|line| !line.starts_with("state ")).cloned().collect())
}

async fn read_header(
    session: &Session,
    source: &Source<'_>,
    structure: Vec<String>,
    mentions: Vec<String>,
    about_schema: &[(String, String)],
) -> Result<Header, BackupError> {
    let tables = source.admin.tables();
    let id = id_literal(&source.tenant.id);
    let domains = source.admin.catalog.domains_as_json(&source.tenant.id);
    let sql = format!(
        "SELECT (SELECT row_to_json(c) FROM {tenants} c WHERE c.{id_column} = {id}), {domains}, \
         t.slug, t.name, current_user, to_char(transaction_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
         (SELECT coalesce(json_agg(d.domain ORDER BY d.is_primary DESC, d.id), '[]') FROM {hosts} d WHERE d.tenant_id = {id}) \
         FROM {rows} t WHERE t.id = {id} AND t.schema_name = {schema}",
        tenants = tables.tenants,
        id_column = tables.id,
        hosts = tables.hosts,
        rows = tables.rows,
        schema = escape_literal(source.tenant.schema.as_str()),
    );
    let rows = session.rows(&sql).await.map_err(BackupError::server("reading the tenant's row"))?;
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
        server_version: source.admin.options.server_version,
        taken_at: taken_at.to_owned(),
        role: role.to_owned(),
        slug: slug.to_owned(),
        name: name.to_owned(),
        schema: source.tenant.schema.as_str().to_owned(),
        tenant: json(0)?,
        domains: json(1)?,
        hosts: serde_json::from_str(hosts).unwrap_or_default(),
        migrations: versions(session, source).await,
        fingerprint: digest(structure.iter().map(String::as_str)),
        structure,
        mentions,
        tenant_keys: tenant_keys(session, source).await?,
        about_schema: about_schema.to_vec(),
    })
}

/// Returns the tables and columns with a single-column foreign key to the tenant's id.
async fn tenant_keys(
    session: &Session,
    source: &Source<'_>,
) -> Result<Vec<(String, String)>, BackupError> {
    let tables = source.admin.tables();
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

/// Returns the versions in the history; none if the table is missing or of another form.
async fn versions(session: &Session, source: &Source<'_>) -> Vec<i64> {
    let history = qualified(&source.tenant.schema, &source.admin.options.history_table);
    let sql = format!(
        "SAVEPOINT pricesync_versions; SELECT version FROM {history} ORDER BY version; RELEASE SAVEPOINT pricesync_versions"
    );
    if let Ok(rows) = session.rows(&sql).await {
        return rows.iter().filter_map(number).collect();
    }
    // If this fails too, the next statement reports why.
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
    for record in sequences {
        let name = QuotedIdentifier::new(&record.sequence).to_string();
        let _ = writeln!(
            sql,
            "SELECT pg_catalog.setval({}, {}, {});",
            escape_literal(&name),
            record.last_value,
            record.is_called
        );
    }
    sql
}
