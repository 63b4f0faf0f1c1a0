//! What every command starts from: the settings, the terminal, and the way to the database.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::tenant::TenantList;
use crate::error::{Exit, Failure};
use crate::local::{LocalOptions, LocalServer};
use crate::migrations::{LoadErrors, MigrationSet, check_apart, check_bare_names};
use crate::postgres::connection::conninfo::{ConnInfoError, ConnectOptions, Environment};
use crate::postgres::connection::database::{ConnectError, Database, Route};
use crate::postgres::connection::options::{EngineOptions, References};
use crate::postgres::connection::tls;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::event::{EventKind, Progress};
use crate::service::failure::ServerError;
use crate::settings::{Jobs, Origin, Settings, UseTemplate};
use crate::ui::{ProgressMode, Terminal, waiting_for_standby};

/// The word that stands for the private server of this project.
pub(crate) const LOCAL: &str = "local";

/// How long the local server stays up after the last command that used it.
const LOCAL_IDLE: Duration = Duration::from_mins(10);

/// Variables that name a server, and so come before the configuration file.
const SERVER_VARIABLES: [&str; 3] = ["PGHOST", "PGHOSTADDR", "PGSERVICE"];

/// Settings, terminal, and whatever was started on the way.
#[derive(Debug)]
pub(crate) struct App {
    /// What the person and the project want.
    pub(crate) settings: Settings,
    /// Where text goes.
    pub(crate) terminal: Terminal,
    /// How runs are shown.
    pub(crate) progress: ProgressMode,
    /// How long a server that is not up yet is waited for.
    pub(crate) wait: Duration,
    /// The program with the options that lead to the same database and files; `None` where an address was typed,
    /// which may hold a password.
    pub(crate) program: Option<String>,
    /// Kept to the end, because the server stays up as long as somebody holds it.
    local: OnceLock<LocalServer>,
}

/// What the database is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only to read: a hot standby will do.
    Read,
    /// To change something.
    Write,
}

impl App {
    /// Returns what a command starts from.
    #[must_use]
    pub(crate) fn new(
        settings: Settings,
        terminal: Terminal,
        progress: ProgressMode,
        wait: Duration,
        program: Option<String>,
    ) -> Self {
        Self {
            settings,
            terminal,
            progress,
            wait,
            program,
            local: OnceLock::new(),
        }
    }

    /// Returns which database is meant, and starts the local server when it is that one.
    ///
    /// # Errors
    ///
    /// Exit 2 when nobody says which, or when what is said cannot be read.
    pub(crate) async fn connection(&self) -> Result<ConnectOptions, Failure> {
        let environment = Environment::from_process();
        let by_variables = SERVER_VARIABLES.iter().any(|name| set(name));
        let from_file = matches!(self.settings.database_origin(), Origin::File(..));
        let text = match &self.settings.database_url {
            Some(_) if from_file && by_variables => None,
            Some(url) if url == LOCAL => Some(self.local_url().await?),
            Some(url) => Some(url.clone()),
            None if by_variables || set("PGDATABASE") => None,
            None => return Err(nothing_configured()),
        };
        let options =
            ConnectOptions::resolve(text.as_deref(), &environment).map_err(bad_address)?;
        for warning in options.warnings() {
            self.terminal.warn(warning);
        }
        Ok(options)
    }

    async fn local_url(&self) -> Result<String, Failure> {
        if let Some(server) = self.local.get() {
            return Ok(server.url());
        }
        let options = self.local_options();
        let server = tokio::task::spawn_blocking(move || LocalServer::start(&options))
            .await
            .map_err(|error| Failure::new(Exit::Unexpected, error))?
            .map_err(|error| Failure::new(Exit::Unreachable, error))?;
        Ok(self.local.get_or_init(|| server).url())
    }

    /// Returns how the local server of this project is run.
    #[must_use]
    pub(crate) fn local_options(&self) -> LocalOptions {
        LocalOptions {
            idle: LOCAL_IDLE,
            ..LocalOptions::new(self.settings.local_data_dir.clone())
        }
    }

    /// Connects to the database.
    ///
    /// # Errors
    ///
    /// Exit 5 when the server cannot be reached or refuses the login, exit 7 when it may
    /// not be written to and `access` wants that.
    pub(crate) async fn database(
        &self,
        access: Access,
        connections: usize,
    ) -> Result<Database, Failure> {
        let options = self.connection().await?;
        self.open(&options, access, connections).await
    }

    async fn open(
        &self,
        options: &ConnectOptions,
        access: Access,
        connections: usize,
    ) -> Result<Database, Failure> {
        let connector = tls::connector(options).map_err(|error| {
            let hint = error.hint();
            let failure = Failure::new(Exit::Usage, error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })?;
        let connections = NonZeroUsize::new(connections).unwrap_or(NonZeroUsize::MIN);
        let database = Database::open(options, connector, connections, self.wait)
            .await
            .map_err(|error| unreachable(options, error))?;
        let facts = database.facts();
        if access == Access::Write && (facts.in_recovery || facts.read_only) {
            let why = if facts.in_recovery {
                "is a hot standby, which takes no changes"
            } else {
                "is read-only for this role (default_transaction_read_only)"
            };
            return Err(
                Failure::words(Exit::Refused, format!("{} {why}", options.describe()))
                    .hint("connect to the primary, or with a role that may write"),
            );
        }
        Ok(database)
    }

    /// Returns the engine's rules for a server.
    #[must_use]
    pub(crate) fn engine_options(&self, database: &Database) -> EngineOptions {
        let settings = &self.settings;
        EngineOptions {
            lock_timeout: settings.lock_timeout,
            statement_timeout: settings.statement_timeout,
            lock_retries: settings.lock_retries,
            lock_wait: settings.lock_wait,
            atomic: settings.atomic,
            group_limit: settings.group_limit,
            templates: settings.template == UseTemplate::Auto,
            search_path: settings.search_path.clone(),
            references: References::new(settings.shared_references.clone()),
            history_table: settings.history_table.clone(),
            ..EngineOptions::new(database, &settings.catalog)
        }
    }

    /// Returns the catalog of a database.
    #[must_use]
    pub(crate) fn catalog(&self, database: &Database) -> PostgresCatalog {
        let (progress, mut events) = Progress::channel();
        let terminal = self.terminal.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let EventKind::WaitingForStandby { waited } = event.kind {
                    terminal.warn(&waiting_for_standby(waited));
                }
            }
        });
        PostgresCatalog::new(database.clone(), &self.settings.catalog).telling(progress)
    }

    /// Warns of the rows of the tenant table that no command works on.
    pub(crate) fn warn_of_refused(&self, list: &TenantList) {
        for row in &list.refused {
            self.terminal.warn(&format!(
                "tenant '{}' (row {}): {}",
                row.slug, row.id, row.reason
            ));
        }
    }

    /// Reads both folders of migrations, to run them.
    ///
    /// # Errors
    ///
    /// Exit 2 with every file that is wrong.
    pub(crate) fn sets(&self) -> Result<Sets, Failure> {
        let sets = self.sets_to_judge()?;
        // Where public is not looked into, a bare name finds nothing there.
        if self.settings.search_path.contains(&SchemaName::public()) {
            check_bare_names(&sets.shared, &sets.tenant)?;
        }
        Ok(sets)
    }

    /// The same for lint, which has its own words for what one file says of another's tables.
    ///
    /// # Errors
    ///
    /// As [`App::sets`].
    pub(crate) fn sets_to_judge(&self) -> Result<Sets, Failure> {
        let (shared, tenant) = (&self.settings.shared_dir, &self.settings.tenant_dir);
        check_apart(shared, tenant).map_err(|error| LoadErrors(vec![error]))?;
        let sets = Sets {
            shared: Arc::new(Self::load(shared, Scope::Shared)?),
            tenant: Arc::new(Self::load(tenant, Scope::Tenant)?),
        };
        for warning in sets.shared.warnings().iter().chain(sets.tenant.warnings()) {
            self.terminal.warn(&warning.to_string());
        }
        Ok(sets)
    }

    /// Files are shown relative to the current folder where they are below it.
    fn load(folder: &std::path::Path, scope: Scope) -> Result<MigrationSet, Failure> {
        let here = std::env::current_dir().unwrap_or_default();
        let shown = folder
            .strip_prefix(&here)
            .map_or_else(|_| folder.to_path_buf(), PathBuf::from);
        Ok(MigrationSet::load(&shown, scope)?)
    }

    /// Returns a migrator; files that need a session go past the pooler where a way is configured.
    ///
    /// # Errors
    ///
    /// As [`App::database`], for `database.direct_url`.
    pub(crate) async fn migrator(
        &self,
        database: &Database,
        engine_options: EngineOptions,
        sets: &Sets,
        access: Access,
        jobs: usize,
    ) -> Result<Arc<PostgresMigrator>, Failure> {
        let mut migrator = PostgresMigrator::new(
            database.clone(),
            engine_options,
            Arc::clone(&sets.shared),
            Arc::clone(&sets.tenant),
        );
        if access == Access::Write {
            migrator = migrator.taking_up();
        }
        // Who only looks never goes that way.
        let direct = match access {
            Access::Write => self.direct()?,
            Access::Read => None,
        };
        let Some(options) = direct else {
            return Ok(Arc::new(migrator));
        };
        let direct = self
            .open(&options, Access::Write, connections_for(jobs))
            .await?;
        Ok(Arc::new(migrator.with_direct(direct)))
    }

    /// Returns where `database.direct_url` leads, if it is set.
    fn direct(&self) -> Result<Option<ConnectOptions>, Failure> {
        let Some(direct) = &self.settings.direct_url else {
            return Ok(None);
        };
        ConnectOptions::resolve(Some(direct), &Environment::from_process())
            .map(Some)
            .map_err(bad_address)
    }

    /// Returns the address for a client program that is to work as one tenant. It says whose it
    /// is when it connects, and a pooler does not pass that on: there it would work in `public`.
    ///
    /// # Errors
    ///
    /// Exit 7 behind a pooler where `database.direct_url` does not lead past it.
    pub(crate) fn for_programs(
        &self,
        options: ConnectOptions,
        database: &Database,
    ) -> Result<ConnectOptions, Failure> {
        if database.facts().route == Route::Direct {
            return Ok(options);
        }
        self.direct()?.ok_or_else(|| {
            Failure::words(
                Exit::Refused,
                "the connection goes through a pooler, which does not tell the server whose schema a program is to work in",
            )
            .hint("set database.direct_url, where database.url is set, to an address past the pooler")
        })
    }

    /// Returns a migrator that only looks at what is pending; none where the files cannot be read.
    pub(crate) fn surveyor(&self, database: &Database) -> Option<Arc<PostgresMigrator>> {
        let set = |folder, scope| Self::load(folder, scope).ok().map(Arc::new);
        let shared = set(&self.settings.shared_dir, Scope::Shared)?;
        let tenant = set(&self.settings.tenant_dir, Scope::Tenant)?;
        let engine_options = self.engine_options(database);
        let migrator = PostgresMigrator::new(database.clone(), engine_options, shared, tenant);
        Some(Arc::new(migrator))
    }

    /// Returns how many schemas to work on at once on this server: what was asked for, else
    /// what the server has room for, giving way when schemas are in each other's way.
    #[must_use]
    pub(crate) fn pace(&self, database: &Database) -> ConcurrencyLimit {
        match self.settings.jobs {
            Jobs::Fixed(jobs) => ConcurrencyLimit::fixed(jobs),
            Jobs::Auto => {
                let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                let facts = database.facts();
                let jobs = automatic_jobs(facts.is_local.then_some(cores), facts.free_slots);
                ConcurrencyLimit::adaptive(jobs)
            }
        }
    }
}

/// Returns how many jobs a server is good for: one on this machine what its cores are, another
/// one what servers of ordinary size are; and the application keeps a few connections.
fn automatic_jobs(cores: Option<usize>, free_slots: usize) -> NonZeroUsize {
    let wanted = cores.map_or(8, |cores| (2 * cores).clamp(4, 16));
    NonZeroUsize::new(free_slots.saturating_sub(5).min(wanted)).unwrap_or(NonZeroUsize::MIN)
}

/// One connection for each job, one for the catalog, and one to watch and to cancel.
#[must_use]
pub(crate) fn connections_for(jobs: usize) -> usize {
    jobs + 2
}

/// Both sets of migrations.
#[derive(Clone, Debug)]
pub(crate) struct Sets {
    /// For `public`.
    pub(crate) shared: Arc<MigrationSet>,
    /// For every tenant.
    pub(crate) tenant: Arc<MigrationSet>,
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn bad_address(error: ConnInfoError) -> Failure {
    let hint = error.hint();
    let failure = Failure::new(Exit::Usage, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn nothing_configured() -> Failure {
    Failure::words(Exit::Usage, "no database is configured")
        .hint("pricesync --local ...                       a private PostgreSQL server for this folder")
        .hint("export DATABASE_URL=postgresql://user@host/database")
        .hint("pricesync init                              writes pricesync.toml; set [database] url there")
}

fn unreachable(options: &ConnectOptions, error: ConnectError) -> Failure {
    let said = match &error {
        ConnectError::Refused(said) => said.clone(),
        ConnectError::Unsuitable(_) => return Failure::new(Exit::Refused, error),
    };
    let ServerError {
        sqlstate,
        hint,
        detail,
        ..
    } = said;
    let whose = options.describe();
    let mut failure = Failure::new(
        Exit::Unreachable,
        anyhow::Error::new(error).context(format!("cannot connect to {whose}")),
    );
    let is_explained = hint.is_some();
    failure
        .hints
        .extend(detail.into_iter().chain(hint).map(Hint::from));
    let origin = "show where the address comes from";
    let purpose = match sqlstate.as_deref() {
        Some(sqlstate::INVALID_CATALOG_NAME) => {
            return failure.hint("create the database first: createdb");
        }
        Some(sqlstate::TOO_MANY_CONNECTIONS) => {
            return failure.hint("the server is full; --wait waits for a connection");
        }
        Some(sqlstate::CANNOT_CONNECT_NOW) => {
            return failure.hint("the server is starting; --wait waits for it");
        }
        Some(sqlstate::INVALID_PASSWORD | sqlstate::INVALID_AUTHORIZATION_SPECIFICATION) => {
            "the password comes from the URL, PGPASSWORD or ~/.pgpass; show which"
        }
        Some(_) => origin,
        // A server that answered, such as one without TLS.
        None if is_explained => return failure,
        None => {
            failure = failure.hint("check that the server runs, or wait for it with --wait");
            origin
        }
    };
    failure.hint(Hint::command(purpose, "config"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_jobs_follow_the_cores_of_a_server_here_and_leave_connections_free() {
        let jobs = |cores, free| automatic_jobs(cores, free).get();
        assert_eq!(jobs(Some(1), 100), 4);
        assert_eq!(jobs(Some(6), 100), 12);
        assert_eq!(jobs(Some(64), 100), 16);
        assert_eq!(jobs(None, 100), 8);
        assert_eq!(jobs(None, 11), 6);
        assert_eq!(jobs(Some(64), 3), 1);
    }
}
