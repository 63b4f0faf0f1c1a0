//! Sends the scripts of one transaction in one batch and reads the server's replies.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Error, SimpleQueryMessage, SimpleQueryRow};

use super::escape_guard::Findings;
use super::file_end::{RUN_DEFERRED, file_end, may_defer, run_deferred};
use super::final_check::FinalCheck;
use super::history::{self, NO_PARALLEL_BUILD};
use super::open::{OpenTransaction, TransactionIdentity};
use super::settings::own_timeout;
use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Location;
use crate::domain::target::Target;
use crate::migrations::{Script, SentSql, wrap_in_do};
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::inner_error;
use crate::postgres::connection::session::{Session, value};
use crate::service::event::{EventKind, Progress};

/// Why the scripts of a transaction failed.
pub(crate) enum BatchError {
    /// A statement of the script with this index failed, at this position of its file.
    Script(usize, Option<Location>, Error),
    /// A statement that pricesync added failed.
    Internal(Error),
    /// The script with this index changed transaction, role or schema, as described.
    Identity(usize, String),
    /// The ledger was dropped; everything else succeeded.
    LedgerMissing,
}

/// Scripts, each preceded by its history row, as messages of the simple query protocol.
///
/// All messages are sent before the first reply, so they cost one round trip. Each script has its own
/// message, because the server replies once a message is done, which shows the progress of long ones.
/// In a new schema no script is long and a message costs more than most definitions: there,
/// consecutive scripts that only define share a message.
pub(crate) struct Batch<'a> {
    create_history: Option<String>,
    nonce: String,
    /// Follows the check of each script that does more than define.
    file_end: String,
    /// Whether the schema may have constraints that are deferrable.
    may_defer: bool,
    /// Whether it follows that of the last script too.
    ends_last_file: bool,
    /// Whether event triggers may write to tables, which may have deferred triggers.
    may_write_outside: bool,
    scripts: Vec<ClaimedScript<'a>>,
}

/// One message of the simple query protocol.
#[derive(Default)]
struct Message {
    sql: String,
    /// The index of each of its scripts, and the offset of the script's claim in characters.
    claims: Vec<(usize, usize)>,
}

/// A script and its claim: the statement that inserts its history row.
struct ClaimedScript<'a> {
    script: &'a Script,
    /// The script's text as it is sent.
    sent: SentSql<'a>,
    /// The claim, then the script.
    sql: String,
    /// Offset of `sent` in `sql`, in characters.
    text_offset: usize,
    /// Whether only the claim is sent.
    fake: bool,
}

impl ClaimedScript<'_> {
    /// Returns the number of statements that the server completes between the claim and the check.
    fn statements(&self) -> usize {
        if self.fake {
            0
        } else if self.script.is_parsed {
            self.script.statements.len()
        } else {
            1
        }
    }

    /// Returns whether it leaves transaction and session unchanged.
    fn only_defines(&self) -> bool {
        self.fake || self.script.only_defines()
    }
}

impl<'a> Batch<'a> {
    /// Returns a batch of these scripts, preceded by the creation of the history table unless it exists.
    /// With `fake` only the history rows are written.
    pub(crate) fn new(
        options: &EngineOptions,
        target: &Target,
        has_history: bool,
        scripts: &[&'a Script],
        fake: bool,
    ) -> Self {
        let create_history = (!has_history).then(|| {
            let create = history::create_table(&target.schema, &options.history_table);
            format!("{NO_PARALLEL_BUILD}; {}", create.trim_end_matches(';'))
        });
        let may_defer = may_defer(has_history, scripts);
        let mut batch = Self {
            create_history,
            nonce: nonce(),
            file_end: file_end(options, target, may_defer),
            may_defer,
            ends_last_file: options.route == Route::Pooled,
            may_write_outside: !options.guard_rules.allow_writes.is_empty(),
            scripts: Vec::with_capacity(scripts.len()),
        };
        for script in scripts {
            batch.push(options, target, script, fake);
        }
        batch
    }

    /// Adds a script. Its history row comes first, so that the session that inserted the row owns the
    /// script.
    fn push(&mut self, options: &EngineOptions, target: &Target, script: &'a Script, fake: bool) {
        let claim = claim(&target.schema, &options.history_table, script, NOW);
        let mut sql = format!("{claim} RETURNING {CLOCK};\n");
        let sent = script.sent(|timeout| own_timeout(options, timeout));
        let mut text_offset = sql.chars().count();
        if !fake && script.is_parsed {
            sql.push_str(&sent.sql);
        } else if !fake {
            let block = wrap_in_do(&sent.sql);
            text_offset += block.text_offset;
            sql.push_str(&block.sql);
        }
        self.scripts.push(ClaimedScript { script, sent, sql, text_offset, fake });
    }

    /// Returns the messages. The last script, and each that may change the identity of the
    /// transaction, is followed by a check of it; the check of the last one contains `guard` as well.
    fn messages(&self, guard: Option<&str>) -> Vec<Message> {
        let first = self.create_history.as_deref();
        let mut messages = vec![Message {
            sql: first.map_or_else(String::new, |first| format!("{first};\n")),
            claims: Vec::new(),
        }];
        for (index, script) in self.scripts.iter().enumerate() {
            let is_last = index + 1 == self.scripts.len();
            let share_message = |pair: &[ClaimedScript]| {
                first.is_some() && pair.iter().all(ClaimedScript::only_defines)
            };
            if index > 0 && !share_message(&self.scripts[index - 1..=index]) {
                messages.push(Message::default());
            }
            let message = messages.last_mut().expect("starts with one");
            message.claims.push((index, message.sql.chars().count()));
            // The text may end in a comment or without a semicolon.
            let _ = write!(message.sql, "{}\n;\n", script.sql);
            // Deferred triggers must not run at COMMIT, behind the guard's check, nor see what later
            // scripts change.
            if !script.only_defines() || is_last && self.may_write_outside {
                if is_last {
                    message.sql.push_str(RUN_DEFERRED);
                } else {
                    message.sql.push_str(&run_deferred(script.script, self.may_defer));
                }
            }
            if is_last || !script.only_defines() {
                let _ = write!(
                    message.sql,
                    "SELECT '{}', pg_current_xact_id(), current_user, session_user, current_schema(), {CLOCK}",
                    self.nonce
                );
            }
            if let Some(guard) = guard.filter(|_| is_last) {
                let _ = write!(message.sql, ", {guard}");
            }
            if (!is_last || self.ends_last_file) && !script.only_defines() {
                let _ = write!(message.sql, ";\n{}", self.file_end);
            }
        }
        messages
    }

    /// Sends all messages, then reads the replies.
    pub(crate) async fn run(
        &self,
        session: &Session,
        opened: &OpenTransaction,
        schema: &SchemaName,
        check: &FinalCheck,
        progress: &Progress,
    ) -> Result<BatchOutcome, BatchError> {
        let client = session.client();
        let unread = self.scripts.iter().any(|it| it.script.runs_code());
        let guard = check.column(opened, unread);
        let messages = self.messages(guard.as_deref());
        // `simple_query_raw` returns once a message is written.
        let mut sent = Vec::with_capacity(messages.len());
        for message in &messages {
            let replies = client.simple_query_raw(&message.sql).await;
            sent.push(replies.map_err(BatchError::Internal)?);
        }
        let mut reader = ReplyReader {
            batch: self,
            identity: &opened.identity,
            check,
            progress,
            index: 0,
            is_claimed: false,
            completed: None,
            started: 0.0,
            applied: Vec::with_capacity(self.scripts.len()),
            is_suspect: false,
        };
        for (message, replies) in messages.iter().zip(sent) {
            if let Some((index, _)) = message.claims.first() {
                reader.start(*index);
            }
            let mut replies = std::pin::pin!(replies);
            while let Some(reply) = replies.next().await {
                match reply {
                    Ok(reply) => reader.read(reply, message)?,
                    Err(error) => return Err(reader.failure(error, message)),
                }
            }
        }
        let (applied, is_suspect) = (reader.applied, reader.is_suspect);
        let (findings, ledger_written) = check.inspect(session, schema, is_suspect, unread).await?;
        Ok(BatchOutcome { applied, findings, ledger_written })
    }
}

/// What the scripts of one transaction did before COMMIT.
pub(crate) struct BatchOutcome {
    /// The scripts, with their times.
    pub(crate) applied: Vec<AppliedScript>,
    /// Possible changes outside the schema.
    pub(crate) findings: Findings,
    pub(crate) ledger_written: bool,
}

/// Returns a text that no script can know, which marks the row of a check.
pub(crate) fn nonce() -> String {
    format!("pricesync-{:016x}", RandomState::new().hash_one(Instant::now()))
}

/// The server's clock in seconds: the time of a script is measured without the network.
pub(crate) const CLOCK: &str = "extract(epoch FROM clock_timestamp())";

/// The server's clock in refinery's format.
pub(crate) const NOW: &str =
    "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// Returns the statement that inserts a script's history row in refinery's format. `now` is the SQL
/// expression for the time: [`NOW`] or a literal.
pub(crate) fn claim(schema: &SchemaName, table: &str, script: &Script, now: &str) -> String {
    format!(
        "INSERT INTO {} (version, name, applied_on, checksum) VALUES ({}, {}, {now}, '{}')",
        history::qualified(schema, table),
        script.id.version,
        escape_literal(&script.id.name),
        script.id.checksum
    )
}

/// Reads the server's replies: claims, statements, checks.
struct ReplyReader<'a> {
    batch: &'a Batch<'a>,
    identity: &'a TransactionIdentity,
    check: &'a FinalCheck,
    progress: &'a Progress,
    /// Index of the script whose replies are being read.
    index: usize,
    /// Whether its claim has returned a row.
    is_claimed: bool,
    /// How many of its statements are complete; `None` until the claim is.
    completed: Option<usize>,
    /// The server's clock before its first statement.
    started: f64,
    applied: Vec<AppliedScript>,
    /// Whether the guard must ask its full question.
    is_suspect: bool,
}

impl ReplyReader<'_> {
    fn start(&mut self, index: usize) {
        (self.index, self.is_claimed, self.completed) = (index, false, None);
        let script = &self.batch.scripts[index];
        if !script.fake {
            let script = script.script.id.reference();
            self.progress.send(EventKind::ScriptStarted { script });
        }
    }

    fn read(&mut self, reply: SimpleQueryMessage, message: &Message) -> Result<(), BatchError> {
        match reply {
            SimpleQueryMessage::CommandComplete(_) if self.is_claimed => {
                self.completed = Some(self.completed.map_or(0, |completed| completed + 1));
            }
            SimpleQueryMessage::Row(row) if !self.is_claimed => self.claim(&row),
            SimpleQueryMessage::Row(row) if value(&row, 0) == Some(&self.batch.nonce) => {
                self.check(&row)?;
                // Only the last check contains the guard.
                self.is_suspect |= value(&row, 6) == Some("t");
                self.finish_until(self.index + 1, number(&row, 5));
            }
            // Scripts that only define return no rows, so this is the row of the next claim.
            SimpleQueryMessage::Row(row)
                if message.claims.last().is_some_and(|last| last.0 > self.index) =>
            {
                self.start(self.index + 1);
                self.claim(&row);
            }
            _ => {}
        }
        Ok(())
    }

    fn claim(&mut self, row: &SimpleQueryRow) {
        let now = number(row, 0);
        self.finish_until(self.index, now);
        (self.is_claimed, self.started) = (true, now);
    }

    /// A script without a check of its own is finished when the next one starts.
    fn finish_until(&mut self, index: usize, now: f64) {
        while self.applied.len() < index {
            let took = (now - self.started).max(0.0);
            let script = AppliedScript {
                script: self.batch.scripts[self.applied.len()].script.id.reference(),
                took: Duration::try_from_secs_f64(took).unwrap_or_default(),
            };
            self.progress.send(EventKind::ScriptFinished { script: script.clone() });
            self.applied.push(script);
        }
    }

    /// Compares the row of a check with the identity with which the transaction started.
    fn check(&self, row: &SimpleQueryRow) -> Result<(), BatchError> {
        let cell = |column: usize| value(row, column).unwrap_or_default().to_owned();
        let before = self.identity;
        let now = TransactionIdentity {
            transaction: cell(1),
            role: cell(2),
            session_role: cell(3),
            schema: cell(4),
        };
        if now == *before {
            return Ok(());
        }
        let why = if now.transaction != before.transaction {
            "it ended the transaction that it ran in".to_owned()
        } else if now.schema != before.schema {
            format!("it left the current schema at '{}'", now.schema)
        } else {
            format!("it left the role at '{}'", now.role)
        };
        Err(BatchError::Identity(self.index, why))
    }

    /// Returns which script failed, and where in its file.
    fn failure(&self, error: Error, message: &Message) -> BatchError {
        let position = error.as_db_error().and_then(|db| db.position());
        if let Some(ErrorPosition::Original(position)) = position {
            // A syntax error is reported before any statement of the message runs.
            let at = (*position as usize).saturating_sub(1);
            let Some((index, offset)) = message.claims.iter().rev().find(|claim| claim.1 <= at)
            else {
                return BatchError::Internal(error);
            };
            let part = &self.batch.scripts[*index];
            return match at.checked_sub(offset + part.text_offset) {
                Some(within) if within <= part.sent.sql.chars().count() => {
                    let place = part.script.location(part.sent.original_position(within + 1));
                    BatchError::Script(*index, Some(place), error)
                }
                _ => self.check.failure(error),
            };
        }
        let Some(part) = self.batch.scripts.get(self.index) else {
            return BatchError::Internal(error);
        };
        let script = part.script;
        let place = match (position, self.completed) {
            // A file that is wrapped in DO is the block's inner query.
            (Some(ErrorPosition::Internal { position, query }), _) if *query == *part.sent.sql => {
                Some(script.location(part.sent.original_position(*position as usize)))
            }
            (_, None) => return BatchError::Internal(error),
            // Only deferred triggers and the check are left.
            (_, Some(completed)) if completed >= part.statements() => {
                if !part.only_defines() && completed == part.statements() {
                    return BatchError::Script(self.index, None, error);
                }
                return self.check.failure(error);
            }
            (_, Some(completed)) => location_of_failure(script, completed, &error),
        };
        BatchError::Script(self.index, place, error)
    }
}

/// Returns the location of an error that has no position in the statement itself, by the index of the
/// statement.
pub(crate) fn location_of_failure(
    script: &Script,
    statement: usize,
    error: &Error,
) -> Option<Location> {
    script.location_in_code(statement, inner_error(error))
}

/// Returns the number in a column; 0 where it is missing.
pub(crate) fn number(row: &SimpleQueryRow, column: usize) -> f64 {
    value(row, column).and_then(|text| text.parse().ok()).unwrap_or_default()
}
