//! pricesync: schema migrations for `PostgreSQL` databases that keep one schema per tenant.

pub mod domain;
pub mod local;
pub mod migrations;
pub mod service;
pub mod settings;
pub mod ui;
