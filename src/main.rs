//! The pricesync command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(pricesync::commands::main())
}
