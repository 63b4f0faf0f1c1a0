//! A dry run that executes: what is pending in a schema, statement by statement, looked at behind
//! each, and rolled back.

use crate::postgres::connection::options::EngineOptions;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::ErrorPosition;

use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::{Location, ScriptRef};
use crate::domain::target::Target;
use crate::migrations::{Script, wrap_in_do};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::transaction::batch::{CLOCK, Ending, NOW, WorkError, claim, nonce};
use crate::postgres::transaction::escape_guard::Touched;
use crate::postgres::transaction::history;
use crate::postgres::transaction::open::Opened;
use crate::service::event::{EventKind, Progress};

/// What statements did in the schemas that they were tried in. Grows with statements and, by a
/// few bytes for each, with schemas.
#[derive(Debug, Default)]
pub struct Rehearsal(Mutex<BTreeMap<(bool, i64, usize), Tried>>);

/// One statement of a file, tried in some schemas.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The file.
    pub script: ScriptRef,
    /// Its path.
    pub file: String,
    /// Where the statement begins.
    pub place: Location,
    /// How long it took on the server, in every schema that it was tried in; unsorted.
    pub times: Vec<Duration>,
    /// The slowest of them, and where that was.
    pub slowest: (Duration, SchemaName),
    /// The strongest lock that it newly took on each table, view or the like that was there before the
    /// transaction; without the schema where that is the tenant's.
    pub locks: BTreeMap<String, Lock>,
    /// Tables that it rewrote or emptied.
    pub rewritten: BTreeSet<String>,
}

/// Modes of table locks that conflict with something an application does, weakest first (manual 13.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// `SELECT ... FOR UPDATE` and the like.
    RowShare,
    /// Changing rows.
    RowExclusive,
    /// `CREATE INDEX CONCURRENTLY`, `VALIDATE CONSTRAINT` and the like.
    ShareUpdateExclusive,
    /// `CREATE INDEX`: nobody writes.
    Share,
    /// `ADD FOREIGN KEY`, `CREATE TRIGGER`: nobody writes.
    ShareRowExclusive,
    /// Nobody writes or locks rows.
    Exclusive,
    /// Nobody reads.
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
    #[must_use]
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
pub(crate) struct Observed {
    script: usize,
    statement: usize,
    took: Duration,
    locks: Vec<(String, Lock)>,
    rewritten: Vec<String>,
}

impl Rehearsal {
    /// Returns what was tried, in the order of the sets and their files.
    pub fn tried(&self) -> Vec<Tried> {
        let tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tried.values().cloned().collect()
    }

    pub(crate) fn keep(&self, target: &Target, scripts: &[&Script], observed: Vec<Observed>) {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for one in observed {
            let script = scripts[one.script];
            let key = (!target.schema.is_public(), script.id.version, one.statement);
            let all = tried.entry(key).or_insert_with(|| Tried {
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

/// What a rehearsal in one schema came to.
pub(crate) struct Rehearsed {
    pub(crate) applied: Vec<AppliedScript>,
    pub(crate) observed: Vec<Observed>,
    pub(crate) touched: Touched,
}

/// Runs scripts in an open transaction, which the caller rolls back whatever comes of it.
pub(crate) async fn run(
    session: &Session,
    opened: &Opened,
    options: &EngineOptions,
    target: &Target,
    scripts: &[&Script],
    ending: &Ending,
    progress: &Progress,
) -> Result<Rehearsed, WorkError> {
    let (schema, table) = (&target.schema, &options.history_table);
    let mut known = Known::read(session, opened)
        .await
        .map_err(WorkError::Ours)?;
    if !opened.has_history {
        let create = format!(
            "{}; {}",
            history::NO_PARALLEL_BUILD,
            history::create_table(schema, table)
        );
        session.rows(&create).await.map_err(WorkError::Ours)?;
    }
    let nonce = nonce();
    let mut applied = Vec::with_capacity(scripts.len());
    let mut observed = Vec::new();
    for (index, script) in scripts.iter().enumerate() {
        let reference = script.id.reference();
        progress.send(EventKind::ScriptStarted {
            script: reference.clone(),
        });
        session
            .rows(&claim(schema, table, script, NOW))
            .await
            .map_err(WorkError::Ours)?;
        let mut whole = Duration::ZERO;
        for part in parts(script) {
            let sql = format!(
                "SELECT '{nonce}', {CLOCK}; {}\n; SELECT '{nonce}', {CLOCK}",
                part.sql
            );
            let begins = sql.chars().count() - part.sql.chars().count() - after(&nonce);
            let rows = session
                .rows(&sql)
                .await
                .map_err(|error| part.failure(script, index, begins, error))?;
            let took = between(&rows, &nonce);
            whole += took;
            let (locks, rewritten) = known.look(session).await.map_err(WorkError::Ours)?;
            observed.push(Observed {
                script: index,
                statement: part.statement,
                took,
                locks,
                rewritten,
            });
        }
        let script = AppliedScript {
            script: reference,
            took: whole,
        };
        progress.send(EventKind::ScriptFinished {
            script: script.clone(),
        });
        applied.push(script);
    }
    let last = scripts.len().saturating_sub(1);
    // What is deferred to COMMIT would be found there, and there will be none.
    let deferred = session.rows("SET CONSTRAINTS ALL IMMEDIATE").await;
    deferred.map_err(|error| WorkError::Script(last, None, error))?;
    let unread = scripts.iter().any(|script| script.runs_code());
    let more = ending
        .column(opened, unread)
        .map_or_else(String::new, |glance| format!(", {glance}"));
    let check = format!(
        "SELECT '{nonce}', pg_current_xact_id(), current_user, session_user, current_schema(){more}"
    );
    let rows = session.rows(&check).await;
    let rows = rows.map_err(|error| ending.failure(error))?;
    let Some(row) = rows.first().filter(|row| opened.is_unchanged(row)) else {
        let why = "it ended the transaction that it ran in, or left its schema or role";
        return Err(WorkError::Identity(last, why.to_owned()));
    };
    let look = row.is_true(5);
    let (touched, _) = ending.judge(session, schema, look, unread).await?;
    Ok(Rehearsed {
        applied,
        observed,
        touched,
    })
}

/// Length of what stands behind a statement, in characters.
fn after(nonce: &str) -> usize {
    format!("\n; SELECT '{nonce}', {CLOCK}").chars().count()
}

/// What is sent and measured by itself.
struct Part {
    statement: usize,
    sql: String,
}

/// A file that the parser does not understand is one block, and one part.
fn parts(script: &Script) -> Vec<Part> {
    if !script.is_parsed {
        let sql = wrap_in_do(&script.text).sql;
        return vec![Part { statement: 0, sql }];
    }
    (0..script.statements.len())
        .map(|statement| Part {
            statement,
            sql: script.statement(statement).to_owned(),
        })
        .collect()
}

impl Part {
    fn failure(&self, script: &Script, index: usize, begins: usize, error: Error) -> WorkError {
        let place = match error.as_db_error().and_then(|db| db.position()) {
            Some(ErrorPosition::Original(position)) if script.is_parsed => {
                let within = (*position as usize).saturating_sub(begins).max(1);
                Some(script.location_in_statement(self.statement, within))
            }
            Some(ErrorPosition::Internal { position, query }) if *query == *script.text => {
                Some(script.location(*position as usize))
            }
            _ if script.is_parsed => Some(script.location_of_statement(self.statement)),
            _ => None,
        };
        WorkError::Script(index, place, error)
    }
}

fn between(rows: &[Row], nonce: &str) -> Duration {
    let clocks: Vec<f64> = rows
        .iter()
        .filter(|row| row.len() == 2 && row.optional(0) == Some(nonce))
        .filter_map(|row| row.optional(1)?.parse().ok())
        .collect();
    match clocks[..] {
        [begun, ended] => Duration::try_from_secs_f64(ended - begun).unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

/// What was in the schema before, and what is locked by now.
struct Known {
    schema_oid: u32,
    /// File of each relation that was there.
    files: HashMap<u32, String>,
    locks: HashMap<u32, Lock>,
}

impl Known {
    async fn read(session: &Session, opened: &Opened) -> Result<Self, Error> {
        let sql = format!(
            "SELECT oid, relfilenode FROM pg_catalog.pg_class WHERE relnamespace = {} AND relkind IN ('r', 'p', 'm', 'v', 'f')",
            opened.schema_oid
        );
        let rows = session.rows(&sql).await?;
        let files = rows
            .iter()
            .filter_map(|row| Some((row.optional(0)?.parse().ok()?, row.optional(1)?.to_owned())));
        let mut known = Self {
            schema_oid: opened.schema_oid,
            files: files.collect(),
            locks: HashMap::new(),
        };
        // The history is locked by us.
        known.look(session).await?;
        Ok(known)
    }

    /// Returns the locks that are new or stronger since the last look, and what has another file.
    async fn look(
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
                // It came into being in this transaction, so nobody waits for it.
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
