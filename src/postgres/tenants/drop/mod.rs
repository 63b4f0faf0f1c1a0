//! Drops a tenant: fails if objects outside its schema depend on it, locks shared tables only
//! briefly, and drops large schemas in several transactions.
//!
//! Imports [`catalog`](super::catalog), the retrying transaction and `schema::dependencies`. Start
//! reading at [`TenantAdmin::drop`]. The first transaction renames the schema after the row's id, so
//! that a drop that was killed is visible: the row names a schema that does not exist. Running the drop
//! again finishes it.

mod chunks;
mod contents;

use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

pub(crate) use self::chunks::{Chunk, LockedTables, Owner};
pub(crate) use self::contents::contents_of;
pub use self::contents::{Contents, Presence};
use super::admin::TenantAdmin;
use super::catalog::catalog_error;
use super::change::ChangeError;
pub use super::referencing_rows::ReferencingKey;
use super::referencing_rows::{self, SearchScope};
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::domain::tenant::Tenant;
use crate::postgres::bookkeeping::run_log;
use crate::postgres::connection::catalog_sql::id_literal;
use crate::postgres::connection::server_error::{is_worth_retrying, server_error, sqlstate_of};
use crate::postgres::transaction::retry::TxError;
use crate::postgres::transaction::settings::ASYNC_COMMIT;
use crate::postgres::transaction::settings::catalog_search_path;
use crate::service::event::EventKind;

/// Options of a drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropOptions {
    /// Keeps the tenant's row and hosts. Default: they are deleted.
    pub keep_record: bool,
    /// Drops objects outside that depend on the schema, too. Default: the drop fails.
    pub cascade_outside: bool,
}

impl TenantAdmin {
    /// Fails if rows reference the tenant's row: rows of other tenants always, others if `matters` is
    /// true for their key.
    pub(crate) async fn check_references(
        &self,
        tenant: &Tenant,
        scope: SearchScope,
        matters: impl Fn(&ReferencingKey) -> bool,
    ) -> Result<(), ChangeError> {
        let refused = |error: &Error| {
            if is_worth_retrying(error) {
                return ChangeError::InUse(server_error(error));
            }
            catalog_error(error).into()
        };
        let retry = self.retry();
        let find = async |number| {
            let session = retry.session(number).await?;
            let timeout = self.options.lock_timeout;
            let find = referencing_rows::find(&session, self.tables(), tenant, scope, timeout);
            let found = retry.until_cancelled(&session, find).await;
            if found.is_err() {
                session.discard();
            }
            found?.map_err(|error| match sqlstate_of(&error) {
                // Another session dropped the table; the next search does not find it.
                Some(code) if sqlstate::is_missing_table(code) => TxError::Contention {
                    error: ChangeError::InUse(server_error(&error)),
                    cause: Box::new(server_error(&error)),
                    blockers: Vec::new(),
                },
                _ => TxError::Server(error),
            })
        };
        let references = retry.run(refused, find).await?;
        let named: Vec<String> = references
            .found
            .iter()
            .filter(|one| one.is_tenants || matters(one))
            .map(|one| format!("{} (key {})", one.table, one.key))
            .collect();
        if !named.is_empty() {
            return Err(CatalogError::ReferencedBy(named).into());
        }
        let available = self.lock_table_size().await?;
        if references.locks > available {
            return Err(CatalogError::TooManyLocks { needed: references.locks, available }.into());
        }
        Ok(())
    }

    /// Returns how many locks the server's lock table holds (manual, `max_locks_per_transaction`).
    async fn lock_table_size(&self) -> Result<u64, ChangeError> {
        let sql = "SELECT current_setting('max_locks_per_transaction')::int8 * \
                   (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8)";
        self.read(async |session| {
            session.read(sql).await?.first().map_or(Ok(u64::MAX), |row| row.parse(0))
        })
        .await
    }

    /// Drops the schema, then deletes the tenant's row unless it is to be kept. Running it again
    /// finishes a drop that was killed.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Dependents`] if objects outside would be dropped too; [`CatalogError::ReferencedBy`]
    /// if rows block the deletion of the tenant's row, or rows of another tenant would be deleted with
    /// it; [`ChangeError::Locked`] if another session holds the schema's lock for longer than `lock_wait`.
    pub async fn drop(&self, tenant: &Tenant, drop: DropOptions) -> Result<(), ChangeError> {
        let partly_dropped = SchemaName::dropping(tenant.id.as_str());
        let names = [partly_dropped.clone(), tenant.schema.clone()];
        let contents = contents_of(&self.catalog.session().await?, &names).await?;
        contents.check_dependents(drop.cascade_outside)?;
        let mut last = String::new();
        if !drop.keep_record {
            self.check_references(tenant, SearchScope::Elsewhere, |one| one.blocks).await?;
            let delete = self.tables().delete(&tenant.id);
            let _ = write!(last, "; {}{delete}", catalog_search_path(&self.options));
        }
        let owner = self.owner(tenant);
        for (position, schema) in contents.schemas.iter().enumerate() {
            let is_last = position + 1 == contents.schemas.len();
            let mark = (*schema != partly_dropped).then(|| PartlyDropped {
                name: partly_dropped.clone(),
                statement: String::new(),
                owner: owner.clone(),
            });
            let last = if is_last { &*last } else { "" };
            self.drop_schema(schema, mark, drop.cascade_outside, last).await?;
        }
        if !contents.exists() {
            // The schema may have been renamed or moved to the trash.
            let chunk = Chunk {
                owner: Some(owner),
                what: "the tenant's row".to_owned(),
                schema: tenant.schema.clone(),
                tables: LockedTables::NoSchema,
                statements: last,
                is_brief: false,
            };
            self.run_chunk(&chunk, drop.cascade_outside).await?;
        }
        // Without this the rows would be stale, but harmless.
        let forget = format!("{ASYNC_COMMIT}; {}", run_log::forget(&tenant.schema));
        let _ = self.read(async |session| session.rows(&forget).await).await;
        Ok(())
    }

    /// Returns the row that names the tenant's schema.
    pub(crate) fn owner(&self, tenant: &Tenant) -> Owner {
        Owner {
            query: format!(
                "SELECT FROM {} WHERE {} = {} AND {} = {} FOR UPDATE",
                self.tables().tenants,
                self.tables().id,
                id_literal(&tenant.id),
                self.tables().schema,
                escape_literal(tenant.schema.as_str())
            ),
            name: tenant.slug.to_string(),
        }
    }

    /// Drops one schema, a large one in several transactions. The first one marks it as partly dropped;
    /// the last one also runs `last`.
    pub(crate) async fn drop_schema(
        &self,
        schema: &SchemaName,
        mark: Option<PartlyDropped>,
        cascade_outside: bool,
        last: &str,
    ) -> Result<(), ChangeError> {
        let name = mark.as_ref().map_or(schema, |mark| &mark.name);
        let mut chunks =
            self.read(async |session| chunks::chunks(session, schema, name).await).await?;
        let mut renamed = schema;
        let mut owner = mark.as_ref().map(|mark| mark.owner.clone());
        if let (Some(first), Some(mark)) = (chunks.first_mut(), &mark) {
            first.owner = owner.take();
            first.schema = schema.clone();
            let rename = if mark.name == *schema {
                String::new()
            } else {
                format!("ALTER SCHEMA {} RENAME TO {}; ", schema.quoted(), mark.name.quoted())
            };
            first.statements = format!("{}{rename}{}", mark.statement, first.statements);
            renamed = &mark.name;
        }
        chunks.push(Chunk {
            owner,
            what: "the schema".to_owned(),
            schema: renamed.clone(),
            tables: LockedTables::All,
            statements: format!("DROP SCHEMA IF EXISTS {} CASCADE{last}", renamed.quoted()),
            is_brief: !chunks.is_empty(),
        });
        for (place, chunk) in chunks.iter().enumerate() {
            self.progress.send(EventKind::Step {
                step: chunk.what.clone(),
                number: place + 1,
                of: chunks.len(),
                rows: 0,
                bytes: 0,
            });
            self.run_chunk(chunk, cascade_outside).await?;
        }
        Ok(())
    }
}

/// How a partly dropped schema is marked.
pub(crate) struct PartlyDropped {
    /// The schema's name from the first transaction on.
    pub(crate) name: SchemaName,
    /// Further statements of the first transaction, each with a semicolon.
    pub(crate) statement: String,
    /// The row that must name the schema.
    pub(crate) owner: Owner,
}
