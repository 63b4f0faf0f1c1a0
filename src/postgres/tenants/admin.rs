//! What every verb works with: the catalog, options, progress and interrupts.

use tokio_postgres::Error;

use super::catalog::PostgresCatalog;
use super::change::ChangeError;
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::catalog_sql::Tables;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::retry::Retry;
use crate::service::event::Progress;
use crate::service::fleet::Interrupts;

/// Creates, changes and drops tenants. Each verb is a module with methods of this type.
#[derive(Clone, Debug)]
pub struct TenantAdmin {
    /// The tenants.
    pub catalog: PostgresCatalog,
    /// Limits of lock waits, and what a new schema's migrations depend on.
    pub options: EngineOptions,
    /// Receives steps and lock waits.
    pub progress: Progress,
    /// End every wait at [`Interrupt::Cancel`](crate::service::event::Interrupt::Cancel): what is not
    /// committed is rolled back.
    pub interrupts: Interrupts,
}

impl TenantAdmin {
    /// Returns an administrator that reports nothing and is not interrupted.
    pub fn new(catalog: PostgresCatalog, options: EngineOptions) -> Self {
        let (progress, interrupts) = (Progress::channel().0, Interrupts::never());
        Self { catalog, options, progress, interrupts }
    }

    /// Creates an empty schema for a tenant whose schema does not exist. Does nothing if it exists.
    pub async fn create_schema(&self, schema: &SchemaName) -> Result<(), CatalogError> {
        let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", schema.quoted());
        self.catalog.session().await?.rows(&sql).await?;
        Ok(())
    }

    pub(crate) fn database(&self) -> &Database {
        self.catalog.database()
    }

    pub(crate) fn tables(&self) -> &Tables {
        self.catalog.tables()
    }

    pub(crate) fn retry(&self) -> Retry<'_> {
        Retry::new(self.database(), &self.options, &self.progress, self.interrupts.clone())
    }

    /// Runs a short read on a session of its own.
    pub(crate) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&Session) -> Result<T, Error>,
    ) -> Result<T, ChangeError> {
        let retry = self.retry();
        let session = retry.session(1).await?;
        let result = retry.until_cancelled(&session, work(&session)).await;
        if result.is_err() {
            session.discard();
        }
        Ok(result?.map_err(CatalogError::from)?)
    }
}
