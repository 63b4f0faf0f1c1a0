//! The tests that need a real server: one binary, one module per subject.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[path = "../harness/query.rs"]
mod query;
#[path = "../harness/server_programs.rs"]
mod server_programs;

mod adoption;
mod allow_writes;
mod architecture;
mod backup;
mod bars;
mod concurrency;
mod create_superuser;
mod create_tenant;
mod deploy;
mod django;
mod domains;
mod dotenv;
mod drift;
mod drop_schema;
mod dry_run;
mod enum_values;
mod escape_guard;
mod every_way;
mod examples;
mod exec;
mod false_accusations;
mod file_state;
mod groups;
mod histories;
mod hostile;
mod interrupt;
mod interrupt_verbs;
mod language;
mod ledger;
mod lifecycle;
mod lint;
mod listings;
mod local_server;
mod local_server_dies;
mod locks;
mod migrate_schemas;
mod moving_fleet;
mod no_transaction;
mod one_schema;
mod output;
mod own_path;
mod picture;
mod poolers;
mod progress;
mod random_sets;
mod readme;
mod real_sets;
mod rename_tenant;
mod rollout;
mod secrets;
mod servers;
mod snapshots;
mod support;
mod template;
mod template_seeds;
mod tenant_context;
mod timeouts;
mod trash;
