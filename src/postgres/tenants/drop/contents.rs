//! Reads what a schema contains and what depends on it, before it is dropped.

use postgres_protocol::escape::escape_literal;

use crate::domain::catalog::{CatalogError, Dependent};
use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName};
use crate::domain::tenant::Tenant;
use crate::postgres::connection::server_error::is_worth_retrying;
use crate::postgres::connection::session::Session;
use crate::postgres::schema::dependencies::{self, Start};
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::referencing_rows::{self, ReferencingKey, SearchScope};
use crate::postgres::transaction::retry::BRIEF_LOCK_TIMEOUT;

/// What a schema contains, and what depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The schemas that exist: the tenant's, or the remainder of an unfinished drop.
    pub schemas: Vec<SchemaName>,
    /// Number of tables.
    pub tables: usize,
    /// Estimated number of rows, from the server's statistics.
    pub rows: u64,
    /// Size on disk in bytes, with indexes.
    pub bytes: u64,
    /// Whether another session held a lock on a table: `bytes` is estimated from the server's
    /// statistics then, and `references` may be incomplete.
    pub is_partial: bool,
    /// Objects outside the schema that would be dropped with it.
    pub dependents: Vec<Dependent>,
    /// Foreign keys of shared tables whose rows refer to the tenant's row.
    pub references: Vec<ReferencingKey>,
}

impl Contents {
    /// Returns whether a schema exists.
    pub fn exists(&self) -> bool {
        !self.schemas.is_empty()
    }

    /// Returns whether a drop was started and not finished.
    pub fn is_dropping(&self) -> bool {
        let mut schemas = self.schemas.iter();
        schemas.any(|schema| schema.as_str().starts_with(DROPPING_PREFIX))
    }

    /// Fails if objects outside the schema would be dropped, unless `cascade_outside`.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Dependents`], always for an extension: it belongs to the whole database, and can
    /// be moved to another schema.
    pub fn check_dependents(&self, cascade_outside: bool) -> Result<(), CatalogError> {
        check_dependents(&self.dependents, cascade_outside)
    }
}

pub(super) fn check_dependents(
    dependents: &[Dependent],
    cascade_outside: bool,
) -> Result<(), CatalogError> {
    let has_extension = dependents.iter().any(|one| one.extension.is_some());
    if dependents.is_empty() || (cascade_outside && !has_extension) {
        return Ok(());
    }
    Err(CatalogError::Dependents(dependents.to_vec()))
}

/// Whether a tenant's schema exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It exists.
    Exists,
    /// A drop was started and not finished.
    Dropping,
    /// It does not exist.
    Missing,
}

impl PostgresCatalog {
    /// Returns whether a tenant's schema exists. Waits for no lock.
    pub async fn presence(&self, tenant: &Tenant) -> Result<Presence, CatalogError> {
        let sql = format!(
            "SELECT starts_with(nspname, '{DROPPING_PREFIX}') FROM pg_namespace WHERE nspname IN ({}, {}) ORDER BY 1 DESC LIMIT 1",
            escape_literal(SchemaName::dropping(tenant.id.as_str()).as_str()),
            escape_literal(tenant.schema.as_str()),
        );
        let rows = self.read(&sql).await?;
        Ok(match rows.first().map(|row| row.is_true(0)) {
            None => Presence::Missing,
            Some(true) => Presence::Dropping,
            Some(false) => Presence::Exists,
        })
    }

    /// Returns the contents of a tenant's schema, and which objects outside depend on it.
    pub async fn contents(&self, tenant: &Tenant) -> Result<Contents, CatalogError> {
        let names = [SchemaName::dropping(tenant.id.as_str()), tenant.schema.clone()];
        let session = self.session().await?;
        let mut contents = contents_of(&session, &names).await?;
        let shared = SearchScope::Shared;
        let timeout = BRIEF_LOCK_TIMEOUT;
        match referencing_rows::find(&session, self.tables(), tenant, shared, timeout).await {
            Ok(shared) => contents.references = shared.found,
            Err(error) if is_worth_retrying(&error) => contents.is_partial = true,
            Err(error) => return Err(error.into()),
        }
        Ok(contents)
    }
}

/// Returns the contents of those of the named schemas that exist. Waits 0.2 s at most for a lock.
pub(crate) async fn contents_of(
    session: &Session,
    names: &[SchemaName],
) -> Result<Contents, CatalogError> {
    let literals: Vec<String> = names.iter().map(|name| escape_literal(name.as_str())).collect();
    let select = |size: &str| {
        format!(
            "SET LOCAL lock_timeout TO {}; SELECT n.nspname, n.oid, (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')), \
         (SELECT coalesce(sum(s.n_live_tup), 0) FROM pg_stat_all_tables s WHERE s.schemaname = n.nspname), \
         (SELECT coalesce(sum({size}), 0) FROM pg_class c WHERE c.relnamespace = n.oid) \
         FROM pg_namespace n WHERE n.nspname IN ({})",
            BRIEF_LOCK_TIMEOUT.as_millis(),
            literals.join(", ")
        )
    };
    // The exact size requires a lock on each table.
    let exact = "CASE WHEN c.relkind IN ('r', 'm', 'S') THEN pg_total_relation_size(c.oid) END";
    let estimate = "(c.relpages::int8 + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0)) * current_setting('block_size')::int8";
    let mut contents = Contents::default();
    let rows = match session.read(&select(exact)).await {
        Ok(rows) => rows,
        Err(error) if is_worth_retrying(&error) => {
            contents.is_partial = true;
            session.read(&select(estimate)).await?
        }
        Err(error) => return Err(error.into()),
    };
    let mut oids = Vec::new();
    for name in names {
        let Some(row) = rows.iter().find(|row| row.optional(0) == Some(name.as_str())) else {
            continue;
        };
        contents.schemas.push(name.clone());
        oids.push(row.text(1)?.to_owned());
        contents.tables += row.parse::<usize>(2)?;
        contents.rows += row.parse::<u64>(3)?;
        contents.bytes += row.parse::<u64>(4)?;
    }
    if !oids.is_empty() {
        let select = dependencies::select(&oids, &Start::Schemas);
        contents.dependents = dependencies::read(&session.read(&select).await?);
    }
    Ok(contents)
}
