//! One schema's transaction: opened, proven to be where it should be, filled, checked, committed.
//!
//! What does not depend on an answer goes out together, so that a schema costs three
//! waits: for the opening, for the work, for COMMIT.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join3;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::{Error, SimpleQueryMessage, SimpleQueryRow};

use super::histories::{self, History};
use super::ledger::is_absent;
use super::lock::CLASS;
use super::migrator::Rules;
use super::pool::Session;
use super::{guard, guard::Touched};
use crate::domain::schema_name::SchemaName;
use crate::domain::script::{Place, Scope};
use crate::migrations::{Script, Seal, sealed_sql};
use crate::service::event::{AppliedScript, EventKind, Progress, Target};

/// A transaction that is open in a schema, under the schema's lock.
pub(super) struct Opened {
    /// Our backend.
    pub(super) pid: i32,
    /// The schema.
    pub(super) schema_oid: u32,
    /// Whether the schema has a history table.
    pub(super) has_history: bool,
    /// What it says, read under the lock.
    pub(super) history: History,
    identity: Identity,
}

/// What a script may not change: transaction, roles, schema.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    transaction: String,
    role: String,
    session_role: String,
    schema: String,
}

impl Opened {
    /// Returns whether the columns from the second on show what the transaction began with.
    pub(super) fn is_unchanged(&self, row: &SimpleQueryRow) -> bool {
        let identity = &self.identity;
        [
            &identity.transaction,
            &identity.role,
            &identity.session_role,
            &identity.schema,
        ]
        .into_iter()
        .enumerate()
        .all(|(place, was)| row.get(place + 1) == Some(was))
    }
}

/// What came of asking for a transaction.
pub(super) enum Opening {
    /// It is open.
    Ready(Opened),
    /// There is no such schema.
    NoSchema,
    /// The tenant's row is gone.
    NoTenant,
    /// The role may not use the schema, so that names would be looked up elsewhere.
    NotUsable(String),
    /// Another session holds the lock of the schema with this oid.
    Busy(u32),
    /// The expectation about the history table was wrong; ask again with this one.
    Expect(bool),
}

/// How far a setting reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It ends with the transaction, so that no pooler can hand it to somebody else.
    Transaction,
    /// It ends with the session, which must be thrown away afterwards.
    Session,
}

/// Returns the statements that set everything a script depends on: nothing is left to what
/// the role or the database says.
pub(super) fn settings(rules: &Rules, target: &Target, reach: Reach) -> String {
    let mut path = target.schema.quoted().to_string();
    if target.scope == Scope::Tenant {
        for schema in &rules.search_path {
            let _ = write!(path, ", {}", schema.quoted());
        }
    }
    let (set, local) = match reach {
        Reach::Transaction => ("SET LOCAL", true),
        Reach::Session => ("SET", false),
    };
    let mut sql = format!(
        "{set} search_path TO {path}; {set} lock_timeout TO {}; {set} statement_timeout TO {}; \
         {set} idle_in_transaction_session_timeout TO '5min'; {set} standard_conforming_strings TO on; \
         {set} client_min_messages TO notice; \
         SELECT set_config('synchronous_commit', 'on', {local}) WHERE current_setting('synchronous_commit') = 'off'; ",
        rules.lock_timeout.as_millis(),
        rules.statement_timeout.as_millis()
    );
    if rules.server_version >= 140_000 {
        // A killed client's backend ends within this time and frees its locks.
        let _ = write!(sql, "{set} client_connection_check_interval TO '2s'; ");
    }
    sql
}

/// Returns the statements that open a transaction with these settings.
pub(super) fn begin(rules: &Rules, target: &Target) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}",
        settings(rules, target, Reach::Transaction)
    )
}

/// Opens a transaction in the schema and reads its history, all in one train of messages.
///
/// `expect_history` is a guess; [`Opening::Expect`] says when it was wrong. Unless the
/// answer is [`Opening::Ready`] the transaction has been rolled back. A session that is not
/// known to be as it was when it was opened is reset first.
pub(super) async fn open(
    session: &Session,
    rules: &Rules,
    target: &Target,
    expect_history: bool,
) -> Result<Opening, Error> {
    let schema = &target.schema;
    let opening = begin(rules, target) + &probe(schema, &rules.history_table);
    let read = if expect_history {
        // NOWAIT: whoever waits here would hold a snapshot that an index build waits for.
        format!(
            "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE NOWAIT; {}",
            histories::qualified(schema, &rules.history_table),
            histories::select(schema, &rules.history_table)
        )
    } else {
        String::new()
    };
    let reset = async {
        if session.is_clean() {
            return Ok(());
        }
        session.client().simple_query("DISCARD ALL").await.map(drop)
    };
    let (reset, begun, read) = join3(reset, session.rows(&opening), session.rows(&read)).await;
    reset?;
    let opening = match begun {
        Ok(probed) => interpret(&probed, schema),
        Err(error) if error.code() == Some(&SqlState::INVALID_SCHEMA_NAME) => Opening::NoSchema,
        Err(error) => return Err(error),
    };
    let opening = match opening {
        Opening::Ready(opened) if opened.has_history != expect_history => {
            Opening::Expect(opened.has_history)
        }
        Opening::Ready(mut opened) => {
            opened.history = histories::parse(&read?);
            return Ok(Opening::Ready(opened));
        }
        other => other,
    };
    rollback(session).await?;
    if matches!(opening, Opening::NoSchema) && !is_listed(session, rules, target).await? {
        return Ok(Opening::NoTenant);
    }
    Ok(opening)
}

/// Returns whether the tenant's row still stands. It is asked for only where the schema is
/// missing: a schema that is there is pinned by its lock, which `drop-schema` takes too, and
/// by the lock on its history, which `DROP SCHEMA` waits for.
async fn is_listed(session: &Session, rules: &Rules, target: &Target) -> Result<bool, Error> {
    if rules.unlisted || target.scope == Scope::Shared {
        return Ok(true);
    }
    let sql = format!(
        "SELECT FROM {} WHERE schema_name = {}",
        rules.tenant_table,
        escape_literal(target.schema.as_str())
    );
    Ok(!session.read(&sql).await?.is_empty())
}

/// Is the schema there (an error otherwise), is it free, is it ours to use, has it a history?
///
/// The lock is a statement of its own: one that took it and looked around as well would see
/// what was there before whoever had the lock committed. No table is read, so that there is
/// next to nothing to plan.
pub(super) fn probe(schema: &SchemaName, history_table: &str) -> String {
    let oid = format!(
        "{}::regnamespace::oid",
        escape_literal(&schema.quoted().to_string())
    );
    format!(
        "SELECT {oid}, pg_try_advisory_xact_lock({CLASS}, {oid}::int4); \
         SELECT pg_backend_pid(), current_schema(), to_regclass({})::oid, current_user, session_user, pg_current_xact_id()",
        escape_literal(&histories::qualified(schema, history_table)),
    )
}

/// Reads the answer to [`probe`], found among the rows of its message.
pub(super) fn interpret(rows: &[SimpleQueryRow], schema: &SchemaName) -> Opening {
    // An earlier SELECT of the same message may have brought a row of one column.
    let of_length = |length: usize| rows.iter().find(|row| row.len() == length);
    let (Some(lock), Some(row)) = (of_length(2), of_length(6)) else {
        return Opening::NoSchema;
    };
    let cell = |column: usize| row.get(column).unwrap_or_default();
    if cell(1) != schema.as_str() {
        return Opening::NotUsable(cell(3).to_owned());
    }
    let schema_oid = lock
        .get(0)
        .and_then(|oid| oid.parse().ok())
        .unwrap_or_default();
    if lock.get(1) != Some("t") {
        return Opening::Busy(schema_oid);
    }
    Opening::Ready(Opened {
        pid: cell(0).parse().unwrap_or_default(),
        schema_oid,
        has_history: row.get(2).is_some(),
        history: Ok(Vec::new()),
        identity: Identity {
            transaction: cell(5).to_owned(),
            role: cell(3).to_owned(),
            session_role: cell(4).to_owned(),
            schema: cell(1).to_owned(),
        },
    })
}

/// Ends the transaction without a trace.
pub(super) async fn rollback(session: &Session) -> Result<(), Error> {
    session.client().simple_query("ROLLBACK").await.map(drop)
}

/// Why the work of a transaction failed.
pub(super) enum WorkError {
    /// A statement of this script failed, there where the place says.
    Script(usize, Option<Place>, Error),
    /// A statement of ours failed.
    Ours(Error),
    /// This script changed what it may not; says what.
    Identity(usize, String),
    /// The ledger has gone; without it the work would have been done.
    NoLedger,
}

/// Several scripts, each a message of its own with its history row in front.
///
/// All messages are sent before the first is answered, so they cost one wait together; the
/// server answers each as it is done, so that a long one shows.
pub(super) struct Batch<'a> {
    first: Option<String>,
    nonce: String,
    parts: Vec<Part<'a>>,
}

/// One script as a message.
struct Part<'a> {
    script: &'a Script,
    sql: String,
    /// First character of the script's own text within the message, from 0.
    begins: usize,
    /// Whether only its claim is written.
    fake: bool,
}

impl Part<'_> {
    /// Returns how many statements the server answers between the claim and the check.
    fn answers(&self) -> usize {
        match self.script.seal {
            _ if self.fake => 0,
            Seal::Parsed => self.script.statements.len(),
            Seal::Server => 1,
        }
    }
}

impl<'a> Batch<'a> {
    /// Begins a batch, with a statement of our own where there is one to put first.
    pub(super) fn new(first: Option<&str>) -> Self {
        Self {
            first: first.map(str::to_owned),
            nonce: nonce(),
            parts: Vec::new(),
        }
    }

    /// Adds a script: its history row first, so that whoever has the row owns the script, then
    /// its text.
    pub(super) fn push(
        &mut self,
        schema: &SchemaName,
        table: &str,
        script: &'a Script,
        fake: bool,
    ) {
        let mut sql = format!("{} RETURNING {CLOCK};\n", claim(schema, table, script));
        let (text, inner) = match script.seal {
            _ if fake => (Cow::Borrowed(""), 0),
            Seal::Parsed => (Cow::Borrowed(&*script.text), 0),
            Seal::Server => {
                let sealed = sealed_sql(&script.text);
                (Cow::Owned(sealed.sql), sealed.text_starts_at)
            }
        };
        let begins = sql.chars().count() + inner;
        sql.push_str(&text);
        self.parts.push(Part {
            script,
            sql,
            begins,
            fake,
        });
    }

    /// Returns what is sent for a script. Behind the last one and behind each that could have
    /// changed it stands the question whether everything is as it was; behind the last one the
    /// guard's too, in the same statement.
    fn message(&self, index: usize, ending: Option<&str>) -> Cow<'_, str> {
        let part = &self.parts[index];
        let is_last = index + 1 == self.parts.len();
        if !is_last && (part.fake || part.script.only_defines()) {
            return Cow::Borrowed(&part.sql);
        }
        let more = ending
            .filter(|_| is_last)
            .map_or_else(String::new, |ending| format!(", {ending}"));
        // The text may end in a comment or without a semicolon.
        Cow::Owned(format!(
            "{}\n;\nSELECT '{}', pg_current_xact_id(), current_user, session_user, current_schema(), {CLOCK}{more}",
            part.sql, self.nonce
        ))
    }

    /// Sends everything, with the guard's question at the end, and follows the answers.
    pub(super) async fn run(
        &self,
        session: &Session,
        opened: &Opened,
        schema: &SchemaName,
        ending: &Ending,
        progress: &Progress,
    ) -> Result<Worked, WorkError> {
        let client = session.client();
        let ending_column = ending.column(opened);
        let mut first = None;
        if let Some(sql) = &self.first {
            // Not awaited alone: it goes out with the rest.
            let sent = client.simple_query_raw(sql).await;
            first = Some(sent.map_err(WorkError::Ours)?);
        }
        // `simple_query_raw` returns once a message is written.
        let mut sent = Vec::with_capacity(self.parts.len());
        for index in 0..self.parts.len() {
            let message = self.message(index, ending_column.as_deref());
            let answers = client.simple_query_raw(&message).await;
            sent.push(answers.map_err(WorkError::Ours)?);
        }
        if let Some(first) = first {
            let mut first = std::pin::pin!(first);
            while let Some(answer) = first.next().await {
                answer.map_err(WorkError::Ours)?;
            }
        }
        let mut follower = Follower {
            batch: self,
            identity: &opened.identity,
            ending,
            progress,
            index: 0,
            claimed: false,
            answered: 0,
            began: 0.0,
            applied: Vec::with_capacity(self.parts.len()),
            look: false,
        };
        for (index, answers) in sent.into_iter().enumerate() {
            follower.begin(index);
            let mut answers = std::pin::pin!(answers);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(message) => follower.follow(message)?,
                    Err(error) => return Err(follower.failure(error)),
                }
            }
        }
        let (applied, look) = (follower.applied, follower.look);
        let (touched, noted) = ending.judge(session, schema, look).await?;
        Ok(Worked {
            applied,
            touched,
            noted,
        })
    }
}

/// What is asked behind the last script.
pub(super) enum Ending {
    /// Nothing.
    Unguarded,
    /// Whether the transaction stayed in its schema.
    Guarded,
    /// The same, by this expression, which also notes in the ledger what the history says.
    Noted(String),
}

impl Ending {
    /// Returns the expression that is true where [`guard::question`] has to be asked.
    pub(super) fn column(&self, opened: &Opened) -> Option<String> {
        match self {
            Self::Unguarded => None,
            Self::Guarded => Some(guard::glance(opened.schema_oid)),
            Self::Noted(leave) => Some(leave.clone()),
        }
    }

    /// Returns what an error of a statement that holds the expression means.
    pub(super) fn failure(&self, error: Error) -> WorkError {
        match self {
            Self::Noted(_) if is_absent(&error) => WorkError::NoLedger,
            _ => WorkError::Ours(error),
        }
    }

    /// Returns what the transaction touched outside its schema, looking closely where the
    /// expression was true, and whether the ledger knows what the history says.
    pub(super) async fn judge(
        &self,
        session: &Session,
        schema: &SchemaName,
        look: bool,
    ) -> Result<(Touched, bool), WorkError> {
        if !look {
            return Ok((Touched::default(), matches!(self, Self::Noted(_))));
        }
        let rows = session.rows(&guard::question(schema)).await;
        Ok((guard::read(&rows.map_err(WorkError::Ours)?), false))
    }
}

/// What the scripts of one transaction did, not committed yet.
pub(super) struct Worked {
    /// The scripts, with their times.
    pub(super) applied: Vec<AppliedScript>,
    /// What they touched outside the schema.
    pub(super) touched: Touched,
    /// Whether the ledger knows.
    pub(super) noted: bool,
}

/// Returns a text that no script can know, by which our own row is found.
pub(super) fn nonce() -> String {
    format!(
        "pricesync-{:016x}",
        RandomState::new().hash_one(Instant::now())
    )
}

/// The server's clock in seconds: what a script took is measured where it ran.
pub(super) const CLOCK: &str = "extract(epoch FROM clock_timestamp())";

/// The server's clock as refinery writes it.
pub(super) const NOW: &str =
    "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// Returns the statement that records a script, in refinery's format but with the server's clock.
pub(super) fn claim(schema: &SchemaName, table: &str, script: &Script) -> String {
    format!(
        "INSERT INTO {} (version, name, applied_on, checksum) VALUES ({}, {}, {NOW}, '{}')",
        histories::qualified(schema, table),
        script.id.version,
        escape_literal(&script.id.name),
        script.id.checksum
    )
}

/// Follows the server's answers: claims, statements, checks.
struct Follower<'a> {
    batch: &'a Batch<'a>,
    identity: &'a Identity,
    ending: &'a Ending,
    progress: &'a Progress,
    /// Which script is being answered.
    index: usize,
    /// Whether its claim was answered.
    claimed: bool,
    /// How many of its statements were answered.
    answered: usize,
    /// The server's clock before its first statement.
    began: f64,
    applied: Vec<AppliedScript>,
    /// Whether the guard has to look closely.
    look: bool,
}

impl Follower<'_> {
    /// The server keeps a message's answers until it is done with all of it.
    fn begin(&mut self, index: usize) {
        (self.index, self.claimed, self.answered) = (index, false, 0);
        let part = &self.batch.parts[index];
        if !part.fake {
            let script = part.script.id.reference();
            self.progress.send(EventKind::ScriptStarted { script });
        }
    }

    fn follow(&mut self, message: SimpleQueryMessage) -> Result<(), WorkError> {
        match message {
            SimpleQueryMessage::CommandComplete(_) if self.claimed => self.answered += 1,
            SimpleQueryMessage::CommandComplete(_) => self.claimed = true,
            SimpleQueryMessage::Row(row) if !self.claimed => {
                let now = number(&row, 0);
                self.finish_until(self.index, now);
                self.began = now;
            }
            SimpleQueryMessage::Row(row) if row.get(0) == Some(&self.batch.nonce) => {
                self.check(&row)?;
                // Only the last check asks the guard, and `get` panics behind the last column.
                self.look |= row.len() > 6 && row.get(6) == Some("t");
                self.finish_until(self.index + 1, number(&row, 5));
            }
            _ => {}
        }
        Ok(())
    }

    /// A script without a check of its own is finished when the next one begins.
    fn finish_until(&mut self, index: usize, now: f64) {
        while self.applied.len() < index {
            let took = (now - self.began).max(0.0);
            let script = AppliedScript {
                script: self.batch.parts[self.applied.len()].script.id.reference(),
                took: Duration::try_from_secs_f64(took).unwrap_or_default(),
            };
            self.progress.send(EventKind::ScriptFinished {
                script: script.clone(),
            });
            self.applied.push(script);
        }
    }

    /// The row behind a script: is everything as it was?
    fn check(&self, row: &SimpleQueryRow) -> Result<(), WorkError> {
        let cell = |column: usize| row.get(column).unwrap_or_default().to_owned();
        let before = self.identity;
        let now = Identity {
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
        Err(WorkError::Identity(self.index, why))
    }

    /// Whose statement failed, and where in its file.
    fn failure(&self, error: Error) -> WorkError {
        let part = &self.batch.parts[self.index];
        let (script, text_begins) = (part.script, part.begins);
        let place = match error.as_db_error().and_then(|db| db.position()) {
            Some(ErrorPosition::Original(position)) => {
                let within = (*position as usize)
                    .checked_sub(text_begins)
                    .filter(|at| *at > 0);
                match within {
                    Some(within) if within <= script.text.chars().count() + 1 => {
                        Some(script.place(within))
                    }
                    _ => return self.ending.failure(error),
                }
            }
            // A file in a sealed block is the block's inner query.
            Some(ErrorPosition::Internal { position, query }) if *query == *script.text => {
                Some(script.place(*position as usize))
            }
            _ if !self.claimed => return WorkError::Ours(error),
            // All that is left is the question behind it.
            _ if self.answered >= part.answers() => return self.ending.failure(error),
            _ if self.answered < script.statements.len() && script.seal == Seal::Parsed => {
                Some(script.place_of_statement(self.answered))
            }
            _ => None,
        };
        WorkError::Script(self.index, place, error)
    }
}

fn number(row: &SimpleQueryRow, column: usize) -> f64 {
    row.get(column)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
