//! Hosts of tenants: added, removed, made the primary one.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error, database_error, unreachable_error};
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::tenant::{Hostname, Tenant};
use crate::postgres::connection::catalog_sql::Domains;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::session::Row;
use crate::postgres::transaction::retry::{GaveUp, Stop, Transaction};
use crate::postgres::transaction::settings::catalog_search_path;
use crate::service::failure::ServerError;

/// Why the hosts of a tenant stay as they are.
#[derive(Debug)]
#[non_exhaustive]
pub enum DomainError {
    /// The catalog's own reasons; a taken host is among them.
    Catalog(CatalogError),
    /// No table keeps hosts.
    NoTable,
    /// No column keeps which host is the primary one.
    NoPrimary,
    /// The tenant does not have this host.
    NotIts {
        /// The host that was asked for.
        host: String,
        /// The tenant's slug.
        tenant: String,
    },
    /// It is the tenant's last host, without which no request reaches it.
    Last {
        /// The host.
        host: String,
        /// The tenant's slug.
        tenant: String,
    },
}

impl std::fmt::Display for DomainError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Catalog(error) => error.fmt(f),
            Self::NoTable => {
                f.write_str("no table keeps the hosts of tenants (catalog.domain_table is empty)")
            }
            Self::NoPrimary => f.write_str(
                "no column keeps which host of a tenant is the primary one (catalog.domain_primary_column is empty)",
            ),
            Self::NotIts { host, tenant } => write!(f, "tenant '{tenant}' has no host '{host}'"),
            Self::Last { host, tenant } => {
                write!(f, "'{host}' is the last host of tenant '{tenant}'")
            }
        }
    }
}

impl std::error::Error for DomainError {}

impl From<DomainError> for Stop<DomainError> {
    fn from(error: DomainError) -> Self {
        Self::Refused(error)
    }
}

impl From<GaveUp> for DomainError {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::NotConnected(error) => unreachable_error(error),
            GaveUp::Lost(error) | GaveUp::Unknown(error) => database_error(error),
            // No schema is locked, and no interrupt reaches a transaction this short.
            GaveUp::Locked { .. } | GaveUp::Cancelled => database_error(ServerError::default()),
        }
        .into()
    }
}

impl From<CatalogError> for DomainError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

/// What became of a host that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The tenant has it now.
    New,
    /// The tenant had it before.
    Before,
}

/// A tenant's host as it stands in the catalog.
#[derive(Clone, Debug)]
struct DomainRow {
    id: String,
    domain: String,
    is_primary: bool,
}

impl PostgresCatalog {
    /// Gives a tenant hosts, all of them or none. The first host that a tenant ever has becomes
    /// its primary one; with `primary` the first of these does.
    ///
    /// # Errors
    ///
    /// [`CatalogError::AlreadyExists`] for a host that another tenant has, however it is
    /// written there; [`DomainError::NoPrimary`] where `primary` cannot be kept.
    pub async fn add_domains(
        &self,
        tenant: &Tenant,
        hosts: &[Hostname],
        primary: bool,
        options: &EngineOptions,
    ) -> Result<Vec<Added>, DomainError> {
        if primary {
            self.need_primary()?;
        }
        let work = async |transaction: &mut Transaction<'_>| {
            let mut rows = self.begin(transaction, tenant, options).await?;
            let mut added = Vec::with_capacity(hosts.len());
            for (position, host) in hosts.iter().enumerate() {
                let becomes_primary = rows.is_empty() || (primary && position == 0);
                if let Some(row) = rows.iter().find(|row| row.is(host)) {
                    if becomes_primary {
                        self.make_primary(transaction, tenant, &row.id).await?;
                    }
                    added.push(Added::Before);
                    continue;
                }
                self.refuse_taken(transaction, host).await?;
                if becomes_primary {
                    self.no_primary(transaction, tenant).await?;
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
                    tenant.id,
                    domains.id
                );
                let inserted = run(transaction, &sql).await?;
                rows.push(DomainRow {
                    id: inserted.into_iter().next().unwrap_or_default(),
                    domain: host.to_string(),
                    is_primary: becomes_primary,
                });
                added.push(Added::New);
            }
            Ok(added)
        };
        self.in_transaction(options, work).await
    }

    /// Takes hosts from a tenant, all of them or none, and returns which host became the primary
    /// one because the primary one was among them.
    ///
    /// # Errors
    ///
    /// [`DomainError::NotIts`] for a host that the tenant does not have, [`DomainError::Last`]
    /// where none would be left, unless `force`.
    pub async fn remove_domains(
        &self,
        tenant: &Tenant,
        hosts: &[Hostname],
        force: bool,
        options: &EngineOptions,
    ) -> Result<Option<String>, DomainError> {
        let work = async |transaction: &mut Transaction<'_>| {
            let mut rows = self.begin(transaction, tenant, options).await?;
            for host in hosts {
                let row = its(&rows, host, tenant)?;
                if rows.len() == 1 && !force {
                    return Err(Stop::Refused(DomainError::Last {
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
                run(transaction, &sql).await?;
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
        self.in_transaction(options, work).await
    }

    /// Makes one of a tenant's hosts its primary one.
    ///
    /// # Errors
    ///
    /// [`DomainError::NotIts`] for a host that the tenant does not have, [`DomainError::NoPrimary`]
    /// where no column keeps it.
    pub async fn set_primary_domain(
        &self,
        tenant: &Tenant,
        host: &Hostname,
        options: &EngineOptions,
    ) -> Result<(), DomainError> {
        self.need_primary()?;
        let work = async |transaction: &mut Transaction<'_>| {
            let rows = self.begin(transaction, tenant, options).await?;
            let row = its(&rows, host, tenant)?;
            self.make_primary(transaction, tenant, &row.id).await
        };
        self.in_transaction(options, work).await
    }

    async fn in_transaction<T>(
        &self,
        options: &EngineOptions,
        work: impl AsyncFn(&mut Transaction<'_>) -> Result<T, Stop<DomainError>>,
    ) -> Result<T, DomainError> {
        let refused = |error: &Error| catalog_error(error).into();
        self.retry(options)
            .run_transaction(None, refused, work)
            .await
    }

    fn table(&self) -> Result<&Domains, DomainError> {
        self.tables().domains.as_ref().ok_or(DomainError::NoTable)
    }

    fn need_primary(&self) -> Result<(), DomainError> {
        match self.table()?.primary {
            Some(_) => Ok(()),
            None => Err(DomainError::NoPrimary),
        }
    }

    /// Locks the table of hosts against changes by other sessions, and reads the tenant's hosts.
    async fn begin(
        &self,
        transaction: &mut Transaction<'_>,
        tenant: &Tenant,
        options: &EngineOptions,
    ) -> Result<Vec<DomainRow>, Stop<DomainError>> {
        let tables = self.tables();
        run(
            transaction,
            &format!(
                "{}LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
                catalog_search_path(options),
                self.table()?.table
            ),
        )
        .await?;
        // Locked, so that the tenant is not dropped meanwhile.
        let sql = format!(
            "SELECT 1 FROM {} WHERE {} = {} FOR KEY SHARE",
            tables.tenants, tables.id, tenant.id
        );
        if run(transaction, &sql).await?.is_empty() {
            return Err(DomainError::from(CatalogError::NotFound(tenant.slug.to_string())).into());
        }
        let sql = format!(
            "SELECT d.id, d.domain, d.is_primary FROM {} d WHERE d.tenant_id = {} ORDER BY d.is_primary DESC, d.id",
            tables.hosts, tenant.id
        );
        let rows = transaction.rows(&sql).await?;
        let cell = |row: &Row, column: usize| row.optional(column).unwrap_or_default().to_owned();
        Ok(rows
            .iter()
            .map(|row| DomainRow {
                id: cell(row, 0),
                domain: cell(row, 1),
                is_primary: cell(row, 2) == "t",
            })
            .collect())
    }

    async fn refuse_taken(
        &self,
        transaction: &mut Transaction<'_>,
        host: &Hostname,
    ) -> Result<(), Stop<DomainError>> {
        let tables = self.tables();
        let mut forms = vec![escape_literal(host.as_str())];
        forms.extend(host.unicode().map(|unicode| escape_literal(&unicode)));
        let sql = format!(
            "SELECT d.domain || chr(31) || t.slug FROM {} d JOIN {} t ON t.id = d.tenant_id \
             WHERE lower(d.domain) = ANY (ARRAY[{}]::text[]) LIMIT 1",
            tables.hosts,
            tables.rows,
            forms.join(", ")
        );
        match run(transaction, &sql).await?.first() {
            Some(taken) => {
                let (value, slug) = taken.split_once('\u{1f}').unwrap_or_default();
                let taken = CatalogError::AlreadyExists {
                    what: Taken::Hostname,
                    value: value.to_owned(),
                    owner: format!("tenant '{slug}'"),
                };
                Err(DomainError::from(taken).into())
            }
            None => Ok(()),
        }
    }

    async fn no_primary(
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
            domains.table, domains.tenant, tenant.id
        );
        run(transaction, &sql).await?;
        Ok(())
    }

    async fn make_primary(
        &self,
        transaction: &mut Transaction<'_>,
        tenant: &Tenant,
        id: &str,
    ) -> Result<(), Stop<DomainError>> {
        // Two statements: an index that lets a tenant have one primary host is not deferrable.
        self.no_primary(transaction, tenant).await?;
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
        run(transaction, &sql).await?;
        Ok(())
    }
}

impl DomainRow {
    /// Rows of others may be written in any way that means the same.
    fn is(&self, host: &Hostname) -> bool {
        self.domain == host.as_str() || Hostname::parse(&self.domain).is_ok_and(|own| own == *host)
    }
}

fn its<'a>(
    rows: &'a [DomainRow],
    host: &Hostname,
    tenant: &Tenant,
) -> Result<&'a DomainRow, DomainError> {
    rows.iter()
        .find(|row| row.is(host))
        .ok_or_else(|| DomainError::NotIts {
            host: host.to_string(),
            tenant: tenant.slug.to_string(),
        })
}

/// Runs statements and returns the first column of their rows.
async fn run(transaction: &mut Transaction<'_>, sql: &str) -> Result<Vec<String>, Error> {
    let rows = transaction.rows(sql).await?;
    Ok(rows
        .iter()
        .map(|row| row.optional(0).unwrap_or_default().to_owned())
        .collect())
}
