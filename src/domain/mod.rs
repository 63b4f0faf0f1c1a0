//! Names, tenants, migration files, histories and plans as values and pure functions.
//!
//! May import nothing of ours: no I/O, no SQL driver, no terminal, no async runtime.
//! Start reading at [`plan`], which compares files with a history; then [`tenant`].

pub mod applied;
pub mod catalog;
pub mod digest;
pub mod hint;
pub mod os_error;
pub mod password;
pub mod plan;
pub mod run_options;
pub mod schema_name;
pub mod schema_state;
pub mod script;
pub(crate) mod serialize;
pub mod sqlstate;
pub mod target;
pub mod tenant;
