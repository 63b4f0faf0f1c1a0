//! Adopts an existing schema: applies pending migrations and inserts row and hosts in one
//! transaction.

use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error, database_error};
use super::change::ChangeError;
use super::create::{CreateFailed, Created, Creation};
use crate::domain::applied::Applied;
use crate::domain::catalog::CatalogError;
use crate::domain::plan::{Goal, Plan};
use crate::domain::sqlstate;
use crate::domain::tenant::NewTenant;
use crate::migrations::{MigrationSet, Script, Transaction};
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, open};
use crate::postgres::transaction::retry::TxError;
use crate::service::event::Progress;
use crate::service::failure::{MigrateError, ServerError};

impl PostgresCatalog {
    /// Registers an existing schema as a new tenant and applies its pending migrations. Without a
    /// set none are applied.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; the transaction is rolled back.
    pub async fn adopt(
        &self,
        new: &NewTenant,
        set: Option<&MigrationSet>,
        options: &EngineOptions,
        progress: &Progress,
    ) -> Result<Created, ChangeError> {
        let creation = Creation::new(self, new, set, options, progress).await;
        let attempt = async |number| {
            let session = self.session_for(number).await?;
            let adopted = self.adopt_in(&session, &creation, number).await;
            if adopted.is_err() {
                // Closing the connection rolls back.
                session.discard();
            }
            adopted
        };
        let refused = |error: &Error| {
            let doing = format!("reading the history of {}", new.schema);
            let error = server_error(error);
            MigrateError::Database { doing, error }.into()
        };
        let adopted = self.retry(options).run(refused, attempt).await?;
        Ok(Created { tenant: self.with_id(adopted.tenant).await?, ..adopted })
    }

    /// Opens the transaction in the schema, under its lock.
    async fn open_schema(
        &self,
        session: &Session,
        creation: &Creation<'_>,
        expect_history: bool,
    ) -> Result<OpenTransaction, CreateFailed> {
        let schema = &creation.new.schema;
        match open(session, creation.options, &creation.target, expect_history).await? {
            OpenOutcome::Ready(opened) => Ok(opened),
            OpenOutcome::Expect(history) => {
                Box::pin(self.open_schema(session, creation, history)).await
            }
            OpenOutcome::Busy(oid) => Err(TxError::Busy(oid)),
            OpenOutcome::NotUsable(role) => Err(TxError::Refused(
                database_error(ServerError {
                    sqlstate: Some(sqlstate::INSUFFICIENT_PRIVILEGE.to_owned()),
                    message: format!("role '{role}' may not use schema '{schema}'"),
                    ..ServerError::default()
                })
                .into(),
            )),
            OpenOutcome::NoSchema | OpenOutcome::NoTenant | OpenOutcome::Dropping => {
                Err(TxError::Refused(CatalogError::SchemaMissing(schema.clone()).into()))
            }
        }
    }

    async fn adopt_in(
        &self,
        session: &Session,
        creation: &Creation<'_>,
        number: u32,
    ) -> Result<Created, CreateFailed> {
        let Creation { new, options, .. } = *creation;
        let (schema, table) = (&new.schema, &options.history_table);
        let opened = self.open_schema(session, creation, true).await?;
        let catalog_failed = |error: Error| {
            TxError::of(server_error(&error), ChangeError::from(catalog_error(&error)))
        };
        if let Some(conflict) =
            self.find_conflict(session, new, true).await.map_err(catalog_failed)?
        {
            return Err(TxError::Refused(conflict.into()));
        }
        let (mut history, pending) = compare(creation.set, &opened)
            .map_err(|error| TxError::Refused(ChangeError::Migrate(error)))?;
        if history.is_empty() && !pending.is_empty() {
            let sql = format!(
                "SELECT count(*) FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass AND refobjid = {} \
                 AND NOT (classid = 'pg_catalog.pg_class'::regclass AND objid IS NOT DISTINCT FROM to_regclass({}))",
                opened.schema_oid,
                postgres_protocol::escape::escape_literal(&qualified(schema, table))
            );
            let rows = session.rows(&sql).await.map_err(catalog_failed)?;
            let objects: Option<u64> = rows.first().map(|row| row.parse(0)).transpose()?;
            if let Some(objects @ 1..) = objects {
                let refused = CatalogError::NoHistory(schema.clone(), objects);
                return Err(TxError::Refused(refused.into()));
            }
        }
        let inside = |script: &&&Script| script.transaction == Transaction::Inside;
        let scripts: Vec<&Script> = pending.iter().take_while(inside).copied().collect();
        let applied = if scripts.is_empty() {
            Vec::new()
        } else {
            self.run_files(session, creation, &opened, &scripts, number).await?
        };
        history.extend(scripts.iter().map(|script| script.id.claimed()));
        let left = pending.len() - scripts.len();
        let history = (!history.is_empty()).then_some(history);
        self.commit_created(session, creation, &opened, history, applied, left).await
    }
}

/// Returns the history and the pending scripts.
fn compare<'a>(
    set: Option<&'a MigrationSet>,
    opened: &OpenTransaction,
) -> Result<(Vec<Applied>, Vec<&'a Script>), Box<MigrateError>> {
    let Some(set) = set else {
        return Ok((opened.history.clone().unwrap_or_default(), Vec::new()));
    };
    let history = opened.history.clone();
    let history = history.map_err(|why| Box::new(MigrateError::DamagedHistory { why }))?;
    let plan = Plan::compare(set.ids(), &history, Goal::Latest)
        .map_err(|drifts| Box::new(MigrateError::Drift { drifts }))?;
    let pending = plan.pending.iter().map(|&index| &set.scripts()[index]);
    Ok((history, pending.collect()))
}
