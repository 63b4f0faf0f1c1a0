//! Converts the failure of a script into an error that names script and position.

use tokio_postgres::Error;

use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::{Script, Transaction};
use crate::postgres::connection::server_error::{error_in, server_error, sqlstate_of};
use crate::postgres::transaction::batch::BatchError;
use crate::postgres::transaction::history;
use crate::service::failure::{Holder, MigrateError};

/// The attempt that failed.
pub(crate) struct FailedAttempt<'a> {
    pub(crate) target: &'a Target,
    pub(crate) history_table: &'a str,
    /// The scripts of the transaction.
    pub(crate) scripts: &'a [&'a Script],
    /// Its number, from 1.
    pub(crate) number: u32,
    /// The sessions that it waited for.
    pub(crate) blockers: Vec<Holder>,
}

impl FailedAttempt<'_> {
    /// Returns the error, and the driver's error that caused it, if any.
    pub(crate) fn describe(self, error: BatchError) -> (MigrateError, Option<Error>) {
        match error {
            BatchError::Identity(script, why) => {
                let scripts = vec![self.scripts[script].id.reference()];
                (MigrateError::LeftTransaction { scripts, why }, None)
            }
            BatchError::Script(script, place, error) => {
                let script = self.scripts[script];
                let failed = MigrateError::Script {
                    script: script.id.reference(),
                    file: script.path.display().to_string(),
                    place,
                    error: error_in(&script.text, &error),
                    blockers: self.blockers,
                    attempts: self.number,
                    rolled_back: script.transaction == Transaction::Inside,
                };
                (failed, Some(error))
            }
            BatchError::LedgerMissing => {
                unreachable!("handled by the caller that writes the ledger")
            }
            BatchError::Internal(error) => {
                let schema = &self.target.schema;
                let mut cause = server_error(&error);
                if sqlstate_of(&error) == Some(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE) {
                    let hint = format!(
                        "the history's column version is 32 bits wide; run: ALTER TABLE {} ALTER COLUMN version TYPE bigint",
                        history::qualified(schema, self.history_table)
                    );
                    cause.hint = Some(hint.into());
                }
                let doing = format!("recording migrations in {schema}");
                (MigrateError::Database { doing, error: cause }, Some(error))
            }
        }
    }
}
