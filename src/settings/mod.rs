//! The configuration: flags, environment variables, `pricesync.toml` and defaults, each value with its origin.
//!
//! May import `domain`; knows no clap and opens no connection.
//! Start reading at [`Settings`]; the keys and their defaults are in `keys.rs`, precedence in `resolve.rs`.

mod dotenv;
mod error;
mod file;
mod keys;
mod layout;
mod origin;
mod overrides;
mod resolve;
mod types;
mod value;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::run_options::{Atomic, GroupLimit, OnFailure};
use crate::domain::schema_name::SchemaName;
pub use dotenv::DotEnv;
pub use error::SettingsError;
pub use layout::{CatalogLayout, DomainTable, TenantTable};
pub use origin::{Effective, Origin, Variables};
pub use overrides::Overrides;
pub use types::{Hasher, Jobs, TableName, UseTemplate, UserColumns};
pub use value::{age, duration};

/// The name of the configuration file, searched from the current folder upwards.
pub const FILE_NAME: &str = "pricesync.toml";

/// The settings of a command.
#[derive(Clone)]
pub struct Settings {
    /// The configuration file that was read, if any.
    pub file: Option<PathBuf>,
    /// The folder of that file, or the current one: what relative paths start from.
    pub root: PathBuf,
    /// `database.url`: a URL, key=value pairs, or `local`.
    pub database_url: Option<String>,
    /// `database.direct_url`: an address without a pooler; `None` also if `database.url` comes from a
    /// source with higher precedence, because that may be another database.
    pub direct_url: Option<String>,
    /// `catalog.*`: the tables of tenants and hosts, their columns, the prefix of schemas.
    pub catalog: CatalogLayout,
    /// `catalog.shared_references`: the tables that tenants' foreign keys may reference; every table
    /// of `public` if it is not set.
    pub shared_references: Option<Vec<TableName>>,
    /// `guard.allow_writes`: the tables and sequences that tenants' files may write to.
    pub allow_writes: Vec<TableName>,
    /// `migrations.shared`, as a path to open.
    pub shared_dir: PathBuf,
    /// `migrations.tenant`, as a path to open.
    pub tenant_dir: PathBuf,
    /// `migrations.history_table`, a bare name within each schema.
    pub history_table: String,
    /// `run.jobs`.
    pub jobs: Jobs,
    /// `run.lock_timeout`: how long a DDL statement waits for a lock; zero waits indefinitely.
    pub lock_timeout: Duration,
    /// `run.lock_retries`: how often a transaction is retried after a lock timeout or a deadlock.
    pub lock_retries: u32,
    /// `run.lock_wait`: how long to wait for a schema that another run has locked.
    pub lock_wait: Duration,
    /// `run.statement_timeout`; zero disables it.
    pub statement_timeout: Duration,
    /// `run.on_failure`.
    pub on_failure: OnFailure,
    /// `run.atomic`.
    pub atomic: Atomic,
    /// `run.group_size` and `run.group_time`: at most how many schemas share a transaction, and how long
    /// that transaction should take.
    pub group_limit: GroupLimit,
    /// `run.template`: whether an empty schema may be filled by a template.
    pub template: UseTemplate,
    /// `run.search_path`: the schemas after the tenant's own.
    pub search_path: Vec<SchemaName>,
    /// `users.*`: the table that `create-superuser` inserts into.
    pub users: UserColumns,
    /// `users.hasher`.
    pub hasher: Hasher,
    /// `local.data_dir`, absolute.
    pub local_data_dir: PathBuf,
    /// The `.env` file that was read.
    pub dotenv: Option<DotEnv>,
    effective: Vec<Effective>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for effective in &self.effective {
            map.entry(&effective.key, &effective.value.as_ref().map(|_| ".."));
        }
        map.finish()
    }
}

impl Settings {
    /// Returns every key with its text and origin; the caller masks secrets.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// Returns the origin of `run.on_failure`.
    pub fn on_failure_origin(&self) -> &Origin {
        &find(&self.effective, "run.on_failure").origin
    }

    /// Returns the origin of `database.url`.
    pub fn database_origin(&self) -> &Origin {
        &find(&self.effective, "database.url").origin
    }
}

/// Returns the value of a key; every name in the code is one of `keys::KEYS`.
fn find<'a>(effective: &'a [Effective], key: &str) -> &'a Effective {
    let found = effective.iter().find(|effective| effective.key == key);
    found.unwrap_or_else(|| unreachable!("{key} is not in KEYS"))
}
