//! Brings schemas of one database to the goal, and tells how far from it they are.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::Error;

use super::bookkeeping;
use super::catalog::quoted;
use super::diagnostics::server_error;
use super::histories::{Found, read_all};
use super::journey::Journey;
use super::ledger::{self, Believed};
use super::pool::{AtHand, Database, Session};
use super::runner::{self};
use super::template::{self, Template, Templates};
use super::transaction::{self, Reach};
use crate::domain::digest::{of_history, of_prefixes};
use crate::domain::plan::{Applied, Atomic, Goal, Plan, SchemaState};
use crate::domain::schema_name::SchemaName;
use crate::domain::script::{Scope, ScriptId};
use crate::migrations::MigrationSet;
use crate::migrations::Transaction;
use crate::service::event::{EventKind, MigrateError, Progress, Target};
use crate::service::fleet::{Done, Failed, Interrupts, SchemaMigrator};
use crate::settings::TableName;

/// How long a server that went away is waited for before its schema is given up.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

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
    /// What follows the tenant in `search_path`.
    pub search_path: Vec<SchemaName>,
    /// Name of the history table in every schema.
    pub history_table: String,
    /// The tenant table, quoted for SQL.
    pub tenant_table: String,
    /// Whether schemas need no row in the tenant table: they are pricesync's own, or not inserted yet.
    pub unlisted: bool,
    /// Whether an empty schema may be filled by a template.
    pub templates: bool,
    /// `server_version_num` of the server.
    pub server_version: u32,
}

impl Rules {
    /// Returns the documented defaults for a database whose tenants stand in this table.
    #[must_use]
    pub fn new(database: &Database, tenant_table: &TableName) -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::ZERO,
            lock_retries: 5,
            lock_wait: Duration::from_mins(1),
            atomic: Atomic::Schema,
            goal: Goal::Latest,
            fake: false,
            search_path: vec![SchemaName::public()],
            history_table: "refinery_schema_history".to_owned(),
            tenant_table: quoted(tenant_table),
            unlisted: false,
            templates: true,
            server_version: database.facts().version,
        }
    }

    /// Returns whether the transaction of a target must stay inside its schema.
    #[must_use]
    pub(super) fn guards(&self, target: &Target) -> bool {
        target.scope == Scope::Tenant && !self.fake
    }
}

/// Migrates schemas of one database.
#[derive(Clone, Debug)]
pub struct PostgresMigrator {
    pub(super) database: Database,
    /// Past a pooler, for work that needs a session; the same as `database` where there is none.
    pub(super) direct: Database,
    pub(super) rules: Rules,
    shared: Arc<MigrationSet>,
    tenant: Arc<MigrationSet>,
    /// Whether our own tables are known to be there; asked for once in a run.
    bookkeeping: Arc<OnceCell<()>>,
    /// What is known of the ledger.
    ledger: Arc<LedgerUse>,
    /// Connections kept from one schema to the next.
    pub(super) at_hand: Arc<AtHand>,
    /// What fills empty schemas in this run.
    pub(super) templates: Arc<Templates>,
    /// Whether the last schema that was opened was without a history: so is the next, most likely.
    pub(super) last_was_new: Arc<AtomicBool>,
}

/// Whether the ledger is written, found out once in a run.
#[derive(Debug, Default)]
struct LedgerUse {
    can_be: OnceCell<bool>,
    given_up: AtomicBool,
    /// Whether schemas that it does not answer for are taken up when they are surveyed.
    takes_up: bool,
}

impl SchemaMigrator for PostgresMigrator {
    async fn survey(&self, targets: &[Arc<Target>]) -> Result<Vec<SchemaState>, MigrateError> {
        let session = self.surveying_session().await?;
        self.survey_with(&session, targets)
            .await
            .map_err(|error| surveying_failed(&error))
    }

    async fn migrate(
        &self,
        target: &Target,
        progress: &Progress,
        interrupts: Interrupts,
    ) -> Result<Done, Failed> {
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
            Ok(Some(why)) => Ok(Done::Skipped(why)),
            Ok(None) if journey.committed.is_empty() => Ok(Done::UpToDate),
            Ok(None) => Ok(Done::Migrated(journey.committed)),
            Err(error) => Err(Failed {
                error,
                applied: journey.committed,
            }),
        }
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
            at_hand: Arc::default(),
            templates: Arc::default(),
            last_was_new: Arc::default(),
        }
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
    pub(super) async fn bookkeeping(&self) -> Result<(), MigrateError> {
        let ensure = || bookkeeping::ensure(&self.database, &self.rules);
        self.bookkeeping.get_or_try_init(ensure).await.copied()
    }

    /// Returns whether what is committed can be noted in the ledger, and makes it where it is
    /// missing. A role that may not goes without: everything works from the histories too.
    pub(super) async fn keeps_ledger(&self, progress: &Progress) -> bool {
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

    /// Returns what tells one state of the files from another: the digests of both sets.
    #[must_use]
    pub fn files(&self) -> String {
        let digest = |scope| of_prefixes(self.set(scope).ids()).pop().unwrap_or_default();
        format!("{}/{}", digest(Scope::Shared), digest(Scope::Tenant))
    }

    /// Goes on without the ledger.
    pub(super) fn give_up_ledger(&self) {
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
                let begin = transaction::begin(&self.rules, target).replace("; ", ";\n");
                let _ = write!(
                    sql,
                    "-- schema {}\n{begin}",
                    target.schema.to_string().escape_debug()
                );
                open = true;
            }
            if !inside {
                let settings =
                    transaction::settings(&self.rules, target, Reach::Session).replace("; ", ";\n");
                let _ = write!(
                    sql,
                    "-- schema {}, without a transaction\n{settings}",
                    target.schema.to_string().escape_debug()
                );
            }
            if position == 0 && plan.version.is_none() {
                if inside {
                    let _ = writeln!(sql, "{};", runner::ALONE);
                }
                let _ = writeln!(sql, "{}", runner::create_history(&target.schema, table));
            }
            let _ = writeln!(
                sql,
                "\n-- {}\n{};\n",
                script.path.display(),
                transaction::claim(&target.schema, table, script)
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

    /// Believes the ledger where it may be believed, and reads the history of one schema for
    /// each digest that the files do not explain; all others are read one by one.
    async fn survey_with(
        &self,
        session: &Session,
        targets: &[Arc<Target>],
    ) -> Result<Vec<SchemaState>, Error> {
        let table = &self.rules.history_table;
        let believed = if self.rules.unlisted {
            Believed::new()
        } else {
            ledger::read(session, table).await?
        };
        let mut answers = self.explained();
        let mut states: Vec<Option<SchemaState>> = Vec::with_capacity(targets.len());
        let mut afresh: Vec<usize> = Vec::new();
        let mut unexplained: Vec<(usize, Answer)> = Vec::new();
        for (position, target) in targets.iter().enumerate() {
            let digest = believed.get(target.schema.as_str()).cloned();
            let answer = digest.map(|digest| (target.scope, digest));
            let state = answer
                .as_ref()
                .and_then(|answer| answers.get(answer))
                .cloned();
            if state.is_none() {
                match answer {
                    Some(answer) => unexplained.push((position, answer)),
                    None => afresh.push(position),
                }
            }
            states.push(state);
        }
        let mut asked: HashSet<&Answer> = HashSet::new();
        let samples = unexplained
            .iter()
            .filter(|(_, answer)| asked.insert(answer));
        let samples: Vec<usize> = samples.map(|(position, _)| *position).collect();
        for (position, found) in self.read(session, targets, &samples).await? {
            let digest = match &found {
                Found::Schema(Ok(rows)) => of_history(rows),
                _ => String::new(),
            };
            let state = self.judge(found, &targets[position]);
            // A sample stands for the others only where its history is what the ledger says.
            answers.insert((targets[position].scope, Arc::from(digest)), state.clone());
            states[position] = Some(state);
        }
        for (position, answer) in unexplained {
            if states[position].is_none() {
                states[position] = answers.get(&answer).cloned();
                if states[position].is_none() {
                    afresh.push(position);
                }
            }
        }
        let mut to_take_up = Vec::new();
        for (position, found) in self.read(session, targets, &afresh).await? {
            if matches!(&found, Found::Schema(Ok(rows)) if !rows.is_empty()) {
                to_take_up.push(&targets[position].schema);
            }
            states[position] = Some(self.judge(found, &targets[position]));
        }
        if self.ledger.takes_up && !to_take_up.is_empty() {
            let (silent, _) = Progress::channel();
            if self.keeps_ledger(&silent).await {
                // Without it the next run reads the histories again, and that is all.
                let _ = ledger::take_up(session, &to_take_up, table).await;
            }
        }
        let states: Vec<SchemaState> = states.into_iter().flatten().collect();
        let is_new = |(state, target): &(&SchemaState, &Arc<Target>)| {
            target.scope == Scope::Tenant
                && matches!(state, SchemaState::Known(plan) if plan.version.is_none() && !plan.pending.is_empty())
        };
        self.templates
            .expect(states.iter().zip(targets).filter(is_new).count());
        Ok(states)
    }

    /// Reads every history, whatever the ledger says, and compares the two. Changes nothing.
    ///
    /// # Errors
    ///
    /// What concerns all: the connection, the catalog.
    pub async fn verify(&self, targets: &[Arc<Target>]) -> Result<Verified, MigrateError> {
        let session = self.surveying_session().await?;
        let failed = |error: Error| surveying_failed(&error);
        let table = &self.rules.history_table;
        let believed = ledger::read(&session, table).await.map_err(failed)?;
        let all: Vec<usize> = (0..targets.len()).collect();
        let mut verified = Verified::default();
        for (position, found) in self.read(&session, targets, &all).await.map_err(failed)? {
            let says = believed.get(targets[position].schema.as_str());
            let is_so = match &found {
                Found::Schema(Ok(rows)) => says.is_none_or(|says| **says == *of_history(rows)),
                _ => says.is_none(),
            };
            if !is_so {
                verified.disagreeing.push(position);
            }
            verified.states.push(self.judge(found, &targets[position]));
        }
        Ok(verified)
    }

    /// Writes the ledger anew from the histories, and returns how many schemas it answers for
    /// then. A schema that another run is working on is left to that run.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn rebuild_ledger(&self, targets: &[Arc<Target>]) -> Result<usize, MigrateError> {
        self.bookkeeping().await?;
        let session = self.surveying_session().await?;
        let failed = |error: Error| surveying_failed(&error);
        let table = &self.rules.history_table;
        ledger::forget_the_unbelieved(&session, table)
            .await
            .map_err(failed)?;
        let schemas: Vec<&SchemaName> = targets.iter().map(|target| &target.schema).collect();
        ledger::take_up(&session, &schemas, table)
            .await
            .map_err(failed)
    }

    async fn surveying_session(&self) -> Result<Session, MigrateError> {
        let session = self.database.session(PATIENCE).await;
        session.map_err(|error| MigrateError::Unknown {
            doing: SURVEYING.to_owned(),
            error,
        })
    }

    async fn read(
        &self,
        session: &Session,
        targets: &[Arc<Target>],
        positions: &[usize],
    ) -> Result<Vec<(usize, Found)>, Error> {
        let schemas: Vec<&SchemaName> = positions
            .iter()
            .map(|&position| &targets[position].schema)
            .collect();
        let found = read_all(session, &schemas, &self.rules.history_table).await?;
        Ok(positions.iter().copied().zip(found).collect())
    }

    /// What the files say about the digests of schemas in which the first so many are applied.
    fn explained(&self) -> HashMap<Answer, SchemaState> {
        let mut answers = HashMap::new();
        for scope in [Scope::Shared, Scope::Tenant] {
            let ids = self.set(scope).ids();
            for (applied, digest) in of_prefixes(ids).into_iter().enumerate() {
                let rows: Vec<Applied> = ids[..applied].iter().map(ScriptId::claimed).collect();
                answers.insert((scope, Arc::from(digest)), self.compare(&rows, scope));
            }
        }
        answers
    }

    /// Returns the template for a target, should its schema turn out to be empty.
    async fn template_for(&self, target: &Target) -> Option<&Template> {
        let rules = &self.rules;
        let wanted = rules.templates
            && target.scope == Scope::Tenant
            && !rules.fake
            && rules.goal == Goal::Latest
            && rules.atomic == Atomic::Schema;
        if !wanted {
            return None;
        }
        let scripts = template::together(&self.tenant);
        self.templates.get(&self.database, rules, &scripts).await
    }

    pub(super) fn set(&self, scope: Scope) -> &MigrationSet {
        match scope {
            Scope::Shared => &self.shared,
            Scope::Tenant => &self.tenant,
        }
    }

    fn judge(&self, found: Found, target: &Target) -> SchemaState {
        match found {
            Found::NoSchema => SchemaState::Missing,
            Found::Schema(Err(why)) => SchemaState::Damaged(why),
            Found::Schema(Ok(rows)) => self.compare(&rows, target.scope),
        }
    }

    fn compare(&self, rows: &[Applied], scope: Scope) -> SchemaState {
        match Plan::compare(self.set(scope).ids(), rows, self.rules.goal) {
            Ok(plan) => SchemaState::Known(plan),
            Err(drifts) => SchemaState::Drifted(drifts, rows.iter().map(|row| row.version).max()),
        }
    }
}

/// A digest, and the set that it is compared with.
type Answer = (Scope, Arc<str>);

/// What every history says, and where the ledger says something else.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// The states, from the histories, in the order of the targets.
    pub states: Vec<SchemaState>,
    /// Positions of the targets about which the ledger is wrong.
    pub disagreeing: Vec<usize>,
}

const SURVEYING: &str = "reading the histories";

fn surveying_failed(error: &Error) -> MigrateError {
    MigrateError::Database {
        doing: SURVEYING.to_owned(),
        error: server_error(error),
    }
}
