//! What a statement does to whom, as far as the rules ask.

use crate::migrations::sql::keywords::Words;
use crate::migrations::sql::lexer::{Kind, Token, Tokens};

/// The name of a relation as the server folds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

/// One thing that a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    CreateTable {
        table: Name,
        if_not_exists: bool,
    },
    Key {
        to: Name,
    },
    AddColumn {
        table: Name,
        column: AddedColumn,
    },
    SetType {
        table: Name,
        column: String,
    },
    SetNotNull {
        table: Name,
        column: String,
    },
    AddConstraint {
        table: Name,
        kind: Checked,
        at_once: bool,
        name: Option<String>,
        /// The column that a `CHECK (column IS NOT NULL)` is about.
        not_null: Option<String>,
    },
    Validate {
        table: Name,
        constraint: String,
    },
    Rewrite {
        table: Name,
        by: &'static str,
    },
    Index {
        table: Name,
        concurrently: bool,
        if_not_exists: bool,
    },
    /// An index is dropped or built anew, under a lock against those who use its table.
    IndexLocked {
        command: &'static str,
    },
    /// A materialized view is computed while nobody may read it.
    Refresh {
        view: Name,
    },
    /// With something goes whatever depends on it.
    Cascade {
        kind: &'static str,
    },
    Remove {
        table: Name,
        what: String,
    },
    Rename {
        table: Name,
        what: String,
    },
    /// Any other change of a table that takes a lock against its users.
    Alter {
        table: Name,
    },
    Lock {
        tables: Vec<Name>,
    },
    Truncate {
        tables: Vec<Name>,
        cascade: bool,
    },
    VacuumFull {
        command: &'static str,
    },
    /// Rows are written.
    Write {
        table: Name,
        command: &'static str,
        /// Whether nothing says which.
        is_all: bool,
    },
    Function {
        name: String,
        body: String,
        pins_path: bool,
    },
    /// Something that the server keeps and computes in a `search_path` of its own.
    Kept {
        what: &'static str,
        calls: Vec<String>,
    },
}

/// A column that `ADD COLUMN` adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddedColumn {
    pub(super) name: String,
    pub(super) value: Value,
    pub(super) not_null: bool,
    pub(super) if_not_exists: bool,
    /// A constraint of the column that reads every row.
    pub(super) checked: Option<Checked>,
}

/// What the rows that are there get in a new column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Value {
    /// NULL.
    #[default]
    Nothing,
    /// One value for all, kept in the catalog.
    Constant,
    /// One value for each row, so every row is written. Holds by what.
    Each(String),
    /// As `Each`, unless this function is declared stable or immutable.
    Perhaps(String),
}

/// A constraint that can be checked against all rows, in the words of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Check,
    NotNull,
    Key,
    Unique,
    PrimaryKey,
    Exclude,
}

impl Name {
    /// Reads `schema.table`, with or without `ONLY`, `*` and parentheses around it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let tokens: Vec<Token> = Tokens::new(text)
            .filter(|token| {
                matches!(token.kind, Kind::Word | Kind::Quoted)
                    && !text[token.start..token.end].eq_ignore_ascii_case("only")
            })
            .collect();
        let words = Words::new(text, &tokens);
        let last = words.len().checked_sub(1)?;
        Some(Self {
            schema: last
                .checked_sub(1)
                .and_then(|place| words.identifier(place)),
            table: words.identifier(last)?,
        })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.table)
    }
}

impl Checked {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Check => "CHECK",
            Self::NotNull => "NOT NULL",
            Self::Key => "FOREIGN KEY",
            Self::Unique => "UNIQUE",
            Self::PrimaryKey => "PRIMARY KEY",
            Self::Exclude => "EXCLUDE",
        }
    }

    /// Returns whether an index is built, rather than the rows only read.
    pub(super) const fn builds_index(self) -> bool {
        matches!(self, Self::Unique | Self::PrimaryKey | Self::Exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_server_folds_them() {
        for (text, expected) in [
            ("Public.Plans", "public.plans"),
            ("ONLY (orders)", "orders"),
            ("\"Only\" *", "Only"),
            ("orders *", "orders"),
            ("\"a b\".\"C\"", "a b.C"),
        ] {
            assert_eq!(Name::read(text).unwrap().to_string(), expected, "{text}");
        }
        assert_eq!(Name::read(""), None);
    }
}
