//! `man`: the manual page.

use std::io::Write as _;

use clap::CommandFactory as _;

use super::Cli;
use crate::error::{Exit, Failure};
use crate::ui::Terminal;

/// Print the manual page, or write one page for each command
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Write pricesync.1 and a page for each command into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<std::path::PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &Args, terminal: &Terminal) -> Result<Exit, Failure> {
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)?;
        return Ok(Exit::Done);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    let mut out = terminal.out();
    out.write_all(&page)?;
    out.flush()?;
    Ok(Exit::Done)
}
