//! `rename-tenant`: another slug, name or schema, in one transaction.

use std::io::Write as _;

use super::args::tenant::check_name;
use super::drop_schema::{named, not_begun};
use super::run::app::{Access, App};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{NewTenant, Slug, Tenant};
use crate::error::{Exit, Failure};
use crate::settings::{CatalogLayout, Overrides};

/// Give a tenant another slug, name or schema; its hosts, objects and history stay
///
/// A schema that is called after the slug follows it. All of it is one transaction under the
/// schema's lock. Refused while a function, a trigger, a setting or a literal says the old
/// name of the schema: those do not follow. What programs outside the database say cannot be
/// seen, nor can jobs that an extension keeps as text.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tenant: slug, schema or host, exactly
    #[arg(long, short, value_name = "TENANT")]
    tenant: String,
    /// The new short name: a-z, 0-9, '_' and '-'
    #[arg(long, value_name = "SLUG")]
    slug: Option<String>,
    /// The new name that people read
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The schema's new name [default: prefix and slug, where it is called like that now]
    #[arg(long, value_name = "SCHEMA", conflicts_with = "keep_schema")]
    schema: Option<String>,
    /// Leave the schema's name as it is
    #[arg(long)]
    keep_schema: bool,
    /// Rename although something says the old name, and leave it to be mended
    #[arg(long)]
    leave_mentions: bool,
    /// How long to wait for a schema that a run holds, such as 60s
    #[arg(long, value_name = "TIME")]
    lock_wait: Option<String>,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set("run.lock_wait", "--lock-wait", self.lock_wait.as_deref());
    }

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
        Ok(NewTenant {
            name,
            slug,
            schema,
            hostnames: Vec::new(),
            columns: Vec::new(),
        })
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    if args.slug.is_none() && args.name.is_none() && args.schema.is_none() {
        return Err(Failure::words(
            Exit::Usage,
            "what is to change? say --slug, --name or --schema",
        ));
    }
    let layout = &app.settings.catalog;
    if args.name.is_some() && layout.tenants.name.is_none() {
        return Err(Failure::words(
            Exit::Usage,
            "catalog.name_column is \"\": no column keeps the name",
        ));
    }
    let database = app.database(Access::Write, 2).await?;
    let catalog = app.catalog(&database);
    let tenant = named(&args.tenant, catalog.list().await?)?;
    let new = args.renamed(&tenant, layout)?;
    if new.name == tenant.name && new.slug == tenant.slug && new.schema == tenant.schema {
        app.terminal
            .note(&format!("tenant '{}' is called that already", tenant.slug));
        return Ok(Exit::Done);
    }
    catalog
        .rename(
            &tenant,
            &new,
            args.leave_mentions,
            &app.engine_options(&database),
        )
        .await
        .map_err(not_begun)?;
    let mut out = app.terminal.out();
    writeln!(
        out,
        "✓ Tenant renamed: {} (slug={}, schema={})",
        crate::ui::clean(&new.name),
        new.slug,
        new.schema
    )?;
    out.flush()?;
    if new.schema != tenant.schema {
        app.terminal.note(&format!(
            "was slug={}, schema={}; programs that keep the old schema in their search_path find nothing there",
            tenant.slug, tenant.schema
        ));
    } else if new.slug != tenant.slug {
        app.terminal
            .note(&format!("the schema is still called {}", tenant.schema));
    }
    Ok(Exit::Done)
}
