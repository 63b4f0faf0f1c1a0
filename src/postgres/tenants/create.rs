//! Creates a tenant: row, hosts, schema, migrations and history in one transaction.

use std::cell::Cell;

use futures_util::future::join4;
use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error};
use super::change::ChangeError;
use super::new_row::taken_meanwhile;
use crate::domain::applied::{Applied, AppliedScript};
use crate::domain::catalog::CatalogError;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Tenant};
use crate::migrations::{MigrationSet, Script};
use crate::postgres::bookkeeping;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::Session;
use crate::postgres::migrate::failure::FailedAttempt;
use crate::postgres::migrate::template::{
    self, StoredTemplate, Template, TemplateMismatch, TemplateRun,
};
use crate::postgres::transaction::batch::{Batch, BatchOutcome};
use crate::postgres::transaction::escape_guard;
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::ledger;
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::open::{OpenOutcome, OpenTransaction, interpret, probe};
use crate::postgres::transaction::retry::{GaveUp, TxError};
use crate::postgres::transaction::settings::begin;
use crate::service::event::Progress;
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::Interrupts;

/// A tenant that was created or adopted.
#[derive(Clone, Debug)]
pub struct Created {
    /// The tenant.
    pub tenant: Tenant,
    /// The scripts that were applied to its schema.
    pub applied: Vec<AppliedScript>,
    /// How many scripts are pending: those from the first one on that runs without a transaction.
    pub left: usize,
    /// Whether [`PostgresCatalog::write_template`] would make the next one faster.
    pub lacks_template: bool,
}

/// What a tenant is created from, in every attempt.
pub(super) struct Creation<'a> {
    pub(super) new: &'a NewTenant,
    pub(super) set: Option<&'a MigrationSet>,
    pub(super) options: &'a EngineOptions,
    pub(super) keeps_ledger: bool,
    pub(super) progress: &'a Progress,
    pub(super) target: Target,
}

/// Why an attempt did not create the tenant.
pub(super) type CreateFailed = TxError<ChangeError, Created>;

impl<'a> Creation<'a> {
    /// The tenant can do without the ledger; the next survey reads its history.
    pub(super) async fn new(
        catalog: &PostgresCatalog,
        new: &'a NewTenant,
        set: Option<&'a MigrationSet>,
        options: &'a EngineOptions,
        progress: &'a Progress,
    ) -> Self {
        let keeps_ledger = bookkeeping::ensure(catalog.database(), options)
            .await
            .is_ok();
        let target = Target {
            schema: new.schema.clone(),
            label: new.slug.as_str().to_owned(),
            scope: Scope::Tenant,
        };
        Self {
            new,
            set,
            options,
            keeps_ledger,
            progress,
            target,
        }
    }
}

impl PostgresCatalog {
    /// Creates a tenant with everything, or nothing. Without a set the schema stays empty.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; the transaction is rolled back.
    pub async fn create(
        &self,
        new: &NewTenant,
        set: Option<&MigrationSet>,
        options: &EngineOptions,
        progress: &Progress,
    ) -> Result<Created, ChangeError> {
        let creation = Creation::new(self, new, set, options, progress).await;
        let kept = match set.filter(|_| options.templates) {
            // Without a template the files are run.
            Some(set) => self.kept(&self.session().await?, set, options).await.ok(),
            None => None,
        };
        let template = Cell::new(kept.as_ref().and_then(StoredTemplate::template));
        let attempt = async |number| match self.attempt(&creation, template.get(), number).await {
            Err(TxError::Refused(ChangeError::Migrate(_))) if template.take().is_some() => {
                self.attempt(&creation, None, number).await
            }
            made => made,
        };
        let refused = |error: &Error| ChangeError::from(catalog_error(error));
        match self.retry(options).run(refused, attempt).await {
            Ok(created) => Ok(Created {
                tenant: self.with_id(created.tenant).await?,
                lacks_template: kept.is_some_and(|kept| kept.compiled.is_none()),
                ..created
            }),
            Err(ChangeError::Catalog(error)) => Err(self.name_owner(error).await.into()),
            Err(error) => Err(error),
        }
    }

    async fn attempt(
        &self,
        creation: &Creation<'_>,
        template: Option<&Template>,
        number: u32,
    ) -> Result<Created, CreateFailed> {
        let session = self.session_for(number).await?;
        let created = self.create_in(&session, creation, template, number).await;
        if created.is_err() {
            // Closing the connection rolls back, whatever state it is in.
            session.discard();
        }
        created
    }

    /// Borrows the connection of an attempt; all but the first wait for a server that restarts.
    pub(super) async fn session_for<E: From<GaveUp>, T>(
        &self,
        attempt: u32,
    ) -> Result<Session, TxError<E, T>> {
        let session = self.database().session(GaveUp::patience(attempt)).await;
        session.map_err(|error| TxError::Refused(GaveUp::NotConnected(error).into()))
    }

    /// Writes the template that makes the next tenant faster.
    ///
    /// # Errors
    ///
    /// Why there is none; the files are run then.
    pub async fn write_template(
        &self,
        set: &MigrationSet,
        options: &EngineOptions,
    ) -> Result<(), String> {
        let said = |error: Error| server_error(&error).to_string();
        let session = self.session().await.map_err(|error| error.to_string())?;
        let kept = self.kept(&session, set, options).await.map_err(said)?;
        drop(session);
        if let Some(compiled) = kept.compiled {
            return compiled.map(drop);
        }
        let compiled =
            template::compile(self.database(), options, &template::in_one_transaction(set))
                .await
                .map_err(|error| error.to_string())?;
        template::store(self.database(), options, &kept.key, &compiled)
            .await
            .map_err(|error| error.to_string())?;
        compiled.map(drop)
    }

    async fn kept(
        &self,
        session: &Session,
        set: &MigrationSet,
        options: &EngineOptions,
    ) -> Result<StoredTemplate, Error> {
        let role = &self.database().facts().role;
        template::load(session, options, role, &template::in_one_transaction(set)).await
    }

    async fn create_in(
        &self,
        session: &Session,
        creation: &Creation<'_>,
        template: Option<&Template>,
        number: u32,
    ) -> Result<Created, CreateFailed> {
        let Creation {
            new, set, options, ..
        } = *creation;
        let opened = self.create_schema_for(session, creation).await?;
        let scripts: Vec<&Script> = set.map_or_else(Vec::new, |set| set.scripts().iter().collect());
        let now = set.map_or_else(Vec::new, template::in_one_transaction);
        let applied = match (set, template) {
            (None, _) => Vec::new(),
            (Some(_), None) => {
                self.run_files(session, creation, &opened, &now, number)
                    .await?
            }
            (Some(_), Some(template)) => {
                let template_run = TemplateRun {
                    template,
                    scripts: &now,
                    schema: &new.schema,
                    options,
                    requires_empty: false,
                    // Its seal fits; comparing the new schema costs more than creating it.
                    is_verified: true,
                };
                // The guard checked it when the template was made.
                let outcome = template_run
                    .run(session, &opened, &FinalCheck::Skip, creation.progress)
                    .await;
                outcome.map_err(mismatch)?.applied
            }
        };
        let history: Vec<Applied> = now.iter().map(|script| script.id.claimed()).collect();
        let note = if creation.keeps_ledger && set.is_some() {
            ledger::note(&new.schema, &options.history_table, &history)
        } else {
            String::new()
        };
        // The row comes last, so that the guard does not see it.
        let insert = self.tables().insert(new);
        let made = |tenant| Created {
            tenant,
            applied,
            left: scripts.len() - now.len(),
            lacks_template: false,
        };
        self.commit_new(session, new, &opened, &insert, &note, made)
            .await
    }

    /// Opens the transaction and creates the schema, unless something of the tenant is taken.
    async fn create_schema_for(
        &self,
        session: &Session,
        creation: &Creation<'_>,
    ) -> Result<OpenTransaction, CreateFailed> {
        let Creation { new, options, .. } = *creation;
        let opening = begin(options, &creation.target);
        let create = format!(
            "CREATE SCHEMA {}; {}",
            new.schema.quoted(),
            probe(&new.schema, &options.history_table)
        );
        // All sent before the first is answered. The conflict explains better what is taken than the
        // statement that fails because of it.
        let (reset, begun, conflict, made) = join4(
            session.client().simple_query("DISCARD ALL"),
            session.rows(&opening),
            self.conflict(session, new, false),
            session.rows(&create),
        )
        .await;
        reset?;
        begun?;
        if let Some(conflict) = conflict? {
            return Err(TxError::Refused(conflict.into()));
        }
        let taken = |error: Error| {
            let taken = taken_meanwhile(&error, new, self.tables());
            TxError::of(server_error(&error), taken.into())
        };
        let OpenOutcome::Ready(opened) = interpret(&made.map_err(taken)?, &new.schema)? else {
            let missing = CatalogError::SchemaMissing(new.schema.clone());
            return Err(TxError::Refused(missing.into()));
        };
        Ok(opened)
    }

    /// Runs scripts in the open transaction, under the guard.
    pub(super) async fn run_files(
        &self,
        session: &Session,
        creation: &Creation<'_>,
        opened: &OpenTransaction,
        scripts: &[&Script],
        number: u32,
    ) -> Result<Vec<AppliedScript>, CreateFailed> {
        let Creation {
            options, target, ..
        } = creation;
        let (schema, table) = (&target.schema, &options.history_table);
        let batch = Batch::new(schema, table, opened.has_history, scripts, false);
        let check = FinalCheck::Guard(options.references.clone());
        let mut monitor = LockMonitor::new(
            self.database(),
            opened.pid,
            options.lock_timeout,
            self.progress(),
            Interrupts::never(),
        );
        let run = batch.run(session, opened, schema, &check, creation.progress);
        let BatchOutcome {
            applied, findings, ..
        } = match monitor.during(run).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let failed = FailedAttempt {
                    target,
                    history_table: table,
                    scripts,
                    number,
                    blockers: monitor.blockers,
                };
                let (failed, error) = failed.describe(error);
                return Err(match error {
                    Some(error) => TxError::of(server_error(&error), failed.into()),
                    None => TxError::Refused(failed.into()),
                });
            }
        };
        let touched = escape_guard::outside(self.database(), None, schema, findings).await;
        let touched = touched.map_err(|error| {
            let doing = "looking at what was touched outside the schema".to_owned();
            let failed = MigrateError::Database {
                doing,
                error: error.clone(),
            };
            TxError::of(error, failed.into())
        })?;
        if touched.is_empty() {
            return Ok(applied);
        }
        let scripts = scripts.iter().map(|script| script.id.reference()).collect();
        let left = MigrateError::LeftSchema { scripts, touched };
        Err(TxError::Refused(left.into()))
    }
}

/// The template could not be applied; the files are run instead, unless another attempt may help.
fn mismatch(mismatch: TemplateMismatch) -> CreateFailed {
    let doing = "applying the template".to_owned();
    match mismatch {
        TemplateMismatch::Server(error) => {
            let said = server_error(&error);
            let error = said.clone();
            TxError::of(said, MigrateError::Database { doing, error }.into())
        }
        TemplateMismatch::Identity
        | TemplateMismatch::Different
        | TemplateMismatch::LedgerMissing => {
            let error = ServerError::default();
            TxError::Refused(MigrateError::Database { doing, error }.into())
        }
    }
}
