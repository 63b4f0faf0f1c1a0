//! Runs a template in a schema: history rows, template, and the checks that follow every script.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::rows::Rows;
use super::{Template, proof};
use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::SchemaName;
use crate::migrations::Script;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::fingerprint::Fingerprint;
use crate::postgres::transaction::batch::{BatchError, BatchOutcome, CLOCK, NOW, nonce};
use crate::postgres::transaction::final_check::FinalCheck;
use crate::postgres::transaction::history::{self, qualified};
use crate::postgres::transaction::open::OpenTransaction;
use crate::service::event::{EventKind, Progress};

/// A template to be run in one schema.
pub(crate) struct TemplateRun<'a> {
    pub(crate) template: &'a Template,
    /// The scripts that it replaces.
    pub(crate) scripts: &'a [&'a Script],
    pub(crate) schema: &'a SchemaName,
    pub(crate) options: &'a EngineOptions,
    /// Whether the schema existed before, so that it must be checked to be empty.
    pub(crate) requires_empty: bool,
    /// Whether the fingerprint of the schema need not be compared with the template's.
    pub(crate) is_verified: bool,
}

/// Why a template was not applied. The transaction must be rolled back; the files can be run instead.
#[derive(Debug)]
pub(crate) enum TemplateMismatch {
    /// The server returned an error: the schema is not empty, a lock timeout, a lost connection.
    Server(Error),
    /// It changed transaction, role or current schema.
    Identity,
    /// The schema has another fingerprint than the template.
    Different,
    LedgerMissing,
}

impl TemplateRun<'_> {
    /// Runs the template in the open transaction and returns the outcome that its scripts would have.
    ///
    /// Each script is reported with an equal share of the template's time, so that the times of a schema
    /// add up to the server's. All are reported as finished once the checks have passed.
    pub(crate) async fn run(
        &self,
        session: &Session,
        opened: &OpenTransaction,
        check: &FinalCheck,
        progress: &Progress,
    ) -> Result<BatchOutcome, TemplateMismatch> {
        if let Some(first) = self.scripts.first() {
            let script = first.id.reference();
            progress.send(EventKind::ScriptStarted { script });
        }
        let nonce = nonce();
        let message = self.message(&nonce, check.column(opened, false));
        let compare = async {
            if self.is_verified {
                return Ok(None);
            }
            let table = &self.options.history_table;
            let found = Fingerprint::read(session, self.schema, table).await?;
            let rows = if self.template.has_rows() {
                Rows::read(session, self.schema, table).await?
            } else {
                Rows::default()
            };
            Ok(Some(proof(&found, &rows)))
        };
        // Both are sent before the first reply.
        let (rows, found) = join(session.rows(&message), compare).await;
        let mismatch = |error| match error {
            BatchError::Internal(error) | BatchError::Script(_, _, error) => {
                TemplateMismatch::Server(error)
            }
            BatchError::Identity(..) => TemplateMismatch::Identity,
            BatchError::LedgerMissing => TemplateMismatch::LedgerMissing,
        };
        let rows = rows.map_err(|error| mismatch(check.failure(error)))?;
        let row = rows.iter().find(|row| row.optional(0) == Some(&nonce));
        let Some(row) = row.filter(|row| opened.is_unchanged(row)) else {
            return Err(TemplateMismatch::Identity);
        };
        // Without a guard there is no eighth column.
        let inspected = check.inspect(session, self.schema, row.is_true(7), false);
        let (findings, ledger_written) = inspected.await.map_err(mismatch)?;
        let found = found.map_err(TemplateMismatch::Server)?;
        if found.is_some_and(|found| found != self.template.fingerprint) {
            return Err(TemplateMismatch::Different);
        }
        let took = Duration::try_from_secs_f64(clock(row, 6) - clock(row, 5));
        let share =
            took.unwrap_or_default() / u32::try_from(self.scripts.len()).unwrap_or(1).max(1);
        let applied = self
            .scripts
            .iter()
            .map(|script| AppliedScript { script: script.id.reference(), took: share });
        let applied: Vec<AppliedScript> = applied.collect();
        for script in &applied {
            progress.send(EventKind::ScriptFinished { script: script.clone() });
        }
        Ok(BatchOutcome { applied, findings, ledger_written })
    }

    fn message(&self, nonce: &str, guard: Option<String>) -> String {
        let table = &self.options.history_table;
        let mut sql = String::with_capacity(self.template.sql.len() + 2_048);
        if self.requires_empty {
            // Every object of a schema depends on it. Casting the text fails, which ends the message
            // before anything is created.
            let _ = write!(
                sql,
                "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass \
                 AND refobjid = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {})) THEN 'the schema is not empty' ELSE '0' END::int; ",
                escape_literal(self.schema.as_str())
            );
        }
        sql.push_str(&history::create_table(self.schema, table));
        let rows: Vec<String> = self
            .scripts
            .iter()
            .map(|script| {
                format!(
                    "({}, {}, {NOW}, '{}')",
                    script.id.version,
                    escape_literal(&script.id.name),
                    script.id.checksum
                )
            })
            .collect();
        // Planning parallel workers for the index of an empty table costs more than building it.
        let _ = write!(
            sql,
            " INSERT INTO {} (version, name, applied_on, checksum) VALUES {}; \
             SET LOCAL max_parallel_maintenance_workers TO 0; SET LOCAL check_function_bodies TO off; \
             {};\nSELECT '{nonce}', pg_current_xact_id(), current_user, session_user, current_schema(), \
             extract(epoch FROM statement_timestamp()), {CLOCK}{}",
            qualified(self.schema, table),
            rows.join(", "),
            self.template.sql,
            guard.map_or_else(String::new, |guard| format!(", {guard}"))
        );
        sql
    }
}

fn clock(row: &Row, column: usize) -> f64 {
    row.optional(column).and_then(|text| text.parse().ok()).unwrap_or_default()
}
