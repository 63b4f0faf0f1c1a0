//! SQL that somebody typed, to be run in one tenant after the other.

use std::fmt;

use super::check::{Seal, examine};
use super::forbidden::Refusal;
use crate::domain::script::{Place, Scope};
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::position::{byte_of_position, place_of_byte};
use crate::migrations::sql::split::Statement;

/// Statements that stay in the transaction and the schema that they are run in, as far as
/// reading them can tell.
#[derive(Clone, Debug)]
pub struct TypedSql {
    text: String,
    statements: Vec<Statement>,
    /// Whether two readers agree on where each statement ends.
    pub is_parsed: bool,
}

/// Why a text is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypedSqlError {
    /// There is no statement in it.
    Empty,
    /// This statement would leave its transaction or its schema, or cannot run in them.
    Refused(Place, Refusal),
}

impl fmt::Display for TypedSqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, refusal) = match self {
            Self::Empty => return f.write_str("it holds no statement"),
            Self::Refused(place, refusal) => (place, refusal),
        };
        match place.column {
            Some(column) => write!(f, "{}:{column}: ", place.line)?,
            None => write!(f, "{}: ", place.line)?,
        }
        match refusal {
            Refusal::TransactionControl(words) => write!(
                f,
                "{words} is not allowed: the statements are one transaction in each tenant"
            ),
            Refusal::SearchPath(words) => {
                write!(f, "{words} is not allowed: the search path is the tenant's")
            }
            Refusal::Role(words) => {
                write!(
                    f,
                    "{words} is not allowed: connect as the role that is meant"
                )
            }
            Refusal::SessionReset(words) | Refusal::StringSyntax(words) => {
                write!(
                    f,
                    "{words} is not allowed: the session's settings are the tenant's"
                )
            }
            Refusal::MetaCommand(words) => {
                write!(
                    f,
                    "{words} is a command of psql, which pricesync shell runs"
                )
            }
            Refusal::CopyThroughClient(words) => write!(
                f,
                "{words} is not allowed: its data would pass through the client; -o csv writes rows"
            ),
            Refusal::NeedsNoTransaction(words) => {
                write!(f, "{words} cannot run inside a transaction")
            }
            Refusal::SharedByBareName { table, .. } => {
                write!(f, "'{table}' is a shared table")
            }
            Refusal::NamedSchemaInTenant(schema) => write!(
                f,
                "nothing may be changed in a schema by name, here '{schema}'"
            ),
            Refusal::ServerWide(words)
            | Refusal::ExtensionInTenant(words)
            | Refusal::SchemaInTenant(words)
            | Refusal::SharedObjectInTenant(words) => {
                write!(
                    f,
                    "{words} is not allowed: it concerns more than one tenant"
                )
            }
        }
    }
}

impl std::error::Error for TypedSqlError {}

impl TypedSql {
    /// Reads a text. `standard_conforming_strings` has to be on where it is run.
    ///
    /// # Errors
    ///
    /// The first thing in it that is not run.
    pub fn read(text: &str) -> Result<Self, TypedSqlError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        let found = examine(&text, Scope::Tenant, Transaction::Inside);
        if let Some((at, refusal)) = found.refusals.into_iter().next() {
            return Err(TypedSqlError::Refused(place_of_byte(&text, at), refusal));
        }
        if found.statements.is_empty() {
            return Err(TypedSqlError::Empty);
        }
        Ok(Self {
            is_parsed: found.seal == Seal::Parsed,
            statements: found.statements,
            text,
        })
    }

    /// Returns the statements, without their semicolons.
    pub fn statements(&self) -> impl ExactSizeIterator<Item = &str> {
        self.statements
            .iter()
            .map(|statement| &self.text[statement.range.clone()])
    }

    /// Returns where in the text the character of a statement is that the server counts, from 1.
    #[must_use]
    pub fn place(&self, statement: usize, position: usize) -> Place {
        let range = self.statements[statement].range.clone();
        let within = byte_of_position(&self.text[range.clone()], position);
        place_of_byte(&self.text, range.start + within)
    }

    /// Returns what a statement is called, such as `UPDATE` or `CREATE TABLE`.
    #[must_use]
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
        TypedSql::read(text).unwrap_err().to_string()
    }

    #[test]
    fn what_would_leave_the_tenant_or_the_transaction_is_refused_with_its_place() {
        for (text, expected) in [
            ("select 1;\n  commit", "2:3: COMMIT is not allowed"),
            ("SET TRANSACTION READ WRITE; select 1", ""),
            ("set search_path = public", "1:1: SET search_path is not"),
            ("set role postgres", "1:1: SET ROLE is not"),
            ("\\dt", "1:1: \\dt is a command of psql"),
            ("copy t to stdout", "1:1: COPY TO STDOUT is not"),
            ("vacuum", "1:1: VACUUM cannot run inside"),
            (
                "drop schema x",
                "1:1: DROP SCHEMA is not allowed: it concerns",
            ),
            (
                "create table x.y ()",
                "1:1: nothing may be changed in a schema",
            ),
            (" -- nothing\n;", "it holds no statement"),
        ] {
            match TypedSql::read(text) {
                // The server refuses that one, behind the first query of a transaction.
                Ok(_) => assert_eq!(expected, "", "{text}"),
                Err(_) => assert!(refused(text).starts_with(expected), "{}", refused(text)),
            }
        }
    }

    #[test]
    fn statements_have_names_and_places() {
        let sql =
            TypedSql::read("update a set b = 'ế;';\n create  table t(); select nowhere").unwrap();
        let statements: Vec<&str> = sql.statements().collect();
        assert_eq!(
            statements,
            [
                "update a set b = 'ế;'",
                "create  table t()",
                "select nowhere"
            ]
        );
        assert_eq!(
            (sql.name(0), sql.name(1)),
            ("UPDATE".into(), "CREATE TABLE".into())
        );
        let place = sql.place(2, 8);
        assert_eq!((place.line, place.column), (2, Some(28)));
        assert!(sql.is_parsed);
    }
}
