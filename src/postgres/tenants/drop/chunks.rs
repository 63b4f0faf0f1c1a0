//! Splits the drop of a schema into transactions, and runs them.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::contents::check_dependents;
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::postgres::connection::server_error::{is_worth_retrying, server_error, sqlstate_of};
use crate::postgres::connection::session::Session;
use crate::postgres::schema::dependencies::{self, Start};
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::catalog::database_error;
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::transaction::retry::{Stop, Transaction};

/// Relations dropped in one transaction. Each takes several slots of the server's lock table
/// (itself, indexes, TOAST), which by default holds 64 for each connection it allows.
const CHUNK_SIZE: usize = 50;

/// The row that names the schema. It is read again under the lock, because another session may have
/// given the name to another tenant.
#[derive(Clone)]
pub(crate) struct Owner {
    /// The query that returns the row and locks it.
    pub(crate) query: String,
    /// The tenant's slug, for errors.
    pub(crate) name: String,
}

/// One transaction of a drop, under a schema's advisory lock.
pub(crate) struct Chunk {
    pub(crate) owner: Option<Owner>,
    /// The object that it drops, for the progress display.
    pub(crate) what: String,
    /// The schema whose lock is taken, by its name before the transaction.
    pub(crate) schema: SchemaName,
    /// Tables that are locked first, so that no other session can start to depend on them.
    pub(crate) tables: LockedTables,
    pub(crate) statements: String,
    /// Whether each attempt is short: other sessions queue behind its locks, or would see a drop that has
    /// started, with its lock free for longer than `doctor` looks.
    pub(crate) is_brief: bool,
}

/// The tables that a chunk drops.
pub(crate) enum LockedTables {
    None,
    /// None, and the schema must not exist.
    NoSchema,
    /// The tables with these oids.
    These(Vec<String>),
    /// All tables of the schema.
    All,
}

impl TenantAdmin {
    /// Runs a chunk until it commits.
    pub(crate) async fn run_chunk(
        &self,
        chunk: &Chunk,
        cascade_outside: bool,
    ) -> Result<(), ChangeError> {
        let retry = self.retry();
        let retry = if chunk.is_brief { retry.brief() } else { retry };
        let work =
            async |transaction: &mut Transaction<'_>| chunk.run(transaction, cascade_outside).await;
        let refused = |error: &Error| explain(error, chunk);
        retry.run_locked(&chunk.schema, refused, work).await
    }
}

impl Chunk {
    async fn run(
        &self,
        transaction: &mut Transaction<'_>,
        cascade_outside: bool,
    ) -> Result<(), Stop<ChangeError>> {
        let refused = |error: CatalogError| Stop::Refused(error.into());
        if let Some(owner) = &self.owner
            && transaction.rows(&owner.query).await?.is_empty()
        {
            return Err(refused(CatalogError::NotFound(owner.name.clone())));
        }
        if let Some(oid) = transaction.schema_oid {
            let start = match &self.tables {
                LockedTables::NoSchema => {
                    return Err(refused(CatalogError::SchemaAppeared(self.schema.clone())));
                }
                LockedTables::None => None,
                LockedTables::These(oids) => {
                    Some((Start::Relations(oids), format!("c.oid IN ({})", oids.join(", "))))
                }
                LockedTables::All => Some((Start::Schemas, format!("c.relnamespace = {oid}"))),
            };
            if let Some((start, which)) = start {
                let lock = format!(
                    "DO $lock$ DECLARE t text; BEGIN FOR t IN SELECT c.oid::regclass FROM pg_class c WHERE {which} AND c.relkind IN ('r', 'p') \
                     LOOP EXECUTE 'LOCK TABLE ' || t || ' IN ACCESS EXCLUSIVE MODE'; END LOOP; END $lock$"
                );
                transaction.rows(&lock).await?;
                let select = dependencies::select(&[oid.to_string()], &start);
                let dependents = dependencies::read(&transaction.rows(&select).await?);
                check_dependents(&dependents, cascade_outside).map_err(refused)?;
            }
        }
        transaction.rows(&self.statements).await?;
        Ok(())
    }
}

fn explain(error: &Error, chunk: &Chunk) -> ChangeError {
    let cause = server_error(error);
    if is_worth_retrying(error) {
        return ChangeError::InUse(cause);
    }
    match sqlstate_of(error) {
        // Another session dropped or renamed it meanwhile.
        Some(sqlstate::INVALID_SCHEMA_NAME) => CatalogError::SchemaMissing(chunk.schema.clone()),
        // Rows that were inserted after the search for them.
        Some(sqlstate::FOREIGN_KEY_VIOLATION) => {
            CatalogError::ReferencedBy(vec![referencing(error)])
        }
        Some(sqlstate::OUT_OF_MEMORY) => CatalogError::LockTableFull(cause.to_string()),
        _ => database_error(cause),
    }
    .into()
}

/// Returns the referencing table and the foreign key that block the deletion of a row.
fn referencing(error: &Error) -> String {
    let db = error.as_db_error();
    let part = |part: Option<&str>| part.unwrap_or("?").to_owned();
    format!(
        "{}.{} (key {})",
        part(db.and_then(|db| db.schema())),
        part(db.and_then(|db| db.table())),
        part(db.and_then(|db| db.constraint()))
    )
}

/// Returns the chunks before the one that drops the schema itself: each foreign key to a table of
/// another schema, because dropping it locks that table; then relations, [`CHUNK_SIZE`] at a time.
/// `name` is the schema's name when the chunks run.
pub(super) async fn chunks(
    session: &Session,
    schema: &SchemaName,
    name: &SchemaName,
) -> Result<Vec<Chunk>, Error> {
    let (literal, name_literal) = (escape_literal(schema.as_str()), escape_literal(name.as_str()));
    let keys = format!(
        "SELECT format('ALTER TABLE %I.%I DROP CONSTRAINT IF EXISTS %I', {name_literal}, c.relname, k.conname), \
         format('key %s of table %s', k.conname, c.relname) \
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_class f ON f.oid = k.confrelid \
         WHERE k.contype = 'f' AND n.nspname = {literal} AND f.relnamespace <> n.oid AND k.conparentid = 0 ORDER BY k.oid"
    );
    // Views first: dropping a table drops its views.
    let relations = format!(
        "SELECT c.oid, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, \
         format('%I.%I', {name_literal}, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {literal} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 2 DESC, c.relispartition DESC, c.oid DESC"
    );
    let plain = |what, tables, statements| Chunk {
        owner: None,
        what,
        schema: name.clone(),
        tables,
        statements,
        is_brief: true,
    };
    let mut chunks: Vec<Chunk> = Vec::new();
    for key in session.read(&keys).await? {
        let (statement, what) = (key.text(0)?.to_owned(), key.text(1)?.to_owned());
        chunks.push(plain(what, LockedTables::None, statement));
    }
    let rows = session.read(&relations).await?;
    if rows.len() > CHUNK_SIZE {
        for (place, chunk) in rows.chunks(CHUNK_SIZE).enumerate() {
            let first = place * CHUNK_SIZE + 1;
            let last = first + chunk.len() - 1;
            let what = format!("tables and views {first} to {last} of {}", rows.len());
            let (mut drops, mut oids) = (Vec::new(), Vec::new());
            for row in chunk {
                let (kind, name) = (row.text(1)?, row.text(2)?);
                drops.push(format!("DROP {kind} IF EXISTS {name} CASCADE"));
                oids.push(row.text(0)?.to_owned());
            }
            let drops = drops.join("; ");
            chunks.push(plain(what, LockedTables::These(oids), drops));
        }
    }
    Ok(chunks)
}
