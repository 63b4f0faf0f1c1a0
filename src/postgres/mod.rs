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
mod ledger;
mod lock;
pub mod locks;
pub mod measure;
pub mod migrator;
mod no_transaction;
pub mod pool;
pub mod predicate;
pub mod programs;
pub mod provision;
pub mod removal;
mod runner;
pub mod runs;
mod template;
pub mod tenant_context;
pub mod tls;
mod transaction;
