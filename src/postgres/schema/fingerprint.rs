//! What a schema is like, as lines of text that say nothing of the schema's own name.
//!
//! Two schemas with the same lines are the same to everybody who works in them: whatever
//! the server keeps about relations, columns, constraints, indexes, sequences, triggers, rules, policies,
//! functions, types, comments and privileges is in them. What is left out is what only the
//! history of the catalog explains: oids, gaps where columns were dropped, where a column's default for
//! old rows is kept. A thing that no line describes in detail still has its `member` line.

use std::fmt::Write as _;

use postgres_protocol::escape::escape_literal;
use sha2::{Digest as _, Sha256};
use tokio_postgres::Error;

use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::session::{Row, Session};

/// What is in the schema?
const LINES: &str = include_str!("fingerprint.sql");

/// The structure of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    lines: Vec<String>,
}

impl Fingerprint {
    /// Reads the structure of a schema in the open transaction, in one round trip and
    /// without a trace. A schema that does not exist has no lines.
    ///
    /// The history table is described like every other table, but not whether it is empty.
    ///
    /// # Errors
    ///
    /// The driver's error; the transaction is of no more use then.
    pub async fn read(
        session: &Session,
        schema: &SchemaName,
        history_table: &str,
    ) -> Result<Self, Error> {
        let values = [
            ("{schema}", escape_literal(schema.as_str())),
            ("{history}", escape_literal(history_table)),
        ];
        let rows = relative_to(session, schema, &filled(LINES, &values)).await?;
        let lines = rows.iter().filter_map(|row| row.optional(0));
        Ok(Self::of(lines.map(str::to_owned).collect()))
    }

    fn of(mut lines: Vec<String>) -> Self {
        lines.sort_unstable();
        Self { lines }
    }

    /// Returns the lines, sorted.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Returns a digest of all lines, as 64 hexadecimal digits.
    #[must_use]
    pub fn hash(&self) -> String {
        digest(self.lines.iter().map(String::as_str))
    }

    /// Returns the first line about a table that holds rows, the history table excepted.
    #[must_use]
    pub fn filled_table(&self) -> Option<&str> {
        let filled = |line: &&String| line.starts_with("state ") && line.ends_with(" filled");
        self.lines.iter().find(filled).map(String::as_str)
    }

    /// Returns the first line that only one of the two has.
    #[must_use]
    pub fn first_difference<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let lacks = |lines: &'a [String], of: &'a [String]| {
            let line = lines.iter().find(|line| of.binary_search(line).is_err());
            line.map(String::as_str)
        };
        lacks(&self.lines, &other.lines).or_else(|| lacks(&other.lines, &self.lines))
    }
}

/// Returns a digest of texts, in which it counts where one ends and the next begins.
pub(crate) fn digest<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hasher
        .finalize()
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// Puts values in the place of their names, in one pass: a value is never searched for names.
pub(crate) fn filled(sql: &str, values: &[(&str, String)]) -> String {
    let mut rest = sql;
    let mut result = String::with_capacity(sql.len());
    let next = |text: &str| {
        values
            .iter()
            .filter_map(|(name, value)| Some((text.find(name)?, name.len(), value.clone())))
            .min()
    };
    while let Some((at, length, value)) = next(rest) {
        result.push_str(&rest[..at]);
        result.push_str(&value);
        rest = &rest[at + length..];
    }
    result.push_str(rest);
    result
}

/// Runs a query in the open transaction whose answer names things as they are called from
/// within a schema, and leaves no setting behind.
///
/// The query is understood with the server's own names only, so that nothing in the schema
/// can pretend to be a function or an operator of the server, and answered with the schema
/// as the path. Plans that look through whole catalogs are not made.
pub(crate) async fn relative_to(
    session: &Session,
    schema: &SchemaName,
    query: &str,
) -> Result<Vec<Row>, Error> {
    let sql = format!(
        "SAVEPOINT pricesync_relative; SET LOCAL search_path TO pg_catalog; SET LOCAL statement_timeout TO 0; \
         SET LOCAL enable_seqscan TO off; SET LOCAL enable_hashjoin TO off; SET LOCAL enable_mergejoin TO off; SET LOCAL jit TO off; \
         SET LOCAL row_security TO off; SET LOCAL quote_all_identifiers TO off; SET LOCAL TimeZone TO 'UTC'; SET LOCAL DateStyle TO 'ISO'; \
         SET LOCAL IntervalStyle TO 'postgres'; SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO 'hex'; \
         DECLARE pricesync_relative NO SCROLL CURSOR FOR {query}; \
         SET LOCAL search_path TO {}; FETCH ALL FROM pricesync_relative; \
         ROLLBACK TO SAVEPOINT pricesync_relative; RELEASE SAVEPOINT pricesync_relative",
        schema.quoted()
    );
    session.rows(&sql).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_searched_for_names() {
        let values = [
            ("{schema}", "'{history}'".to_owned()),
            ("{history}", "'{schema}'".to_owned()),
        ];
        assert_eq!(
            filled("{schema} is not {history}{schema}", &values),
            "'{history}' is not '{schema}''{history}'"
        );
    }

    #[test]
    fn a_digest_tells_where_texts_end() {
        let of = |texts: &[&str]| digest(texts.iter().copied());
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&["ab"]).len(), 64);
    }

    #[test]
    fn the_first_difference_is_found_on_either_side() {
        let of = |lines: &[&str]| Fingerprint::of(lines.iter().map(ToString::to_string).collect());
        let (one, two) = (of(&["c", "a"]), of(&["a", "b", "c"]));
        assert_eq!(one.first_difference(&two), Some("b"));
        assert_eq!(two.first_difference(&one), Some("b"));
        assert_eq!(one.first_difference(&one), None);
        assert_ne!(one.hash(), two.hash());
    }
}
