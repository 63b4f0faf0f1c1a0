//! Finds places that hold a schema's name as text, which renaming the schema does not update: bodies
//! and settings of functions, arguments of triggers, settings of roles and of the database, literals in
//! expressions.
//!
//! Views, keys, policies and defaults refer to objects by oid. Their text is read with the schema as the
//! path, so that only literals can hold the name.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::fingerprint::relative_to;
use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::connection::sql_file::filled;

/// Returns descriptions of the objects that hold the schema's name, through an open transaction.
///
/// Ignores case, because the server folds names that are not quoted. Programs outside the server, and
/// jobs that an extension keeps in a table, are not searched.
pub(crate) async fn of_schema(
    session: &Session,
    schema: &SchemaName,
) -> Result<Vec<String>, Error> {
    let values = [
        ("{name}", escape_literal(schema.as_str())),
        ("{quoted_name}", escape_literal(&doubled(schema))),
    ];
    let database = filled(include_str!("name_references/database.sql"), &values);
    let expressions = filled(include_str!("name_references/expressions.sql"), &values);
    let in_database = session.rows(&database).await?;
    let in_expressions = relative_to(session, schema, &expressions).await?;
    let mut found: Vec<String> = in_database
        .iter()
        .chain(&in_expressions)
        .filter_map(|row| reference(row, schema))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// The name as it is written between double quotes.
fn doubled(schema: &SchemaName) -> String {
    schema.as_str().replace('"', "\"\"")
}

fn reference(row: &Row, schema: &SchemaName) -> Option<String> {
    let (description, text) = (row.optional(0)?, row.optional(1)?);
    names(text, schema).then(|| description.to_owned())
}

/// Returns whether a text holds the name of a schema, bare or as written between quotes, in any case.
pub(crate) fn names(text: &str, schema: &SchemaName) -> bool {
    holds(text, schema.as_str()) || holds(text, &doubled(schema))
}

/// Returns whether a text holds a name as a word of its own, in any case.
fn holds(text: &str, name: &str) -> bool {
    is_word_of(&name.to_lowercase(), &text.to_lowercase())
}

/// Returns whether a text holds a name that is not a part of a longer one.
pub(crate) fn is_word_of(name: &str, text: &str) -> bool {
    words_of(name, text).next().is_some()
}

/// Returns a text with `by` in place of a name, wherever the name is a word of its own and
/// `is_meant` returns true for the text after it.
pub(crate) fn replaced(
    text: &str,
    name: &str,
    by: &str,
    is_meant: impl Fn(&str) -> bool,
) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = 0;
    let meant = |at: &usize| is_meant(&text[at + name.len()..]);
    for at in words_of(name, text).filter(meant) {
        result.push_str(&text[rest..at]);
        result.push_str(by);
        rest = at + name.len();
    }
    result + &text[rest..]
}

fn words_of<'a>(name: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let places = text.match_indices(name).map(|(at, _)| at);
    places.filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn a_name_is_found_whole_and_in_any_case() {
        assert!(holds("SELECT * FROM Tenant_Acme.products", "tenant_acme"));
        assert!(holds("search_path=tenant_acme, public", "tenant_acme"));
        assert!(holds("\"Công ty\".x", "Công ty"));
        assert!(!holds("SELECT * FROM tenant_acme2.products", "tenant_acme"));
        assert!(!holds("old_tenant_acme tenant_acmes", "tenant_acme"));
        assert!(holds("tenant_acme2 tenant_acme", "tenant_acme"));
        assert!(!holds("tenant_ấ my_tenant_a tenant_a1 tenant", "tenant_a"));
    }
}
