//! Whether the statements of a backup make what they were written from.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio_postgres::Error;

use super::dump::lasting;
use super::{BackupError, about_schema, owner_of_schema};
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT};
use crate::postgres::connection::session::Session;
use crate::postgres::migrate::template::scratch_schema;
use crate::postgres::schema::ddl::SchemaCopy;
use crate::postgres::schema::fingerprint::digest;
use crate::postgres::transaction::retry::{Retry, TxError};
use crate::postgres::transaction::settings::begin;
use crate::service::event::Progress;
use crate::service::fleet::Interrupts;

/// What came of a rehearsal.
#[derive(Clone, Debug)]
enum Proof {
    /// They make the same.
    Same,
    /// They do not; says where.
    Different(String),
    /// It could not be tried here; says why.
    Untried(String),
}

/// Verifies the DDL of a run. Each structure is made once in a scratch schema, in a transaction that
/// is rolled back; tenants with the same statements are proven by it.
#[derive(Debug, Default)]
pub struct DdlVerifier {
    proofs: Mutex<HashMap<String, Arc<OnceCell<Proof>>>>,
    /// Whether nothing is rehearsed, because what is written down is made at once.
    is_at_once: bool,
}

impl DdlVerifier {
    /// Returns verifier for whoever makes the same at once, and compares it then.
    #[must_use]
    pub fn none() -> Self {
        Self {
            is_at_once: true,
            ..Self::default()
        }
    }

    /// Returns why some structure was not rehearsed, if there is one: a standby, a role that may not.
    #[must_use]
    pub fn skipped(&self) -> Option<String> {
        let proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.values().find_map(|cell| match cell.get() {
            Some(Proof::Untried(why)) => Some(why.clone()),
            _ => None,
        })
    }

    pub(super) async fn prove(
        &self,
        database: &Database,
        options: &EngineOptions,
        copy: &SchemaCopy,
        lines: &[String],
    ) -> Result<(), BackupError> {
        if self.is_at_once {
            return Ok(());
        }
        let about = copy.about_schema.iter().flat_map(|(a, b)| [a, b]);
        let texts = [&copy.before, &copy.after]
            .into_iter()
            .chain(about)
            .chain(lines);
        let key = digest(texts.map(String::as_str));
        let cell = {
            let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(proofs.entry(key).or_default())
        };
        let proof = cell
            .get_or_try_init(|| rehearse(database, options, copy, lines))
            .await?;
        match proof {
            Proof::Same | Proof::Untried(_) => Ok(()),
            Proof::Different(why) => Err(BackupError::Unsupported(vec![why.clone()])),
        }
    }
}

async fn rehearse(
    database: &Database,
    options: &EngineOptions,
    copy: &SchemaCopy,
    lines: &[String],
) -> Result<Proof, BackupError> {
    let facts = database.facts();
    if facts.in_recovery || facts.read_only {
        return Ok(Proof::Untried("the server takes no changes".to_owned()));
    }
    let lost = |error| BackupError::Server {
        doing: "rehearsing".to_owned(),
        error,
    };
    let session = database.session(RECONNECT_TIMEOUT).await.map_err(lost)?;
    let (silent, _) = Progress::channel();
    let retry = Retry::new(database, options, &silent, Interrupts::never());
    let refused = |error: &Error| BackupError::refused("checking the statements", error);
    let mut attempts = retry.attempts();
    let made = loop {
        let made = make(&session, options, copy, lines).await;
        if made.is_err() {
            // Where this fails too, so does the next attempt.
            let _ = session.client().simple_query("ROLLBACK").await;
        }
        if let ControlFlow::Break(made) =
            attempts.next(refused, made.map_err(TxError::Server)).await
        {
            break made;
        }
    };
    if session.client().simple_query("ROLLBACK").await.is_err() {
        session.discard();
    }
    match made {
        Ok(proof) => Ok(proof),
        Err(BackupError::Server { error: said, .. }) => {
            match said.sqlstate.as_deref() {
                Some(sqlstate::INSUFFICIENT_PRIVILEGE | sqlstate::READ_ONLY_SQL_TRANSACTION) => {
                    Ok(Proof::Untried(said.to_string()))
                }
                // Lock contention or a lost connection says nothing about the structure.
                None => Err(lost(said)),
                Some(code) if sqlstate::is_contention(code) => Err(lost(said)),
                Some(code)
                    if code.starts_with(sqlstate::CONNECTION_EXCEPTION_CLASS)
                        || code.starts_with("57")
                        || code.starts_with("53") =>
                {
                    Err(lost(said))
                }
                Some(_) => Ok(Proof::Different(format!(
                    "something that the server does not take back: {said}"
                ))),
            }
        }
        Err(error) => Err(error),
    }
}

async fn make(
    session: &Session,
    options: &EngineOptions,
    copy: &SchemaCopy,
    lines: &[String],
) -> Result<Proof, Error> {
    let schema = scratch_schema();
    session.client().simple_query("DISCARD ALL").await?;
    let target = Target {
        schema: schema.clone(),
        label: "rehearsal".to_owned(),
        scope: Scope::Tenant,
    };
    let about = about_schema(&copy.about_schema, &schema);
    for sql in [
        format!(
            "{}SET LOCAL check_function_bodies TO off; SET LOCAL client_min_messages TO warning; CREATE SCHEMA {}",
            begin(options, &target),
            schema.quoted()
        ),
        copy.before.clone(),
        owner_of_schema(&copy.about_schema, &schema),
        copy.after.clone(),
        about,
    ] {
        session.client().simple_query(&sql).await?;
    }
    let made = lasting(session, &schema).await?;
    Ok(match first_difference(lines, &made) {
        Some(line) => Proof::Different(line),
        None => Proof::Same,
    })
}

/// Returns where two descriptions differ, both sorted, with what the other says of the same thing.
pub(super) fn first_difference(wanted: &[String], made: &[String]) -> Option<String> {
    let lacks = |lines: &[String], of: &[String]| {
        let line = lines.iter().find(|line| of.binary_search(line).is_err());
        line.cloned()
    };
    let Some(line) = lacks(wanted, made) else {
        return lacks(made, wanted).map(|line| format!("there would also be: {line}"));
    };
    // What a line is about stands at its beginning.
    let beginning = |line: &str| line.split(' ').take(4).map(str::len).sum::<usize>() + 3;
    let about = line.get(..beginning(&line)).unwrap_or(&line);
    let others = made
        .iter()
        .filter(|other| wanted.binary_search(other).is_err());
    let other = others.into_iter().find(|other| other.starts_with(about));
    Some(match other {
        Some(other) => format!("{line} (would become: {other})"),
        None => line,
    })
}
