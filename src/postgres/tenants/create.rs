//! Creates a tenant: row, hosts, schema, migrations and history in one transaction.

use std::cell::Cell;

use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::change::ChangeError;
use super::new_row::insert_error;
use crate::domain::applied::{Applied, AppliedScript};
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Tenant};
use crate::migrations::{MigrationSet, Script};
use crate::postgres::bookkeeping;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::Session;
use crate::postgres::migrate::failure::FailedAttempt;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::migrate::template::{
    self, StoredTemplate, Template, TemplateMismatch, TemplateRun,
};
use crate::postgres::transaction::batch::{Batch, BatchOutcome};
use crate::postgres::transaction::escape_guard;
use crate::postgres::transaction::file_end::{file_end, may_defer};
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::ledger;
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::open::OpenTransaction;
use crate::postgres::transaction::retry::TxError;
use crate::postgres::transaction::settings::begin;
use crate::service::event::Interrupt;
use crate::service::failure::{MigrateError, ServerError};

/// A tenant that was created or adopted.
#[derive(Clone, Debug)]
pub struct Created {
    /// The tenant.
    pub tenant: Tenant,
    /// The scripts that were applied to its schema.
    pub applied: Vec<AppliedScript>,
    /// Whether [`TenantAdmin::write_template`] would speed up the next creation.
    pub lacks_template: bool,
}

/// The input of every attempt to create or adopt a tenant.
pub(super) struct Creation<'a> {
    pub(super) admin: &'a TenantAdmin,
    pub(super) new: &'a NewTenant,
    pub(super) set: Option<&'a MigrationSet>,
    keeps_ledger: bool,
    pub(super) target: Target,
}

/// An open transaction that lacks only the tenant's row.
pub(super) struct Prepared {
    pub(super) opened: OpenTransaction,
    /// The history for the ledger, if it gets a row.
    pub(super) history: Option<Vec<Applied>>,
    pub(super) applied: Vec<AppliedScript>,
    /// Statements before the row's INSERT, each with a semicolon.
    pub(super) before_row: String,
}

/// Why an attempt did not create the tenant.
pub(super) type CreateFailed = TxError<ChangeError, Option<Created>>;

impl TenantAdmin {
    /// Creates a tenant and migrates its schema; without `files` the schema is empty. Everything happens
    /// in one transaction if the files allow that, else in several, the last of which
    /// inserts the row.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing is left behind.
    pub async fn create(
        &self,
        new: &NewTenant,
        files: Option<&PostgresMigrator>,
    ) -> Result<Created, ChangeError> {
        let Some(files) = files else {
            return self.create_at_once(new, None, None).await;
        };
        let set = files.tenant_set();
        let stored = if self.options.templates {
            // Without a template the files are run.
            self.read(async |session| self.load_template(session, set).await).await.ok()
        } else {
            None
        };
        let lacks_template = stored.as_ref().is_some_and(|stored| stored.compiled.is_none());
        if template::in_one_transaction(set).len() == set.scripts().len() {
            let template = stored.as_ref().and_then(StoredTemplate::template);
            match self.create_at_once(new, Some(set), template).await {
                Err(ChangeError::Migrate(error)) if error.uses_new_enum_value() => {}
                Err(ChangeError::Catalog(error)) if self.is_unfinished(&error, new).await => {}
                Err(error) => return Err(self.describe_owner(error).await),
                Ok(created) => return Ok(Created { lacks_template, ..created }),
            }
        }
        match self.create_in_steps(new, files).await {
            Ok(created) => Ok(Created { lacks_template, ..created }),
            Err(error) => Err(self.describe_owner(error).await),
        }
    }

    /// Creates a tenant in one transaction.
    async fn create_at_once(
        &self,
        new: &NewTenant,
        set: Option<&MigrationSet>,
        template: Option<&Template>,
    ) -> Result<Created, ChangeError> {
        let creation = Creation::new(self, new, set).await;
        let template = Cell::new(template);
        let create = async |number, template| {
            creation
                .attempt(number, async |session| {
                    creation.create_in(session, template, number).await
                })
                .await
        };
        let attempt = async |number| match create(number, template.get()).await {
            Err(TxError::Refused(ChangeError::Migrate(_))) if template.take().is_some() => {
                create(number, None).await
            }
            outcome => outcome,
        };
        let refused = |error: &Error| insert_error(error, new, self.tables()).into();
        let created = self.retry().run(refused, attempt).await?;
        let created = created.ok_or(ChangeError::Interrupted)?;
        Ok(Created { tenant: self.with_id(created.tenant).await?, ..created })
    }

    /// Stores the template of a set, which speeds up the next creation.
    ///
    /// # Errors
    ///
    /// The reason why the set has no template; its files are run instead.
    pub async fn write_template(&self, set: &MigrationSet) -> Result<(), String> {
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            biased;
            () = interrupts.reaches(Interrupt::Cancel) => Err("interrupted".to_owned()),
            written = self.compile_template(set) => written,
        }
    }

    async fn compile_template(&self, set: &MigrationSet) -> Result<(), String> {
        let (database, options) = (self.database(), &self.options);
        let session = self.catalog.session().await.map_err(|error| error.to_string())?;
        let stored = self.load_template(&session, set).await;
        let stored = stored.map_err(|error| server_error(&error).to_string())?;
        drop(session);
        if let Some(compiled) = stored.compiled {
            return compiled.map(drop);
        }
        let scripts = template::in_one_transaction(set);
        let compiled = template::compile(database, options, &scripts).await;
        let compiled = compiled.map_err(|error| error.to_string())?;
        let written = template::store(database, options, &stored.key, &compiled).await;
        written.map_err(|error| error.to_string())?;
        compiled.map(drop)
    }

    async fn load_template(
        &self,
        session: &Session,
        set: &MigrationSet,
    ) -> Result<StoredTemplate, Error> {
        let role = &self.database().facts().role;
        template::load(session, &self.options, role, &template::in_one_transaction(set)).await
    }
}

impl<'a> Creation<'a> {
    /// Without the bookkeeping tables there is no ledger row; the next survey reads the history.
    pub(super) async fn new(
        admin: &'a TenantAdmin,
        new: &'a NewTenant,
        set: Option<&'a MigrationSet>,
    ) -> Self {
        let interrupts = admin.interrupts.clone();
        let installed = bookkeeping::ensure(admin.database(), &admin.options, interrupts).await;
        let target = Target {
            schema: new.schema.clone(),
            label: new.slug.as_str().to_owned(),
            scope: Scope::Tenant,
        };
        Self { admin, new, set, keeps_ledger: installed.is_ok(), target }
    }

    /// Runs one attempt: prepares a transaction, inserts the tenant and commits, or rolls back if nothing
    /// was prepared. The row comes last, so that the guard does not see it.
    pub(super) async fn attempt(
        &self,
        number: u32,
        prepare: impl AsyncFnOnce(&Session) -> Result<Option<Prepared>, CreateFailed>,
    ) -> Result<Option<Created>, CreateFailed> {
        let retry = self.admin.retry();
        let session = retry.session(number).await?;
        let created = async {
            match retry.until_cancelled(&session, prepare(&session)).await?? {
                Some(prepared) => self.commit(&session, prepared).await,
                None => Ok(None),
            }
        };
        let created = created.await;
        if !matches!(created, Ok(Some(_))) {
            // Closing the connection rolls back, whatever state it is in.
            session.discard();
        }
        created
    }

    async fn commit(
        &self,
        session: &Session,
        prepared: Prepared,
    ) -> Result<Option<Created>, CreateFailed> {
        let Prepared { opened, history, applied, before_row } = prepared;
        let table = &self.admin.options.history_table;
        let note = history
            .filter(|_| self.keeps_ledger)
            .map(|history| ledger::note(&self.new.schema, table, &history));
        let created = |tenant| Some(Created { tenant, applied, lacks_template: false });
        let insert = before_row + &self.admin.tables().insert(self.new);
        let note = note.unwrap_or_default();
        self.admin.commit_new(session, self.new, &opened, &insert, &note, created).await
    }

    async fn create_in(
        &self,
        session: &Session,
        template: Option<&Template>,
        number: u32,
    ) -> Result<Option<Prepared>, CreateFailed> {
        let (new, options) = (self.new, &self.admin.options);
        let opened = self.admin.open_new(session, new, &begin(options, &self.target)).await?;
        let opened = opened.map_err(|taken| TxError::Refused(taken.into()))?;
        let Some(set) = self.set else {
            let before_row = String::new();
            return Ok(Some(Prepared { opened, history: None, applied: Vec::new(), before_row }));
        };
        let scripts: Vec<&Script> = set.scripts().iter().collect();
        let applied = if let Some(template) = template {
            let template_run = TemplateRun {
                template,
                scripts: &scripts,
                schema: &new.schema,
                options,
                requires_empty: false,
                // Comparing the result would cost more than creating the schema.
                is_verified: true,
            };
            // The guard ran when the template was compiled.
            let outcome =
                template_run.run(session, &opened, &FinalCheck::Skip, &self.admin.progress).await;
            outcome.map_err(template_failed)?.applied
        } else {
            self.run_files(session, &opened, &scripts, number).await?
        };
        let history = Some(scripts.iter().map(|script| script.id.claimed()).collect());
        let before_row = self.settings_after(&scripts);
        Ok(Some(Prepared { opened, history, applied, before_row }))
    }

    /// Returns the statements that end what the last script has set: the row's values mean the same
    /// whatever the files did.
    pub(super) fn settings_after(&self, scripts: &[&Script]) -> String {
        match scripts.last() {
            Some(last) if !last.only_defines() => {
                file_end(&self.admin.options, &self.target, may_defer(true, scripts))
            }
            _ => String::new(),
        }
    }

    /// Runs scripts in the open transaction, under the guard.
    pub(super) async fn run_files(
        &self,
        session: &Session,
        opened: &OpenTransaction,
        scripts: &[&Script],
        number: u32,
    ) -> Result<Vec<AppliedScript>, CreateFailed> {
        let Self { admin, target, .. } = self;
        let options = &admin.options;
        let (schema, table) = (&target.schema, &options.history_table);
        let batch = Batch::new(options, target, opened.has_history, scripts, false);
        let check = FinalCheck::Guard(options.guard_rules.clone());
        let mut monitor = LockMonitor::new(
            admin.database(),
            opened.pid,
            options.lock_timeout,
            &admin.progress,
            admin.interrupts.clone(),
        );
        let run = batch.run(session, opened, schema, &check, &admin.progress);
        let BatchOutcome { applied, findings, .. } = match monitor.during(run).await {
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
        let touched = escape_guard::outside(admin.database(), None, schema, findings).await;
        let touched = touched.map_err(|error| {
            let doing = "checking for changes outside the schema".to_owned();
            let failed = MigrateError::Database { doing, error: error.clone() };
            TxError::of(error, failed.into())
        })?;
        if touched.is_empty() {
            return Ok(applied);
        }
        Err(TxError::Refused(touched.into_error(scripts).into()))
    }
}

/// Returns the error of a template that was not applied: after contention the attempt is repeated,
/// otherwise the files are run instead.
fn template_failed(error: TemplateMismatch) -> CreateFailed {
    let doing = "applying the template".to_owned();
    match error {
        TemplateMismatch::Server(error) => {
            let cause = server_error(&error);
            let error = cause.clone();
            TxError::of(cause, MigrateError::Database { doing, error }.into())
        }
        TemplateMismatch::Identity
        | TemplateMismatch::Different
        | TemplateMismatch::LedgerMissing => {
            let error = ServerError::default();
            TxError::Refused(MigrateError::Database { doing, error }.into())
        }
    }
}
