//! The tests that need a real server: one binary, one module per subject.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod adoption;
mod architecture;
mod backup;
mod bars;
mod concurrency;
mod create_tenant;
mod deploy;
mod drop_schema;
mod escapes;
mod examples;
mod exec;
mod histories;
mod hostile;
mod interrupt;
mod journey;
mod ledger;
mod lifecycle;
mod lint;
mod listings;
mod local_server;
mod local_server_dies;
mod locks;
mod migrate_schemas;
mod no_transaction;
mod output;
mod picture;
mod poolers;
mod readme;
mod rehearsal;
mod rollout;
mod secrets;
mod servers;
mod support;
mod template;
mod trash;
