//! Several schemas in one transaction: where a file takes less time than a transaction does, most of
//! the time of a run is beginning and ending them.
//!
//! Tried once, and only carried on while everything is as it mostly is: no schema is locked, the
//! histories say the same, nothing waits, nothing fails, the server has no remark, the guard has
//! no question. Otherwise all of it is rolled back, and each schema goes by itself, as if this had
//! not been tried. So what can go wrong in a schema is known in one place, [`Journey`](super::schema::Journey).

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use postgres_protocol::escape::escape_literal;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::Error;

use super::migrator::PostgresMigrator;
use crate::domain::applied::Applied;
use crate::domain::applied::AppliedScript;
use crate::domain::plan::Plan;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::migrations::Script;
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::postgres::connection::session::{NoticeGuard, Row, Session};
use crate::postgres::transaction::advisory_lock::CLASS;
use crate::postgres::transaction::batch::{NOW, claim, number};
use crate::postgres::transaction::commit::was_committed;
use crate::postgres::transaction::history;
use crate::postgres::transaction::ledger::FinishCall;
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::open::rollback;
use crate::postgres::transaction::settings::{BEGIN, SettingScope, schema_settings, session_setup};
use crate::service::event::{Event, Interrupt, Progress};
use crate::service::failure::MigrateError;
use crate::service::fleet::{GroupMember, Interrupts, JobFailure, JobResult, JobSuccess};

/// How many times as long as it is to take a transaction may take before it is undone.
const TIME_LIMIT_FACTOR: u32 = 5;

/// How long COMMIT may take before somebody looks what it waits for.
const UNMONITORED_COMMIT: Duration = Duration::from_secs(1);

/// How long the files of one schema may be, in bytes.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// The versions that were pending in the last schema that was migrated by itself, where they did
/// nothing but define, so that a lock tells of everything that they touch. Nothing runs in several schemas at once that has not gone well in one.
#[derive(Debug, Default)]
pub(crate) struct Sample(Mutex<Vec<i64>>);

impl Sample {
    /// Notes the scripts; none where they are no sample, or too long for a message of many.
    pub(crate) fn record(&self, scripts: &[&Script]) {
        let text: usize = scripts.iter().map(|script| script.text.len()).sum();
        let scripts = if text > MAX_TEXT_BYTES { &[] } else { scripts };
        let versions = scripts.iter().map(|script| script.id.version);
        *self.versions() = versions.collect();
    }

    /// Returns whether there is anything to follow.
    pub(crate) fn is_set(&self) -> bool {
        !self.versions().is_empty()
    }

    fn is(&self, scripts: &[&Script]) -> bool {
        let versions = scripts.iter().map(|script| &script.id.version);
        versions.eq(self.versions().iter())
    }

    fn versions(&self) -> MutexGuard<'_, Vec<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Migrates all of them or, where it returns `None`, none.
pub(crate) async fn migrate(
    migrator: &PostgresMigrator,
    members: &[GroupMember],
    interrupts: Interrupts,
) -> Option<Vec<JobResult>> {
    let session = match migrator.session_cache.take() {
        Some(session) => session,
        None => migrator
            .database
            .session_for_job(RECONNECT_TIMEOUT, &migrator.session_cache)
            .await
            .ok()?,
    };
    let schemas: Vec<&SchemaName> = members.iter().map(|member| &member.target.schema).collect();
    let mut group = SchemaGroup {
        migrator,
        members,
        schemas,
        interrupts,
        is_cancelled: false,
    };
    let Ok(Some(uncommitted)) = group.work(&session).await else {
        // Before anybody else asks for these locks.
        if rollback(&session).await.is_err() || group.is_cancelled {
            session.discard();
        }
        return None;
    };
    group.commit(session, uncommitted).await
}

/// Returns the shorter one of a setting, of which zero is for ever, and a limit; at least a millisecond.
fn shorter(setting: Duration, limit: Duration) -> Duration {
    let time = match setting {
        Duration::ZERO => limit,
        setting => setting.min(limit),
    };
    time.max(Duration::from_millis(1))
}

/// What a row says, whenever it was written.
fn says(row: &Applied) -> (i64, u64, &str) {
    (row.version, row.checksum, &row.name)
}

/// What was done and not committed.
struct Uncommitted {
    pid: i32,
    transaction: String,
    /// In every schema.
    applied: Vec<AppliedScript>,
    notices: NoticeGuard,
    notice_queue: UnboundedReceiver<Event>,
}

/// What a session and a transaction must still be behind the scripts.
#[derive(PartialEq, Eq)]
struct GroupIdentity {
    transaction: String,
    role: String,
    session_role: String,
}

/// What the opening found: a transaction that holds the locks of all schemas, whose histories say
/// the same.
struct OpenGroup<'a> {
    pid: i32,
    identity: GroupIdentity,
    oids: Vec<u32>,
    /// The server's clock, as a history has it.
    now: String,
    pending: Vec<&'a Script>,
    /// What the histories say once the pending scripts are applied.
    after: Vec<Applied>,
}

/// The schemas of one transaction.
struct SchemaGroup<'a> {
    migrator: &'a PostgresMigrator,
    members: &'a [GroupMember],
    schemas: Vec<&'a SchemaName>,
    interrupts: Interrupts,
    /// Whether the server was asked to cancel what it does: the request may still be on its way.
    is_cancelled: bool,
}

impl<'a> SchemaGroup<'a> {
    /// Does everything but COMMIT; `None` where something is not as it mostly is.
    async fn work(&mut self, session: &Session) -> Result<Option<Uncommitted>, Error> {
        let Some(opened) = self.open(session).await? else {
            return Ok(None);
        };
        // A remark belongs to one schema, and nobody could tell to which.
        let (progress, mut notice_queue) = Progress::channel();
        let notices = session.forward_notices(opened.pid, &progress);
        let sql = self.sql(&opened);
        let rows = self.within_time(opened.pid, session.rows(&sql)).await?;
        if self.is_cancelled || notice_queue.try_recv().is_ok() {
            return Ok(None);
        }
        let applied = self.applied(&opened, &rows);
        Ok(applied.map(|applied| Uncommitted {
            pid: opened.pid,
            transaction: opened.identity.transaction,
            applied,
            notices,
            notice_queue,
        }))
    }

    /// Takes the locks, and reads the histories under them.
    async fn open(&self, session: &Session) -> Result<Option<OpenGroup<'a>>, Error> {
        let (options, schemas) = (&self.migrator.options, &self.schemas);
        let table = &options.history_table;
        let quoted = schemas
            .iter()
            .map(|schema| escape_literal(&schema.quoted().to_string()));
        let tables = schemas
            .iter()
            .map(|schema| history::qualified(schema, table));
        let positions: Vec<usize> = (0..schemas.len()).collect();
        // Whoever waits for a lock keeps the locks of all the others meanwhile.
        let lock_timeout = shorter(options.lock_timeout, options.group_limit.time);
        let statement_timeout = shorter(options.statement_timeout, self.time_limit());
        // As in `transaction::probe`: what comes behind the locks sees what was there when they
        // were taken.
        let opening = format!(
            "{BEGIN}SET LOCAL search_path TO pg_catalog; SET LOCAL lock_timeout TO {}; SET LOCAL statement_timeout TO {}; \
             SELECT s.name::regnamespace::oid, pg_try_advisory_xact_lock({CLASS}, s.name::regnamespace::oid::int4) \
             FROM unnest(ARRAY[{}]) WITH ORDINALITY AS s(name, place) ORDER BY place; \
             LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE NOWAIT; \
             SELECT pg_backend_pid(), pg_current_xact_id(), current_user, session_user, {NOW}, true; {}",
            lock_timeout.as_millis(),
            statement_timeout.as_millis(),
            quoted.collect::<Vec<_>>().join(", "),
            tables.collect::<Vec<_>>().join(", "),
            history::select_each(schemas, table)
        );
        let session_setup = session_setup(session, options);
        let session_setup = try_join_all(
            session_setup
                .iter()
                .map(|sql| session.client().simple_query(sql)),
        );
        let (session_setup, rows) =
            futures_util::future::join(session_setup, session.rows(&opening)).await;
        session_setup?;
        // A history's rows have five columns, the locks' two, and the transaction's own six.
        let (applied, rows): (Vec<_>, Vec<_>) = rows?.into_iter().partition(|row| row.len() == 5);
        let of_length = |length: usize| rows.iter().filter(move |row| row.len() == length);
        let oids: Vec<u32> = of_length(2)
            .filter(|row| row.is_true(1))
            .filter_map(|row| row.optional(0)?.parse().ok())
            .collect();
        let Some(row) = of_length(6).next() else {
            return Ok(None);
        };
        if oids.len() < schemas.len() {
            return Ok(None);
        }
        let mut found = history::parse_several(&applied, &positions);
        let found: Option<Vec<Vec<Applied>>> = positions
            .iter()
            .map(|position| found.remove(position)?.ok())
            .collect();
        let Some((pending, after)) = found.and_then(|found| self.pending(&found)) else {
            return Ok(None);
        };
        Ok(Some(OpenGroup {
            pid: row.parse(0)?,
            identity: GroupIdentity {
                transaction: row.text(1)?.to_owned(),
                role: row.text(2)?.to_owned(),
                session_role: row.text(3)?.to_owned(),
            },
            oids,
            now: escape_literal(row.text(4)?),
            pending,
            after,
        }))
    }

    /// Returns what is pending in every one of these histories, and what they say afterwards; `None`
    /// where they differ, or where other scripts are pending than in the [sample](Sample).
    fn pending(&self, found: &[Vec<Applied>]) -> Option<(Vec<&'a Script>, Vec<Applied>)> {
        let set = self.migrator.set(Scope::Tenant);
        let (first, others) = found.split_first()?;
        let is_same = |other: &Vec<Applied>| other.iter().map(says).eq(first.iter().map(says));
        if first.is_empty() || !others.iter().all(is_same) {
            return None;
        }
        let plan = Plan::compare(set.ids(), first, self.migrator.options.goal).ok()?;
        let pending: Vec<&Script> = plan
            .pending
            .iter()
            .map(|&index| &set.scripts()[index])
            .collect();
        if pending.is_empty() || !self.migrator.sample.is(&pending) {
            return None;
        }
        let claimed = pending.iter().map(|script| script.id.claimed());
        let after = first.iter().cloned().chain(claimed).collect();
        Some((pending, after))
    }

    /// Returns the work in every schema, and the check behind all of it.
    fn sql(&self, opened: &OpenGroup) -> String {
        let options = &self.migrator.options;
        let mut sql = String::new();
        for member in self.members {
            let schema = &member.target.schema;
            sql.push_str(&schema_settings(
                options,
                &member.target,
                SettingScope::Transaction,
            ));
            for script in &opened.pending {
                let claim = claim(schema, &options.history_table, script, &opened.now);
                // The text may end in a comment or without a semicolon.
                let _ = write!(sql, "{claim};\n{}\n;\n", script.text);
            }
        }
        let oids = opened.oids.iter().copied();
        let own: Vec<(u32, &SchemaName)> = oids.zip(self.schemas.iter().copied()).collect();
        sql + &format!(
            "SELECT extract(epoch FROM clock_timestamp() - statement_timestamp()), \
             pg_current_xact_id(), current_user, session_user, {}",
            FinishCall::new(&own, &options.history_table, &opened.after).expression(false)
        )
    }

    /// How long the work in all schemas may take.
    fn time_limit(&self) -> Duration {
        self.migrator
            .options
            .group_limit
            .time
            .saturating_mul(TIME_LIMIT_FACTOR)
    }

    /// Waits for the answers, and has the server cancel what takes too long.
    async fn within_time<F: Future>(&mut self, pid: i32, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            output = &mut work => return output,
            () = tokio::time::sleep(self.time_limit()) => {}
            () = interrupts.reaches(Interrupt::Cancel) => {}
        }
        self.is_cancelled = true;
        // The request needs a connection, and the work never waits for that.
        tokio::select! {
            output = &mut work => return output,
            () = self.migrator.database.cancel(pid) => {}
        }
        work.await
    }

    /// Reads the check. What a script took is its share of the whole: the server's clock costs as much
    /// as what it would measure.
    fn applied(&self, opened: &OpenGroup, rows: &[Row]) -> Option<Vec<AppliedScript>> {
        // What only defines brings no rows.
        let [check] = rows else { return None };
        let cell = |column: usize| check.optional(column).unwrap_or_default().to_owned();
        let now = GroupIdentity {
            transaction: cell(1),
            role: cell(2),
            session_role: cell(3),
        };
        if now != opened.identity || check.optional(4) != Some("f") {
            return None;
        }
        let scripts = opened.pending.len() * self.members.len();
        let took = Duration::try_from_secs_f64(number(check, 0)).unwrap_or_default();
        let took = took / u32::try_from(scripts).unwrap_or(1);
        let applied = opened.pending.iter().map(|script| AppliedScript {
            script: script.id.reference(),
            took,
        });
        Some(applied.collect())
    }

    /// Sends COMMIT and waits for its answer.
    async fn send_commit(&self, session: &Session, uncommitted: &Uncommitted) -> Result<(), Error> {
        let (migrator, first) = (self.migrator, &self.members[0]);
        let mut commit = std::pin::pin!(session.client().simple_query("COMMIT"));
        if let Ok(committed) = tokio::time::timeout(UNMONITORED_COMMIT, &mut commit).await {
            return committed.map(drop);
        }
        // What it waits for is told in the name of the first.
        first.report_finished(&Ok(JobSuccess::Migrated(uncommitted.applied.clone())));
        let mut monitor = LockMonitor::new(
            &migrator.database,
            uncommitted.pid,
            migrator.options.lock_timeout,
            &first.progress,
            self.interrupts.clone(),
        );
        monitor.during_commit(commit).await.map(drop)
    }

    /// Commits. Where that is not answered, the server is asked what became of it: it is the same for
    /// all. Where it is refused, nothing was done.
    async fn commit(
        self,
        session: Session,
        mut uncommitted: Uncommitted,
    ) -> Option<Vec<JobResult>> {
        let (migrator, members) = (self.migrator, self.members);
        let committed = self.send_commit(&session, &uncommitted).await;
        if let Err(error) = committed {
            session.discard();
            if !is_connection_lost(&error) {
                return None;
            }
            migrator.session_cache.clear();
            let lost = server_error(&error);
            match was_committed(&migrator.database, &uncommitted.transaction, lost).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    let unknown = |member: &GroupMember| {
                        let doing = format!("migrating {}", member.target.schema);
                        let error = error.clone();
                        Err(JobFailure::from(MigrateError::InDoubt { doing, error }))
                    };
                    return Some(members.iter().map(unknown).collect());
                }
            }
        } else if self.interrupts.level() == Interrupt::Cancel {
            // The request to cancel COMMIT may still be on its way.
            session.discard();
        } else {
            migrator.session_cache.keep(session, members.len());
        }
        drop(uncommitted.notices);
        let migrated = Ok(JobSuccess::Migrated(uncommitted.applied));
        while let Ok(remark) = uncommitted.notice_queue.try_recv() {
            members[0].report_finished(&migrated);
            members[0].progress.send(remark.kind);
        }
        Some(vec![migrated; members.len()])
    }
}
