//! The SQL files on disk: read, named, ordered, and refused where they could do harm.

pub mod new_script;
pub mod script;
mod seal;
pub mod source;
mod tokens;
