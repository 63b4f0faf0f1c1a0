//! Migrates the schemas of one database and reports their states.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::baseline::{self, Baseline};
use super::context::{Context, LedgerState, Mode};
use super::schema::SchemaMigration;
use super::{group, sql_preview, status};
use crate::domain::digest::of_prefixes;
use crate::domain::plan::Plan;
use crate::domain::run_options::{Atomic, GroupLimit};
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::SchemaState;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::migrations::MigrationSet;
use crate::postgres::bookkeeping::run_log::{RunHeader, RunLog};
use crate::postgres::connection::database::{Database, Route};
use crate::postgres::connection::options::EngineOptions;
use crate::service::event::{Progress, Skipped};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::{
    GroupMember, Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob, SchemaMigrator,
};

/// Migrates the schemas of one database.
#[derive(Clone, Debug)]
pub struct PostgresMigrator {
    context: Arc<Context>,
}

impl SchemaMigrator for PostgresMigrator {
    async fn survey(&self, targets: &[Arc<Target>]) -> Result<Vec<SchemaState>, MigrateError> {
        status::survey(&self.context, targets).await
    }
}

impl SchemaJob for PostgresMigrator {
    async fn run(&self, target: &Target, progress: &Progress, interrupts: Interrupts) -> JobResult {
        let mut migration = SchemaMigration {
            context: &self.context,
            target,
            progress,
            interrupts,
            committed: Vec::new(),
            expect_history: !self.context.last_was_new.load(Ordering::Relaxed),
            attempt: 1,
            in_doubt: Vec::new(),
            keeps_ledger: false,
            template: self.context.template_for(target).await,
        };
        let result = migration.run().await;
        match result {
            // What was committed before the second interrupt stays applied.
            Ok(Some(Skipped::Interrupted)) if !migration.committed.is_empty() => {
                Ok(JobSuccess::Migrated(migration.committed))
            }
            Ok(Some(why)) => Ok(JobSuccess::Skipped(why)),
            Ok(None) if migration.committed.is_empty() => Ok(JobSuccess::UpToDate),
            Ok(None) => Ok(JobSuccess::Migrated(migration.committed)),
            Err(error) => Err(JobFailure { error, applied: migration.committed }),
        }
    }

    fn group_limit(&self) -> GroupLimit {
        let Context { options, mode, ledger, sample, .. } = &*self.context;
        let never = options.route == Route::Pooled
            || options.atomic == Atomic::Migration
            || !matches!(mode, Mode::Apply)
            || ledger.is_disabled();
        if never || !sample.is_recorded() {
            return GroupLimit::ONE;
        }
        options.group_limit
    }

    async fn run_group(
        &self,
        members: &[GroupMember],
        interrupts: Interrupts,
    ) -> Option<Vec<JobResult>> {
        group::migrate(&self.context, members, interrupts).await
    }
}

impl PostgresMigrator {
    /// Returns a migrator for the schemas of `database`.
    pub fn new(
        database: Database,
        options: EngineOptions,
        shared: Arc<MigrationSet>,
        tenant: Arc<MigrationSet>,
    ) -> Self {
        let context = Context {
            direct: database.clone(),
            database,
            options,
            shared,
            tenant,
            mode: Mode::default(),
            bookkeeping: Arc::default(),
            ledger: Arc::default(),
            session_cache: Arc::default(),
            templates: Arc::default(),
            last_was_new: Arc::default(),
            sample: Arc::default(),
            boundaries: Arc::default(),
        };
        Self { context: Arc::new(context) }
    }

    /// Sets what is done with pending files. Default: [`Mode::Apply`].
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        Arc::make_mut(&mut self.context).mode = mode;
        self
    }

    /// Makes surveys record in the ledger what they read from histories. Default: a survey only reads.
    #[must_use]
    pub fn recording_surveyed(mut self) -> Self {
        Arc::make_mut(&mut self.context).ledger = Arc::new(LedgerState::recording_surveyed());
        self
    }

    /// Sets the database for files that run without a transaction. Default: the migrator's own. It must
    /// be the same one, reached without a pooler.
    #[must_use]
    pub fn with_direct(mut self, direct: Database) -> Self {
        Arc::make_mut(&mut self.context).direct = direct;
        self
    }

    /// Starts the record of a run; returns `None` if the bookkeeping tables cannot be used.
    pub async fn begin_run(&self, header: &RunHeader) -> Option<RunLog> {
        self.context.bookkeeping().await.ok()?;
        RunLog::begin(&self.context.database, header).await
    }

    /// Returns the database that it migrates.
    pub fn database(&self) -> &Database {
        &self.context.database
    }

    /// Makes a stored template be used for the schema that is migrated next.
    pub(crate) fn expect_new_schema(&self) {
        self.context.templates.expect(1);
    }

    /// Returns the migrations of tenants.
    pub(crate) fn tenant_set(&self) -> &MigrationSet {
        &self.context.tenant
    }

    /// Returns the options of the engine.
    pub fn options(&self) -> &EngineOptions {
        &self.context.options
    }

    /// Returns what is done with pending files.
    pub fn mode(&self) -> &Mode {
        &self.context.mode
    }

    /// Returns the digests of both sets of files.
    pub fn files(&self) -> String {
        let ids = |scope| self.context.set(scope).ids();
        let digest = |scope| of_prefixes(ids(scope)).pop().unwrap_or_default();
        format!("{}/{}", digest(Scope::Shared), digest(Scope::Tenant))
    }

    /// Returns the statements that migrate a schema according to `plan`, without locks and checks, as a
    /// psql script.
    pub fn preview(&self, target: &Target, plan: &Plan) -> String {
        sql_preview::preview(&self.context, target, plan)
    }

    /// Reads every history and compares it with the ledger. Changes nothing.
    ///
    /// # Errors
    ///
    /// Errors of the connection and of the catalog; an unreadable history is a state.
    pub async fn verify(
        &self,
        targets: &[Arc<Target>],
    ) -> Result<status::LedgerCheck, MigrateError> {
        status::verify(&self.context, targets).await
    }

    /// Rewrites the ledger from the histories, and returns how many schemas it covers then. Schemas that
    /// another run is migrating are left to that run.
    pub async fn rebuild_ledger(&self, targets: &[Arc<Target>]) -> Result<usize, MigrateError> {
        status::rebuild_ledger(&self.context, targets).await
    }

    /// Returns the tables and columns that the files up to a version create, or why that cannot be
    /// determined. They run in a scratch schema whose transaction is rolled back.
    pub async fn baseline_of(
        &self,
        scope: Scope,
        version: i64,
    ) -> Result<Result<Baseline, String>, ServerError> {
        let set = self.context.set(scope);
        baseline::of_files(&self.context.database, &self.context.options, set, version).await
    }

    /// Returns the tables and columns of the baseline that a schema lacks. Changes nothing.
    pub async fn lacks(
        &self,
        schema: &SchemaName,
        baseline: &Baseline,
    ) -> Result<Vec<String>, ServerError> {
        let Context { database, options, .. } = &*self.context;
        baseline.missing_in(database, schema, &options.history_table).await
    }
}
