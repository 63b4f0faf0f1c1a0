//! Creates a tenant whose files need several transactions, and recognises one that was not finished.
//!
//! The schema is marked by its comment until the last transaction inserts the row. After a failure the
//! schema is dropped again; if the process was killed, the same command continues.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Instant;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::change::ChangeError;
use super::conflicts::NewValues;
use super::create::Created;
use super::drop::{Owner, PartlyDropped};
use super::mark::{self, BEING_DROPPED, Mark, UNFINISHED, comment};
use super::new_row::insert_error;
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::NewTenant;
use crate::postgres::bookkeeping::run_log;
use crate::postgres::connection::session::Session;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::transaction::retry::{Stop, Transaction};
use crate::postgres::transaction::settings::ASYNC_COMMIT;
use crate::service::event::EventKind;
use crate::service::fleet::Interrupts;

impl TenantAdmin {
    /// Creates a tenant in several transactions, the last of which inserts the row.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; the schema is dropped again.
    pub(super) async fn create_in_steps(
        &self,
        new: &NewTenant,
        files: &PostgresMigrator,
    ) -> Result<Created, ChangeError> {
        let mark = format!("{UNFINISHED} ({:016x})", RandomState::new().hash_one(Instant::now()));
        // A schema that another process was dropping when it ended.
        self.drop_marked(&new.schema, BEING_DROPPED).await?;
        self.reserve(new, &mark).await?;
        files.expect_new_schema();
        let mut created = self.adopt(new, Some(files)).await;
        if let Err(error) = &mut created {
            let schema = &new.schema;
            let admin = Self { interrupts: Interrupts::never(), ..self.clone() };
            match (admin.drop_marked(schema, &mark).await, error) {
                (Ok(()), ChangeError::Migrate(error)) => error.set_rolled_back(),
                (Ok(()), _) => {}
                (Err(error), _) => self.progress.send(EventKind::Notice {
                    severity: "WARNING".to_owned(),
                    message: format!(
                        "schema {schema} is left without a tenant; create-tenant continues there: {error}"
                    ),
                }),
            }
        }
        created
    }

    /// Creates the schema and marks it. A schema that another process has marked is taken over.
    async fn reserve(&self, new: &NewTenant, mark: &str) -> Result<(), ChangeError> {
        let schema = &new.schema;
        let refused = |error: &Error| insert_error(error, new, self.tables()).into();
        let work = async |transaction: &mut Transaction<'_>| {
            let session = transaction.session();
            let is_marked = mark::read(session, schema).await? == Some(Mark::Unfinished);
            let values = if is_marked { NewValues::Adopt } else { NewValues::Create };
            if let Some(taken) = self.catalog.find_conflict(session, new, values).await? {
                return Err(Stop::Refused(taken.into()));
            }
            let create = if is_marked {
                String::new()
            } else {
                format!("CREATE SCHEMA {};", schema.quoted())
            };
            transaction.rows(&format!("{create} {}", comment(schema, mark))).await?;
            Ok(())
        };
        self.retry().run_locked(schema, refused, work).await
    }

    /// Drops the schema and its row in the ledger if its comment is this one; does nothing otherwise.
    async fn drop_marked(&self, schema: &SchemaName, mark: &str) -> Result<(), ChangeError> {
        let owner = Owner {
            query: format!(
                "SELECT FROM pg_namespace n WHERE n.nspname = {} AND obj_description(n.oid, 'pg_namespace') = {}",
                escape_literal(schema.as_str()),
                escape_literal(mark)
            ),
            name: schema.to_string(),
        };
        let marked = self.read(async |session| session.read(&owner.query).await).await?;
        if marked.is_empty() {
            return Ok(());
        }
        let statement = comment(schema, BEING_DROPPED);
        let mark = PartlyDropped { name: schema.clone(), statement, owner };
        match self.drop_schema(schema, Some(mark), false, "").await {
            // Another process has finished it, or took it over.
            Err(ChangeError::Catalog(CatalogError::NotFound(_))) => return Ok(()),
            dropped => dropped?,
        }
        let forget = format!("{ASYNC_COMMIT}; {}", run_log::forget(schema));
        // Without this the rows would be stale, but harmless.
        let _ = self.read(async |session| session.rows(&forget).await).await;
        Ok(())
    }

    /// Returns whether an error says that the schema exists, and it belongs to a tenant that was not
    /// finished.
    pub(super) async fn is_unfinished(&self, error: &CatalogError, new: &NewTenant) -> bool {
        let exists = matches!(error, CatalogError::AlreadyExists { what: Taken::Schema, .. });
        let mark = async |session: &Session| mark::read(session, &new.schema).await;
        exists && self.read(mark).await.is_ok_and(|mark| mark.is_some())
    }
}
