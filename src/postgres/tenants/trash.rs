//! The trash: renamed schemas of dropped tenants, whose rows and hosts stay in the bookkeeping
//! tables until they are restored or purged.

use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::catalog::{PostgresCatalog, database_error};
use super::change::ChangeError;
use super::conflicts::NewValues;
use super::drop::{Chunk, Contents, LockedTables, Owner, PartlyDropped, contents_of};
use super::referencing_rows::SearchScope;
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName, TRASH_PREFIX};
use crate::domain::tenant::{Hostname, NewTenant, Slug, Tenant, TenantId};
use crate::postgres::bookkeeping;
use crate::postgres::bookkeeping::run_log;
use crate::postgres::connection::catalog_sql::{dropping, id_literal};
use crate::postgres::connection::session::Row;
use crate::postgres::connection::sql_file::filled;
use crate::postgres::transaction::ledger::is_absent;
use crate::postgres::transaction::retry::{Stop, Transaction};
use crate::postgres::transaction::settings::ASYNC_COMMIT;
use crate::postgres::transaction::settings::catalog_search_path;
use crate::service::event::Interrupt;
use crate::service::failure::MigrateError;

/// A tenant in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// The id of its record in the trash.
    pub id: i64,
    /// The id of its row, which is restored.
    pub tenant_id: TenantId,
    /// Its slug.
    pub slug: String,
    /// Its display name.
    pub name: String,
    /// The original name of its schema.
    pub schema: String,
    /// Its hosts, the primary one first.
    pub hosts: Vec<String>,
    /// How many tables its schema had.
    pub tables: i64,
    /// How many bytes its schema had.
    pub bytes: u64,
    /// When it was dropped, as RFC 3339 text.
    pub trashed_at: String,
    /// The role that dropped it.
    pub trashed_by: String,
    /// Whether it can be restored.
    pub state: TrashState,
}

/// The state of a schema in the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrashState {
    /// It can be restored.
    Complete,
    /// A purge was started and has not finished.
    Purging,
    /// It was dropped with other tools.
    SchemaMissing,
}

impl Trashed {
    /// Returns the current name of its schema.
    pub fn trash_schema(&self) -> SchemaName {
        SchemaName::trashed(self.id)
    }

    fn as_new(&self) -> Result<NewTenant, CatalogError> {
        let schema = SchemaName::parse(&self.schema).map_err(|error| {
            CatalogError::Database(format!("invalid record in the trash: {error}").into())
        })?;
        Ok(NewTenant {
            name: self.name.clone(),
            slug: Slug::from_catalog(self.slug.clone()),
            schema,
            hostnames: self.hosts.iter().map(|host| Hostname::from_catalog(host.clone())).collect(),
            columns: Vec::new(),
        })
    }
}

impl PostgresCatalog {
    /// Returns the tenants in the trash, newest first; none if the bookkeeping tables are missing.
    pub async fn list_trash(&self) -> Result<Vec<Trashed>, CatalogError> {
        let sql = format!(
            "SELECT r.id, r.tenant_id, r.slug, r.name, r.schema_name, r.tables, r.bytes, \
             to_char(r.trashed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), r.trashed_by, \
             CASE WHEN n.oid IS NULL THEN 2 WHEN r.purge_began_at IS NOT NULL THEN 1 ELSE 0 END, array_to_string(r.hosts, ' ') \
             FROM pricesync.trash r LEFT JOIN pg_namespace n ON n.nspname = '{TRASH_PREFIX}' || r.id ORDER BY r.trashed_at DESC, r.id DESC"
        );
        self.read_trash(&sql, read_trashed).await
    }

    /// Runs a query on `pricesync.trash`; no rows if the bookkeeping tables are missing.
    async fn read_trash<T>(
        &self,
        sql: &str,
        read: impl Fn(&Row) -> Result<T, Error>,
    ) -> Result<Vec<T>, CatalogError> {
        match self.session().await?.read(sql).await {
            Ok(rows) => Ok(rows.iter().map(read).collect::<Result<_, _>>()?),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the schemas in the trash without a record, and partly dropped schemas whose tenant's
    /// row is deleted: their tenants are unknown.
    pub async fn unrecorded_schemas(&self) -> Result<Vec<String>, CatalogError> {
        let trash = self.list_trash().await?;
        let known: Vec<SchemaName> = trash.iter().map(Trashed::trash_schema).collect();
        let sql = format!(
            "SELECT nspname FROM pg_namespace n WHERE starts_with(nspname, '{TRASH_PREFIX}') OR starts_with(nspname, '{DROPPING_PREFIX}') \
             AND NOT EXISTS (SELECT FROM {} t WHERE n.nspname::text = {}) ORDER BY 1",
            self.tables().rows,
            dropping("t.id")
        );
        let rows = self.read(&sql).await?;
        let schemas = rows.iter().map(|row| row.text(0).map(str::to_owned));
        let mut schemas = schemas.collect::<Result<Vec<String>, Error>>()?;
        schemas.retain(|name| !known.iter().any(|known| known.as_str() == name));
        Ok(schemas)
    }

    /// Returns the ids of the records that are at least this old, by the server's clock.
    pub async fn trash_older_than(&self, age: Duration) -> Result<Vec<i64>, CatalogError> {
        let sql = format!(
            "SELECT id FROM pricesync.trash WHERE trashed_at <= clock_timestamp() - make_interval(secs => {})",
            age.as_secs()
        );
        self.read_trash(&sql, |row| row.parse(0)).await
    }

    /// Returns the contents of a schema in the trash, and which objects outside depend on it.
    pub async fn contents_in_trash(&self, trashed: &Trashed) -> Result<Contents, CatalogError> {
        let session = self.session().await?;
        contents_of(&session, &[trashed.trash_schema()]).await
    }
}

impl TenantAdmin {
    /// Moves a tenant with its schema, row and hosts to the trash, in one transaction. Returns the new
    /// name of the schema.
    ///
    /// # Errors
    ///
    /// [`CatalogError::SchemaMissing`]; [`CatalogError::ReferencedBy`] if rows, also the tenant's own,
    /// block the deletion of its row or would be deleted with it and not restored.
    pub async fn trash(
        &self,
        tenant: &Tenant,
        contents: &Contents,
    ) -> Result<SchemaName, ChangeError> {
        if !contents.exists() {
            return Err(CatalogError::SchemaMissing(tenant.schema.clone()).into());
        }
        if contents.is_dropping() {
            return Err(CatalogError::PartlyDropped(tenant.slug.to_string()).into());
        }
        self.check_references(tenant, SearchScope::Everywhere, |_| true).await?;
        self.ensure_bookkeeping().await?;
        let next = format!(
            "{ASYNC_COMMIT}; SELECT nextval(pg_get_serial_sequence('pricesync.trash', 'id'))"
        );
        let number = self
            .read(async |session| {
                session.rows(&next).await?.last().map_or(Ok(0), |row| row.parse(0))
            })
            .await?;
        let trash_schema = SchemaName::trashed(number);
        let tables = self.tables();
        let values = [
            ("{number}", number.to_string()),
            ("{id}", id_literal(&tenant.id)),
            ("{tenants}", tables.tenants.clone()),
            ("{id_column}", tables.id.clone()),
            ("{domains}", self.catalog.domains_as_json(&tenant.id)),
            ("{hosts}", tables.hosts.clone()),
            ("{tables}", contents.tables.to_string()),
            ("{bytes}", contents.bytes.to_string()),
            ("{rows}", tables.rows.clone()),
            ("{search_path}", catalog_search_path(&self.options)),
            ("{delete}", tables.delete(&tenant.id)),
            ("{schema}", tenant.schema.quoted().to_string()),
            ("{trash_schema}", trash_schema.quoted().to_string()),
            ("{forget}", run_log::forget(&tenant.schema)),
        ];
        let statements = filled(include_str!("sql/move_to_trash.sql"), &values);
        let chunk = Chunk {
            owner: Some(self.owner(tenant)),
            what: "the tenant".to_owned(),
            schema: tenant.schema.clone(),
            tables: LockedTables::None,
            statements,
            is_brief: false,
        };
        self.run_chunk(&chunk, false).await?;
        Ok(trash_schema)
    }

    async fn ensure_bookkeeping(&self) -> Result<(), ChangeError> {
        let interrupts = self.interrupts.clone();
        let ready = bookkeeping::ensure(self.database(), &self.options, interrupts).await;
        ready.map_err(|error| match error {
            _ if self.interrupts.level() == Interrupt::Cancel => ChangeError::Interrupted,
            MigrateError::Database { error, .. } => database_error(error).into(),
            error => error.into(),
        })
    }

    /// Restores a tenant from the trash: renames its schema and inserts its row and hosts, in one
    /// transaction.
    ///
    /// # Errors
    ///
    /// [`CatalogError::AlreadyExists`] if its slug, schema or a host is taken;
    /// [`ChangeError::Locked`] if another session holds the schema's lock for longer than `lock_wait`.
    pub async fn undrop(&self, trashed: &Trashed) -> Result<Tenant, ChangeError> {
        let new = trashed.as_new()?;
        match trashed.state {
            TrashState::Complete => {}
            TrashState::Purging => {
                return Err(CatalogError::PartlyDropped(trashed.slug.clone()).into());
            }
            TrashState::SchemaMissing => {
                return Err(CatalogError::SchemaMissing(trashed.trash_schema()).into());
            }
        }
        let work = async |transaction: &mut Transaction<'_>| {
            self.undrop_in(transaction, trashed, &new).await
        };
        let refused = |error: &Error| self.rename_error(error, &new);
        self.retry().run_locked(&trashed.trash_schema(), refused, work).await?;
        Ok(Tenant {
            id: trashed.tenant_id.clone(),
            name: new.name,
            slug: new.slug,
            schema: new.schema,
            hostnames: new.hostnames,
            created_at: None,
        })
    }

    async fn undrop_in(
        &self,
        transaction: &mut Transaction<'_>,
        trashed: &Trashed,
        new: &NewTenant,
    ) -> Result<(), Stop<ChangeError>> {
        let refused = |error: CatalogError| Stop::Refused(error.into());
        let session = transaction.session();
        let id = trashed.id;
        let record = format!(
            "SELECT FROM pricesync.trash WHERE id = {id} AND purge_began_at IS NULL FOR UPDATE"
        );
        // Another session restored or purged it meanwhile.
        if transaction.rows(&record).await?.is_empty() {
            return Err(refused(CatalogError::NotFound(trashed.slug.clone())));
        }
        if let Some(conflict) = self.catalog.find_conflict(session, new, NewValues::Create).await? {
            return Err(refused(conflict));
        }
        let tables = self.tables();
        let domains = tables.domains.as_ref().map(|domains| &domains.table);
        let mut statements = vec![format!(
            "{}ALTER SCHEMA {} RENAME TO {}",
            catalog_search_path(&self.options),
            trashed.trash_schema().quoted(),
            new.schema.quoted()
        )];
        for (table, list) in
            [(Some(&tables.tenants), "json_build_array(r.tenant)"), (domains, "r.domains")]
        {
            let Some(table) = table else { continue };
            // Columns in both the table and the record: one that was added since gets its default.
            let sql = format!(
                "SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a \
                 WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
                 AND EXISTS (SELECT FROM pricesync.trash r, json_array_elements({list}) e, json_object_keys(e) k WHERE r.id = {id} AND k = a.attname)",
                escape_literal(table)
            );
            let rows = session.rows(&sql).await?;
            let columns = rows.first().and_then(|row| row.optional(0)).unwrap_or_default();
            if columns.is_empty() {
                continue;
            }
            statements.push(format!(
                "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM json_populate_recordset(NULL::{table}, \
                 (SELECT {list} FROM pricesync.trash r WHERE r.id = {id}))"
            ));
        }
        statements.push(format!("DELETE FROM pricesync.trash WHERE id = {id}"));
        transaction.rows(&statements.join("; ")).await?;
        Ok(())
    }

    /// Permanently drops a schema in the trash, then its record. Running it again finishes a purge
    /// that was killed.
    pub async fn purge(&self, trashed: &Trashed, cascade_outside: bool) -> Result<(), ChangeError> {
        let contents = self.catalog.contents_in_trash(trashed).await?;
        contents.check_dependents(cascade_outside)?;
        let schema = trashed.trash_schema();
        let mark = PartlyDropped {
            name: schema.clone(),
            statement: format!(
                "UPDATE pricesync.trash SET purge_began_at = clock_timestamp() WHERE id = {}; ",
                trashed.id
            ),
            owner: Owner {
                query: format!("SELECT FROM pricesync.trash WHERE id = {} FOR UPDATE", trashed.id),
                name: trashed.slug.clone(),
            },
        };
        let last = format!("; DELETE FROM pricesync.trash WHERE id = {}", trashed.id);
        self.drop_schema(&schema, Some(mark), cascade_outside, &last).await
    }
}

fn read_trashed(row: &Row) -> Result<Trashed, Error> {
    Ok(Trashed {
        id: row.parse(0)?,
        tenant_id: TenantId::new(row.text(1)?),
        slug: row.text(2)?.to_owned(),
        name: row.text(3)?.to_owned(),
        schema: row.text(4)?.to_owned(),
        // A host contains no blank.
        hosts: row.text(10)?.split_whitespace().map(str::to_owned).collect(),
        tables: row.parse(5)?,
        bytes: row.parse(6)?,
        trashed_at: row.text(7)?.to_owned(),
        trashed_by: row.text(8)?.to_owned(),
        state: match row.text(9)? {
            "0" => TrashState::Complete,
            "1" => TrashState::Purging,
            _ => TrashState::SchemaMissing,
        },
    })
}
