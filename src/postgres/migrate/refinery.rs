//! refinery's runner over a connection type of ours: it chooses, we execute.
//!
//! refinery decides which migrations are applied, in which order, and refuses what its
//! rules refuse; the text it would have sent goes through [`Batch`], which claims first,
//! checks, and knows which statement of which file failed.

use crate::postgres::connection::options::EngineOptions;
use std::fmt;

use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use refinery_core::{Migration, Runner, Target as RefineryTarget};
use time::OffsetDateTime;

use crate::domain::applied::Applied;
use crate::domain::target::Target;
use crate::migrations::Script;
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::batch::{Batch, Ending, WorkError, Worked};
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::open::Opened;
use crate::service::event::Progress;

/// What one transaction is asked to do.
pub(crate) struct Work<'a> {
    /// Every script of the set that is applied, and those that this transaction applies.
    pub(crate) scripts: &'a [&'a Script],
    /// Those that it applies, in order.
    pub(crate) pending: &'a [&'a Script],
    /// Whether only the history is written.
    pub(crate) fake: bool,
}

/// Hands the work to refinery and returns what our connection type did with its orders.
pub(crate) async fn run(
    session: &Session,
    opened: &Opened,
    options: &EngineOptions,
    target: &Target,
    work: &Work<'_>,
    ending: &Ending,
    progress: &Progress,
) -> Result<Worked, WorkError> {
    let migrations: Vec<Migration> = work
        .scripts
        .iter()
        .map(|script| script.refinery.clone())
        .collect();
    let goal = if work.fake {
        RefineryTarget::Fake
    } else {
        RefineryTarget::Latest
    };
    let mut runner = Runner::new(&migrations).set_grouped(true).set_target(goal);
    runner.set_migration_table_name(qualified(&target.schema, &options.history_table));
    let mut connection = SchemaConnection {
        session,
        opened,
        options,
        target,
        work,
        ending,
        progress,
        is_begun: false,
        worked: None,
    };
    let report = runner.run_async(&mut connection).await;
    match (connection.worked, report) {
        (Some(worked), _) => worked,
        // Our own plan was made from the same rows and files, so this is a bug in one of the two.
        (None, report) => Err(WorkError::Identity(
            0,
            format!("refinery and pricesync disagree on what is pending: {report:?}"),
        )),
    }
}

/// The connection that refinery sees: one open transaction of one schema.
struct SchemaConnection<'a> {
    session: &'a Session,
    opened: &'a Opened,
    options: &'a EngineOptions,
    target: &'a Target,
    work: &'a Work<'a>,
    ending: &'a Ending,
    progress: &'a Progress,
    /// Whether refinery has sent its statement for the history table; ours is in the batch.
    is_begun: bool,
    worked: Option<Result<Worked, WorkError>>,
}

/// What refinery is told; the real error waits in the connection.
#[derive(Debug)]
struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

impl AsyncTransaction for SchemaConnection<'_> {
    type Error = Refused;

    /// Receives first the statement that creates the history, then, in a group, each text
    /// followed by its history row (or the rows alone, when nothing but history is written).
    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, Self::Error> {
        let queries: Vec<&str> = queries.collect();
        if !self.is_begun {
            self.is_begun = true;
            return Ok(0);
        }
        let texts: Vec<&str> = if self.work.fake {
            Vec::new()
        } else {
            queries.iter().step_by(2).copied().collect()
        };
        let agreed = if self.work.fake {
            queries.len() == self.work.pending.len()
        } else {
            texts.len() == self.work.pending.len()
                && texts
                    .iter()
                    .zip(self.work.pending)
                    .all(|(text, script)| **text == *script.text)
        };
        if !agreed {
            return Err(Refused("refinery chose other scripts than the plan"));
        }
        let batch = Batch::new(
            &self.target.schema,
            &self.options.history_table,
            self.opened.has_history,
            self.work.pending,
            self.work.fake,
        );
        let result = batch
            .run(
                self.session,
                self.opened,
                &self.target.schema,
                self.ending,
                self.progress,
            )
            .await;
        self.worked = Some(result);
        match self.worked {
            Some(Ok(_)) => Ok(self.work.pending.len()),
            _ => Err(Refused("the work failed")),
        }
    }
}

impl AsyncQuery<Vec<Migration>> for SchemaConnection<'_> {
    /// refinery asks for the history only; it was read when the transaction was opened.
    async fn query<'a>(&'a mut self, _: &'a str) -> Result<Vec<Migration>, Self::Error> {
        let Ok(rows) = &self.opened.history else {
            return Err(Refused("the history is damaged"));
        };
        Ok(rows.iter().map(|row| self.as_refinery_sees(row)).collect())
    }
}

impl AsyncMigrate for SchemaConnection<'_> {}

impl SchemaConnection<'_> {
    /// A row made over the file's raw bytes is as good as one over the normalised text, but
    /// refinery compares with one checksum only. The time matters to nobody here, and
    /// refinery panics on one that it cannot read, so it gets another.
    fn as_refinery_sees(&self, row: &Applied) -> Migration {
        let checksum = self
            .work
            .scripts
            .iter()
            .find(|script| script.id.version == row.version && script.id.accepts(row.checksum))
            .map_or(row.checksum, |script| script.id.checksum);
        Migration::applied(
            row.version,
            row.name.clone(),
            OffsetDateTime::UNIX_EPOCH,
            checksum,
        )
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
