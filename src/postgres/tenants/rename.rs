//! Renames a tenant: slug, name and schema, in one transaction.

use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::catalog::PostgresCatalog;
use super::change::ChangeError;
use super::new_row::insert_error;
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{NewTenant, Tenant};
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::{is_worth_retrying, server_error};
use crate::postgres::connection::session::Session;
use crate::postgres::schema::name_references;
use crate::postgres::transaction::retry::{Stop, Transaction};
use crate::postgres::transaction::settings::catalog_search_path;

impl PostgresCatalog {
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
        options: &EngineOptions,
    ) -> Result<(), ChangeError> {
        let work = async |transaction: &mut Transaction<'_>| {
            self.rename_in(transaction, tenant, new, ignore_references, options).await
        };
        let refused = |error: &Error| self.rename_error(error, new);
        self.retry(options).run_locked(&tenant.schema, refused, work).await
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
        options: &EngineOptions,
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
        if let Some(conflict) = self.rename_conflict(session, tenant, new).await? {
            return Err(refused(conflict));
        }
        let schema_changes = new.schema != tenant.schema;
        if schema_changes && !ignore_references {
            let found = name_references::of_schema(session, &tenant.schema).await?;
            if !found.is_empty() {
                return Err(refused(CatalogError::NameReferenced(tenant.schema.clone(), found)));
            }
        }
        let mut statements = vec![catalog_search_path(options).trim_end_matches("; ").to_owned()];
        statements.extend(self.tables().update(tenant, new));
        if schema_changes {
            statements.push(format!(
                "ALTER SCHEMA {} RENAME TO {}",
                tenant.schema.quoted(),
                new.schema.quoted()
            ));
            if keeps_ledger {
                statements.push(rename_bookkeeping(oid, &tenant.schema, &new.schema));
            }
        }
        transaction.rows(&statements.join("; ")).await?;
        Ok(())
    }

    /// Returns an error if another tenant, also one in the trash, has the new slug or schema, ignoring
    /// case.
    async fn rename_conflict(
        &self,
        session: &Session,
        tenant: &Tenant,
        new: &NewTenant,
    ) -> Result<Option<CatalogError>, Error> {
        let rows = &self.tables().rows;
        let (slug, schema) =
            (escape_literal(new.slug.as_str()), escape_literal(new.schema.as_str()));
        let (id, old) = (tenant.id, escape_literal(tenant.schema.as_str()));
        let (slug_changes, schema_changes) = (new.slug != tenant.slug, new.schema != tenant.schema);
        let mut sql = format!(
            "SELECT 1, t.slug, 'tenant ''' || t.slug || ''' (' || t.name || ')' FROM {rows} t WHERE lower(t.given_slug) = lower({slug}) AND t.id <> '{id}' AND {slug_changes} \
             UNION ALL SELECT 2, t.schema_name, 'tenant ''' || t.slug || '''' FROM {rows} t WHERE lower(t.schema_name) = lower({schema}) AND t.id <> '{id}' AND {schema_changes} \
             UNION ALL SELECT 2, n.nspname, 'an existing schema' FROM pg_namespace n \
             WHERE lower(n.nspname::text COLLATE pg_catalog.\"default\") = lower({schema}) AND n.nspname <> {old} AND {schema_changes}"
        );
        let trash = "SELECT has_table_privilege(to_regclass('pricesync.trash'), 'SELECT')";
        let rows_of_trash = session.rows(trash).await?;
        if rows_of_trash.first().is_some_and(|row| row.is_true(0)) {
            let _ = write!(
                sql,
                " UNION ALL SELECT 1, r.slug, 'a tenant in the trash (pricesync_trash_' || r.id || ')' FROM pricesync.trash r WHERE lower(r.slug) = lower({slug}) AND {slug_changes} \
                 UNION ALL SELECT 2, r.schema_name, 'a tenant in the trash (pricesync_trash_' || r.id || ')' FROM pricesync.trash r WHERE lower(r.schema_name) = lower({schema}) AND {schema_changes}"
            );
        }
        let rows = session.rows(&format!("{sql} ORDER BY 1")).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(CatalogError::AlreadyExists {
            what: match row.text(0)? {
                "1" => Taken::Slug,
                _ => Taken::Schema,
            },
            value: row.text(1)?.to_owned(),
            owner: row.text(2)?.to_owned(),
        }))
    }
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
