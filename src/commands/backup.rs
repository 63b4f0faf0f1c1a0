//! `backup`: each tenant into a file of its own; `backup verify` reads one to its end.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::app::{Access, App, connections_for};
use super::restore::unreadable;
use super::select::SelectArgs;
use crate::archive::{ArchiveReader, EXTENSION, Ending, Header, Piece, Written};
use crate::domain::tenant::{Tenant, TenantCatalog as _};
use crate::error::{Exit, Failure};
use crate::postgres::backup::{BackupError, Rehearsals, Source, back_up};
use crate::postgres::catalog::PostgresCatalog;
use crate::postgres::migrator::Rules;

/// Back tenants up, each into a file of its own
///
/// The file is one snapshot of the tenant's schema, its row and its hosts. pricesync restore
/// brings it back, and zstd -d turns it into a script for psql. It appears under its name when it
/// is whole.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Every tenant
    #[arg(long)]
    all: bool,
    /// The folder for the files; made where it does not exist
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    #[command(flatten)]
    select: SelectArgs,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Read backups to their ends and compare digests and counts; needs no server
    Verify {
        /// Files that pricesync backup wrote
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    if let Some(Command::Verify { files }) = &args.command {
        return verify(files, app);
    }
    let Some(folder) = args.out.clone() else {
        return Err(Failure::words(Exit::Usage, "--out is missing"));
    };
    if args.all != args.select.is_everything() {
        let words = if args.all {
            "--all is every tenant; leave it out to choose some"
        } else {
            "say which tenants: --tenant, --where, --from-file, or --all"
        };
        return Err(Failure::words(Exit::Usage, words));
    }
    let selectors = args.select.read()?;
    make(&folder)?;
    let database = app.database(Access::Read, 1).await?;
    let pace = app.pace(&database);
    database.resize(NonZeroUsize::new(connections_for(pace.jobs())).unwrap_or(NonZeroUsize::MIN));
    let catalog = app.catalog(&database);
    let selection = selectors.resolve(&catalog).await?;
    let tenants = selection.choose(catalog.list().await?.tenants)?;
    let job = Job {
        catalog,
        rules: app.rules(&database),
        rehearsals: Rehearsals::default(),
        folder,
        stamp: stamp()?,
    };
    for tenant in &tenants {
        let written = job.one(tenant).await?;
        app.terminal.note(&format!("{}", written.path.display()));
    }
    Ok(Exit::Done)
}

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
    rules: Rules,
    rehearsals: Rehearsals,
    folder: PathBuf,
    stamp: String,
}

impl Job {
    async fn one(&self, tenant: &Tenant) -> Result<Written, BackupError> {
        let source = Source {
            catalog: &self.catalog,
            tenant,
            rules: &self.rules,
            rehearsals: &self.rehearsals,
            schema_only: false,
        };
        back_up(&source, &self.folder.join(self.file_name(tenant))).await
    }

    /// A slug may be anything that stands in the catalog; a name of a file may not.
    fn file_name(&self, tenant: &Tenant) -> String {
        let mut name = String::new();
        for byte in tenant.slug.as_str().bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                name.push(char::from(byte));
            } else {
                let _ = write!(name, "%{byte:02X}");
            }
        }
        format!("{name}.{}.{EXTENSION}", self.stamp)
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
                    crate::ui::count(ending.tables.len(), "table"),
                    crate::ui::count(rows, "row"),
                    ending.sha256
                );
                writeln!(out, "{}", crate::ui::clean(&told))?;
                out.flush()?;
            }
            Err(failure) if files.len() == 1 => return Err(failure),
            Err(failure) => {
                app.terminal.error(&format!("{:#}", failure.cause));
                worst = Some(failure.exit);
            }
        }
    }
    Ok(worst.unwrap_or(Exit::Done))
}

fn read(path: &Path) -> Result<(Header, Ending), Failure> {
    let unreadable = |error| unreadable(path, error);
    let mut reader = ArchiveReader::open(path).map_err(unreadable)?;
    loop {
        match reader.next_piece().map_err(unreadable)? {
            Some(Piece::End(ending)) => return Ok((reader.header().clone(), ending)),
            Some(_) => {}
            None => return Err(Failure::words(Exit::Unexpected, "a backup without an end")),
        }
    }
}
