//! `rename-tenant`: changes slug, name or schema of a tenant.

use super::args::overrides::LockWaitArg;
use super::args::tenant::TenantArg;
use super::args::tenant::check_name;
use super::run::app::{Access, App};
use super::run::confirm::rolled_back;
use super::run::tenants::find_tenant;
use super::run::{CommandRun, print_line};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{NewTenant, Slug, Tenant};
use crate::error::{Exit, Failure};
use crate::settings::{CatalogLayout, Overrides};

/// Change the slug, the name or the schema of a tenant
///
/// Keeps hosts, objects and history. A schema that is named after the slug is renamed with it.
/// Runs in one transaction under the schema's lock. Refuses if a function, a trigger, a setting or
/// a literal contains the old name of the schema. Names in programs outside the database, or in
/// jobs of an extension, are not found.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// New short name: a-z, 0-9, '_' and '-'
    #[arg(long, value_name = "SLUG")]
    slug: Option<String>,
    /// New display name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// New schema [default: prefix and new slug, if it was prefix and slug]
    #[arg(long, value_name = "SCHEMA", conflicts_with = "keep_schema")]
    schema: Option<String>,
    /// Keep the name of the schema
    #[arg(long)]
    keep_schema: bool,
    /// Rename although texts contain the old name; fix them afterwards
    #[arg(long)]
    leave_mentions: bool,
    #[command(flatten)]
    lock_wait: LockWaitArg,
}

impl Args {
    fn renamed(&self, tenant: &Tenant, catalog: &CatalogLayout) -> Result<NewTenant, Failure> {
        let refused = |error: &dyn std::fmt::Display| Failure::words(Exit::Refused, error);
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        let name = self.name.clone().unwrap_or_else(|| tenant.name.clone());
        let mut slug = match &self.slug {
            Some(slug) => Slug::parse(slug).map_err(|error| refused(&error))?,
            None => tenant.slug.clone(),
        };
        let prefix = &catalog.schema_prefix;
        let follows = tenant.schema.as_str() == format!("{prefix}{}", tenant.slug);
        let schema = match &self.schema {
            Some(schema) => SchemaName::parse(schema).map_err(|error| refused(&error))?,
            None if self.slug.is_some() && follows && !self.keep_schema => {
                slug.schema(prefix).map_err(|error| refused(&error))?
            }
            None => tenant.schema.clone(),
        };
        if catalog.tenants.slug.is_none() {
            let derived = Slug::from_catalog(catalog.slug_of(schema.as_str()).to_owned());
            if self.slug.is_some() && derived != slug {
                return Err(Failure::words(
                    Exit::Usage,
                    format!(
                        "catalog.slug_column is \"\", so the tenant in schema '{schema}' is '{derived}' and cannot be '{slug}'"
                    ),
                ));
            }
            slug = derived;
        }
        Ok(NewTenant { name, slug, schema, hostnames: Vec::new(), columns: Vec::new() })
    }
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.lock_wait.override_settings(overrides);
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        if self.slug.is_none() && self.name.is_none() && self.schema.is_none() {
            return Err(Failure::words(
                Exit::Usage,
                "nothing to change: use --slug, --name or --schema",
            ));
        }
        let layout = &app.settings.catalog;
        if self.name.is_some() && layout.tenants.name.is_none() {
            return Err(Failure::words(
                Exit::Usage,
                "catalog.name_column is \"\": the name is not stored",
            ));
        }
        let database = app.database(Access::Write, 2).await?;
        let catalog = app.catalog(&database);
        let tenant = find_tenant(&self.tenant.tenant, catalog.list().await?)?;
        let new = self.renamed(&tenant, layout)?;
        if new.name == tenant.name && new.slug == tenant.slug && new.schema == tenant.schema {
            app.terminal.note(&format!("tenant '{}' already has these names", tenant.slug));
            return Ok(Exit::Done);
        }
        app.change(&database, async |admin| admin.rename(&tenant, &new, self.leave_mentions).await)
            .await?
            .map_err(rolled_back)?;
        let line =
            format!("✓ Tenant renamed: {} (slug={}, schema={})", new.name, new.slug, new.schema);
        print_line(&app.terminal, line)?;
        if new.schema != tenant.schema {
            app.terminal.note(&format!(
                "was slug={}, schema={}; change programs with the old schema in their search_path",
                tenant.slug, tenant.schema
            ));
        } else if new.slug != tenant.slug {
            app.terminal.note(&format!("the schema is still {}", tenant.schema));
        }
        Ok(Exit::Done)
    }
}
