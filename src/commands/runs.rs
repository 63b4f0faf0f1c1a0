//! `runs`: lists stored migration runs.

use clap::Subcommand;

use super::args::output::OutputArg;
use super::run::CommandRun;
use super::run::app::{Access, App};
use crate::domain::hint::Hint;
use crate::error::{Exit, Failure};
use crate::postgres::bookkeeping::run_log::{StoredRun, items, stored};
use crate::service::failure::ServerError;
use crate::ui::{Cell, Listing, count};

/// List the last migration runs, or show one
///
/// A run is stored if it changes something or fails, but not if nothing is pending.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Number of runs, the newest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    last: usize,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the outcome of each schema in a run
    Show {
        /// Number of the run
        run: i64,
        #[command(flatten)]
        output: OutputArg,
    },
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let database = app.database(Access::Read, 2).await?;
        let failed = |error: ServerError| Failure::words(Exit::Unexpected, error);
        match self.command {
            None => {
                let runs = stored(&database, None, self.last).await.map_err(failed)?;
                list(runs, self.output, app)
            }
            Some(Command::Show { run, output }) => {
                let found = stored(&database, Some(run), 1).await.map_err(failed)?;
                let Some(header) = found.into_iter().next() else {
                    let failure = Failure::words(Exit::NotFound, format!("no run {run}"));
                    return Err(failure.hint(Hint::command("list the runs", "runs")));
                };
                let items = items(&database, run).await.map_err(failed)?;
                let listing = Listing::new(
                    &["schema", "tenant", "outcome", "scripts", "ms", "reason"],
                    "no schema was migrated",
                )
                .named_by("tenant");
                let rows = items.into_iter().map(|item| {
                    vec![
                        Cell::Text(item.schema),
                        Cell::Text(item.tenant),
                        Cell::Text(item.outcome),
                        Cell::Number(item.scripts),
                        item.took_ms.map_or(Cell::Absent, Cell::Number),
                        Cell::maybe(item.reason),
                    ]
                });
                listing.write(&app.terminal, output.format(), rows)?;
                let [schemas, migrated, up_to_date, failed, skipped, not_started] = header.counts;
                app.terminal.note(&format!(
                    "run {run}, {}, by {}: {}",
                    header.started_at, header.started_by, header.command
                ));
                app.terminal.note(&format!(
                    "{}: {migrated} migrated, {up_to_date} up to date, {failed} failed, {skipped} skipped, {not_started} not started · {}",
                    count(usize::try_from(schemas).unwrap_or_default(), "schema"),
                    duration(&header)
                ));
                Ok(Exit::Done)
            }
        }
    }
}

fn list(runs: Vec<StoredRun>, output: OutputArg, app: &App) -> Result<Exit, Failure> {
    let listing = Listing::new(
        &[
            "run",
            "started",
            "took",
            "schemas",
            "migrated",
            "up to date",
            "failed",
            "skipped",
            "not started",
            "by",
            "command",
        ],
        "no runs",
    )
    .named_by("run");
    let rows = runs.into_iter().map(|run| {
        let mut cells = vec![
            Cell::Number(run.id),
            Cell::Text(run.started_at.clone()),
            Cell::Text(duration(&run)),
        ];
        cells.extend(run.counts.map(Cell::Number));
        cells.extend([Cell::Text(run.started_by), Cell::Text(run.command)]);
        cells
    });
    listing.write(&app.terminal, output.format(), rows)?;
    Ok(Exit::Done)
}

/// Returns the duration of a run; a run without an end is still running, or was killed.
fn duration(run: &StoredRun) -> String {
    match &run.took {
        Some(took) if run.interrupted => format!("{took} s, interrupted"),
        Some(took) => format!("{took} s"),
        None => "not finished".to_owned(),
    }
}
