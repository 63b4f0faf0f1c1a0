//! A dry run that executes: runs the pending scripts statement by statement, records locks and times, and
//! rolls back.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::ErrorPosition;

use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::{Location, ScriptRef};
use crate::domain::target::Target;
use crate::migrations::{Script, SentSql, wrap_in_do};
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::transaction::batch::{
    BatchError, CLOCK, NOW, claim, location_of_failure, nonce,
};
use crate::postgres::transaction::escape_guard::Findings;
use crate::postgres::transaction::file_end::{RUN_DEFERRED, file_end, may_defer, run_deferred};
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::history;
use crate::postgres::transaction::open::OpenTransaction;
use crate::postgres::transaction::settings::own_timeout;
use crate::service::event::{EventKind, Progress};

/// The statements of a dry run over all schemas. Needs a few bytes for each statement in each schema.
#[derive(Debug, Default)]
pub struct DryRun {
    statements: Mutex<BTreeMap<(bool, i64, usize), StatementReport>>,
    untried: Mutex<BTreeMap<(bool, i64), ScriptRef>>,
}

/// What one statement of a file did, over all schemas.
#[derive(Clone, Debug)]
pub struct StatementReport {
    /// The file.
    pub script: ScriptRef,
    /// Its path.
    pub file: String,
    /// Where the statement starts.
    pub place: Location,
    /// How long it took on the server in each schema; unsorted.
    pub times: Vec<Duration>,
    /// The longest of these times, and its schema.
    pub slowest: (Duration, SchemaName),
    /// The strongest lock that it newly took on each relation that existed before the transaction. The names
    /// of relations in the tenant's schema are unqualified.
    pub locks: BTreeMap<String, Lock>,
    /// Tables that it rewrote or truncated.
    pub rewritten: BTreeSet<String>,
}

/// Table lock modes, weakest first (manual section 13.3.1). ACCESS SHARE, which every query takes, is left
/// out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// `SELECT ... FOR UPDATE` and the like.
    RowShare,
    /// Changing rows.
    RowExclusive,
    /// `CREATE INDEX CONCURRENTLY`, `VALIDATE CONSTRAINT` and the like.
    ShareUpdateExclusive,
    /// `CREATE INDEX`; blocks writes.
    Share,
    /// `ADD FOREIGN KEY`, `CREATE TRIGGER`; blocks writes.
    ShareRowExclusive,
    /// Blocks writes and row locks.
    Exclusive,
    /// Blocks reads too.
    AccessExclusive,
}

impl Lock {
    fn parse(mode: &str) -> Option<Self> {
        Some(match mode {
            "RowShareLock" => Self::RowShare,
            "RowExclusiveLock" => Self::RowExclusive,
            "ShareUpdateExclusiveLock" => Self::ShareUpdateExclusive,
            "ShareLock" => Self::Share,
            "ShareRowExclusiveLock" => Self::ShareRowExclusive,
            "ExclusiveLock" => Self::Exclusive,
            "AccessExclusiveLock" => Self::AccessExclusive,
            _ => return None,
        })
    }

    /// Returns the mode as SQL's `LOCK TABLE` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }
}

/// What one statement did in one schema.
pub(crate) struct StatementEffect {
    script: usize,
    statement: usize,
    took: Duration,
    locks: Vec<(String, Lock)>,
    rewritten: Vec<String>,
}

impl DryRun {
    /// Returns all statements: shared files first, then those of tenants, each in order.
    pub fn statements(&self) -> Vec<StatementReport> {
        let statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        statements.values().cloned().collect()
    }

    /// Returns the pending files that were not tried in some schema, because they run without a
    /// transaction or after one that must be committed; in the order of [`Self::statements`].
    pub fn untried(&self) -> Vec<ScriptRef> {
        let untried = self.untried.lock().unwrap_or_else(PoisonError::into_inner);
        untried.values().cloned().collect()
    }

    pub(crate) fn leave_out(&self, target: &Target, scripts: &[&Script]) {
        let mut untried = self.untried.lock().unwrap_or_else(PoisonError::into_inner);
        untried.extend(scripts.iter().map(|script| {
            ((!target.schema.is_public(), script.id.version), script.id.reference())
        }));
    }

    pub(crate) fn add(&self, target: &Target, scripts: &[&Script], effects: Vec<StatementEffect>) {
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        for one in effects {
            let script = scripts[one.script];
            let key = (!target.schema.is_public(), script.id.version, one.statement);
            let all = statements.entry(key).or_insert_with(|| StatementReport {
                script: script.id.reference(),
                file: script.path.display().to_string(),
                place: script.location_of_statement(one.statement),
                times: Vec::new(),
                slowest: (one.took, target.schema.clone()),
                locks: BTreeMap::new(),
                rewritten: BTreeSet::new(),
            });
            all.times.push(one.took);
            if one.took > all.slowest.0 {
                all.slowest = (one.took, target.schema.clone());
            }
            for (table, lock) in one.locks {
                let strongest = all.locks.entry(table).or_insert(lock);
                *strongest = lock.max(*strongest);
            }
            all.rewritten.extend(one.rewritten);
        }
    }
}

/// The result of a dry run in one schema.
pub(crate) struct DryRunOutcome {
    pub(crate) applied: Vec<AppliedScript>,
    pub(crate) effects: Vec<StatementEffect>,
    pub(crate) findings: Findings,
}

/// Runs scripts in an open transaction, which the caller rolls back in any case.
pub(crate) async fn run(
    session: &Session,
    opened: &OpenTransaction,
    options: &EngineOptions,
    target: &Target,
    scripts: &[&Script],
    check: &FinalCheck,
    progress: &Progress,
) -> Result<DryRunOutcome, BatchError> {
    let (schema, table) = (&target.schema, &options.history_table);
    let mut snapshot = LockSnapshot::read(session, opened).await.map_err(BatchError::Internal)?;
    if !opened.has_history {
        let create =
            format!("{}; {}", history::NO_PARALLEL_BUILD, history::create_table(schema, table));
        session.rows(&create).await.map_err(BatchError::Internal)?;
    }
    let nonce = nonce();
    let mut applied = Vec::with_capacity(scripts.len());
    let mut effects = Vec::new();
    for (index, script) in scripts.iter().enumerate() {
        let reference = script.id.reference();
        progress.send(EventKind::ScriptStarted { script: reference.clone() });
        session.rows(&claim(schema, table, script, NOW)).await.map_err(BatchError::Internal)?;
        let mut whole = Duration::ZERO;
        for statement in timed_statements(script, options) {
            let before = format!("SELECT '{nonce}', {CLOCK}; ");
            let offset = before.chars().count();
            let sql = format!("{before}{}\n; SELECT '{nonce}', {CLOCK}", statement.sql(script));
            let rows = session
                .rows(&sql)
                .await
                .map_err(|error| statement.failure(script, index, offset, error))?;
            let took = time_between(&rows, &nonce);
            whole += took;
            let (locks, rewritten) =
                snapshot.update(session).await.map_err(BatchError::Internal)?;
            effects.push(StatementEffect {
                script: index,
                statement: statement.index,
                took,
                locks,
                rewritten,
            });
        }
        if index + 1 < scripts.len() && !script.only_defines() {
            let may_defer = may_defer(opened.has_history, scripts);
            let deferred = session.rows(&run_deferred(script, may_defer)).await;
            deferred.map_err(|error| BatchError::Script(index, None, error))?;
            check_identity(session, opened, index, "", check).await?;
            let end = file_end(options, target, may_defer);
            session.rows(&end).await.map_err(BatchError::Internal)?;
        }
        let script = AppliedScript { script: reference, took: whole };
        progress.send(EventKind::ScriptFinished { script: script.clone() });
        applied.push(script);
    }
    let findings = final_findings(session, opened, target, scripts, check).await?;
    Ok(DryRunOutcome { applied, effects, findings })
}

/// Runs deferred constraints and the final check.
async fn final_findings(
    session: &Session,
    opened: &OpenTransaction,
    target: &Target,
    scripts: &[&Script],
    check: &FinalCheck,
) -> Result<Findings, BatchError> {
    let last = scripts.len().saturating_sub(1);
    // Deferred constraints are checked at COMMIT, and a dry run has none.
    let deferred = session.rows(RUN_DEFERRED).await;
    deferred.map_err(|error| BatchError::Script(last, None, error))?;
    let unread = scripts.iter().any(|script| script.runs_code());
    let guard = check.column(opened, unread).map_or_else(String::new, |guard| format!(", {guard}"));
    let row = check_identity(session, opened, last, &guard, check).await?;
    let inspected = check.inspect(session, &target.schema, row.is_true(5), unread);
    Ok(inspected.await?.0)
}

/// Fails if the script with this index changed transaction, role or schema. Returns the row of the
/// query, whose last columns are `guard`.
async fn check_identity(
    session: &Session,
    opened: &OpenTransaction,
    script: usize,
    guard: &str,
    check: &FinalCheck,
) -> Result<Row, BatchError> {
    let sql = format!(
        "SELECT NULL, pg_current_xact_id(), current_user, session_user, current_schema(){guard}"
    );
    let rows = session.rows(&sql).await.map_err(|error| check.failure(error))?;
    rows.into_iter().next().filter(|row| opened.is_unchanged(row)).ok_or_else(|| {
        let why = "it ended the transaction that it ran in, or left its schema or role";
        BatchError::Identity(script, why.to_owned())
    })
}

/// A statement that is sent and timed on its own.
struct TimedStatement<'a> {
    index: usize,
    sent: SentSql<'a>,
}

/// Returns the statements of a script; a file that cannot be parsed is wrapped in one DO block.
fn timed_statements<'a>(script: &'a Script, options: &EngineOptions) -> Vec<TimedStatement<'a>> {
    let own = |timeout| own_timeout(options, timeout);
    if !script.is_parsed {
        return vec![TimedStatement { index: 0, sent: script.sent(own) }];
    }
    let statements = 0..script.statements.len();
    statements
        .map(|index| TimedStatement { index, sent: script.sent_statement(index, own) })
        .collect()
}

impl TimedStatement<'_> {
    fn sql(&self, script: &Script) -> Cow<'_, str> {
        if script.is_parsed {
            Cow::Borrowed(&self.sent.sql)
        } else {
            Cow::Owned(wrap_in_do(&self.sent.sql).sql)
        }
    }

    fn failure(&self, script: &Script, index: usize, offset: usize, error: Error) -> BatchError {
        let place = match error.as_db_error().and_then(|db| db.position()) {
            Some(ErrorPosition::Original(position)) if script.is_parsed => {
                let within = (*position as usize).saturating_sub(offset).max(1);
                let within = self.sent.original_position(within);
                Some(script.location_in_statement(self.index, within))
            }
            Some(ErrorPosition::Internal { position, query }) if *query == *self.sent.sql => {
                Some(script.location(self.sent.original_position(*position as usize)))
            }
            _ => location_of_failure(script, self.index, &error),
        };
        BatchError::Script(index, place, error)
    }
}

fn time_between(rows: &[Row], nonce: &str) -> Duration {
    let clocks: Vec<f64> = rows
        .iter()
        .filter(|row| row.len() == 2 && row.optional(0) == Some(nonce))
        .filter_map(|row| row.optional(1)?.parse().ok())
        .collect();
    match clocks[..] {
        [start, end] => Duration::try_from_secs_f64(end - start).unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

/// The relations of the schema before the transaction, and the locks so far.
struct LockSnapshot {
    schema_oid: u32,
    /// The file of each relation.
    files: HashMap<u32, String>,
    locks: HashMap<u32, Lock>,
}

impl LockSnapshot {
    async fn read(session: &Session, opened: &OpenTransaction) -> Result<Self, Error> {
        let sql = format!(
            "SELECT oid, relfilenode FROM pg_catalog.pg_class WHERE relnamespace = {} AND relkind IN ('r', 'p', 'm', 'v', 'f')",
            opened.schema_oid
        );
        let rows = session.rows(&sql).await?;
        let files = rows.iter().map(|row| Ok((row.parse(0)?, row.text(1)?.to_owned())));
        let mut snapshot = Self {
            schema_oid: opened.schema_oid,
            files: files.collect::<Result<_, Error>>()?,
            locks: HashMap::new(),
        };
        // The lock on the history is not a script's.
        snapshot.update(session).await?;
        Ok(snapshot)
    }

    /// Returns the locks that are new or stronger since the last call, and the relations with a new file.
    async fn update(
        &mut self,
        session: &Session,
    ) -> Result<(Vec<(String, Lock)>, Vec<String>), Error> {
        let sql = format!(
            "SELECT c.oid, l.mode, c.relfilenode, c.relnamespace = {own}, \
             CASE WHEN c.relnamespace = {own} THEN c.relname ELSE n.nspname || '.' || c.relname END \
             FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' \
             AND c.relkind IN ('r', 'p', 'm', 'v', 'f') AND c.relnamespace NOT IN (11, 99)",
            own = self.schema_oid
        );
        let (mut locks, mut rewritten) = (BTreeMap::new(), Vec::new());
        for row in session.rows(&sql).await? {
            let (oid, Some(lock)) = (row.parse(0)?, Lock::parse(row.text(1)?)) else {
                continue;
            };
            let (file_now, name) = (row.text(2)?, row.text(4)?);
            match self.files.get_mut(&oid) {
                // This transaction created it, so no other session can wait for it.
                None if row.is_true(3) => continue,
                Some(file) if file != file_now => {
                    file_now.clone_into(file);
                    rewritten.push(name.to_owned());
                }
                _ => {}
            }
            if self.locks.get(&oid).is_none_or(|before| *before < lock) {
                self.locks.insert(oid, lock);
                locks.insert(name.to_owned(), lock);
            }
        }
        Ok((locks.into_iter().collect(), rewritten))
    }
}
