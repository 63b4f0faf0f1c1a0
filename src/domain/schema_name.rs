//! A validated schema name, and the only way to write one into SQL.

use std::borrow::Cow;
use std::fmt;

/// `PostgreSQL` cuts identifiers to this many bytes without an error
/// (`NAMEDATALEN - 1`, manual section 4.1.1), so longer ones are refused here.
pub const MAX_IDENTIFIER_BYTES: usize = 63;

/// The schema in which pricesync keeps its own bookkeeping; never a tenant.
pub const BOOKKEEPING_SCHEMA: &str = "pricesync";

/// What the name of a schema in the trash begins with; the number of its record follows.
pub const TRASH_PREFIX: &str = "pricesync_trash_";

/// What the name of a schema begins with that is being dropped in pieces; the id of its
/// tenant's row follows, so that nothing else is needed to find it again.
pub const DROPPING_PREFIX: &str = "pricesync_dropping_";

/// The name of a tenant's schema or of `public`.
///
/// It is not empty, has at most [`MAX_IDENTIFIER_BYTES`] bytes, holds no control
/// character and is none of the server's or pricesync's own schemas. `Display` writes it
/// bare, for messages; only [`SchemaName::quoted`] may be written into SQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaName(Cow<'static, str>);

/// Why a text is not a tenant's schema name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaNameError {
    /// The text is empty.
    Empty,
    /// The text is longer than `PostgreSQL` keeps; holds its length in bytes.
    TooLong(String, usize),
    /// The text holds a control character (a NUL ends a C string, an escape moves the cursor).
    ControlCharacter(String),
    /// The name is reserved by the server, for shared tables or by pricesync.
    Reserved(String),
}

impl SchemaName {
    /// Returns the name of a tenant's schema.
    ///
    /// # Errors
    ///
    /// One [`SchemaNameError`] for each rule; `public`, `pg_*` (in any case),
    /// `information_schema`, `pricesync` and the names of dropped schemas are reserved.
    pub fn parse(text: &str) -> Result<Self, SchemaNameError> {
        if text.is_empty() {
            return Err(SchemaNameError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(SchemaNameError::ControlCharacter(text.to_owned()));
        }
        if text.len() > MAX_IDENTIFIER_BYTES {
            return Err(SchemaNameError::TooLong(text.to_owned(), text.len()));
        }
        let folded = text.to_lowercase();
        if folded.starts_with("pg_")
            || folded.starts_with(TRASH_PREFIX)
            || folded.starts_with(DROPPING_PREFIX)
            || matches!(
                folded.as_str(),
                // The server takes the last for the role's name wherever it stands in a search_path.
                "public" | "information_schema" | BOOKKEEPING_SCHEMA | "$user"
            )
        {
            return Err(SchemaNameError::Reserved(text.to_owned()));
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }

    /// Returns `public`, the schema of the shared tables.
    #[must_use]
    pub const fn public() -> Self {
        Self(Cow::Borrowed("public"))
    }

    /// Returns the schema in which pricesync keeps its own tables.
    #[must_use]
    pub const fn bookkeeping() -> Self {
        Self(Cow::Borrowed(BOOKKEEPING_SCHEMA))
    }

    /// Returns the name under which a schema lies in the trash.
    #[must_use]
    pub fn trashed(record: i64) -> Self {
        Self(Cow::Owned(format!("{TRASH_PREFIX}{record}")))
    }

    /// Returns the name under which a schema is dropped in pieces.
    #[must_use]
    pub fn dropping(tenant: i64) -> Self {
        Self(Cow::Owned(format!("{DROPPING_PREFIX}{tenant}")))
    }

    /// Returns whether this is the schema of the shared tables.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.0 == "public"
    }

    /// Returns the bare text, for comparisons and bound parameters; never for SQL text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns an adaptor that displays the name as an SQL identifier in double quotes.
    #[must_use]
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
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self(name)
    }
}

impl fmt::Display for QuotedIdentifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl fmt::Display for SchemaNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a schema name may not be empty"),
            Self::TooLong(name, bytes) => write!(
                f,
                "schema name '{name}' has {bytes} bytes; PostgreSQL keeps {MAX_IDENTIFIER_BYTES}"
            ),
            Self::ControlCharacter(name) => {
                write!(f, "schema name '{}' holds a control character", name.escape_debug())
            }
            Self::Reserved(name) => write!(f, "schema name '{name}' is reserved"),
        }
    }
}

impl std::error::Error for SchemaNameError {}

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
        assert_eq!(
            SchemaName::parse(&"ü".repeat(32)),
            Err(SchemaNameError::TooLong("ü".repeat(32), 64))
        );
    }

    #[test]
    fn the_servers_names_and_ours_are_reserved_in_any_case() {
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
            assert_eq!(
                SchemaName::parse(name),
                Err(SchemaNameError::Reserved(name.to_owned())),
                "{name}"
            );
        }
        assert!(SchemaName::parse("publications").is_ok());
        assert!(SchemaName::parse("pricesync_saas").is_ok());
    }

    #[test]
    fn control_characters_are_refused() {
        assert!(matches!(SchemaName::parse("a\0b"), Err(SchemaNameError::ControlCharacter(_))));
        assert!(matches!(
            SchemaName::parse("a\u{1b}[2Jb"),
            Err(SchemaNameError::ControlCharacter(_))
        ));
    }
}
