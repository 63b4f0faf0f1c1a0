//! The tests that need a real server: one binary, one module per subject.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod architecture;
mod bars;
mod concurrency;
mod create_tenant;
mod drop_schema;
mod escapes;
mod examples;
mod histories;
mod interrupt;
mod listings;
mod local_server;
mod local_server_dies;
mod migrate_schemas;
mod no_transaction;
mod output;
mod picture;
mod readme;
mod support;
mod template;
