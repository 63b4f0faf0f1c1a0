//! The process: arguments, runtime, exit code.

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue};

use super::Cli;
use crate::error::{Exit, Failure};
use crate::ui::{Terminal, is_broken_pipe};

/// Runs the command line of this process and returns its exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            forget_hidden_commands(&mut error);
            // A reader that closed stdout is not an error.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
        }
    };
    let terminal = cli.terminal();
    let dotenv = match cli.read_dotenv() {
        Ok(dotenv) => dotenv,
        Err(failure) => return report(&failure, &terminal) as u8,
    };
    let mut runtime = if cli.is_single_threaded() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.error(&format!("cannot start: {error}"));
            return Exit::Unexpected as u8;
        }
    };
    let result = runtime.block_on(super::run(cli, dotenv, &terminal));
    // A third interrupt leaves work behind that must not be waited for.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit as u8,
        Err(failure) => report(&failure, &terminal) as u8,
    }
}

/// Removes hidden commands from the commands that an error of clap proposes.
fn forget_hidden_commands(error: &mut clap::Error) {
    if let Some(ContextValue::Strings(names)) = error.get(ContextKind::SuggestedSubcommand) {
        let names: Vec<String> =
            names.iter().filter(|name| !name.starts_with("__")).cloned().collect();
        if names.is_empty() {
            error.remove(ContextKind::SuggestedSubcommand);
        } else {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(names));
        }
    }
}

/// Writes a failure to stderr and returns its exit code. A reader that closed stdout is not an error.
fn report(failure: &Failure, terminal: &Terminal) -> Exit {
    if failure.cause.downcast_ref().is_some_and(is_broken_pipe) {
        return Exit::Done;
    }
    terminal.explain(None, &failure.explanation());
    failure.exit
}
