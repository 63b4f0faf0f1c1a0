//! Migrates several schemas in one transaction: where a file takes less time than a transaction does,
//! opening and committing transactions is most of a run's time.
//!
//! This is an optimistic fast path for schemas with equal histories. On any lock wait, notice, error or
//! guard hit the transaction is rolled back and each schema is migrated on its own. So
//! [`SchemaMigration`](super::schema::SchemaMigration) alone handles failures.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::try_join_all;
use postgres_protocol::escape::escape_literal;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::Error;

use super::context::Context;
use crate::domain::applied::{Applied, AppliedScript};
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
use crate::postgres::transaction::file_end::RUN_DEFERRED;
use crate::postgres::transaction::history;
use crate::postgres::transaction::ledger::FinishCall;
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::open::rollback;
use crate::postgres::transaction::settings::{BEGIN, SettingScope, schema_settings, session_setup};
use crate::service::event::{Event, Interrupt, Progress};
use crate::service::failure::MigrateError;
use crate::service::fleet::{GroupMember, Interrupts, JobFailure, JobResult, JobSuccess};

/// After how many times its time limit a transaction is rolled back.
const TIME_LIMIT_FACTOR: u32 = 5;

/// How long COMMIT may take before its waits are monitored.
const UNMONITORED_COMMIT: Duration = Duration::from_secs(1);

/// Migrates all schemas of the group or, returning `None`, none.
pub(crate) async fn migrate(
    context: &Context,
    members: &[GroupMember],
    interrupts: Interrupts,
) -> Option<Vec<JobResult>> {
    let session = match context.session_cache.take() {
        Some(session) => session,
        None => context
            .database
            .session_for_job(RECONNECT_TIMEOUT, &context.session_cache)
            .await
            .ok()?,
    };
    let schemas: Vec<&SchemaName> = members.iter().map(|member| &member.target.schema).collect();
    let mut group = SchemaGroup { context, members, schemas, interrupts, is_cancelled: false };
    let Ok(Some(uncommitted)) = group.run(&session).await else {
        // Before another session asks for these locks.
        if rollback(&session).await.is_err() || group.is_cancelled {
            session.discard();
        }
        return None;
    };
    group.commit(session, uncommitted).await
}

/// Returns the shorter one of a setting (zero: unlimited) and a limit, and at least a millisecond.
fn shorter(setting: Duration, limit: Duration) -> Duration {
    let time = match setting {
        Duration::ZERO => limit,
        setting => setting.min(limit),
    };
    time.max(Duration::from_millis(1))
}

/// Returns everything of a history row but its time.
fn without_time(row: &Applied) -> (i64, u64, &str) {
    (row.version, row.checksum, &row.name)
}

/// The result of the scripts before COMMIT.
struct Uncommitted {
    pid: i32,
    transaction: String,
    /// The scripts, applied in every schema.
    applied: Vec<AppliedScript>,
    notices: NoticeGuard,
    notice_queue: UnboundedReceiver<Event>,
}

/// What the scripts must not change.
#[derive(PartialEq, Eq)]
struct GroupIdentity {
    transaction: String,
    role: String,
    session_role: String,
}

/// An open transaction that holds the locks of all schemas, whose histories are equal.
struct OpenGroup<'a> {
    pid: i32,
    identity: GroupIdentity,
    oids: Vec<u32>,
    /// The server's clock as a literal in the format of the history.
    now: String,
    pending: Vec<&'a Script>,
    /// The history with the pending scripts.
    after: Vec<Applied>,
}

/// The schemas of one transaction.
struct SchemaGroup<'a> {
    context: &'a Context,
    members: &'a [GroupMember],
    schemas: Vec<&'a SchemaName>,
    interrupts: Interrupts,
    /// Whether a cancel request was sent, which may still be on its way.
    is_cancelled: bool,
}

impl<'a> SchemaGroup<'a> {
    /// Does everything but COMMIT; returns `None` if the schemas must be migrated one by one.
    async fn run(&mut self, session: &Session) -> Result<Option<Uncommitted>, Error> {
        let Some(opened) = self.open(session).await? else {
            return Ok(None);
        };
        // A notice does not name its schema.
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
        let (options, schemas) = (&self.context.options, &self.schemas);
        let table = &options.history_table;
        let quoted = schemas.iter().map(|schema| escape_literal(&schema.quoted().to_string()));
        let tables = schemas.iter().map(|schema| history::qualified(schema, table));
        let positions: Vec<usize> = (0..schemas.len()).collect();
        // A transaction that waits for one lock holds the locks of all other schemas meanwhile.
        let lock_timeout = shorter(options.lock_timeout, options.group_limit.time);
        let statement_timeout = shorter(options.statement_timeout, self.time_limit());
        // The locks are a statement of their own, as in `probe`.
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
        let session_setup =
            try_join_all(session_setup.iter().map(|sql| session.client().simple_query(sql)));
        let (session_setup, rows) =
            futures_util::future::join(session_setup, session.rows(&opening)).await;
        session_setup?;
        // Rows of histories have five columns, those of locks two, that of the transaction six.
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
        let found: Option<Vec<Vec<Applied>>> =
            positions.iter().map(|position| found.remove(position)?.ok()).collect();
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

    /// Returns the pending scripts and the history with them; `None` if the histories differ or the scripts
    /// are not those of the [sample](super::sample::Sample).
    fn pending(&self, found: &[Vec<Applied>]) -> Option<(Vec<&'a Script>, Vec<Applied>)> {
        let set = self.context.set(Scope::Tenant);
        let (first, others) = found.split_first()?;
        let is_same = |other: &Vec<Applied>| {
            other.iter().map(without_time).eq(first.iter().map(without_time))
        };
        if first.is_empty() || !others.iter().all(is_same) {
            return None;
        }
        let plan = Plan::compare(set.ids(), first, self.context.options.goal).ok()?;
        let pending: Vec<&Script> =
            plan.pending.iter().map(|&index| &set.scripts()[index]).collect();
        if pending.is_empty() || !self.context.sample.is(&pending) {
            return None;
        }
        let claimed = pending.iter().map(|script| script.id.claimed());
        let after = first.iter().cloned().chain(claimed).collect();
        Some((pending, after))
    }

    /// Returns the scripts for every schema and the final check.
    fn sql(&self, opened: &OpenGroup) -> String {
        let options = &self.context.options;
        let mut sql = String::new();
        for member in self.members {
            let schema = &member.target.schema;
            sql.push_str(&schema_settings(options, &member.target, SettingScope::Transaction));
            for script in &opened.pending {
                let claim = claim(schema, &options.history_table, script, &opened.now);
                // The text may end in a comment or without a semicolon.
                let _ = write!(sql, "{claim};\n{}\n;\n", script.text);
            }
        }
        if !options.guard_rules.allow_writes.is_empty() {
            sql.push_str(RUN_DEFERRED);
        }
        let oids = opened.oids.iter().copied();
        let own: Vec<(u32, &SchemaName)> = oids.zip(self.schemas.iter().copied()).collect();
        sql + &format!(
            "SELECT extract(epoch FROM clock_timestamp() - statement_timestamp()), \
             pg_current_xact_id(), current_user, session_user, {}",
            FinishCall::new(&own, &options.history_table, &opened.after)
                .expression(&options.guard_rules, false)
        )
    }

    /// Returns how long the scripts of all schemas may take.
    fn time_limit(&self) -> Duration {
        self.context.options.group_limit.time.saturating_mul(TIME_LIMIT_FACTOR)
    }

    /// Waits for the replies; on timeout or the second interrupt it cancels the statements.
    async fn within_time<F: Future>(&mut self, pid: i32, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            output = &mut work => return output,
            () = tokio::time::sleep(self.time_limit()) => {}
            () = interrupts.reaches(Interrupt::Cancel) => {}
        }
        self.is_cancelled = true;
        // The request needs another connection, for which the statements must not wait.
        tokio::select! {
            output = &mut work => return output,
            () = self.context.database.cancel(pid) => {}
        }
        work.await
    }

    /// Reads the final check; `None` if it failed. Each script gets an equal share of the time, because
    /// reading the server's clock costs as much as one of them.
    fn applied(&self, opened: &OpenGroup, rows: &[Row]) -> Option<Vec<AppliedScript>> {
        // Scripts that only define return no rows.
        let [check] = rows else { return None };
        let cell = |column: usize| check.optional(column).unwrap_or_default().to_owned();
        let now = GroupIdentity { transaction: cell(1), role: cell(2), session_role: cell(3) };
        if now != opened.identity || check.optional(4) != Some("f") {
            return None;
        }
        let scripts = opened.pending.len() * self.members.len();
        let took = Duration::try_from_secs_f64(number(check, 0)).unwrap_or_default();
        let took = took / u32::try_from(scripts).unwrap_or(1);
        let applied = opened
            .pending
            .iter()
            .map(|script| AppliedScript { script: script.id.reference(), took });
        Some(applied.collect())
    }

    /// Sends COMMIT and waits for its reply.
    async fn send_commit(&self, session: &Session, uncommitted: &Uncommitted) -> Result<(), Error> {
        let (context, first) = (self.context, &self.members[0]);
        let mut commit = std::pin::pin!(session.client().simple_query("COMMIT"));
        if let Ok(committed) = tokio::time::timeout(UNMONITORED_COMMIT, &mut commit).await {
            return committed.map(drop);
        }
        // Waits are reported for the first schema.
        first.report_finished(&Ok(JobSuccess::Migrated(uncommitted.applied.clone())));
        let mut monitor = LockMonitor::new(
            &context.database,
            uncommitted.pid,
            context.options.lock_timeout,
            &first.progress,
            self.interrupts.clone(),
        );
        monitor.during_commit(commit).await.map(drop)
    }

    /// Commits, and resolves an in-doubt COMMIT, whose outcome is the same for all schemas. If COMMIT is
    /// refused, nothing was changed.
    async fn commit(
        self,
        session: Session,
        mut uncommitted: Uncommitted,
    ) -> Option<Vec<JobResult>> {
        let (context, members) = (self.context, self.members);
        let committed = self.send_commit(&session, &uncommitted).await;
        if let Err(error) = committed {
            session.discard();
            if !is_connection_lost(&error) {
                return None;
            }
            context.session_cache.clear();
            let lost = server_error(&error);
            match was_committed(&context.database, &uncommitted.transaction, lost).await {
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
            context.session_cache.keep(session, members.len());
        }
        drop(uncommitted.notices);
        let migrated = Ok(JobSuccess::Migrated(uncommitted.applied));
        while let Ok(notice) = uncommitted.notice_queue.try_recv() {
            members[0].report_finished(&migrated);
            members[0].progress.send(notice.kind);
        }
        Some(vec![migrated; members.len()])
    }
}
