//! Everything that is written to stdout and stderr: reporters of a run, listings, errors.
//! Imports `domain` and `service` only; no SQL, no clap.
//! Start with `terminal.rs`, then `reporter/mod.rs` (a run) or `error/explanation.rs` (a failure).

mod confirm;
mod error;
mod json;
mod lock_wait_stats;
mod query_rows;
mod reporter;
mod style;
mod summary;
mod table;
mod terminal;
mod text;

#[cfg(test)]
mod test_support;

pub use confirm::Answer;
pub use error::excerpt::Excerpt;
pub use error::explain::{explain, explain_creation, explain_group};
pub use error::explanation::Explanation;
pub use json::write_document;
pub use query_rows::QueryRows;
pub use reporter::json::{SummaryDocument, summary_document};
pub use reporter::log_format::waiting_for_standby;
pub use reporter::{ProgressMode, Reporter, Verbosity};
pub use style::{ColorChoice, Style};
pub use summary::{not_started, skipped};
pub use table::{Cell, Listing, OutputFormat};
pub use terminal::{Stream, Terminal, is_broken_pipe};
pub use text::{clean, clean_lines, count, fit, shell_word, size, took};
