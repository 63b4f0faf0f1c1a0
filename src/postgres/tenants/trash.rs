//! The trash: schemas renamed out of the way, with their tenants' rows and hosts kept beside
//! the ledger until they are brought back or dropped for good.

use std::time::Duration;

use crate::postgres::connection::session::Row;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error, database_error};
use super::change::ChangeError;
use super::drop::{Chunk, Contents, HalfDropped, LockedTables, Owner, contents_of};
use super::referencing_rows::SearchScope;
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName, TRASH_PREFIX};
use crate::domain::tenant::{Hostname, NewTenant, Slug, Tenant};
use crate::postgres::bookkeeping;
use crate::postgres::bookkeeping::run_log;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::transaction::ledger::is_absent;
use crate::postgres::transaction::retry::{Stop, Transaction};
use crate::postgres::transaction::settings::ASYNC_COMMIT;
use crate::postgres::transaction::settings::catalog_search_path;
use crate::service::failure::MigrateError;

/// A tenant in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// The number of its record.
    pub id: i64,
    /// The id of its row, which it gets back.
    pub tenant_id: i64,
    /// Its slug.
    pub slug: String,
    /// The name that people read.
    pub name: String,
    /// What its schema was called and is to be called again.
    pub schema: String,
    /// Its hosts, the primary one first.
    pub hosts: Vec<String>,
    /// How many tables there were.
    pub tables: i64,
    /// How many bytes its schema had.
    pub bytes: u64,
    /// When it was dropped, as RFC 3339 text.
    pub trashed_at: String,
    /// The role that did it.
    pub trashed_by: String,
    /// Whether it can be brought back.
    pub state: TrashState,
}

/// What became of a schema in the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrashState {
    /// It is there.
    Whole,
    /// It is being dropped in pieces, and half gone.
    Purging,
    /// Somebody dropped it by other means.
    SchemaMissing,
}

impl Trashed {
    /// Returns what its schema is called now.
    #[must_use]
    pub fn place(&self) -> SchemaName {
        SchemaName::trashed(self.id)
    }

    fn as_new(&self) -> Result<NewTenant, CatalogError> {
        let schema = SchemaName::parse(&self.schema).map_err(|error| {
            CatalogError::Database(format!("the record in the trash is unusable: {error}").into())
        })?;
        Ok(NewTenant {
            name: self.name.clone(),
            slug: Slug::from_catalog(self.slug.clone()),
            schema,
            hostnames: self
                .hosts
                .iter()
                .map(|host| Hostname::from_catalog(host.clone()))
                .collect(),
            columns: Vec::new(),
        })
    }
}

impl PostgresCatalog {
    /// Renames a tenant's schema into the trash and takes its row and hosts along, all in one
    /// transaction. Returns what the schema is called then.
    ///
    /// # Errors
    ///
    /// [`CatalogError::SchemaMissing`] where there is no schema to keep,
    /// [`CatalogError::ReferencedBy`] where rows, the tenant's own among them, would keep the tenant's row
    /// or not come back with it.
    pub async fn trash(
        &self,
        tenant: &Tenant,
        contents: &Contents,
        options: &EngineOptions,
    ) -> Result<SchemaName, ChangeError> {
        if !contents.exists() {
            return Err(CatalogError::SchemaMissing(tenant.schema.clone()).into());
        }
        if contents.is_dropping() {
            return Err(CatalogError::PartlyDropped(tenant.slug.to_string()).into());
        }
        // Those whose rows would keep it, and those whose rows would go and not come back.
        self.refuse_referrers(tenant, SearchScope::Everywhere, |_| true, options)
            .await?;
        self.need_bookkeeping(options).await?;
        let session = self.session().await?;
        // A number that is lost is no loss.
        let next = format!(
            "{ASYNC_COMMIT}; SELECT nextval(pg_get_serial_sequence('pricesync.trash', 'id'))"
        );
        let rows = session
            .rows(&next)
            .await
            .map_err(|error| catalog_error(&error))?;
        let number: i64 = rows
            .first()
            .and_then(|row| row.optional(0)?.parse().ok())
            .unwrap_or_default();
        drop(session);
        let place = SchemaName::trashed(number);
        let tables = self.tables();
        let id = tenant.id;
        let domains = match &tables.domains {
            Some(domains) => format!(
                "(SELECT coalesce(json_agg(row_to_json(d) ORDER BY d.{}), '[]') FROM {} d WHERE d.{} = '{id}')",
                domains.id, domains.table, domains.tenant
            ),
            None => "'[]'::json".to_owned(),
        };
        let statements = format!(
            "SET LOCAL extra_float_digits TO 1; SET LOCAL IntervalStyle TO postgres; \
             INSERT INTO pricesync.trash (id, tenant_id, slug, name, schema_name, tenant, domains, hosts, tables, bytes) \
             SELECT {number}, t.id, coalesce(t.slug, t.schema_name), t.name, t.schema_name, \
             (SELECT row_to_json(t) FROM {} t WHERE t.{} = '{id}'), {domains}, \
             (SELECT coalesce(array_agg(d.domain ORDER BY d.is_primary DESC, d.id), '{{}}') FROM {} d WHERE d.tenant_id = t.id), \
             {}, {} FROM {} t WHERE t.id = '{id}'; {}{}; ALTER SCHEMA {} RENAME TO {}; {}",
            tables.tenants,
            tables.id,
            tables.hosts,
            contents.tables,
            contents.bytes,
            tables.rows,
            catalog_search_path(options),
            tables.delete(id),
            tenant.schema.quoted(),
            place.quoted(),
            run_log::forget(&tenant.schema),
        );
        let chunk = Chunk {
            owner: Some(self.owner(tenant)),
            what: "the tenant".to_owned(),
            schema: tenant.schema.clone(),
            tables: LockedTables::None,
            statements,
            is_brief: false,
        };
        self.run_chunk(&chunk, false, options).await?;
        Ok(place)
    }

    async fn need_bookkeeping(&self, options: &EngineOptions) -> Result<(), CatalogError> {
        bookkeeping::ensure(self.database(), options)
            .await
            .map_err(|error| match error {
                MigrateError::Database { error, .. } => database_error(error),
                other => CatalogError::Database(format!("{other:?}").into()),
            })
    }

    /// Returns who is in the trash, the newest first; nobody where our tables are missing.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn trashed(&self) -> Result<Vec<Trashed>, CatalogError> {
        let session = self.session().await?;
        let sql = format!(
            "SELECT r.id, r.tenant_id, r.slug, r.name, r.schema_name, r.tables, r.bytes, \
             to_char(r.trashed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), r.trashed_by, \
             CASE WHEN n.oid IS NULL THEN 2 WHEN r.purge_began_at IS NOT NULL THEN 1 ELSE 0 END, array_to_string(r.hosts, ' ') \
             FROM pricesync.trash r LEFT JOIN pg_namespace n ON n.nspname = '{TRASH_PREFIX}' || r.id ORDER BY r.trashed_at DESC, r.id DESC"
        );
        match session.read(&sql).await {
            Ok(rows) => {
                let trashed: Result<_, tokio_postgres::Error> = rows.iter().map(read).collect();
                trashed.map_err(|error| catalog_error(&error))
            }
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(catalog_error(&error)),
        }
    }

    /// Returns the schemas in the trash that have no record, and those half dropped whose
    /// tenant's row is gone: nobody knows whose they were.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn strays(&self) -> Result<Vec<String>, CatalogError> {
        let trash = self.trashed().await?;
        let known: Vec<SchemaName> = trash.iter().map(Trashed::place).collect();
        let session = self.session().await?;
        let sql = format!(
            "SELECT nspname FROM pg_namespace n WHERE starts_with(nspname, '{TRASH_PREFIX}') OR starts_with(nspname, '{DROPPING_PREFIX}') \
             AND NOT EXISTS (SELECT FROM {} t WHERE n.nspname = '{DROPPING_PREFIX}' || t.id) ORDER BY 1",
            self.tables().rows
        );
        let rows = session
            .read(&sql)
            .await
            .map_err(|error| catalog_error(&error))?;
        Ok(rows
            .iter()
            .filter_map(|row| row.optional(0))
            .filter(|name| !known.iter().any(|place| place.as_str() == *name))
            .map(str::to_owned)
            .collect())
    }

    /// Returns the records that are at least so old, by the server's clock.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn trashed_before(&self, age: Duration) -> Result<Vec<i64>, CatalogError> {
        let session = self.session().await?;
        let sql = format!(
            "SELECT id FROM pricesync.trash WHERE trashed_at <= clock_timestamp() - make_interval(secs => {})",
            age.as_secs()
        );
        match session.read(&sql).await {
            Ok(rows) => Ok(rows
                .iter()
                .filter_map(|row| row.optional(0)?.parse().ok())
                .collect()),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(catalog_error(&error)),
        }
    }

    /// Brings a tenant back: its schema gets its name, the catalog its row and hosts, all in
    /// one transaction.
    ///
    /// # Errors
    ///
    /// [`CatalogError::AlreadyExists`] where slug, schema or a host is somebody else's by now;
    /// [`ChangeError::Locked`] when another session holds the schema for longer than `lock_wait`.
    pub async fn undrop(
        &self,
        trashed: &Trashed,
        options: &EngineOptions,
    ) -> Result<Tenant, ChangeError> {
        let new = trashed.as_new()?;
        match trashed.state {
            TrashState::Whole => {}
            TrashState::Purging => {
                return Err(CatalogError::PartlyDropped(trashed.slug.clone()).into());
            }
            TrashState::SchemaMissing => {
                return Err(CatalogError::SchemaMissing(trashed.place()).into());
            }
        }
        let work = async |transaction: &mut Transaction<'_>| {
            self.restore(transaction, trashed, &new, options).await
        };
        let refused = |error: &Error| self.naming_refused(error, &new);
        self.retry(options)
            .run_locked(&trashed.place(), refused, work)
            .await?;
        Ok(Tenant {
            id: trashed.tenant_id,
            name: new.name,
            slug: new.slug,
            schema: new.schema,
            hostnames: new.hostnames,
            created_at: None,
        })
    }

    async fn restore(
        &self,
        transaction: &mut Transaction<'_>,
        trashed: &Trashed,
        new: &NewTenant,
        options: &EngineOptions,
    ) -> Result<(), Stop<ChangeError>> {
        let refused = |error: CatalogError| Stop::Refused(error.into());
        let (session, place) = (transaction.session(), trashed.place());
        let id = trashed.id;
        let record = format!(
            "SELECT FROM pricesync.trash WHERE id = {id} AND purge_began_at IS NULL FOR UPDATE"
        );
        // Another undrop or purge was faster.
        if transaction.rows(&record).await?.is_empty() {
            return Err(refused(CatalogError::NotFound(trashed.slug.clone())));
        }
        if let Some(conflict) = self.conflict(session, new, false).await? {
            return Err(refused(conflict));
        }
        let tables = self.tables();
        let domains = tables.domains.as_ref().map(|domains| &domains.table);
        let mut statements = vec![format!(
            "{}ALTER SCHEMA {} RENAME TO {}",
            catalog_search_path(options),
            place.quoted(),
            new.schema.quoted()
        )];
        for (table, list) in [
            (Some(&tables.tenants), "json_build_array(r.tenant)"),
            (domains, "r.domains"),
        ] {
            let Some(table) = table else { continue };
            // The columns that the table has by now and the record knows: one that was added keeps its default.
            let sql = format!(
                "SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a \
                 WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
                 AND EXISTS (SELECT FROM pricesync.trash r, json_array_elements({list}) e, json_object_keys(e) k WHERE r.id = {id} AND k = a.attname)",
                escape_literal(table)
            );
            let rows = session.rows(&sql).await?;
            let columns = rows
                .first()
                .and_then(|row| row.optional(0))
                .unwrap_or_default();
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

    /// Returns what a schema in the trash holds, and what outside depends on it.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn contents_in_trash(&self, trashed: &Trashed) -> Result<Contents, CatalogError> {
        let session = self.session().await?;
        contents_of(&session, &[trashed.place()]).await
    }

    /// Drops a schema in the trash for good, and its record last. Running it again finishes
    /// what was killed half-way.
    ///
    /// # Errors
    ///
    /// As [`PostgresCatalog::drop`].
    pub async fn purge(
        &self,
        trashed: &Trashed,
        cascade_outside: bool,
        options: &EngineOptions,
    ) -> Result<(), ChangeError> {
        let contents = self.contents_in_trash(trashed).await?;
        contents.refuse_dependents(cascade_outside)?;
        let place = trashed.place();
        let mark = HalfDropped {
            name: place.clone(),
            statement: format!(
                "UPDATE pricesync.trash SET purge_began_at = clock_timestamp() WHERE id = {}; ",
                trashed.id
            ),
            owner: Owner {
                query: format!(
                    "SELECT FROM pricesync.trash WHERE id = {} FOR UPDATE",
                    trashed.id
                ),
                name: trashed.slug.clone(),
            },
        };
        let last = format!("; DELETE FROM pricesync.trash WHERE id = {}", trashed.id);
        self.drop_schema(&place, Some(mark), cascade_outside, &last, options)
            .await
    }
}

fn read(row: &Row) -> Result<Trashed, tokio_postgres::Error> {
    let hosts = row.text(10)?.split_whitespace();
    Ok(Trashed {
        id: row.parse(0)?,
        tenant_id: row.parse(1)?,
        slug: row.text(2)?.to_owned(),
        name: row.text(3)?.to_owned(),
        schema: row.text(4)?.to_owned(),
        hosts: hosts.map(str::to_owned).collect(),
        tables: row.parse(5)?,
        bytes: row.parse(6)?,
        trashed_at: row.text(7)?.to_owned(),
        trashed_by: row.text(8)?.to_owned(),
        state: match row.text(9)? {
            "0" => TrashState::Whole,
            "1" => TrashState::Purging,
            _ => TrashState::SchemaMissing,
        },
    })
}
