//! `create-tenant`: row, hosts, schema and migrations, all of it or nothing.

use std::io::Write as _;

use super::args::template::TemplateArgs;
use super::args::tenant::{check_name, hosts};
use super::run::app::{Access, App};
use super::shell::whole;
use crate::domain::catalog::CatalogError;
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Slug, Tenant};
use crate::error::{Exit, Failure};
use crate::migrations::{MigrationSet, Transaction};
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::create::CreateError;
use crate::service::event::Progress;
use crate::service::failure::MigrateError;
use crate::service::fleet::{Interrupts, JobSuccess, SchemaJob as _};
use crate::settings::Overrides;
use crate::ui::{Explanation, Verbosity, count, explain_completion, explain_creation, took};

/// Create a tenant: its row, its hosts, its schema, and every migration
///
/// All of it or nothing: a taken slug, schema or host, a reserved or over-long name, or a
/// migration that fails leaves no trace, and nothing that was there before is changed.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync create-tenant --name 'Acme Inc.' --slug acme --domain acme.example.com
  pricesync create-tenant --name Acme --slug acme --schema legacy_acme --adopt")]
pub(super) struct Args {
    /// The name that people read, such as 'Acme Inc.'
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The short name: a-z, 0-9, '_' and '-'
    #[arg(long, value_name = "SLUG")]
    slug: String,
    /// Host name; may be repeated, the first is the primary one
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
    /// Schema to create [default: the configured prefix and the slug]
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    /// Fill a further column of the tenant table; may be repeated
    #[arg(long = "set", value_name = "COLUMN=VALUE", value_parser = assignment)]
    columns: Vec<(String, String)>,
    /// Leave the schema empty, or as it is with --adopt
    #[arg(long)]
    no_migrate: bool,
    /// Take over a schema that exists and that no tenant has; what its history lacks is applied
    #[arg(long)]
    adopt: bool,
    /// Succeed when the tenant exists already with this slug and schema
    #[arg(long)]
    if_not_exists: bool,
    /// How long a statement waits for a lock, such as 2s; 0 waits for ever
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
    #[command(flatten)]
    template: TemplateArgs,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set(
            "run.lock_timeout",
            "--lock-timeout",
            self.lock_timeout.as_deref(),
        );
        self.template.override_settings(overrides);
    }

    fn tenant(&self, app: &App) -> Result<NewTenant, Failure> {
        let refused = |error: &dyn std::fmt::Display| Failure::words(Exit::Refused, error);
        check_name(&self.name)?;
        let slug = Slug::parse(&self.slug).map_err(|error| refused(&error))?;
        let schema = match &self.schema {
            Some(schema) => SchemaName::parse(schema),
            None => slug.schema(&app.settings.catalog.schema_prefix),
        }
        .map_err(|error| refused(&error))?;
        let hostnames = hosts(&self.domains)?;
        let catalog = &app.settings.catalog;
        if catalog.domains.is_none() && !hostnames.is_empty() {
            return Err(Failure::words(
                Exit::Usage,
                "catalog.domain_table is \"\": there is no table that keeps hosts",
            ));
        }
        let derived = catalog.slug_of(schema.as_str());
        if catalog.tenants.slug.is_none() && derived != slug.as_str() {
            return Err(refused(&format!(
                "catalog.slug_column is \"\", so the tenant in schema '{schema}' is '{derived}' and cannot be '{slug}'"
            )));
        }
        Ok(NewTenant {
            name: self.name.clone(),
            slug,
            schema,
            hostnames,
            columns: self.columns.clone(),
        })
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((column, value)) if !column.is_empty() => Ok((column.to_owned(), value.to_owned())),
        _ => Err("COLUMN=VALUE, such as paid_until=2027-01-01".to_owned()),
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let new = args.tenant(app)?;
    let sets = app.sets()?;
    let database = app.database(Access::Write, 3).await?;
    let catalog = app.catalog(&database);
    if args.if_not_exists && exists(&new, &catalog, app).await? {
        return Ok(Exit::Done);
    }
    if app.settings.catalog.tenants.name.is_none() && new.name != new.slug.as_str() {
        app.terminal
            .warn("no column keeps the name (catalog.name_column); the slug stands for it");
    }
    let engine_options = app.engine_options(&database);
    let template_rules = engine_options.clone();
    let set = (!args.no_migrate).then_some(&*sets.tenant);
    // What cannot be reached is told before there is a tenant.
    let migrator = match set {
        Some(set) if has_more_than_one_transaction(set) => Some(
            app.migrator(&database, engine_options.clone(), &sets, Access::Write, 1)
                .await?,
        ),
        _ => None,
    };
    let (progress, _nobody) = Progress::channel();
    let begun = std::time::Instant::now();
    let made = if args.adopt {
        catalog.adopt(&new, set, &engine_options, &progress).await
    } else {
        catalog.create(&new, set, &engine_options, &progress).await
    };
    let created = match made {
        Ok(created) => created,
        Err(CreateError::Catalog(error)) => {
            // Another session may have been faster.
            let is_taken = matches!(error, CatalogError::AlreadyExists { .. });
            if is_taken && args.if_not_exists && exists(&new, &catalog, app).await? {
                return Ok(Exit::Done);
            }
            return Err(error.into());
        }
        Err(CreateError::Migrate(error)) => {
            let explanation = explain_creation(&error, &target(&new));
            let exit = failed(&error, &new, &explanation, app);
            let is_locked = CreateError::Migrate(error).is_contention();
            return Ok(if is_locked { Exit::Locked } else { exit });
        }
    };
    let mut migrated = created.applied.len();
    let mut exit = Exit::Done;
    if created.left > 0
        && let Some(migrator) = migrator
    {
        // What runs without a transaction can only follow the one that made the tenant.
        match rest(&created.tenant, &migrator).await {
            Ok(applied) => migrated += applied,
            Err(error) => {
                let explanation = explain_completion(&error, &target(&new));
                exit = failed(&error, &new, &explanation, app);
            }
        }
    }
    let mut out = app.terminal.out();
    writeln!(
        out,
        "✓ Tenant {}: {} (slug={}, schema={})",
        if args.adopt { "adopted" } else { "created" },
        crate::ui::clean(&new.name),
        new.slug,
        new.schema
    )?;
    if args.no_migrate && args.adopt {
        app.terminal.hint(&Hint::command(
            "its schema was not changed; show what is pending",
            format!("status --tenant {}", new.slug),
        ));
    } else if args.no_migrate {
        writeln!(
            out,
            "✓ {} pending",
            count(sets.tenant.ids().len(), "migration")
        )?;
    } else {
        writeln!(
            out,
            "✓ {}, {}",
            count(migrated, "migration"),
            took(begun.elapsed())
        )?;
    }
    out.flush()?;
    if created.lacks_template
        && let Some(set) = set
        && let Err(why) = catalog.write_template(set, &template_rules).await
        && app.terminal.verbosity() > Verbosity::Normal
    {
        app.terminal
            .note(&format!("the next tenant is made file by file too: {why}"));
    }
    Ok(exit)
}

/// Returns what a run would work on for a tenant that is to be created.
pub(super) fn target(new: &NewTenant) -> Target {
    Target {
        schema: new.schema.clone(),
        label: new.slug.as_str().to_owned(),
        scope: Scope::Tenant,
    }
}

/// Returns whether the tenant exists as it is wanted, and says so.
///
/// # Errors
///
/// Exit 7 for one that has another schema or is half dropped, exit 4 for one whose schema is missing.
async fn exists(new: &NewTenant, catalog: &PostgresCatalog, app: &App) -> Result<bool, Failure> {
    let mut tenants = catalog.list().await?.tenants.into_iter();
    let Some(tenant) = tenants.find(|tenant| tenant.slug == new.slug) else {
        return Ok(false);
    };
    if tenant.schema != new.schema {
        return Err(Failure::words(
            Exit::Refused,
            format!(
                "tenant '{}' exists already, in schema '{}'",
                tenant.slug, tenant.schema
            ),
        ));
    }
    whole(&tenant, catalog).await?;
    app.terminal.note(&format!(
        "tenant '{}' exists already (schema={})",
        tenant.slug, tenant.schema
    ));
    Ok(true)
}

fn has_more_than_one_transaction(set: &MigrationSet) -> bool {
    let mut scripts = set.scripts().iter();
    scripts.any(|script| script.transaction != Transaction::Inside)
}

async fn rest(tenant: &Tenant, migrator: &PostgresMigrator) -> Result<usize, Box<MigrateError>> {
    let (progress, _nobody) = Progress::channel();
    let (_no_interrupter, interrupts) = Interrupts::new();
    let target = crate::service::selection::target(tenant);
    match migrator.run(&target, &progress, interrupts).await {
        Ok(JobSuccess::Migrated(applied)) => Ok(applied.len()),
        Ok(_) => Ok(0),
        Err(failed) => Err(failed.error),
    }
}

fn failed(error: &MigrateError, new: &NewTenant, explanation: &Explanation, app: &App) -> Exit {
    app.terminal.explain(Some(new.schema.as_str()), explanation);
    match error {
        MigrateError::InDoubt { .. } => Exit::Unexpected,
        MigrateError::Locked { .. } => Exit::Locked,
        MigrateError::Drift { .. } | MigrateError::DamagedHistory { .. } => Exit::Drift,
        _ => Exit::SchemasFailed,
    }
}
