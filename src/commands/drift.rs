//! `drift`: compares the structure of schemas at the same version.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;

use super::args::output::OutputArg;
use super::args::overrides::JobsArg;
use super::args::select::SelectArgs;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::jobs::{TenantIds, run_in_each};
use super::run::tenants::select_tenants;
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::SchemaState;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::postgres::connection::database::Database;
use crate::postgres::report::drift::{Shape, ShapeReader};
use crate::service::event::Operation;
use crate::service::fleet::SchemaMigrator as _;
use crate::service::rollout::RolloutError;
use crate::service::selection::target;
use crate::settings::Overrides;
use crate::ui::{Cell, Listing, OutputFormat, clean, count};

const DRIFT: Operation = Operation { command: "drift", doing: "comparing", done: Some("compared") };

/// Maximum number of differing lines in the table for a shape.
const LINES: usize = 12;
/// Maximum number of tenants in the table for a shape.
const NAMES: usize = 6;

/// Compare the structure of schemas at the same version
///
/// Reads the structure of each selected schema (tables, columns, constraints, indexes,
/// functions, privileges and all other objects, but no rows) and groups the schemas of a version
/// by their shape. The most frequent shape of a version is the usual one; for each other shape it
/// prints what is missing (-) and what is additional (+). Exit 11 if there is another shape.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync drift
  pricesync drift -o names | pricesync backup --from-file - --out backups")]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    jobs: JobsArg,
    #[command(flatten)]
    output: OutputArg,
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.jobs.override_settings(overrides);
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let selectors = self.select.read()?;
        let (database, pace) = app.database_for_jobs(Access::Read).await?;
        let catalog = app.catalog(&database);
        let tenants = select_tenants(selectors, &catalog, app).await?;
        let targets: Vec<Arc<Target>> = tenants.iter().map(target).collect();
        if targets.is_empty() {
            app.terminal.note("no tenants");
        }
        let versioned = versioned(&targets, app, &database).await?;
        let reader = Arc::new(ShapeReader::new(database, &app.settings.history_table, versioned));
        let ids = TenantIds::new(catalog, &tenants);
        let summary = run_in_each(app, DRIFT, pace, ids, &reader, &targets).await?;
        let shapes = reader.shapes();
        print(&shapes, self, app)?;
        Ok(match Exit::of(&summary) {
            Exit::Done if shapes.iter().any(|shape| !is_usual(shape, &shapes)) => Exit::Drift,
            other => other,
        })
    }
}

/// Returns the schemas that are compared with the others of their version. Schemas whose history does
/// not match the files are compared with each other, and so are all schemas where there are no files.
async fn versioned(
    targets: &[Arc<Target>],
    app: &App,
    database: &Database,
) -> Result<HashSet<SchemaName>, Failure> {
    let Some(migrator) = app.surveyor(database) else {
        return Ok(HashSet::new());
    };
    let states = migrator.survey(targets).await;
    let states = states.map_err(RolloutError::Survey)?;
    let mismatches =
        |state: &SchemaState| matches!(state, SchemaState::Drifted(..) | SchemaState::Damaged(_));
    Ok(targets
        .iter()
        .zip(states)
        .filter(|(_, state)| !mismatches(state))
        .map(|(target, _)| target.schema.clone())
        .collect())
}

/// Returns the most frequent shape of the same version.
fn usual<'a>(shape: &Shape, shapes: &'a [Shape]) -> Option<&'a Shape> {
    shapes.iter().find(|other| other.version == shape.version)
}

fn is_usual(shape: &Shape, shapes: &[Shape]) -> bool {
    usual(shape, shapes).is_some_and(|usual| usual.digest == shape.digest)
}

fn print(shapes: &[Shape], args: &Args, app: &App) -> Result<(), Failure> {
    match args.output.format() {
        OutputFormat::Table => print_table(shapes, app),
        format @ OutputFormat::Json => {
            let listing = Listing::new(
                &["version", "shape", "usual", "tenants", "more", "less"],
                "no tenants",
            );
            let rows = shapes.iter().map(|shape| {
                let (more, less) =
                    usual(shape, shapes).map(|usual| shape.differences(usual)).unwrap_or_default();
                let lines =
                    |lines: Vec<&str>| Cell::List(lines.into_iter().map(str::to_owned).collect());
                vec![
                    version(shape),
                    Cell::Text(short(shape).to_owned()),
                    Cell::Flag(is_usual(shape, shapes)),
                    Cell::List(shape.members.clone()),
                    lines(more),
                    lines(less),
                ]
            });
            Ok(listing.write(&app.terminal, format, rows)?)
        }
        format @ (OutputFormat::Csv | OutputFormat::Names) => {
            let listing = Listing::new(&["tenant", "version", "shape", "usual"], "no tenants");
            let only_unusual = format == OutputFormat::Names;
            let rows = shapes
                .iter()
                .filter(|shape| !only_unusual || !is_usual(shape, shapes))
                .flat_map(|shape| {
                    shape.members.iter().map(|member| {
                        vec![
                            Cell::Text(member.clone()),
                            version(shape),
                            Cell::Text(short(shape).to_owned()),
                            Cell::Flag(is_usual(shape, shapes)),
                        ]
                    })
                });
            Ok(listing.write(&app.terminal, format, rows)?)
        }
    }
}

fn print_table(shapes: &[Shape], app: &App) -> Result<(), Failure> {
    let listing = Listing::new(&["version", "shape", "schemas", "which"], "no tenants");
    let rows = shapes.iter().map(|shape| {
        let mut names: Vec<String> = shape.members.iter().take(NAMES).cloned().collect();
        if shape.members.len() > NAMES {
            names.push(format!("… and {} more", shape.members.len() - NAMES));
        }
        vec![
            version(shape),
            Cell::Text(short(shape).to_owned()),
            Cell::count(shape.members.len()),
            Cell::List(names),
        ]
    });
    listing.write(&app.terminal, OutputFormat::Table, rows)?;
    let mut out = app.terminal.out();
    for shape in shapes.iter().filter(|shape| !is_usual(shape, shapes)) {
        let Some(usual) = usual(shape, shapes) else {
            continue;
        };
        let (more, less) = shape.differences(usual);
        writeln!(
            out,
            "\n{} ({}) differs from {}:",
            short(shape),
            count(shape.members.len(), "schema"),
            short(usual)
        )?;
        let lines = less.iter().map(|line| ('-', line)).chain(more.iter().map(|line| ('+', line)));
        for (sign, line) in lines.take(LINES) {
            writeln!(out, "  {sign} {}", clean(line))?;
        }
        let all = less.len() + more.len();
        if all > LINES {
            writeln!(out, "  … and {} more; -o json lists all", all - LINES)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn version(shape: &Shape) -> Cell {
    if shape.version.is_empty() { Cell::Absent } else { Cell::Text(shape.version.clone()) }
}

/// Returns the first 8 characters of the digest, for the table.
fn short(shape: &Shape) -> &str {
    shape.digest.get(..8).unwrap_or(&shape.digest)
}
