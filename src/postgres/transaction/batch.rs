//! The work of one transaction: scripts as messages, sent together, and their answers followed.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Error, SimpleQueryMessage, SimpleQueryRow};

use super::escape_guard::{self, Touched};
use super::history::{self, NO_PARALLEL_BUILD};
use super::ledger::{Finish, is_absent};
use super::open::{Identity, Opened};
use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Location;
use crate::migrations::{Script, wrap_in_do};
use crate::postgres::connection::options::References;
use crate::postgres::connection::session::Session;
use crate::service::event::{EventKind, Progress};

/// Why the work of a transaction failed.
pub(crate) enum WorkError {
    /// A statement of this script failed, there where the place says.
    Script(usize, Option<Location>, Error),
    /// A statement of ours failed.
    Ours(Error),
    /// This script changed what it may not; says what.
    Identity(usize, String),
    /// The ledger has gone; without it the work would have been done.
    NoLedger,
}

/// Several scripts, each with its history row in front, as messages.
///
/// All messages are sent before the first is answered, so they cost one wait together. A script is a
/// message of its own, because the server answers each message as it is done, so that a long one
/// shows. In a schema that has nothing yet none is long, and a message costs more than what most
/// files define: there, neighbours that only define share one.
pub(crate) struct Batch<'a> {
    first: Option<String>,
    nonce: String,
    parts: Vec<Part<'a>>,
}

/// What is sent at once.
#[derive(Default)]
struct Message {
    sql: String,
    /// Each of its scripts, and where its claim begins, in characters from 0.
    begins: Vec<(usize, usize)>,
}

/// One script, with its claim.
struct Part<'a> {
    script: &'a Script,
    sql: String,
    /// First character of the script's own text behind the beginning of its claim, from 0.
    begins: usize,
    /// Whether only its claim is written.
    fake: bool,
}

impl Part<'_> {
    /// Returns how many statements the server answers between the claim and the check.
    fn answers(&self) -> usize {
        if self.fake {
            0
        } else if self.script.is_parsed {
            self.script.statements.len()
        } else {
            1
        }
    }

    /// Returns whether it leaves its transaction and session as they were.
    fn only_defines(&self) -> bool {
        self.fake || self.script.only_defines()
    }
}

impl<'a> Batch<'a> {
    /// Returns a batch of these scripts, behind the statement for the history table where the schema
    /// has none. With `fake` only the history rows are written.
    pub(crate) fn new(
        schema: &SchemaName,
        history_table: &str,
        has_history: bool,
        scripts: &[&'a Script],
        fake: bool,
    ) -> Self {
        let first = (!has_history).then(|| {
            let create = history::create_table(schema, history_table);
            format!("{NO_PARALLEL_BUILD}; {}", create.trim_end_matches(';'))
        });
        let mut batch = Self {
            first,
            nonce: nonce(),
            parts: Vec::with_capacity(scripts.len()),
        };
        for script in scripts {
            batch.push(schema, history_table, script, fake);
        }
        batch
    }

    /// Adds a script: its history row first, so that whoever has the row owns the script, then
    /// its text.
    fn push(&mut self, schema: &SchemaName, table: &str, script: &'a Script, fake: bool) {
        let mut sql = format!("{} RETURNING {CLOCK};\n", claim(schema, table, script, NOW));
        let (text, inner) = if fake {
            (Cow::Borrowed(""), 0)
        } else if script.is_parsed {
            (Cow::Borrowed(&*script.text), 0)
        } else {
            let block = wrap_in_do(&script.text);
            (Cow::Owned(block.sql), block.text_offset)
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

    /// Returns what is sent. Behind the last script and behind each that could have changed it
    /// stands the question whether everything is as it was; behind the last one the guard's too,
    /// in the same statement.
    fn messages(&self, ending: Option<&str>) -> Vec<Message> {
        let first = self.first.as_deref();
        let mut messages = vec![Message {
            sql: first.map_or_else(String::new, |first| format!("{first};\n")),
            begins: Vec::new(),
        }];
        for (index, part) in self.parts.iter().enumerate() {
            let is_last = index + 1 == self.parts.len();
            let joins =
                |neighbours: &[Part]| first.is_some() && neighbours.iter().all(Part::only_defines);
            if index > 0 && !joins(&self.parts[index - 1..=index]) {
                messages.push(Message::default());
            }
            let message = messages.last_mut().expect("there is one to begin with");
            message.begins.push((index, message.sql.chars().count()));
            // The text may end in a comment or without a semicolon.
            let _ = write!(message.sql, "{}\n;\n", part.sql);
            if is_last && self.may_defer() {
                message.sql.push_str("SET CONSTRAINTS ALL IMMEDIATE;\n");
            }
            if is_last || !part.only_defines() {
                let _ = write!(
                    message.sql,
                    "SELECT '{}', pg_current_xact_id(), current_user, session_user, current_schema(), {CLOCK}",
                    self.nonce
                );
            }
            if let Some(ending) = ending.filter(|_| is_last) {
                let _ = write!(message.sql, ", {ending}");
            }
        }
        messages
    }

    /// Returns whether a script may have deferred triggers to COMMIT, which would run code behind the
    /// guard's question.
    fn may_defer(&self) -> bool {
        !self.parts.iter().all(Part::only_defines)
    }

    /// Sends everything, with the guard's question at the end, and follows the answers.
    pub(crate) async fn run(
        &self,
        session: &Session,
        opened: &Opened,
        schema: &SchemaName,
        ending: &Ending,
        progress: &Progress,
    ) -> Result<Worked, WorkError> {
        let client = session.client();
        let unread = self.parts.iter().any(|part| part.script.runs_code());
        let ending_column = ending.column(opened, unread);
        let messages = self.messages(ending_column.as_deref());
        // `simple_query_raw` returns once a message is written.
        let mut sent = Vec::with_capacity(messages.len());
        for message in &messages {
            let answers = client.simple_query_raw(&message.sql).await;
            sent.push(answers.map_err(WorkError::Ours)?);
        }
        let mut follower = Follower {
            batch: self,
            identity: &opened.identity,
            ending,
            progress,
            index: 0,
            claimed: false,
            answered: None,
            began: 0.0,
            applied: Vec::with_capacity(self.parts.len()),
            look: false,
        };
        for (message, answers) in messages.iter().zip(sent) {
            if let Some((index, _)) = message.begins.first() {
                follower.begin(*index);
            }
            let mut answers = std::pin::pin!(answers);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(answer) => follower.follow(answer, message)?,
                    Err(error) => return Err(follower.failure(error, message)),
                }
            }
        }
        let (applied, look) = (follower.applied, follower.look);
        let (touched, noted) = ending.judge(session, schema, look, unread).await?;
        Ok(Worked {
            applied,
            touched,
            noted,
        })
    }
}

/// What is asked behind the last script.
pub(crate) enum Ending {
    /// Nothing.
    Unguarded,
    /// Whether the transaction stayed in its schema.
    Guarded(References),
    /// The same, asked by a function that also writes the ledger.
    Noted(Finish, References),
}

impl Ending {
    /// Returns the expression that is true where the guard's full question has to be asked.
    ///
    /// More is asked where a script runs code that pricesync cannot read: `unread`.
    pub(crate) fn column(&self, opened: &Opened, unread: bool) -> Option<String> {
        match self {
            Self::Unguarded => None,
            Self::Guarded(_) => Some(escape_guard::quick_question(opened.schema_oid, unread)),
            Self::Noted(finish, _) => Some(finish.expression(unread)),
        }
    }

    /// Returns what an error of a statement that holds the expression means.
    pub(crate) fn failure(&self, error: Error) -> WorkError {
        match self {
            Self::Noted(..) if is_absent(&error) => WorkError::NoLedger,
            _ => WorkError::Ours(error),
        }
    }

    /// Returns what the transaction touched outside its schema, looking closely where the
    /// expression was true, and whether the ledger knows what the history says.
    pub(crate) async fn judge(
        &self,
        session: &Session,
        schema: &SchemaName,
        look: bool,
        unread: bool,
    ) -> Result<(Touched, bool), WorkError> {
        let references = match self {
            Self::Guarded(references) | Self::Noted(_, references) if look => references,
            _ => return Ok((Touched::default(), matches!(self, Self::Noted(..)))),
        };
        let touched = escape_guard::look(session, schema, references, unread).await;
        Ok((touched.map_err(WorkError::Ours)?, false))
    }
}

/// What the scripts of one transaction did, not committed yet.
pub(crate) struct Worked {
    /// The scripts, with their times.
    pub(crate) applied: Vec<AppliedScript>,
    /// What they touched outside the schema.
    pub(crate) touched: Touched,
    /// Whether the ledger knows.
    pub(crate) noted: bool,
}

/// Returns a text that no script can know, by which our own row is found.
pub(crate) fn nonce() -> String {
    format!(
        "pricesync-{:016x}",
        RandomState::new().hash_one(Instant::now())
    )
}

/// The server's clock in seconds: what a script took is measured where it ran.
pub(crate) const CLOCK: &str = "extract(epoch FROM clock_timestamp())";

/// The server's clock as refinery writes it.
pub(crate) const NOW: &str =
    "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// Returns the statement that records a script, in refinery's format, as applied at the time that this
/// expression says: [`NOW`], or what it said.
pub(crate) fn claim(schema: &SchemaName, table: &str, script: &Script, now: &str) -> String {
    format!(
        "INSERT INTO {} (version, name, applied_on, checksum) VALUES ({}, {}, {now}, '{}')",
        history::qualified(schema, table),
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
    /// Whether its claim brought its row.
    claimed: bool,
    /// How many of its statements were answered; nothing until the claim is.
    answered: Option<usize>,
    /// The server's clock before its first statement.
    began: f64,
    applied: Vec<AppliedScript>,
    /// Whether the guard has to look closely.
    look: bool,
}

impl Follower<'_> {
    /// The server keeps a message's answers until it is done with all of it.
    fn begin(&mut self, index: usize) {
        (self.index, self.claimed, self.answered) = (index, false, None);
        let part = &self.batch.parts[index];
        if !part.fake {
            let script = part.script.id.reference();
            self.progress.send(EventKind::ScriptStarted { script });
        }
    }

    fn follow(&mut self, answer: SimpleQueryMessage, message: &Message) -> Result<(), WorkError> {
        match answer {
            SimpleQueryMessage::CommandComplete(_) if self.claimed => {
                self.answered = Some(self.answered.map_or(0, |answered| answered + 1));
            }
            SimpleQueryMessage::Row(row) if !self.claimed => self.claim(&row),
            // `get` panics behind the last column, and a script may ask for a row without any.
            SimpleQueryMessage::Row(row)
                if !row.is_empty() && row.get(0) == Some(&self.batch.nonce) =>
            {
                self.check(&row)?;
                // Only the last check asks the guard.
                self.look |= row.len() > 6 && row.get(6) == Some("t");
                self.finish_until(self.index + 1, number(&row, 5));
            }
            // What only defines brings no rows, so this is the next claim's.
            SimpleQueryMessage::Row(row)
                if message
                    .begins
                    .last()
                    .is_some_and(|last| last.0 > self.index) =>
            {
                self.begin(self.index + 1);
                self.claim(&row);
            }
            _ => {}
        }
        Ok(())
    }

    /// The row of a script's claim holds the clock.
    fn claim(&mut self, row: &SimpleQueryRow) {
        let now = number(row, 0);
        self.finish_until(self.index, now);
        (self.claimed, self.began) = (true, now);
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
    fn failure(&self, error: Error, message: &Message) -> WorkError {
        let position = error.as_db_error().and_then(|db| db.position());
        if let Some(ErrorPosition::Original(position)) = position {
            // What the server cannot read fails before any of the message is run.
            let at = (*position as usize).saturating_sub(1);
            let Some((index, begins)) = message.begins.iter().rev().find(|part| part.1 <= at)
            else {
                return WorkError::Ours(error);
            };
            let part = &self.batch.parts[*index];
            return match at.checked_sub(begins + part.begins) {
                Some(within) if within <= part.script.text.chars().count() => {
                    let place = part.script.location(within + 1);
                    WorkError::Script(*index, Some(place), error)
                }
                _ => self.ending.failure(error),
            };
        }
        let Some(part) = self.batch.parts.get(self.index) else {
            return WorkError::Ours(error);
        };
        let script = part.script;
        let place = match (position, self.answered) {
            // A file in a sealed block is the block's inner query.
            (Some(ErrorPosition::Internal { position, query }), _) if *query == *script.text => {
                Some(script.location(*position as usize))
            }
            (_, None) => return WorkError::Ours(error),
            // All that is left is what was deferred, and the question behind it.
            (_, Some(answered)) if answered >= part.answers() => {
                let is_last = self.index + 1 == self.batch.parts.len();
                if is_last && self.batch.may_defer() && answered == part.answers() {
                    return WorkError::Script(self.index, None, error);
                }
                return self.ending.failure(error);
            }
            (_, Some(answered)) if answered < script.statements.len() && script.is_parsed => {
                Some(script.location_of_statement(answered))
            }
            _ => None,
        };
        WorkError::Script(self.index, place, error)
    }
}

/// Returns a number that stands in a column as text; 0 where none does.
pub(crate) fn number(row: &SimpleQueryRow, column: usize) -> f64 {
    row.get(column)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
