//! The types of single settings.

use std::fmt;
use std::num::NonZeroUsize;

/// How many schemas are worked on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// As many as the server has use and room for.
    Auto,
    /// Exactly so many.
    Fixed(NonZeroUsize),
}

/// Whether empty schemas get the final shape at once or file by file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseTemplate {
    /// By a template, where there is one that makes the same.
    Auto,
    /// Always file by file.
    Off,
}

/// How passwords of users are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hasher {
    /// Argon2id as a PHC string: `$argon2id$v=19$...`.
    Argon2id,
    /// What Django makes and reads: `pbkdf2_sha256$iterations$salt$hash`.
    Pbkdf2Sha256,
}

/// Where the people of a tenant are: a table of its schema, and its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserColumns {
    /// The table's name in the tenant's schema.
    pub table: String,
    /// What they log in with.
    pub username: String,
    /// The password's hash.
    pub password: String,
    /// Where they get letters; the table need not have this and the following columns.
    pub email: String,
    /// Whether they may do everything.
    pub is_superuser: String,
    /// Whether they may enter the administration.
    pub is_staff: String,
    /// Whether they may log in.
    pub is_active: String,
    /// When they came.
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
