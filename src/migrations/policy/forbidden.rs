//! What a statement in a migration may not do, because the engine could no longer promise
//! that a schema is wholly migrated or untouched.

use std::fmt;

use crate::domain::script::Scope;
use crate::migrations::sql::directives::{NO_TRANSACTION, Transaction};
use crate::migrations::sql::keywords::Words;
use crate::migrations::sql::lexer::Kind;

/// Why a statement is refused before any schema is touched. Holds the words of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It begins, ends or divides a transaction.
    TransactionControl(String),
    /// It changes where names are looked up.
    SearchPath(String),
    /// It changes who the session is.
    Role(String),
    /// It puts the session's settings back, the engine's own among them.
    SessionReset(String),
    /// It changes how quotes are read, in the middle of the file.
    StringSyntax(String),
    /// A command of psql, which the server does not know.
    MetaCommand(String),
    /// Its data would have to come from, or go to, the client.
    CopyThroughClient(String),
    /// It concerns the whole server.
    ServerWide(String),
    /// Extensions belong to the database, not to one tenant.
    ExtensionInTenant(String),
    /// Schemas are made and removed by pricesync's own commands.
    SchemaInTenant(String),
    /// What it defines belongs to more than one tenant: a role, a publication.
    SharedObjectInTenant(String),
    /// What it defines is said to be in some schema, which cannot be the tenant's own: that
    /// one has another name in every tenant.
    NamedSchemaInTenant(String),
    /// No tenant's file makes this table, and the shared set does: the server would find that one.
    SharedByBareName {
        /// The table or view.
        table: String,
        /// The script of the shared set.
        maker: String,
    },
    /// The server refuses it inside a transaction (SQLSTATE 25001).
    NeedsNoTransaction(String),
}

impl Refusal {
    /// Returns what to write instead.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::TransactionControl(_) => {
                "remove it: pricesync commits the file together with its history row"
            }
            Self::SearchPath(_) => {
                "remove it: pricesync sets search_path for each schema; a function may still carry its own SET clause"
            }
            Self::Role(_) => "remove it: connect as the role that shall own the objects",
            Self::SessionReset(_) => "remove it: use SET LOCAL for a setting that one file needs",
            Self::StringSyntax(_) => "remove it and write such strings as E'...'",
            Self::MetaCommand(_) => {
                "remove it: write SQL only; of a dump, keep the statements of one schema"
            }
            Self::CopyThroughClient(_) => "write the rows as INSERT, or load them after migrating",
            Self::ServerWide(_) => "do it outside of the migrations",
            Self::ExtensionInTenant(_) | Self::SharedObjectInTenant(_) => {
                "move it to a file in the shared set"
            }
            Self::SchemaInTenant(_) => {
                "use create-tenant or drop-schema; other schemas belong in the shared set"
            }
            Self::NamedSchemaInTenant(_) => {
                "write the bare name: it is looked up in the tenant's own schema first"
            }
            Self::SharedByBareName { .. } => {
                "move it to the shared set; or where each tenant has such a table of its own, say so in a tenant's file: CREATE TABLE IF NOT EXISTS"
            }
            Self::NeedsNoTransaction(_) => {
                "make the first line of the file: -- pricesync: no-transaction"
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TransactionControl(words) => {
                write!(
                    f,
                    "{words} is not allowed in a migration: it would leave the transaction that holds the file"
                )
            }
            Self::SearchPath(words) => {
                write!(
                    f,
                    "{words} is not allowed in a migration: what follows would reach another schema"
                )
            }
            Self::Role(words) => {
                write!(
                    f,
                    "{words} is not allowed in a migration: what follows would run as another role"
                )
            }
            Self::SessionReset(words) => {
                write!(
                    f,
                    "{words} is not allowed in a migration: it would undo the settings that keep the file in its schema"
                )
            }
            Self::StringSyntax(words) => {
                write!(
                    f,
                    "{words} is not allowed in a migration: it changes how quotes are read"
                )
            }
            Self::MetaCommand(words) => write!(f, "psql meta-command {words} is not SQL"),
            Self::CopyThroughClient(words) => {
                write!(
                    f,
                    "{words} is not allowed in a migration: its data would pass through the client"
                )
            }
            Self::ServerWide(words) => {
                write!(
                    f,
                    "{words} is not allowed in a migration: it concerns the whole server"
                )
            }
            Self::ExtensionInTenant(words) => {
                write!(
                    f,
                    "{words} is not allowed in the tenant set: an extension exists once in a database"
                )
            }
            Self::SchemaInTenant(words) => {
                write!(
                    f,
                    "{words} is not allowed in the tenant set: the file runs once for every tenant"
                )
            }
            Self::SharedObjectInTenant(words) => {
                write!(
                    f,
                    "{words} is not allowed in the tenant set: it belongs to more than one tenant"
                )
            }
            Self::NamedSchemaInTenant(schema) => {
                write!(
                    f,
                    "the tenant set may not change anything in a schema by name, here '{schema}'"
                )
            }
            Self::SharedByBareName { table, maker } => {
                write!(
                    f,
                    "'{table}' is made by {maker} of the shared set and by no tenant's file, so this would change public"
                )
            }
            Self::NeedsNoTransaction(words) => {
                write!(
                    f,
                    "{words} cannot run inside a transaction, and the file lacks the line '{NO_TRANSACTION}'"
                )
            }
        }
    }
}

/// Returns why a statement is refused, or `None`. Literals and bodies are not looked into:
/// what they do is the server's to check when they run.
pub(crate) fn judge(words: Words<'_>, scope: Scope, transaction: Transaction) -> Option<Refusal> {
    let first = words.raw(0).to_ascii_uppercase();
    match first.as_str() {
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE"
        | "PREPARE" => transaction_control(words, first),
        "SET" => setting(words),
        "RESET" | "DISCARD" => Some(Refusal::SessionReset(named(words, 2))),
        "COPY" => copy(words, scope),
        "GRANT" | "REVOKE" if scope == Scope::Tenant => privileges(words, &first),
        "REASSIGN" | "LOAD" if scope == Scope::Tenant => {
            Some(Refusal::SharedObjectInTenant(named(words, 2)))
        }
        "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE" | "MERGE" | "LOCK"
            if scope == Scope::Tenant =>
        {
            written(words).or_else(|| set_config(words))
        }
        "COMMENT" | "SECURITY" if scope == Scope::Tenant => described(words),
        "CREATE" | "DROP" | "ALTER" => {
            definition(words, scope).or_else(|| outside_only(words, transaction))
        }
        "VACUUM" | "CLUSTER" | "REINDEX" => outside_only(words, transaction),
        _ => set_config(words),
    }
}

fn transaction_control(words: Words<'_>, first: String) -> Option<Refusal> {
    let second = ["TRANSACTION", "PREPARED"]
        .into_iter()
        .find(|word| words.is(1, word));
    match (first.as_str(), second) {
        ("PREPARE", None) => None,
        ("BEGIN" | "END", Some("TRANSACTION")) | (_, None) => {
            Some(Refusal::TransactionControl(first))
        }
        (_, Some(second)) => Some(Refusal::TransactionControl(format!("{first} {second}"))),
    }
}

fn setting(words: Words<'_>) -> Option<Refusal> {
    // SESSION is a word of its own in SET SESSION AUTHORIZATION.
    let name = if words.is_any(1, &["local", "session"]) && !words.is(2, "authorization") {
        2
    } else {
        1
    };
    let said = || {
        let said: Vec<_> = (0..=name)
            .map(|place| words.raw(place))
            .map(shouted)
            .collect();
        said.join(" ")
    };
    if words.is(name, "session") && words.is(name + 1, "authorization") {
        return Some(Refusal::Role("SET SESSION AUTHORIZATION".to_owned()));
    }
    match words.identifier(name)?.to_lowercase().as_str() {
        // A name with a dot behind it is an application's own setting.
        _ if words.raw(name + 1) == "." => None,
        "search_path" | "schema" => Some(Refusal::SearchPath(said())),
        "role" | "session_authorization" => Some(Refusal::Role(said())),
        "standard_conforming_strings" => {
            let value = words.raw(name + 2).trim_matches('\'').to_lowercase();
            let on = matches!(value.as_str(), "on" | "true" | "yes" | "1" | "default");
            (!on).then(|| Refusal::StringSyntax(format!("{} = {value}", said())))
        }
        _ => None,
    }
}

/// The parts of a statement's name that `SET` may be said of keep their case; key words are shouted.
fn shouted(word: &str) -> String {
    if ["set", "local", "session", "schema", "role"]
        .iter()
        .any(|key| word.eq_ignore_ascii_case(key))
    {
        word.to_ascii_uppercase()
    } else {
        word.to_owned()
    }
}

fn set_config(words: Words<'_>) -> Option<Refusal> {
    words.places("set_config").find_map(|place| {
        let called = words.kind(place + 1) == Some(Kind::Open);
        let setting = words.raw(place + 2).trim_matches('\'').to_lowercase();
        let said = || format!("set_config('{setting}', ...)");
        match setting.as_str() {
            _ if !called => None,
            "search_path" => Some(Refusal::SearchPath(said())),
            "role" | "session_authorization" => Some(Refusal::Role(said())),
            _ => None,
        }
    })
}

/// What a `GRANT` or `REVOKE` is about, if that cannot be the tenant's: a role, the database, or
/// something in a schema by name. A bare name is looked up in the tenant's schema first.
fn privileges(words: Words<'_>, first: &str) -> Option<Refusal> {
    let mut depth = 0_usize;
    let mut on = None;
    for place in 1..words.len() {
        match words.kind(place) {
            Some(Kind::Open) => depth += 1,
            Some(Kind::Close) => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            _ if on.is_none() && words.is(place, "on") => on = Some(place),
            _ if on.is_some() && words.is_any(place, &["to", "from"]) => break,
            _ if on.is_some() && words.raw(place) == "." && words.raw(place - 2) != "." => {
                let schema = words.identifier(place - 1)?;
                if schema != "pg_temp" {
                    return Some(Refusal::NamedSchemaInTenant(schema));
                }
            }
            _ => {}
        }
    }
    let Some(on) = on else {
        return Some(Refusal::SharedObjectInTenant(format!("{first} of a role")));
    };
    if words.is_any(
        on + 1,
        &[
            "database",
            "language",
            "large",
            "foreign",
            "tablespace",
            "parameter",
        ],
    ) {
        let kind = words.raw(on + 1).to_ascii_uppercase();
        return Some(Refusal::SharedObjectInTenant(format!("{first} ON {kind}")));
    }
    if words.is(on + 1, "schema") {
        return words.identifier(on + 2).map(Refusal::NamedSchemaInTenant);
    }
    (words.is(on + 1, "all") && words.is(on + 3, "in") && words.is(on + 4, "schema"))
        .then(|| words.identifier(on + 5).map(Refusal::NamedSchemaInTenant))
        .flatten()
}

/// The schema in front of the table whose rows are changed, or which is locked.
fn written(words: Words<'_>) -> Option<Refusal> {
    let name =
        (1..words.len()).find(|&place| !words.is_any(place, &["into", "from", "table", "only"]))?;
    let schema = words.identifier(name)?;
    (words.raw(name + 1) == "." && schema != "pg_temp")
        .then_some(Refusal::NamedSchemaInTenant(schema))
}

/// `COMMENT ON` and `SECURITY LABEL ON` what belongs to more than one tenant.
fn described(words: Words<'_>) -> Option<Refusal> {
    let on = words.places("on").next()?;
    words
        .is_any(
            on + 1,
            &[
                "database",
                "role",
                "tablespace",
                "extension",
                "language",
                "publication",
                "server",
                "schema",
            ],
        )
        .then(|| {
            let kind = words.raw(on + 1).to_ascii_uppercase();
            Refusal::SharedObjectInTenant(format!("{} ON {kind}", named(words, 1)))
        })
}

fn copy(words: Words<'_>, scope: Scope) -> Option<Refusal> {
    if scope == Scope::Tenant
        && words
            .places("program")
            .any(|place| words.is_any(place - 1, &["to", "from"]))
    {
        return Some(Refusal::ServerWide("COPY with a PROGRAM".to_owned()));
    }
    [("from", "stdin"), ("to", "stdout")]
        .into_iter()
        .find(|(direction, client)| {
            words
                .places(client)
                .any(|place| place > 0 && words.is(place - 1, direction))
        })
        .map(|(direction, client)| {
            Refusal::CopyThroughClient(format!("COPY {direction} {client}").to_uppercase())
        })
}

fn definition(words: Words<'_>, scope: Scope) -> Option<Refusal> {
    let creates_or_drops = words.is_any(0, &["create", "drop"]);
    match words.raw(1).to_ascii_uppercase().as_str() {
        "DATABASE" | "TABLESPACE" if creates_or_drops => Some(Refusal::ServerWide(named(words, 2))),
        "SYSTEM" if words.is(0, "alter") => Some(Refusal::ServerWide(named(words, 2))),
        "EXTENSION" if scope == Scope::Tenant => Some(Refusal::ExtensionInTenant(named(words, 2))),
        "SCHEMA" if scope == Scope::Tenant => Some(Refusal::SchemaInTenant(named(words, 2))),
        "OWNED" if scope == Scope::Tenant => Some(Refusal::SharedObjectInTenant(named(words, 2))),
        "DEFAULT" if scope == Scope::Tenant && words.is(2, "privileges") => {
            Some(Refusal::SharedObjectInTenant(named(words, 3)))
        }
        "EVENT" | "ACCESS" if scope == Scope::Tenant => {
            Some(Refusal::SharedObjectInTenant(named(words, 3)))
        }
        "FOREIGN" if scope == Scope::Tenant && words.is(2, "data") => {
            Some(Refusal::SharedObjectInTenant(named(words, 4)))
        }
        "ROLE" | "USER" | "GROUP" | "DATABASE" | "PUBLICATION" | "SERVER" | "LANGUAGE"
            if scope == Scope::Tenant && !words.is(2, "mapping") =>
        {
            Some(Refusal::SharedObjectInTenant(named(words, 2)))
        }
        _ if scope == Scope::Tenant => named_schema(words),
        _ => None,
    }
}

/// The schema that is written in front of the name of what is created, altered or dropped.
///
/// The engine's guard sees most of these when they run; functions and domains take no lock
/// that would tell their schema.
fn named_schema(words: Words<'_>) -> Option<Refusal> {
    const BEFORE_THE_NAME: [&str; 37] = [
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
        "constraint",
    ];
    let name = (1..words.len()).find(|&place| !words.is_any(place, &BEFORE_THE_NAME))?;
    let schema = words.identifier(name)?;
    (words.raw(name + 1) == "." && schema != "pg_temp")
        .then_some(Refusal::NamedSchemaInTenant(schema))
}

/// The statements that call `PreventInTransactionBlock` in the server, as far as their
/// words show it. `CREATE SUBSCRIPTION` may be told not to; `ALTER TYPE ... ADD VALUE` and
/// `REFRESH MATERIALIZED VIEW CONCURRENTLY` run in a transaction.
fn outside_only(words: Words<'_>, transaction: Transaction) -> Option<Refusal> {
    if transaction == Transaction::Outside {
        return None;
    }
    let said = if words.is(0, "vacuum") {
        "VACUUM"
    } else if words.is(0, "cluster") {
        let table = words.options();
        let table = table + usize::from(words.is(table, "verbose"));
        if table < words.len() {
            return None;
        }
        "CLUSTER without a table"
    } else if words.reindexes_concurrently() {
        "REINDEX CONCURRENTLY"
    } else if words.is(0, "reindex") {
        let kind = words.options();
        if !words.is_any(kind, &["schema", "database", "system"]) {
            return None;
        }
        return Some(Refusal::NeedsNoTransaction(format!(
            "REINDEX {}",
            words.raw(kind).to_ascii_uppercase()
        )));
    } else if words.starts_with(&["create", "index", "concurrently"])
        || words.starts_with(&["create", "unique", "index", "concurrently"])
    {
        "CREATE INDEX CONCURRENTLY"
    } else if words.starts_with(&["drop", "index", "concurrently"]) {
        "DROP INDEX CONCURRENTLY"
    } else if words.starts_with(&["alter", "table"])
        && words
            .places("detach")
            .any(|place| words.is(place + 1, "partition"))
        && words.is(words.len() - 1, "concurrently")
    {
        "ALTER TABLE DETACH PARTITION CONCURRENTLY"
    } else if words.starts_with(&["create", "subscription"])
        && words.places("create_slot").next().is_none()
        && words.places("connect").next().is_none()
    {
        "CREATE SUBSCRIPTION"
    } else {
        return None;
    };
    Some(Refusal::NeedsNoTransaction(said.to_owned()))
}

fn named(words: Words<'_>, count: usize) -> String {
    let said: Vec<_> = (0..count.min(words.len()))
        .map(|place| words.raw(place).to_ascii_uppercase())
        .collect();
    said.join(" ")
}
