//! `list-tenants`: lists tenants with version and pending migrations.

use super::args::output::OutputArg;
use super::args::select::SelectArgs;
use super::run::CommandRun;
use super::run::app::{Access, App, Sets};
use super::run::tenants::select_tenants;
use crate::domain::schema_state::SchemaState;
use crate::domain::tenant::TenantId;
use crate::error::Exit;
use crate::error::Failure;
use crate::postgres::tenants::trash::TrashState;
use crate::service::fleet::SchemaMigrator as _;
use crate::service::selection::target;
use crate::ui::{Cell, Listing, OutputFormat};

/// List tenants with schema, hosts, version and pending files
#[derive(clap::Args, Debug, Default)]
#[command(after_long_help = "Examples:
  pricesync list-tenants --pending -o names
  pricesync list-tenants --where 'id > 100' -o csv")]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,
    /// Only tenants that are not up to date
    #[arg(long)]
    pending: bool,
    /// List the trash instead
    #[arg(long, conflicts_with_all = ["pending", "tenants", "exclude", "condition", "from_file"])]
    trashed: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        if self.trashed {
            return trashed(self, app).await;
        }
        let selectors = self.select.read()?;
        let database = app.database(Access::Read, 2).await?;
        let catalog = app.catalog(&database);
        let tenants = select_tenants(selectors, &catalog, app).await?;
        let needs_states = self.pending || self.output.format() != OutputFormat::Names;
        let sets = if needs_states { sets_or_warn(app) } else { None };
        let states = match &sets {
            Some(sets) => {
                let migrator = app
                    .migrator(&database, app.engine_options(&database), sets, Access::Read, 1)
                    .await?;
                let targets: Vec<_> = tenants.iter().map(target).collect();
                migrator
                    .survey(&targets)
                    .await
                    .map_err(crate::service::rollout::RolloutError::Survey)?
            }
            None => Vec::new(),
        };
        let mut states = states.into_iter();
        let listing = Listing::new(
            &["id", "name", "slug", "schema", "domains", "version", "pending", "state", "created"],
            "no tenants",
        )
        .named_by("slug");
        let rows = tenants.into_iter().filter_map(|tenant| {
            let (version, pending, state) = match states.next() {
                Some(SchemaState::Known(plan)) if plan.pending.is_empty() => {
                    (plan.version, Some(0), "up to date")
                }
                Some(SchemaState::Known(plan)) => {
                    (plan.version, Some(plan.pending.len()), "pending")
                }
                Some(SchemaState::Missing) => (None, None, "no schema"),
                Some(SchemaState::Dropping) => (None, None, "dropping"),
                Some(SchemaState::Dropped) => return None,
                Some(SchemaState::Drifted(_, version)) => (version, None, "drifted"),
                Some(SchemaState::Damaged(_)) => (None, None, "damaged"),
                Some(SchemaState::Locked(_)) => (None, None, "locked"),
                None => (None, None, "unknown"),
            };
            if self.pending && state == "up to date" {
                return None;
            }
            let number = |number: Option<i64>| number.map_or(Cell::Absent, Cell::Number);
            Some(vec![
                id_cell(&tenant.id),
                Cell::Text(tenant.name),
                Cell::Text(tenant.slug.to_string()),
                Cell::Text(tenant.schema.to_string()),
                Cell::List(tenant.hostnames.iter().map(ToString::to_string).collect()),
                number(version),
                number(pending.and_then(|pending| i64::try_from(pending).ok())),
                Cell::Text(state.to_owned()),
                Cell::maybe(tenant.created_at),
            ])
        });
        listing.write(&app.terminal, self.output.format(), rows)?;
        Ok(Exit::Done)
    }
}

/// Returns an id: a number if it is an integer, otherwise text.
fn id_cell(id: &TenantId) -> Cell {
    let text = id.as_str();
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    number.map_or_else(|| Cell::Text(text.to_owned()), Cell::Number)
}

async fn trashed(args: &Args, app: &App) -> Result<Exit, Failure> {
    let database = app.database(Access::Read, 1).await?;
    let trash = app.catalog(&database).list_trash().await?;
    let listing = Listing::new(
        &[
            "slug", "name", "schema", "domains", "trash", "tables", "bytes", "state", "trashed",
            "by",
        ],
        "the trash is empty",
    );
    let rows = trash.into_iter().map(|trashed| {
        let place = trashed.trash_schema().to_string();
        vec![
            Cell::Text(trashed.slug),
            Cell::Text(trashed.name),
            Cell::Text(trashed.schema),
            Cell::List(trashed.hosts),
            Cell::Text(place),
            Cell::Number(trashed.tables),
            Cell::count(trashed.bytes),
            Cell::Text(
                match trashed.state {
                    TrashState::Complete => "whole",
                    TrashState::Purging => "being purged",
                    TrashState::SchemaMissing => "no schema",
                }
                .to_owned(),
            ),
            Cell::Text(trashed.trashed_at),
            Cell::Text(trashed.trashed_by),
        ]
    });
    listing.write(&app.terminal, args.output.format(), rows)?;
    Ok(Exit::Done)
}

/// Loads the migration files; warns if they are invalid, because a list of names does not need them.
fn sets_or_warn(app: &App) -> Option<Sets> {
    match app.sets() {
        Ok(sets) => Some(sets),
        Err(failure) => {
            app.terminal.warn(&format!("cannot show versions: {:#}", failure.cause));
            None
        }
    }
}
