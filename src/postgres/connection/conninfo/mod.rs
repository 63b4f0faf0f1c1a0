//! Connection parameters, resolved as libpq resolves them (manual section 34.1): connection string, service
//! file, environment, password file, defaults.
//!
//! Imports nothing of the rest of the program. Start reading at [`ConnectOptions::resolve`].

mod child;
mod driver;
mod environment;
mod error;
mod foreign;
mod host;
mod keyvalue;
mod keyword;
mod liveness;
mod parameters;
mod passfile;
mod requirements;
mod security;
mod service;
mod url;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;

pub use environment::Environment;
pub use error::ConnInfoError;
pub use host::{Host, HostPort};
pub use parameters::Origin;
pub use security::{ClientCertificate, Protection, Roots, Security, SslMode, TlsVersion};

use parameters::Parameters;
use passfile::{Login, PassFile};

/// The default of `application_name`.
const APPLICATION_NAME: &str = "pricesync";

/// Resolved connection parameters for one server, or for several to try in order.
///
/// `Debug` and [`ConnectOptions::describe`] never show a password.
#[derive(Clone)]
pub struct ConnectOptions {
    parameters: Parameters,
    targets: Vec<HostPort>,
    /// One for each target.
    passwords: Vec<Option<String>>,
    user: String,
    database: String,
    security: Security,
    /// What the parameters say about every target alike.
    common: Config,
    warnings: Vec<String>,
    is_pooled: bool,
}

impl ConnectOptions {
    /// Resolves a connection string (`postgresql://...`, `postgres://...`, `key=value ...`).
    ///
    /// A parameter that the string does not set is taken from the service file (if a service is named),
    /// else from its `PG*` variable, else from the password file, else it has libpq's default:
    /// the default Unix socket, port 5432, the operating system's user name, a database named
    /// like the user, `sslmode=prefer`. `application_name` defaults to `pricesync`. White space
    /// around the text is ignored. Reads the service and password file; opens no connection.
    ///
    /// # Errors
    ///
    /// See [`ConnInfoError`]: a malformed string, unknown parameters, values out of range, and parameters
    /// that are not supported and cannot be ignored safely.
    pub fn resolve(text: Option<&str>, environment: &Environment) -> Result<Self, ConnInfoError> {
        let mut parameters = Parameters::default();
        let mut warnings = Vec::new();
        let mut is_pooled = false;
        if let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) {
            if let Some(rest) = url::strip_scheme(text)? {
                let remarks = url::parse(rest, &mut parameters)?;
                warnings.extend(remarks.warnings);
                is_pooled = remarks.pooled;
            } else if text.contains('=') {
                keyvalue::parse(text, &mut parameters)?;
            } else {
                return Err(ConnInfoError::NotConnectionText);
            }
        }
        service::fill(&mut parameters, environment)?;
        environment.fill(&mut parameters)?;
        parameters.reject_unsupported()?;

        let targets = host::targets(&mut parameters)?;
        let security = Security::read(&mut parameters, environment, &mut warnings)?;
        security.check(&targets)?;
        let mut common = Config::new();
        requirements::apply(&parameters, &mut common, &mut warnings)?;
        liveness::apply(&parameters, &mut common)?;
        if parameters.given("user").is_none() {
            let user = environment.user().ok_or(ConnInfoError::NoUser)?;
            parameters.set("user", user, Origin::Default);
        }
        let user = parameters.get("user").unwrap_or_default().to_owned();
        if parameters.given("dbname").is_none() {
            parameters.set("dbname", user.as_str(), Origin::Default);
        }
        let database = parameters.get("dbname").unwrap_or_default().to_owned();
        let fallback =
            parameters.given("fallback_application_name").unwrap_or(APPLICATION_NAME).to_owned();
        parameters.offer("application_name", fallback, Origin::Default);

        let mut options = Self {
            passwords: vec![parameters.given("password").map(str::to_owned); targets.len()],
            parameters,
            targets,
            user,
            database,
            security,
            common,
            warnings,
            is_pooled,
        };
        if options.parameters.given("password").is_none() {
            options.look_up_passwords(environment);
        }
        Ok(options)
    }

    /// Takes each target's password from the password file.
    fn look_up_passwords(&mut self, environment: &Environment) {
        let named = self.parameters.given("passfile").map(PathBuf::from);
        let Some(path) = named.or_else(|| environment.at_home(".pgpass")) else {
            return;
        };
        let file = match PassFile::read(&path) {
            Ok(Some(file)) => file,
            Ok(None) => return,
            Err(warning) => {
                self.warnings.push(warning);
                return;
            }
        };
        for (target, password) in self.targets.iter().zip(&mut self.passwords) {
            *password = file.password(&Login {
                host: &target.password_file_name(),
                port: target.port,
                database: &self.database,
                user: &self.user,
            });
        }
        if let Some(password) = self.passwords.iter().flatten().next() {
            let password = password.clone();
            self.parameters.set("password", password, Origin::PasswordFile(path));
        }
    }

    /// Sets `application_name`, unless the user did.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> Self {
        let named_by_user = self.parameters.given("fallback_application_name").is_some()
            || !matches!(
                self.parameters.origin("application_name"),
                Origin::Default | Origin::Caller
            );
        if !named_by_user {
            self.parameters.set("application_name", name, Origin::Caller);
        }
        self
    }

    /// Sets the password for every host.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.passwords.fill(Some(password.to_owned()));
        self.parameters.set("password", password, Origin::Caller);
        self
    }

    /// Sets the database.
    ///
    /// Keeps a password from the password file, even where a line there is for the new database.
    #[must_use]
    pub fn with_database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self.parameters.set("dbname", database, Origin::Caller);
        self
    }

    /// Returns the servers to try, in order; never empty.
    pub fn targets(&self) -> &[HostPort] {
        &self.targets
    }

    /// Returns the role to log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the database to connect to.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns what the server will show as `application_name`; empty sends none.
    pub fn application_name(&self) -> &str {
        self.parameters.get("application_name").unwrap_or_default()
    }

    /// Returns the limit for connecting and logging in to one host; `None` means no limit.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.common.get_connect_timeout().copied()
    }

    /// Returns whether some host has a password.
    pub fn has_password(&self) -> bool {
        self.passwords.iter().any(Option::is_some)
    }

    /// Returns whether the URL has Prisma's `pgbouncer=true`, which announces a pooler.
    pub const fn is_pooled(&self) -> bool {
        self.is_pooled
    }

    /// Returns the TLS settings.
    pub const fn security(&self) -> &Security {
        &self.security
    }

    /// Returns the protection of the least protected host.
    pub fn protection(&self) -> Protection {
        if self.targets.iter().all(HostPort::is_socket) {
            Protection::LocalSocket
        } else {
            self.security.protection()
        }
    }

    /// Returns the warnings to log: ignored parameters and files.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns `app@db.example.com:5432/pricesync_saas`; several hosts are separated by commas.
    pub fn describe(&self) -> String {
        let targets: Vec<String> = self.targets.iter().map(HostPort::to_string).collect();
        format!(
            "{}@{}/{}",
            self.user.escape_debug(),
            targets.join(","),
            self.database.escape_debug()
        )
    }

    /// Returns every parameter that has a value, its value with secrets masked, and its origin.
    pub fn parameters(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        self.parameters.iter().map(|(keyword, value, origin)| {
            let shown = match keyword.name {
                "password"
                | "sslpassword"
                | "scram_client_key"
                | "scram_server_key"
                | "oauth_client_secret" => "********".to_owned(),
                _ => value.to_owned(),
            };
            (keyword.name, shown, origin)
        })
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.parameters().map(|(name, value, _)| (name, value))).finish()
    }
}

#[cfg(test)]
mod tests;
