//! Backs up tenants, each into its own file.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::BackupError;
use super::dump::Source;
use super::file::back_up;
use super::verify_ddl::DdlVerifier;
use crate::archive::{EXTENSION, Trailer, WrittenArchive};
use crate::domain::hint::Hint;
use crate::domain::target::Target;
use crate::domain::tenant::Tenant;
use crate::postgres::client::pg_dump::{DumpError, pg_dump};
use crate::postgres::connection::conninfo::ConnectOptions;
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::change::ChangeError;
use crate::service::event::{Interrupt, Progress};
use crate::service::failure::{MigrateError, ServerError};
use crate::service::fleet::{Interrupts, JobResult, JobSuccess, SchemaJob};

/// Backs up each tenant into a file of its own.
#[derive(Debug)]
pub struct BackupJob {
    /// The catalog, and limits of lock waits.
    pub admin: TenantAdmin,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The folder for the files.
    pub folder: PathBuf,
    /// The time in the names of the files.
    pub timestamp: String,
    /// The connection for `pg_dump`, if that writes the files.
    pub pg_dump: Option<ConnectOptions>,
    /// Returns the result of a tenant that is reported.
    pub describe: fn(&BackupFile) -> String,
    /// Verifies the generated DDL.
    pub verifier: DdlVerifier,
    /// The files that were written.
    pub files: Mutex<Vec<BackupFile>>,
}

/// A file that was written.
#[derive(Clone, Debug)]
pub struct BackupFile {
    /// The tenant's slug.
    pub slug: String,
    /// The path of the file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The trailer of a native backup.
    pub trailer: Option<Trailer>,
}

impl SchemaJob for BackupJob {
    async fn run(&self, target: &Target, progress: &Progress, interrupts: Interrupts) -> JobResult {
        let mut tenants = self.tenants.iter();
        let Some(tenant) = tenants.find(|one| one.schema == target.schema) else {
            return Err(MigrateError::SchemaMissing.into());
        };
        let file = match &self.pg_dump {
            Some(options) => self.run_pg_dump(options, tenant, interrupts).await,
            None => self.dump(tenant, progress, interrupts).await,
        }?;
        let result = (self.describe)(&file);
        let files = self.files.lock();
        files.unwrap_or_else(PoisonError::into_inner).push(file);
        Ok(JobSuccess::Finished(result))
    }
}

impl BackupJob {
    /// Returns the files that were written, ordered by path.
    pub fn files(&self) -> Vec<BackupFile> {
        let files = self.files.lock();
        let mut files = files.unwrap_or_else(PoisonError::into_inner).clone();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files
    }

    async fn run_pg_dump(
        &self,
        options: &ConnectOptions,
        tenant: &Tenant,
        mut interrupts: Interrupts,
    ) -> Result<BackupFile, MigrateError> {
        let path = self.path(tenant, "dump");
        let bytes = tokio::select! {
            bytes = pg_dump(options, &tenant.schema, &path) => bytes.map_err(|error| pg_dump_error(&error))?,
            () = interrupts.reaches(Interrupt::Cancel) => return Err(interrupted()),
        };
        Ok(BackupFile { slug: tenant.slug.to_string(), path, bytes, trailer: None })
    }

    async fn dump(
        &self,
        tenant: &Tenant,
        progress: &Progress,
        interrupts: Interrupts,
    ) -> Result<BackupFile, MigrateError> {
        let admin = TenantAdmin { progress: progress.clone(), interrupts, ..self.admin.clone() };
        let source = Source { admin: &admin, tenant, verifier: &self.verifier, schema_only: false };
        let written = back_up(&source, &self.path(tenant, EXTENSION)).await;
        let WrittenArchive { path, bytes, ending } = written.map_err(migrate_error)?;
        Ok(BackupFile { slug: tenant.slug.to_string(), path, bytes, trailer: Some(ending) })
    }

    /// Returns the path of a tenant's file. Characters of the slug that are unusual in names of files are
    /// percent-encoded.
    fn path(&self, tenant: &Tenant, extension: &str) -> PathBuf {
        let mut name = String::new();
        for byte in tenant.slug.as_str().bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                name.push(char::from(byte));
            } else {
                let _ = write!(name, "%{byte:02X}");
            }
        }
        self.folder.join(format!("{name}.{}.{extension}", self.timestamp))
    }
}

fn pg_dump_error(error: &DumpError) -> MigrateError {
    let is_missing = matches!(error, DumpError::NotFound);
    let hint = is_missing.then(|| "install PostgreSQL's client programs".into());
    failed(error.to_string(), hint)
}

fn migrate_error(error: BackupError) -> MigrateError {
    match error {
        BackupError::Change(ChangeError::Locked { holder, waited }) => {
            MigrateError::Locked { holder, waited }
        }
        BackupError::Change(ChangeError::Interrupted) => interrupted(),
        BackupError::Server { doing, error } => {
            MigrateError::Job { doing, error, hints: Vec::new() }
        }
        error => failed(error.to_string(), error.hint()),
    }
}

fn interrupted() -> MigrateError {
    failed("interrupted; no file was written".to_owned(), None)
}

fn failed(message: String, hint: Option<Hint>) -> MigrateError {
    MigrateError::Job {
        doing: "backing up".to_owned(),
        error: ServerError { message, ..ServerError::default() },
        hints: hint.into_iter().collect(),
    }
}
