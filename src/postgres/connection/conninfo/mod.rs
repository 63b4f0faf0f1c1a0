//! libpq's connection words, resolved as libpq resolves them (manual section 34.1).

mod child;
mod driver;
mod environment;
mod error;
mod foreign;
mod host;
mod keyvalue;
mod keyword;
mod liveness;
mod passfile;
mod security;
mod service;
mod session;
mod url;
mod words;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use environment::Environment;
pub use error::ConnInfoError;
pub use host::{Host, Target};
pub use security::{Identity, Protection, Roots, Security, SslMode, TlsVersion};
pub use words::Origin;

use liveness::Liveness;
use passfile::{Login, PassFile};
use session::Session;
use words::Words;

/// What the server shows as `application_name` unless somebody names it.
const APPLICATION_NAME: &str = "pricesync";

/// Where and how to connect: one server or several to try, fully resolved.
///
/// `Debug` and [`ConnectOptions::describe`] never show a password.
#[derive(Clone)]
pub struct ConnectOptions {
    words: Words,
    targets: Vec<Target>,
    /// One for each target.
    passwords: Vec<Option<String>>,
    user: String,
    database: String,
    security: Security,
    session: Session,
    liveness: Liveness,
    warnings: Vec<String>,
    is_pooled: bool,
}

impl ConnectOptions {
    /// Resolves a connection text (`postgresql://...`, `postgres://...`, `key=value ...`).
    ///
    /// A word that the text leaves open comes from the service file (if a service is named),
    /// else from its `PG*` variable, else from the password file, else it has libpq's default:
    /// the default Unix socket, port 5432, the operating system's user name, a database named
    /// like the user, `sslmode=prefer`. `application_name` defaults to `pricesync`. White space
    /// around the text is ignored. Reads the service and password file; opens no connection.
    ///
    /// # Errors
    ///
    /// See [`ConnInfoError`]: malformed text, unknown words, values out of range, and words
    /// whose promise could not be kept.
    pub fn resolve(text: Option<&str>, environment: &Environment) -> Result<Self, ConnInfoError> {
        let mut words = Words::default();
        let mut warnings = Vec::new();
        let mut is_pooled = false;
        if let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) {
            if let Some(rest) = url::strip_scheme(text)? {
                let remarks = url::parse(rest, &mut words)?;
                warnings.extend(remarks.warnings);
                is_pooled = remarks.pooled;
            } else if text.contains('=') {
                keyvalue::parse(text, &mut words)?;
            } else {
                return Err(ConnInfoError::NotConnectionText);
            }
        }
        service::fill(&mut words, environment)?;
        environment.fill(&mut words)?;
        words.refuse_broken_promises()?;

        let targets = host::targets(&mut words)?;
        let security = Security::read(&mut words, environment, &mut warnings)?;
        security.check(&targets)?;
        let session = Session::read(&words, &mut warnings)?;
        let liveness = Liveness::read(&words)?;
        if words.given("user").is_none() {
            let user = environment.user().ok_or(ConnInfoError::NoUser)?;
            words.set("user", user, Origin::Default);
        }
        let user = words.get("user").unwrap_or_default().to_owned();
        if words.given("dbname").is_none() {
            words.set("dbname", user.as_str(), Origin::Default);
        }
        let database = words.get("dbname").unwrap_or_default().to_owned();
        let fallback = words
            .given("fallback_application_name")
            .unwrap_or(APPLICATION_NAME)
            .to_owned();
        words.offer("application_name", fallback, Origin::Default);

        let mut options = Self {
            passwords: vec![words.given("password").map(str::to_owned); targets.len()],
            words,
            targets,
            user,
            database,
            security,
            session,
            liveness,
            warnings,
            is_pooled,
        };
        if options.words.given("password").is_none() {
            options.look_up_passwords(environment);
        }
        Ok(options)
    }

    /// Takes each target's password from the password file.
    fn look_up_passwords(&mut self, environment: &Environment) {
        let named = self.words.given("passfile").map(PathBuf::from);
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
            self.words
                .set("password", password, Origin::PasswordFile(path));
        }
    }

    /// Returns the same connection under another `application_name`, if nobody else named it.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> Self {
        let named_by_user = self.words.given("fallback_application_name").is_some()
            || !matches!(
                self.words.origin("application_name"),
                Origin::Default | Origin::Caller
            );
        if !named_by_user {
            self.words.set("application_name", name, Origin::Caller);
        }
        self
    }

    /// Returns the same connection with a password for every host, such as one typed in.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.passwords.fill(Some(password.to_owned()));
        self.words.set("password", password, Origin::Caller);
        self
    }

    /// Returns the same server and login with another database.
    ///
    /// A password from the password file stays, even if a line names the other database.
    #[must_use]
    pub fn with_database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self.words.set("dbname", database, Origin::Caller);
        self
    }

    /// Returns the servers to try, in order; never empty.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Returns the role to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the database to connect to.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns what the server will show as `application_name`; empty sends none.
    #[must_use]
    pub fn application_name(&self) -> &str {
        self.words.get("application_name").unwrap_or_default()
    }

    /// Returns the limit for reaching and logging in to one host; `None` waits for ever.
    #[must_use]
    pub const fn connect_timeout(&self) -> Option<Duration> {
        self.liveness.connect_timeout
    }

    /// Returns whether some host has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.passwords.iter().any(Option::is_some)
    }

    /// Returns whether the URL says `pgbouncer=true`, Prisma's way to announce a pooler.
    #[must_use]
    pub const fn is_pooled(&self) -> bool {
        self.is_pooled
    }

    /// Returns what the words say about TLS.
    #[must_use]
    pub const fn security(&self) -> &Security {
        &self.security
    }

    /// Returns what protects the least protected of the hosts.
    #[must_use]
    pub fn protection(&self) -> Protection {
        if self.targets.iter().all(Target::is_socket) {
            Protection::LocalSocket
        } else {
            self.security.protection()
        }
    }

    /// Returns what a person should hear about: skipped parameters, ignored files.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns `app@db.example.com:5432/pricesync_saas`; several hosts are separated by commas.
    #[must_use]
    pub fn describe(&self) -> String {
        let targets: Vec<String> = self.targets.iter().map(Target::to_string).collect();
        format!(
            "{}@{}/{}",
            self.user.escape_debug(),
            targets.join(","),
            self.database.escape_debug()
        )
    }

    /// Returns every word that has a value, with secrets masked, and where it came from.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        self.words.iter().map(|(keyword, value, origin)| {
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
        f.debug_map()
            .entries(self.words().map(|(name, value, _)| (name, value)))
            .finish()
    }
}

#[cfg(test)]
mod tests;
