//! pricesync: schema migrations for PostgreSQL databases that keep one schema per tenant.
//!
//! A run is data flowing one way: arguments become [`settings`], files become migration sets, rows
//! of the tenant table become targets; [`service::fleet`] works on them; events come out, `ui` renders
//! them, and `error` turns the summary into the exit code.
//!
//! | room | holds |
//! |---|---|
//! | `commands` | what a user can type; the only place that knows clap |
//! | [`service`] | use cases; knows no SQL and no terminal |
//! | [`domain`] | tenants, schemas, scripts, plans; pure |
//! | [`migrations`] | the SQL files on disk: read, checked, linted |
//! | [`postgres`] | all SQL, and the driver |
//! | [`archive`] | the format of a backup file |
//! | `local` | the private server of a new project |
//! | `ui` | everything that is printed |
//!
//! `commands`, `error`, `local` and `ui` are built with the feature `cli`, which is on by default.
//!
//! A program of your own starts with [`postgres::connection::conninfo::ConnectOptions`],
//! [`postgres::connection::database::Database`] and either
//! [`postgres::migrate::migrator::PostgresMigrator`] (migrate at start-up) or
//! [`postgres::tenants::context::TenantContext`] (work as one tenant).

pub mod archive;
#[cfg(feature = "cli")]
pub mod commands;
pub mod domain;
#[cfg(feature = "cli")]
pub mod error;
#[cfg(feature = "cli")]
pub mod local;
pub mod migrations;
pub mod postgres;
pub mod service;
pub mod settings;
#[cfg(feature = "cli")]
pub mod ui;
