//! The tenant tables: who is there, who answers to a host, what is taken.

use std::collections::HashSet;
use std::fmt;

use futures_util::StreamExt as _;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Error, SimpleQueryMessage};

use crate::domain::catalog::{CatalogError, Taken, TenantCatalog};
use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName, TRASH_PREFIX};
use crate::domain::sqlstate;
use crate::domain::tenant::{Hostname, NewTenant, RefusedRow, Slug, Tenant, TenantList};
use crate::postgres::connection::catalog_sql::Tables;
use crate::postgres::connection::catalog_sql::select_missing;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::transaction::advisory_lock;
use crate::postgres::transaction::retry::Retry;
use crate::service::event::{Progress, Skipped};
use crate::service::failure::ServerError;
use crate::service::fleet::Interrupts;
use crate::settings::CatalogLayout;

/// Parts hosts in one text; no host name holds it.
const SEPARATOR: char = '\u{1f}';

/// The hosts of a tenant, the primary one first.
const HOSTS: &str = "string_agg(d.domain, '\u{1f}' ORDER BY d.is_primary DESC, d.id)";

/// When a tenant was made.
const CREATED_AT: &str = "to_char(t.created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";

/// The catalog in a PostgreSQL database.
#[derive(Clone, Debug)]
pub struct PostgresCatalog {
    database: Database,
    tables: Tables,
    progress: Progress,
}

/// A server's word inside a [`CatalogError`].
#[derive(Debug)]
pub struct DatabaseError(pub ServerError);

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DatabaseError {}

impl CatalogError {
    /// Returns whether another session was in the way, so that it may work later.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        match self {
            Self::Database(error) => error
                .downcast_ref::<DatabaseError>()
                .is_some_and(|DatabaseError(said)| said.is_contention()),
            _ => false,
        }
    }
}

/// Returns the catalog's error for a driver's error.
pub(crate) fn catalog_error(error: &Error) -> CatalogError {
    let said = server_error(error);
    // What a trigger's function misses is no table of the catalog's.
    let is_ours = error.as_db_error().is_some_and(|db| db.where_().is_none());
    match said.sqlstate.as_deref().filter(|_| is_ours) {
        Some(code) if sqlstate::is_missing_table(code) => {
            CatalogError::TablesMissing(said.to_string())
        }
        Some(sqlstate::UNDEFINED_COLUMN) => CatalogError::ColumnMissing(said.to_string()),
        _ => database_error(said),
    }
}

pub(crate) fn database_error(said: ServerError) -> CatalogError {
    if said.has_sqlstate(sqlstate::INSUFFICIENT_PRIVILEGE) {
        return CatalogError::PermissionDenied(said.to_string());
    }
    CatalogError::Database(Box::new(DatabaseError(said)))
}

pub(crate) fn unreachable_error(said: ServerError) -> CatalogError {
    CatalogError::Unreachable(Box::new(DatabaseError(said)))
}

/// An index that takes room and time and is used by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidIndex {
    /// Where it is.
    pub schema: String,
    /// Its name.
    pub index: String,
    /// The table that it is of.
    pub table: String,
}

impl InvalidIndex {
    /// Returns whether it is what a `REINDEX ... CONCURRENTLY` that did not end leaves beside the
    /// index that it was about (manual, `REINDEX`): `_ccnew` or `_ccold`, with a number where one
    /// was there already.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        let name = self
            .index
            .trim_end_matches(|letter: char| letter.is_ascii_digit());
        name.ends_with("_ccnew") || name.ends_with("_ccold")
    }
}

impl PostgresCatalog {
    /// Returns the catalog that these tables make.
    #[must_use]
    pub fn new(database: Database, layout: &CatalogLayout) -> Self {
        let tables = Tables::new(layout);
        let (progress, _nobody) = Progress::channel();
        Self {
            database,
            tables,
            progress,
        }
    }

    /// Returns the same catalog, which tells here what it waits for, and how far long work is.
    #[must_use]
    pub fn telling(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// Returns where it tells what happens.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns how transactions of the catalog's verbs are retried.
    pub(crate) fn retry<'a>(&'a self, options: &'a EngineOptions) -> Retry<'a> {
        Retry::new(&self.database, options, &self.progress, Interrupts::never())
    }

    /// Returns the database that the catalog is in.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) async fn session(&self) -> Result<Session, CatalogError> {
        self.database
            .session(std::time::Duration::ZERO)
            .await
            .map_err(unreachable_error)
    }

    /// Creates an empty schema for a tenant that lacks its own.
    ///
    /// # Errors
    ///
    /// What the server refuses; a schema that exists by now is no error.
    pub async fn create_schema(&self, schema: &SchemaName) -> Result<(), CatalogError> {
        let session = self.session().await?;
        let created = session
            .rows(&format!("CREATE SCHEMA IF NOT EXISTS {}", schema.quoted()))
            .await;
        created.map(drop).map_err(|error| catalog_error(&error))
    }

    /// Returns the schemas that begin with the prefix or hold a history table, and that no
    /// tenant has. Those in `apart` are shared, and with an empty prefix so are those in which
    /// extensions live.
    ///
    /// # Errors
    ///
    /// As [`TenantCatalog::list`].
    pub async fn orphans(
        &self,
        prefix: &str,
        history_table: &str,
        apart: &[SchemaName],
    ) -> Result<Vec<String>, CatalogError> {
        let session = self.session().await?;
        let shared: Vec<String> = apart
            .iter()
            .map(|schema| escape_literal(schema.as_str()))
            .collect();
        let sql = format!(
            "SELECT n.nspname FROM pg_namespace n \
             WHERE (starts_with(n.nspname::text, {}) OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = {} AND c.relkind IN ('r', 'p'))) \
             AND n.nspname NOT IN ('public', 'pricesync', 'information_schema') AND NOT starts_with(n.nspname::text, 'pg_') \
             AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = n.oid AND e.deptype = 'e') \
             AND NOT n.nspname = ANY (ARRAY[{}]::name[]) \
             AND ({} <> '' OR NOT EXISTS (SELECT FROM pg_extension e WHERE e.extnamespace = n.oid)) \
             AND NOT starts_with(n.nspname::text, '{TRASH_PREFIX}') AND NOT starts_with(n.nspname::text, '{DROPPING_PREFIX}') \
             AND NOT EXISTS (SELECT FROM {} t WHERE t.schema_name::text = n.nspname::text) ORDER BY 1",
            escape_literal(prefix),
            escape_literal(history_table),
            shared.join(","),
            escape_literal(prefix),
            self.tables.rows
        );
        let rows = session
            .read(&sql)
            .await
            .map_err(|error| catalog_error(&error))?;
        Ok(rows
            .iter()
            .filter_map(|row| row.optional(0).map(str::to_owned))
            .collect())
    }

    /// Returns why a job skips the tenant with this id: it was dropped or is being dropped. `None` where
    /// it is neither, or where the catalog cannot be read.
    pub(crate) async fn skip_reason(&self, id: i64) -> Option<Skipped> {
        let session = self.session().await.ok()?;
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = '{DROPPING_PREFIX}' || t.id) \
             FROM {} t WHERE t.id = '{id}'",
            self.tables.rows
        );
        match session.read(&sql).await.ok()?.first() {
            None => Some(Skipped::Dropped),
            Some(row) => row.is_true(0).then_some(Skipped::Dropping),
        }
    }

    /// Returns the schemas that a session is changing: it holds their advisory lock.
    ///
    /// # Errors
    ///
    /// As [`TenantCatalog::list`].
    pub async fn locked_schemas(&self) -> Result<Vec<String>, CatalogError> {
        let session = self.session().await?;
        let locked = advisory_lock::locked_schemas(&session).await;
        locked.map_err(|error| catalog_error(&error))
    }

    /// Returns the primary hosts of all tenants.
    ///
    /// # Errors
    ///
    /// As [`TenantCatalog::list`].
    pub async fn primary_hosts(&self) -> Result<HashSet<Hostname>, CatalogError> {
        let session = self.session().await?;
        let sql = format!(
            "SELECT d.domain FROM {} d WHERE d.is_primary",
            self.tables.hosts
        );
        let rows = session
            .read(&sql)
            .await
            .map_err(|error| catalog_error(&error))?;
        Ok(rows
            .iter()
            .filter_map(|row| row.optional(0))
            .map(|host| Hostname::from_catalog(host.to_owned()))
            .collect())
    }

    /// Returns the indexes in `public` and in tenants' schemas that no query uses because building
    /// them did not end, unless somebody is at it right now.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn invalid_indexes(&self) -> Result<Vec<InvalidIndex>, CatalogError> {
        let session = self.session().await?;
        // An index of a partitioned table is invalid until each partition has one. Any role can see the
        // lock of a running build, but not its row in pg_stat_progress_create_index.
        let sql = format!(
            "SELECT n.nspname, c.relname, t.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
             JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE NOT i.indisvalid AND c.relkind = 'i' \
             AND (n.nspname = 'public' OR EXISTS (SELECT FROM {} t WHERE t.schema_name::text = n.nspname::text)) \
             AND NOT EXISTS (SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'relation' AND l.relation = t.oid AND l.mode = 'ShareUpdateExclusiveLock' \
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND a.backend_type IS DISTINCT FROM 'autovacuum worker') \
             ORDER BY 1, 2",
            self.tables.rows
        );
        let rows = session
            .read(&sql)
            .await
            .map_err(|error| catalog_error(&error))?;
        let index = |row: &Row| {
            Ok(InvalidIndex {
                schema: row.text(0)?.to_owned(),
                index: row.text(1)?.to_owned(),
                table: row.text(2)?.to_owned(),
            })
        };
        let indexes: Result<_, Error> = rows.iter().map(index).collect();
        indexes.map_err(|error| catalog_error(&error))
    }

    /// Every row of the catalog, with its hosts, the primary one first.
    fn select(&self, condition: &str) -> String {
        let Tables { rows, hosts, .. } = &self.tables;
        format!(
            "SELECT t.id, t.name, t.slug, t.schema_name, {CREATED_AT}, \
             (SELECT {HOSTS} FROM {hosts} d WHERE d.tenant_id = t.id) \
             FROM {rows} t {condition} ORDER BY t.slug COLLATE \"C\""
        )
    }

    /// Finds what of a new tenant is taken, in whatever case it is written. Whoever adopts a
    /// schema is not kept from it because it exists.
    pub(crate) async fn conflict(
        &self,
        session: &Session,
        new: &NewTenant,
        adopts: bool,
    ) -> Result<Option<CatalogError>, Error> {
        let Tables { rows, hosts, .. } = &self.tables;
        let (slug, schema) = (
            escape_literal(new.slug.as_str()),
            escape_literal(new.schema.as_str()),
        );
        let wanted: Vec<String> = new
            .hostnames
            .iter()
            .flat_map(|host| std::iter::once(host.to_string()).chain(host.unicode()))
            .map(|host| escape_literal(&host))
            .collect();
        let sql = format!(
            "SELECT 1, t.slug, 'tenant ''' || t.slug || ''' (' || t.name || ')' FROM {rows} t WHERE lower(t.given_slug) = lower({slug}) \
             UNION ALL SELECT 2, t.schema_name, 'tenant ''' || t.slug || '''' FROM {rows} t WHERE lower(t.schema_name) = lower({schema}) \
             UNION ALL SELECT 2, n.nspname, 'an existing schema' FROM pg_namespace n WHERE lower(n.nspname::text COLLATE pg_catalog.\"default\") = lower({schema}) AND NOT ({adopts} AND n.nspname = {schema}) \
             UNION ALL SELECT 3, d.domain, 'tenant ''' || t.slug || '''' FROM {hosts} d JOIN {rows} t ON t.id = d.tenant_id \
             WHERE lower(d.domain) = ANY (ARRAY[{}]::text[]) ORDER BY 1",
            wanted.join(",")
        );
        // Inside the transaction that is going to create it, so not through `read`.
        let rows = session.rows(&sql).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(CatalogError::AlreadyExists {
            what: match row.text(0)? {
                "1" => Taken::Slug,
                "2" => Taken::Schema,
                _ => Taken::Hostname,
            },
            value: row.text(1)?.to_owned(),
            owner: row.text(2)?.to_owned(),
        }))
    }

    /// Says of an owner that he is being dropped, where he is.
    pub(crate) async fn name_owner(&self, error: CatalogError) -> CatalogError {
        let CatalogError::AlreadyExists { what, value, owner } = error else {
            return error;
        };
        let column = match what {
            Taken::Slug => "slug",
            Taken::Schema => "schema_name",
            Taken::Hostname => return CatalogError::AlreadyExists { what, value, owner },
        };
        let sql = format!(
            "SELECT FROM ({}) m (schema_name, dropping) JOIN {} t ON t.schema_name = m.schema_name WHERE m.dropping AND t.{column} = {}",
            select_missing(&self.tables.rows),
            self.tables.rows,
            escape_literal(&value)
        );
        let is_dropping = match self.session().await {
            Ok(session) => session.read(&sql).await.is_ok_and(|rows| !rows.is_empty()),
            Err(_) => false,
        };
        let owner = if is_dropping {
            format!("{owner}, which is being dropped")
        } else {
            owner
        };
        CatalogError::AlreadyExists { what, value, owner }
    }
}

impl TenantCatalog for PostgresCatalog {
    async fn list(&self) -> Result<TenantList, CatalogError> {
        let Tables { rows, hosts, .. } = &self.tables;
        // Hosts of all tenants at once; asking for those of each takes half as long again.
        self.read_all(&format!(
            "SELECT t.id, t.name, t.slug, t.schema_name, {CREATED_AT}, d.hosts FROM {rows} t LEFT JOIN \
             (SELECT d.tenant_id, {HOSTS} AS hosts FROM {hosts} d GROUP BY d.tenant_id) d ON d.tenant_id = t.id \
             ORDER BY t.slug COLLATE \"C\""
        ))
        .await
    }

    async fn list_briefly(&self) -> Result<TenantList, CatalogError> {
        self.read_all(&format!(
            "SELECT t.id, t.name, t.slug, t.schema_name, NULL, NULL FROM {} t ORDER BY t.slug COLLATE \"C\"",
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
        let rows = session
            .read(&self.select(&condition))
            .await
            .map_err(|error| {
                if is_connection_lost(&error) {
                    unreachable_error(server_error(&error))
                } else {
                    catalog_error(&error)
                }
            })?;
        let mut list = TenantList::default();
        for row in &rows {
            read(row, &mut list)?;
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
        let mut rows = std::pin::pin!(
            session
                .client()
                .simple_query_raw(&sql)
                .await
                .map_err(|error| catalog_error(&error))?
        );
        // Row by row: 50,000 tenants are not kept as rows and as tenants at once.
        while let Some(message) = rows.next().await {
            match message {
                Ok(SimpleQueryMessage::Row(row)) => {
                    read(&Row::new(row, &query), &mut list)?;
                }
                Ok(_) => {}
                // A connection that was lost brings this error for ever.
                Err(error) => {
                    session.discard();
                    return Err(catalog_error(&error));
                }
            }
        }
        Ok(list)
    }
}

fn read(row: &Row, list: &mut TenantList) -> Result<(), CatalogError> {
    let cell = |column: usize| row.optional(column).unwrap_or_default();
    let schema = cell(3);
    // django-tenants keeps a row for the shared schema itself.
    if schema == "public" {
        return Ok(());
    }
    let id = cell(0).parse().map_err(|_| CatalogError::InvalidId {
        id: cell(0).to_owned(),
        schema: schema.to_owned(),
    })?;
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
    Ok(())
}
