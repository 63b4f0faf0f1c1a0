//! What the fuzz targets call, one file for each, so that both try the same.

pub mod backup_files;
pub mod connection_strings;
pub mod directives;
pub mod file_names;
pub mod server_answers;
pub mod sql_text;
