//! `shell`: psql in a tenant's schema.

use std::ffi::OsString;
use std::time::Duration;

use super::drop_schema::named;
use super::exec;
use super::run::app::{Access, App};
use crate::domain::catalog::{CatalogError, TenantCatalog as _};
use crate::domain::schema_state::SchemaState;
use crate::domain::tenant::Tenant;
use crate::error::{Exit, Failure};
use crate::postgres::client::environment::TenantEnvironment;
use crate::postgres::client::psql::{Psql, PsqlError};
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::pending_hint::Behind;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::drop::Presence;
use crate::service::selection::target;
use crate::ui::Verbosity;

/// How long the shell waits to hear what is pending: somebody may have locked a history.
const PATIENCE: Duration = Duration::from_secs(1);

/// Open psql in a tenant's schema
///
/// The search path is the tenant, then what [run] `search_path` says; the prompt names the
/// tenant. Options behind -- go to psql itself.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync shell --tenant acme
  pricesync shell --tenant acme --read-only -c 'SELECT count(*) FROM products'
  pricesync shell --tenant acme -- --csv -f report.sql")]
pub(super) struct Args {
    /// The tenant: slug, schema or host, exactly
    #[arg(long, short = 't', value_name = "TENANT")]
    tenant: String,
    /// Run this SQL instead of asking for it; may be repeated
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    commands: Vec<String>,
    /// Let transactions only read
    #[arg(long)]
    read_only: bool,
    /// Configuration file
    #[arg(long, id = "config", value_name = "FILE", hide = true)]
    _config: Option<std::path::PathBuf>,
    /// Options for psql
    #[arg(last = true, value_name = "PSQL OPTIONS")]
    arguments: Vec<OsString>,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let options = app.connection().await?;
    let database = app.database(Access::Read, 1).await?;
    let tenant = entered(&args.tenant, app, &database).await?;
    say_how_far_behind(&tenant, app, &database).await;
    let environment = TenantEnvironment {
        options: app.for_programs(options, &database)?,
        search_path: app.settings.search_path.clone(),
    };
    drop(database);
    let psql = Psql {
        environment: &environment,
        tenant: &tenant,
        read_only: args.read_only,
        commands: &args.commands,
        arguments: &args.arguments,
    };
    match psql.run().await {
        Ok(status) => Ok(match status.code() {
            Some(0) => Exit::Done,
            Some(2) => Exit::Unreachable,
            Some(_) => Exit::Unexpected,
            None => Exit::Interrupted,
        }),
        // A slug that is a glob would mean others too.
        Err(PsqlError::NotFound)
            if !args.commands.is_empty()
                && args.arguments.is_empty()
                && !tenant.slug.as_str().contains(['*', '?', '[', '{', ',']) =>
        {
            app.terminal
                .warn("psql is not on the PATH; the SQL runs as exec runs it, in one transaction");
            let sql = args.commands.join("\n;\n");
            exec::instead_of_psql(tenant.slug.as_str(), sql, args.read_only, app).await
        }
        Err(error @ PsqlError::NotFound) => Err(Failure::new(Exit::Unexpected, error)
            .hint("install it: apt-get install postgresql-client, or brew install libpq")),
        Err(error) => Err(Failure::new(Exit::Unexpected, error)),
    }
}

/// psql's own messages cannot say that what does not exist is a migration that is pending. Where
/// it cannot be found out, the shell opens without a word.
async fn say_how_far_behind(tenant: &Tenant, app: &App, database: &Database) {
    if app.terminal.verbosity() == Verbosity::Quiet {
        return;
    }
    let target = target(tenant);
    let behind = Behind::new(app.surveyor(database), vec![target.clone()]);
    let notice = tokio::time::timeout(PATIENCE, behind.notice(&target)).await;
    if let Ok(Some(notice)) = notice {
        app.terminal.warn(&app.terminal.render(&notice));
    }
}

/// Returns a tenant whose schema is there: a search path through a missing one would show public
/// instead.
///
/// # Errors
///
/// Exit 4 for a tenant that nobody knows and for a schema that is missing, exit 7 for one that is
/// half dropped.
pub(super) async fn entered(word: &str, app: &App, database: &Database) -> Result<Tenant, Failure> {
    let catalog = app.catalog(database);
    let tenant = named(word, catalog.list().await?)?;
    whole(&tenant, &catalog).await?;
    Ok(tenant)
}

/// Refuses a tenant whose schema is not there as a whole, as [`entered`] does.
pub(super) async fn whole(tenant: &Tenant, catalog: &PostgresCatalog) -> Result<(), Failure> {
    match catalog.presence(tenant).await? {
        Presence::Whole => Ok(()),
        Presence::Dropping => Err(CatalogError::PartlyDropped(tenant.slug.to_string()).into()),
        Presence::Missing => Err(
            Failure::from(CatalogError::SchemaMissing(tenant.schema.clone()))
                .hint(SchemaState::missing_hint()),
        ),
    }
}
