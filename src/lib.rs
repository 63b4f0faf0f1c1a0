//! pricesync: schema migrations for `PostgreSQL` databases that keep one schema per tenant.

pub mod commands;
pub mod domain;
pub mod local;
pub mod migrations;
pub mod postgres;
pub mod service;
pub mod settings;
pub mod ui;
