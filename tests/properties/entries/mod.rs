//! What the fuzz targets call, one file for each, so that both try the same.

pub mod connection_strings;
pub mod directives;
pub mod file_names;
pub mod sql_text;
