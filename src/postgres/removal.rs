//! Drops a tenant's schema: looks first at what depends on it, lets go of shared tables
//! quickly, and takes large schemas in pieces.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error, database_error};
use super::diagnostics::{is_connection_lost, is_worth_retrying, server_error};
use super::lock::{self, CLASS};
use super::migrator::{PATIENCE, Rules};
use super::pool::Session;
use super::runs;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{CatalogError, Tenant};
use crate::service::event::{Holder, ServerError};

/// Tables dropped in one transaction. Each takes several slots of the server's lock table
/// (itself, indexes, TOAST), which by default holds 64 for each connection it allows.
const PIECE: usize = 50;

/// What one transaction does.
struct Piece {
    /// The schema that was looked at.
    oid: Option<u32>,
    /// What is done where that schema is still the one of its name.
    in_schema: String,
    /// What is done in any case.
    rows: String,
}

/// What would be lost with a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Whether the schema exists.
    pub exists: bool,
    /// Its oid, where it exists: another schema of its name is not the one that was looked at.
    pub oid: Option<u32>,
    /// How many tables.
    pub tables: usize,
    /// How many rows, by the server's own statistics.
    pub rows: u64,
    /// How many bytes on disk, indexes included.
    pub bytes: u64,
    /// Objects outside the schema that would go with it, in words.
    pub dependents: Vec<String>,
}

/// Why a schema was not dropped.
#[derive(Debug)]
pub enum DropError {
    /// The catalog or the server refused.
    Catalog(CatalogError),
    /// Another run kept the schema's lock for longer than `lock_wait`.
    Locked {
        /// Who, where the server told.
        holder: Option<Holder>,
        /// How long was waited.
        waited: Duration,
    },
    /// Sessions that use its tables kept their locks through every attempt.
    InUse(ServerError),
}

impl From<CatalogError> for DropError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

impl PostgresCatalog {
    /// Returns what a schema holds, and who outside depends on it. Changes nothing.
    pub async fn contents(&self, schema: &SchemaName) -> Result<Contents, CatalogError> {
        let session = self.session().await?;
        let read = |error: Error| catalog_error(&error);
        let name = escape_literal(schema.as_str());
        let sql = format!(
            "SELECT n.oid, (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')), \
             (SELECT coalesce(sum(s.n_live_tup), 0) FROM pg_stat_all_tables s WHERE s.schemaname = n.nspname), \
             (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'm', 'S')) \
             FROM pg_namespace n WHERE n.nspname = {name}"
        );
        let rows = session.read(&sql).await.map_err(read)?;
        let Some(row) = rows.first() else {
            return Ok(Contents::default());
        };
        let cell = |column: usize| row.get(column).unwrap_or_default();
        let dependents = session.read(&dependents(cell(0))).await.map_err(read)?;
        Ok(Contents {
            exists: true,
            oid: cell(0).parse().ok(),
            tables: cell(1).parse().unwrap_or_default(),
            rows: cell(2).parse().unwrap_or_default(),
            bytes: cell(3).parse().unwrap_or_default(),
            dependents: dependents
                .iter()
                .filter_map(|row| row.get(0).map(str::to_owned))
                .collect(),
        })
    }

    /// Drops the schema and, unless it is to be kept, the tenant's row, which goes last: a
    /// run that was killed in the middle is finished by running it again.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Dependents`] when something outside would go too; [`DropError::Locked`]
    /// when a migration holds the schema for longer than `lock_wait`.
    pub async fn drop(
        &self,
        tenant: &Tenant,
        keep_record: bool,
        rules: &Rules,
    ) -> Result<(), DropError> {
        let contents = self.contents(&tenant.schema).await?;
        if !contents.dependents.is_empty() {
            return Err(CatalogError::Dependents(contents.dependents).into());
        }
        if contents.exists {
            for statements in self.pieces(&tenant.schema).await? {
                let piece = Piece {
                    oid: contents.oid,
                    in_schema: statements,
                    rows: String::new(),
                };
                self.piece(&tenant.schema, &piece, rules).await?;
            }
        }
        let mut last = Piece {
            oid: contents.oid,
            in_schema: format!("DROP SCHEMA IF EXISTS {} CASCADE", tenant.schema.quoted()),
            rows: String::new(),
        };
        if !keep_record {
            let tables = self.tables();
            let _ = write!(
                last.rows,
                "DELETE FROM {} WHERE tenant_id = {}; DELETE FROM {} WHERE id = {}",
                tables.domains, tenant.id, tables.tenants, tenant.id
            );
        }
        self.piece(&tenant.schema, &last, rules).await?;
        // Nothing believes these rows any more, and without our tables there are none.
        if let Ok(session) = self.session().await {
            let _ = session.rows(&runs::forget(&tenant.schema)).await;
        }
        Ok(())
    }

    /// What goes before the schema itself: keys to tables elsewhere, one by one, because
    /// dropping one locks the other table against everybody; then tables, some at a time.
    async fn pieces(&self, schema: &SchemaName) -> Result<Vec<String>, CatalogError> {
        let session = self.session().await?;
        let name = escape_literal(schema.as_str());
        let keys = format!(
            "SELECT format('ALTER TABLE IF EXISTS %I.%I DROP CONSTRAINT IF EXISTS %I', n.nspname, c.relname, k.conname) \
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_class f ON f.oid = k.confrelid \
             WHERE k.contype = 'f' AND n.nspname = {name} AND f.relnamespace <> n.oid AND k.conparentid = 0"
        );
        let tables = format!(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = {name} AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.oid DESC"
        );
        let read = |error: Error| catalog_error(&error);
        let first = |rows: Vec<tokio_postgres::SimpleQueryRow>| -> Vec<String> {
            rows.iter()
                .filter_map(|row| row.get(0).map(str::to_owned))
                .collect()
        };
        let mut pieces = first(session.read(&keys).await.map_err(read)?);
        let tables = first(session.read(&tables).await.map_err(read)?);
        if tables.len() > PIECE {
            let drop =
                |piece: &[String]| format!("DROP TABLE IF EXISTS {} CASCADE", piece.join(", "));
            pieces.extend(tables.chunks(PIECE).map(drop));
        }
        Ok(pieces)
    }

    /// One short transaction under the schema's lock, run again where a lock was in the way or
    /// the connection was lost: doing it twice is no harm, and nobody else knows whether it was done.
    async fn piece(
        &self,
        schema: &SchemaName,
        piece: &Piece,
        rules: &Rules,
    ) -> Result<(), DropError> {
        let begun = Instant::now();
        let mut attempt = 0;
        let mut patience = Duration::ZERO;
        loop {
            let session = self.database().session(patience).await;
            let session = session.map_err(database_error)?;
            match transact(&session, schema, piece, rules).await {
                Ok(None) => return Ok(()),
                Ok(Some(oid)) => {
                    let waited = begun.elapsed();
                    if waited >= rules.lock_wait {
                        let holder = lock::holder(&session, oid).await.ok().flatten();
                        return Err(DropError::Locked { holder, waited });
                    }
                }
                Err(error) => {
                    session.discard();
                    attempt += 1;
                    if is_connection_lost(&error) && attempt <= rules.lock_retries.max(1) {
                        patience = PATIENCE;
                    } else if !is_worth_retrying(&error) {
                        return Err(database_error(server_error(&error)).into());
                    } else if attempt > rules.lock_retries {
                        return Err(DropError::InUse(server_error(&error)));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Returns the oid of the schema whose lock is taken, or nothing when the work is committed.
async fn transact(
    session: &Session,
    schema: &SchemaName,
    piece: &Piece,
    rules: &Rules,
) -> Result<Option<u32>, Error> {
    session.rows("DISCARD ALL").await?;
    let begin = format!(
        "BEGIN; SET LOCAL search_path TO pg_catalog; SET LOCAL lock_timeout TO {}; SET LOCAL statement_timeout TO 0; \
         SELECT oid, pg_try_advisory_xact_lock({CLASS}, oid::int4) FROM pg_namespace WHERE nspname = {}",
        rules.lock_timeout.as_millis(),
        escape_literal(schema.as_str())
    );
    let rows = session.rows(&begin).await?;
    let row = rows.first();
    let oid: Option<u32> = row.and_then(|row| row.get(0)?.parse().ok());
    if let (Some(row), Some(oid)) = (row, oid)
        && row.get(1) != Some("t")
    {
        session.rows("ROLLBACK").await?;
        return Ok(Some(oid));
    }
    // A schema that somebody made under this name since is somebody else's.
    if oid.is_some() && oid == piece.oid {
        session.rows(&piece.in_schema).await?;
    }
    session.rows(&piece.rows).await?;
    session.rows("COMMIT").await?;
    Ok(None)
}

/// Which objects outside the schema with this oid depend on something in it?
///
/// An edge of `pg_depend` that crosses the border is enough: a chain from the inside to
/// the outside crosses it somewhere. An extension that lives in the schema counts as
/// outside, because it belongs to the whole database.
fn dependents(schema_oid: &str) -> String {
    let inside = [
        ("pg_class", "relnamespace"),
        ("pg_type", "typnamespace"),
        ("pg_proc", "pronamespace"),
        ("pg_operator", "oprnamespace"),
        ("pg_opclass", "opcnamespace"),
        ("pg_opfamily", "opfnamespace"),
        ("pg_collation", "collnamespace"),
        ("pg_conversion", "connamespace"),
        ("pg_ts_config", "cfgnamespace"),
        ("pg_ts_dict", "dictnamespace"),
        ("pg_constraint", "connamespace"),
        ("pg_statistic_ext", "stxnamespace"),
    ]
    .map(|(table, column)| {
        format!("SELECT '{table}'::regclass::oid, oid FROM {table} WHERE {column} = {schema_oid}")
    })
    .join(" UNION ALL ");
    format!(
        "WITH inside (classid, objid) AS ({inside} UNION ALL SELECT 'pg_namespace'::regclass::oid, {schema_oid}::oid), \
         sub (classid, objid) AS ( \
           SELECT 'pg_attrdef'::regclass::oid, oid FROM pg_attrdef WHERE adrelid IN (SELECT oid FROM pg_class WHERE relnamespace = {schema_oid}) \
           UNION ALL SELECT 'pg_rewrite'::regclass::oid, oid FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM pg_class WHERE relnamespace = {schema_oid}) \
           UNION ALL SELECT 'pg_trigger'::regclass::oid, oid FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = {schema_oid}) \
           UNION ALL SELECT 'pg_policy'::regclass::oid, oid FROM pg_policy WHERE polrelid IN (SELECT oid FROM pg_class WHERE relnamespace = {schema_oid})) \
         SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend d \
         JOIN inside i ON i.classid = d.refclassid AND i.objid = d.refobjid \
         WHERE d.deptype IN ('n', 'a') \
         AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_publication_rel'::regclass, 'pg_amop'::regclass, 'pg_amproc'::regclass) \
         AND NOT EXISTS (SELECT FROM inside o WHERE o.classid = d.classid AND o.objid = d.objid) \
         AND NOT EXISTS (SELECT FROM sub o WHERE o.classid = d.classid AND o.objid = d.objid) \
         ORDER BY 1 LIMIT 100"
    )
}
