//! Runs psql in a tenant's schema, with no password on the command line and without those variables
//! of the caller's environment that could lead it to another database.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use tokio::signal::unix::{SignalKind, signal};

use super::environment::TenantEnvironment;
use crate::domain::tenant::Tenant;

/// A psql session in a tenant's schema.
#[derive(Debug)]
pub struct Psql<'a> {
    /// Where to connect.
    pub environment: &'a TenantEnvironment,
    /// The tenant whose schema comes first in `search_path`.
    pub tenant: &'a Tenant,
    /// Whether `default_transaction_read_only` is on.
    pub read_only: bool,
    /// SQL for psql's `-c`; none starts an interactive session.
    pub commands: &'a [String],
    /// Further arguments for psql.
    pub arguments: &'a [OsString],
}

/// Why psql could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PsqlError {
    /// psql is not on the PATH.
    #[error("psql is not on the PATH")]
    NotFound,
    /// psql could not be started.
    #[error("cannot run psql: {0}")]
    Io(io::Error),
}

/// Returns the id of a process or process group for sending a signal.
pub(crate) fn process(id: Option<u32>) -> Option<rustix::process::Pid> {
    let id = i32::try_from(id?).ok()?;
    rustix::process::Pid::from_raw(id)
}

fn terminate(child: &tokio::process::Child) {
    if let Some(pid) = process(child.id()) {
        // It may have ended already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

impl Psql<'_> {
    /// Runs psql and returns its exit status. Ctrl-C is left to psql, which cancels the running
    /// statement; SIGTERM and SIGHUP are forwarded to psql as SIGTERM.
    ///
    /// # Errors
    ///
    /// [`PsqlError`] when it cannot be started.
    pub async fn run(&self) -> Result<ExitStatus, PsqlError> {
        let start_up = self.start_up_file().map_err(PsqlError::Io)?;
        let mut command = Command::new("psql");
        self.environment.options.apply_to(&mut command);
        let options = self.environment.server_options(&self.tenant.schema, self.read_only);
        command.env("PGOPTIONS", options).env("PSQLRC", start_up.path());
        for sql in self.commands {
            command.arg("-c").arg(sql);
        }
        command.args(self.arguments);
        let listen = |kind| signal(kind).map_err(PsqlError::Io);
        let (mut interrupts, mut terminations, mut hangups) = (
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        );
        let mut child =
            tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(|error| {
                match error.kind() {
                    io::ErrorKind::NotFound => PsqlError::NotFound,
                    _ => PsqlError::Io(error),
                }
            })?;
        loop {
            tokio::select! {
                status = child.wait() => return status.map_err(PsqlError::Io),
                _ = interrupts.recv() => {}
                _ = terminations.recv() => terminate(&child),
                _ = hangups.recv() => terminate(&child),
            }
        }
    }

    /// Writes a start-up file that includes the user's own and sets a prompt with the tenant's slug.
    fn start_up_file(&self) -> io::Result<tempfile::NamedTempFile> {
        let mut file = tempfile::Builder::new().prefix("pricesync-psqlrc").tempfile()?;
        let own = std::env::var_os("PSQLRC").map(PathBuf::from).or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(PathBuf::from(home).join(".psqlrc"))
        });
        if let Some(own) = own.filter(|own| own.is_file()) {
            writeln!(file, "\\i '{}'", own.display().to_string().replace('\'', "''"))?;
        }
        // In a prompt % starts an escape, in a psql literal ' ends it.
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
    use crate::domain::tenant::{Slug, TenantId};
    use crate::postgres::connection::conninfo::{ConnectOptions, Environment};

    fn psql(schema: &str, check: impl FnOnce(&Psql<'_>)) {
        let environment = Environment::from_pairs::<&str, &str>([]);
        let environment = TenantEnvironment {
            options: ConnectOptions::resolve(Some("postgresql://app@db/x"), &environment)
                .expect("fine"),
            search_path: Vec::new(),
        };
        let tenant = Tenant {
            id: TenantId::new("1"),
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
