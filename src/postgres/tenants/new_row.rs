//! Opens a new tenant's transaction, inserts its row, and explains why an insert was rejected.

use futures_util::future::{join3, join4};
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::catalog::catalog_error;
use super::change::ChangeError;
use super::conflicts::NewValues;
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::sqlstate;
use crate::domain::tenant::{NewTenant, Tenant, TenantId};
use crate::postgres::connection::catalog_sql::Tables;
use crate::postgres::connection::server_error::{is_connection_lost, server_error, sqlstate_of};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, interpret, probe};
use crate::postgres::transaction::retry::TxError;
use crate::postgres::transaction::settings::discard;

impl TenantAdmin {
    /// Runs `opening`, which opens a transaction, and creates the schema of a new tenant. Returns an
    /// error inside the result if the slug, schema or a host is taken.
    pub(crate) async fn open_new(
        &self,
        session: &Session,
        new: &NewTenant,
        opening: &str,
    ) -> Result<Result<OpenTransaction, CatalogError>, Error> {
        let probe = probe(&new.schema, &self.options.history_table);
        let create = format!("CREATE SCHEMA {}; {probe}", new.schema.quoted());
        // Pipelined. The conflict names what is taken; the failed CREATE SCHEMA does not.
        let (reset, began, conflict, created) = join4(
            session.client().simple_query(discard(self.options.route)),
            session.rows(opening),
            self.catalog.find_conflict(session, new, NewValues::Create),
            session.rows(&create),
        )
        .await;
        reset?;
        began?;
        if let Some(conflict) = conflict? {
            return Ok(Err(conflict));
        }
        Ok(match interpret(&created?, &new.schema)? {
            OpenOutcome::Ready(opened) => Ok(opened),
            _ => Err(CatalogError::SchemaMissing(new.schema.clone())),
        })
    }

    /// Inserts the tenant, writes the ledger and commits, all pipelined, and returns `created` of the
    /// tenant. If a statement fails, the server rolls back at COMMIT.
    pub(crate) async fn commit_new<T, E>(
        &self,
        session: &Session,
        new: &NewTenant,
        opened: &OpenTransaction,
        insert: &str,
        note: &str,
        created: impl FnOnce(Tenant) -> T,
    ) -> Result<T, TxError<E, T>> {
        // A migration may have run SET CONSTRAINTS.
        let insert = format!("SET CONSTRAINTS ALL DEFERRED; {insert}");
        let mut monitor = LockMonitor::new(
            self.database(),
            opened.pid,
            self.options.lock_timeout,
            &self.progress,
            self.interrupts.clone(),
        );
        let all = join3(
            session.rows(&insert),
            session.client().simple_query(note),
            session.client().simple_query("COMMIT"),
        );
        let (inserted, noted, committed) = monitor.during_commit(all).await;
        let id = inserted.as_ref().map_or_else(|_| TenantId::default(), |rows| inserted_id(rows));
        let error = match (inserted, noted, committed) {
            (Ok(_), Ok(_), Ok(_)) => return Ok(created(new_tenant(id, new))),
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => error,
        };
        if is_connection_lost(&error) {
            return Err(TxError::InDoubt {
                transaction: opened.identity.transaction.clone(),
                value: created(new_tenant(id, new)),
                cause: Box::new(server_error(&error)),
            });
        }
        Err(error.into())
    }

    /// Reads the id of a tenant whose INSERT was committed but whose reply was lost.
    pub(crate) async fn with_id(&self, tenant: Tenant) -> Result<Tenant, ChangeError> {
        if !tenant.id.as_str().is_empty() {
            return Ok(tenant);
        }
        let sql = format!(
            "SELECT id::text FROM {} t WHERE slug = {} AND schema_name = {}",
            self.tables().rows,
            escape_literal(tenant.slug.as_str()),
            escape_literal(tenant.schema.as_str())
        );
        let rows = self.read(async |session| session.read(&sql).await).await?;
        let id = inserted_id(&rows);
        Ok(Tenant { id, ..tenant })
    }
}

/// Returns the id that `INSERT ... RETURNING` returned, empty if none.
pub(crate) fn inserted_id(rows: &[Row]) -> TenantId {
    TenantId::new(rows.last().and_then(|row| row.optional(0)).unwrap_or_default())
}

fn new_tenant(id: TenantId, new: &NewTenant) -> Tenant {
    Tenant {
        id,
        name: new.name.clone(),
        slug: new.slug.clone(),
        schema: new.schema.clone(),
        hostnames: new.hostnames.clone(),
        created_at: None,
    }
}

/// Returns the error of a failed INSERT: a value was taken after the check for conflicts, or a
/// constraint of the table rejects the row.
pub(crate) fn insert_error(error: &Error, new: &NewTenant, tables: &Tables) -> CatalogError {
    let code = sqlstate_of(error);
    let db = error.as_db_error();
    let constraint = db.and_then(|db| db.constraint()).unwrap_or_default();
    // Such as: Key (lower(slug::text))=(acme) already exists.
    let key = db.and_then(|db| db.detail()).unwrap_or_default();
    let key = key.split(")=(").next().unwrap_or_default();
    let (what, value) = match code {
        Some(sqlstate::DUPLICATE_SCHEMA) => (Taken::Schema, new.schema.as_str()),
        Some(sqlstate::UNIQUE_VIOLATION)
            if constraint.contains("nspname") || tables.is_schema_key(key) =>
        {
            (Taken::Schema, new.schema.as_str())
        }
        Some(sqlstate::UNIQUE_VIOLATION) if tables.is_slug_key(key) => {
            (Taken::Slug, new.slug.as_str())
        }
        Some(sqlstate::UNIQUE_VIOLATION) if tables.is_host_key(key) => {
            (Taken::Hostname, new.hostnames.first().map_or("", |host| host.as_str()))
        }
        Some(sqlstate::NOT_NULL_VIOLATION) => {
            let column = db.and_then(|db| db.column()).unwrap_or_default();
            return CatalogError::ColumnRequired {
                column: column.to_owned(),
                message: server_error(error).to_string(),
            };
        }
        Some(code) if code.starts_with("22") || code.starts_with("23") => {
            let error = server_error(error);
            let detail = error.detail.as_ref();
            let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
            return CatalogError::RowRejected(format!("{error}{detail}"));
        }
        _ => return catalog_error(error),
    };
    CatalogError::AlreadyExists {
        what,
        value: value.to_owned(),
        owner: "another session, just now".to_owned(),
    }
}
