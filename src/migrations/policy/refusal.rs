//! The reasons why SQL is rejected before it reaches a schema, as messages and hints.

use std::fmt;

use crate::migrations::sql::directives::NO_TRANSACTION;

/// Why a statement is rejected. Most variants hold the statement's leading keywords, such as
/// `SET ROLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Starts, ends or divides a transaction.
    TransactionControl(String),
    /// Changes the `search_path`.
    SearchPath(String),
    /// Changes the session's role.
    Role(String),
    /// Resets session settings, including those that pricesync relies on.
    SessionReset(String),
    /// Turns `standard_conforming_strings` off in the middle of the file.
    StringSyntax(String),
    /// A psql meta-command, which the server does not know.
    MetaCommand(String),
    /// `COPY FROM STDIN` or `TO STDOUT`, whose data the client would have to supply or take.
    CopyThroughClient(String),
    /// A comment, string or quoted identifier that the file does not close. Holds what it is.
    Unclosed(&'static str),
    /// Another tool's comment, after which come the statements that undo the file. Holds the comment.
    DownSection(String),
    /// Affects the whole server.
    ServerWide(String),
    /// Creates, alters or drops an extension in the tenant set; extensions belong to the database.
    ExtensionInTenant(String),
    /// Creates, alters or drops a schema in the tenant set.
    SchemaInTenant(String),
    /// Changes an object that tenants share, such as a role or a publication.
    SharedObjectInTenant(String),
    /// Changes an object of a schema that is named. A tenant's own schema has another name in
    /// every tenant, so the named one is never it. Holds the schema.
    NamedSchemaInTenant(String),
    /// Changes a table that only the shared set creates: the bare name would resolve to `public`.
    SharedByBareName {
        /// The table or view.
        table: String,
        /// The script of the shared set that creates it.
        created_by: String,
    },
    /// The server rejects the statement inside a transaction (SQLSTATE 25001).
    NeedsNoTransaction(String),
}

impl Refusal {
    /// Returns what to write instead.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::TransactionControl(_) => {
                "remove it: pricesync commits the file together with its history row"
            }
            Self::SearchPath(_) => {
                "remove it: pricesync sets search_path for each schema; a function may have a SET clause of its own"
            }
            Self::Role(_) => "remove it: connect as the role that should own the objects",
            Self::SessionReset(_) => "remove it: use SET LOCAL for a setting that one file needs",
            Self::StringSyntax(_) => "remove it and write such strings as E'...'",
            Self::MetaCommand(_) => {
                "remove it: write SQL only; of a dump, keep the statements of one schema"
            }
            Self::CopyThroughClient(_) => "write the rows as INSERT, or load them after migrating",
            Self::Unclosed(_) => "close it: the server would read to the end of the file",
            Self::DownSection(_) => {
                "remove it and all that follows: to undo a migration, write another one"
            }
            Self::ServerWide(_) => "run it outside of the migrations",
            Self::ExtensionInTenant(_) | Self::SharedObjectInTenant(_) => {
                "move it to a file in the shared set"
            }
            Self::SchemaInTenant(_) => {
                "use create-tenant or drop-schema; other schemas belong in the shared set"
            }
            Self::NamedSchemaInTenant(_) => {
                "write the bare name: the server looks it up in the tenant's own schema first"
            }
            Self::SharedByBareName { .. } => {
                "move it to the shared set; if each tenant has a table of that name, declare it in the tenant set: CREATE TABLE IF NOT EXISTS"
            }
            Self::NeedsNoTransaction(_) => {
                "make the first line of the file: -- pricesync: no-transaction"
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sql, container, reason) = match self {
            Self::TransactionControl(sql) => {
                (sql, "a migration", "it would end the transaction that applies the file")
            }
            Self::SearchPath(sql) => {
                (sql, "a migration", "later statements would run in another schema")
            }
            Self::Role(sql) => (sql, "a migration", "later statements would run as another role"),
            Self::SessionReset(sql) => {
                (sql, "a migration", "it would reset the settings that keep the file in its schema")
            }
            Self::StringSyntax(sql) => (sql, "a migration", "it changes how quotes are read"),
            Self::CopyThroughClient(sql) => {
                (sql, "a migration", "its data would pass through the client")
            }
            Self::ServerWide(sql) => (sql, "a migration", "it affects the whole server"),
            Self::ExtensionInTenant(sql) => {
                (sql, "the tenant set", "an extension exists once in a database")
            }
            Self::SchemaInTenant(sql) => {
                (sql, "the tenant set", "the file runs once for every tenant")
            }
            Self::SharedObjectInTenant(sql) => {
                (sql, "the tenant set", "it affects more than one tenant")
            }
            Self::MetaCommand(sql) => return write!(f, "psql meta-command {sql} is not SQL"),
            Self::Unclosed(what) => return write!(f, "the {what} that starts here is not closed"),
            Self::DownSection(comment) => {
                return write!(
                    f,
                    "'{comment}' starts the statements that undo this file, which would run too"
                );
            }
            Self::NamedSchemaInTenant(schema) => {
                return write!(
                    f,
                    "the tenant set must not change objects of a named schema, here '{schema}'"
                );
            }
            Self::SharedByBareName { table, created_by } => {
                return write!(
                    f,
                    "'{table}' is created by {created_by} of the shared set and by no file of the tenant set, so this would change public"
                );
            }
            Self::NeedsNoTransaction(sql) => {
                return write!(
                    f,
                    "{sql} cannot run inside a transaction, and the file lacks the line '{NO_TRANSACTION}'"
                );
            }
        };
        write!(f, "{sql} is not allowed in {container}: {reason}")
    }
}
