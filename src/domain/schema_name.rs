//! A validated schema name, and the only way to write one into SQL.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// `PostgreSQL` cuts identifiers to this many bytes without an error
/// (`NAMEDATALEN - 1`, manual section 4.1.1), so longer ones are refused here.
pub const MAX_IDENTIFIER_BYTES: usize = 63;

/// The schema of pricesync's own tables; never a tenant.
pub const BOOKKEEPING_SCHEMA: &str = "pricesync";

/// The prefix of a schema in the trash; the number of its record follows.
pub const TRASH_PREFIX: &str = "pricesync_trash_";

/// The prefix of a schema that is being dropped in several transactions; the id of its tenant
/// follows, or a digest of it, which is enough to find it again.
pub const DROPPING_PREFIX: &str = "pricesync_dropping_";

/// The name of a tenant's schema or of `public`.
///
/// It is not empty, has at most [`MAX_IDENTIFIER_BYTES`] bytes, holds no control
/// character and is not a schema of the server or of pricesync. `Display` writes it
/// bare, for messages; only [`SchemaName::quoted`] may be written into SQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaName(Cow<'static, str>);

/// Why a text is not a valid name of a schema, a tenant or a host, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

impl NameError {
    /// Returns an error with this message, which escapes the name where that may hold any character.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl SchemaName {
    /// Returns the name of a tenant's schema.
    ///
    /// # Errors
    ///
    /// [`NameError`] for the first rule that the text breaks; `public`, `pg_*` (in any case),
    /// `information_schema`, `pricesync` and the names of dropped schemas are reserved.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::new("a schema name may not be empty"));
        }
        if text.chars().any(char::is_control) {
            let name = text.escape_debug();
            return Err(NameError(format!("schema name '{name}' holds a control character")));
        }
        let bytes = text.len();
        if bytes > MAX_IDENTIFIER_BYTES {
            return Err(NameError(format!(
                "schema name '{text}' has {bytes} bytes; PostgreSQL keeps {MAX_IDENTIFIER_BYTES}"
            )));
        }
        let folded = text.to_lowercase();
        if folded.starts_with("pg_")
            || folded.starts_with(TRASH_PREFIX)
            || folded.starts_with(DROPPING_PREFIX)
            || matches!(
                folded.as_str(),
                // The server replaces the last by the role's name in a search_path.
                "public" | "information_schema" | BOOKKEEPING_SCHEMA | "$user"
            )
        {
            return Err(NameError(format!("schema name '{text}' is reserved")));
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }

    /// Returns `public`, the schema of the shared tables.
    pub const fn public() -> Self {
        Self(Cow::Borrowed("public"))
    }

    /// Returns the schema of pricesync's own tables.
    pub const fn bookkeeping() -> Self {
        Self(Cow::Borrowed(BOOKKEEPING_SCHEMA))
    }

    /// Returns the name of a schema in the trash.
    pub fn trashed(record: i64) -> Self {
        Self(Cow::Owned(format!("{TRASH_PREFIX}{record}")))
    }

    /// Returns the name of a schema that is being dropped in several transactions: the prefix and the
    /// tenant's id, or the first 160 bits of its SHA-256 where the id is longer than 44 bytes or not
    /// made of `A-Z`, `a-z`, `0-9`, `_` and `-`. `catalog_sql::dropping` is the same in SQL.
    pub fn dropping(tenant: &str) -> Self {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=44).contains(&tenant.len()) && tenant.bytes().all(is_plain) {
            return Self(Cow::Owned(format!("{DROPPING_PREFIX}{tenant}")));
        }
        let mut name = DROPPING_PREFIX.to_owned();
        for byte in &Sha256::digest(tenant)[..20] {
            let _ = write!(name, "{byte:02x}");
        }
        Self(Cow::Owned(name))
    }

    /// Returns whether this is the schema of the shared tables.
    pub fn is_public(&self) -> bool {
        self.0 == "public"
    }

    /// Returns the bare text, for comparisons and bound parameters; never for SQL text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns an adaptor that displays the name as an SQL identifier in double quotes.
    pub fn quoted(&self) -> QuotedIdentifier<'_> {
        QuotedIdentifier(&self.0)
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Displays an identifier in double quotes with inner quotes doubled (manual section 4.1.1).
#[derive(Clone, Copy, Debug)]
pub struct QuotedIdentifier<'a>(&'a str);

impl<'a> QuotedIdentifier<'a> {
    /// Quotes any identifier that is not a schema name: a table, a column, a role.
    pub const fn new(name: &'a str) -> Self {
        Self(name)
    }
}

impl fmt::Display for QuotedIdentifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_with_inner_quotes_doubled() {
        let name = SchemaName::parse("x\"; drop table victim; --").expect("legal, if odd");
        assert_eq!(name.quoted().to_string(), "\"x\"\"; drop table victim; --\"");
        assert_eq!(name.to_string(), "x\"; drop table victim; --");
    }

    #[test]
    fn length_is_counted_in_bytes_not_in_characters() {
        assert!(SchemaName::parse(&"a".repeat(63)).is_ok());
        let error = SchemaName::parse(&"ü".repeat(32)).expect_err("64 bytes").to_string();
        assert!(error.ends_with("has 64 bytes; PostgreSQL keeps 63"), "{error}");
    }

    #[test]
    fn names_of_the_server_and_of_pricesync_are_reserved() {
        for name in [
            "public",
            "Public",
            "pg_temp",
            "PG_x",
            "information_schema",
            "pricesync",
            "pricesync_trash_1",
            "Pricesync_Dropping_7",
            "$user",
        ] {
            let error = SchemaName::parse(name).expect_err(name).to_string();
            assert_eq!(error, format!("schema name '{name}' is reserved"));
        }
        assert!(SchemaName::parse("publications").is_ok());
        assert!(SchemaName::parse("pricesync_saas").is_ok());
    }

    #[test]
    fn control_characters_are_refused() {
        let error = SchemaName::parse("a\u{1b}[2Jb").expect_err("an escape").to_string();
        assert_eq!(error, r"schema name 'a\u{1b}[2Jb' holds a control character");
        assert!(SchemaName::parse("a\0b").is_err());
    }
}
