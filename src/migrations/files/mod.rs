//! Migration files: found, named, read into ordered sets, or rejected with every reason.
//!
//! May import: `domain`, `sql`, `policy`.
//! Start reading at: `set.rs`, then `script.rs`.

pub(crate) mod allowance;
pub(crate) mod bare_names;
pub(crate) mod find_definition;
pub(crate) mod folder;
pub(crate) mod load_error;
pub(crate) mod new_script;
pub(crate) mod obstacle;
pub(crate) mod script;
pub(crate) mod script_name;
pub(crate) mod set;
pub(crate) mod transactions;
