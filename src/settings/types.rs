//! The types of single settings.

use std::fmt;
use std::num::NonZeroUsize;

/// `run.jobs`: how many schemas are migrated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// Depends on the server's cores and free connections.
    Auto,
    /// This number.
    Fixed(NonZeroUsize),
}

/// `run.template`: whether an empty schema is created from a template or file by file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseTemplate {
    /// From a template, if there is one with the same result.
    Auto,
    /// Always file by file.
    Off,
}

/// `users.hasher`: how passwords are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hasher {
    /// Argon2id as a PHC string: `$argon2id$v=19$...`.
    Argon2id,
    /// Django's default, `pbkdf2_sha256$iterations$salt$hash`.
    Pbkdf2Sha256,
}

/// The table of users in a tenant's schema, and its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserColumns {
    /// The table's name in the tenant's schema.
    pub table: String,
    /// The login name.
    pub username: String,
    /// The hash of the password.
    pub password: String,
    /// The email address; the table need not have this and the following columns.
    pub email: String,
    /// Whether the user has all permissions.
    pub is_superuser: String,
    /// Whether the user can use the administration site.
    pub is_staff: String,
    /// Whether the user can log in.
    pub is_active: String,
    /// The time of creation.
    pub joined_at: String,
}

/// A table by schema and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name in that schema.
    pub table: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}
