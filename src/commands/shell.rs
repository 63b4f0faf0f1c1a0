//! `shell`: opens psql in a tenant's schema.

use std::ffi::OsString;
use std::time::Duration;

use super::args::tenant::{ConfigWithoutShort, TenantArg};
use super::exec;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::tenants::find_with_schema;
use crate::domain::tenant::Tenant;
use crate::error::{Exit, Failure};
use crate::postgres::client::environment::TenantEnvironment;
use crate::postgres::client::psql::{Psql, PsqlError};
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::pending_hint::PendingHint;
use crate::service::selection::target;
use crate::ui::Verbosity;

/// Maximum wait for the pending migrations, because another session may lock the history.
const PENDING_TIMEOUT: Duration = Duration::from_secs(1);

/// Open psql in a tenant's schema
///
/// search_path is the tenant's schema, then [run] search_path; the prompt shows the tenant.
/// Options after -- are passed to psql.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync shell --tenant acme
  pricesync shell --tenant acme --read-only -c 'SELECT count(*) FROM products'
  pricesync shell --tenant acme -- --csv -f report.sql")]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// SQL to run; repeatable [default: interactive]
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    commands: Vec<String>,
    /// Make transactions read-only
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    config: ConfigWithoutShort,
    /// Options for psql
    #[arg(last = true, value_name = "PSQL OPTIONS")]
    arguments: Vec<OsString>,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let options = app.connection().await?;
        let database = app.database(Access::Read, 1).await?;
        let tenant = find_with_schema(&self.tenant.tenant, app, &database).await?;
        warn_of_pending(&tenant, app, &database).await;
        let environment = TenantEnvironment {
            options: app.for_programs(options, &database)?,
            search_path: app.settings.search_path.clone(),
        };
        drop(database);
        let psql = Psql {
            environment: &environment,
            tenant: &tenant,
            read_only: self.read_only,
            commands: &self.commands,
            arguments: &self.arguments,
        };
        match psql.run().await {
            Ok(status) => Ok(match status.code() {
                Some(0) => Exit::Done,
                Some(2) => Exit::Unreachable,
                Some(_) => Exit::Unexpected,
                None => Exit::Interrupted,
            }),
            // exec would read such a slug as a glob or a list.
            Err(PsqlError::NotFound)
                if !self.commands.is_empty()
                    && self.arguments.is_empty()
                    && !tenant.slug.as_str().contains(['*', '?', '[', '{', ',']) =>
            {
                app.terminal.warn(
                    "psql is not on the PATH: running the SQL as exec does, in one transaction",
                );
                let sql = self.commands.join("\n;\n");
                exec::instead_of_psql(tenant.slug.as_str(), sql, self.read_only, app).await
            }
            Err(error @ PsqlError::NotFound) => Err(Failure::new(Exit::Unexpected, error)
                .hint("install it: apt-get install postgresql-client, or brew install libpq")),
            Err(error) => Err(Failure::new(Exit::Unexpected, error)),
        }
    }
}

/// Warns of pending migrations, because psql's errors about missing tables cannot mention them. Prints
/// nothing if they cannot be read.
async fn warn_of_pending(tenant: &Tenant, app: &App, database: &Database) {
    if app.terminal.verbosity() == Verbosity::Quiet {
        return;
    }
    let target = target(tenant);
    let pending = PendingHint::new(app.surveyor(database), vec![target.clone()]);
    let notice = tokio::time::timeout(PENDING_TIMEOUT, pending.notice(&target)).await;
    if let Ok(Some(notice)) = notice {
        app.terminal.warn(&app.terminal.render(&notice));
    }
}
