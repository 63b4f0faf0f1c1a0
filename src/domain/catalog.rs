//! The catalog of tenants as a trait, and why an operation on it fails.

use std::fmt;

use super::schema_name::SchemaName;
use super::tenant::{Hostname, Tenant, TenantList};

/// A value that only one tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The slug.
    Slug,
    /// The schema: it exists, or another tenant's row names it.
    Schema,
    /// A host.
    Hostname,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slug => "slug",
            Self::Schema => "schema",
            Self::Hostname => "host",
        })
    }
}

/// An object outside a schema that would be dropped with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// The server's description, such as `view public.report`.
    pub description: String,
    /// The extension's name, where the object is an extension in the schema.
    pub extension: Option<String>,
}

/// Why an operation on the catalog or on a tenant failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// No tenant has this slug, schema or host.
    #[error("no tenant has the slug, schema or host '{0}'")]
    NotFound(String),
    /// Another tenant or schema has a value that must be unique.
    #[error("{what} '{value}' is taken by {owner}")]
    AlreadyExists {
        /// The kind of value.
        what: Taken,
        /// The value.
        value: String,
        /// Who has it, such as `tenant 'acme'`.
        owner: String,
    },
    /// A table of the catalog does not exist; holds the server's message.
    #[error("tenant tables not found: {0}")]
    TablesMissing(String),
    /// A column of the catalog does not exist; holds the server's message.
    #[error("column of the tenant tables not found: {0}")]
    ColumnMissing(String),
    /// A column of the tenant table has neither a value nor a default.
    #[error("{message}")]
    ColumnRequired {
        /// The column.
        column: String,
        /// The server's message.
        message: String,
    },
    /// A constraint or a type rejects a tenant's row or hosts; holds the server's message.
    #[error("{0}")]
    RowRejected(String),
    /// A name matches several tenants; holds the name and their schemas.
    #[error("'{0}' matches {count} tenants, with the schemas {schemas}", count = .1.len(), schemas = .1.join(", "))]
    Ambiguous(String, Vec<String>),
    /// Objects outside the schema depend on it.
    #[error("objects outside the schema depend on it: {}", .0.iter().map(|it| &*it.description).collect::<Vec<_>>().join(", "))]
    Dependents(Vec<Dependent>),
    /// Rows refer to the tenant's row; holds their tables, each with its foreign key.
    #[error("rows refer to the tenant's row, in {}", .0.join(", "))]
    ReferencedBy(Vec<String>),
    /// Deleting the tenant's row would take more locks than the lock table holds.
    #[error(
        "cannot delete the tenant's row: the tables with a foreign key to it need {needed} locks at once, \
             and the server's lock table holds {available}"
    )]
    TooManyLocks {
        /// How many locks it takes.
        needed: u64,
        /// How many the lock table holds.
        available: u64,
    },
    /// The lock table of the server is full; holds the server's message.
    #[error("{0}")]
    LockTableFull(String),
    /// Objects contain the schema's name as text, so a rename would break them; holds the schema and
    /// the objects.
    #[error("schema name '{0}' is referenced in {objects}", objects = .1.join(", "))]
    NameReferenced(SchemaName, Vec<String>),
    /// The schema was created after it had been found missing.
    #[error("schema '{0}' was created meanwhile")]
    SchemaAppeared(SchemaName),
    /// A part of the tenant's schema is dropped already; holds the slug.
    #[error("tenant '{0}' is partly dropped: its drop has not finished")]
    PartlyDropped(String),
    /// The schema does not exist.
    #[error("schema '{0}' does not exist")]
    SchemaMissing(SchemaName),
    /// The schema to adopt has no history and is not empty; holds the number of its objects.
    #[error(
        "schema '{0}' has no history and is not empty ({1} objects), so every migration would run \
             on existing objects"
    )]
    NoHistory(SchemaName, u64),
    /// The role lacks a privilege; holds the server's message.
    #[error("{0}")]
    PermissionDenied(String),
    /// There is no connection to the server; a retry may succeed.
    #[error(transparent)]
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    /// The server failed in another way.
    #[error(transparent)]
    Database(Box<dyn std::error::Error + Send + Sync>),
}

/// Reads tenants and their hosts.
pub trait TenantCatalog: Send + Sync {
    /// Returns every tenant, ordered by slug.
    fn list(&self) -> impl Future<Output = Result<TenantList, CatalogError>> + Send;

    /// Returns every tenant without hosts and times, which is much faster.
    fn list_briefly(&self) -> impl Future<Output = Result<TenantList, CatalogError>> + Send {
        self.list()
    }

    /// Returns the tenant that has this host.
    fn resolve(&self, host: &Hostname)
    -> impl Future<Output = Result<Tenant, CatalogError>> + Send;
}
