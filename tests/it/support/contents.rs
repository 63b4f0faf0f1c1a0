//! What a schema contains, to compare tenants that were made in different ways.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use pricesync::domain::schema_name::SchemaName;
use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::Database;
use pricesync::postgres::connection::session::Session;
use pricesync::postgres::connection::tls;
use pricesync::postgres::schema::fingerprint::Fingerprint;

use super::pricesync::{Given, quoted};

/// A schema as `pg_dump` writes it, with the rows of each table in order, without its name, the history
/// and the times of rows.
pub(crate) fn contents(given: &Given, schema: &str, options: &[&str]) -> Vec<String> {
    read(given, schema, options, without_time)
}

/// The same with the times of rows.
pub(crate) fn contents_with_times(given: &Given, schema: &str) -> Vec<String> {
    read(given, schema, &[], str::to_owned)
}

fn read(
    given: &Given,
    schema: &str,
    options: &[&str],
    line: impl Fn(&str) -> String,
) -> Vec<String> {
    let history = ["-n", schema, "-T", "*.refinery_schema_history"];
    let dump = given.dump(&[options, &history].concat()).replace(schema, "SCHEMA");
    let mut lines: Vec<String> = dump.lines().map(line).collect();
    let is_copy = |line: &String| line.starts_with("COPY ") && line.ends_with(" FROM stdin;");
    let starts: Vec<usize> = (0..lines.len()).filter(|&at| is_copy(&lines[at])).collect();
    for start in starts {
        let count = lines[start..].iter().position(|line| line == "\\.").unwrap();
        lines[start + 1..start + count].sort_unstable();
    }
    lines
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

/// Creates a schema in which psql runs the files, each in a session and a transaction of its own.
pub(crate) fn run_by_psql(given: &Given, schema: &str, files: &[PathBuf]) {
    given.database.execute(&format!("CREATE SCHEMA {schema}"));
    let path = format!("SET search_path = {schema}, public");
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let is_alone = text.contains("-- pricesync: no-transaction");
        let transaction: &[&str] = if is_alone { &[] } else { &["-1"] };
        let run = ["-c", &path, "-f", file.to_str().unwrap()];
        given.database.psql(&[transaction, &run].concat());
    }
}
