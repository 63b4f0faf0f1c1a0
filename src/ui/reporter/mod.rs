//! Reporters: how the events of a run are shown (bars, log lines, JSON).
//! Imports `domain`, `service` and the other files of `ui`, except `terminal`, which chooses one.
//! Start with `log_format.rs`, which turns events into lines; `bars.rs` draws what is in progress.

pub(super) mod bars;
pub(super) mod json;
pub(super) mod log;
pub(super) mod log_format;
mod progress_state;

use std::io;

use crate::service::event::Event;
use crate::service::summary::Summary;

/// Shows a run while it happens.
///
/// An error means that the stream is closed: stop calling the reporter and let the run continue.
pub trait Reporter {
    /// Shows an event.
    fn on(&mut self, event: &Event) -> io::Result<()>;

    /// Shows the result of the run. Called once, after the last event.
    fn finish(&mut self, summary: &Summary) -> io::Result<()>;
}

/// How a run is shown while it happens: `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressMode {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A total bar and the schemas in progress.
    Bars,
    /// A line for each event.
    Lines,
    /// A JSON object for each event.
    Json,
    /// Failures and the summary.
    None,
}

/// How much is shown: `-q`, `-v`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Failures only.
    Quiet,
    /// Also progress and results.
    #[default]
    Normal,
    /// Everything: also the start of each file, and the server's notices.
    Verbose,
}
