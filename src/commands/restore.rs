//! `restore`: restores a tenant from its backup.

use std::path::{Path, PathBuf};

use super::args::overrides::LockTimeoutArg;
use super::args::tenant::{SetArg, parse_hosts};
use super::run::app::{Access, App};
use super::run::jobs::run_in_one;
use super::run::tenants::{new_target, report_pending};
use super::run::{CommandRun, print_line};
use crate::archive::{ArchiveError, ArchiveReader, Header};
use crate::domain::catalog::CatalogError;
use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{Hostname, NewTenant, Slug};
use crate::error::{Exit, Failure};
use crate::postgres::backup::{BackupError, Destination, Restored};
use crate::postgres::tenants::change::ChangeError;
use crate::service::event::Operation;
use crate::settings::Overrides;
use crate::ui::{count, shell_word, took};

/// Restore a tenant from a backup: row, hosts, schema with rows
///
/// Restores all of it in one transaction. Slug, schema and hosts must not be in use. The result is
/// compared with the backup: digests and numbers of rows, values of sequences, the structure of
/// the schema. The file contains SQL that is run: restore only files that you trust.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync restore acme.20261125T120000Z.backup
  pricesync restore acme.20261125T120000Z.backup --as acme2 --domain acme2.test")]
pub(super) struct Args {
    /// A file of pricesync backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Restore it as another tenant, with this slug
    #[arg(long = "as", value_name = "SLUG")]
    slug: Option<String>,
    /// Host; repeatable, replaces the backup's [default with --as: none]
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
    #[command(flatten)]
    set: SetArg,
    #[command(flatten)]
    lock_timeout: LockTimeoutArg,
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.lock_timeout.override_settings(overrides);
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let started = std::time::Instant::now();
        let path = self.file.clone();
        let opened = tokio::task::spawn_blocking(move || ArchiveReader::open(&path))
            .await
            .map_err(|error| Failure::new(Exit::Unexpected, error))?;
        let file = opened.map_err(|error| unreadable(&self.file, error))?;
        let destination = destination(self, file.header(), app)?;
        let header = file.header().clone();
        let database = app.database(Access::Write, 2).await?;
        let target = new_target(&destination.new);
        let restored = run_in_one(app, &database, RESTORE, &target, async |admin| {
            let restored = admin.restore_file(file, &destination).await;
            let restored = restored.map_err(|error| failure(error, self))?;
            let result = restored_size(&restored);
            Ok((restored, result))
        })
        .await?;
        let tenant = &restored.tenant;
        for line in &restored.differences {
            app.terminal.warn(&format!(
                "the backup is from PostgreSQL {}; on this server: {line}",
                header.major()
            ));
        }
        warn_of_references(&restored, app);
        let line = format!(
            "✓ Restored: {} (slug={}, schema={}, {}) from {}, {}, {}",
            tenant.name,
            tenant.slug,
            tenant.schema,
            count(tenant.hostnames.len(), "host"),
            header.taken_at,
            restored_size(&restored),
            took(started.elapsed()),
        );
        print_line(&app.terminal, line)?;
        report_pending(tenant, app, &database).await;
        Ok(Exit::Done)
    }
}

const RESTORE: Operation = Operation { command: "restore", doing: "restoring", done: None };

/// Warns of rows that still reference the id of the original tenant.
pub(super) fn warn_of_references(restored: &Restored, app: &App) {
    if !restored.stale_references.is_empty() {
        app.terminal.warn(&format!(
            "rows still reference the id of the original tenant, because a constraint or trigger rejects the change: {}",
            restored.stale_references.join(", ")
        ));
    }
}

/// Returns the number of restored tables and rows.
pub(super) fn restored_size(restored: &Restored) -> String {
    let rows = usize::try_from(restored.rows).unwrap_or(usize::MAX);
    format!("{}, {}", count(restored.tables, "table"), count(rows, "row"))
}

fn destination(args: &Args, header: &Header, app: &App) -> Result<Destination, Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::words(Exit::Refused, error);
    let is_same_tenant = args.slug.is_none();
    let (slug, schema) = match &args.slug {
        Some(slug) => {
            let slug = Slug::parse(slug).map_err(|error| refused(&error))?;
            let schema = slug.schema(&app.settings.catalog.schema_prefix);
            (slug, schema)
        }
        None => (Slug::from_catalog(header.slug.clone()), SchemaName::parse(&header.schema)),
    };
    let keeps_hosts = is_same_tenant && args.domains.is_empty();
    let hostnames = if keeps_hosts {
        let hosts = header.hosts.iter().cloned();
        hosts.map(Hostname::from_catalog).collect()
    } else {
        parse_hosts(&args.domains)?
    };
    Ok(Destination {
        new: NewTenant {
            name: header.name.clone(),
            slug,
            schema: schema.map_err(|error| refused(&error))?,
            hostnames,
            columns: args.set.columns(&app.settings.catalog)?,
        },
        is_same_tenant,
        keeps_hosts,
    })
}

/// Converts the error of reading a backup file.
pub(super) fn unreadable(path: &Path, error: ArchiveError) -> Failure {
    let failure = Failure::from(BackupError::Archive(error));
    Failure { cause: failure.cause.context(path.display().to_string()), ..failure }
}

fn failure(error: BackupError, args: &Args) -> Failure {
    let file = shell_word(&args.file.to_string_lossy()).into_owned();
    match error {
        BackupError::Archive(error) => unreadable(&args.file, error).hint("nothing was changed"),
        BackupError::Change(ChangeError::Catalog(taken @ CatalogError::AlreadyExists { .. })) => {
            let failure = Failure::new(Exit::Refused, taken).hint("nothing was changed");
            failure.hint(if args.slug.is_none() {
                Hint::command(
                    "move the other tenant to the trash (drop-schema --trash), or restore as another tenant",
                    format!("restore {file} --as SLUG"),
                )
            } else {
                "use another --as or another --domain".into()
            })
        }
        BackupError::NameReferenced(_) => Failure::from(error)
            .hint("restore it without --as; drop-schema --trash makes room for it"),
        BackupError::Change(ChangeError::Interrupted) => Failure::interrupted(),
        unknown if unknown.is_in_doubt() => Failure::from(unknown),
        other => Failure::from(other).hint("nothing was changed"),
    }
}
