//! What a schema contains, to compare tenants that were made in different ways.

use std::num::NonZeroUsize;
use std::time::Duration;

use pricesync::domain::schema_name::SchemaName;
use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::Database;
use pricesync::postgres::connection::session::Session;
use pricesync::postgres::connection::tls;
use pricesync::postgres::schema::fingerprint::Fingerprint;

use super::pricesync::{Given, quoted};

/// A schema as `pg_dump` writes it, without its name, the history and the times of rows.
pub(crate) fn contents(given: &Given, schema: &str, options: &[&str]) -> Vec<String> {
    let history = ["-n", schema, "-T", "*.refinery_schema_history"];
    let dump = given.dump(&[options, &history].concat());
    dump.replace(schema, "SCHEMA").lines().map(without_time).collect()
}

/// Replaces `2026-12-01 07:12:06.5+00`, which differs between two runs.
fn without_time(line: &str) -> String {
    let is_time = |word: &&str| word.len() > 18 && word.as_bytes()[4] == b'-' && word.contains(':');
    let joined = line.replace(' ', "\u{1}");
    let words = joined.split('\t').map(|word| if is_time(&word) { "TIME" } else { word });
    words.collect::<Vec<_>>().join("\t").replace('\u{1}', " ")
}

/// Returns the first lines in which two schemas differ.
pub(crate) fn difference(one: &[String], other: &[String]) -> Option<String> {
    let missing = |from: &[String], to: &[String]| {
        let lines = from.iter().filter(|line| !to.contains(line)).take(3).cloned();
        lines.collect::<Vec<_>>().join(" / ")
    };
    (one != other).then(|| format!("- {} + {}", missing(other, one), missing(one, other)))
}

/// Returns the structure of a schema as it would be after a change, which is not kept.
pub(crate) fn fingerprint_after(given: &Given, schema: &str, change: &str) -> Fingerprint {
    after(given, schema, change, async |session, schema| {
        Fingerprint::read(session, schema, "refinery_schema_history").await.unwrap()
    })
}

/// The same with rows.
pub(crate) fn everything_after(given: &Given, schema: &str, change: &str) -> Fingerprint {
    after(given, schema, change, async |session, schema| {
        Fingerprint::read_with_rows(session, schema, "refinery_schema_history").await.unwrap()
    })
}

fn after<T>(
    given: &Given,
    schema: &str,
    change: &str,
    read: impl AsyncFnOnce(&Session, &SchemaName) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = Some(given.database.url());
        let options = ConnectOptions::resolve(url, &Environment::from_process()).unwrap();
        let tls = tls::connector(&options).unwrap();
        let database = Database::open(&options, tls, NonZeroUsize::MIN, Duration::ZERO);
        let session = database.await.unwrap().session(Duration::ZERO).await.unwrap();
        let change = format!("BEGIN; SET LOCAL search_path TO {}; {change}", quoted(schema));
        session.rows(&change).await.unwrap();
        read(&session, &SchemaName::parse(schema).unwrap()).await
    })
}
