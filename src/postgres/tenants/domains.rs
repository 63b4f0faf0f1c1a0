//! Adds and removes hosts of tenants, and sets the primary one.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::catalog::catalog_error;
use super::change::ChangeError;
use super::conflicts::spellings;
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::tenant::{Hostname, Tenant};
use crate::postgres::connection::catalog_sql::{Domains, id_literal};
use crate::postgres::connection::session::Row;
use crate::postgres::transaction::retry::{GaveUp, Stop, Transaction};
use crate::postgres::transaction::settings::catalog_search_path;

/// Why the hosts of a tenant were not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DomainError {
    /// Any other error, such as a host that is taken.
    #[error("{0}")]
    Change(ChangeError),
    /// No table for hosts is configured.
    #[error("no table for hosts of tenants is configured (catalog.domain_table is empty)")]
    NoTable,
    /// No column for the primary host is configured.
    #[error(
        "no column for the primary host is configured (catalog.domain_primary_column is empty)"
    )]
    NoPrimary,
    /// The tenant does not have this host.
    #[error("tenant '{tenant}' has no host '{host}'")]
    NotFound {
        /// The host.
        host: String,
        /// The tenant's slug.
        tenant: String,
    },
    /// It is the tenant's last host, without which no request reaches the tenant.
    #[error("'{host}' is the last host of tenant '{tenant}'")]
    LastHost {
        /// The host.
        host: String,
        /// The tenant's slug.
        tenant: String,
    },
}

impl From<DomainError> for Stop<DomainError> {
    fn from(error: DomainError) -> Self {
        Self::Refused(error)
    }
}

impl From<GaveUp> for DomainError {
    fn from(gave_up: GaveUp) -> Self {
        Self::Change(gave_up.into())
    }
}

impl From<ChangeError> for DomainError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl From<CatalogError> for DomainError {
    fn from(error: CatalogError) -> Self {
        Self::Change(error.into())
    }
}

/// The result of adding a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was added.
    New,
    /// The tenant had it already.
    Existing,
}

/// A row of the hosts table.
#[derive(Clone, Debug)]
struct DomainRow {
    id: String,
    domain: String,
    is_primary: bool,
}

impl TenantAdmin {
    /// Adds hosts to a tenant, all or none. The first host of a tenant without hosts becomes its
    /// primary one; with `primary` the first of `hosts` does.
    ///
    /// # Errors
    ///
    /// [`CatalogError::AlreadyExists`] if another tenant has a host, in any spelling;
    /// [`DomainError::NoPrimary`] if `primary` is set and the tables have no column for it.
    pub async fn add_domains(
        &self,
        tenant: &Tenant,
        hosts: &[Hostname],
        primary: bool,
    ) -> Result<Vec<Added>, DomainError> {
        if primary {
            self.require_primary_column()?;
        }
        let work = async |transaction: &mut Transaction<'_>| {
            let mut rows = self.lock_hosts(transaction, tenant).await?;
            let mut added = Vec::with_capacity(hosts.len());
            for (position, host) in hosts.iter().enumerate() {
                let becomes_primary = rows.is_empty() || (primary && position == 0);
                if let Some(row) = rows.iter().find(|row| row.is_host(host)) {
                    if becomes_primary {
                        self.make_primary(transaction, tenant, &row.id).await?;
                    }
                    added.push(Added::Existing);
                    continue;
                }
                self.check_host(transaction, host).await?;
                if becomes_primary {
                    self.clear_primary(transaction, tenant).await?;
                }
                let domains = self.table()?;
                let (mut columns, mut values) = (String::new(), String::new());
                if let Some(primary) = &domains.primary {
                    columns = format!(", {primary}");
                    values = format!(", {becomes_primary}");
                }
                let sql = format!(
                    "INSERT INTO {} ({}, {}{columns}) VALUES ({}, {}{values}) RETURNING {}",
                    domains.table,
                    domains.domain,
                    domains.tenant,
                    escape_literal(host.as_str()),
                    id_literal(&tenant.id),
                    domains.id
                );
                let inserted = transaction.rows(&sql).await?;
                let id = inserted.first().map(|row| row.text(0)).transpose()?;
                rows.push(DomainRow {
                    id: id.unwrap_or_default().to_owned(),
                    domain: host.to_string(),
                    is_primary: becomes_primary,
                });
                added.push(Added::New);
            }
            Ok(added)
        };
        self.in_transaction(work).await
    }

    /// Removes hosts from a tenant, all or none. If the primary one is among them, another one becomes
    /// primary and is returned.
    ///
    /// # Errors
    ///
    /// [`DomainError::NotFound`] for a host that the tenant does not have; [`DomainError::LastHost`]
    /// if none would be left, unless `force`.
    pub async fn remove_domains(
        &self,
        tenant: &Tenant,
        hosts: &[Hostname],
        force: bool,
    ) -> Result<Option<String>, DomainError> {
        let work = async |transaction: &mut Transaction<'_>| {
            let mut rows = self.lock_hosts(transaction, tenant).await?;
            for host in hosts {
                let row = find_row(&rows, host, tenant)?;
                if rows.len() == 1 && !force {
                    return Err(Stop::Refused(DomainError::LastHost {
                        host: row.domain.clone(),
                        tenant: tenant.slug.to_string(),
                    }));
                }
                let domains = self.table()?;
                let sql = format!(
                    "DELETE FROM {} WHERE {} = {}",
                    domains.table,
                    domains.id,
                    escape_literal(&row.id)
                );
                transaction.rows(&sql).await?;
                let id = row.id.clone();
                rows.retain(|row| row.id != id);
            }
            let successor = match rows.first() {
                Some(first)
                    if self.table()?.primary.is_some()
                        && !rows.iter().any(|row| row.is_primary) =>
                {
                    self.make_primary(transaction, tenant, &first.id).await?;
                    Some(first.domain.clone())
                }
                _ => None,
            };
            Ok(successor)
        };
        self.in_transaction(work).await
    }

    /// Makes one of a tenant's hosts its primary one.
    ///
    /// # Errors
    ///
    /// [`DomainError::NotFound`] for a host that the tenant does not have, [`DomainError::NoPrimary`]
    /// if the tables have no column for it.
    pub async fn set_primary_domain(
        &self,
        tenant: &Tenant,
        host: &Hostname,
    ) -> Result<(), DomainError> {
        self.require_primary_column()?;
        let work = async |transaction: &mut Transaction<'_>| {
            let rows = self.lock_hosts(transaction, tenant).await?;
            let row = find_row(&rows, host, tenant)?;
            self.make_primary(transaction, tenant, &row.id).await
        };
        self.in_transaction(work).await
    }

    async fn in_transaction<T>(
        &self,
        work: impl AsyncFn(&mut Transaction<'_>) -> Result<T, Stop<DomainError>>,
    ) -> Result<T, DomainError> {
        let refused = |error: &Error| ChangeError::from(catalog_error(error)).into();
        self.retry().run_transaction(None, refused, work).await
    }

    fn table(&self) -> Result<&Domains, DomainError> {
        self.tables().domains.as_ref().ok_or(DomainError::NoTable)
    }

    fn require_primary_column(&self) -> Result<(), DomainError> {
        match self.table()?.primary {
            Some(_) => Ok(()),
            None => Err(DomainError::NoPrimary),
        }
    }

    /// Locks the hosts table against changes by other sessions, and reads the tenant's hosts.
    async fn lock_hosts(
        &self,
        transaction: &mut Transaction<'_>,
        tenant: &Tenant,
    ) -> Result<Vec<DomainRow>, Stop<DomainError>> {
        let tables = self.tables();
        let lock = format!(
            "{}LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
            catalog_search_path(&self.options),
            self.table()?.table
        );
        transaction.rows(&lock).await?;
        // Locked, so that no other session drops the tenant.
        let sql = format!(
            "SELECT 1 FROM {} WHERE {} = {} FOR KEY SHARE",
            tables.tenants,
            tables.id,
            id_literal(&tenant.id)
        );
        if transaction.rows(&sql).await?.is_empty() {
            return Err(DomainError::from(CatalogError::NotFound(tenant.slug.to_string())).into());
        }
        let sql = format!(
            "SELECT d.id, d.domain, d.is_primary FROM {} d WHERE d.tenant_id = {} ORDER BY d.is_primary DESC, d.id",
            tables.hosts,
            id_literal(&tenant.id)
        );
        let rows = transaction.rows(&sql).await?;
        let row = |row: &Row| {
            Ok(DomainRow {
                id: row.text(0)?.to_owned(),
                domain: row.optional(1).unwrap_or_default().to_owned(),
                is_primary: row.is_true(2),
            })
        };
        let rows: Result<_, Error> = rows.iter().map(row).collect();
        Ok(rows?)
    }

    /// Fails if another tenant has the host.
    async fn check_host(
        &self,
        transaction: &mut Transaction<'_>,
        host: &Hostname,
    ) -> Result<(), Stop<DomainError>> {
        let tables = self.tables();
        let forms: Vec<String> = spellings(host).map(|form| escape_literal(&form)).collect();
        let sql = format!(
            "SELECT d.domain, t.slug FROM {} d JOIN {} t ON t.id = d.tenant_id \
             WHERE lower(d.domain) = ANY (ARRAY[{}]::text[]) LIMIT 1",
            tables.hosts,
            tables.rows,
            forms.join(", ")
        );
        let rows = transaction.rows(&sql).await?;
        let Some(row) = rows.first() else {
            return Ok(());
        };
        let taken = CatalogError::AlreadyExists {
            what: Taken::Hostname,
            value: row.text(0)?.to_owned(),
            owner: format!("tenant '{}'", row.optional(1).unwrap_or_default()),
        };
        Err(DomainError::from(taken).into())
    }

    async fn clear_primary(
        &self,
        transaction: &mut Transaction<'_>,
        tenant: &Tenant,
    ) -> Result<(), Stop<DomainError>> {
        let domains = self.table()?;
        let Some(primary) = &domains.primary else {
            return Ok(());
        };
        let sql = format!(
            "UPDATE {} SET {primary} = false WHERE {} = {} AND {primary}",
            domains.table,
            domains.tenant,
            id_literal(&tenant.id)
        );
        transaction.rows(&sql).await?;
        Ok(())
    }

    async fn make_primary(
        &self,
        transaction: &mut Transaction<'_>,
        tenant: &Tenant,
        id: &str,
    ) -> Result<(), Stop<DomainError>> {
        // Two statements: a unique index on primary hosts is not deferrable.
        self.clear_primary(transaction, tenant).await?;
        let domains = self.table()?;
        let Some(primary) = &domains.primary else {
            return Ok(());
        };
        let sql = format!(
            "UPDATE {} SET {primary} = true WHERE {} = {}",
            domains.table,
            domains.id,
            escape_literal(id)
        );
        transaction.rows(&sql).await?;
        Ok(())
    }
}

impl DomainRow {
    /// Returns whether the row has this host, in any spelling.
    fn is_host(&self, host: &Hostname) -> bool {
        self.domain == host.as_str() || Hostname::parse(&self.domain).is_ok_and(|own| own == *host)
    }
}

fn find_row<'a>(
    rows: &'a [DomainRow],
    host: &Hostname,
    tenant: &Tenant,
) -> Result<&'a DomainRow, DomainError> {
    rows.iter().find(|row| row.is_host(host)).ok_or_else(|| DomainError::NotFound {
        host: host.to_string(),
        tenant: tenant.slug.to_string(),
    })
}
