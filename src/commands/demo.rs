//! `demo`: creates, migrates and lists tenants on the local server.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::run::CommandRun;
use super::run::app::{Access, App, LOCAL};
use super::run::migration::Migration;
use super::run::tenants::new_target;
use super::{init, list_tenants, status};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::run_options::OnFailure;
use crate::domain::tenant::{Hostname, NewTenant, Slug, TenantList};
use crate::error::{Exit, Failure};
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::change::ChangeError;
use crate::service::rollout::Scopes;
use crate::service::stages::Stages;
use crate::settings::{FILE_NAME, Overrides};
use crate::ui::{count, explain};

/// Up to this number the tenants are listed; above it, only counted.
const LISTED: u32 = 100;

/// Try pricesync with some tenants on the local server
///
/// Uses a local server, whatever is configured: in a folder of 'init --example' that of the folder,
/// elsewhere that of a new example project in ./pricesync-demo. Keeps the tenants that exist. Counts
/// more than 100 tenants instead of listing them.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Number of tenants, acme and globex included
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=50_000))]
    tenants: u32,
    /// Whether the example project is in [`FOLDER`].
    #[arg(skip)]
    is_elsewhere: bool,
}

/// The folder of the example project, where the current folder is not one.
const FOLDER: &str = "pricesync-demo";

impl Args {
    /// Goes to an example project, which is written if necessary. `config` is that of `--config`.
    ///
    /// # Errors
    ///
    /// The project cannot be written.
    pub(super) fn enter(&mut self, config: &mut Option<PathBuf>) -> Result<(), Failure> {
        if config.is_none() && !init::is_example(Path::new(".")) {
            init::write_example(Path::new(FOLDER))?;
            std::env::set_current_dir(FOLDER)?;
            self.is_elsewhere = true;
        }
        if config.is_none() {
            // Wins over PRICESYNC_CONFIG, which may name a real project.
            *config = Some(FILE_NAME.into());
        }
        Ok(())
    }
}

impl CommandRun for Args {
    /// Selects the local server, so that the demonstration never changes another database.
    fn override_settings(&self, overrides: &mut Overrides) {
        overrides.values.retain(|(key, _, _)| *key != "database.url");
        overrides.set("database.url", "demo", Some(LOCAL));
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let sets = app.sets()?;
        let note = |text: &str| app.terminal.note(text);
        note("Starting the local PostgreSQL server...");
        let (database, pace) = app.database_for_jobs(Access::Write).await?;
        let options = app.engine_options(&database);
        let migrator =
            app.migrator(&database, options.clone(), &sets, Access::Write, pace.jobs()).await?;
        let catalog = app.catalog(&database);
        let migration = |scopes| Migration {
            app,
            migrator: &migrator,
            catalog: &catalog,
            pace: pace.clone(),
            on_failure: OnFailure::Stop,
            scopes,
            stages: Stages::default(),
        };
        let shared = migration(Scopes::Shared);
        let shared = shared.run(shared.survey().await?).await?;
        if Exit::of(&shared) != Exit::Done {
            return Ok(Exit::of(&shared));
        }
        let missing = missing_tenants(self.tenants, &catalog).await?;
        if !missing.is_empty() {
            note(&format!("Creating {}...", count(missing.len(), "tenant")));
            create(&missing, &TenantAdmin::new(catalog.clone(), options)).await?;
            note(&format!(
                "Created {} with empty schemas. Migrating them, {} at a time:",
                count(missing.len(), "tenant"),
                pace.jobs()
            ));
        }
        let everything = migration(Scopes::Everything);
        let summary = everything.run(everything.survey().await?).await?;
        let listing = if self.tenants <= LISTED {
            list_tenants::Args::default().run(app).await?
        } else {
            status::Args::default().run(app).await?
        };
        let cd = if self.is_elsewhere { format!("cd {FOLDER}, ") } else { String::new() };
        note(&format!(
            "Next: {cd}pricesync --local shell --tenant=acme, pricesync --local status, pricesync server stop",
        ));
        Ok(match Exit::of(&summary) {
            Exit::Done => listing,
            failed => failed,
        })
    }
}

/// Returns slug and name of the tenants that do not exist yet.
async fn missing_tenants(
    wanted: u32,
    catalog: &PostgresCatalog,
) -> Result<Vec<(String, String)>, Failure> {
    let TenantList { tenants, .. } = catalog.list().await?;
    let existing: HashSet<&str> = tenants.iter().map(|tenant| tenant.slug.as_str()).collect();
    let numbered = (1..=wanted.saturating_sub(2))
        .map(|number| (format!("shop{number:05}"), format!("Shop {number}")));
    let names = [("acme", "Acme Inc."), ("globex", "Globex Corp.")]
        .map(|(slug, name)| (slug.to_owned(), name.to_owned()))
        .into_iter()
        .chain(numbered);
    Ok(names.filter(|(slug, _)| !existing.contains(slug.as_str())).collect())
}

/// Creates tenants with empty schemas.
async fn create(missing: &[(String, String)], admin: &TenantAdmin) -> Result<(), Failure> {
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
        match admin.create(&new, None).await {
            Ok(_) => {}
            Err(ChangeError::Migrate(error)) => {
                let explanation = explain(&error, &new_target(&new), &[]);
                return Err(Failure::words(Exit::Unexpected, explanation.message()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
