//! The raw limit: the time that the server needs for the SQL alone.
//!
//! One message for each tenant contains the whole transaction, history rows included. A few plain
//! connections send them, without locks, without reading any state, without checks.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Result;
use futures_util::future::join_all;

use crate::bench::Bench;
use crate::files::File;
use crate::session::Session;

/// Numbers of connections that are tried to find the fastest.
const CONNECTIONS: [usize; 4] = [1, 2, 4, 8];

/// Returns the message that migrates an empty schema to the newest version.
pub(crate) fn cold(schema: &str, files: &[File]) -> String {
    let mut sql = format!("BEGIN; SET LOCAL search_path TO \"{schema}\", public; ");
    replay(&mut sql, files);
    sql + "COMMIT"
}

/// Returns the message that applies the new file to a migrated schema.
pub(crate) fn one_more(schema: &str, file: &File) -> String {
    let mut sql = format!("BEGIN; SET LOCAL search_path TO \"{schema}\", public; ");
    apply(&mut sql, file);
    sql + "COMMIT"
}

/// Returns the message that creates a complete tenant.
pub(crate) fn create(slug: &str, files: &[File]) -> String {
    let mut sql = format!(
        "BEGIN; WITH t AS (INSERT INTO tenants_tenant (schema_name, name, slug) \
         VALUES ('tenant_{slug}', 'Tenant {slug}', '{slug}') RETURNING id) \
         INSERT INTO tenants_domain (domain, is_primary, tenant_id) \
         SELECT '{slug}.example.com', true, id FROM t; \
         CREATE SCHEMA \"tenant_{slug}\"; SET LOCAL search_path TO \"tenant_{slug}\", public; "
    );
    replay(&mut sql, files);
    sql + "COMMIT"
}

fn replay(sql: &mut String, files: &[File]) {
    sql.push_str(
        "CREATE TABLE refinery_schema_history (version int8 PRIMARY KEY, \
         name varchar(255), applied_on varchar(255), checksum varchar(255)); ",
    );
    for file in files {
        apply(sql, file);
    }
}

fn apply(sql: &mut String, file: &File) {
    // A checksum of the usual length, which is never read.
    let _ = write!(
        sql,
        "{}\n; INSERT INTO refinery_schema_history VALUES ({}, '{}', now()::text, '12345678901234567890'); ",
        file.text, file.version, file.name
    );
}

/// Sends every message over this many connections and returns the seconds, connecting included.
pub(crate) fn seconds(
    bench: &Bench,
    database: &str,
    connections: usize,
    messages: Vec<String>,
) -> Result<f64> {
    let url = bench.url(database);
    let queue = Mutex::new(messages.into_iter());
    let started = Instant::now();
    bench.runtime.block_on(async {
        let workers = (0..connections).map(|_| work(&url, &queue));
        join_all(workers).await.into_iter().collect::<Result<Vec<()>>>()
    })?;
    Ok(started.elapsed().as_secs_f64())
}

async fn work(url: &str, queue: &Mutex<std::vec::IntoIter<String>>) -> Result<()> {
    let session = Session::open(url).await?;
    loop {
        let next = queue.lock().expect("no worker panics").next();
        let Some(message) = next else { break };
        session.run(&message).await?;
    }
    session.close().await;
    Ok(())
}

/// Returns the number of connections with which these messages take the least time.
pub(crate) fn best_connections(
    bench: &Bench,
    base: &str,
    messages: &[String],
) -> Result<(usize, String)> {
    let mut best = (f64::INFINITY, 1);
    let mut tried = String::new();
    for connections in CONNECTIONS {
        let copy = bench.copy(base)?;
        let took = seconds(bench, &copy.name, connections, messages.to_vec())?;
        let _ = write!(tried, " {connections}: {took:.2} s");
        if took < best.0 {
            best = (took, connections);
        }
    }
    Ok((
        best.1,
        format!("raw on {} connections; tried with {} schemas:{tried}", best.1, messages.len()),
    ))
}
