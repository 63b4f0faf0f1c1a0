//! All SQL, and the only room that knows the driver.
//!
//! A room imports only rooms above it in this list. Start reading at [`migrate`].

pub mod connection;
pub mod transaction;

pub mod schema;

pub mod bookkeeping;
pub mod migrate;

pub mod tenants;

pub mod client;
pub mod report;

pub mod backup;
