//! Renames a tenant: slug, name and schema, in one transaction.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::change::ChangeError;
use super::conflicts::NewValues;
use super::new_row::insert_error;
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{NewTenant, Tenant};
use crate::postgres::connection::server_error::{is_worth_retrying, server_error};
use crate::postgres::connection::sql_file::filled;
use crate::postgres::schema::fingerprint::own_path;
use crate::postgres::schema::name_references;
use crate::postgres::transaction::retry::{Stop, Transaction};
use crate::postgres::transaction::settings::catalog_search_path;

impl TenantAdmin {
    /// Changes a tenant's slug, name and schema to those of `new`; hosts and other columns stay. The
    /// ledger follows the schema. Fails if a text such as a function contains the old schema's name,
    /// unless `ignore_references`.
    ///
    /// # Errors
    ///
    /// [`CatalogError::AlreadyExists`], [`CatalogError::NameReferenced`], [`CatalogError::SchemaMissing`];
    /// [`ChangeError::Locked`] when a migration holds the schema for longer than `lock_wait`.
    pub async fn rename(
        &self,
        tenant: &Tenant,
        new: &NewTenant,
        ignore_references: bool,
    ) -> Result<(), ChangeError> {
        let work = async |transaction: &mut Transaction<'_>| {
            self.rename_in(transaction, tenant, new, ignore_references).await
        };
        let refused = |error: &Error| self.rename_error(error, new);
        self.retry().run_locked(&tenant.schema, refused, work).await
    }

    /// Returns the error of a transaction that changes a tenant's names to those of `new`.
    pub(crate) fn rename_error(&self, error: &Error, new: &NewTenant) -> ChangeError {
        if is_worth_retrying(error) {
            return ChangeError::InUse(server_error(error));
        }
        insert_error(error, new, self.tables()).into()
    }

    async fn rename_in(
        &self,
        transaction: &mut Transaction<'_>,
        tenant: &Tenant,
        new: &NewTenant,
        ignore_references: bool,
    ) -> Result<(), Stop<ChangeError>> {
        let refused = |error: CatalogError| Stop::Refused(error.into());
        let session = transaction.session();
        // The tenant may have been renamed or dropped since it was read.
        if transaction.rows(&self.owner(tenant).query).await?.is_empty() {
            return Err(refused(CatalogError::NotFound(tenant.slug.to_string())));
        }
        let existing = format!(
            "SELECT n.oid, coalesce(has_table_privilege(to_regclass('pricesync.schema_state'), 'SELECT, UPDATE, DELETE'), false) \
             AND coalesce(has_table_privilege(to_regclass('pricesync.schema_failure'), 'SELECT, UPDATE, DELETE'), false) FROM pg_namespace n WHERE n.nspname = {}",
            escape_literal(tenant.schema.as_str())
        );
        let rows = session.rows(&existing).await?;
        let Some(row) = rows.first() else {
            return Err(refused(CatalogError::SchemaMissing(tenant.schema.clone())));
        };
        let (oid, keeps_ledger) = (row.text(0)?, row.is_true(1));
        let names = NewValues::Rename(tenant);
        if let Some(taken) = self.catalog.find_conflict(session, new, names).await? {
            return Err(refused(taken));
        }
        let schema_changes = new.schema != tenant.schema;
        if schema_changes && !ignore_references {
            let found = name_references::of_schema(session, &tenant.schema).await?;
            if !found.is_empty() {
                return Err(refused(CatalogError::NameReferenced(tenant.schema.clone(), found)));
            }
        }
        let mut statements =
            vec![catalog_search_path(&self.options).trim_end_matches("; ").to_owned()];
        statements.extend(self.tables().update(tenant, new));
        if schema_changes {
            statements.push(format!(
                "ALTER SCHEMA {} RENAME TO {}",
                tenant.schema.quoted(),
                new.schema.quoted()
            ));
            statements.push(rename_paths(&tenant.schema, &new.schema));
            if keeps_ledger {
                statements.push(rename_bookkeeping(oid, &tenant.schema, &new.schema));
            }
        }
        transaction.rows(&statements.join("; ")).await?;
        Ok(())
    }
}

/// Returns the statement that replaces the old name in the `search_path` of functions of the schema.
fn rename_paths(old: &SchemaName, new: &SchemaName) -> String {
    let values = [("{own_path}", own_path(old)), ("{schema}", escape_literal(new.as_str()))];
    format!("DO {}", escape_literal(&filled(include_str!("sql/rename_paths.sql"), &values)))
}

/// Returns statements that rename the ledger and failure rows. An invalid ledger row stays invalid.
fn rename_bookkeeping(oid: &str, old: &SchemaName, new: &SchemaName) -> String {
    let (old, new) = (escape_literal(old.as_str()), escape_literal(new.as_str()));
    format!(
        "DELETE FROM pricesync.schema_state WHERE schema_name = {new}; \
         UPDATE pricesync.schema_state SET schema_name = {new}, written_by = pg_current_xact_id() \
         WHERE schema_name = {old} AND schema_oid = {oid} AND xmin = written_by::xid; \
         DELETE FROM pricesync.schema_state WHERE schema_name = {old}; \
         DELETE FROM pricesync.schema_failure WHERE schema_name = {new}; \
         UPDATE pricesync.schema_failure SET schema_name = {new} WHERE schema_name = {old}"
    )
}
