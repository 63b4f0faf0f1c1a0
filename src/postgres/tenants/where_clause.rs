//! Evaluates a `--where` condition for each tenant, on the server.

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

/// The statement timeout of a condition.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a condition was not evaluated.
#[derive(Debug)]
#[non_exhaustive]
pub enum WhereError {
    /// The server rejected it or timed out.
    Refused {
        /// The server's error.
        said: ServerError,
        /// The position in the condition, if the server reported one.
        place: Option<Location>,
    },
    /// The tenant tables could not be read.
    Catalog(CatalogError),
}

impl fmt::Display for WhereError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { said, .. } if said.has_sqlstate(sqlstate::QUERY_CANCELED) => {
                write!(f, "timed out after {} s: {said}", TIMEOUT.as_secs())
            }
            Self::Refused { said, .. } => said.fmt(f),
            Self::Catalog(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WhereError {}

impl PostgresCatalog {
    /// Returns the schemas of the tenants for which the condition is true. It may use the columns of
    /// the tenant table, whose alias is `t`; other names resolve in that table's schema, then in
    /// `public`. Runs in a read-only transaction.
    ///
    /// # Errors
    ///
    /// [`WhereError::Refused`] if the server rejects the condition or takes longer than 30 s.
    pub async fn matching(
        &self,
        predicate: &WhereClause,
    ) -> Result<HashSet<SchemaName>, WhereError> {
        let session = self.session().await.map_err(WhereError::Catalog)?;
        let matching = evaluate(&session, self.tables(), predicate).await;
        // A function in the condition may have changed the session.
        session.discard();
        matching
    }
}

async fn evaluate(
    session: &Session,
    tables: &Tables,
    predicate: &WhereClause,
) -> Result<HashSet<SchemaName>, WhereError> {
    let failed = |error: &Error| WhereError::Catalog(catalog_error(error));
    // A message is parsed as a whole, so standard_conforming_strings must be set in an earlier one.
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL search_path TO {}, public; SET LOCAL statement_timeout TO {}; \
         SET LOCAL standard_conforming_strings TO on",
        tables.home,
        TIMEOUT.as_millis()
    );
    session.rows(&begin).await.map_err(|error| failed(&error))?;
    let head = format!("SELECT t.{} FROM {} t WHERE (", tables.schema, tables.tenants);
    let query = format!("{head}{}\n)", predicate.as_str());
    let rows = session.rows(&query).await;
    let ended = session.rows("ROLLBACK").await;
    match rows {
        Ok(rows) => {
            ended.map_err(|error| failed(&error))?;
            Ok(rows.iter().filter_map(|row| SchemaName::parse(row.optional(0)?).ok()).collect())
        }
        Err(error) => Err(classify(&error, &head, predicate)),
    }
}

fn classify(error: &Error, head: &str, predicate: &WhereClause) -> WhereError {
    let position = error.as_db_error().and_then(|said| said.position());
    let before = head.chars().count();
    let place = match position {
        Some(ErrorPosition::Original(position)) => (*position as usize).checked_sub(before + 1),
        _ => None,
    };
    // A position before the condition is that of the tenant table or its column.
    if is_connection_lost(error) || (place.is_none() && position.is_some()) {
        return WhereError::Catalog(catalog_error(error));
    }
    WhereError::Refused {
        said: server_error(error),
        place: place.map(|at| location(predicate.as_str(), at)),
    }
}

/// Returns the line and column of a character, counted from 0; past the end, those of the end.
fn location(text: &str, at: usize) -> Location {
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
    fn location_counts_lines_and_characters() {
        let place = location("plan = 'ế'\n  AND nowhere", 17);
        assert_eq!((place.line, place.column), (2, Some(7)));
        assert_eq!(place.text, "  AND nowhere");
        let end = location("plan =", 7);
        assert_eq!((end.line, end.column), (1, Some(7)));
    }
}
