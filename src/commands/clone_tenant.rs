//! `clone-tenant`: copies a tenant into a new one.

use super::args::overrides::{LockTimeoutArg, LockWaitArg};
use super::args::tenant::{SetArg, check_name, parse_hosts};
use super::restore::{restored_size, warn_of_references};
use super::run::app::{Access, App};
use super::run::jobs::run_in_one;
use super::run::tenants::{find_tenant, new_target};
use super::run::{CommandRun, print_line};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::tenant::{NewTenant, Slug};
use crate::error::{Exit, Failure};
use crate::postgres::backup::{BackupError, DdlVerifier, Destination, Source};
use crate::postgres::tenants::change::ChangeError;
use crate::service::event::Operation;
use crate::settings::Overrides;
use crate::ui::took;

/// Copy a tenant into a new one, with or without its rows
///
/// Copies one snapshot in one transaction, while the tenant is in use. All references inside the
/// copy point to the new schema. Refuses, with a list, if a text such as a function body
/// contains the schema's name.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tenant to copy: its exact slug, schema or host
    #[arg(long, value_name = "TENANT")]
    from: String,
    /// Short name of the new tenant: a-z, 0-9, '_' and '-'
    #[arg(long, value_name = "SLUG")]
    slug: String,
    /// Display name [default: that of the copied tenant]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Host name; repeatable, the first is the primary host
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
    #[command(flatten)]
    set: SetArg,
    /// Copy no rows, except for the history
    #[arg(long)]
    schema_only: bool,
    #[command(flatten)]
    lock_timeout: LockTimeoutArg,
    #[command(flatten)]
    lock_wait: LockWaitArg,
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.lock_timeout.override_settings(overrides);
        self.lock_wait.override_settings(overrides);
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let started = std::time::Instant::now();
        let refused = |error: &dyn std::fmt::Display| Failure::words(Exit::Refused, error);
        let slug = Slug::parse(&self.slug).map_err(|error| refused(&error))?;
        let schema =
            slug.schema(&app.settings.catalog.schema_prefix).map_err(|error| refused(&error))?;
        let hostnames = parse_hosts(&self.domains)?;
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        let database = app.database(Access::Write, 4).await?;
        let catalog = app.catalog(&database);
        let tenant = find_tenant(&self.from, catalog.list().await?)?;
        let destination = Destination {
            new: NewTenant {
                name: self.name.clone().unwrap_or_else(|| tenant.name.clone()),
                slug,
                schema,
                hostnames,
                columns: self.set.columns(&app.settings.catalog)?,
            },
            is_same_tenant: false,
            keeps_hosts: false,
        };
        let target = new_target(&destination.new);
        let verifier = DdlVerifier::disabled();
        let copied = run_in_one(app, &database, CLONE, &target, async |admin| {
            let source = Source {
                admin: &admin,
                tenant: &tenant,
                verifier: &verifier,
                schema_only: self.schema_only,
            };
            let copied = admin.copy_tenant(&source, &destination).await;
            let copied = copied.map_err(failure)?;
            let result = restored_size(&copied);
            Ok((copied, result))
        })
        .await?;
        warn_of_references(&copied, app);
        let line = format!(
            "✓ Tenant copied: {} (slug={}, schema={}) from {}: {}, {}",
            copied.tenant.name,
            copied.tenant.slug,
            copied.tenant.schema,
            tenant.slug,
            restored_size(&copied),
            took(started.elapsed()),
        );
        print_line(&app.terminal, line)?;
        Ok(Exit::Done)
    }
}

const CLONE: Operation = Operation { command: "clone-tenant", doing: "copying", done: None };

fn failure(error: BackupError) -> Failure {
    let mentions = matches!(error, BackupError::NameReferenced(_));
    if error.is_in_doubt() || matches!(error, BackupError::Change(ChangeError::Interrupted)) {
        return Failure::from(error);
    }
    let failure = Failure::from(error).hint("nothing was changed");
    if mentions {
        failure.hint("write table names without a schema there: search_path finds them")
    } else {
        failure
    }
}
