//! Creates a tenant: row, hosts, schema, migrations and history in one transaction.

use std::cell::Cell;

use futures_util::future::join4;
use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error};
use super::change::ChangeError;
use super::new_row::insert_error;
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
    /// How many scripts are pending: the first non-transactional one and all after it.
    pub left: usize,
    /// Whether [`PostgresCatalog::write_template`] would speed up the next creation.
    pub lacks_template: bool,
}

/// The input of every attempt to create or adopt a tenant.
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
    /// Without the bookkeeping tables there is no ledger row; the next survey reads the history.
    pub(super) async fn new(
        catalog: &PostgresCatalog,
        new: &'a NewTenant,
        set: Option<&'a MigrationSet>,
        options: &'a EngineOptions,
        progress: &'a Progress,
    ) -> Self {
        let keeps_ledger = bookkeeping::ensure(catalog.database(), options).await.is_ok();
        let target = Target {
            schema: new.schema.clone(),
            label: new.slug.as_str().to_owned(),
            scope: Scope::Tenant,
        };
        Self { new, set, options, keeps_ledger, progress, target }
    }
}

impl PostgresCatalog {
    /// Creates a tenant in one transaction. Without a set its schema is empty.
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
        let stored = match set.filter(|_| options.templates) {
            // Without a template the files are run.
            Some(set) => {
                let session = self.session().await?;
                self.load_template(&session, set, options).await.ok()
            }
            None => None,
        };
        let template = Cell::new(stored.as_ref().and_then(StoredTemplate::template));
        let attempt = async |number| match self.attempt(&creation, template.get(), number).await {
            Err(TxError::Refused(ChangeError::Migrate(_))) if template.take().is_some() => {
                self.attempt(&creation, None, number).await
            }
            outcome => outcome,
        };
        let refused = |error: &Error| ChangeError::from(catalog_error(error));
        match self.retry(options).run(refused, attempt).await {
            Ok(created) => Ok(Created {
                tenant: self.with_id(created.tenant).await?,
                lacks_template: stored.is_some_and(|stored| stored.compiled.is_none()),
                ..created
            }),
            Err(ChangeError::Catalog(error)) => Err(self.describe_owner(error).await.into()),
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

    /// Returns a session for an attempt; all but the first wait for a server that restarts.
    pub(super) async fn session_for<E: From<GaveUp>, T>(
        &self,
        attempt: u32,
    ) -> Result<Session, TxError<E, T>> {
        let session = self.database().session(GaveUp::connect_timeout(attempt)).await;
        session.map_err(|error| TxError::Refused(GaveUp::NotConnected(error).into()))
    }

    /// Stores the template of a set, which speeds up the next creation.
    ///
    /// # Errors
    ///
    /// The reason why the set has no template; its files are run instead.
    pub async fn write_template(
        &self,
        set: &MigrationSet,
        options: &EngineOptions,
    ) -> Result<(), String> {
        let session = self.session().await.map_err(|error| error.to_string())?;
        let stored = self.load_template(&session, set, options).await;
        let stored = stored.map_err(|error| server_error(&error).to_string())?;
        drop(session);
        if let Some(compiled) = stored.compiled {
            return compiled.map(drop);
        }
        let compiled =
            template::compile(self.database(), options, &template::in_one_transaction(set))
                .await
                .map_err(|error| error.to_string())?;
        template::store(self.database(), options, &stored.key, &compiled)
            .await
            .map_err(|error| error.to_string())?;
        compiled.map(drop)
    }

    async fn load_template(
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
        let Creation { new, set, options, .. } = *creation;
        let opened = self.create_schema_for(session, creation).await?;
        let transactional = set.map_or_else(Vec::new, template::in_one_transaction);
        let applied = match (set, template) {
            (None, _) => Vec::new(),
            (Some(_), None) => {
                self.run_files(session, creation, &opened, &transactional, number).await?
            }
            (Some(_), Some(template)) => {
                let template_run = TemplateRun {
                    template,
                    scripts: &transactional,
                    schema: &new.schema,
                    options,
                    requires_empty: false,
                    // Comparing the result would cost more than creating the schema.
                    is_verified: true,
                };
                // The guard ran when the template was compiled.
                let outcome =
                    template_run.run(session, &opened, &FinalCheck::Skip, creation.progress).await;
                outcome.map_err(template_failed)?.applied
            }
        };
        let history = transactional.iter().map(|script| script.id.claimed());
        let history = set.map(|_| history.collect());
        let left = set.map_or(0, |set| set.scripts().len()) - transactional.len();
        self.commit_created(session, creation, &opened, history, applied, left).await
    }

    /// Inserts the tenant's row, writes `history` to the ledger and commits. The row comes last, so
    /// that the guard does not see it.
    pub(super) async fn commit_created(
        &self,
        session: &Session,
        creation: &Creation<'_>,
        opened: &OpenTransaction,
        history: Option<Vec<Applied>>,
        applied: Vec<AppliedScript>,
        left: usize,
    ) -> Result<Created, CreateFailed> {
        let Creation { new, options, .. } = *creation;
        let note = history
            .filter(|_| creation.keeps_ledger)
            .map(|history| ledger::note(&new.schema, &options.history_table, &history));
        let created = |tenant| Created { tenant, applied, left, lacks_template: false };
        let insert = self.tables().insert(new);
        let note = note.unwrap_or_default();
        self.commit_new(session, new, opened, &insert, &note, created).await
    }

    /// Opens the transaction and creates the schema, unless the slug, schema or a host is taken.
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
        // Pipelined. The conflict names what is taken; the failed CREATE SCHEMA does not.
        let (reset, began, conflict, created) = join4(
            session.client().simple_query("DISCARD ALL"),
            session.rows(&opening),
            self.find_conflict(session, new, false),
            session.rows(&create),
        )
        .await;
        reset?;
        began?;
        if let Some(conflict) = conflict? {
            return Err(TxError::Refused(conflict.into()));
        }
        let refused = |error: Error| {
            let refused = insert_error(&error, new, self.tables());
            TxError::of(server_error(&error), refused.into())
        };
        let OpenOutcome::Ready(opened) = interpret(&created.map_err(refused)?, &new.schema)? else {
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
        let Creation { options, target, .. } = creation;
        let (schema, table) = (&target.schema, &options.history_table);
        let batch = Batch::new(options, target, opened.has_history, scripts, false);
        let check = FinalCheck::Guard(options.guard_rules.clone());
        let mut monitor = LockMonitor::new(
            self.database(),
            opened.pid,
            options.lock_timeout,
            self.progress(),
            Interrupts::never(),
        );
        let run = batch.run(session, opened, schema, &check, creation.progress);
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
        let touched = escape_guard::outside(self.database(), None, schema, findings).await;
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
