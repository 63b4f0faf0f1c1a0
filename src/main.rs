//! The pricesync command.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use pricesync::local;

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    match args.split_first() {
        Some((name, rest)) if name == local::SUPERVISE => match local::supervise(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Standard error is the server's log; without it there is nobody to tell.
                let _ = writeln!(std::io::stderr(), "pricesync: {error}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::from(2),
    }
}
