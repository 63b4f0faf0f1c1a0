//! psql and `pg_dump`, started so that they see one tenant: no secret on a command line, and
//! nothing of the caller's environment that could lead them elsewhere.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use tokio::signal::unix::{SignalKind, signal};

use super::environment::TenantEnvironment;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::Tenant;
use crate::postgres::connection::conninfo::ConnectOptions;

/// A psql session in a tenant's schema.
#[derive(Debug)]
pub struct Psql<'a> {
    /// Where to connect.
    pub environment: &'a TenantEnvironment,
    /// Whose schema.
    pub tenant: &'a Tenant,
    /// Whether transactions may write.
    pub read_only: bool,
    /// Commands to run instead of asking a person.
    pub commands: &'a [String],
    /// Further options for psql itself.
    pub arguments: &'a [OsString],
}

/// Why `pg_dump` wrote nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum DumpError {
    /// It is not installed, or not on the PATH.
    NotFound,
    /// The file, or starting it.
    Io(io::Error),
    /// It failed; what it said.
    Said(String),
}

impl std::fmt::Display for DumpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("pg_dump is not on the PATH"),
            Self::Io(error) => error.fmt(f),
            Self::Said(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DumpError {}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Has `pg_dump` write a schema into an archive for `pg_restore`, and returns its size in bytes.
/// The file has its name once it is whole, and nobody but its owner may read it. Where nobody waits for it any
/// more, `pg_dump` is killed and there is no file.
///
/// # Errors
///
/// [`DumpError`]; there is no file then.
pub async fn pg_dump(
    options: &ConnectOptions,
    schema: &SchemaName,
    path: &Path,
) -> Result<u64, DumpError> {
    if path.try_exists()? {
        let words = format!("{} is there already", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, words).into());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".pricesync-")
        .suffix(".partial")
        .tempfile_in(folder)?;
    let mut command = Command::new("pg_dump");
    options.apply_to(&mut command);
    command
        .args(["--format=custom", "--no-password", "--file"])
        .arg(file.path())
        // A pattern, in which nothing between quotes means anything.
        .arg("--schema")
        .arg(schema.quoted().to_string());
    let mut command = tokio::process::Command::from(command);
    // A terminal's Ctrl-C is ours: the first lets what runs finish.
    command
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    let output = command.output().await;
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DumpError::NotFound,
        _ => DumpError::Io(error),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DumpError::Said(said));
    }
    file.as_file().sync_all()?;
    let bytes = file.as_file().metadata()?.len();
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    Ok(bytes)
}

/// Why psql did not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum PsqlError {
    /// It is not installed, or not on the PATH.
    NotFound,
    /// It could not be started.
    Io(io::Error),
}

impl std::fmt::Display for PsqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("psql is not on the PATH"),
            Self::Io(error) => write!(f, "cannot run psql: {error}"),
        }
    }
}

impl std::error::Error for PsqlError {}

/// Returns a process, or a group of them, by its number.
pub(crate) fn process(id: Option<u32>) -> Option<rustix::process::Pid> {
    let id = i32::try_from(id?).ok()?;
    rustix::process::Pid::from_raw(id)
}

fn end(child: &tokio::process::Child) {
    if let Some(pid) = process(child.id()) {
        // It may have ended already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

impl Psql<'_> {
    /// Runs psql to its end. Ctrl-C is psql's, which cancels the statement there; whoever asks this process to
    /// end, or takes its terminal away, asks psql with it.
    ///
    /// # Errors
    ///
    /// [`PsqlError`] when it cannot be started; how it ended is in the status.
    pub async fn run(&self) -> Result<ExitStatus, PsqlError> {
        let start_up = self.start_up_file().map_err(PsqlError::Io)?;
        let mut command = Command::new("psql");
        self.environment.options.apply_to(&mut command);
        let options = self
            .environment
            .server_options(&self.tenant.schema, self.read_only);
        command
            .env("PGOPTIONS", options)
            .env("PSQLRC", start_up.path());
        for sql in self.commands {
            command.arg("-c").arg(sql);
        }
        command.args(self.arguments);
        let heard = |kind| signal(kind).map_err(PsqlError::Io);
        let (mut interrupts, mut ends, mut hangups) = (
            heard(SignalKind::interrupt())?,
            heard(SignalKind::terminate())?,
            heard(SignalKind::hangup())?,
        );
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => PsqlError::NotFound,
                _ => PsqlError::Io(error),
            })?;
        loop {
            tokio::select! {
                status = child.wait() => return status.map_err(PsqlError::Io),
                _ = interrupts.recv() => {}
                _ = ends.recv() => end(&child),
                _ = hangups.recv() => end(&child),
            }
        }
    }

    /// The person's own start-up file, then a prompt that names the tenant.
    fn start_up_file(&self) -> io::Result<tempfile::NamedTempFile> {
        let mut file = tempfile::Builder::new()
            .prefix("pricesync-psqlrc")
            .tempfile()?;
        let own = std::env::var_os("PSQLRC").map(PathBuf::from).or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(PathBuf::from(home).join(".psqlrc"))
        });
        if let Some(own) = own.filter(|own| own.is_file()) {
            writeln!(
                file,
                "\\i '{}'",
                own.display().to_string().replace('\'', "''")
            )?;
        }
        // In a prompt % begins an escape, in a psql literal ' ends it.
        let slug: String = self
            .tenant
            .slug
            .as_str()
            .chars()
            .filter(|c| !c.is_control() && !matches!(c, '%' | '\'' | '\\' | '`' | ':'))
            .collect();
        writeln!(file, "\\set PROMPT1 '{slug}%R%x%# '")?;
        writeln!(file, "\\set PROMPT2 '{slug}%R%x%# '")?;
        file.flush()?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schema_name::SchemaName;
    use crate::domain::tenant::Slug;
    use crate::postgres::connection::conninfo::{ConnectOptions, Environment};

    fn psql(schema: &str, check: impl FnOnce(&Psql<'_>)) {
        let environment = Environment::from_pairs::<&str, &str>([]);
        let environment = TenantEnvironment {
            options: ConnectOptions::resolve(Some("postgresql://app@db/x"), &environment)
                .expect("fine"),
            search_path: Vec::new(),
        };
        let tenant = Tenant {
            id: 1,
            name: "x".to_owned(),
            slug: Slug::from_catalog("a%'c".to_owned()),
            schema: SchemaName::parse(schema).expect("legal"),
            hostnames: Vec::new(),
            created_at: None,
        };
        check(&Psql {
            environment: &environment,
            tenant: &tenant,
            read_only: true,
            commands: &[],
            arguments: &[],
        });
    }

    #[test]
    fn the_prompt_names_the_tenant_and_nothing_else_happens() {
        psql("tenant_a", |psql| {
            let file = psql.start_up_file().expect("writable");
            let text = std::fs::read_to_string(file.path()).expect("readable");
            assert!(
                text.ends_with("\\set PROMPT1 'ac%R%x%# '\n\\set PROMPT2 'ac%R%x%# '\n"),
                "{text}"
            );
        });
    }
}
