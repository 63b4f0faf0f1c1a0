//! The effects of a statement that rules check.

use crate::migrations::policy::timeouts::Timeout;
use crate::migrations::sql::relations::RelationName;

/// One effect of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    CreateTable {
        table: RelationName,
        if_not_exists: bool,
    },
    CreateType {
        name: String,
    },
    ForeignKey {
        to: RelationName,
    },
    /// `CHECK` in the `CREATE TABLE`.
    DeclareCheck {
        table: RelationName,
    },
    AttachPartition {
        table: RelationName,
        partition: RelationName,
    },
    AddEnumValue {
        to: RelationName,
        /// The literal as it is written.
        value: String,
    },
    /// A catalog is read without a condition on the schema.
    ReadCatalog {
        catalog: &'static str,
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
        kind: ConstraintKind,
        checks_rows: bool,
        name: Option<String>,
        /// The column of a `CHECK (column IS NOT NULL)`.
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
    CreateIndex {
        table: RelationName,
        concurrently: bool,
        if_not_exists: bool,
    },
    /// An index is dropped or rebuilt under a lock on its table.
    LockIndex {
        command: &'static str,
    },
    /// A materialized view is computed under a lock against its readers.
    Refresh {
        view: RelationName,
    },
    /// Dependent objects are dropped too.
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
    /// Any other change of a table that locks it.
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
        /// Whether the statement has no condition.
        all_rows: bool,
    },
    Function {
        name: String,
        body: String,
        sets_search_path: bool,
    },
    /// An object whose expressions the server evaluates with a `search_path` of its own.
    StoredExpression {
        object: &'static str,
        calls: Vec<String>,
    },
    /// A timeout gets no limit.
    SwitchOffTimeout {
        timeout: Timeout,
        /// Whether it is in the code of a `DO`, whose text a run does not change.
        in_code: bool,
    },
    /// The parser does not know the statement; only for the first of a file.
    NotParsed,
}

/// A column of `ADD COLUMN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddedColumn {
    pub(super) name: String,
    pub(super) value: ColumnValue,
    pub(super) not_null: bool,
    pub(super) if_not_exists: bool,
    /// A constraint of the column that reads every row.
    pub(super) constraint: Option<ConstraintKind>,
}

/// The value of a new column in existing rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ColumnValue {
    /// NULL.
    #[default]
    Null,
    /// One value for all rows, stored in the catalog.
    Constant,
    /// A value for each row, so every row is written. Holds the reason.
    PerRow(String),
    /// As `PerRow`, unless this function is declared stable or immutable.
    MaybePerRow(String),
}

/// A kind of constraint that can be checked against all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConstraintKind {
    Check,
    NotNull,
    ForeignKey,
    Unique,
    PrimaryKey,
    Exclude,
}

impl ConstraintKind {
    pub(super) const fn sql(self) -> &'static str {
        match self {
            Self::Check => "CHECK",
            Self::NotNull => "NOT NULL",
            Self::ForeignKey => "FOREIGN KEY",
            Self::Unique => "UNIQUE",
            Self::PrimaryKey => "PRIMARY KEY",
            Self::Exclude => "EXCLUDE",
        }
    }
}

impl Effect {
    /// Returns the table whose definition an effect changes, unless the effect drops it.
    pub(super) const fn altered(&self) -> Option<&RelationName> {
        match self {
            Self::AddColumn { table, .. }
            | Self::SetType { table, .. }
            | Self::SetNotNull { table, .. }
            | Self::AddConstraint { table, .. }
            | Self::Rewrite { table, .. }
            | Self::Rename { table, .. }
            | Self::AttachPartition { table, .. }
            | Self::Alter { table } => Some(table),
            _ => None,
        }
    }
}

/// Joins names by commas.
pub(super) fn listed(names: impl IntoIterator<Item = impl ToString>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    names.join(", ")
}
