//! What a statement does to whom, as far as the rules ask.

use crate::migrations::sql::relations::RelationName;

/// One thing that a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    CreateTable {
        table: RelationName,
        if_not_exists: bool,
    },
    Key {
        to: RelationName,
    },
    AddColumn {
        table: RelationName,
        column: AddedColumn,
    },
    SetType {
        table: RelationName,
        column: String,
    },
    SetNotNull {
        table: RelationName,
        column: String,
    },
    AddConstraint {
        table: RelationName,
        kind: Checked,
        at_once: bool,
        name: Option<String>,
        /// The column that a `CHECK (column IS NOT NULL)` is about.
        not_null: Option<String>,
    },
    Validate {
        table: RelationName,
        constraint: String,
    },
    Rewrite {
        table: RelationName,
        by: &'static str,
    },
    Index {
        table: RelationName,
        concurrently: bool,
        if_not_exists: bool,
    },
    /// An index is dropped or built anew, under a lock against those who use its table.
    IndexLocked {
        command: &'static str,
    },
    /// A materialized view is computed while nobody may read it.
    Refresh {
        view: RelationName,
    },
    /// With something goes whatever depends on it.
    Cascade {
        kind: &'static str,
    },
    Remove {
        table: RelationName,
        what: String,
    },
    Rename {
        table: RelationName,
        what: String,
    },
    /// Any other change of a table that takes a lock against its users.
    Alter {
        table: RelationName,
    },
    Lock {
        tables: Vec<RelationName>,
    },
    Truncate {
        tables: Vec<RelationName>,
        cascade: bool,
    },
    VacuumFull {
        command: &'static str,
    },
    /// Rows are written.
    Write {
        table: RelationName,
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
