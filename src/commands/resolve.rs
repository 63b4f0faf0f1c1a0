//! `resolve`: which tenant answers to a host, as the application's middleware would find it.

use super::Output;
use super::app::{Access, App};
use crate::domain::tenant::{Hostname, TenantCatalog as _};
use crate::error::{Exit, Failure};
use crate::ui::{Cell, Listing};

/// Tell which tenant and schema answer to a host
///
/// The host is compared in lower case, without port and final dot. Exit 4 when nobody has it.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Host name, with or without a port
    #[arg(value_name = "HOST[:PORT]")]
    host: String,
    /// The shape of the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let host = Hostname::parse(&args.host).map_err(|error| Failure::new(Exit::Usage, error))?;
    let database = app.database(Access::Read, 1).await?;
    let tenant = app.catalog(&database).resolve(&host).await?;
    let listing = Listing::new(&["host", "slug", "schema"], "nobody").named_by("slug");
    let row = vec![
        Cell::Text(host.to_string()),
        Cell::Text(tenant.slug.to_string()),
        Cell::Text(tenant.schema.to_string()),
    ];
    listing.write(&app.terminal, args.output.into(), [row])?;
    Ok(Exit::Done)
}
