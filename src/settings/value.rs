//! Parses values; an error says what is expected.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Jobs, TableName};
use crate::domain::schema_name::{MAX_IDENTIFIER_BYTES, SchemaName};

/// Reads a span of time: a number with `ms`, `s`, `m`/`min`, `h` or `d`, or 0. A number without a unit
/// would be milliseconds to PostgreSQL (manual section 20.1.1) and seconds to most people.
///
/// # Errors
///
/// What is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let time = age(text)?;
    // PostgreSQL stores timeouts as a 32-bit number of milliseconds.
    if i32::try_from(time.as_millis()).is_err() {
        return Err("at most 24 days".to_owned());
    }
    Ok(time)
}

/// Reads a time of any length, such as `500ms`, `2s`, `5m`, `12h` or `30d`.
///
/// # Errors
///
/// What is expected.
pub fn age(text: &str) -> Result<Duration, String> {
    let wanted = || "a time such as 500ms, 2s, 5m or 0".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wanted())?;
    let millis = match text[digits..].trim() {
        "" if number == 0 => 1,
        "" => return Err(format!("a time with its unit, such as {number}ms or {number}s")),
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wanted()),
    };
    number
        .checked_mul(millis)
        .filter(|&millis| millis <= 1_000 * 366 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "at most 1000 years".to_owned())
}

/// Parses one of two words.
pub(super) fn choice<T: Copy>(words: [(&str, T); 2]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let chosen = words.iter().find(|(word, _)| *word == text);
        let [(first, _), (second, _)] = words;
        chosen.map(|(_, value)| *value).ok_or_else(|| format!("'{first}' or '{second}'"))
    }
}

pub(super) fn jobs(text: &str) -> Result<Jobs, String> {
    if text == "auto" {
        return Ok(Jobs::Auto);
    }
    match text.parse::<NonZeroUsize>() {
        Ok(jobs) if jobs.get() <= 1_000 => Ok(Jobs::Fixed(jobs)),
        _ => Err("'auto' or a number from 1 to 1000".to_owned()),
    }
}

pub(super) fn identifier(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_IDENTIFIER_BYTES || text.chars().any(char::is_control) {
        return Err(format!("a name of 1 to {MAX_IDENTIFIER_BYTES} bytes"));
    }
    Ok(text.to_owned())
}

/// Parses an optional value, of which the empty text is none.
pub(super) fn maybe<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| {
        if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
    }
}

pub(super) fn table_name(text: &str) -> Result<TableName, String> {
    let (schema, table) = text.split_once('.').unwrap_or(("public", text));
    if table.contains('.') {
        return Err("a table as in public.customers, or customers for one in public".to_owned());
    }
    Ok(TableName { schema: identifier(schema)?, table: identifier(table)? })
}

pub(super) fn table_names(text: &str) -> Result<Vec<TableName>, String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(table_name).collect()
}

/// Parses names of shared tables and sequences, which must contain their schema.
pub(super) fn writable_names(text: &str) -> Result<Vec<TableName>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let is_exact = name.matches('.').count() == 1 && !name.contains(['*', '%', '?', '"']);
            if !is_exact {
                return Err("schema-qualified names as in public.audit_log, without wildcards \
                     and quotes"
                    .to_owned());
            }
            let table = table_name(name)?;
            let schema = table.schema.as_str();
            if schema.starts_with("pg_") || ["pricesync", "information_schema"].contains(&schema) {
                return Err(format!("no table of the schema {schema}"));
            }
            Ok(table)
        })
        .collect()
}

pub(super) fn search_path(text: &str) -> Result<Vec<SchemaName>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            if name == "public" {
                Ok(SchemaName::public())
            } else {
                SchemaName::parse(name).map_err(|error| format!("schema names: {error}"))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2min"), Ok(Duration::from_mins(2)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "250", "-1s", "1.5s", "1y", "99999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_writable_tables_are_exact() {
        let tables = writable_names("public.ddl_log, shared.Numbers").expect("fine");
        let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["public.ddl_log", "shared.Numbers"]);
        assert_eq!(writable_names(""), Ok(Vec::new()));
        for bad in [
            "ddl_log",
            "public.*",
            "public.log_%",
            "*.log",
            "public.\"Log\"",
            "a.b.c",
            "public.",
            ".log",
            "pricesync.run",
            "pg_catalog.pg_class",
            "information_schema.tables",
        ] {
            assert!(writable_names(bad).is_err(), "{bad}");
        }
    }
}
