//! Everything a person or a script reads.
//!
//! [`Terminal`] is made once and says where text goes: results to stdout, the conversation
//! to stderr. A [`Reporter`] renders the events of a run, a [`Listing`] a list of rows, an
//! [`Explanation`] a failure. Nobody else writes.

mod advice;
mod bars;
mod board;
mod confirm;
mod excerpt;
mod explain;
mod failure;
mod invocation;
mod json;
mod lines;
mod remark;
mod rows;
mod story;
mod style;
mod summary;
mod table;
mod terminal;
mod text;
mod waits;

use std::io;

use crate::service::event::Event;
use crate::service::summary::Summary;

pub use confirm::Answer;
pub use excerpt::Excerpt;
pub use explain::{explain, explain_completion, explain_creation, explain_group};
pub use failure::{Explanation, Extent};
pub use invocation::{addressed, invoked_as};
pub use json::{SummaryDocument, summary_document, write_document};
pub use remark::{Remark, Weight};
pub use rows::Rows;
pub use story::waiting_for_standby;
pub use style::Style;
pub use summary::{not_started, skipped};
pub use table::{Cell, Listing, OutputFormat, Sheet};
pub use terminal::{Stream, Terminal, is_broken_pipe};
pub use text::{clean, clean_lines, count, shell_word, size, took};

/// Renders a run while it happens.
///
/// An error means that nobody reads any more: stop calling, and let the run go on.
pub trait Reporter {
    /// Renders what happened.
    fn on(&mut self, event: &Event) -> io::Result<()>;

    /// Renders how the run ended. Comes last and once.
    fn finish(&mut self, summary: &Summary) -> io::Result<()>;
}

/// How a run is shown while it happens: `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressMode {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A total bar and what is running.
    Bars,
    /// A line for each fact.
    Lines,
    /// A JSON object for each event.
    Json,
    /// Failures and the summary.
    None,
}

/// Whether output is painted: `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On terminals, as the environment wishes.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// How much is told: `-q`, `-v`, `-vv`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Failures and nothing else.
    Quiet,
    /// What happens.
    #[default]
    Normal,
    /// Also what begins, and the server's notices.
    Verbose,
    /// As much as there is.
    VeryVerbose,
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod screen;
