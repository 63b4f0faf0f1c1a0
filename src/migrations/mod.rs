//! The SQL files on disk: read, named, ordered, and kept from leaving the transaction and
//! the schema that the engine runs them in. No server is needed here.

mod bare_names;
mod folder;
pub mod lint;
pub mod load_error;
mod maker;
pub mod new_script;
mod parser;
mod place;
mod predicate;
mod predictable;
pub mod refusal;
pub mod script;
pub mod script_name;
pub mod seal;
pub mod sealed_sql;
pub mod source;
pub mod statement;
mod token;
mod typed_sql;
mod words;

pub use bare_names::check_bare_names;
pub use load_error::{LoadError, LoadErrors};
pub use maker::maker_of;
pub use new_script::NewScript;
pub use predicate::{Predicate, PredicateError};
pub use script::{Script, Transaction};
pub use seal::Seal;
pub use sealed_sql::sealed_sql;
pub use source::{MigrationSet, check_apart};
pub use typed_sql::{TypedSql, TypedSqlError};
