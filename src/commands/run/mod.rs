//! What a running command uses: settings and connections, the reporter, signals, the stored run.
//! May import `commands/args` and every room below `commands`, but no command.
//! Start with `app.rs`, then `jobs.rs` and `reporter_task.rs`.

use std::fmt::Display;
use std::io::{self, Write as _};

use self::app::App;
use crate::error::{Exit, Failure};
use crate::settings::Overrides;
use crate::ui::{Terminal, clean};

pub(crate) mod app;
pub(crate) mod command_line;
pub(crate) mod confirm;
pub(crate) mod jobs;
pub(crate) mod migration;
pub(crate) mod missing_tables;
pub(crate) mod recorder;
pub(crate) mod reporter_task;
pub(crate) mod signals;
pub(crate) mod tenants;

/// The options of a command that works with settings, and what the command does.
pub(crate) trait CommandRun {
    /// Records the options that override settings.
    fn override_settings(&self, _overrides: &mut Overrides) {}

    /// Runs the command.
    async fn run(&self, app: &App) -> Result<Exit, Failure>;
}

/// Prints a line of the result to stdout, without control characters.
pub(crate) fn print_line(terminal: &Terminal, line: impl Display) -> io::Result<()> {
    let mut out = terminal.out();
    writeln!(out, "{}", clean(&line.to_string()))?;
    out.flush()
}
