//! `backup`: writes a backup file for each tenant; `backup verify` checks files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::args::output::OutputArg;
use super::args::overrides::{JobsArg, LockTimeoutArg, LockWaitArg};
use super::args::select::SelectArgs;
use super::restore::unreadable;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::jobs::{TenantIds, run_in_each};
use super::run::tenants::select_tenants;
use crate::archive::{ArchivePart, ArchiveReader, Header, Trailer};
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::postgres::backup::{BackupFile, BackupJob, DdlVerifier};
use crate::postgres::tenants::admin::TenantAdmin;
use crate::service::event::Operation;
use crate::service::selection::target;
use crate::settings::Overrides;
use crate::ui::{Cell, Listing, OutputFormat, ProgressMode, clean, count, size};

/// Back up tenants, each into its own file
///
/// A file contains one snapshot of the tenant's schema, its row and its hosts. pricesync restore
/// restores it; zstd -d converts it to a script for psql. The file gets its name once it is
/// complete, and never replaces another file. Each distinct structure is restored once into a
/// scratch schema and rolled back, so that anything a backup cannot contain is an error now.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync backup --all --out backups
  pricesync backup --tenant 'a*' --exclude acme --out backups -o names
  pricesync backup verify backups/acme.20261125T120000Z.backup")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// All tenants
    #[arg(long)]
    all: bool,
    /// Folder for the files; created if it does not exist
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    /// What writes the files
    #[arg(long, value_enum, default_value_t, value_name = "ENGINE")]
    engine: Engine,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    jobs: JobsArg,
    #[command(flatten)]
    lock_timeout: LockTimeoutArg,
    #[command(flatten)]
    lock_wait: LockWaitArg,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    /// pricesync; reads only the tenant's part of the catalog
    #[default]
    Native,
    /// pg_dump -Fc, for pg_restore; schema and rows only
    #[value(name = "pg_dump")]
    PgDump,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Check digests and row counts of backup files, without a server
    Verify {
        /// Files of pricesync backup
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.jobs.override_settings(overrides);
        self.lock_timeout.override_settings(overrides);
        self.lock_wait.override_settings(overrides);
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        if let Some(Command::Verify { files }) = &self.command {
            return verify(files, app);
        }
        let Some(folder) = self.out.clone() else {
            return Err(Failure::words(Exit::Usage, "--out is missing"));
        };
        if self.all != self.select.is_everything() {
            let words = if self.all {
                "--all and a selection exclude each other"
            } else {
                "no tenant is selected: use --tenant, --where, --from-file, or --all"
            };
            return Err(Failure::words(Exit::Usage, words));
        }
        let selectors = self.select.read()?;
        create_folder(&folder)?;
        let (database, pace) = app.database_for_jobs(Access::Read).await?;
        let catalog = app.catalog(&database);
        let tenants = select_tenants(selectors, &catalog, app).await?;
        let pg_dump = match self.engine {
            Engine::Native => None,
            Engine::PgDump => Some(app.connection().await?),
        };
        let job = Arc::new(BackupJob {
            admin: TenantAdmin::new(catalog, app.engine_options(&database)),
            tenants,
            folder,
            timestamp: timestamp()?,
            pg_dump,
            describe,
            verifier: DdlVerifier::default(),
            files: Mutex::default(),
        });
        let targets: Vec<Arc<Target>> = job.tenants.iter().map(target).collect();
        let ids = TenantIds::new(job.admin.catalog.clone(), &job.tenants);
        let summary = run_in_each(app, BACKUP, pace, ids, &job, &targets).await?;
        self.print(&job, app)?;
        Ok(Exit::of(&summary))
    }
}

const BACKUP: Operation =
    Operation { command: "backup", doing: "backing up", done: Some("backed up") };

/// Creates the folder with mode 0700 if it does not exist.
fn create_folder(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.map_err(|error| {
        let cause =
            anyhow::Error::new(error).context(format!("cannot create {}", folder.display()));
        Failure::new(Exit::Usage, cause)
    })
}

/// Returns the current time for names of files.
fn timestamp() -> Result<String, Failure> {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = time::OffsetDateTime::now_utc().format(&format);
    now.map_err(|error| Failure::new(Exit::Unexpected, error))
}

/// Returns the result of a tenant: `2 tables, 10 rows, 812 bytes`.
fn describe(file: &BackupFile) -> String {
    match &file.trailer {
        Some(trailer) => format!("{}, {}", counts(trailer), size(file.bytes)),
        None => size(file.bytes),
    }
}

fn counts(trailer: &Trailer) -> String {
    let rows = usize::try_from(trailer.rows()).unwrap_or(usize::MAX);
    let tables = count(trailer.tables.len(), "table");
    format!("{tables}, {}", count(rows, "row"))
}

impl Args {
    /// Lists the files and their total size.
    fn print(&self, job: &BackupJob, app: &App) -> Result<(), Failure> {
        let files = job.files();
        // A digest is too wide for a table.
        let columns: &[&str] = match self.output.format() {
            OutputFormat::Table => &["tenant", "tables", "rows", "bytes", "file"],
            _ => &["tenant", "tables", "rows", "bytes", "file", "sha256"],
        };
        let rows = files.iter().map(|file| {
            let trailer = file.trailer.as_ref();
            let counted = |count: fn(&Trailer) -> u64| {
                trailer.map_or(Cell::Absent, |trailer| Cell::count(count(trailer)))
            };
            let mut row = vec![
                Cell::Text(file.slug.clone()),
                counted(|trailer| trailer.tables.len() as u64),
                counted(Trailer::rows),
                Cell::count(file.bytes),
                Cell::Text(file.path.display().to_string()),
                Cell::maybe(trailer.map(|trailer| trailer.sha256.clone())),
            ];
            row.truncate(columns.len());
            row
        });
        let listing = Listing::new(columns, "no backups");
        listing.write(&app.terminal, self.output.format(), rows)?;
        if app.progress == ProgressMode::Json {
            return Ok(());
        }
        let bytes = files.iter().map(|file| file.bytes).sum();
        app.terminal.note(&format!(
            "{} in {}, {}",
            count(files.len(), "file"),
            job.folder.display(),
            size(bytes)
        ));
        if let Some(why) = job.verifier.skipped() {
            app.terminal.warn(&format!(
                "the generated DDL was not verified: {why}; restore compares the structure"
            ));
        }
        Ok(())
    }
}

fn verify(files: &[PathBuf], app: &App) -> Result<Exit, Failure> {
    use std::io::Write as _;
    let mut worst = None;
    for path in files {
        match read(path) {
            Ok((header, trailer)) => {
                let mut out = app.terminal.out();
                let line = format!(
                    "✓ {}: {} (schema={}) from {}, {}, sha256 {}",
                    path.display(),
                    header.slug,
                    header.schema,
                    header.taken_at,
                    counts(&trailer),
                    trailer.sha256
                );
                writeln!(out, "{}", clean(&line))?;
                out.flush()?;
            }
            Err(failure) if files.len() == 1 => return Err(failure),
            Err(failure) => {
                app.terminal.error(&format!("{:#}", failure.cause));
                if worst != Some(Exit::Drift) {
                    worst = Some(failure.exit);
                }
            }
        }
    }
    Ok(worst.unwrap_or(Exit::Done))
}

fn read(path: &Path) -> Result<(Header, Trailer), Failure> {
    let unreadable = |error| unreadable(path, error);
    let mut reader = ArchiveReader::open(path).map_err(unreadable)?;
    loop {
        match reader.next_part().map_err(unreadable)? {
            Some(ArchivePart::End(trailer)) => return Ok((reader.header().clone(), trailer)),
            Some(_) => {}
            None => return Err(Failure::words(Exit::Unexpected, "a backup without an end")),
        }
    }
}
