//! `demo`: the guide's story on the local server, from nothing to a migrated fleet.

use crate::postgres::connection::options::EngineOptions;
use std::collections::HashSet;
use std::num::NonZeroUsize;

use super::migrate_schemas::Migration;
use super::run::app::{Access, App, connections_for};
use super::{create_tenant, list_tenants, status};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::run_options::OnFailure;
use crate::domain::tenant::{Hostname, NewTenant, Slug, TenantList};
use crate::error::{Exit, Failure};
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::create::CreateError;
use crate::service::event::Progress;
use crate::service::rollout::Scopes;
use crate::service::stages::Stages;
use crate::settings::Overrides;
use crate::ui::{count, explain};

/// As many tenants are listed one by one; of more, the counts are what fits on a screen.
const LISTED: u32 = 100;

/// Show what pricesync does: create tenants on the local server, migrate them in parallel, list them
///
/// Uses the private server of this folder and nothing else, whatever is configured. Running
/// it again finds everything in place. More than 100 tenants are counted, not listed.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// How many tenants there are to be, acme and globex among them
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=50_000))]
    tenants: u32,
}

impl Args {
    /// The demonstration never touches anybody's database.
    pub(super) fn override_settings(overrides: &mut Overrides) {
        overrides
            .values
            .retain(|(key, _, _)| *key != "database.url");
        overrides.set("database.url", "demo", Some(super::run::app::LOCAL));
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let sets = app.sets()?;
    let say = |text: &str| app.terminal.note(text);
    say("Starting the local PostgreSQL server...");
    let database = app.database(Access::Write, 1).await?;
    let pace = app.pace(&database);
    let connections = NonZeroUsize::new(connections_for(pace.jobs()));
    database.resize(connections.unwrap_or(NonZeroUsize::MIN));
    let engine_options = app.engine_options(&database);
    let migrator = app
        .migrator(
            &database,
            engine_options.clone(),
            &sets,
            Access::Write,
            pace.jobs(),
        )
        .await?;
    let catalog = app.catalog(&database);
    let migration = |scopes| Migration {
        app,
        migrator: &migrator,
        catalog: &catalog,
        pace: pace.clone(),
        on_failure: OnFailure::Stop,
        scopes,
        stages: Stages::default(),
        rehearsal: false,
    };
    let shared = migration(Scopes::Shared);
    let shared = shared.run(shared.survey().await?).await?;
    if Exit::of(&shared) != Exit::Done {
        return Ok(Exit::of(&shared));
    }
    let missing = missing(args.tenants, &catalog).await?;
    if !missing.is_empty() {
        say(&format!("Creating {}...", count(missing.len(), "tenant")));
        create(&missing, &catalog, &engine_options).await?;
        say(&format!(
            "Created {} with empty schemas. Migrating them, {} at a time:",
            count(missing.len(), "tenant"),
            pace.jobs()
        ));
    }
    let everything = migration(Scopes::Everything);
    let summary = everything.run(everything.survey().await?).await?;
    let listing = if args.tenants <= LISTED {
        list_tenants::run(&list_tenants::Args::everything(), app).await?
    } else {
        status::run(&status::Args::default(), app).await?
    };
    say(
        "Look around: pricesync --local shell --tenant=acme, pricesync --local status, pricesync server stop",
    );
    Ok(match Exit::of(&summary) {
        Exit::Done => listing,
        failed => failed,
    })
}

/// Returns slug and name of those that are not there yet.
async fn missing(wanted: u32, catalog: &PostgresCatalog) -> Result<Vec<(String, String)>, Failure> {
    let TenantList { tenants, .. } = catalog.list().await?;
    let existing: HashSet<&str> = tenants.iter().map(|tenant| tenant.slug.as_str()).collect();
    let numbered = (1..=wanted.saturating_sub(2))
        .map(|number| (format!("shop{number:05}"), format!("Shop {number}")));
    let names = [("acme", "Acme Inc."), ("globex", "Globex Corp.")]
        .map(|(slug, name)| (slug.to_owned(), name.to_owned()))
        .into_iter()
        .chain(numbered);
    Ok(names
        .filter(|(slug, _)| !existing.contains(slug.as_str()))
        .collect())
}

/// Creates tenants whose schemas are empty.
async fn create(
    missing: &[(String, String)],
    catalog: &PostgresCatalog,
    engine_options: &EngineOptions,
) -> Result<(), Failure> {
    let (progress, _nobody) = Progress::channel();
    for (slug, name) in missing {
        let usage = |error: &dyn std::fmt::Display| Failure::words(Exit::Usage, error);
        let slug = Slug::parse(slug).map_err(|error| usage(&error))?;
        let new = NewTenant {
            schema: slug.schema("tenant_").map_err(|error| usage(&error))?,
            hostnames: vec![
                Hostname::parse(&format!("{slug}.example.com")).map_err(|error| usage(&error))?,
            ],
            slug,
            name: name.clone(),
            columns: Vec::new(),
        };
        match catalog.create(&new, None, engine_options, &progress).await {
            Ok(_) => {}
            Err(CreateError::Catalog(error)) => return Err(error.into()),
            Err(CreateError::Migrate(error)) => {
                let explanation = explain(&error, &create_tenant::target(&new), &[]);
                return Err(Failure::words(Exit::Unexpected, explanation.message()));
            }
        }
    }
    Ok(())
}
