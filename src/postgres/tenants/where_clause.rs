//! Which tenants a condition holds for: a question that somebody typed, answered by the server.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::ErrorPosition;

use super::catalog::{PostgresCatalog, catalog_error};
use crate::domain::catalog::CatalogError;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Location;
use crate::domain::sqlstate;
use crate::migrations::WhereClause;
use crate::postgres::connection::catalog_sql::Tables;
use crate::postgres::connection::server_error::{is_connection_lost, server_error};
use crate::postgres::connection::session::Session;
use crate::service::failure::ServerError;

/// How long the server may think about a condition.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a condition was not answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum WhereError {
    /// The server does not accept it; with the place in it, where the server tells.
    Refused {
        /// What the server said.
        said: ServerError,
        /// Where in the condition.
        place: Option<Location>,
    },
    /// The catalog could not be asked at all.
    Catalog(CatalogError),
}

impl fmt::Display for WhereError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { said, .. } if said.has_sqlstate(sqlstate::QUERY_CANCELED) => {
                write!(f, "no answer within {} s: {said}", LIMIT.as_secs())
            }
            Self::Refused { said, .. } => said.fmt(f),
            Self::Catalog(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WhereError {}

impl PostgresCatalog {
    /// Returns the schemas of the tenants for which the condition holds. It may name the
    /// columns of the tenant table, and that table as `t`; other names are looked up in the
    /// table's own schema, then in `public`. Nothing can be changed by it.
    ///
    /// # Errors
    ///
    /// [`WhereError::Refused`] for a condition that the server refuses or does not answer in time.
    pub async fn matching(
        &self,
        predicate: &WhereClause,
    ) -> Result<HashSet<SchemaName>, WhereError> {
        let session = self.session().await.map_err(WhereError::Catalog)?;
        let answer = ask(&session, self.tables(), predicate).await;
        // Whatever a function in it left in the session ends with the session.
        session.discard();
        answer
    }
}

async fn ask(
    session: &Session,
    tables: &Tables,
    predicate: &WhereClause,
) -> Result<HashSet<SchemaName>, WhereError> {
    let failed = |error: &Error| WhereError::Catalog(catalog_error(error));
    // The server reads a whole message before it does what is in it, so how strings are to be
    // read is settled in a message of its own.
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL search_path TO {}, public; SET LOCAL statement_timeout TO {}; \
         SET LOCAL standard_conforming_strings TO on",
        tables.home,
        LIMIT.as_millis()
    );
    session.rows(&begin).await.map_err(|error| failed(&error))?;
    let head = format!(
        "SELECT t.{} FROM {} t WHERE (",
        tables.schema, tables.tenants
    );
    let question = format!("{head}{}\n)", predicate.as_str());
    let answer = session.rows(&question).await;
    let ended = session.rows("ROLLBACK").await;
    match answer {
        Ok(rows) => {
            ended.map_err(|error| failed(&error))?;
            Ok(rows
                .iter()
                .filter_map(|row| SchemaName::parse(row.optional(0)?).ok())
                .collect())
        }
        Err(error) => Err(judge(&error, &head, predicate)),
    }
}

fn judge(error: &Error, head: &str, predicate: &WhereClause) -> WhereError {
    let position = error.as_db_error().and_then(|said| said.position());
    let before = head.chars().count();
    let place = match position {
        Some(ErrorPosition::Original(position)) => (*position as usize).checked_sub(before + 1),
        _ => None,
    };
    // A place in front of the condition is the tenant table itself.
    if is_connection_lost(error) || (place.is_none() && position.is_some()) {
        return WhereError::Catalog(catalog_error(error));
    }
    WhereError::Refused {
        said: server_error(error),
        place: place.map(|at| place_in(predicate.as_str(), at)),
    }
}

/// Returns the place of a character, counted from 0; behind the end is the end.
fn place_in(text: &str, at: usize) -> Location {
    let before: String = text.chars().take(at).collect();
    let line = before.matches('\n').count();
    let column = before.chars().rev().take_while(|&c| c != '\n').count();
    Location {
        line: line + 1,
        column: Some(column + 1),
        text: text.lines().nth(line).unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_found_on_its_line() {
        let place = place_in("plan = 'ế'\n  AND nowhere", 17);
        assert_eq!((place.line, place.column), (2, Some(7)));
        assert_eq!(place.text, "  AND nowhere");
        let end = place_in("plan =", 7);
        assert_eq!((end.line, end.column), (1, Some(7)));
    }
}
