//! Brings schemas of one database to the goal, and tells how far from it they are.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OnceCell;
use tokio_postgres::Error;

use super::baseline::Baseline;
use super::dry_run::DryRun;
use super::group::{self, Sample};
use super::schema::SchemaMigration;
use super::template::{self, Template, Templates};
use crate::domain::digest::of_prefixes;
use crate::domain::plan::{Goal, Plan};
use crate::domain::run_options::{Atomic, GroupLimit};
use crate::domain::schema_state::SchemaState;
use crate::domain::script::{DefinedIn, Scope};
use crate::domain::target::Target;
use crate::migrations::{MigrationSet, Script, Transaction, find_definition};
use crate::postgres::bookkeeping;
use crate::postgres::bookkeeping::run_log::{RunHeader, RunLog};
use crate::postgres::connection::database::{Database, Route};
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error;
use crate::postgres::connection::session_cache::SessionCache;
use crate::postgres::transaction::batch;
use crate::postgres::transaction::history;
use crate::postgres::transaction::settings::{self, SettingScope};
use crate::service::event::{EventKind, Progress, Skipped};
use crate::service::failure::MigrateError;
use crate::service::fleet::{
    GroupMember, Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob, SchemaMigrator,
};

/// What a migrator does with pending files.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// Runs them.
    #[default]
    Apply,
    /// Records them in the history without running them.
    Fake,
    /// Records them in the history of schemas that have none and whose structure matches.
    Baseline(Arc<Baseline>),
    /// Runs them statement by statement, notes what each statement did, and rolls back. Files that
    /// run without a transaction are left out.
    DryRun(Arc<DryRun>),
}

impl Mode {
    /// Returns whether files are only recorded.
    #[must_use]
    pub fn only_records(&self) -> bool {
        matches!(self, Self::Fake | Self::Baseline(_))
    }
}

/// Migrates schemas of one database.
#[derive(Clone, Debug)]
pub struct PostgresMigrator {
    pub(crate) database: Database,
    /// Past a pooler, for work that needs a session; the same as `database` where there is none.
    pub(crate) direct: Database,
    pub(crate) options: EngineOptions,
    shared: Arc<MigrationSet>,
    tenant: Arc<MigrationSet>,
    /// Whether our own tables are known to be there; asked for once in a run.
    bookkeeping: Arc<OnceCell<()>>,
    /// What is known of the ledger.
    pub(crate) ledger: Arc<LedgerUse>,
    /// Connections kept from one schema to the next.
    pub(crate) session_cache: Arc<SessionCache>,
    /// What fills empty schemas in this run.
    pub(crate) templates: Arc<Templates>,
    /// Whether the last schema that was opened was without a history: so is the next, most likely.
    pub(crate) last_was_new: Arc<AtomicBool>,
    /// What may be tried in several schemas at once.
    pub(crate) sample: Arc<Sample>,
    /// What is done with pending files.
    pub(crate) mode: Mode,
}

/// Whether the ledger is written, found out once in a run.
#[derive(Debug, Default)]
pub(crate) struct LedgerUse {
    can_be: OnceCell<bool>,
    given_up: AtomicBool,
    /// Whether schemas that it does not answer for are taken up when they are surveyed.
    pub(crate) takes_up: bool,
}

impl SchemaMigrator for PostgresMigrator {
    async fn survey(&self, targets: &[Arc<Target>]) -> Result<Vec<SchemaState>, MigrateError> {
        self.look(targets).await
    }
}

impl SchemaJob for PostgresMigrator {
    async fn run(&self, target: &Target, progress: &Progress, interrupts: Interrupts) -> JobResult {
        let mut migration = SchemaMigration {
            migrator: self,
            target,
            progress,
            interrupts,
            committed: Vec::new(),
            expect_history: !self.last_was_new.load(Ordering::Relaxed),
            attempt: 1,
            in_doubt: Vec::new(),
            keeps_ledger: false,
            template: self.template_for(target).await,
        };
        let result = migration.run().await;
        match result {
            // What was committed before, or while the second interrupt came, stays applied.
            Ok(Some(Skipped::Interrupted)) if !migration.committed.is_empty() => {
                Ok(JobSuccess::Migrated(migration.committed))
            }
            Ok(Some(why)) => Ok(JobSuccess::Skipped(why)),
            Ok(None) if migration.committed.is_empty() => Ok(JobSuccess::UpToDate),
            Ok(None) => Ok(JobSuccess::Migrated(migration.committed)),
            Err(error) => Err(JobFailure {
                error,
                applied: migration.committed,
            }),
        }
    }

    fn group_limit(&self) -> GroupLimit {
        let options = &self.options;
        let never = options.route == Route::Pooled
            || options.atomic == Atomic::Migration
            || !matches!(self.mode, Mode::Apply)
            || self.ledger.given_up.load(Ordering::Relaxed);
        if never || !self.sample.is_set() {
            return GroupLimit::ONE;
        }
        options.group_limit
    }

    async fn run_group(
        &self,
        members: &[GroupMember],
        interrupts: Interrupts,
    ) -> Option<Vec<JobResult>> {
        group::migrate(self, members, interrupts).await
    }
}

impl PostgresMigrator {
    /// Returns a migrator for the schemas of `database`.
    #[must_use]
    pub fn new(
        database: Database,
        options: EngineOptions,
        shared: Arc<MigrationSet>,
        tenant: Arc<MigrationSet>,
    ) -> Self {
        Self {
            direct: database.clone(),
            database,
            options,
            shared,
            tenant,
            bookkeeping: Arc::default(),
            ledger: Arc::default(),
            session_cache: Arc::default(),
            templates: Arc::default(),
            last_was_new: Arc::default(),
            sample: Arc::default(),
            mode: Mode::default(),
        }
    }

    /// Sets what is done with pending files. Default: [`Mode::Apply`].
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Has surveys note in the ledger what they had to read from histories: for a run that
    /// changes something anyway. Without it a survey only reads.
    #[must_use]
    pub fn taking_up(mut self) -> Self {
        self.ledger = Arc::new(LedgerUse {
            takes_up: true,
            ..LedgerUse::default()
        });
        self
    }

    /// Makes sure that our own tables are there.
    pub(crate) async fn bookkeeping(&self) -> Result<(), MigrateError> {
        let ensure = || bookkeeping::ensure(&self.database, &self.options);
        self.bookkeeping.get_or_try_init(ensure).await.copied()
    }

    /// Begins to store a run; returns nothing where the bookkeeping tables cannot be used.
    pub async fn begin_run(&self, header: &RunHeader) -> Option<RunLog> {
        self.bookkeeping().await.ok()?;
        RunLog::begin(&self.database, header).await
    }

    /// Returns whether what is committed can be noted in the ledger, and makes it where it is
    /// missing. A role that may not goes without: everything works from the histories too.
    pub(crate) async fn keeps_ledger(&self, progress: &Progress) -> bool {
        // Our own schema and schemas that are not listed yet are nobody's fleet.
        if self.ledger.given_up.load(Ordering::Relaxed) {
            return false;
        }
        let find_out = || async {
            let ready = self.bookkeeping().await;
            if let Err(MigrateError::Database { error, .. }) = &ready {
                progress.send(EventKind::Notice {
                    severity: "WARNING".to_owned(),
                    message: format!("this run keeps no ledger: {error}"),
                });
            }
            ready.is_ok()
        };
        *self.ledger.can_be.get_or_init(find_out).await
    }

    /// Returns the database it works on.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Returns how it migrates.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Returns what tells one state of the files from another: the digests of both sets.
    #[must_use]
    pub fn files(&self) -> String {
        let digest = |scope| of_prefixes(self.set(scope).ids()).pop().unwrap_or_default();
        format!("{}/{}", digest(Scope::Shared), digest(Scope::Tenant))
    }

    /// Returns what is done with pending files.
    #[must_use]
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Returns whether the transaction of a target must stay inside its schema.
    pub(crate) fn guards(&self, target: &Target) -> bool {
        target.scope == Scope::Tenant && !self.mode.only_records()
    }

    /// Goes on without the ledger.
    pub(crate) fn give_up_ledger(&self) {
        self.ledger.given_up.store(true, Ordering::Relaxed);
    }

    /// Takes sessions for files that run without a transaction from another way to the same database.
    #[must_use]
    pub fn with_direct(mut self, direct: Database) -> Self {
        self.direct = direct;
        self
    }

    /// Returns the SQL that bringing a schema from `plan` to the goal would send, without
    /// the questions in between; psql can run it.
    #[must_use]
    pub fn preview(&self, target: &Target, plan: &Plan) -> String {
        let (set, table) = (self.set(target.scope), &self.options.history_table);
        let mut sql = String::new();
        let mut open = false;
        for (position, &index) in plan.pending.iter().enumerate() {
            let script = &set.scripts()[index];
            let inside = script.transaction == Transaction::Inside || self.mode.only_records();
            if open && (!inside || self.options.atomic == Atomic::Migration) {
                sql.push_str("COMMIT;\n\n");
                open = false;
            }
            if inside && !open {
                let begin = settings::begin(&self.options, target).replace("; ", ";\n");
                let _ = write!(
                    sql,
                    "-- schema {}\n{begin}",
                    target.schema.to_string().escape_debug()
                );
                open = true;
            }
            if !inside {
                let settings = settings::settings(&self.options, target, SettingScope::Session)
                    .replace("; ", ";\n");
                let _ = write!(
                    sql,
                    "-- schema {}, without a transaction\n{settings}",
                    target.schema.to_string().escape_debug()
                );
            }
            if position == 0 && plan.version.is_none() {
                if inside {
                    let _ = writeln!(sql, "{};", history::NO_PARALLEL_BUILD);
                }
                let _ = writeln!(sql, "{}", history::create_table(&target.schema, table));
            }
            let _ = writeln!(
                sql,
                "\n-- {}\n{};\n",
                script.path.display(),
                batch::claim(&target.schema, table, script, batch::NOW)
            );
            if !self.mode.only_records() {
                let text = script.text.trim_end();
                let end = if text.ends_with(';') { "" } else { "\n;" };
                let _ = writeln!(sql, "{text}{end}\n");
            }
        }
        if open {
            sql.push_str("COMMIT;\n\n");
        }
        sql
    }

    /// Returns the template for a target, should its schema turn out to be empty.
    async fn template_for(&self, target: &Target) -> Option<&Template> {
        let options = &self.options;
        let wanted = options.templates
            && target.scope == Scope::Tenant
            && options.goal == Goal::Latest
            && options.atomic == Atomic::Schema
            && matches!(self.mode, Mode::Apply);
        if !wanted {
            return None;
        }
        let scripts = template::in_one_transaction(&self.tenant);
        self.templates.get(&self.database, options, &scripts).await
    }

    /// Returns which file defines the relation that a script did not find.
    pub(crate) fn find_definition(
        &self,
        target: &Target,
        error: &Error,
        script: &Script,
        together: &[&Script],
    ) -> Option<Box<DefinedIn>> {
        let relation = server_error::missing_relation(error, target.schema.as_str())?;
        let sets = (&*self.shared, &*self.tenant);
        find_definition(relation, script, together, sets, target.scope).map(Box::new)
    }

    pub(crate) fn set(&self, scope: Scope) -> &MigrationSet {
        match scope {
            Scope::Shared => &self.shared,
            Scope::Tenant => &self.tenant,
        }
    }
}
