//! `clone-tenant`: a tenant like another one.

use std::io::Write as _;

use super::args::tenant::{check_name, hosts};
use super::create_tenant::target;
use super::drop_schema::named;
use super::restore::{amount, tell_still_refer};
use super::run::app::{Access, App};
use super::run::jobs::alone;
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::tenant::{NewTenant, Slug};
use crate::error::{Exit, Failure};
use crate::postgres::backup::{BackupError, Destination, Rehearsals, Source};
use crate::service::event::Operation;
use crate::settings::Overrides;
use crate::ui::{clean, took};

/// Copy a tenant into a new one: its schema, with its rows or without, and its row
///
/// Out of one snapshot and in one transaction, while the tenant is in use; all of it or nothing.
/// Everything inside points to the new schema. Where a text says the schema's name, such as the
/// body of a function, it refuses and lists them.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tenant to copy: slug, schema or host, exactly
    #[arg(long, value_name = "TENANT")]
    from: String,
    /// The short name of the new one: a-z, 0-9, '_' and '-'
    #[arg(long, value_name = "SLUG")]
    slug: String,
    /// The name that people read [default: that of the tenant that is copied]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Host name; may be repeated, the first is the primary one
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
    /// Leave all tables empty but the history
    #[arg(long)]
    schema_only: bool,
    /// How long a statement waits for a lock, such as 2s; 0 waits for ever
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
    /// How long to wait for a run that works on the schema
    #[arg(long, value_name = "TIME")]
    lock_wait: Option<String>,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        let (timeout, wait) = (self.lock_timeout.as_deref(), self.lock_wait.as_deref());
        overrides.set("run.lock_timeout", "--lock-timeout", timeout);
        overrides.set("run.lock_wait", "--lock-wait", wait);
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let begun = std::time::Instant::now();
    let refused = |error: &dyn std::fmt::Display| Failure::words(Exit::Refused, error);
    let slug = Slug::parse(&args.slug).map_err(|error| refused(&error))?;
    let schema = slug
        .schema(&app.settings.catalog.schema_prefix)
        .map_err(|error| refused(&error))?;
    let hostnames = hosts(&args.domains)?;
    if let Some(name) = &args.name {
        check_name(name)?;
    }
    let database = app.database(Access::Write, 4).await?;
    let catalog = app.catalog(&database);
    let tenant = named(&args.from, catalog.list().await?)?;
    let destination = Destination {
        new: NewTenant {
            name: args.name.clone().unwrap_or_else(|| tenant.name.clone()),
            slug,
            schema,
            hostnames,
            columns: Vec::new(),
        },
        is_itself: false,
        keeps_hosts: false,
    };
    let engine_options = app.engine_options(&database);
    let rehearsals = Rehearsals::none();
    let copied = alone(app, CLONE, target(&destination.new), async |progress| {
        let catalog = catalog.clone().telling(progress);
        let source = Source {
            catalog: &catalog,
            tenant: &tenant,
            options: &engine_options,
            rehearsals: &rehearsals,
            schema_only: args.schema_only,
        };
        let copied = catalog.copy_tenant(&source, &destination).await;
        let copied = copied.map_err(failure)?;
        let result = amount(&copied);
        Ok((copied, result))
    })
    .await?;
    tell_still_refer(&copied, app);
    let told = format!(
        "✓ Tenant copied: {} (slug={}, schema={}) from {}: {}",
        copied.tenant.name,
        copied.tenant.slug,
        copied.tenant.schema,
        tenant.slug,
        amount(&copied),
    );
    let mut out = app.terminal.out();
    writeln!(out, "{}, {}", clean(&told), took(begun.elapsed()))?;
    out.flush()?;
    Ok(Exit::Done)
}

const CLONE: Operation = Operation {
    command: "clone-tenant",
    doing: "copying",
    done: None,
};

fn failure(error: BackupError) -> Failure {
    let mentions = matches!(error, BackupError::Mentions(_));
    if error.is_unknown() {
        return Failure::from(error);
    }
    let failure = Failure::from(error).hint("nothing was copied, and nothing was changed");
    if mentions {
        failure.hint("let them find their tables by the search path, without a schema's name")
    } else {
        failure
    }
}
