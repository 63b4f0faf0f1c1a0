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

/// The result of verifying the DDL of one structure.
#[derive(Clone, Debug)]
enum Verification {
    Identical,
    /// Holds the first difference.
    Different(String),
    /// Holds the reason.
    Skipped(String),
}

/// Verifies the DDL of a run. Restores each distinct structure once into a scratch schema, in a
/// transaction that is rolled back.
#[derive(Debug, Default)]
pub struct DdlVerifier {
    results: Mutex<HashMap<String, Arc<OnceCell<Verification>>>>,
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
            Some(Verification::Skipped(why)) => Some(why.clone()),
            _ => None,
        })
    }

    /// Fails if the DDL restores another structure than that of `lines`.
    pub(super) async fn verify(
        &self,
        admin: &TenantAdmin,
        copy: &SchemaCopy,
        lines: &[String],
    ) -> Result<(), BackupError> {
        if self.is_disabled {
            return Ok(());
        }
        let about = copy.about_schema.iter().flat_map(|(a, b)| [a, b]);
        let texts = [&copy.before, &copy.after].into_iter().chain(about).chain(lines);
        let key = digest(texts.map(String::as_str));
        let cell = {
            let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(results.entry(key).or_default())
        };
        let result = cell.get_or_try_init(|| verify(admin, copy, lines)).await?;
        match result {
            Verification::Identical | Verification::Skipped(_) => Ok(()),
            Verification::Different(why) => Err(BackupError::Unsupported(vec![why.clone()])),
        }
    }
}

async fn verify(
    admin: &TenantAdmin,
    copy: &SchemaCopy,
    lines: &[String],
) -> Result<Verification, BackupError> {
    let facts = admin.database().facts();
    if facts.in_recovery || facts.read_only {
        return Ok(Verification::Skipped("the server is read-only".to_owned()));
    }
    let lost = |error| BackupError::Server { doing: "verifying the DDL".to_owned(), error };
    let session = admin.database().session(RECONNECT_TIMEOUT).await.map_err(lost)?;
    let (silent, _) = Progress::channel();
    let interrupts = admin.interrupts.clone();
    let retry = Retry::new(admin.database(), &admin.options, &silent, interrupts);
    let refused = |error: &Error| BackupError::refused("verifying the DDL", error);
    let mut attempts = retry.attempts();
    let result = loop {
        let restore = restore_scratch(&session, &admin.options, copy, lines);
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
                    Ok(Verification::Skipped(error.to_string()))
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
                Some(_) => Ok(Verification::Different(format!(
                    "the server rejects the generated DDL: {error}"
                ))),
            }
        }
        other => other,
    }
}

/// Restores the structure into a scratch schema in an open transaction, and compares it.
async fn restore_scratch(
    session: &Session,
    options: &EngineOptions,
    copy: &SchemaCopy,
    lines: &[String],
) -> Result<Verification, Error> {
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
    let restored = structure_lines(session, &schema).await?;
    Ok(match first_difference(lines, &restored) {
        Some(line) => Verification::Different(line),
        None => Verification::Identical,
    })
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
