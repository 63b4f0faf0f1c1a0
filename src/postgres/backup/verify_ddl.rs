//! Verifies that the DDL of a backup restores the structure that it was generated from.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio_postgres::Error;

use super::dump::structure_lines;
use super::{BackupError, about_schema, owner_of_schema};
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT};
use crate::postgres::connection::session::Session;
use crate::postgres::migrate::template::scratch_schema;
use crate::postgres::schema::ddl::SchemaCopy;
use crate::postgres::schema::fingerprint::digest;
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::transaction::retry::{Retry, TxError};
use crate::postgres::transaction::settings::{begin, discard};
use crate::service::event::Progress;

/// What came of restoring DDL into a scratch schema.
#[derive(Clone, Debug)]
enum Outcome<T> {
    Restored(T),
    /// Holds the server's error.
    Rejected(String),
    /// Holds the reason.
    Skipped(String),
}

/// Verifies the DDL of a run. Restores each distinct DDL once into a scratch schema, in a
/// transaction that is rolled back.
#[derive(Debug, Default)]
pub struct DdlVerifier {
    /// By the digest of the DDL: the digest of the structure that it restores.
    results: Mutex<HashMap<String, Arc<OnceCell<Outcome<String>>>>>,
    is_disabled: bool,
}

impl DdlVerifier {
    /// Returns a verifier that does nothing, for a copy: its restore compares the structure anyway.
    pub fn disabled() -> Self {
        Self { is_disabled: true, ..Self::default() }
    }

    /// Returns why a structure was not verified, such as a missing privilege; `None` if all were.
    pub fn skipped(&self) -> Option<String> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.values().find_map(|cell| match cell.get() {
            Some(Outcome::Skipped(why)) => Some(why.clone()),
            _ => None,
        })
    }

    /// Returns the lines that describe the structure. Restores its DDL while `read` reads them, and
    /// fails if the result is another structure.
    pub(super) async fn verify(
        &self,
        admin: &TenantAdmin,
        copy: &SchemaCopy,
        read: impl Future<Output = Result<Vec<String>, BackupError>>,
    ) -> Result<Vec<String>, BackupError> {
        if self.is_disabled {
            return read.await;
        }
        let about = copy.about_schema.iter().flat_map(|(a, b)| [a, b]);
        let texts = [&copy.before, &copy.after].into_iter().chain(about);
        let key = digest(texts.map(String::as_str));
        let cell = {
            let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(results.entry(key).or_default())
        };
        // Both end before either fails: an abandoned restore would leave its session in the middle.
        let restored =
            cell.get_or_try_init(async || Ok(restore(admin, copy).await?.map(|it| digest_of(&it))));
        let (lines, restored): (_, Result<_, BackupError>) = tokio::join!(read, restored);
        let lines = lines?;
        let difference = match restored? {
            // The restored lines are too large to be kept for each DDL of a run.
            Outcome::Restored(found) if *found != digest_of(&lines) => {
                restore(admin, copy).await?.map(|restored| first_difference(&lines, &restored))
            }
            same => same.clone().map(|_| None),
        };
        match difference {
            Outcome::Restored(Some(why)) | Outcome::Rejected(why) => {
                Err(BackupError::Unsupported(vec![why]))
            }
            Outcome::Restored(None) | Outcome::Skipped(_) => Ok(lines),
        }
    }
}

impl<T> Outcome<T> {
    fn map<U>(self, of: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Restored(value) => Outcome::Restored(of(value)),
            Self::Rejected(why) => Outcome::Rejected(why),
            Self::Skipped(why) => Outcome::Skipped(why),
        }
    }
}

fn digest_of(lines: &[String]) -> String {
    digest(lines.iter().map(String::as_str))
}

/// Returns the lines that describe what the DDL restores.
async fn restore(
    admin: &TenantAdmin,
    copy: &SchemaCopy,
) -> Result<Outcome<Vec<String>>, BackupError> {
    let facts = admin.database().facts();
    if facts.in_recovery || facts.read_only {
        return Ok(Outcome::Skipped("the server is read-only".to_owned()));
    }
    let lost = |error| BackupError::Server { doing: "verifying the DDL".to_owned(), error };
    let session = admin.database().session(RECONNECT_TIMEOUT).await.map_err(lost)?;
    let (silent, _) = Progress::channel();
    let interrupts = admin.interrupts.clone();
    let retry = Retry::new(admin.database(), &admin.options, &silent, interrupts);
    let refused = |error: &Error| BackupError::refused("verifying the DDL", error);
    let mut attempts = retry.attempts();
    let result = loop {
        let restore = restore_scratch(&session, &admin.options, copy);
        let result = match retry.until_cancelled(&session, restore).await {
            Ok(result) => result,
            Err(gave_up) => {
                session.discard();
                return Err(gave_up.into());
            }
        };
        if result.is_err() {
            // If this fails too, so does the next attempt.
            let _ = session.client().simple_query("ROLLBACK").await;
        }
        let result = result.map_err(TxError::Server);
        if let ControlFlow::Break(result) = attempts.next(refused, result).await {
            break result;
        }
    };
    if session.client().simple_query("ROLLBACK").await.is_err() {
        session.discard();
    }
    match result {
        Err(BackupError::Server { error, .. }) => {
            match error.sqlstate.as_deref() {
                Some(sqlstate::INSUFFICIENT_PRIVILEGE | sqlstate::READ_ONLY_SQL_TRANSACTION) => {
                    Ok(Outcome::Skipped(error.to_string()))
                }
                // Lock contention and a lost connection do not depend on the structure.
                None => Err(lost(error)),
                Some(code) if sqlstate::is_contention(code) => Err(lost(error)),
                Some(code)
                    if code.starts_with(sqlstate::CONNECTION_EXCEPTION_CLASS)
                        || code.starts_with("57")
                        || code.starts_with("53") =>
                {
                    Err(lost(error))
                }
                Some(_) => {
                    Ok(Outcome::Rejected(format!("the server rejects the generated DDL: {error}")))
                }
            }
        }
        Err(other) => Err(other),
        Ok(lines) => Ok(Outcome::Restored(lines)),
    }
}

/// Restores the structure into a scratch schema in a transaction that stays open, and reads it.
async fn restore_scratch(
    session: &Session,
    options: &EngineOptions,
    copy: &SchemaCopy,
) -> Result<Vec<String>, Error> {
    let schema = scratch_schema();
    session.client().simple_query(discard(options.route)).await?;
    let target =
        Target { schema: schema.clone(), label: "scratch".to_owned(), scope: Scope::Tenant };
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
    structure_lines(session, &schema).await
}

/// Returns the first line that only one of two sorted descriptions has, followed by the other line on
/// the same object.
pub(super) fn first_difference(expected: &[String], restored: &[String]) -> Option<String> {
    fn missing<'a>(lines: &'a [String], of: &[String]) -> impl Iterator<Item = &'a String> {
        lines.iter().filter(|line| of.binary_search(line).is_err())
    }
    let Some(line) = missing(expected, restored).next() else {
        let additional = missing(restored, expected).next();
        return additional.map(|line| format!("additional: {line}"));
    };
    // The first four words name the object.
    let length = line.split(' ').take(4).map(str::len).sum::<usize>() + 3;
    let object = line.get(..length).unwrap_or(line);
    let other = missing(restored, expected).find(|other| other.starts_with(object));
    Some(match other {
        Some(other) => format!("{line} (restored as: {other})"),
        None => line.clone(),
    })
}
