//! `create-tenant`: creates the row, the hosts and the schema of a tenant, and migrates it.

use super::args::overrides::{LockTimeoutArg, TemplateArg};
use super::args::tenant::{SetArg, check_name, parse_hosts};
use super::run::app::{Access, App};
use super::run::tenants::{new_target, require_schema};
use super::run::{CommandRun, print_line};
use crate::domain::catalog::{CatalogError, TenantCatalog as _};
use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{NewTenant, Slug};
use crate::error::{Exit, Failure};
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::change::ChangeError;
use crate::service::failure::MigrateError;
use crate::settings::Overrides;
use crate::ui::{Explanation, Verbosity, count, explain_creation, took};

/// Create a tenant: row, hosts, schema and all migrations
///
/// Creates all of it or nothing: if the slug, the schema or a host is taken, a name is reserved
/// or too long, or a migration fails, nothing is changed.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync create-tenant --name Acme --slug acme --domain acme.example.com
  pricesync create-tenant --name Acme --slug acme --schema legacy_acme --adopt")]
pub(super) struct Args {
    /// Display name, such as 'Acme Inc.'
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Short name: a-z, 0-9, '_' and '-'
    #[arg(long, value_name = "SLUG")]
    slug: String,
    /// Host name; repeatable, the first is the primary host
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
    /// Schema to create [default: catalog.schema_prefix and the slug]
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    #[command(flatten)]
    set: SetArg,
    /// Run no migrations
    #[arg(long)]
    no_migrate: bool,
    /// Adopt an existing schema without a tenant; run its pending migrations
    #[arg(long)]
    adopt: bool,
    /// Succeed if a tenant with this slug and schema already exists
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    lock_timeout: LockTimeoutArg,
    #[command(flatten)]
    template: TemplateArg,
}

impl Args {
    fn tenant(&self, app: &App) -> Result<NewTenant, Failure> {
        let refused = |error: &dyn std::fmt::Display| Failure::words(Exit::Refused, error);
        check_name(&self.name)?;
        let slug = Slug::parse(&self.slug).map_err(|error| refused(&error))?;
        let schema = match &self.schema {
            Some(schema) => SchemaName::parse(schema),
            None => slug.schema(&app.settings.catalog.schema_prefix),
        }
        .map_err(|error| refused(&error))?;
        let hostnames = parse_hosts(&self.domains)?;
        let catalog = &app.settings.catalog;
        if catalog.domains.is_none() && !hostnames.is_empty() {
            return Err(Failure::words(
                Exit::Usage,
                "catalog.domain_table is \"\": hosts cannot be stored",
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
            columns: self.set.columns(catalog)?,
        })
    }
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.lock_timeout.override_settings(overrides);
        self.template.override_settings(overrides);
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let new = self.tenant(app)?;
        let sets = app.sets()?;
        let database = app.database(Access::Write, 3).await?;
        let catalog = app.catalog(&database);
        if self.if_not_exists && exists(&new, &catalog, app).await? {
            return Ok(Exit::Done);
        }
        if app.settings.catalog.tenants.name.is_none() && new.name != new.slug.as_str() {
            app.terminal.warn("catalog.name_column is \"\": the name is not stored");
        }
        let options = app.engine_options(&database);
        app.check_guard(&database, Some(&sets.shared)).await?;
        // Connects first, so that an unreachable server leaves no tenant behind.
        let files = if self.no_migrate {
            None
        } else {
            Some(app.migrator(&database, options, &sets, Access::Write, 1).await?)
        };
        let files = files.as_deref();
        let started = std::time::Instant::now();
        let change = async |admin: TenantAdmin| {
            if self.adopt {
                admin.adopt(&new, files).await
            } else {
                admin.create(&new, files).await
            }
        };
        let made = app.change(&database, change).await?;
        let created = match made {
            Ok(created) => created,
            Err(ChangeError::Catalog(error)) => {
                // Another session may have created it in the meantime.
                let is_taken = matches!(error, CatalogError::AlreadyExists { .. });
                if is_taken && self.if_not_exists && exists(&new, &catalog, app).await? {
                    return Ok(Exit::Done);
                }
                return Err(error.into());
            }
            Err(ChangeError::Migrate(error)) => {
                let explanation = explain_creation(&error, &new_target(&new));
                let exit = failed(&error, &new, &explanation, app);
                let is_locked = ChangeError::Migrate(error).is_contention();
                return Ok(if is_locked { Exit::Locked } else { exit });
            }
            Err(error) => return Err(error.into()),
        };
        let done = if self.adopt { "adopted" } else { "created" };
        let line =
            format!("✓ Tenant {done}: {} (slug={}, schema={})", new.name, new.slug, new.schema);
        print_line(&app.terminal, line)?;
        if self.no_migrate && self.adopt {
            app.terminal.hint(&Hint::command(
                "its schema was not changed; show what is pending",
                format!("status --tenant {}", new.slug),
            ));
        } else if self.no_migrate {
            let pending = count(sets.tenant.ids().len(), "migration");
            print_line(&app.terminal, format!("✓ {pending} pending"))?;
        } else {
            let migrations = count(created.applied.len(), "migration");
            let took = took(started.elapsed());
            print_line(&app.terminal, format!("✓ {migrations}, {took}"))?;
        }
        if created.lacks_template
            && let Err(why) = app
                .change(&database, async |admin| admin.write_template(&sets.tenant).await)
                .await?
            && app.terminal.verbosity() > Verbosity::Normal
        {
            app.terminal
                .note(&format!("no template, so the next tenant is created file by file: {why}"));
        }
        Ok(Exit::Done)
    }
}

/// Returns whether a tenant with this slug and schema exists, and prints that.
///
/// # Errors
///
/// Exit 7 for one with another schema or a partly dropped one, exit 4 for one without its schema.
async fn exists(new: &NewTenant, catalog: &PostgresCatalog, app: &App) -> Result<bool, Failure> {
    let mut tenants = catalog.list().await?.tenants.into_iter();
    let Some(tenant) = tenants.find(|tenant| tenant.slug == new.slug) else {
        return Ok(false);
    };
    if tenant.schema != new.schema {
        return Err(Failure::words(
            Exit::Refused,
            format!("tenant '{}' already exists, in schema '{}'", tenant.slug, tenant.schema),
        ));
    }
    require_schema(&tenant, catalog).await?;
    app.terminal
        .note(&format!("tenant '{}' already exists (schema={})", tenant.slug, tenant.schema));
    Ok(true)
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
