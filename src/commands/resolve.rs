//! `resolve`: finds the tenant of a host, as middleware does.

use super::args::output::OutputArg;
use super::run::CommandRun;
use super::run::app::{Access, App};
use crate::domain::catalog::{CatalogError, TenantCatalog as _};
use crate::domain::tenant::HostSteps;
use crate::error::{Exit, Failure};
use crate::ui::{Cell, Listing};

/// Find the tenant and the schema of a host
///
/// Compares the host in lower case and in ASCII (IDNA), without port and final dot. Exit 4 if no
/// tenant has it.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Host name, with or without a port
    #[arg(value_name = "HOST[:PORT]")]
    host: String,
    /// Show each step of the normalization
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let steps = HostSteps::of(&self.host).map_err(|error| Failure::new(Exit::Usage, error))?;
        let database = app.database(Access::Read, 1).await?;
        let found = app.catalog(&database).resolve(&steps.host).await;
        if self.explain {
            let found = match found {
                Err(CatalogError::NotFound(_)) => None,
                other => Some(other?),
            };
            let text = |text: &str| Cell::Text(text.to_owned());
            let row = |step: &str, gives: Cell| vec![text(step), gives];
            let listing = Listing::new(&["step", "gives"], "nothing").named_by("gives");
            let tenant = found.as_ref();
            let rows = [
                row("host", text(&self.host)),
                row("without port", text(&steps.without_port)),
                row("without final dot", text(&steps.without_dot)),
                row("lower case", text(&steps.lower)),
                row("ASCII (IDNA)", text(steps.host.as_str())),
                row("lookup", text(if tenant.is_some() { "found" } else { "not found" })),
                row("tenant", Cell::maybe(tenant.map(|tenant| tenant.slug.to_string()))),
                row("schema", Cell::maybe(tenant.map(|tenant| tenant.schema.to_string()))),
            ];
            listing.write(&app.terminal, self.output.format(), rows)?;
            return match found {
                Some(_) => Ok(Exit::Done),
                None => Err(CatalogError::NotFound(steps.host.to_string()).into()),
            };
        }
        let tenant = found?;
        let listing = Listing::new(&["host", "slug", "schema"], "no tenant").named_by("slug");
        let row = vec![
            Cell::Text(steps.host.to_string()),
            Cell::Text(tenant.slug.to_string()),
            Cell::Text(tenant.schema.to_string()),
        ];
        listing.write(&app.terminal, self.output.format(), [row])?;
        Ok(Exit::Done)
    }
}
