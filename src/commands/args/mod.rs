//! Option groups that several commands share, and the values that are read from them.
//! May import every room below `commands`, but neither `run` nor a command.
//! Start with `select.rs`, which selects tenants.

use std::io::{self, Read as _};
use std::path::Path;

use crate::error::{Exit, Failure};

pub(crate) mod output;
pub(crate) mod overrides;
pub(crate) mod rollout;
pub(crate) mod select;
pub(crate) mod tenant;
mod values;

/// Reads a file, or stdin for `-`; returns its name in messages and its text.
///
/// # Errors
///
/// Exit 2 for a file that cannot be read.
pub(crate) fn read_file_or_stdin(path: &Path) -> Result<(String, String), Failure> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        ("stdin".to_owned(), read.map(|_| text))
    } else {
        (path.display().to_string(), std::fs::read_to_string(path))
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(Failure::with_context(Exit::Usage, error, format!("cannot read {name}"))),
    }
}
