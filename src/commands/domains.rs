//! `domains`: the hosts that tenants answer to.

use std::io::Write as _;

use super::Output;
use super::args::select::SelectArgs;
use super::drop_schema::named;
use super::run::app::{Access, App};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::hint::Hint;
use crate::domain::tenant::{Hostname, Tenant};
use crate::error::{Exit, Failure};
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::domains::{Added, DomainError};
use crate::ui::{Cell, Listing, clean};

/// List and change the hosts that tenants answer to
///
/// A host belongs to one tenant, in whatever case or script it is written; it is stored in lower
/// case and in ASCII, as browsers send it. A tenant with hosts has exactly one primary host.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Who has which hosts
    List {
        #[command(flatten)]
        select: SelectArgs,
        /// The shape of the listing
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Output,
    },
    /// Give a tenant hosts; the first one that it has becomes its primary one
    Add {
        /// The tenant: slug, schema or host, exactly
        #[arg(long, short = 't', value_name = "TENANT")]
        tenant: String,
        /// Make the first of them the primary one
        #[arg(long)]
        primary: bool,
        /// The hosts
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Take hosts from a tenant; where the primary one goes, the oldest that is left takes its place
    Remove {
        /// The tenant: slug, schema or host, exactly
        #[arg(long, short = 't', value_name = "TENANT")]
        tenant: String,
        /// Also the last one, so that no request reaches the tenant
        #[arg(long)]
        force: bool,
        /// The hosts
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Make one of a tenant's hosts its primary one
    Primary {
        /// The tenant: slug, schema or host, exactly
        #[arg(long, short = 't', value_name = "TENANT")]
        tenant: String,
        /// The host
        #[arg(value_name = "HOST")]
        host: String,
    },
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    match &args.what {
        What::List { select, output } => return list(select, *output, app).await,
        What::Add {
            tenant,
            primary,
            hosts,
        } => {
            let hosts = parsed(hosts)?;
            let (catalog, tenant) = opened(tenant, app).await?;
            let engine_options = app.engine_options(catalog.database());
            let added = catalog
                .add_domains(&tenant, &hosts, *primary, &engine_options)
                .await?;
            for (host, added) in hosts.iter().zip(added) {
                match added {
                    Added::New => say(app, &format!("✓ Domain added: {}", shown(host, &tenant)))?,
                    Added::Before => app
                        .terminal
                        .note(&format!("tenant '{}' has '{host}' already", tenant.slug)),
                }
            }
            if *primary {
                say(
                    app,
                    &format!("✓ Primary domain: {}", shown(&hosts[0], &tenant)),
                )?;
            }
        }
        What::Remove {
            tenant,
            force,
            hosts,
        } => {
            let hosts = parsed(hosts)?;
            let (catalog, tenant) = opened(tenant, app).await?;
            let engine_options = app.engine_options(catalog.database());
            let successor = catalog
                .remove_domains(&tenant, &hosts, *force, &engine_options)
                .await?;
            for host in &hosts {
                say(app, &format!("✓ Domain removed: {}", shown(host, &tenant)))?;
            }
            if let Some(host) = successor {
                let host = Hostname::from_catalog(host);
                say(app, &format!("✓ Primary domain: {}", shown(&host, &tenant)))?;
            }
        }
        What::Primary { tenant, host } => {
            let host = parsed(std::slice::from_ref(host))?.swap_remove(0);
            let (catalog, tenant) = opened(tenant, app).await?;
            let engine_options = app.engine_options(catalog.database());
            catalog
                .set_primary_domain(&tenant, &host, &engine_options)
                .await?;
            say(app, &format!("✓ Primary domain: {}", shown(&host, &tenant)))?;
        }
    }
    Ok(Exit::Done)
}

async fn list(select: &SelectArgs, output: Output, app: &App) -> Result<Exit, Failure> {
    let selectors = select.read()?;
    let database = app.database(Access::Read, 1).await?;
    let catalog = app.catalog(&database);
    let list = catalog.list().await?;
    let tenants = selectors
        .resolve(&catalog)
        .await?
        .choose(list.tenants, &list.refused)?;
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
    listing.write(&app.terminal, output.into(), rows)?;
    Ok(Exit::Done)
}

fn parsed(hosts: &[String]) -> Result<Vec<Hostname>, Failure> {
    let mut parsed: Vec<Hostname> = Vec::with_capacity(hosts.len());
    for host in hosts {
        let host = Hostname::parse(host).map_err(|error| Failure::new(Exit::Refused, error))?;
        if parsed.contains(&host) {
            return Err(Failure::words(
                Exit::Refused,
                format!("host '{host}' is given twice"),
            ));
        }
        parsed.push(host);
    }
    Ok(parsed)
}

async fn opened(word: &str, app: &App) -> Result<(PostgresCatalog, Tenant), Failure> {
    let database = app.database(Access::Write, 1).await?;
    let catalog = app.catalog(&database);
    let tenant = named(word, catalog.list().await?)?;
    Ok((catalog, tenant))
}

fn shown(host: &Hostname, tenant: &Tenant) -> String {
    let slug = &tenant.slug;
    match host.unicode() {
        Some(unicode) => format!("{host} ({unicode}, tenant={slug})"),
        None => format!("{host} (tenant={slug})"),
    }
}

fn say(app: &App, line: &str) -> Result<(), Failure> {
    let mut out = app.terminal.out();
    writeln!(out, "{}", clean(line))?;
    out.flush()?;
    Ok(())
}

impl From<DomainError> for Failure {
    fn from(error: DomainError) -> Self {
        match error {
            DomainError::Catalog(error) => error.into(),
            DomainError::NoTable | DomainError::NoPrimary => Self::new(Exit::Usage, error),
            DomainError::NotIts { .. } => {
                Self::new(Exit::NotFound, error).hint(Hint::command("list the domains", "domains list"))
            }
            DomainError::Last { .. } => Self::new(Exit::Refused, error).hint(
                "no request would reach the tenant: add another host first, or take it away with --force",
            ),
        }
    }
}
