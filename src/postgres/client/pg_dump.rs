//! Runs `pg_dump` for one schema, with no password on the command line and without those variables of
//! the caller's environment that could lead it to another database.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::conninfo::ConnectOptions;

/// Why `pg_dump` wrote no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// `pg_dump` is not on the PATH.
    #[error("pg_dump is not on the PATH")]
    NotFound,
    /// The file could not be written, or `pg_dump` not be started.
    #[error("{0}")]
    Io(io::Error),
    /// `pg_dump` failed; holds its stderr.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes a schema into an archive for `pg_restore` and returns the archive's size in bytes.
///
/// The file gets its name when it is complete, and only its owner may read it. Dropping the future
/// kills `pg_dump`.
///
/// # Errors
///
/// [`DumpError`]; no file is left then.
pub async fn pg_dump(
    options: &ConnectOptions,
    schema: &SchemaName,
    path: &Path,
) -> Result<u64, DumpError> {
    if path.try_exists()? {
        let message = format!("{} exists already", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message).into());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let file =
        tempfile::Builder::new().prefix(".pricesync-").suffix(".partial").tempfile_in(folder)?;
    let mut command = Command::new("pg_dump");
    options.apply_to(&mut command);
    command
        .args(["--format=custom", "--no-password", "--file"])
        .arg(file.path())
        // A pattern; between double quotes no character is special.
        .arg("--schema")
        .arg(schema.quoted().to_string());
    let mut command = tokio::process::Command::from(command);
    // A process group of its own, so that Ctrl-C reaches only this process, which lets running dumps
    // finish first.
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let output = command.output().await;
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DumpError::NotFound,
        _ => DumpError::Io(error),
    })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DumpError::Failed(stderr));
    }
    file.as_file().sync_all()?;
    let bytes = file.as_file().metadata()?.len();
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    Ok(bytes)
}
