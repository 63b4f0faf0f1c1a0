//! `domains`: lists and changes the hosts of tenants.

use super::args::output::OutputArg;
use super::args::select::SelectArgs;
use super::args::tenant::{TenantArg, parse_hosts};
use super::run::app::{Access, App};
use super::run::tenants::{find_tenant, select_tenants};
use super::run::{CommandRun, print_line};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::hint::Hint;
use crate::domain::tenant::{Hostname, Tenant};
use crate::error::{Exit, Failure};
use crate::postgres::connection::database::Database;
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::domains::{Added, DomainError};
use crate::ui::{Cell, Listing};

/// List and change the hosts of tenants
///
/// A host belongs to one tenant. It is stored in lower case and in ASCII (IDNA), as browsers
/// send it. A tenant with hosts has exactly one primary host.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// List hosts with their tenants
    List {
        #[command(flatten)]
        select: SelectArgs,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Add hosts to a tenant; its first host becomes the primary one
    Add {
        #[command(flatten)]
        tenant: TenantArg,
        /// Make the first of these hosts the primary one
        #[arg(long)]
        primary: bool,
        /// Host names
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Remove hosts; the oldest other one replaces a primary host
    Remove {
        #[command(flatten)]
        tenant: TenantArg,
        /// Remove the last host too; no request reaches the tenant then
        #[arg(long)]
        force: bool,
        /// Host names
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Make one of a tenant's hosts the primary one
    Primary {
        #[command(flatten)]
        tenant: TenantArg,
        /// Host name
        #[arg(value_name = "HOST")]
        host: String,
    },
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let printed = |what: &str, host: &Hostname, tenant: &Tenant| {
            print_line(&app.terminal, format!("✓ {what}: {}", describe(host, tenant)))
        };
        match &self.what {
            What::List { select, output } => return list(select, *output, app).await,
            What::Add { tenant, primary, hosts } => {
                let hosts = parse_hosts(hosts)?;
                let (database, tenant) = open(&tenant.tenant, app).await?;
                let change =
                    async |admin: TenantAdmin| admin.add_domains(&tenant, &hosts, *primary).await;
                let added = app.change(&database, change).await??;
                for (host, added) in hosts.iter().zip(added) {
                    match added {
                        Added::New => printed("Domain added", host, &tenant)?,
                        Added::Existing => app
                            .terminal
                            .note(&format!("tenant '{}' already has '{host}'", tenant.slug)),
                    }
                }
                if *primary {
                    printed("Primary domain", &hosts[0], &tenant)?;
                }
            }
            What::Remove { tenant, force, hosts } => {
                let hosts = parse_hosts(hosts)?;
                let (database, tenant) = open(&tenant.tenant, app).await?;
                let change =
                    async |admin: TenantAdmin| admin.remove_domains(&tenant, &hosts, *force).await;
                let successor = app.change(&database, change).await??;
                for host in &hosts {
                    printed("Domain removed", host, &tenant)?;
                }
                if let Some(host) = successor {
                    printed("Primary domain", &Hostname::from_catalog(host), &tenant)?;
                }
            }
            What::Primary { tenant, host } => {
                let host = parse_hosts(std::slice::from_ref(host))?.swap_remove(0);
                let (database, tenant) = open(&tenant.tenant, app).await?;
                let change =
                    async |admin: TenantAdmin| admin.set_primary_domain(&tenant, &host).await;
                app.change(&database, change).await??;
                printed("Primary domain", &host, &tenant)?;
            }
        }
        Ok(Exit::Done)
    }
}

async fn list(select: &SelectArgs, output: OutputArg, app: &App) -> Result<Exit, Failure> {
    let selectors = select.read()?;
    let database = app.database(Access::Read, 1).await?;
    let catalog = app.catalog(&database);
    let tenants = select_tenants(selectors, &catalog, app).await?;
    let primary = catalog.primary_hosts().await?;
    let listing =
        Listing::new(&["tenant", "domain", "unicode", "primary"], "no domains").named_by("domain");
    let rows = tenants.iter().flat_map(|tenant| {
        tenant.hostnames.iter().map(|host| {
            vec![
                Cell::Text(tenant.slug.to_string()),
                Cell::Text(host.to_string()),
                Cell::maybe(host.unicode()),
                Cell::Flag(primary.contains(host)),
            ]
        })
    });
    listing.write(&app.terminal, output.format(), rows)?;
    Ok(Exit::Done)
}

async fn open(word: &str, app: &App) -> Result<(Database, Tenant), Failure> {
    let database = app.database(Access::Write, 2).await?;
    let tenant = find_tenant(word, app.catalog(&database).list().await?)?;
    Ok((database, tenant))
}

fn describe(host: &Hostname, tenant: &Tenant) -> String {
    let slug = &tenant.slug;
    match host.unicode() {
        Some(unicode) => format!("{host} ({unicode}, tenant={slug})"),
        None => format!("{host} (tenant={slug})"),
    }
}

impl From<DomainError> for Failure {
    fn from(error: DomainError) -> Self {
        match error {
            DomainError::Change(error) => error.into(),
            DomainError::NoTable | DomainError::NoPrimary => Self::new(Exit::Usage, error),
            DomainError::NotFound { .. } => Self::new(Exit::NotFound, error)
                .hint(Hint::command("list the domains", "domains list")),
            DomainError::LastHost { .. } => Self::new(Exit::Refused, error)
                .hint("no request would reach the tenant: add another host first, or use --force"),
        }
    }
}
