//! `drop-schema`: drops a tenant, or moves it to the trash.

use std::fmt::Write as _;

use super::args::overrides::{LockTimeoutArg, LockWaitArg};
use super::args::tenant::TenantArg;
use super::run::app::{Access, App};
use super::run::confirm::{confirm, contents_size, partly_done, rolled_back};
use super::run::jobs::run_in_one;
use super::run::tenants::find_tenant;
use super::run::{CommandRun, print_line};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::hint::Hint;
use crate::domain::tenant::{Hostname, Tenant};
use crate::error::{Exit, Failure};
use crate::postgres::tenants::drop::{Contents, DropOptions};
use crate::service::event::Operation;
use crate::service::selection::target;
use crate::settings::Overrides;
use crate::ui::{clean, count, shell_word};

/// Drop a tenant: schema with all objects, hosts and row
///
/// Shows what would be lost and asks you to type the slug; without a terminal it requires
/// --force. Refuses if an object outside the schema depends on it. An interrupted drop is
/// finished by running it again; until then the tenant is listed as dropping. With --trash
/// nothing is lost: undrop restores the tenant, purge drops it permanently.
#[derive(clap::Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Skip the confirmation
    #[arg(long, visible_alias = "yes")]
    force: bool,
    /// Drop the schema only; keep the row and the hosts
    #[arg(long)]
    keep_record: bool,
    /// Move the tenant to the trash; pricesync undrop restores it
    #[arg(long, conflicts_with_all = ["keep_record", "cascade_outside"])]
    trash: bool,
    /// Drop dependent objects outside the schema too, such as views in public
    #[arg(long)]
    cascade_outside: bool,
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
        let database = app.database(Access::Write, 3).await?;
        let catalog = app.catalog(&database);
        let tenant = find_tenant(&self.tenant.tenant, catalog.list().await?)?;
        let contents = catalog.contents(&tenant).await?;
        if !self.trash {
            contents.check_dependents(self.cascade_outside)?;
        }
        if !self.force {
            let question = question(&tenant, &contents, self);
            let action = if self.trash {
                format!("move tenant '{}' to the trash", tenant.slug)
            } else {
                format!("drop tenant '{}'", tenant.slug)
            };
            confirm(&question, tenant.slug.as_str(), &action, &app.terminal)?;
        }
        let work = if self.trash { TRASH } else { DROP };
        let subject = describe_tenant(&tenant, &contents);
        run_in_one(app, &database, work, &target(&tenant), async |admin| {
            if self.trash {
                let moved = admin.trash(&tenant, &contents).await;
                moved.map_err(rolled_back)?;
            } else {
                let removal = DropOptions {
                    keep_record: self.keep_record,
                    cascade_outside: self.cascade_outside,
                };
                let dropped = admin.drop(&tenant, removal).await;
                dropped.map_err(partly_done)?;
            }
            Ok(((), contents_size(&contents)))
        })
        .await?;
        if self.trash {
            print_line(&app.terminal, format!("✓ Moved to the trash: {subject}"))?;
            let slug = shell_word(tenant.slug.as_str());
            app.terminal.hint(&Hint::command("restore it", format!("undrop --tenant {slug}")));
            return Ok(Exit::Done);
        }
        print_line(&app.terminal, format!("✓ Dropped {subject}"))?;
        Ok(Exit::Done)
    }
}

const DROP: Operation = Operation { command: "drop-schema", doing: "dropping", done: None };

const TRASH: Operation =
    Operation { command: "drop-schema --trash", doing: "moving to the trash", done: None };

fn question(tenant: &Tenant, contents: &Contents, args: &Args) -> String {
    let hosts: Vec<&str> = tenant.hostnames.iter().map(Hostname::as_str).collect();
    let mut record = match (args.keep_record, hosts.is_empty()) {
        (true, _) => "its row is kept".to_owned(),
        (false, true) => "its row is deleted".to_owned(),
        (false, false) => {
            format!("its row and {} are deleted: {}", count(hosts.len(), "host"), hosts.join(", "))
        }
    };
    if !args.keep_record {
        for referrer in contents.references.iter().filter(|one| !one.blocks) {
            let _ = write!(record, "; rows of {} refer to it", referrer.table);
        }
    }
    for dependent in contents.dependents.iter().filter(|_| !args.trash) {
        let _ = write!(record, "; {}", dependent.description);
    }
    if contents.is_partial {
        record.push_str("; a table is locked, so referencing rows may be missing from this list");
    }
    let what = describe_tenant(tenant, contents);
    let what = if args.trash {
        format!("this moves {what} to the trash; {record}")
    } else {
        format!("this permanently drops {what}; {record}")
    };
    clean(&what).into_owned()
}

fn describe_tenant(tenant: &Tenant, contents: &Contents) -> String {
    if !contents.exists() {
        return format!("tenant '{}' (its schema {} is already gone)", tenant.slug, tenant.schema);
    }
    let left = if contents.is_dropping() { "the rest of " } else { "" };
    format!("tenant '{}': {left}schema {}, {}", tenant.slug, tenant.schema, contents_size(contents))
}
