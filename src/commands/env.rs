//! `env`: prints the environment of a client program for one tenant.

use std::io::Write as _;

use super::args::tenant::TenantArg;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::tenants::find_with_schema;
use crate::error::{Exit, Failure};
use crate::postgres::client::environment::TenantEnvironment;
use crate::ui::shell_word;

/// Print the environment variables that select one tenant
///
/// For a shell: eval "$(pricesync env --tenant acme)"; psql. Other programs that use libpq read
/// the same variables. The password is not printed; keep it in ~/.pgpass, a service file or
/// PGPASSWORD.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Make transactions read-only by default
    #[arg(long)]
    read_only: bool,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let options = app.connection().await?;
        let database = app.database(Access::Read, 1).await?;
        let tenant = find_with_schema(&self.tenant.tenant, app, &database).await?;
        let environment = TenantEnvironment {
            options: app.for_programs(options, &database)?,
            search_path: app.settings.search_path.clone(),
        };
        let variables = environment.variables(tenant.slug.as_str(), &tenant.schema, self.read_only);
        let mut out = app.terminal.out();
        let mut has_password = false;
        for (name, value) in variables {
            if matches!(name, "PGPASSWORD" | "PGSSLPASSWORD") {
                has_password = true;
                continue;
            }
            writeln!(out, "export {name}={}", shell_word(&value.to_string_lossy()))?;
        }
        out.flush()?;
        let in_environment = std::env::var_os("PGPASSWORD").is_some_and(|value| !value.is_empty());
        if has_password && !in_environment {
            app.terminal
                .note("the password is not printed: keep it in ~/.pgpass, or set PGPASSWORD");
        }
        Ok(Exit::Done)
    }
}
