//! pricesync: schema migrations for PostgreSQL databases that keep one schema per tenant.
//!
//! A run is data flowing one way: arguments become [`settings`], files become migration
//! sets, rows become tenants; from them a list of targets; [`service::fleet`] works on them;
//! events come out, [`ui`] renders them, and the summary becomes the exit code in [`error`].
//!
//! | room | holds |
//! |---|---|
//! | [`commands`] | what a person can type; the only place that knows clap |
//! | [`service`] | use cases; knows no SQL and no terminal |
//! | [`domain`] | words of the problem; pure |
//! | [`migrations`] | the SQL files on disk |
//! | [`postgres`] | the only SQL and the only driver |
//! | [`archive`] | the file that a backup is |
//! | [`local`] | the private server that a newcomer gets |
//! | [`ui`] | everything a person or a script reads |
//!
//! In the words of domain-driven design: *Domain* is [`domain`]; *Repository* is
//! [`domain::catalog::TenantCatalog`] with [`postgres::tenants::catalog`]; *Service* is [`service`];
//! *Infrastructure* is [`postgres`] and [`migrations`].
//!
//! A service of your own starts with [`postgres::connection::conninfo::ConnectOptions`],
//! [`postgres::connection::database::Database`] and either [`postgres::migrate::migrator::PostgresMigrator`] (migrate
//! at start-up) or [`postgres::tenants::context::TenantContext`] (work as one tenant).

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
