//! `env`: the variables with which any client program sees one tenant.

use std::io::Write as _;

use super::run::app::{Access, App};
use super::shell::entered;
use crate::error::{Exit, Failure};
use crate::postgres::client::environment::TenantEnvironment;
use crate::ui::shell_word;

/// Print the environment in which psql and other programs see one tenant
///
/// For a shell: eval "$(pricesync env --tenant acme)"; psql. The password is not printed: it is
/// found in ~/.pgpass or a service file, or it is in PGPASSWORD already.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tenant: slug, schema or host, exactly
    #[arg(long, short = 't', value_name = "TENANT")]
    tenant: String,
    /// Let transactions only read unless they say otherwise
    #[arg(long)]
    read_only: bool,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let options = app.connection().await?;
    let database = app.database(Access::Read, 1).await?;
    let tenant = entered(&args.tenant, app, &database).await?;
    let environment = TenantEnvironment {
        options: app.for_programs(options, &database)?,
        search_path: app.settings.search_path.clone(),
    };
    let variables = environment.variables(tenant.slug.as_str(), &tenant.schema, args.read_only);
    let mut out = app.terminal.out();
    let mut has_password = false;
    for (name, value) in variables {
        if matches!(name, "PGPASSWORD" | "PGSSLPASSWORD") {
            has_password = true;
            continue;
        }
        writeln!(
            out,
            "export {name}={}",
            shell_word(&value.to_string_lossy())
        )?;
    }
    out.flush()?;
    let in_environment = std::env::var_os("PGPASSWORD").is_some_and(|value| !value.is_empty());
    if has_password && !in_environment {
        app.terminal
            .note("the password is not printed; programs find it in ~/.pgpass, or set PGPASSWORD yourself");
    }
    Ok(Exit::Done)
}
