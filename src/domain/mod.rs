//! Words of the problem, and nothing else: no I/O, no SQL driver, no terminal, no runtime.

pub mod digest;
pub mod password;
pub mod plan;
pub mod schema_name;
pub mod script;
pub mod tenant;
