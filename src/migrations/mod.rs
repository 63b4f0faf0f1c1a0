//! The SQL files on disk: found, named, ordered, checked and linted. Needs no server.
//!
//! Five rooms, each importing only those to its left: `sql < policy < files < import, lint`. `files` asks
//! `policy` about each file that it reads; what is asked of whole sets (bare names, which file
//! defines a relation) lives in `files`, because the sets do.
//! Start reading at: `files/set.rs`.

mod files;
pub mod import;
pub mod lint;
mod policy;
mod sql;

pub use files::bare_names::check_bare_names;
#[cfg(feature = "cli")]
pub(crate) use files::find_definition::created_by_tenants;
pub use files::find_definition::find_definition;
pub use files::load_error::{LoadError, LoadErrors, Problem};
pub use files::new_script::{NewScript, NewScriptError};
pub(crate) use files::obstacle::{is_named, last_use, obstacle};
pub use files::script::Script;
pub use files::script_name::{NameRule, ScriptName, ScriptNameError};
pub use files::set::{MigrationSet, Warning, WarningKind, check_apart};
pub use files::transactions::{in_one_transaction, uses_its_own_value};
pub use policy::adhoc::{AdhocSql, AdhocSqlError};
pub use policy::refusal::Refusal;
pub use policy::timeouts::Timeout;
pub(crate) use policy::timeouts::{SentSql, UNBOUNDED_LOCK};
pub use policy::wrap_in_do::{DoBlock, wrap_in_do};
pub use sql::directives::Transaction;
pub use sql::do_block::InnerError;
pub use sql::split::Statement;
pub use sql::where_clause::{WhereClause, WhereClauseError};
