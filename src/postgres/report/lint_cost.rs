//! Measures what `ALTER TABLE` costs on this server, for `lint --fleet`.

use std::fmt::Write as _;
use std::time::Duration;

use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::server_error::server_error;
use crate::service::failure::ServerError;

/// How often each statement runs; the median is reported.
const ROUNDS: usize = 5;

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;";

/// How long it takes to change one column of an empty table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// `ADD COLUMN ... DEFAULT`.
    pub with_default: Duration,
    /// `ADD COLUMN`, then `ALTER COLUMN ... SET DEFAULT`.
    pub default_apart: Duration,
    /// `ALTER COLUMN ... TYPE` to a binary-coercible type.
    pub alter_type: Duration,
}

/// Runs the statements in a schema whose transaction is rolled back. Requires CREATE on the database.
pub async fn measure(database: &Database) -> Result<Measured, ServerError> {
    let name = format!("pricesync_measure_{}", std::process::id());
    let schema = SchemaName::parse(&name).expect("lower case letters, digits and underscores");
    let schema = schema.quoted();
    let table = format!("{schema}.t");
    let mut sql = format!(
        "BEGIN READ WRITE; SET LOCAL lock_timeout TO '2s'; SET LOCAL search_path TO pg_catalog; \
         CREATE SCHEMA {schema}; CREATE TABLE {table} (id bigint PRIMARY KEY, c varchar(8));"
    );
    for round in 0..ROUNDS {
        let _ = write!(
            sql,
            "{NOW} ALTER TABLE {table} ADD COLUMN a{round} integer DEFAULT 1; \
             {NOW} ALTER TABLE {table} ADD COLUMN b{round} integer; ALTER TABLE {table} ALTER COLUMN b{round} SET DEFAULT 1; \
             {NOW} ALTER TABLE {table} ALTER COLUMN c TYPE varchar({}); {NOW}",
            9 + round
        );
    }
    sql.push_str("ROLLBACK");
    let session = database.session(Duration::ZERO).await?;
    let rows = match session.rows(&sql).await {
        Ok(rows) => rows,
        Err(error) => {
            // Closing the connection rolls back.
            session.discard();
            return Err(server_error(&error));
        }
    };
    let stamps: Vec<u64> = rows.iter().filter_map(|row| row.optional(0)?.parse().ok()).collect();
    let median = |step: usize| {
        let mut times: Vec<u64> = stamps
            .chunks_exact(4)
            .map(|round| round[step + 1].saturating_sub(round[step]))
            .collect();
        times.sort_unstable();
        Duration::from_micros(times.get(times.len() / 2).copied().unwrap_or_default())
    };
    Ok(Measured { with_default: median(0), default_apart: median(1), alter_type: median(2) })
}
