//! What a file may not do, found before any schema is touched.

use super::script::Transaction;
use super::tokens::{Statement, Token};
use crate::domain::script::Scope;

/// Something that a file may not do, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Byte at which it stands.
    pub(super) at: usize,
    /// What and why.
    pub(super) why: String,
}

/// The first line that lets a file run outside a transaction.
pub(super) const NO_TRANSACTION: &str = "-- pricesync: no-transaction";

/// Returns everything in the statements that is refused.
///
/// `understood` says that a parser found the statements' borders. Where none did, words
/// that end a transaction are left to the server, which refuses them inside `DO`.
pub(super) fn refusals(
    statements: &[Statement],
    understood: bool,
    scope: Scope,
    transaction: Transaction,
) -> Vec<Refusal> {
    let mut found = Vec::new();
    for statement in statements {
        let refused = meta_command(statement)
            .or_else(|| {
                if understood {
                    transaction_control(statement)
                } else {
                    None
                }
            })
            .or_else(|| environment(statement))
            .or_else(|| copy_from_stdin(statement))
            .or_else(|| whole_server(statement))
            .or_else(|| {
                if scope == Scope::Tenant {
                    database_wide(statement)
                } else {
                    None
                }
            })
            .or_else(|| match transaction {
                Transaction::Inside => needs_no_transaction(statement),
                Transaction::Outside => None,
            });
        if let Some((token, why)) = refused {
            found.push(Refusal {
                at: token.start,
                why,
            });
        }
    }
    found
}

type Found<'a> = Option<(&'a Token, String)>;

fn first(statement: &Statement, why: impl Into<String>) -> Found<'_> {
    Some((statement.tokens.first()?, why.into()))
}

/// psql's own commands, and what newer dumps begin with.
fn meta_command(statement: &Statement) -> Found<'_> {
    let token = statement
        .tokens
        .iter()
        .find(|token| !token.is_literal && token.text.starts_with('\\'))?;
    Some((
        token,
        "a psql meta-command: the server knows only SQL; write the SQL out, or remove the line"
            .to_owned(),
    ))
}

fn transaction_control(statement: &Statement) -> Found<'_> {
    let controls: [&[&str]; 11] = [
        &["begin"],
        &["start", "transaction"],
        &["commit"],
        &["end"],
        &["rollback"],
        &["abort"],
        &["savepoint"],
        &["release"],
        &["prepare", "transaction"],
        &["commit", "prepared"],
        &["rollback", "prepared"],
    ];
    let words = controls.iter().find(|words| statement.begins(words))?;
    let name = words.join(" ").to_uppercase();
    first(
        statement,
        format!(
            "{name} is not a migration's business: pricesync runs the file in a transaction of its own; remove it"
        ),
    )
}

/// Whatever would make the following names mean something else.
fn environment(statement: &Statement) -> Found<'_> {
    let why = |what: &str| {
        format!(
            "{what} would make the rest run elsewhere or as somebody else; pricesync sets schema and role itself, remove it"
        )
    };
    if statement.begins(&["set"]) {
        let scoped = statement
            .tokens
            .get(1)
            .is_some_and(|token| token.is("local") || token.is("session"));
        let name = statement.tokens.get(if scoped { 2 } else { 1 })?;
        let authorization = scoped && name.is("authorization");
        return if name.is("search_path") || name.is("\"search_path\"") {
            first(statement, why("SET search_path"))
        } else if name.is("schema") {
            first(statement, why("SET SCHEMA"))
        } else if name.is("role") {
            first(statement, why("SET ROLE"))
        } else if name.is("session_authorization") || authorization {
            first(statement, why("SET SESSION AUTHORIZATION"))
        } else {
            None
        };
    }
    for word in ["reset", "discard"] {
        if statement.begins(&[word]) {
            return first(statement, why(&word.to_uppercase()));
        }
    }
    let call = statement.find(&["set_config", "("])?;
    let setting = statement.tokens.get(call + 2)?;
    let name = setting.text.trim_matches('\'').to_lowercase();
    if setting.is_literal
        && matches!(
            name.as_str(),
            "search_path" | "role" | "session_authorization"
        )
    {
        return Some((
            &statement.tokens[call],
            why(&format!("set_config('{name}')")),
        ));
    }
    None
}

fn copy_from_stdin(statement: &Statement) -> Found<'_> {
    if statement.begins(&["copy"]) && statement.find(&["from", "stdin"]).is_some() {
        return first(
            statement,
            "COPY FROM STDIN has no input in a migration; write INSERT instead",
        );
    }
    None
}

fn whole_server(statement: &Statement) -> Found<'_> {
    if statement.begins(&["alter", "system"]) {
        return first(
            statement,
            "ALTER SYSTEM changes the whole server; do it outside of migrations",
        );
    }
    for what in ["database", "tablespace"] {
        if statement.begins(&["create", what]) || statement.begins(&["drop", what]) {
            let name = what.to_uppercase();
            return first(
                statement,
                format!(
                    "creating or dropping a {name} changes the whole server; do it outside of migrations"
                ),
            );
        }
    }
    None
}

/// What belongs to the whole database does not belong to one tenant.
fn database_wide(statement: &Statement) -> Found<'_> {
    for verb in ["create", "drop", "alter"] {
        if statement.begins(&[verb, "extension"]) {
            return first(
                statement,
                "an extension belongs to the whole database: it would land in the first tenant's schema and be dropped with it; move it to migrations/shared",
            );
        }
        if statement.begins(&[verb, "schema"]) {
            return first(
                statement,
                "a tenant's migration works inside its schema; create-tenant, rename-tenant and drop-schema work on schemas",
            );
        }
    }
    for what in [
        "role",
        "user",
        "group",
        "database",
        "publication",
        "subscription",
        "server",
        "language",
    ] {
        if ["create", "alter", "drop"]
            .iter()
            .any(|verb| statement.begins(&[verb, what]))
        {
            return first(
                statement,
                format!("a {what} belongs to more than one tenant; move it to migrations/shared"),
            );
        }
    }
    foreign_name(statement)
}

/// The name of what is created, altered or dropped, when it is said to be in some schema:
/// that cannot be the tenant's, whose name differs from tenant to tenant.
///
/// The guard sees most of these when they run; not functions and domains, which take no lock
/// that tells their schema.
fn foreign_name(statement: &Statement) -> Found<'_> {
    const BEFORE_THE_NAME: [&str; 38] = [
        "or",
        "replace",
        "temp",
        "temporary",
        "unlogged",
        "unique",
        "materialized",
        "recursive",
        "global",
        "local",
        "foreign",
        "constraint",
        "if",
        "not",
        "exists",
        "only",
        "concurrently",
        "table",
        "view",
        "index",
        "sequence",
        "function",
        "procedure",
        "routine",
        "aggregate",
        "type",
        "domain",
        "operator",
        "collation",
        "conversion",
        "statistics",
        "text",
        "search",
        "configuration",
        "dictionary",
        "class",
        "family",
        "cast",
    ];
    if !["create", "alter", "drop"]
        .iter()
        .any(|verb| statement.begins(&[verb]))
    {
        return None;
    }
    let is_before = |token: &&Token| BEFORE_THE_NAME.iter().any(|word| token.is(word));
    let at = 1 + statement
        .tokens
        .iter()
        .skip(1)
        .take_while(is_before)
        .count();
    let (name, dot) = (statement.tokens.get(at)?, statement.tokens.get(at + 1)?);
    if !dot.is(".") || name.is("pg_temp") {
        return None;
    }
    let schema = name.text.trim_matches('"');
    Some((
        name,
        format!(
            "names the schema '{schema}'; write the bare name, it is looked up in the tenant's own schema first"
        ),
    ))
}

/// What the server refuses inside a transaction block (25001).
fn needs_no_transaction(statement: &Statement) -> Found<'_> {
    let what = if statement.begins(&["create", "index", "concurrently"])
        || statement.begins(&["create", "unique", "index", "concurrently"])
    {
        "CREATE INDEX CONCURRENTLY"
    } else if statement.begins(&["drop", "index", "concurrently"]) {
        "DROP INDEX CONCURRENTLY"
    } else if statement.begins(&["reindex"])
        && ["concurrently", "schema", "database", "system"]
            .iter()
            .any(|word| statement.has(word))
    {
        "REINDEX of that kind"
    } else if statement.begins(&["vacuum"]) {
        "VACUUM"
    } else if statement.begins(&["cluster"]) && statement.tokens.len() == 1 {
        "CLUSTER without a table"
    } else if statement.begins(&["alter", "table"])
        && statement.find(&["detach", "partition"]).is_some()
        && statement.has("concurrently")
    {
        "DETACH PARTITION CONCURRENTLY"
    } else {
        return None;
    };
    first(
        statement,
        format!(
            "{what} cannot run inside a transaction; put '{NO_TRANSACTION}' on the first line of the file"
        ),
    )
}
