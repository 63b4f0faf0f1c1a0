//! The report of `--dry-run=execute`: time and locks of each statement.

use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::SummaryFormat;
use crate::commands::run::app::App;
use crate::error::{Exit, Failure};
use crate::postgres::migrate::dry_run::{DryRun, Lock, StatementReport};
use crate::service::summary::Summary;
use crate::ui::{
    Cell, Listing, OutputFormat, SummaryDocument, count, fit, summary_document, took,
    write_document,
};

/// Columns of a statement's first line in the table.
const STATEMENT_WIDTH: usize = 40;

/// A statement in the JSON document; times are in seconds.
#[derive(Serialize)]
struct Statement<'a> {
    migration: String,
    file: &'a str,
    line: usize,
    schemas: usize,
    median: f64,
    slowest: f64,
    slowest_schema: &'a str,
    locks: Vec<TableLock<'a>>,
    rewritten: Vec<&'a str>,
}

#[derive(Serialize)]
struct TableLock<'a> {
    table: &'a str,
    mode: &'static str,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    summary: SummaryDocument<'a>,
    statements: Vec<Statement<'a>>,
    /// The files that were not tried in some schema.
    not_tried: Vec<String>,
}

/// Prints the report to stdout and returns the exit code.
pub(super) fn finish(
    summary: &Summary,
    dry_run: &DryRun,
    output: Option<SummaryFormat>,
    app: &App,
) -> Result<Exit, Failure> {
    let (tried, untried) = (dry_run.statements(), dry_run.untried());
    match output {
        Some(SummaryFormat::Json) => {
            let document = Document {
                summary: summary_document(summary),
                statements: tried.iter().map(statement).collect(),
                not_tried: untried.iter().map(ToString::to_string).collect(),
            };
            let mut out = app.terminal.out();
            write_document(&mut out, &document)?;
            out.flush()?;
        }
        None => {
            table(&tried, app)?;
            if let [first, later @ ..] = &untried[..] {
                let later = match later.len() {
                    0 => String::new(),
                    more => format!(" and {}", count(more, "later file")),
                };
                app.terminal.note(&format!(
                    "not tried: {first}{later}, because what is before must be committed first"
                ));
            }
        }
    }
    Ok(Exit::of(summary))
}

fn table(tried: &[StatementReport], app: &App) -> Result<(), Failure> {
    let listing = Listing::new(
        &[
            "migration",
            "line",
            "statement",
            "schemas",
            "median",
            "slowest",
            "in",
            "locks",
            "rewrites",
        ],
        "no statement was run",
    );
    let rows = tried.iter().map(|one| {
        let locks: Vec<String> = one
            .locks
            .iter()
            // Weaker locks do not block readers or writers.
            .filter(|(_, lock)| **lock > Lock::RowExclusive)
            .map(|(table, lock)| format!("{table}: {}", lock.name()))
            .collect();
        vec![
            Cell::Text(one.script.to_string()),
            Cell::count(one.place.line),
            Cell::Text(fit(one.place.text.trim(), STATEMENT_WIDTH).into_owned()),
            Cell::count(one.times.len()),
            Cell::Text(took(median(&one.times))),
            Cell::Text(took(one.slowest.0)),
            Cell::Text(one.slowest.1.to_string()),
            Cell::List(locks),
            Cell::List(one.rewritten.iter().cloned().collect()),
        ]
    });
    listing.write(&app.terminal, OutputFormat::Table, rows)?;
    Ok(())
}

fn statement(tried: &StatementReport) -> Statement<'_> {
    Statement {
        migration: tried.script.to_string(),
        file: &tried.file,
        line: tried.place.line,
        schemas: tried.times.len(),
        median: median(&tried.times).as_secs_f64(),
        slowest: tried.slowest.0.as_secs_f64(),
        slowest_schema: tried.slowest.1.as_str(),
        locks: tried
            .locks
            .iter()
            .map(|(table, lock)| TableLock { table, mode: lock.name() })
            .collect(),
        rewritten: tried.rewritten.iter().map(String::as_str).collect(),
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
