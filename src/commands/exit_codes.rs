//! `help exit-codes`: the table of exit codes.

use std::io::Write as _;

use crate::error::{Exit, Failure};
use crate::ui::Terminal;

/// The exit codes of every command
#[derive(clap::Args, Debug)]
#[command(help_template = "{about}{after-help}", after_help = table())]
pub(super) struct Args {}

fn table() -> String {
    use std::fmt::Write as _;

    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in Exit::TABLE {
        let _ = writeln!(text, "  {:>3}  {meaning}", exit as u8);
    }
    text
}

/// Runs the command.
pub(super) fn run(_: &Args, terminal: &Terminal) -> Result<Exit, Failure> {
    let mut out = terminal.out();
    out.write_all(table().as_bytes())?;
    out.flush()?;
    Ok(Exit::Done)
}
