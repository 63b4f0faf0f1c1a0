//! Drives refinery's runner with a connection type that executes in a schema's transaction.
//!
//! refinery decides which migrations are applied in which order and enforces its rules. [`Batch`] sends
//! the text, because it inserts the history row first, checks the transaction and locates errors.

use std::fmt;

use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use refinery_core::{Migration, Runner, Target as RefineryTarget};
use time::OffsetDateTime;

use crate::domain::applied::Applied;
use crate::domain::target::Target;
use crate::migrations::Script;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::batch::{Batch, BatchError, BatchOutcome};
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::OpenTransaction;
use crate::service::event::Progress;

/// The scripts of one transaction.
pub(crate) struct ScriptSelection<'a> {
    /// The scripts that are applied already and those that this transaction applies.
    pub(crate) scripts: &'a [&'a Script],
    /// Those that it applies, in order.
    pub(crate) pending: &'a [&'a Script],
    /// Whether only the history is written.
    pub(crate) fake: bool,
}

/// Runs refinery's runner and returns the outcome of the batch that it requested.
pub(crate) async fn run(
    session: &Session,
    opened: &OpenTransaction,
    options: &EngineOptions,
    target: &Target,
    selection: &ScriptSelection<'_>,
    check: &FinalCheck,
    progress: &Progress,
) -> Result<BatchOutcome, BatchError> {
    let migrations: Vec<Migration> =
        selection.scripts.iter().map(|script| script.refinery.clone()).collect();
    let goal = if selection.fake { RefineryTarget::Fake } else { RefineryTarget::Latest };
    let mut runner = Runner::new(&migrations).set_grouped(true).set_target(goal);
    runner.set_migration_table_name(qualified(&target.schema, &options.history_table));
    let mut connection = SchemaConnection {
        session,
        opened,
        options,
        target,
        selection,
        check,
        progress,
        is_prepared: false,
        outcome: None,
    };
    let report = runner.run_async(&mut connection).await;
    match (connection.outcome, report) {
        (Some(outcome), _) => outcome,
        // Both plans come from the same rows and files, so this is a bug in one of the two.
        (None, report) => Err(BatchError::Identity(
            0,
            format!("refinery and pricesync disagree on what is pending: {report:?}"),
        )),
    }
}

/// The connection that refinery sees: one open transaction of one schema.
struct SchemaConnection<'a> {
    session: &'a Session,
    opened: &'a OpenTransaction,
    options: &'a EngineOptions,
    target: &'a Target,
    selection: &'a ScriptSelection<'a>,
    check: &'a FinalCheck,
    progress: &'a Progress,
    /// Whether refinery has sent its `CREATE TABLE` for the history, which the batch replaces.
    is_prepared: bool,
    outcome: Option<Result<BatchOutcome, BatchError>>,
}

/// The error that refinery sees; the cause stays in [`SchemaConnection::outcome`].
#[derive(Debug)]
struct RefineryError(&'static str);

impl fmt::Display for RefineryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for RefineryError {}

impl AsyncTransaction for SchemaConnection<'_> {
    type Error = RefineryError;

    /// Receives first the statement that creates the history table, then each text followed by its
    /// history row, or the rows alone with `fake`.
    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, Self::Error> {
        let queries: Vec<&str> = queries.collect();
        if !self.is_prepared {
            self.is_prepared = true;
            return Ok(0);
        }
        let texts: Vec<&str> = if self.selection.fake {
            Vec::new()
        } else {
            queries.iter().step_by(2).copied().collect()
        };
        let agreed = if self.selection.fake {
            queries.len() == self.selection.pending.len()
        } else {
            texts.len() == self.selection.pending.len()
                && texts
                    .iter()
                    .zip(self.selection.pending)
                    .all(|(text, script)| **text == *script.text)
        };
        if !agreed {
            return Err(RefineryError("refinery chose other scripts than the plan"));
        }
        let batch = Batch::new(
            self.options,
            self.target,
            self.opened.has_history,
            self.selection.pending,
            self.selection.fake,
        );
        let result = batch
            .run(self.session, self.opened, &self.target.schema, self.check, self.progress)
            .await;
        self.outcome = Some(result);
        match self.outcome {
            Some(Ok(_)) => Ok(self.selection.pending.len()),
            _ => Err(RefineryError("the batch failed")),
        }
    }
}

impl AsyncQuery<Vec<Migration>> for SchemaConnection<'_> {
    /// refinery queries only the history, which was read when the transaction was opened.
    async fn query<'a>(&'a mut self, _: &'a str) -> Result<Vec<Migration>, Self::Error> {
        let Ok(rows) = &self.opened.history else {
            return Err(RefineryError("the history is damaged"));
        };
        Ok(rows.iter().map(|row| self.as_refinery_sees(row)).collect())
    }
}

impl AsyncMigrate for SchemaConnection<'_> {}

impl SchemaConnection<'_> {
    /// Returns a history row in refinery's type. A checksum of the file's raw bytes is valid too, but
    /// refinery accepts only that of the normalised text, so it is replaced. refinery panics on an
    /// invalid time and ignores a valid one, so a constant takes its place.
    fn as_refinery_sees(&self, row: &Applied) -> Migration {
        let checksum = self
            .selection
            .scripts
            .iter()
            .find(|script| script.id.version == row.version && script.id.accepts(row.checksum))
            .map_or(row.checksum, |script| script.id.checksum);
        Migration::applied(row.version, row.name.clone(), OffsetDateTime::UNIX_EPOCH, checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schema_name::SchemaName;
    use crate::postgres::transaction::history::create_table;

    #[test]
    fn the_history_table_is_refinerys() {
        let schema = SchemaName::parse("tenant_acme").expect("valid");
        let words = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let theirs =
            SchemaConnection::assert_migrations_table_query(&qualified(&schema, "history"));
        assert_eq!(words(&create_table(&schema, "history")), words(&theirs));
    }
}
