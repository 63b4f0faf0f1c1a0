//! A template run in a schema: claims first, then the script, then the same checks as behind a file.

use crate::postgres::connection::options::EngineOptions;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join;
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::Template;
use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::SchemaName;
use crate::migrations::Script;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::fingerprint::Fingerprint;
use crate::postgres::transaction::batch::{CLOCK, Ending, NOW, WorkError, Worked, nonce};
use crate::postgres::transaction::history::{self, qualified};
use crate::postgres::transaction::open::Opened;
use crate::service::event::{EventKind, Progress};

/// A template on its way into one schema.
pub(crate) struct Applying<'a> {
    pub(crate) template: &'a Template,
    /// The scripts that it stands for.
    pub(crate) scripts: &'a [&'a Script],
    pub(crate) schema: &'a SchemaName,
    pub(crate) options: &'a EngineOptions,
    /// Whether the schema was there before and has to be proven empty.
    pub(crate) may_be_filled: bool,
    /// Whether what comes of it is compared with the template's fingerprint.
    pub(crate) proven: bool,
}

/// Why a template was not applied; the transaction is of no more use, and the files may be
/// run instead.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// The server refused something: the schema is not empty, a lock, a broken connection.
    Server(Error),
    /// It changed what it may not.
    Identity,
    /// The schema is not what the template should have made.
    Different,
    /// The ledger has gone.
    NoLedger,
}

impl Applying<'_> {
    /// Runs the template in the open transaction and returns what running its scripts would have.
    ///
    /// The scripts were not run one by one, so each is said to have taken an equal share of
    /// the template's time, in the outcome as in the events: what a schema's scripts took adds up to
    /// what the server worked for it. All are said to be finished once it is known that they are.
    pub(crate) async fn run(
        &self,
        session: &Session,
        opened: &Opened,
        ending: &Ending,
        progress: &Progress,
    ) -> Result<Worked, Unfit> {
        if let Some(first) = self.scripts.first() {
            let script = first.id.reference();
            progress.send(EventKind::ScriptStarted { script });
        }
        let nonce = nonce();
        let work = self.message(&nonce, ending.column(opened, false));
        let compare = async {
            if self.proven {
                return Ok(None);
            }
            Fingerprint::read(session, self.schema, &self.options.history_table)
                .await
                .map(Some)
        };
        // Both sent before the first is answered.
        let (worked, found) = join(session.rows(&work), compare).await;
        let unfit = |error| match error {
            WorkError::Ours(error) | WorkError::Script(_, _, error) => Unfit::Server(error),
            WorkError::Identity(..) => Unfit::Identity,
            WorkError::NoLedger => Unfit::NoLedger,
        };
        let rows = worked.map_err(|error| unfit(ending.failure(error)))?;
        let check = rows.iter().find(|row| row.optional(0) == Some(&nonce));
        let Some(check) = check.filter(|row| opened.is_unchanged(row)) else {
            return Err(Unfit::Identity);
        };
        // Without a guard there is no eighth column.
        let look = check.is_true(7);
        let judged = ending.judge(session, self.schema, look, false).await;
        let (touched, noted) = judged.map_err(unfit)?;
        let found = found.map_err(Unfit::Server)?;
        if found.is_some_and(|found| found.hash() != self.template.fingerprint) {
            return Err(Unfit::Different);
        }
        let took = Duration::try_from_secs_f64(clock(check, 6) - clock(check, 5));
        let share =
            took.unwrap_or_default() / u32::try_from(self.scripts.len()).unwrap_or(1).max(1);
        let applied = self.scripts.iter().map(|script| AppliedScript {
            script: script.id.reference(),
            took: share,
        });
        let applied: Vec<AppliedScript> = applied.collect();
        for script in &applied {
            progress.send(EventKind::ScriptFinished {
                script: script.clone(),
            });
        }
        Ok(Worked {
            applied,
            touched,
            noted,
        })
    }

    fn message(&self, nonce: &str, ending: Option<String>) -> String {
        let table = &self.options.history_table;
        let mut sql = String::with_capacity(self.template.sql.len() + 2_048);
        if self.may_be_filled {
            // Everything that is in a schema depends on it. The text is no number, which ends
            // the message before anything is done.
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
        // Planning how many workers could build an empty index costs more than building it.
        let _ = write!(
            sql,
            " INSERT INTO {} (version, name, applied_on, checksum) VALUES {}; \
             SET LOCAL max_parallel_maintenance_workers TO 0; SET LOCAL check_function_bodies TO off; \
             {};\nSELECT '{nonce}', pg_current_xact_id(), current_user, session_user, current_schema(), \
             extract(epoch FROM statement_timestamp()), {CLOCK}{}",
            qualified(self.schema, table),
            rows.join(", "),
            self.template.sql,
            ending.map_or_else(String::new, |ending| format!(", {ending}"))
        );
        sql
    }
}

fn clock(row: &Row, column: usize) -> f64 {
    row.optional(column)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
