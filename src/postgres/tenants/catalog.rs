//! Reads the tenant tables: tenants and their hosts, and what the database has besides them.

use std::collections::HashSet;

use futures_util::StreamExt as _;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Error, SimpleQueryMessage};

use super::mark::has_mark;
use crate::domain::catalog::{CatalogError, TenantCatalog};
use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName, TRASH_PREFIX};
use crate::domain::sqlstate;
use crate::domain::tenant::{Hostname, RefusedRow, Slug, Tenant, TenantId, TenantList};
use crate::postgres::connection::catalog_sql::{Tables, dropping, id_literal};
use crate::postgres::connection::database::Database;
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::connection::sql_file::filled;
use crate::postgres::transaction::advisory_lock;
use crate::service::event::Skipped;
use crate::service::failure::ServerError;
use crate::settings::CatalogLayout;

/// Separates hosts in one text; no host name contains it.
const SEPARATOR: char = '\u{1f}';

/// The hosts of a tenant, the primary one first.
const HOSTS: &str = "string_agg(d.domain, '\u{1f}' ORDER BY d.is_primary DESC, d.id)";

/// When a tenant was created, as RFC 3339 text.
const CREATED_AT: &str = "to_char(t.created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";

/// The catalog in a PostgreSQL database.
#[derive(Clone, Debug)]
pub struct PostgresCatalog {
    database: Database,
    tables: Tables,
}

/// The server's error inside a [`CatalogError`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DatabaseError(pub ServerError);

impl CatalogError {
    /// Returns whether lock contention was the cause, so that a retry may succeed.
    pub fn is_contention(&self) -> bool {
        match self {
            Self::Database(error) => error
                .downcast_ref::<DatabaseError>()
                .is_some_and(|DatabaseError(error)| error.is_contention()),
            _ => false,
        }
    }
}

/// Returns the catalog's error for a driver's error.
pub(crate) fn catalog_error(error: &Error) -> CatalogError {
    let cause = server_error(error);
    // A relation that a trigger's function lacks is not one of the tenant tables.
    let is_direct = error.as_db_error().is_some_and(|db| db.where_().is_none());
    match cause.sqlstate.as_deref().filter(|_| is_direct) {
        Some(code) if sqlstate::is_missing_table(code) => {
            CatalogError::TablesMissing(cause.to_string())
        }
        Some(sqlstate::UNDEFINED_COLUMN) => CatalogError::ColumnMissing(cause.to_string()),
        _ => database_error(cause),
    }
}

impl From<Error> for CatalogError {
    fn from(error: Error) -> Self {
        catalog_error(&error)
    }
}

pub(crate) fn database_error(error: ServerError) -> CatalogError {
    if error.has_sqlstate(sqlstate::INSUFFICIENT_PRIVILEGE) {
        return CatalogError::PermissionDenied(error.to_string());
    }
    CatalogError::Database(Box::new(DatabaseError(error)))
}

pub(crate) fn unreachable_error(error: ServerError) -> CatalogError {
    CatalogError::Unreachable(Box::new(DatabaseError(error)))
}

/// An index that is maintained but that no query uses, because its build failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidIndex {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub index: String,
    /// Its table.
    pub table: String,
}

impl InvalidIndex {
    /// Returns whether a failed `REINDEX ... CONCURRENTLY` left it (manual, `REINDEX`): its name
    /// ends in `_ccnew` or `_ccold`, followed by a number if that name was taken.
    pub fn is_reindex_leftover(&self) -> bool {
        let name = self.index.trim_end_matches(|letter: char| letter.is_ascii_digit());
        name.ends_with("_ccnew") || name.ends_with("_ccold")
    }
}

/// A schema without a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its name.
    pub schema: String,
    /// Whether its `create-tenant` has not finished.
    pub is_unfinished: bool,
    /// Whether it contains a history table, or a table of the same name as a tenant's.
    pub is_known: bool,
    /// Its tables and views, if it is not known.
    pub tables: Vec<String>,
}

impl PostgresCatalog {
    /// Returns the catalog in these tables.
    pub fn new(database: Database, layout: &CatalogLayout) -> Self {
        Self { database, tables: Tables::new(layout) }
    }

    /// Returns the database that the catalog is in.
    pub fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) async fn session(&self) -> Result<Session, CatalogError> {
        self.database.session(std::time::Duration::ZERO).await.map_err(unreachable_error)
    }

    /// Runs a query in a transaction of its own and returns its rows.
    pub(crate) async fn read(&self, sql: &str) -> Result<Vec<Row>, CatalogError> {
        Ok(self.session().await?.read(sql).await?)
    }

    /// Returns the schemas whose name has the prefix, that contain a history table or whose
    /// `create-tenant` has not finished, and that no tenant's row names. Leaves out those in `shared`
    /// and, if the prefix is empty, those that contain extensions.
    pub async fn orphans(
        &self,
        prefix: &str,
        history_table: &str,
        shared: &[SchemaName],
    ) -> Result<Vec<Orphan>, CatalogError> {
        let shared: Vec<String> =
            shared.iter().map(|schema| escape_literal(schema.as_str())).collect();
        let values = [
            ("{prefix}", escape_literal(prefix)),
            ("{history_table}", escape_literal(history_table)),
            ("{shared}", shared.join(",")),
            ("{rows}", self.tables.rows.clone()),
            ("{unfinished}", has_mark("n.oid")),
            ("{trash}", TRASH_PREFIX.to_owned()),
            ("{dropping}", DROPPING_PREFIX.to_owned()),
        ];
        let sql = filled(include_str!("sql/orphans.sql"), &values);
        let orphan = |row: &Row| {
            let tables = row.optional(3).and_then(|json| serde_json::from_str(json).ok());
            Ok(Orphan {
                schema: row.text(0)?.to_owned(),
                is_unfinished: row.is_true(1),
                is_known: row.is_true(2),
                tables: tables.unwrap_or_default(),
            })
        };
        self.read(&sql).await?.iter().map(orphan).collect()
    }

    /// Returns why a job skips the tenant with this id: it was dropped or is being dropped. `None` where
    /// it is neither, or where the catalog cannot be read.
    pub async fn skip_reason(&self, id: &TenantId) -> Option<Skipped> {
        let session = self.session().await.ok()?;
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname::text = {}) FROM {} t WHERE t.id = {}",
            dropping("t.id"),
            self.tables.rows,
            id_literal(id)
        );
        match session.read(&sql).await.ok()?.first() {
            None => Some(Skipped::Dropped),
            Some(row) => row.is_true(0).then_some(Skipped::Dropping),
        }
    }

    /// Returns the schemas that a session is changing: it holds their advisory lock.
    pub async fn locked_schemas(&self) -> Result<Vec<String>, CatalogError> {
        Ok(advisory_lock::locked_schemas(&self.session().await?).await?)
    }

    /// Returns the primary hosts of all tenants.
    pub async fn primary_hosts(&self) -> Result<HashSet<Hostname>, CatalogError> {
        let sql = format!(
            "SELECT d.domain FROM {} d WHERE d.is_primary AND d.domain IS NOT NULL",
            self.tables.hosts
        );
        let host = |row: &Row| Ok(Hostname::from_catalog(row.text(0)?.to_owned()));
        self.read(&sql).await?.iter().map(host).collect()
    }

    /// Returns the invalid indexes in `public` and in tenants' schemas. Leaves out those that
    /// another session is building.
    pub async fn invalid_indexes(&self) -> Result<Vec<InvalidIndex>, CatalogError> {
        let values = [("{rows}", self.tables.rows.clone())];
        let sql = filled(include_str!("sql/invalid_indexes.sql"), &values);
        let index = |row: &Row| {
            Ok(InvalidIndex {
                schema: row.text(0)?.to_owned(),
                index: row.text(1)?.to_owned(),
                table: row.text(2)?.to_owned(),
            })
        };
        self.read(&sql).await?.iter().map(index).collect()
    }

    /// Returns an expression for the rows of a tenant's hosts, as a JSON array.
    pub(crate) fn domains_as_json(&self, id: &TenantId) -> String {
        match &self.tables.domains {
            Some(domains) => format!(
                "(SELECT coalesce(json_agg(row_to_json(d) ORDER BY d.{}), '[]') FROM {} d WHERE d.{} = {})",
                domains.id,
                domains.table,
                domains.tenant,
                id_literal(id)
            ),
            None => "'[]'::json".to_owned(),
        }
    }

    /// Returns the query for tenants with their hosts, the primary one first.
    fn select(&self, condition: &str) -> String {
        let Tables { rows, hosts, .. } = &self.tables;
        format!(
            "SELECT t.id::text, t.name, t.slug, t.schema_name, {CREATED_AT}, \
             (SELECT {HOSTS} FROM {hosts} d WHERE d.tenant_id = t.id) \
             FROM {rows} t {condition} ORDER BY t.slug COLLATE \"C\""
        )
    }
}

impl TenantCatalog for PostgresCatalog {
    async fn list(&self) -> Result<TenantList, CatalogError> {
        let Tables { rows, hosts, .. } = &self.tables;
        // Aggregating all hosts at once; a subquery for each tenant takes 1.5 times as long.
        self.read_all(&format!(
            "SELECT t.id::text, t.name, t.slug, t.schema_name, {CREATED_AT}, d.hosts FROM {rows} t LEFT JOIN \
             (SELECT d.tenant_id, {HOSTS} AS hosts FROM {hosts} d GROUP BY d.tenant_id) d ON d.tenant_id = t.id \
             ORDER BY t.slug COLLATE \"C\""
        ))
        .await
    }

    async fn list_briefly(&self) -> Result<TenantList, CatalogError> {
        self.read_all(&format!(
            "SELECT t.id::text, t.name, t.slug, t.schema_name, NULL, NULL FROM {} t ORDER BY t.slug COLLATE \"C\"",
            self.tables.rows
        ))
        .await
    }

    async fn resolve(&self, host: &Hostname) -> Result<Tenant, CatalogError> {
        let condition = format!(
            "WHERE t.id = (SELECT d.tenant_id FROM {} d WHERE d.domain = {} LIMIT 1)",
            self.tables.hosts,
            escape_literal(host.as_str())
        );
        let session = self.session().await?;
        let rows = session.read(&self.select(&condition)).await.map_err(|error| {
            if is_connection_lost(&error) {
                unreachable_error(server_error(&error))
            } else {
                catalog_error(&error)
            }
        })?;
        let mut list = TenantList::default();
        for row in &rows {
            read_tenant(row, &mut list);
        }
        let found = list.tenants.into_iter().next();
        found.ok_or_else(|| CatalogError::NotFound(host.to_string()))
    }
}

impl PostgresCatalog {
    async fn read_all(&self, select: &str) -> Result<TenantList, CatalogError> {
        let session = self.session().await?;
        let sql = format!(
            "BEGIN READ ONLY; SET LOCAL search_path TO pg_catalog; SET LOCAL statement_timeout TO 0; {select}; COMMIT"
        );
        let query = Row::query(select);
        let mut list = TenantList::default();
        let mut rows = std::pin::pin!(session.client().simple_query_raw(&sql).await?);
        // Row by row, so that 50,000 tenants are not in memory twice.
        while let Some(message) = rows.next().await {
            match message {
                Ok(SimpleQueryMessage::Row(row)) => {
                    read_tenant(&Row::new(row, &query), &mut list);
                }
                Ok(_) => {}
                // The stream of a lost connection repeats this error without an end.
                Err(error) => {
                    session.discard();
                    return Err(error.into());
                }
            }
        }
        Ok(list)
    }
}

fn read_tenant(row: &Row, list: &mut TenantList) {
    // Columns of the tenant table may be NULL, whatever they hold.
    let cell = |column: usize| row.optional(column).unwrap_or_default();
    let schema = cell(3);
    // django-tenants has a row for the shared schema itself.
    if schema == "public" {
        return;
    }
    let id = TenantId::new(cell(0));
    match SchemaName::parse(schema) {
        Ok(schema) => list.tenants.push(Tenant {
            id,
            name: cell(1).to_owned(),
            slug: Slug::from_catalog(cell(2).to_owned()),
            schema,
            hostnames: cell(5)
                .split(SEPARATOR)
                .filter(|host| !host.is_empty())
                .map(|host| Hostname::from_catalog(host.to_owned()))
                .collect(),
            created_at: row.optional(4).map(str::to_owned),
        }),
        Err(reason) => list.refused.push(RefusedRow {
            id,
            slug: cell(2).to_owned(),
            schema: schema.to_owned(),
            reason,
        }),
    }
}
