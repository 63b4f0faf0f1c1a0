//! Describes a schema as lines of text that do not depend on the schema's name.
//!
//! Two schemas with the same lines behave the same: the lines cover relations, columns, constraints, indexes,
//! sequences, triggers, rules, policies, functions, types, comments and privileges. They omit oids, the gaps
//! of dropped columns and where the default for old rows of a column is stored. An object of any other kind
//! has only a `member` line.

use postgres_protocol::escape::escape_literal;
use sha2::{Digest as _, Sha256};
use tokio_postgres::Error;

use crate::domain::digest::hexadecimal;
use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::connection::sql_file::filled;

const LINES: &str = include_str!("fingerprint.sql");
const ROWS: &str = include_str!("rows.sql");

/// The structure of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    lines: Vec<String>,
}

impl Fingerprint {
    /// Reads the structure of a schema in the open transaction, in one round trip. A schema that does not
    /// exist has no lines.
    ///
    /// Describes the history table as any other, except for whether it is empty.
    pub async fn read(
        session: &Session,
        schema: &SchemaName,
        history_table: &str,
    ) -> Result<Self, Error> {
        Ok(Self::of(read_lines(session, schema, history_table, LINES).await?))
    }

    /// Reads the structure and the rows of a schema in the open transaction, to compare tenants that should
    /// be equal. Each table and sequence has a further line with the digest of its rows, or its place. The
    /// order of rows does not matter.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], also if row-level security hides rows from the role.
    pub async fn read_with_rows(
        session: &Session,
        schema: &SchemaName,
        history_table: &str,
    ) -> Result<Self, Error> {
        let mut lines = Self::read(session, schema, history_table).await?.lines;
        let queries = read_lines(session, schema, history_table, ROWS).await?;
        if !queries.is_empty() {
            let rows = relative_to(session, schema, &queries.join(" UNION ALL ")).await?;
            lines.extend(rows.iter().filter_map(|row| row.optional(0)).map(str::to_owned));
        }
        Ok(Self::of(lines))
    }

    fn of(mut lines: Vec<String>) -> Self {
        lines.sort_unstable();
        Self { lines }
    }

    /// Returns the lines, sorted.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Returns a digest of all lines, as 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        digest(self.lines.iter().map(String::as_str))
    }

    /// Returns the line of a table with rows, other than the history table.
    pub fn filled_table(&self) -> Option<&str> {
        let filled = |line: &&String| line.starts_with("state ") && line.ends_with(" filled");
        self.lines.iter().find(filled).map(String::as_str)
    }

    /// Returns the first line that only one of the two fingerprints has.
    pub fn first_difference<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let missing = |lines: &'a [String], of: &'a [String]| {
            let line = lines.iter().find(|line| of.binary_search(line).is_err());
            line.map(String::as_str)
        };
        missing(&self.lines, &other.lines).or_else(|| missing(&other.lines, &self.lines))
    }
}

/// Returns the first column of a query about a schema.
async fn read_lines(
    session: &Session,
    schema: &SchemaName,
    history_table: &str,
    sql: &str,
) -> Result<Vec<String>, Error> {
    let values = [
        ("{schema}", escape_literal(schema.as_str())),
        ("{history}", escape_literal(history_table)),
        ("{own_path}", own_path(schema)),
    ];
    let rows = relative_to(session, schema, &filled(sql, &values)).await?;
    Ok(rows.iter().filter_map(|row| row.optional(0)).map(str::to_owned).collect())
}

/// Returns the SHA-256 of a sequence of texts; `["ab", "c"]` and `["a", "bc"]` differ.
pub(crate) fn digest<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hexadecimal(&hasher.finalize())
}

/// Returns the query for the functions among `proc` whose `search_path` names the schema, with the
/// columns `oid`, `named`, `created` and `settings`.
pub(crate) fn own_path(schema: &SchemaName) -> String {
    let values = [("{own_name}", escape_literal(schema.as_str()))];
    filled(include_str!("own_path.sql"), &values)
}

/// Runs a query in the open transaction, in whose result the names of a schema are not qualified, and
/// leaves no setting behind.
///
/// The query's own names are looked up in `pg_catalog` only, so that no function or operator of the
/// schema is called.
pub(crate) async fn relative_to(
    session: &Session,
    schema: &SchemaName,
    query: &str,
) -> Result<Vec<Row>, Error> {
    let values = [("{query}", query.to_owned()), ("{schema}", schema.quoted().to_string())];
    let sql = filled(include_str!("relative_to.sql"), &values);
    session.rows(&sql).await
}

#[cfg(test)]
mod tests {
    use super::*;

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
