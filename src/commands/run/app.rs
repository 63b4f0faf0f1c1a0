//! What every command starts from: settings, terminal, connections, migration files.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::signals::Cancellation;

use crate::domain::hint::Hint;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::error::{Exit, Failure};
use crate::local::{LocalOptions, LocalServer};
use crate::migrations::{LoadErrors, MigrationSet, check_apart, check_bare_names};
use crate::postgres::connection::conninfo::{ConnInfoError, ConnectOptions, Environment};
use crate::postgres::connection::database::{ConnectError, Database, Route};
use crate::postgres::connection::options::{EngineOptions, GuardRules};
use crate::postgres::connection::tls;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::transaction::escape_guard::UnusableEntries;
use crate::service::concurrency::ConcurrencyLimit;
use crate::service::event::{Event, EventKind, Progress};
use crate::service::failure::ServerError;
use crate::service::fleet::Interrupts;
use crate::settings::{Jobs, Origin, Settings, UseTemplate};
use crate::ui::{ProgressMode, Terminal, waiting_for_standby};

/// The value of `database.url` that selects the local server.
pub(crate) const LOCAL: &str = "local";

/// Time that the local server stays up after the last command that used it.
const LOCAL_IDLE: Duration = Duration::from_mins(10);

/// Variables that name a server; they take precedence over the configuration file.
const SERVER_VARIABLES: [&str; 3] = ["PGHOST", "PGHOSTADDR", "PGSERVICE"];

/// Settings, terminal, and what was started with them.
#[derive(Debug)]
pub(crate) struct App {
    /// The resolved configuration.
    pub(crate) settings: Settings,
    /// Where text goes.
    pub(crate) terminal: Terminal,
    /// `--progress`.
    pub(crate) progress: ProgressMode,
    /// `--wait`: time to wait for a server that does not accept connections yet.
    pub(crate) wait: Duration,
    /// The local server, which stays up while this exists.
    local: OnceLock<LocalServer>,
    /// Where changes without a reporter send events.
    progress_of_changes: Progress,
    /// Prints these events; aborted with the application.
    _printer: JoinSet<()>,
}

/// Whether a command changes the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads only; works on a hot standby.
    Read,
    /// Writes.
    Write,
}

impl App {
    /// Returns an application; must be called inside a runtime.
    pub(crate) fn new(
        settings: Settings,
        terminal: Terminal,
        progress: ProgressMode,
        wait: Duration,
    ) -> Self {
        let (progress_of_changes, events) = Progress::channel();
        let mut printer = JoinSet::new();
        printer.spawn(print_standby_waits(events, terminal.clone()));
        Self {
            settings,
            terminal,
            progress,
            wait,
            local: OnceLock::new(),
            progress_of_changes,
            _printer: printer,
        }
    }

    /// Returns the configured database, and starts the local server if that is configured.
    ///
    /// # Errors
    ///
    /// Exit 2 when no database is configured, or when its address is invalid.
    pub(crate) async fn connection(&self) -> Result<ConnectOptions, Failure> {
        let environment = Environment::from_process();
        let by_variables = SERVER_VARIABLES.iter().any(|name| is_set(name));
        let from_file = matches!(self.settings.database_origin(), Origin::File(..));
        let text = match &self.settings.database_url {
            Some(_) if from_file && by_variables => None,
            // libpq would connect to the database that is called like the user.
            Some(url) if url.trim().is_empty() => return Err(nothing_configured()),
            Some(url) if url == LOCAL => Some(self.local_url().await?),
            Some(url) => Some(url.clone()),
            None if by_variables || is_set("PGDATABASE") => None,
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

    /// Returns the options of the local server.
    pub(crate) fn local_options(&self) -> LocalOptions {
        LocalOptions { idle: LOCAL_IDLE, ..LocalOptions::new(self.settings.local_data_dir.clone()) }
    }

    /// Connects to the database.
    ///
    /// # Errors
    ///
    /// Exit 5 when the server cannot be reached or rejects the login, exit 7 when it is read-only
    /// and `access` is [`Access::Write`].
    pub(crate) async fn database(
        &self,
        access: Access,
        connections: usize,
    ) -> Result<Database, Failure> {
        let options = self.connection().await?;
        self.open(&options, access, connections).await
    }

    /// Connects to the database, with as many connections as the jobs need.
    pub(crate) async fn database_for_jobs(
        &self,
        access: Access,
    ) -> Result<(Database, ConcurrencyLimit), Failure> {
        let database = self.database(access, 1).await?;
        let pace = self.pace(&database);
        let connections = NonZeroUsize::new(connections_for(pace.jobs()));
        database.resize(connections.unwrap_or(NonZeroUsize::MIN));
        Ok((database, pace))
    }

    async fn open(
        &self,
        options: &ConnectOptions,
        access: Access,
        connections: usize,
    ) -> Result<Database, Failure> {
        let connector = tls::connector(options).map_err(|error| {
            let hint = error.hint();
            Failure::new(Exit::Usage, error).hints(hint)
        })?;
        let connections = NonZeroUsize::new(connections).unwrap_or(NonZeroUsize::MIN);
        let database = Database::open(options, connector, connections, self.wait)
            .await
            .map_err(|error| unreachable(options, error))?;
        let facts = database.facts();
        if access == Access::Write && (facts.in_recovery || facts.read_only) {
            let why = if facts.in_recovery {
                "is a hot standby, which is read-only"
            } else {
                "is read-only for this role (default_transaction_read_only)"
            };
            return Err(Failure::words(Exit::Refused, format!("{} {why}", options.describe()))
                .hint("connect to the primary, or as a role that can write"));
        }
        Ok(database)
    }

    /// Returns the options of the migration engine.
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
            guard_rules: GuardRules {
                references: settings.shared_references.clone(),
                allow_writes: settings.allow_writes.clone(),
            },
            history_table: settings.history_table.clone(),
            ..EngineOptions::new(database, &settings.catalog)
        }
    }

    /// Checks `guard.allow_writes` against the database. Warns of entries that do not exist and that no
    /// shared file names, which may create them.
    ///
    /// # Errors
    ///
    /// Exit 2 for an entry in a tenant's schema; the server's error.
    pub(crate) async fn check_guard(
        &self,
        database: &Database,
        shared: Option<&MigrationSet>,
    ) -> Result<(), Failure> {
        let unusable = UnusableEntries::find(database, &self.engine_options(database))
            .await
            .map_err(|error| {
                Failure::words(
                    Exit::Unexpected,
                    format!("checking guard.allow_writes failed: {error}"),
                )
            })?;
        if let Some(entry) = unusable.of_tenants.first() {
            return Err(Failure::words(
                Exit::Usage,
                format!("guard.allow_writes: {entry} lies in the schema of a tenant"),
            )
            .hint("list only shared tables and sequences; a tenant's files may not write to another tenant"));
        }
        let scripts = shared.map_or(&[][..], MigrationSet::scripts);
        for entry in unusable.missing {
            if !scripts.iter().any(|script| script.text.contains(&entry.table)) {
                self.terminal
                    .warn(&format!("guard.allow_writes: {entry} does not exist in this database"));
            }
        }
        Ok(())
    }

    /// Returns the tenant catalog of a database.
    pub(crate) fn catalog(&self, database: &Database) -> PostgresCatalog {
        PostgresCatalog::new(database.clone(), &self.settings.catalog)
    }

    /// Returns what changes the tenants of a database.
    pub(crate) fn admin(
        &self,
        database: &Database,
        progress: Progress,
        interrupts: Interrupts,
    ) -> TenantAdmin {
        let (catalog, options) = (self.catalog(database), self.engine_options(database));
        TenantAdmin { catalog, options, progress, interrupts }
    }

    /// Changes a tenant without a reporter. The first signal cancels the change.
    ///
    /// # Errors
    ///
    /// Exit 130 for the second signal, which abandons the change.
    pub(crate) async fn change<T>(
        &self,
        database: &Database,
        work: impl AsyncFnOnce(TenantAdmin) -> T,
    ) -> Result<T, Failure> {
        let mut cancellation = Cancellation::listen()?;
        let interrupts = cancellation.interrupts.clone();
        let admin = self.admin(database, self.progress_of_changes.clone(), interrupts);
        cancellation.run(Box::pin(work(admin))).await
    }

    /// Loads both sets of migration files, to run them.
    ///
    /// # Errors
    ///
    /// Exit 2 with every invalid file.
    pub(crate) fn sets(&self) -> Result<Sets, Failure> {
        let sets = self.sets_to_lint()?;
        // Without public in the search path a bare name cannot find a shared table.
        if self.settings.search_path.contains(&SchemaName::public()) {
            check_bare_names(&sets.shared, &sets.tenant)?;
        }
        Ok(sets)
    }

    /// Loads both sets for lint, which reports bare names of shared tables itself.
    pub(crate) fn sets_to_lint(&self) -> Result<Sets, Failure> {
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

    /// Loads one set, with paths relative to the current folder where possible.
    fn load(folder: &std::path::Path, scope: Scope) -> Result<MigrationSet, Failure> {
        let here = std::env::current_dir().unwrap_or_default();
        let shown = folder.strip_prefix(&here).map_or_else(|_| folder.to_path_buf(), PathBuf::from);
        Ok(MigrationSet::load(&shown, scope)?)
    }

    /// Returns a migrator. It writes through `database.direct_url`, if configured, what needs a session.
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
            migrator = migrator.recording_surveyed();
        }
        let direct = match access {
            Access::Write => self.direct()?,
            Access::Read => None,
        };
        let Some(options) = direct else {
            return Ok(Arc::new(migrator));
        };
        let direct = self.open(&options, Access::Write, connections_for(jobs)).await?;
        Ok(Arc::new(migrator.with_direct(direct)))
    }

    /// Returns the address in `database.direct_url`, if it is set.
    fn direct(&self) -> Result<Option<ConnectOptions>, Failure> {
        let Some(direct) = &self.settings.direct_url else {
            return Ok(None);
        };
        ConnectOptions::resolve(Some(direct), &Environment::from_process())
            .map(Some)
            .map_err(bad_address)
    }

    /// Returns the address for a client program that works as one tenant. Its `search_path` is in the
    /// startup message, which a pooler does not pass on: the program would work in `public`.
    ///
    /// # Errors
    ///
    /// Exit 7 behind a pooler without `database.direct_url`.
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
                "the connection goes through a pooler, which does not pass search_path on to the server",
            )
            .hint("set database.direct_url, next to database.url, to an address without the pooler")
        })
    }

    /// Returns a migrator for reading what is pending; `None` if the files are invalid.
    pub(crate) fn surveyor(&self, database: &Database) -> Option<Arc<PostgresMigrator>> {
        let set = |folder, scope| Self::load(folder, scope).ok().map(Arc::new);
        let shared = set(&self.settings.shared_dir, Scope::Shared)?;
        let tenant = set(&self.settings.tenant_dir, Scope::Tenant)?;
        let engine_options = self.engine_options(database);
        let migrator = PostgresMigrator::new(database.clone(), engine_options, shared, tenant);
        Some(Arc::new(migrator))
    }

    /// Returns the number of schemas in parallel: `run.jobs`, or what the server has room for,
    /// reduced while schemas block each other.
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

/// Returns the number of jobs for a server: twice its cores if it runs on this machine, else 8; at
/// least 5 connection slots stay free for the application.
fn automatic_jobs(cores: Option<usize>, free_slots: usize) -> NonZeroUsize {
    let wanted = cores.map_or(8, |cores| (2 * cores).clamp(4, 16));
    NonZeroUsize::new(free_slots.saturating_sub(5).min(wanted)).unwrap_or(NonZeroUsize::MIN)
}

/// Returns the number of connections: one for each job, one for the catalog, one for lock monitoring.
pub(crate) fn connections_for(jobs: usize) -> usize {
    jobs + 2
}

/// Both sets of migrations.
#[derive(Clone, Debug)]
pub(crate) struct Sets {
    /// The set for `public`.
    pub(crate) shared: Arc<MigrationSet>,
    /// The set for every tenant.
    pub(crate) tenant: Arc<MigrationSet>,
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

async fn print_standby_waits(mut events: UnboundedReceiver<Event>, terminal: Terminal) {
    while let Some(event) = events.recv().await {
        if let EventKind::WaitingForStandby { waited } = event.kind {
            terminal.warn(&waiting_for_standby(waited));
        }
    }
}

fn bad_address(error: ConnInfoError) -> Failure {
    let hint = error.hint();
    Failure::new(Exit::Usage, error).hints(hint)
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
    let ServerError { sqlstate, hint, detail, .. } = said;
    let context = format!("cannot connect to {}", options.describe());
    let is_explained = hint.is_some();
    let mut failure =
        Failure::with_context(Exit::Unreachable, error, context).hints(detail).hints(hint);
    let origin = "show where the address comes from";
    let purpose = match sqlstate.as_deref() {
        Some(sqlstate::INVALID_CATALOG_NAME) => {
            return failure.hint("create the database first: createdb");
        }
        Some(sqlstate::TOO_MANY_CONNECTIONS) => {
            return failure.hint("all connection slots are in use; --wait waits for a free one");
        }
        Some(sqlstate::CANNOT_CONNECT_NOW) => {
            return failure.hint("the server is starting; --wait waits for it");
        }
        Some(sqlstate::INVALID_PASSWORD | sqlstate::INVALID_AUTHORIZATION_SPECIFICATION) => {
            "the password comes from the URL, PGPASSWORD or ~/.pgpass; show which"
        }
        Some(_) => origin,
        // The server answered, for example that it has no TLS.
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
    fn automatic_jobs_depend_on_cores_and_free_connections() {
        let jobs = |cores, free| automatic_jobs(cores, free).get();
        assert_eq!(jobs(Some(1), 100), 4);
        assert_eq!(jobs(Some(6), 100), 12);
        assert_eq!(jobs(Some(64), 100), 16);
        assert_eq!(jobs(None, 100), 8);
        assert_eq!(jobs(None, 11), 6);
        assert_eq!(jobs(Some(64), 3), 1);
    }
}
