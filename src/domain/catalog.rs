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

/// An object outside a schema that would be dropped with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// The server's description, such as `view public.report`.
    pub description: String,
    /// The extension's name, where the object is an extension in the schema.
    pub extension: Option<String>,
}

/// Why an operation on the catalog or on a tenant failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CatalogError {
    /// No tenant has this slug, schema or host.
    NotFound(String),
    /// Another tenant or schema has a value that must be unique.
    AlreadyExists {
        /// The kind of value.
        what: Taken,
        /// The value.
        value: String,
        /// Who has it, such as `tenant 'acme'`.
        owner: String,
    },
    /// A table of the catalog does not exist; holds the server's message.
    TablesMissing(String),
    /// A column of the catalog does not exist; holds the server's message.
    ColumnMissing(String),
    /// A column of the tenant table has neither a value nor a default.
    ColumnRequired {
        /// The column.
        column: String,
        /// The server's message.
        message: String,
    },
    /// A constraint or a type rejects a tenant's row or hosts; holds the server's message.
    RowRejected(String),
    /// The id of a tenant is not an integer.
    InvalidId {
        /// The id.
        id: String,
        /// The tenant's schema.
        schema: String,
    },
    /// A name matches several tenants; holds the name and their schemas.
    Ambiguous(String, Vec<String>),
    /// Objects outside the schema depend on it.
    Dependents(Vec<Dependent>),
    /// Rows refer to the tenant's row; holds their tables, each with its foreign key.
    ReferencedBy(Vec<String>),
    /// Deleting the tenant's row would take more locks than the lock table holds.
    TooManyLocks {
        /// How many locks it takes.
        needed: u64,
        /// How many the lock table holds.
        available: u64,
    },
    /// The lock table of the server is full; holds the server's message.
    LockTableFull(String),
    /// Objects contain the schema's name as text, so a rename would break them; holds the schema and
    /// the objects.
    NameReferenced(SchemaName, Vec<String>),
    /// The schema was created after it had been found missing.
    SchemaAppeared(SchemaName),
    /// A part of the tenant's schema is dropped already; holds the slug.
    PartlyDropped(String),
    /// The schema does not exist.
    SchemaMissing(SchemaName),
    /// The schema to adopt has no history and is not empty; holds the number of its objects.
    NoHistory(SchemaName, u64),
    /// The role lacks a privilege; holds the server's message.
    PermissionDenied(String),
    /// There is no connection to the server; a retry may succeed.
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    /// The server failed in another way.
    Database(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(name) => write!(f, "no tenant has the slug, schema or host '{name}'"),
            Self::AlreadyExists { what, value, owner } => {
                let what = match what {
                    Taken::Slug => "slug",
                    Taken::Schema => "schema",
                    Taken::Hostname => "host",
                };
                write!(f, "{what} '{value}' is taken by {owner}")
            }
            Self::TablesMissing(message) => write!(f, "tenant tables not found: {message}"),
            Self::ColumnMissing(message) => {
                write!(f, "column of the tenant tables not found: {message}")
            }
            Self::ColumnRequired { message, .. }
            | Self::RowRejected(message)
            | Self::LockTableFull(message)
            | Self::PermissionDenied(message) => f.write_str(message),
            Self::InvalidId { id, schema } => {
                write!(f, "invalid id '{id}' of the tenant with schema '{schema}': not an integer")
            }
            Self::Ambiguous(name, schemas) => write!(
                f,
                "'{name}' matches {} tenants, with the schemas {}",
                schemas.len(),
                schemas.join(", ")
            ),
            Self::Dependents(objects) => {
                let objects: Vec<&str> = objects.iter().map(|one| &*one.description).collect();
                write!(f, "objects outside the schema depend on it: {}", objects.join(", "))
            }
            Self::ReferencedBy(tables) => {
                write!(f, "rows refer to the tenant's row, in {}", tables.join(", "))
            }
            Self::TooManyLocks { needed, available } => write!(
                f,
                "cannot delete the tenant's row: the tables with a foreign key to it need {needed} locks at once, \
                 and the server's lock table holds {available}"
            ),
            Self::NameReferenced(schema, objects) => {
                write!(f, "schema name '{schema}' is referenced in {}", objects.join(", "))
            }
            Self::SchemaAppeared(schema) => {
                write!(f, "schema '{schema}' was created meanwhile")
            }
            Self::PartlyDropped(slug) => {
                write!(f, "tenant '{slug}' is partly dropped: its drop has not finished")
            }
            Self::NoHistory(schema, objects) => write!(
                f,
                "schema '{schema}' has no history and is not empty ({objects} objects), so every migration would run \
                 on existing objects"
            ),
            Self::SchemaMissing(schema) => write!(f, "schema '{schema}' does not exist"),
            Self::Unreachable(error) | Self::Database(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CatalogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(error) | Self::Database(error) => error.source(),
            _ => None,
        }
    }
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
