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
use tokio_postgres::{Error, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

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

/// Several scripts, each a message of its own with its history row in front and a check behind.
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

impl<'a> Batch<'a> {
    /// Begins a batch, with a statement of our own where there is one to put first.
    pub(super) fn new(first: Option<&str>) -> Self {
        Self {
            first: first.map(str::to_owned),
            nonce: nonce(),
            parts: Vec::new(),
        }
    }

    /// Adds a script: its history row first, so that whoever has the row owns the script,
    /// then its text, then the question whether everything is as it was.
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
        // The text may end in a comment or without a semicolon.
        let _ = write!(
            sql,
            "\n;\nSELECT '{}', pg_current_xact_id(), current_user, session_user, current_schema(), {CLOCK}",
            self.nonce
        );
        self.parts.push(Part {
            script,
            sql,
            begins,
            fake,
        });
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
        if let Some(first) = &self.first {
            // Not awaited alone: it goes out with the rest.
            let sent = client
                .simple_query_raw(first)
                .await
                .map_err(WorkError::Ours)?;
            let parts = self.send(session, opened, ending).await?;
            drain(sent).await.map_err(WorkError::Ours)?;
            return self
                .follow(parts, session, opened, schema, ending, progress)
                .await;
        }
        let parts = self.send(session, opened, ending).await?;
        self.follow(parts, session, opened, schema, ending, progress)
            .await
    }

    /// Puts every message on its way; `simple_query_raw` returns once it is written.
    async fn send(
        &self,
        session: &Session,
        opened: &Opened,
        ending: &Ending,
    ) -> Result<Answers, WorkError> {
        let client = session.client();
        let mut scripts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            scripts.push(
                client
                    .simple_query_raw(&part.sql)
                    .await
                    .map_err(WorkError::Ours)?,
            );
        }
        let last = ending.question(opened);
        let guard = match last {
            Some(sql) => {
                let sent = client.simple_query_raw(&sql).await;
                Some(sent.map_err(WorkError::Ours)?)
            }
            None => None,
        };
        Ok(Answers { scripts, guard })
    }

    async fn follow(
        &self,
        answers: Answers,
        session: &Session,
        opened: &Opened,
        schema: &SchemaName,
        ending: &Ending,
        progress: &Progress,
    ) -> Result<Worked, WorkError> {
        let mut done = Vec::with_capacity(self.parts.len());
        for (index, (part, answers)) in self.parts.iter().zip(answers.scripts).enumerate() {
            let mut follower = Follower {
                part,
                index,
                nonce: &self.nonce,
                identity: &opened.identity,
                progress,
                claimed: false,
                answered: 0,
                began: 0.0,
                applied: None,
            };
            // The server keeps a message's answers until it is done with all of it.
            if !part.fake {
                let script = part.script.id.reference();
                progress.send(EventKind::ScriptStarted { script });
            }
            let mut answers = std::pin::pin!(answers);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(message) => follower.follow(message)?,
                    Err(error) => return Err(follower.failure(error)),
                }
            }
            done.extend(follower.applied);
        }
        let (touched, noted) = match answers.guard {
            Some(answers) => ending.judge(session, schema, drain(answers).await).await?,
            None => (Touched::default(), false),
        };
        Ok(Worked {
            applied: done,
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
    /// The same, by this statement, which also notes in the ledger what the history says.
    Noted(String),
}

impl Ending {
    /// Returns the statement that asks, if anything is asked.
    pub(super) fn question(&self, opened: &Opened) -> Option<String> {
        match self {
            Self::Unguarded => None,
            Self::Guarded => Some(guard::glance(opened.schema_oid)),
            Self::Noted(leave) => Some(leave.clone()),
        }
    }

    /// Returns what the transaction touched outside its schema, asking closely where the answer
    /// leaves that open, and whether the ledger knows what the history says.
    pub(super) async fn judge(
        &self,
        session: &Session,
        schema: &SchemaName,
        said: Result<Vec<SimpleQueryRow>, Error>,
    ) -> Result<(Touched, bool), WorkError> {
        let noting = matches!(self, Self::Noted(_));
        let said = said.map_err(|error| match self {
            Self::Noted(_) if is_absent(&error) => WorkError::NoLedger,
            _ => WorkError::Ours(error),
        })?;
        let is_clear = if noting {
            said.first().and_then(|row| row.get(0)) == Some("f")
        } else {
            said.is_empty()
        };
        if is_clear {
            return Ok((Touched::default(), noting));
        }
        let rows = session.rows(&guard::question(schema)).await;
        let touched = guard::read(&rows.map_err(WorkError::Ours)?);
        Ok((touched, false))
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

/// What is still to be answered.
struct Answers {
    scripts: Vec<SimpleQueryStream>,
    guard: Option<SimpleQueryStream>,
}

async fn drain(answers: SimpleQueryStream) -> Result<Vec<SimpleQueryRow>, Error> {
    let mut answers = std::pin::pin!(answers);
    let mut rows = Vec::new();
    while let Some(answer) = answers.next().await {
        if let SimpleQueryMessage::Row(row) = answer? {
            rows.push(row);
        }
    }
    Ok(rows)
}

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

/// Follows the server's answers to one script's message: claim, statements, check.
struct Follower<'a> {
    part: &'a Part<'a>,
    index: usize,
    nonce: &'a str,
    identity: &'a Identity,
    progress: &'a Progress,
    /// Whether the claim was answered.
    claimed: bool,
    /// How many of the script's statements were answered.
    answered: usize,
    /// The server's clock before the first statement.
    began: f64,
    applied: Option<AppliedScript>,
}

impl Follower<'_> {
    fn follow(&mut self, message: SimpleQueryMessage) -> Result<(), WorkError> {
        match message {
            SimpleQueryMessage::CommandComplete(_) if self.claimed => self.answered += 1,
            SimpleQueryMessage::CommandComplete(_) => self.claimed = true,
            SimpleQueryMessage::Row(row) if !self.claimed => self.began = number(&row, 0),
            SimpleQueryMessage::Row(row) if row.get(0) == Some(self.nonce) => {
                return self.check(&row);
            }
            _ => {}
        }
        Ok(())
    }

    /// The row behind a script: is everything as it was?
    fn check(&mut self, row: &SimpleQueryRow) -> Result<(), WorkError> {
        let cell = |column: usize| row.get(column).unwrap_or_default().to_owned();
        let before = self.identity;
        let now = Identity {
            transaction: cell(1),
            role: cell(2),
            session_role: cell(3),
            schema: cell(4),
        };
        if now != *before {
            let why = if now.transaction != before.transaction {
                "it ended the transaction that it ran in".to_owned()
            } else if now.schema != before.schema {
                format!("it left the current schema at '{}'", now.schema)
            } else {
                format!("it left the role at '{}'", now.role)
            };
            return Err(WorkError::Identity(self.index, why));
        }
        let took = (number(row, 5) - self.began).max(0.0);
        let script = AppliedScript {
            script: self.part.script.id.reference(),
            took: Duration::try_from_secs_f64(took).unwrap_or_default(),
        };
        self.progress.send(EventKind::ScriptFinished {
            script: script.clone(),
        });
        self.applied = Some(script);
        Ok(())
    }

    /// Whose statement failed, and where in its file.
    fn failure(&self, error: Error) -> WorkError {
        let (script, text_begins) = (self.part.script, self.part.begins);
        let place = match error.as_db_error().and_then(|db| db.position()) {
            Some(ErrorPosition::Original(position)) => {
                let within = (*position as usize)
                    .checked_sub(text_begins)
                    .filter(|at| *at > 0);
                match within {
                    Some(within) if within <= script.text.chars().count() + 1 => {
                        Some(script.place(within))
                    }
                    _ => return WorkError::Ours(error),
                }
            }
            // A file in a sealed block is the block's inner query.
            Some(ErrorPosition::Internal { position, query }) if *query == *script.text => {
                Some(script.place(*position as usize))
            }
            _ if !self.claimed => return WorkError::Ours(error),
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
