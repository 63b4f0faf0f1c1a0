//! `restore`: a tenant out of its backup.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::args::tenant::hosts;
use super::create_tenant::target;
use super::run::app::{Access, App};
use super::run::jobs::alone;
use super::undrop::tell_pending;
use crate::archive::{ArchiveError, ArchiveReader, Header};
use crate::domain::catalog::CatalogError;
use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{Hostname, NewTenant, Slug};
use crate::error::{Exit, Failure};
use crate::postgres::backup::{BackupError, Destination, Restored};
use crate::postgres::tenants::create::CreateError;
use crate::service::event::Operation;
use crate::settings::Overrides;
use crate::ui::{clean, count, shell_word, took};

/// Bring a tenant back from a backup: its row, its hosts, its schema with all rows
///
/// All of it or nothing, in one transaction. Slug, schema and hosts must be free. What comes out
/// is compared with what the backup says: digests and counts of rows, the values of sequences, the
/// whole structure of the schema. The file holds SQL that is run: restore files that you trust.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync restore acme.20261125T120000Z.backup
  pricesync restore acme.20261125T120000Z.backup --as acme2 --domain acme2.example.com")]
pub(super) struct Args {
    /// The file that pricesync backup wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Restore it as another tenant, with this slug and a schema of its own
    #[arg(long = "as", value_name = "SLUG")]
    slug: Option<String>,
    /// Host name, in place of those in the backup; may be repeated. With --as, no host of the backup is taken over
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
    /// How long a statement waits for a lock, such as 2s; 0 waits for ever
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        let timeout = self.lock_timeout.as_deref();
        overrides.set("run.lock_timeout", "--lock-timeout", timeout);
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let begun = std::time::Instant::now();
    let path = args.file.clone();
    let opened = tokio::task::spawn_blocking(move || ArchiveReader::open(&path))
        .await
        .map_err(|error| Failure::new(Exit::Unexpected, error))?;
    let file = opened.map_err(|error| unreadable(&args.file, error))?;
    let destination = destination(args, file.header(), app)?;
    let header = file.header().clone();
    let database = app.database(Access::Write, 2).await?;
    let catalog = app.catalog(&database);
    let engine_options = app.engine_options(&database);
    let restored = alone(app, RESTORE, target(&destination.new), async |progress| {
        let catalog = catalog.clone().telling(progress);
        let restored = catalog
            .restore_file(file, &destination, &engine_options)
            .await;
        let restored = restored.map_err(|error| failure(error, args))?;
        let result = amount(&restored);
        Ok((restored, result))
    })
    .await?;
    let tenant = &restored.tenant;
    for line in &restored.differences {
        app.terminal.warn(&format!(
            "the backup is from PostgreSQL {}; this server says of the same: {line}",
            header.major()
        ));
    }
    tell_still_refer(&restored, app);
    let told = format!(
        "✓ Restored: {} (slug={}, schema={}, {}) from {}, {}",
        tenant.name,
        tenant.slug,
        tenant.schema,
        count(tenant.hostnames.len(), "host"),
        header.taken_at,
        amount(&restored),
    );
    let mut out = app.terminal.out();
    writeln!(out, "{}, {}", clean(&told), took(begun.elapsed()))?;
    out.flush()?;
    tell_pending(tenant, app, &database).await;
    Ok(Exit::Done)
}

const RESTORE: Operation = Operation {
    command: "restore",
    doing: "restoring",
    done: None,
};

/// Rows that could not be pointed to the new tenant are another's, and keep its row.
pub(super) fn tell_still_refer(restored: &Restored, app: &App) {
    if !restored.still_refer.is_empty() {
        app.terminal.warn(&format!(
            "rows still refer to the id of the tenant that they come from, because the schema does not let it be changed: {}",
            restored.still_refer.join(", ")
        ));
    }
}

/// How much came back.
pub(super) fn amount(restored: &Restored) -> String {
    let rows = usize::try_from(restored.rows).unwrap_or(usize::MAX);
    format!(
        "{}, {}",
        count(restored.tables, "table"),
        count(rows, "row")
    )
}

fn destination(args: &Args, header: &Header, app: &App) -> Result<Destination, Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::words(Exit::Refused, error);
    let is_itself = args.slug.is_none();
    let (slug, schema) = match &args.slug {
        Some(slug) => {
            let slug = Slug::parse(slug).map_err(|error| refused(&error))?;
            let schema = slug.schema(&app.settings.catalog.schema_prefix);
            (slug, schema)
        }
        None => (
            Slug::from_catalog(header.slug.clone()),
            SchemaName::parse(&header.schema),
        ),
    };
    let keeps_hosts = is_itself && args.domains.is_empty();
    let hostnames = if keeps_hosts {
        let hosts = header.hosts.iter().cloned();
        hosts.map(Hostname::from_catalog).collect()
    } else {
        hosts(&args.domains)?
    };
    Ok(Destination {
        new: NewTenant {
            name: header.name.clone(),
            slug,
            schema: schema.map_err(|error| refused(&error))?,
            hostnames,
            columns: Vec::new(),
        },
        is_itself,
        keeps_hosts,
    })
}

/// What to do about a file that cannot be read as a backup.
pub(super) fn unreadable(path: &Path, error: ArchiveError) -> Failure {
    let failure = Failure::from(BackupError::Archive(error));
    Failure {
        cause: failure.cause.context(path.display().to_string()),
        ..failure
    }
}

fn failure(error: BackupError, args: &Args) -> Failure {
    let file = shell_word(&args.file.to_string_lossy()).into_owned();
    match error {
        BackupError::Archive(error) => {
            unreadable(&args.file, error).hint("nothing was restored, and nothing was changed")
        }
        BackupError::Create(CreateError::Catalog(taken @ CatalogError::AlreadyExists { .. })) => {
            let failure = Failure::new(Exit::Refused, taken).hint("nothing was changed");
            failure.hint(if args.slug.is_none() {
                Hint::command(
                    "move the other tenant to the trash (drop-schema --trash), or restore as another tenant",
                    format!("restore {file} --as SLUG"),
                )
            } else {
                "choose another --as, or another --domain".into()
            })
        }
        BackupError::Mentions(_) => Failure::from(error).hint(
            "restore it under its own slug, after drop-schema --trash of the tenant that has it",
        ),
        unknown if unknown.is_unknown() => Failure::from(unknown),
        other => Failure::from(other).hint("nothing was restored, and nothing was changed"),
    }
}
