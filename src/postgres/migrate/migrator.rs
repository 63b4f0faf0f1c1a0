//! Brings schemas of one database to the goal, and tells how far from it they are.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::Error;

use super::baseline::Baseline;
use super::dry_run::Rehearsal;
use super::group::{self, Example};
use super::refinery::{self};
use super::schema::Journey;
use super::template::{self, Template, Templates};
use crate::domain::digest::of_prefixes;
use crate::domain::plan::{Goal, Plan};
use crate::domain::run_options::{Atomic, GroupLimit};
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::SchemaState;
use crate::domain::script::{DefinedIn, Scope};
use crate::domain::target::Target;
use crate::migrations::{MigrationSet, Script, Transaction, maker_of};
use crate::postgres::bookkeeping;
use crate::postgres::connection::database::{Database, Route};
use crate::postgres::connection::options::References;
use crate::postgres::connection::server_error;
use crate::postgres::connection::session_cache::SessionCache;
use crate::postgres::tenants::catalog_sql::Tables;
use crate::postgres::transaction::batch;
use crate::postgres::transaction::open::{self, Reach};
use crate::service::event::{EventKind, Progress, Skipped};
use crate::service::failure::MigrateError;
use crate::service::fleet::{
    GroupMember, Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob, SchemaMigrator,
};
use crate::settings::CatalogLayout;

/// How schemas are migrated: the settings that the engine needs, resolved.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long a statement waits for a lock; zero waits for ever.
    pub lock_timeout: Duration,
    /// How long a statement may run; zero is for ever.
    pub statement_timeout: Duration,
    /// How often a transaction that met a lock or a deadlock is run again.
    pub lock_retries: u32,
    /// How long to wait for a schema that another run holds.
    pub lock_wait: Duration,
    /// Whether all pending files of a schema are one transaction.
    pub atomic: Atomic,
    /// How far to go.
    pub goal: Goal,
    /// Whether histories are written and nothing is run.
    pub fake: bool,
    /// Which schemas may get a history that is written and not run: those without one that hold this.
    pub baseline: Option<Arc<Baseline>>,
    /// What follows the tenant in `search_path`.
    pub search_path: Vec<SchemaName>,
    /// Which shared tables the keys of tenants may point to.
    pub references: References,
    /// Name of the history table in every schema.
    pub history_table: String,
    /// The tenants, as they stand in a query.
    pub tenants: String,
    /// Whether schemas need no row in the tenant table: they are pricesync's own, or not inserted yet.
    pub unlisted: bool,
    /// Whether an empty schema may be filled by a template.
    pub templates: bool,
    /// Which schemas share a transaction, where each takes next to no time.
    pub group_limit: GroupLimit,
    /// `server_version_num` of the server.
    pub server_version: u32,
    /// What stands between us and the server.
    pub route: Route,
}

impl Rules {
    /// Returns the documented defaults for a database whose tenants stand in these tables.
    #[must_use]
    pub fn new(database: &Database, layout: &CatalogLayout) -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::ZERO,
            lock_retries: 5,
            lock_wait: Duration::from_mins(1),
            atomic: Atomic::Schema,
            goal: Goal::Latest,
            fake: false,
            baseline: None,
            search_path: vec![SchemaName::public()],
            references: References::default(),
            history_table: "refinery_schema_history".to_owned(),
            tenants: Tables::new(layout).rows,
            unlisted: false,
            templates: true,
            group_limit: GroupLimit {
                schemas: 16,
                time: Duration::from_millis(50),
            },
            server_version: database.facts().version,
            route: database.facts().route,
        }
    }

    /// Returns whether the transaction of a target must stay inside its schema.
    #[must_use]
    pub(crate) fn guards(&self, target: &Target) -> bool {
        target.scope == Scope::Tenant && !self.fake
    }
}

/// Migrates schemas of one database.
#[derive(Clone, Debug)]
pub struct PostgresMigrator {
    pub(crate) database: Database,
    /// Past a pooler, for work that needs a session; the same as `database` where there is none.
    pub(crate) direct: Database,
    pub(crate) rules: Rules,
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
    pub(crate) example: Arc<Example>,
    /// Where what is tried is kept; everything is rolled back then.
    pub(crate) rehearsal: Option<Arc<Rehearsal>>,
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
        let mut journey = Journey {
            migrator: self,
            target,
            progress,
            interrupts,
            committed: Vec::new(),
            expect_history: !self.last_was_new.load(Ordering::Relaxed),
            attempt: 0,
            keeps_ledger: false,
            template: self.template_for(target).await,
        };
        let result = journey.travel().await;
        match result {
            // What was committed before, or while the second interrupt came, stays applied.
            Ok(Some(Skipped::Interrupted)) if !journey.committed.is_empty() => {
                Ok(JobSuccess::Migrated(journey.committed))
            }
            Ok(Some(why)) => Ok(JobSuccess::Skipped(why)),
            Ok(None) if journey.committed.is_empty() => Ok(JobSuccess::UpToDate),
            Ok(None) => Ok(JobSuccess::Migrated(journey.committed)),
            Err(error) => Err(JobFailure {
                error,
                applied: journey.committed,
            }),
        }
    }

    fn group_limit(&self) -> GroupLimit {
        let rules = &self.rules;
        let never = rules.route == Route::Pooled
            || rules.atomic == Atomic::Migration
            || rules.fake
            || rules.baseline.is_some()
            || self.rehearsal.is_some()
            || self.ledger.given_up.load(Ordering::Relaxed);
        if never || !self.example.is_set() {
            return GroupLimit::ONE;
        }
        rules.group_limit
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
        rules: Rules,
        shared: Arc<MigrationSet>,
        tenant: Arc<MigrationSet>,
    ) -> Self {
        Self {
            direct: database.clone(),
            database,
            rules,
            shared,
            tenant,
            bookkeeping: Arc::default(),
            ledger: Arc::default(),
            session_cache: Arc::default(),
            templates: Arc::default(),
            last_was_new: Arc::default(),
            example: Arc::default(),
            rehearsal: None,
        }
    }

    /// Tries what is pending statement by statement and rolls it back, noting in `rehearsal` what
    /// each statement did. Files that run without a transaction are not run.
    #[must_use]
    pub fn rehearsing(mut self, rehearsal: Arc<Rehearsal>) -> Self {
        self.rehearsal = Some(rehearsal);
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
        let ensure = || bookkeeping::ensure(&self.database, &self.rules);
        self.bookkeeping.get_or_try_init(ensure).await.copied()
    }

    /// Returns whether what is committed can be noted in the ledger, and makes it where it is
    /// missing. A role that may not goes without: everything works from the histories too.
    pub(crate) async fn keeps_ledger(&self, progress: &Progress) -> bool {
        // Our own schema and schemas that are not listed yet are nobody's fleet.
        if self.rules.unlisted || self.ledger.given_up.load(Ordering::Relaxed) {
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
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns what tells one state of the files from another: the digests of both sets.
    #[must_use]
    pub fn files(&self) -> String {
        let digest = |scope| of_prefixes(self.set(scope).ids()).pop().unwrap_or_default();
        format!("{}/{}", digest(Scope::Shared), digest(Scope::Tenant))
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
        let (set, table) = (self.set(target.scope), &self.rules.history_table);
        let mut sql = String::new();
        let mut open = false;
        for (position, &index) in plan.pending.iter().enumerate() {
            let script = &set.scripts()[index];
            let inside = script.transaction == Transaction::Inside || self.rules.fake;
            if open && (!inside || self.rules.atomic == Atomic::Migration) {
                sql.push_str("COMMIT;\n\n");
                open = false;
            }
            if inside && !open {
                let begin = open::begin(&self.rules, target).replace("; ", ";\n");
                let _ = write!(
                    sql,
                    "-- schema {}\n{begin}",
                    target.schema.to_string().escape_debug()
                );
                open = true;
            }
            if !inside {
                let settings =
                    open::settings(&self.rules, target, Reach::Session).replace("; ", ";\n");
                let _ = write!(
                    sql,
                    "-- schema {}, without a transaction\n{settings}",
                    target.schema.to_string().escape_debug()
                );
            }
            if position == 0 && plan.version.is_none() {
                if inside {
                    let _ = writeln!(sql, "{};", refinery::ALONE);
                }
                let _ = writeln!(sql, "{}", refinery::create_history(&target.schema, table));
            }
            let _ = writeln!(
                sql,
                "\n-- {}\n{};\n",
                script.path.display(),
                batch::claim(&target.schema, table, script, batch::NOW)
            );
            if !self.rules.fake {
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
        let rules = &self.rules;
        let wanted = rules.templates
            && target.scope == Scope::Tenant
            && !rules.fake
            && rules.goal == Goal::Latest
            && rules.atomic == Atomic::Schema
            && self.rehearsal.is_none();
        if !wanted {
            return None;
        }
        let scripts = template::together(&self.tenant);
        self.templates.get(&self.database, rules, &scripts).await
    }

    /// Returns which file makes the relation that a script did not find.
    pub(crate) fn maker(
        &self,
        target: &Target,
        error: &Error,
        script: &Script,
        together: &[&Script],
    ) -> Option<Box<DefinedIn>> {
        let relation = server_error::missing_relation(error, target.schema.as_str())?;
        let sets = (&*self.shared, &*self.tenant);
        maker_of(relation, script, together, sets, target.scope).map(Box::new)
    }

    pub(crate) fn set(&self, scope: Scope) -> &MigrationSet {
        match scope {
            Scope::Shared => &self.shared,
            Scope::Tenant => &self.tenant,
        }
    }
}
