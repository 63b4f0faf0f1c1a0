//! The only SQL, and the only driver.

mod attendance;
mod bookkeeping;
pub mod catalog;
pub mod conninfo;
pub mod diagnostics;
pub mod fingerprint;
mod guard;
pub mod histories;
mod journey;
mod lock;
pub mod migrator;
mod no_transaction;
pub mod pool;
pub mod programs;
pub mod provision;
pub mod removal;
mod runner;
mod template;
pub mod tenant_context;
pub mod tls;
mod transaction;
