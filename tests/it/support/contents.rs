//! What a schema contains, to compare tenants that were made in different ways.

use super::pricesync::Given;

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
