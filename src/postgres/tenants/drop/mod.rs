//! Drops a tenant's schema: refuses where objects outside depend on it, releases shared tables
//! quickly, and drops large schemas in several transactions.
//!
//! Imports [`catalog`](super::catalog), the retrying transaction and `schema::dependencies`. Start
//! reading at [`PostgresCatalog::drop`]. A drop of more than one transaction renames the schema in the
//! first one, so that a drop that was killed in between is visible: the row still names a schema
//! that does not exist, and one named after the row's id does. Running it again finishes it.

mod chunks;
mod contents;

use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

pub(crate) use self::chunks::{Chunk, LockedTables, Owner};
pub(crate) use self::contents::contents_of;
pub use self::contents::{Contents, Presence};
use super::catalog::{PostgresCatalog, catalog_error};
use super::change::ChangeError;
pub use super::referencing_rows::Referrer;
use super::referencing_rows::{self, SearchScope};
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::SchemaName;
use crate::domain::sqlstate;
use crate::domain::tenant::Tenant;
use crate::postgres::bookkeeping::run_log;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::{is_worth_retrying, server_error, sqlstate_of};
use crate::postgres::transaction::retry::TxError;
use crate::postgres::transaction::settings::ASYNC_COMMIT;
use crate::postgres::transaction::settings::catalog_search_path;
use crate::service::event::EventKind;

/// What is dropped besides the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropOptions {
    /// Whether the tenant's row and hosts stay. Default: they are deleted.
    pub keep_record: bool,
    /// Whether objects outside that depend on the schema are dropped too. Default: they refuse the drop.
    pub cascade_outside: bool,
}

impl PostgresCatalog {
    /// Fails where the tenant's row cannot be deleted, or rows of other tenants would be deleted with
    /// it. Of the rest, keys count for which `matters` is true.
    pub(crate) async fn refuse_referrers(
        &self,
        tenant: &Tenant,
        scope: SearchScope,
        matters: impl Fn(&Referrer) -> bool,
        options: &EngineOptions,
    ) -> Result<(), ChangeError> {
        let refused = |error: &Error| {
            if is_worth_retrying(error) {
                return ChangeError::InUse(server_error(error));
            }
            catalog_error(error).into()
        };
        let find = async |_| {
            let session = self.session().await;
            let session = session.map_err(|error| TxError::Refused(error.into()))?;
            let timeout = options.lock_timeout;
            let found =
                referencing_rows::find(&session, self.tables(), tenant, scope, timeout).await;
            found.map_err(|error| match sqlstate_of(&error) {
                // A table that another drop took meanwhile: the next search does not see it.
                Some(code) if sqlstate::is_missing_table(code) => TxError::Contention {
                    error: ChangeError::InUse(server_error(&error)),
                    cause: Box::new(server_error(&error)),
                    blockers: Vec::new(),
                },
                _ => TxError::Server(error),
            })
        };
        let referrers = self.retry(options).run(refused, find).await?;
        let named: Vec<String> = referrers
            .found
            .iter()
            .filter(|one| one.is_tenants || matters(one))
            .map(|one| format!("{} (key {})", one.table, one.key))
            .collect();
        if !named.is_empty() {
            return Err(CatalogError::ReferencedBy(named).into());
        }
        let room = self.room_for_locks().await?;
        if referrers.locks > room {
            return Err(CatalogError::TooManyLocks {
                needed: referrers.locks,
                available: room,
            }
            .into());
        }
        Ok(())
    }

    /// Returns how many locks the server has room for (manual section 20.12).
    async fn room_for_locks(&self) -> Result<u64, CatalogError> {
        let sql = "SELECT current_setting('max_locks_per_transaction')::int8 * \
                   (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8)";
        let rows = self.session().await?.read(sql).await;
        let rows = rows.map_err(|error| catalog_error(&error))?;
        let room = rows.first().and_then(|row| row.optional(0)?.parse().ok());
        Ok(room.unwrap_or(u64::MAX))
    }

    /// Drops the schema and, unless it is to be kept, the tenant's row, which is deleted last: a drop
    /// that was killed in between is finished by running it again.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Dependents`] when objects outside would be dropped too, [`CatalogError::ReferencedBy`]
    /// when rows elsewhere keep the tenant's row or rows of another tenant would be deleted with it;
    /// [`ChangeError::Locked`] when a migration holds the schema for longer than `lock_wait`.
    pub async fn drop(
        &self,
        tenant: &Tenant,
        drop: DropOptions,
        options: &EngineOptions,
    ) -> Result<(), ChangeError> {
        let half_dropped = SchemaName::dropping(tenant.id);
        let names = [half_dropped.clone(), tenant.schema.clone()];
        let contents = contents_of(&self.session().await?, &names).await?;
        contents.refuse_dependents(drop.cascade_outside)?;
        let mut last = String::new();
        if !drop.keep_record {
            self.refuse_referrers(tenant, SearchScope::Elsewhere, |one| one.keeps, options)
                .await?;
            let delete = self.tables().delete(tenant.id);
            let _ = write!(last, "; {}{delete}", catalog_search_path(options));
        }
        let owner = self.owner(tenant);
        for (position, home) in contents.homes.iter().enumerate() {
            let is_last = position + 1 == contents.homes.len();
            let mark = (*home != half_dropped).then(|| HalfDropped {
                name: half_dropped.clone(),
                statement: String::new(),
                owner: owner.clone(),
            });
            let last = if is_last { &*last } else { "" };
            self.drop_schema(home, mark, drop.cascade_outside, last, options)
                .await?;
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
            self.run_chunk(&chunk, drop.cascade_outside, options)
                .await?;
        }
        // The rows are invalid anyway, and missing where the bookkeeping tables are.
        if let Ok(session) = self.session().await {
            let forget = format!("{ASYNC_COMMIT}; {}", run_log::forget(&tenant.schema));
            let _ = session.rows(&forget).await;
        }
        Ok(())
    }

    /// Returns the row that makes a schema this tenant's.
    pub(crate) fn owner(&self, tenant: &Tenant) -> Owner {
        Owner {
            query: format!(
                "SELECT FROM {} WHERE {} = '{}' AND {} = {} FOR UPDATE",
                self.tables().tenants,
                self.tables().id,
                tenant.id,
                self.tables().schema,
                escape_literal(tenant.schema.as_str())
            ),
            name: tenant.slug.to_string(),
        }
    }

    /// Drops one schema, in one transaction where that is enough. The first of several marks it as
    /// half dropped; the last one runs `last` as well.
    pub(crate) async fn drop_schema(
        &self,
        schema: &SchemaName,
        mark: Option<HalfDropped>,
        cascade_outside: bool,
        last: &str,
        options: &EngineOptions,
    ) -> Result<(), ChangeError> {
        let session = self.session().await?;
        let name = mark.as_ref().map_or(schema, |mark| &mark.name);
        let mut chunks = chunks::chunks(&session, schema, name)
            .await
            .map_err(|error| catalog_error(&error))?;
        drop(session);
        let mut renamed = schema;
        let mut owner = mark.as_ref().map(|mark| mark.owner.clone());
        if let (Some(first), Some(mark)) = (chunks.first_mut(), &mark) {
            first.owner = owner.take();
            first.schema = schema.clone();
            let rename = if mark.name == *schema {
                String::new()
            } else {
                format!(
                    "ALTER SCHEMA {} RENAME TO {}; ",
                    schema.quoted(),
                    mark.name.quoted()
                )
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
            is_brief: false,
        });
        for (place, chunk) in chunks.iter().enumerate() {
            self.progress().send(EventKind::Step {
                step: chunk.what.clone(),
                number: place + 1,
                of: chunks.len(),
                rows: 0,
                bytes: 0,
            });
            self.run_chunk(chunk, cascade_outside, options).await?;
        }
        Ok(())
    }
}

/// How a half dropped schema is marked.
pub(crate) struct HalfDropped {
    /// The schema's name from the first transaction on.
    pub(crate) name: SchemaName,
    /// Statements of the first transaction besides, each ended by a semicolon.
    pub(crate) statement: String,
    /// The row that the schema must belong to.
    pub(crate) owner: Owner,
}
