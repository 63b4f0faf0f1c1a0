//! `list-tenants`: who is there, at which version, with what pending.

use super::Output;
use super::args::select::SelectArgs;
use super::run::app::{Access, App, Sets};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::schema_state::SchemaState;
use crate::error::Exit;
use crate::error::Failure;
use crate::postgres::tenants::trash::TrashState;
use crate::service::fleet::SchemaMigrator as _;
use crate::service::selection::target;
use crate::ui::{Cell, Listing, OutputFormat};

/// List tenants with their schemas, hosts, versions and pending migrations
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync list-tenants --pending -o names
  pricesync list-tenants --where 'id > 100' -o csv")]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,
    /// Only tenants that are not at the newest version
    #[arg(long)]
    pending: bool,
    /// Tenants in the trash instead
    #[arg(long, conflicts_with_all = ["pending", "tenants", "exclude", "condition", "from_file"])]
    trashed: bool,
    /// The shape of the listing
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    if args.trashed {
        return trashed(args, app).await;
    }
    let selectors = args.select.read()?;
    let database = app.database(Access::Read, 2).await?;
    let catalog = app.catalog(&database);
    let list = catalog.list().await?;
    app.warn_of_refused(&list);
    let tenants = selectors
        .resolve(&catalog)
        .await?
        .choose(list.tenants, &list.refused)?;
    let needs_states = args.pending || !matches!(args.output, Output::Names);
    let sets = if needs_states {
        sets_or_warn(app)
    } else {
        None
    };
    let states = match &sets {
        Some(sets) => {
            let migrator = app
                .migrator(
                    &database,
                    app.engine_options(&database),
                    sets,
                    Access::Read,
                    1,
                )
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
        &[
            "id", "name", "slug", "schema", "domains", "version", "pending", "state", "created",
        ],
        "no tenants",
    )
    .named_by("slug");
    let rows = tenants.into_iter().filter_map(|tenant| {
        let state = states.next();
        let (version, pending) = match &state {
            Some(SchemaState::Dropped) => return None,
            Some(SchemaState::Known(plan)) => (plan.version, Some(plan.pending.len())),
            Some(SchemaState::Drifted(_, version)) => (*version, None),
            _ => (None, None),
        };
        if args.pending && pending == Some(0) {
            return None;
        }
        let label = state.map_or("unknown", |state| state.label());
        let number = |number: Option<i64>| number.map_or(Cell::Absent, Cell::Number);
        Some(vec![
            Cell::Number(tenant.id),
            Cell::Text(tenant.name),
            Cell::Text(tenant.slug.to_string()),
            Cell::Text(tenant.schema.to_string()),
            Cell::List(tenant.hostnames.iter().map(ToString::to_string).collect()),
            number(version),
            number(pending.and_then(|pending| i64::try_from(pending).ok())),
            Cell::Text(label.to_owned()),
            Cell::maybe(tenant.created_at),
        ])
    });
    listing.write(&app.terminal, OutputFormat::from(args.output), rows)?;
    Ok(Exit::Done)
}

async fn trashed(args: &Args, app: &App) -> Result<Exit, Failure> {
    let database = app.database(Access::Read, 1).await?;
    let trash = app.catalog(&database).trashed().await?;
    let listing = Listing::new(
        &[
            "slug", "name", "schema", "domains", "trash", "tables", "bytes", "state", "trashed",
            "by",
        ],
        "the trash is empty",
    );
    let rows = trash.into_iter().map(|trashed| {
        let place = trashed.place().to_string();
        vec![
            Cell::Text(trashed.slug),
            Cell::Text(trashed.name),
            Cell::Text(trashed.schema),
            Cell::List(trashed.hosts),
            Cell::Text(place),
            Cell::Number(trashed.tables),
            Cell::Number(i64::try_from(trashed.bytes).unwrap_or(i64::MAX)),
            Cell::Text(
                match trashed.state {
                    TrashState::Whole => "whole",
                    TrashState::Purging => "being purged",
                    TrashState::SchemaMissing => "no schema",
                }
                .to_owned(),
            ),
            Cell::Text(trashed.trashed_at),
            Cell::Text(trashed.trashed_by),
        ]
    });
    listing.write(&app.terminal, OutputFormat::from(args.output), rows)?;
    Ok(Exit::Done)
}

/// A cron job that only lists needs no migration files; without them nothing is known to be pending.
fn sets_or_warn(app: &App) -> Option<Sets> {
    match app.sets() {
        Ok(sets) => Some(sets),
        Err(failure) => {
            app.terminal
                .warn(&format!("versions are not shown: {:#}", failure.cause));
            None
        }
    }
}

impl Args {
    /// Everybody, for people.
    pub(super) fn everything() -> Self {
        Self {
            select: SelectArgs::default(),
            pending: false,
            trashed: false,
            output: Output::Table,
        }
    }
}
