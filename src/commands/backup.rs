//! `backup`: writes a backup file for each tenant; `backup verify` checks files.

use crate::postgres::connection::options::EngineOptions;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::args::output::OutputArg;
use super::args::overrides::{JobsArg, LockTimeoutArg, LockWaitArg};
use super::args::select::SelectArgs;
use super::restore::unreadable;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::jobs::{TenantIds, run_in_each};
use super::run::tenants::select_tenants;
use crate::archive::{ArchivePart, ArchiveReader, EXTENSION, Header, Trailer};
use crate::domain::hint::Hint;
use crate::domain::target::Target;
use crate::domain::tenant::Tenant;
use crate::error::{Exit, Failure};
use crate::postgres::backup::{BackupError, DdlVerifier, Source, back_up};
use crate::postgres::client::pg_dump::{DumpError, pg_dump};
use crate::postgres::connection::conninfo::ConnectOptions;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::service::event::{Interrupt, Operation, Progress};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::{Interrupts, JobFailure, JobResult, JobSuccess, SchemaJob};
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
    /// pricesync, which reads only the tenant's part of the catalog
    #[default]
    Native,
    /// pg_dump -Fc, for pg_restore: schema and rows only; reads the whole catalog for each tenant
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
        make(&folder)?;
        let (database, pace) = app.database_for_jobs(Access::Read).await?;
        let catalog = app.catalog(&database);
        let tenants = select_tenants(selectors, &catalog, app).await?;
        let pg_dump = match self.engine {
            Engine::Native => None,
            Engine::PgDump => Some(app.connection().await?),
        };
        let job = Arc::new(Job {
            catalog,
            engine_options: app.engine_options(&database),
            verifier: DdlVerifier::default(),
            tenants,
            folder,
            stamp: stamp()?,
            pg_dump,
            files: Mutex::default(),
        });
        let targets: Vec<Arc<Target>> = job.tenants.iter().map(target).collect();
        let ids = TenantIds::new(job.catalog.clone(), &job.tenants);
        let summary = run_in_each(app, BACKUP, pace, ids, &job, &targets).await?;
        job.tell(self, app)?;
        Ok(Exit::of(&summary))
    }
}

const BACKUP: Operation = Operation {
    command: "backup",
    doing: "backing up",
    done: Some("backed up"),
};

/// Makes the folder, for its owner alone where it does not exist.
fn make(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| {
        let cause = anyhow::Error::new(error).context(format!("cannot make {}", folder.display()));
        Failure::new(Exit::Usage, cause)
    })
}

/// When the run began, as it stands in names of files.
fn stamp() -> Result<String, Failure> {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = time::OffsetDateTime::now_utc().format(&format);
    now.map_err(|error| Failure::new(Exit::Unexpected, error))
}

/// Backs tenants up.
struct Job {
    catalog: PostgresCatalog,
    engine_options: EngineOptions,
    verifier: DdlVerifier,
    tenants: Vec<Tenant>,
    folder: PathBuf,
    stamp: String,
    /// Where `pg_dump` connects to, where it does the work.
    pg_dump: Option<ConnectOptions>,
    files: Mutex<Vec<BackupFile>>,
}

/// A file that was written.
struct BackupFile {
    slug: String,
    path: PathBuf,
    bytes: u64,
    /// What is in it, as far as we know.
    ending: Option<Trailer>,
}

impl SchemaJob for Job {
    async fn run(
        &self,
        target: &Target,
        progress: &Progress,
        mut interrupts: Interrupts,
    ) -> JobResult {
        let tenant = self.tenants.iter().find(|one| one.schema == target.schema);
        let Some(tenant) = tenant else {
            return Err(MigrateError::SchemaMissing.into());
        };
        let written = tokio::select! {
            written = self.one(tenant, progress) => written,
            () = interrupts.reaches(Interrupt::Cancel) => {
                return Err(work_error("interrupted; there is no file", None, Vec::new()).into());
            }
        };
        let file = written.map_err(failed)?;
        let result = match &file.ending {
            Some(ending) => format!(
                "{}, {}, {}",
                count(ending.tables.len(), "table"),
                count(usize::try_from(ending.rows()).unwrap_or(usize::MAX), "row"),
                size(file.bytes)
            ),
            None => size(file.bytes),
        };
        self.files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(file);
        Ok(JobSuccess::Finished(result))
    }
}

fn work_error(
    message: impl Into<String>,
    sqlstate: Option<String>,
    hints: Vec<Hint>,
) -> MigrateError {
    MigrateError::Job {
        doing: "backing up".to_owned(),
        error: ServerError {
            sqlstate,
            message: message.into(),
            ..ServerError::default()
        },
        hints,
    }
}

fn failed(error: Unwritten) -> JobFailure {
    let error = match error {
        Unwritten::Native(BackupError::Locked { holder, waited }) => {
            MigrateError::Locked { holder, waited }
        }
        Unwritten::Native(BackupError::Server { doing, error }) => MigrateError::Job {
            doing,
            error,
            hints: Vec::new(),
        },
        Unwritten::Native(error) => {
            let said = error.to_string();
            work_error(said, None, Failure::from(error).hints)
        }
        Unwritten::PgDump(error) => {
            let hint = matches!(error, DumpError::NotFound)
                .then(|| "install PostgreSQL's client programs".into());
            work_error(error.to_string(), None, hint.into_iter().collect())
        }
    };
    error.into()
}

/// Why there is no file.
enum Unwritten {
    Native(BackupError),
    PgDump(DumpError),
}

impl Job {
    async fn one(&self, tenant: &Tenant, progress: &Progress) -> Result<BackupFile, Unwritten> {
        let file = |path, bytes, ending| BackupFile {
            slug: tenant.slug.to_string(),
            path,
            bytes,
            ending,
        };
        if let Some(options) = &self.pg_dump {
            let path = self.folder.join(self.file_name(tenant, "dump"));
            let bytes = pg_dump(options, &tenant.schema, &path).await;
            let bytes = bytes.map_err(Unwritten::PgDump)?;
            return Ok(file(path, bytes, None));
        }
        let source = Source {
            catalog: &self.catalog.clone().with_progress(progress.clone()),
            tenant,
            options: &self.engine_options,
            verifier: &self.verifier,
            schema_only: false,
        };
        let path = self.folder.join(self.file_name(tenant, EXTENSION));
        let written = back_up(&source, &path).await.map_err(Unwritten::Native)?;
        Ok(file(written.path, written.bytes, Some(written.ending)))
    }

    /// Lists the files, and says how much they are.
    fn tell(&self, args: &Args, app: &App) -> Result<(), Failure> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let number = |number: u64| Cell::Number(i64::try_from(number).unwrap_or(i64::MAX));
        let columns = ["tenant", "tables", "rows", "bytes", "file", "sha256"];
        let rows = files.iter().map(|file| {
            let ending = file.ending.as_ref();
            let counted = |count: fn(&Trailer) -> u64| {
                ending.map_or(Cell::Absent, |ending| number(count(ending)))
            };
            vec![
                Cell::Text(file.slug.clone()),
                counted(|ending| ending.tables.len() as u64),
                counted(Trailer::rows),
                number(file.bytes),
                Cell::Text(file.path.display().to_string()),
                Cell::maybe(ending.map(|ending| ending.sha256.clone())),
            ]
        });
        // In a table a digest is as wide as all the rest.
        let shown = if args.output.format() == OutputFormat::Table {
            5
        } else {
            6
        };
        let listing = Listing::new(&columns[..shown], "no backups");
        let rows = rows.map(|mut row| {
            row.truncate(shown);
            row
        });
        listing.write(&app.terminal, args.output.format(), rows)?;
        if app.progress == ProgressMode::Json {
            return Ok(());
        }
        let bytes = files.iter().map(|file| file.bytes).sum();
        app.terminal.note(&format!(
            "{} in {}, {}",
            count(files.len(), "file"),
            self.folder.display(),
            size(bytes)
        ));
        if let Some(why) = self.verifier.skipped() {
            app.terminal.warn(&format!(
                "the files were not verified, because {why}; restore compares what it reads"
            ));
        }
        Ok(())
    }

    /// A slug may be anything that stands in the catalog; a name of a file may not.
    fn file_name(&self, tenant: &Tenant, extension: &str) -> String {
        let mut name = String::new();
        for byte in tenant.slug.as_str().bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                name.push(char::from(byte));
            } else {
                let _ = write!(name, "%{byte:02X}");
            }
        }
        format!("{name}.{}.{extension}", self.stamp)
    }
}

fn verify(files: &[PathBuf], app: &App) -> Result<Exit, Failure> {
    use std::io::Write as _;
    let mut worst = None;
    for path in files {
        match read(path) {
            Ok((header, ending)) => {
                let mut out = app.terminal.out();
                let rows = usize::try_from(ending.rows()).unwrap_or(usize::MAX);
                let told = format!(
                    "✓ {}: {} (schema={}) from {}, {}, {}, sha256 {}",
                    path.display(),
                    header.slug,
                    header.schema,
                    header.taken_at,
                    count(ending.tables.len(), "table"),
                    count(rows, "row"),
                    ending.sha256
                );
                writeln!(out, "{}", clean(&told))?;
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
            Some(ArchivePart::End(ending)) => return Ok((reader.header().clone(), ending)),
            Some(_) => {}
            None => return Err(Failure::words(Exit::Unexpected, "a backup without an end")),
        }
    }
}
