//! One file a rule: what it finds, why, and examples that are its tests and its documentation.
//!
//! May import: `effect`, `rule` and `transaction` of this room.
//! Start reading at: any rule; `docs/lint-rules.md` is generated from all of them.

macro_rules! rules {
    ($($variant:ident = $file:ident,)*) => {
        $(mod $file;)*

        /// A rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "each rule documents itself in its Definition")]
        pub enum Rule {
            $($variant,)*
        }

        impl Rule {
            /// Every rule, those whose cost grows with the number of tenants first.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the rule's texts and its check.
            pub const fn definition(self) -> &'static super::rule::Definition {
                match self {
                    $(Self::$variant => &$file::RULE,)*
                }
            }
        }
    };
}

rules! {
    FkToShared = fk_to_shared,
    AddColumnDefault = add_column_default,
    AlterColumnType = alter_column_type,
    OutsideSchema = outside_schema,
    CatalogWithoutSchema = catalog_without_schema,
    SearchPath17 = search_path_17,
    IfNotExists = if_not_exists,
    RewritesTable = rewrites_table,
    NotNullColumn = not_null_column,
    IndexWithoutConcurrently = index_without_concurrently,
    ConstraintScan = constraint_scan,
    SetNotNull = set_not_null,
    AttachPartition = attach_partition,
    EnumValue = enum_value,
    BreaksRunningCode = breaks_running_code,
    LockTable = lock_table,
    Truncate = truncate,
    VacuumFull = vacuum_full,
    UnboundedLock = unbounded_lock,
    SeveralLocks = several_locks,
    NotRead = not_read,
}

/// What rules import.
mod prelude {
    pub(super) use super::SEPARATE_FILE;
    pub(super) use crate::domain::script::Scope;
    pub(super) use crate::migrations::lint::effect::{ColumnValue, ConstraintKind, Effect, listed};
    pub(super) use crate::migrations::lint::rule::{Definition, Severity, Violation};
    pub(super) use crate::migrations::lint::transaction::{TransactionState, in_public};
    pub(super) use crate::migrations::policy::timeouts::{Timeout, UNBOUNDED_LOCK};
    pub(super) use crate::migrations::sql::relations::RelationName;
}

/// How the safer forms refer to a file without a transaction.
const SEPARATE_FILE: &str = "in a file that begins with '-- pricesync: no-transaction'";
