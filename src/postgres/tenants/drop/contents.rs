//! What would be lost with a schema, read before anything is dropped.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use crate::domain::catalog::{CatalogError, Dependent};
use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName};
use crate::domain::tenant::Tenant;
use crate::postgres::connection::server_error::is_worth_retrying;
use crate::postgres::connection::session::Session;
use crate::postgres::schema::dependencies::{self, Start};
use crate::postgres::tenants::catalog::{PostgresCatalog, catalog_error};
use crate::postgres::tenants::referencing_rows::{self, Referrer, SearchScope};
use crate::postgres::transaction::retry::BRIEF_LOCK_TIMEOUT;

/// What would be lost with a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The schemas that exist: the tenant's, or what an unfinished drop left of it.
    pub homes: Vec<SchemaName>,
    /// How many tables.
    pub tables: usize,
    /// How many rows, by the server's statistics.
    pub rows: u64,
    /// How many bytes on disk, indexes included.
    pub bytes: u64,
    /// Whether another session's lock on a table prevented a full answer: `bytes` is by the server's
    /// statistics then, and `referrers` may be incomplete.
    pub is_partial: bool,
    /// Objects outside the schema that would be dropped with it.
    pub dependents: Vec<Dependent>,
    /// Foreign keys of shared tables whose rows refer to the tenant's row.
    pub referrers: Vec<Referrer>,
}

impl Contents {
    /// Returns whether there is a schema at all.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.homes.is_empty()
    }

    /// Returns whether a drop was started and not finished.
    #[must_use]
    pub fn is_dropping(&self) -> bool {
        let mut homes = self.homes.iter();
        homes.any(|home| home.as_str().starts_with(DROPPING_PREFIX))
    }

    /// Fails where objects outside the schema would be dropped and that was not asked for.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Dependents`]. An extension is never dropped along: it belongs to the whole
    /// database, and can be moved.
    pub fn refuse_dependents(&self, cascade_outside: bool) -> Result<(), CatalogError> {
        refuse(&self.dependents, cascade_outside)
    }
}

pub(super) fn refuse(dependents: &[Dependent], cascade_outside: bool) -> Result<(), CatalogError> {
    let has_extension = dependents.iter().any(|one| one.extension.is_some());
    if dependents.is_empty() || (cascade_outside && !has_extension) {
        return Ok(());
    }
    Err(CatalogError::Dependents(dependents.to_vec()))
}

/// Whether a tenant has its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It exists.
    Whole,
    /// A drop was started and not finished.
    Dropping,
    /// It does not exist.
    Missing,
}

impl PostgresCatalog {
    /// Returns whether a tenant has its schema. Waits for no lock.
    ///
    /// # Errors
    ///
    /// The server's error.
    pub async fn presence(&self, tenant: &Tenant) -> Result<Presence, CatalogError> {
        let sql = format!(
            "SELECT starts_with(nspname, '{DROPPING_PREFIX}') FROM pg_namespace WHERE nspname IN ({}, {}) ORDER BY 1 DESC LIMIT 1",
            escape_literal(SchemaName::dropping(tenant.id).as_str()),
            escape_literal(tenant.schema.as_str()),
        );
        let rows = self.session().await?.read(&sql).await;
        let rows = rows.map_err(|error| catalog_error(&error))?;
        Ok(match rows.first().map(|row| row.optional(0)) {
            None => Presence::Missing,
            Some(Some("t")) => Presence::Dropping,
            Some(_) => Presence::Whole,
        })
    }

    /// Returns what a tenant's schema holds, and which objects outside depend on it. Changes nothing.
    ///
    /// # Errors
    ///
    /// The server's error.
    pub async fn contents(&self, tenant: &Tenant) -> Result<Contents, CatalogError> {
        let names = [SchemaName::dropping(tenant.id), tenant.schema.clone()];
        let session = self.session().await?;
        let mut contents = contents_of(&session, &names).await?;
        let shared = SearchScope::Shared;
        let timeout = BRIEF_LOCK_TIMEOUT;
        match referencing_rows::find(&session, self.tables(), tenant, shared, timeout).await {
            Ok(shared) => contents.referrers = shared.found,
            Err(error) if is_worth_retrying(&error) => contents.is_partial = true,
            Err(error) => return Err(catalog_error(&error)),
        }
        Ok(contents)
    }
}

/// Returns what the existing schemas of these names hold. Waits only briefly for locks.
pub(crate) async fn contents_of(
    session: &Session,
    names: &[SchemaName],
) -> Result<Contents, CatalogError> {
    let read = |error: Error| catalog_error(&error);
    let literals: Vec<String> = names
        .iter()
        .map(|name| escape_literal(name.as_str()))
        .collect();
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
            session.read(&select(estimate)).await.map_err(read)?
        }
        Err(error) => return Err(read(error)),
    };
    let mut oids = Vec::new();
    for name in names {
        let Some(row) = rows
            .iter()
            .find(|row| row.optional(0) == Some(name.as_str()))
        else {
            continue;
        };
        contents.homes.push(name.clone());
        oids.push(row.text(1).map_err(read)?.to_owned());
        contents.tables += row.parse::<usize>(2).map_err(read)?;
        contents.rows += row.parse::<u64>(3).map_err(read)?;
        contents.bytes += row.parse::<u64>(4).map_err(read)?;
    }
    if !oids.is_empty() {
        let rows = session
            .read(&dependencies::select(&oids, &Start::Schemas))
            .await
            .map_err(read)?;
        contents.dependents = dependencies::read(&rows);
    }
    Ok(contents)
}
