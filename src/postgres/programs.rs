//! psql and `pg_dump`, started so that they see one tenant: no secret on a command line, and
//! nothing of the caller's environment that could lead them elsewhere.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::conninfo::ConnectOptions;
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::Tenant;

/// A psql session in a tenant's schema.
#[derive(Debug)]
pub struct Psql<'a> {
    /// Where to connect.
    pub options: &'a ConnectOptions,
    /// Whose schema.
    pub tenant: &'a Tenant,
    /// What follows the tenant in `search_path`.
    pub search_path: &'a [SchemaName],
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
/// The file has its name once it is whole, and nobody but its owner may read it.
///
/// # Errors
///
/// [`DumpError`]; there is no file then.
pub fn pg_dump(
    options: &ConnectOptions,
    schema: &SchemaName,
    path: &Path,
) -> Result<u64, DumpError> {
    if path.try_exists()? {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
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
    let output = command.output().map_err(|error| match error.kind() {
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

impl Psql<'_> {
    /// Runs psql to its end.
    ///
    /// # Errors
    ///
    /// [`PsqlError`] when it cannot be started; how it ended is in the status.
    pub fn run(&self) -> Result<ExitStatus, PsqlError> {
        let start_up = self.start_up_file().map_err(PsqlError::Io)?;
        let mut command = Command::new("psql");
        self.options.apply_to(&mut command);
        command
            .env("PGOPTIONS", self.server_options())
            .env("PSQLRC", start_up.path());
        for sql in self.commands {
            command.arg("-c").arg(sql);
        }
        command.args(self.arguments);
        let status = command.status().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PsqlError::NotFound,
            _ => PsqlError::Io(error),
        })?;
        Ok(status)
    }

    /// Settings that also survive `RESET` and `\c`, unlike those of a first statement.
    fn server_options(&self) -> String {
        let mut path = self.tenant.schema.quoted().to_string();
        for schema in self.search_path {
            let _ = write!(path, ", {}", schema.quoted());
        }
        let mut options = self
            .options
            .child_environment()
            .into_iter()
            .find(|(name, _)| *name == "PGOPTIONS")
            .map(|(_, value)| value.to_string_lossy().into_owned() + " ")
            .unwrap_or_default();
        let _ = write!(options, "-c search_path={}", escaped(&path));
        if self.read_only {
            options.push_str(" -c default_transaction_read_only=on");
        }
        options
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

/// In `options` spaces part words and backslashes escape (manual section 34.1.2).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(' ', "\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tenant::Slug;
    use crate::postgres::conninfo::Environment;

    fn psql(schema: &str, check: impl FnOnce(&Psql<'_>)) {
        let environment = Environment::from_pairs::<&str, &str>([]);
        let options = ConnectOptions::resolve(
            Some("postgresql://app@db/x?options=-cwork_mem%3D1MB"),
            &environment,
        )
        .expect("fine");
        let tenant = Tenant {
            id: 1,
            name: "x".to_owned(),
            slug: Slug::from_catalog("a%'c".to_owned()),
            schema: SchemaName::parse(schema).expect("legal"),
            hostnames: Vec::new(),
            created_at: None,
        };
        check(&Psql {
            options: &options,
            tenant: &tenant,
            search_path: &[SchemaName::public()],
            read_only: true,
            commands: &[],
            arguments: &[],
        });
    }

    #[test]
    fn the_search_path_is_quoted_for_sql_and_escaped_for_the_server() {
        psql("tenant a\\b\"c", |psql| {
            assert_eq!(
                psql.server_options(),
                "-cwork_mem=1MB -c search_path=\"tenant\\ a\\\\b\"\"c\",\\ \"public\" -c default_transaction_read_only=on"
            );
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
