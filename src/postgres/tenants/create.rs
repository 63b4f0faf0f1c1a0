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
use crate::postgres::migrate::template::{
    self, StoredTemplate, Template, TemplateMismatch, TemplateRun,
};
use crate::postgres::transaction::batch::{Batch, BatchOutcome};
use crate::postgres::transaction::escape_guard;
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
    /// How many scripts are pending: the first non-transactional one and all after it.
    pub left: usize,
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
    pub(super) left: usize,
}

/// Why an attempt did not create the tenant.
pub(super) type CreateFailed = TxError<ChangeError, Created>;

impl TenantAdmin {
    /// Creates a tenant in one transaction. Without a set its schema is empty.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; the transaction is rolled back.
    pub async fn create(
        &self,
        new: &NewTenant,
        set: Option<&MigrationSet>,
    ) -> Result<Created, ChangeError> {
        let creation = Creation::new(self, new, set).await;
        let stored = match set.filter(|_| self.options.templates) {
            // Without a template the files are run.
            Some(set) => {
                self.read(async |session| self.load_template(session, set).await).await.ok()
            }
            None => None,
        };
        let template = Cell::new(stored.as_ref().and_then(StoredTemplate::template));
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
        match self.retry().run(refused, attempt).await {
            Ok(created) => Ok(Created {
                tenant: self.with_id(created.tenant).await?,
                lacks_template: stored.is_some_and(|stored| stored.compiled.is_none()),
                ..created
            }),
            Err(error) => Err(self.describe_owner(error).await),
        }
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

    /// Runs one attempt: prepares a transaction, inserts the tenant and commits. The row comes last, so
    /// that the guard does not see it.
    pub(super) async fn attempt(
        &self,
        number: u32,
        prepare: impl AsyncFnOnce(&Session) -> Result<Prepared, CreateFailed>,
    ) -> Result<Created, CreateFailed> {
        let retry = self.admin.retry();
        let session = retry.session(number).await?;
        let created = async {
            let prepared = retry.until_cancelled(&session, prepare(&session)).await??;
            self.commit(&session, prepared).await
        };
        let created = created.await;
        if created.is_err() {
            // Closing the connection rolls back, whatever state it is in.
            session.discard();
        }
        created
    }

    async fn commit(&self, session: &Session, prepared: Prepared) -> Result<Created, CreateFailed> {
        let Prepared { opened, history, applied, left } = prepared;
        let table = &self.admin.options.history_table;
        let note = history
            .filter(|_| self.keeps_ledger)
            .map(|history| ledger::note(&self.new.schema, table, &history));
        let created = |tenant| Created { tenant, applied, left, lacks_template: false };
        let insert = self.admin.tables().insert(self.new);
        let note = note.unwrap_or_default();
        self.admin.commit_new(session, self.new, &opened, &insert, &note, created).await
    }

    async fn create_in(
        &self,
        session: &Session,
        template: Option<&Template>,
        number: u32,
    ) -> Result<Prepared, CreateFailed> {
        let (new, options) = (self.new, &self.admin.options);
        let opened = self.admin.open_new(session, new, &begin(options, &self.target)).await?;
        let opened = opened.map_err(|taken| TxError::Refused(taken.into()))?;
        let Some(set) = self.set else {
            return Ok(Prepared { opened, history: None, applied: Vec::new(), left: 0 });
        };
        let scripts = template::in_one_transaction(set);
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
        let left = set.scripts().len() - scripts.len();
        Ok(Prepared { opened, history, applied, left })
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
