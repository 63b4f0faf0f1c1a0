//! Adopts an existing schema: applies pending migrations and inserts row and hosts.

use std::collections::BTreeSet;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::catalog::database_error;
use super::change::ChangeError;
use super::conflicts::NewValues;
use super::create::{CreateFailed, Created, Creation, Prepared};
use super::mark::{self, Mark};
use super::new_row::insert_error;
use crate::domain::applied::{Applied, AppliedScript};
use crate::domain::catalog::CatalogError;
use crate::domain::plan::{Goal, Plan};
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::domain::tenant::NewTenant;
use crate::migrations::{MigrationSet, Script, in_one_transaction};
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::Session;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, open};
use crate::postgres::transaction::retry::TxError;
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::{JobFailure, JobSuccess, SchemaJob as _};

impl TenantAdmin {
    /// Registers an existing schema as a new tenant and applies its pending migrations, all in one
    /// transaction if the files allow that; else the row comes last, and what was applied before a
    /// failure stays applied. Without `files` the schema is not changed.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; there is no row.
    pub async fn adopt(
        &self,
        new: &NewTenant,
        files: Option<&PostgresMigrator>,
    ) -> Result<Created, ChangeError> {
        let creation = Creation::new(self, new, files.map(PostgresMigrator::tenant_set)).await;
        let mut applied = Vec::new();
        if let Some(files) = files {
            match self.adopt_at_once(&creation).await {
                Err(ChangeError::Migrate(error)) if error.uses_new_enum_value() => {}
                Ok(None) => {}
                Ok(Some(created)) => return Ok(created),
                Err(error) => return Err(error),
            }
            applied = self.run_in_steps(&creation.target, files).await?;
        }
        let created = self.adopt_at_once(&creation).await?.ok_or(ChangeError::Interrupted)?;
        applied.extend(created.applied);
        Ok(Created { applied, ..created })
    }

    /// Adopts the schema in one transaction; returns `None` if its files need more than one.
    async fn adopt_at_once(&self, creation: &Creation<'_>) -> Result<Option<Created>, ChangeError> {
        let new = creation.new;
        let attempt = async |number| {
            let adopt = async |session: &Session| creation.adopt_in(session, number).await;
            creation.attempt(number, adopt).await
        };
        let refused = |error: &Error| insert_error(error, new, self.tables()).into();
        let Some(created) = self.retry().run(refused, attempt).await? else {
            return Ok(None);
        };
        Ok(Some(Created { tenant: self.with_id(created.tenant).await?, ..created }))
    }

    /// Runs the pending files as `migrate-schemas` does.
    async fn run_in_steps(
        &self,
        target: &Target,
        files: &PostgresMigrator,
    ) -> Result<Vec<AppliedScript>, ChangeError> {
        match files.run(target, &self.progress, self.interrupts.clone()).await {
            Ok(JobSuccess::Migrated(applied)) => Ok(applied),
            Ok(JobSuccess::UpToDate | JobSuccess::Finished(_)) => Ok(Vec::new()),
            Ok(JobSuccess::Skipped(_)) => Err(ChangeError::Interrupted),
            Err(JobFailure { error, .. }) => Err(ChangeError::Migrate(error)),
        }
    }
}

impl Creation<'_> {
    async fn adopt_in(
        &self,
        session: &Session,
        number: u32,
    ) -> Result<Option<Prepared>, CreateFailed> {
        let refused = |error: CatalogError| TxError::Refused(ChangeError::from(error));
        let schema = &self.new.schema;
        let opened = self.open_schema(session).await?;
        let catalog = &self.admin.catalog;
        if let Some(taken) = catalog.find_conflict(session, self.new, NewValues::Adopt).await? {
            return Err(refused(taken));
        }
        let (mut history, pending) = compare(self.set, &opened)
            .map_err(|error| TxError::Refused(ChangeError::Migrate(error)))?;
        let mark = mark::read(session, schema).await?;
        if mark == Some(Mark::BeingDropped) {
            return Err(refused(CatalogError::PartlyDropped(self.new.slug.to_string())));
        }
        if history.is_empty()
            && !pending.is_empty()
            && mark.is_none()
            && let objects @ 1.. = self.count_objects(session, &opened).await?
        {
            return Err(refused(CatalogError::NoHistory(schema.clone(), objects)));
        }
        if in_one_transaction(&pending, &BTreeSet::new()) < pending.len() {
            return Ok(None);
        }
        let applied = if pending.is_empty() {
            Vec::new()
        } else {
            self.run_files(session, &opened, &pending, number).await?
        };
        let mut before_row = self.settings_after(&pending);
        if mark.is_some() {
            before_row += &mark::remove_mark(schema);
        }
        history.extend(pending.iter().map(|script| script.id.claimed()));
        let history = (!history.is_empty()).then_some(history);
        Ok(Some(Prepared { opened, history, applied, before_row }))
    }

    /// Opens the transaction in the schema, under its lock.
    async fn open_schema(&self, session: &Session) -> Result<OpenTransaction, CreateFailed> {
        let (schema, options) = (&self.new.schema, &self.admin.options);
        let open = async |expect_history| {
            let opened = open(session, options, &self.target, expect_history).await;
            opened.map_err(|error| {
                let (doing, error) =
                    (format!("reading the history of {schema}"), server_error(&error));
                TxError::of(error.clone(), MigrateError::Database { doing, error }.into())
            })
        };
        let mut outcome = open(true).await?;
        if let OpenOutcome::Expect(history) = outcome {
            outcome = open(history).await?;
        }
        let refused = match outcome {
            OpenOutcome::Ready(opened) => return Ok(opened),
            OpenOutcome::Busy(oid) => return Err(TxError::Busy(oid)),
            OpenOutcome::NotUsable(role) => database_error(ServerError {
                sqlstate: Some(sqlstate::INSUFFICIENT_PRIVILEGE.to_owned()),
                message: format!("role '{role}' may not use schema '{schema}'"),
                ..ServerError::default()
            }),
            _ => CatalogError::SchemaMissing(schema.clone()),
        };
        Err(TxError::Refused(refused.into()))
    }

    /// Returns the number of objects in the schema other than the history table.
    async fn count_objects(
        &self,
        session: &Session,
        opened: &OpenTransaction,
    ) -> Result<u64, Error> {
        let history = qualified(&self.new.schema, &self.admin.options.history_table);
        let sql = format!(
            "SELECT count(*) FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass AND refobjid = {} \
             AND NOT (classid = 'pg_catalog.pg_class'::regclass AND objid IS NOT DISTINCT FROM to_regclass({}))",
            opened.schema_oid,
            escape_literal(&history)
        );
        let rows = session.rows(&sql).await?;
        rows.first().map_or(Ok(0), |row| row.parse(0))
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
