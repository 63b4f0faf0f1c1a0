//! SQL that a user typed, to be run in each tenant.

use std::fmt;

use super::check::check;
use super::refusal::Refusal;
use crate::domain::script::{Location, Scope};
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::do_block::{InnerError, byte_in_block};
use crate::migrations::sql::position::{byte_of_position, location_of_byte};
use crate::migrations::sql::split::Statement;

/// Statements in which nothing forbidden was found.
#[derive(Clone, Debug)]
pub struct AdhocSql {
    text: String,
    statements: Vec<Statement>,
    /// Whether the parser confirms each statement.
    pub is_parsed: bool,
}

/// Why a text is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdhocSqlError {
    /// It contains no statement.
    Empty,
    /// A forbidden statement.
    Refused(Location, Refusal),
}

impl fmt::Display for AdhocSqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (location, refusal) = match self {
            Self::Empty => return f.write_str("it contains no statement"),
            Self::Refused(location, refusal) => (location, refusal),
        };
        match location.column {
            Some(column) => write!(f, "{}:{column}: ", location.line)?,
            None => write!(f, "{}: ", location.line)?,
        }
        let (sql, reason) = match refusal {
            Refusal::TransactionControl(sql) => {
                (sql, "the statements are one transaction in each tenant")
            }
            Refusal::SearchPath(sql) => (sql, "pricesync sets search_path for each tenant"),
            Refusal::Role(sql) => (sql, "connect as that role"),
            Refusal::SessionReset(sql) | Refusal::StringSyntax(sql) => {
                (sql, "pricesync sets the session's settings for each tenant")
            }
            Refusal::CopyThroughClient(sql) => {
                (sql, "its data would pass through the client; use -o csv for rows")
            }
            Refusal::ServerWide(sql)
            | Refusal::ExtensionInTenant(sql)
            | Refusal::SchemaInTenant(sql)
            | Refusal::SharedObjectInTenant(sql) => (sql, "it affects more than one tenant"),
            Refusal::MetaCommand(sql) => {
                return write!(f, "{sql} is a psql meta-command; use pricesync shell");
            }
            Refusal::Unclosed(_) | Refusal::DownSection(_) => return refusal.fmt(f),
            Refusal::NeedsNoTransaction(sql) => {
                return write!(f, "{sql} cannot run inside a transaction");
            }
            Refusal::SharedByBareName { table, .. } => {
                return write!(f, "'{table}' is a shared table");
            }
            Refusal::NamedSchemaInTenant(schema) => {
                return write!(
                    f,
                    "changing objects of a named schema is not allowed, here '{schema}'"
                );
            }
        };
        write!(f, "{sql} is not allowed: {reason}")
    }
}

impl std::error::Error for AdhocSqlError {}

impl AdhocSql {
    /// Checks a text, for sessions with `standard_conforming_strings = on`.
    ///
    /// # Errors
    ///
    /// The first forbidden statement.
    pub fn read(text: &str) -> Result<Self, AdhocSqlError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        let checked = check(&text, Scope::Tenant, Transaction::Inside);
        if let Some((offset, refusal)) = checked.refusals.into_iter().next() {
            return Err(AdhocSqlError::Refused(location_of_byte(&text, offset), refusal));
        }
        if checked.statements.is_empty() {
            return Err(AdhocSqlError::Empty);
        }
        Ok(Self { is_parsed: checked.is_parsed, statements: checked.statements, text })
    }

    /// Returns the statements, without their semicolons.
    pub fn statements(&self) -> impl ExactSizeIterator<Item = &str> {
        self.statements.iter().map(|statement| &self.text[statement.range.clone()])
    }

    /// Returns the location of an error inside the block of a `DO`, by the index of the statement.
    pub fn location_in_code(&self, statement: usize, error: InnerError<'_>) -> Option<Location> {
        let range = &self.statements.get(statement)?.range;
        let byte = byte_in_block(&self.text[range.clone()], error)?;
        Some(location_of_byte(&self.text, range.start + byte))
    }

    /// Returns the location in the text of a position in a statement, as the server counts it: in
    /// characters, from 1.
    pub fn location(&self, statement: usize, position: usize) -> Location {
        let range = self.statements[statement].range.clone();
        let within = byte_of_position(&self.text[range.clone()], position);
        location_of_byte(&self.text, range.start + within)
    }

    /// Returns the leading keywords of a statement, such as `UPDATE` or `CREATE TABLE`.
    pub fn name(&self, statement: usize) -> String {
        let text = &self.text[self.statements[statement].range.clone()];
        let mut words = text
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_uppercase);
        let first = words.next().unwrap_or_default();
        match (first.as_str(), words.next()) {
            ("CREATE" | "ALTER" | "DROP", Some(second)) => format!("{first} {second}"),
            ("WITH", _) => "WITH".to_owned(),
            _ => first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        AdhocSql::read(text).unwrap_err().to_string()
    }

    #[test]
    fn forbidden_statements_are_rejected_with_their_location() {
        for (text, expected) in [
            ("select 1;\n  commit", "2:3: COMMIT is not allowed"),
            ("SET TRANSACTION READ WRITE; select 1", ""),
            ("set search_path = public", "1:1: SET search_path is not"),
            ("set role postgres", "1:1: SET ROLE is not"),
            ("\\dt", "1:1: \\dt is a psql meta-command"),
            ("copy t to stdout", "1:1: COPY TO STDOUT is not"),
            ("vacuum", "1:1: VACUUM cannot run inside"),
            ("drop schema x", "1:1: DROP SCHEMA is not allowed: it affects"),
            ("create table x.y ()", "1:1: changing objects of a named schema"),
            (" -- nothing\n;", "it contains no statement"),
        ] {
            match AdhocSql::read(text) {
                // The server rejects this one after the first query of a transaction.
                Ok(_) => assert_eq!(expected, "", "{text}"),
                Err(_) => assert!(refused(text).starts_with(expected), "{}", refused(text)),
            }
        }
    }

    #[test]
    fn statements_have_names_and_locations() {
        let sql =
            AdhocSql::read("update a set b = 'ế;';\n create  table t(); select nowhere").unwrap();
        let statements: Vec<&str> = sql.statements().collect();
        assert_eq!(statements, ["update a set b = 'ế;'", "create  table t()", "select nowhere"]);
        assert_eq!((sql.name(0), sql.name(1)), ("UPDATE".into(), "CREATE TABLE".into()));
        let location = sql.location(2, 8);
        assert_eq!((location.line, location.column), (2, Some(28)));
        assert!(sql.is_parsed);
    }
}
