//! `--check`, `--dry-run`, `--dry-run=sql`: what a run would do.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::commands::run::app::{App, Sets};
use crate::domain::schema_state::{SchemaState, Severity};
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::migrations::Script;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::service::rollout::{Survey, Surveyed};
use crate::ui::{Cell, Listing, OutputFormat, count, write_document};

/// How many schemas are in which state.
#[derive(Default)]
struct Counts {
    up_to_date: usize,
    pending: usize,
    out_of_sync: usize,
    locked: usize,
    skipped: usize,
}

impl Counts {
    fn of(survey: &Survey) -> Self {
        let mut counts = Self { out_of_sync: survey.refused.len(), ..Self::default() };
        for item in &survey.schemas {
            *match item.state.severity() {
                Severity::OutOfSync => &mut counts.out_of_sync,
                Severity::Locked => &mut counts.locked,
                Severity::UpToDate => &mut counts.up_to_date,
                Severity::Pending => &mut counts.pending,
                Severity::Skipped => &mut counts.skipped,
            } += 1;
        }
        counts
    }
}

/// Writes problems and counts to stderr, and returns the exit code of `--check`.
pub(super) fn check(survey: &Survey, app: &App) -> Exit {
    warn_of_problems(survey, app);
    let Counts { pending, out_of_sync, locked, .. } = Counts::of(survey);
    let unread = if locked > 0 { format!(", {locked} locked") } else { String::new() };
    app.terminal.note(&format!(
        "{}: {pending} with pending migrations, {out_of_sync} out of sync{unread}",
        count(survey.schemas.len() + survey.refused.len(), "schema")
    ));
    match (out_of_sync, locked, pending) {
        (0, 0, 0) => Exit::Done,
        (0, 0, _) => Exit::Pending,
        // Migrations may be pending in the locked schemas.
        (0, _, _) => Exit::Locked,
        _ => Exit::Drift,
    }
}

/// Lists the migrations that would run.
pub(super) fn list(survey: &Survey, sets: &Sets, app: &App) -> Result<(), Failure> {
    let listing = Listing::new(&["schema", "migration", "file"], "nothing would run");
    let row = |(item, script): (&Surveyed, &Script)| {
        vec![
            Cell::Text(item.target.schema.to_string()),
            Cell::Text(script.id.to_string()),
            Cell::Text(script.path.display().to_string()),
        ]
    };
    let rows = survey
        .schemas
        .iter()
        .flat_map(|item| pending(item, sets).into_iter().map(move |script| (item, script)))
        .map(row);
    listing.write(&app.terminal, OutputFormat::Table, rows)?;
    warn_of_problems(survey, app);
    Ok(())
}

/// Writes the state of each schema, with its pending migrations, as one JSON document.
pub(super) fn write_json(survey: &Survey, sets: &Sets, app: &App) -> Result<(), Failure> {
    let counts = Counts::of(survey);
    let schemas = survey.schemas.iter().map(|item| {
        let version = match &item.state {
            SchemaState::Known(plan) => plan.version,
            _ => None,
        };
        let pending = pending(item, sets).into_iter().map(|script| {
            let file = script.path.display().to_string();
            json!({ "version": script.id.version, "name": script.id.name, "file": file })
        });
        json!({
            "schema": item.target.schema.as_str(),
            "tenant": (item.target.scope == Scope::Tenant).then_some(&item.target.label),
            "state": state(item.state.severity()),
            "version": version,
            "pending": pending.collect::<Vec<Value>>(),
            "problems": problems(item, app),
        })
    });
    let refused = survey.refused.iter().map(|row| {
        json!({ "tenant": row.slug, "schema": row.schema, "problem": row.reason.to_string() })
    });
    let document = json!({
        "v": 1,
        "counts": {
            "up-to-date": counts.up_to_date, "pending": counts.pending,
            "out-of-sync": counts.out_of_sync, "locked": counts.locked,
            "skipped": counts.skipped,
        },
        "schemas": schemas.collect::<Vec<Value>>(),
        "refused": refused.collect::<Vec<Value>>(),
    });
    let mut out = app.terminal.out();
    write_document(&mut out, &document)?;
    Ok(out.flush()?)
}

/// Writes the SQL that would run.
pub(super) fn sql(
    survey: &Survey,
    migrator: &PostgresMigrator,
    app: &App,
) -> Result<Exit, Failure> {
    let mut out = app.terminal.out();
    for item in &survey.schemas {
        if let SchemaState::Known(plan) = &item.state {
            out.write_all(migrator.preview(&item.target, plan).as_bytes())?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

const fn state(severity: Severity) -> &'static str {
    match severity {
        Severity::OutOfSync => "out-of-sync",
        Severity::Locked => "locked",
        Severity::UpToDate => "up-to-date",
        Severity::Pending => "pending",
        Severity::Skipped => "skipped",
    }
}

/// Returns the pending migrations of a schema, in their order.
fn pending<'a>(item: &Surveyed, sets: &'a Sets) -> Vec<&'a Script> {
    let set = match item.target.scope {
        Scope::Shared => &sets.shared,
        Scope::Tenant => &sets.tenant,
    };
    match &item.state {
        SchemaState::Known(plan) => {
            plan.pending.iter().map(|&index| &set.scripts()[index]).collect()
        }
        _ => Vec::new(),
    }
}

fn problems(item: &Surveyed, app: &App) -> Vec<String> {
    let selection = Target::option(std::iter::once(&*item.target));
    app.terminal.problems(&item.state, &selection)
}

fn warn_of_problems(survey: &Survey, app: &App) {
    for item in &survey.schemas {
        for problem in problems(item, app) {
            app.terminal.warn(&format!("{}: {problem}", item.target.schema));
        }
    }
    for row in &survey.refused {
        app.terminal.warn(&format!("tenant '{}': {}", row.slug, row.reason));
    }
}
