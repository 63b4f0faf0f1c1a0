//! `drift`: which tenants are not made like the others of their version.

use std::collections::HashMap;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::Output;
use super::args::select::SelectArgs;
use super::run::app::{Access, App, connections_for};
use super::run::jobs::fan_out;
use crate::domain::catalog::TenantCatalog as _;
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

const DRIFT: Operation = Operation {
    command: "drift",
    doing: "comparing",
    done: Some("compared"),
};

/// So many lines of what differs are shown for a shape.
const LINES: usize = 12;
/// So many tenants of a shape are named in a table.
const NAMES: usize = 6;

/// Compare how tenants' schemas are made: which are not like the others of their version
///
/// Reads the structure of every selected schema (tables, columns, constraints, indexes, functions,
/// privileges and whatever else the server keeps, but no rows), and puts those of one version that are made
/// alike together. Of each version the shape that most schemas have is taken for the right one; for the others it
/// says what they have more (+) and less (-). Exit 11 when there are others.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync drift
  pricesync drift -o names | pricesync backup --from-file - --out backups")]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,
    /// How many schemas at once: a number, or auto: what the server is good for
    #[arg(short, long, value_name = "N")]
    jobs: Option<String>,
    /// The shape of the listing; names: the tenants that differ
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set("run.jobs", "--jobs", self.jobs.as_deref());
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let selectors = args.select.read()?;
    let database = app.database(Access::Read, 1).await?;
    let pace = app.pace(&database);
    database.resize(NonZeroUsize::new(connections_for(pace.jobs())).unwrap_or(NonZeroUsize::MIN));
    let catalog = app.catalog(&database);
    let list = catalog.list().await?;
    app.warn_of_refused(&list);
    let tenants = selectors
        .resolve(&catalog)
        .await?
        .choose(list.tenants, &list.refused)?;
    let targets: Vec<Arc<Target>> = tenants.iter().map(target).collect();
    if targets.is_empty() {
        app.terminal.note("no tenants");
    }
    let versions = versions(&targets, app, &database).await?;
    let reader = Arc::new(ShapeReader::new(
        database,
        &app.settings.history_table,
        versions,
    ));
    let summary = fan_out(app, DRIFT, pace, &reader, &targets).await?;
    let shapes = reader.shapes();
    write(&shapes, args, app)?;
    Ok(match Exit::of(&summary) {
        Exit::Done if shapes.iter().any(|shape| !is_usual(shape, &shapes)) => Exit::Drift,
        other => other,
    })
}

/// Returns the version of each schema in words. Where files and history disagree, or there are no files,
/// all such schemas are compared with each other.
async fn versions(
    targets: &[Arc<Target>],
    app: &App,
    database: &Database,
) -> Result<HashMap<String, String>, Failure> {
    let Some(migrator) = app.surveyor(database) else {
        return Ok(HashMap::new());
    };
    let states = migrator.survey(targets).await;
    let states = states.map_err(RolloutError::Survey)?;
    let version = |state: &SchemaState| match state {
        SchemaState::Known(plan) => plan.version.map(|version| version.to_string()),
        _ => None,
    };
    Ok(targets
        .iter()
        .zip(&states)
        .filter_map(|(target, state)| Some((target.schema.to_string(), version(state)?)))
        .collect())
}

/// Returns the shape that most schemas of its version have.
fn usual<'a>(shape: &Shape, shapes: &'a [Shape]) -> Option<&'a Shape> {
    shapes.iter().find(|other| other.kind == shape.kind)
}

fn is_usual(shape: &Shape, shapes: &[Shape]) -> bool {
    usual(shape, shapes).is_some_and(|usual| usual.digest == shape.digest)
}

fn write(shapes: &[Shape], args: &Args, app: &App) -> Result<(), Failure> {
    match OutputFormat::from(args.output) {
        OutputFormat::Table => table(shapes, app),
        format @ OutputFormat::Json => {
            let listing = Listing::new(
                &["version", "shape", "usual", "tenants", "more", "less"],
                "no tenants",
            );
            let rows = shapes.iter().map(|shape| {
                let (more, less) = usual(shape, shapes)
                    .map(|usual| shape.differences(usual))
                    .unwrap_or_default();
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

fn table(shapes: &[Shape], app: &App) -> Result<(), Failure> {
    let listing = Listing::new(&["version", "shape", "schemas", "which"], "no tenants");
    let rows = shapes.iter().map(|shape| {
        let mut names: Vec<String> = shape.members.iter().take(NAMES).cloned().collect();
        if shape.members.len() > NAMES {
            names.push(format!("… and {} more", shape.members.len() - NAMES));
        }
        vec![
            version(shape),
            Cell::Text(short(shape).to_owned()),
            Cell::Number(i64::try_from(shape.members.len()).unwrap_or(i64::MAX)),
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
            "\n{} ({}) is not like {}:",
            short(shape),
            count(shape.members.len(), "schema"),
            short(usual)
        )?;
        let lines = less
            .iter()
            .map(|line| ('-', line))
            .chain(more.iter().map(|line| ('+', line)));
        for (sign, line) in lines.take(LINES) {
            writeln!(out, "  {sign} {}", clean(line))?;
        }
        let all = less.len() + more.len();
        if all > LINES {
            writeln!(out, "  … and {} more; -o json has all", all - LINES)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn version(shape: &Shape) -> Cell {
    if shape.kind.is_empty() {
        Cell::Absent
    } else {
        Cell::Text(shape.kind.clone())
    }
}

/// Enough of the digest to tell shapes apart.
fn short(shape: &Shape) -> &str {
    shape.digest.get(..8).unwrap_or(&shape.digest)
}
