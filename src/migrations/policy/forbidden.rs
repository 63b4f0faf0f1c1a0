//! Classifies a statement by its keywords: is it forbidden in a migration?

use std::ops::Range;

use super::refusal::Refusal;
use crate::domain::script::Scope;
use crate::migrations::sql::directives::Transaction;
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::TokenKind;
use crate::migrations::sql::relations::changed;

/// Keywords that can stand between `CREATE`, `ALTER` or `DROP` and the name of the object.
const BEFORE_A_NAME: &str = "or replace temp temporary unlogged unique materialized recursive global local \
    foreign if not exists only concurrently table view index sequence function procedure routine \
    aggregate type domain operator collation conversion statistics text search configuration \
    dictionary class family constraint";

/// What `GRANT ... ON` names when the object is not one of a schema.
const SHARED_GRANT: [&str; 6] =
    ["database", "language", "large", "foreign", "tablespace", "parameter"];

/// What `COMMENT ON` names when the object is not one of a schema.
const SHARED_COMMENT: [&str; 8] =
    ["database", "role", "tablespace", "extension", "language", "publication", "server", "schema"];

/// Returns why a statement is rejected, or `None`. Literals and function bodies are not read; the
/// server and the escape guard check them when they run.
pub(crate) fn classify(
    keywords: Keywords<'_>,
    scope: Scope,
    transaction: Transaction,
) -> Option<Refusal> {
    let first = keywords.text(0).to_ascii_uppercase();
    let is_tenant = scope == Scope::Tenant;
    match first.as_str() {
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE"
        | "PREPARE" => transaction_control(keywords, first),
        "SET" => setting(keywords),
        "RESET" | "DISCARD" => Some(Refusal::SessionReset(keywords.leading(2))),
        "COPY" => copy(keywords, scope),
        "GRANT" | "REVOKE" if is_tenant => privileges(keywords, &first),
        "REASSIGN" | "LOAD" if is_tenant => {
            Some(Refusal::SharedObjectInTenant(keywords.leading(2)))
        }
        "COMMENT" | "SECURITY" if is_tenant => comment(keywords),
        "CREATE" | "DROP" | "ALTER" => {
            definition(keywords, scope).or_else(|| outside_only(keywords, transaction))
        }
        "VACUUM" | "CLUSTER" | "REINDEX" => outside_only(keywords, transaction),
        _ if is_tenant => changed_schema(keywords).or_else(|| set_config(keywords)),
        _ => set_config(keywords),
    }
}

fn transaction_control(keywords: Keywords<'_>, first: String) -> Option<Refusal> {
    let second = ["TRANSACTION", "PREPARED"].into_iter().find(|second| keywords.is(1, second));
    match (first.as_str(), second) {
        ("PREPARE", None) => None,
        ("BEGIN" | "END", Some("TRANSACTION")) | (_, None) => {
            Some(Refusal::TransactionControl(first))
        }
        (_, Some(second)) => Some(Refusal::TransactionControl(format!("{first} {second}"))),
    }
}

fn setting(keywords: Keywords<'_>) -> Option<Refusal> {
    // In SET SESSION AUTHORIZATION, SESSION belongs to the name of the setting.
    let has_range = keywords.is_any(1, &["local", "session"]) && !keywords.is(2, "authorization");
    let name = if has_range { 2 } else { 1 };
    if keywords.is(name, "session") && keywords.is(name + 1, "authorization") {
        return Some(Refusal::Role("SET SESSION AUTHORIZATION".to_owned()));
    }
    let sql = || {
        let upper = |index| {
            if keywords.is_any(index, &["set", "local", "session", "schema", "role"]) {
                keywords.text(index).to_ascii_uppercase()
            } else {
                keywords.text(index).to_owned()
            }
        };
        (0..=name).map(upper).collect::<Vec<_>>().join(" ")
    };
    match keywords.identifier(name)?.to_lowercase().as_str() {
        // A name followed by a dot is a setting of the application or of an extension.
        _ if keywords.text(name + 1) == "." => None,
        "search_path" | "schema" => Some(Refusal::SearchPath(sql())),
        "role" | "session_authorization" => Some(Refusal::Role(sql())),
        "standard_conforming_strings" => {
            let value = keywords.text(name + 2).trim_matches('\'').to_lowercase();
            let on = matches!(value.as_str(), "on" | "true" | "yes" | "1" | "default");
            (!on).then(|| Refusal::StringSyntax(format!("{} = {value}", sql())))
        }
        _ => None,
    }
}

fn set_config(keywords: Keywords<'_>) -> Option<Refusal> {
    keywords.positions("set_config").find_map(|index| {
        let is_call = keywords.kind(index + 1) == Some(TokenKind::Open);
        let setting = keywords.text(index + 2).trim_matches('\'').to_lowercase();
        let sql = || format!("set_config('{setting}', ...)");
        match setting.as_str() {
            _ if !is_call => None,
            "search_path" => Some(Refusal::SearchPath(sql())),
            "role" | "session_authorization" => Some(Refusal::Role(sql())),
            _ => None,
        }
    })
}

/// Rejects a `GRANT` or `REVOKE` on anything but a bare name, which resolves to the tenant's
/// schema first: a role, the database, or an object of a named schema.
fn privileges(keywords: Keywords<'_>, first: &str) -> Option<Refusal> {
    let on = keywords.positions("on").next();
    let Some(on) = on else {
        return Some(Refusal::SharedObjectInTenant(format!("{first} of a role")));
    };
    let schema = if keywords.is_any(on + 1, &SHARED_GRANT) {
        let kind = keywords.text(on + 1).to_ascii_uppercase();
        return Some(Refusal::SharedObjectInTenant(format!("{first} ON {kind}")));
    } else if keywords.is(on + 1, "schema") {
        on + 2
    } else if keywords.is(on + 1, "all")
        && keywords.is(on + 3, "in")
        && keywords.is(on + 4, "schema")
    {
        on + 5
    } else {
        let end = (on..keywords.len()).find(|&index| keywords.is_any(index, &["to", "from"]));
        return qualified(keywords, on + 1..end.unwrap_or(keywords.len()), 1);
    };
    keywords.identifier(schema).map(Refusal::NamedSchemaInTenant)
}

fn comment(keywords: Keywords<'_>) -> Option<Refusal> {
    let on = keywords.positions("on").next()?;
    if keywords.is_any(on + 1, &SHARED_COMMENT) {
        let kind = keywords.text(on + 1).to_ascii_uppercase();
        let sql = format!("{} ON {kind}", keywords.leading(1));
        return Some(Refusal::SharedObjectInTenant(sql));
    }
    // The name of a column begins with its table.
    let dots = if keywords.is(on + 1, "column") { 2 } else { 1 };
    let end = keywords.positions("is").next().unwrap_or(keywords.len());
    qualified(keywords, on + 2..end, dots)
}

/// Rejects the first name outside of parentheses that has at least this many dots.
fn qualified(keywords: Keywords<'_>, names: Range<usize>, dots: usize) -> Option<Refusal> {
    let mut depth = 0_usize;
    for index in names {
        match keywords.kind(index) {
            Some(TokenKind::Open) => depth += 1,
            Some(TokenKind::Close) => depth = depth.saturating_sub(1),
            _ if depth > 0 || index > 0 && keywords.text(index - 1) == "." => {}
            _ if (0..dots).all(|dot| keywords.text(index + 1 + 2 * dot) == ".") => {
                let schema = keywords.identifier(index)?;
                return (schema != "pg_temp").then_some(Refusal::NamedSchemaInTenant(schema));
            }
            _ => {}
        }
    }
    None
}

/// Rejects a change of a relation whose name has a schema. `REFERENCES` and `FROM` may name one.
fn changed_schema(keywords: Keywords<'_>) -> Option<Refusal> {
    let schemas = changed(keywords).into_iter().filter_map(|(_, name)| name.schema);
    schemas.filter(|schema| schema != "pg_temp").map(Refusal::NamedSchemaInTenant).next()
}

fn copy(keywords: Keywords<'_>, scope: Scope) -> Option<Refusal> {
    let has = |direction: &'static str, word: &'static str| {
        let mut found = keywords.positions(word);
        found.any(|index| index > 0 && keywords.is(index - 1, direction))
    };
    if scope == Scope::Tenant && (has("to", "program") || has("from", "program")) {
        return Some(Refusal::ServerWide("COPY with a PROGRAM".to_owned()));
    }
    [("from", "stdin"), ("to", "stdout")]
        .into_iter()
        .find(|(direction, client)| has(direction, client))
        .map(|(direction, client)| {
            Refusal::CopyThroughClient(format!("COPY {direction} {client}").to_uppercase())
        })
        .or_else(|| changed_schema(keywords).filter(|_| scope == Scope::Tenant))
}

fn definition(keywords: Keywords<'_>, scope: Scope) -> Option<Refusal> {
    let second = keywords.text(1).to_ascii_uppercase();
    match second.as_str() {
        "DATABASE" | "TABLESPACE" if !keywords.is(0, "alter") => {
            return Some(Refusal::ServerWide(keywords.leading(2)));
        }
        "SYSTEM" if keywords.is(0, "alter") => {
            return Some(Refusal::ServerWide(keywords.leading(2)));
        }
        _ if scope == Scope::Shared => return None,
        "EXTENSION" => return Some(Refusal::ExtensionInTenant(keywords.leading(2))),
        "SCHEMA" => return Some(Refusal::SchemaInTenant(keywords.leading(2))),
        _ => {}
    }
    let length = match second.as_str() {
        "OWNED" => 2,
        "DEFAULT" if keywords.is(2, "privileges") => 3,
        "EVENT" | "ACCESS" => 3,
        "FOREIGN" if keywords.is(2, "data") => 4,
        "ROLE" | "USER" | "GROUP" | "DATABASE" | "PUBLICATION" | "SERVER" | "LANGUAGE"
            if !keywords.is(2, "mapping") =>
        {
            2
        }
        _ => {
            return named_schema(keywords).or_else(|| changed_schema(keywords));
        }
    };
    Some(Refusal::SharedObjectInTenant(keywords.leading(length)))
}

/// Returns the schema that qualifies the name of the object that is defined.
///
/// The escape guard sees most of these when they run; functions and domains take no lock that
/// would show their schema.
fn named_schema(keywords: Keywords<'_>) -> Option<Refusal> {
    let is_skipped =
        |index| BEFORE_A_NAME.split_ascii_whitespace().any(|it| keywords.is(index, it));
    let name = (1..keywords.len()).find(|&index| !is_skipped(index))?;
    let schema = keywords.identifier(name)?;
    (keywords.text(name + 1) == "." && schema != "pg_temp")
        .then_some(Refusal::NamedSchemaInTenant(schema))
}

/// Rejects the statements for which the server calls `PreventInTransactionBlock`, as far as their
/// keywords show it. `CREATE SUBSCRIPTION` has options that avoid it; `ALTER TYPE ... ADD VALUE`
/// and `REFRESH MATERIALIZED VIEW CONCURRENTLY` run in a transaction.
fn outside_only(keywords: Keywords<'_>, transaction: Transaction) -> Option<Refusal> {
    if transaction == Transaction::Outside {
        return None;
    }
    let has = |word: &'static str| keywords.positions(word).next().is_some();
    let sql = if keywords.is(0, "vacuum") {
        "VACUUM"
    } else if keywords.is(0, "cluster") {
        let table = keywords.options();
        let table = table + usize::from(keywords.is(table, "verbose"));
        if table < keywords.len() {
            return None;
        }
        "CLUSTER without a table"
    } else if keywords.reindexes_concurrently() {
        "REINDEX CONCURRENTLY"
    } else if keywords.is(0, "reindex") {
        let kind = keywords.options();
        if !keywords.is_any(kind, &["schema", "database", "system"]) {
            return None;
        }
        let kind = keywords.text(kind).to_ascii_uppercase();
        return Some(Refusal::NeedsNoTransaction(format!("REINDEX {kind}")));
    } else if keywords.starts_with(&["create", "index", "concurrently"])
        || keywords.starts_with(&["create", "unique", "index", "concurrently"])
    {
        "CREATE INDEX CONCURRENTLY"
    } else if keywords.starts_with(&["drop", "index", "concurrently"]) {
        "DROP INDEX CONCURRENTLY"
    } else if keywords.starts_with(&["alter", "table"])
        && (keywords.positions("detach")).any(|index| keywords.is(index + 1, "partition"))
        && keywords.is(keywords.len() - 1, "concurrently")
    {
        "ALTER TABLE DETACH PARTITION CONCURRENTLY"
    } else if keywords.starts_with(&["create", "subscription"])
        && !has("create_slot")
        && !has("connect")
    {
        "CREATE SUBSCRIPTION"
    } else {
        return None;
    };
    Some(Refusal::NeedsNoTransaction(sql.to_owned()))
}
