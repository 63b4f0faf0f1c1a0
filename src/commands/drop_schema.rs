//! `drop-schema`: a tenant's schema and row, after the slug was typed.

use std::io::Write as _;

use super::app::{Access, App};
use crate::domain::tenant::{CatalogError, Hostname, Tenant, TenantCatalog as _};
use crate::error::{Exit, Failure};
use crate::postgres::removal::{Contents, DropError};
use crate::service::tenants::{find, nearest};
use crate::settings::Overrides;
use crate::ui::{Answer, clean, count};

/// Drop a tenant: its schema with everything in it, its hosts, its row
///
/// Shows what would be lost and asks for the slug to be typed. Without a terminal it refuses
/// unless --force is given. Refuses when anything outside the schema depends on it. A drop
/// that was killed in the middle is finished by running it again.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tenant: slug, schema or host, exactly
    #[arg(long, short = 't', value_name = "TENANT")]
    tenant: String,
    /// Do not ask
    #[arg(long, visible_alias = "yes")]
    force: bool,
    /// Keep the row and the hosts, drop the schema only
    #[arg(long)]
    keep_record: bool,
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
        overrides.set(
            "run.lock_timeout",
            "--lock-timeout",
            self.lock_timeout.as_deref(),
        );
        overrides.set("run.lock_wait", "--lock-wait", self.lock_wait.as_deref());
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let database = app.database(Access::Write, 3).await?;
    let catalog = app.catalog(&database);
    let tenant = named(&args.tenant, catalog.list().await?)?;
    let contents = catalog.contents(&tenant.schema).await?;
    if !contents.dependents.is_empty() {
        return Err(CatalogError::Dependents(contents.dependents).into());
    }
    if !args.force {
        let question = describe(&tenant, &contents, args.keep_record);
        match app.terminal.confirm(&question, tenant.slug.as_str())? {
            Answer::Yes => {}
            Answer::No => {
                return Err(Failure::words(
                    Exit::Refused,
                    "not confirmed; nothing was dropped",
                ));
            }
            Answer::NotATerminal => {
                return Err(Failure::words(
                    Exit::Refused,
                    format!(
                        "dropping tenant '{}' needs to be confirmed, and this is no terminal",
                        tenant.slug
                    ),
                )
                .hint(question.lines().collect::<Vec<_>>().join(" "))
                .hint("--force drops without asking"));
            }
        }
    }
    let rules = app.rules(&database);
    catalog
        .drop(&tenant, args.keep_record, &rules)
        .await
        .map_err(|error| match error {
            DropError::Catalog(error) => Failure::from(error),
            busy => {
                Failure::from(busy).hint("nothing is lost: run the same command again to finish")
            }
        })?;
    let mut out = app.terminal.out();
    writeln!(out, "✓ Dropped {}", summary(&tenant, &contents))?;
    out.flush()?;
    Ok(Exit::Done)
}

/// Returns the tenant that a word names exactly, or a failure with those that look like it.
pub(super) fn named(
    word: &str,
    list: crate::domain::tenant::TenantList,
) -> Result<Tenant, Failure> {
    let slugs: Vec<String> = list
        .tenants
        .iter()
        .map(|tenant| tenant.slug.to_string())
        .collect();
    find(word, list).map_err(|error| {
        let failure = Failure::from(error);
        match nearest(word, &slugs) {
            near if near.is_empty() => failure,
            near => failure.hint(format!("did you mean {}?", near.join(", "))),
        }
    })
}

fn describe(tenant: &Tenant, contents: &Contents, keep_record: bool) -> String {
    let hosts: Vec<&str> = tenant.hostnames.iter().map(Hostname::as_str).collect();
    let record = match (keep_record, hosts.is_empty()) {
        (true, _) => "its record is kept".to_owned(),
        (false, true) => "its record goes too".to_owned(),
        (false, false) => format!(
            "its record and {} go too: {}",
            count(hosts.len(), "host"),
            hosts.join(", ")
        ),
    };
    format!(
        "this drops {} for ever; {record}",
        clean(&summary(tenant, contents))
    )
}

fn summary(tenant: &Tenant, contents: &Contents) -> String {
    if !contents.exists {
        return format!(
            "tenant '{}' (its schema {} is gone already)",
            tenant.slug, tenant.schema
        );
    }
    let rows = usize::try_from(contents.rows).unwrap_or(usize::MAX);
    format!(
        "tenant '{}': schema {}, {}, about {}, {}",
        tenant.slug,
        tenant.schema,
        count(contents.tables, "table"),
        count(rows, "row"),
        size(contents.bytes)
    )
}

fn size(bytes: u64) -> String {
    let mut value = bytes;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 10_240 {
            return format!("{value} {unit}");
        }
        value /= 1024;
    }
    format!("{value} TiB")
}
