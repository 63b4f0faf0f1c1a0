//! The values of the command line.

use std::path::PathBuf;

use super::{DotEnv, Origin};

/// Values of the command line; filled by `commands`, so that this module needs no clap.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `-c/--config`.
    pub config: Option<PathBuf>,
    /// The `.env` file that was read.
    pub dotenv: Option<DotEnv>,
    /// Values by key, with the flag that set them.
    pub values: Vec<(&'static str, &'static str, String)>,
}

impl Overrides {
    pub(super) fn origin_of(&self, variable: &'static str) -> Origin {
        match &self.dotenv {
            Some(file) if file.names.contains(variable) => {
                Origin::DotEnv(file.path.clone(), variable)
            }
            _ => Origin::Environment(variable),
        }
    }

    /// Sets `key` to the value of `flag`, if it was given.
    pub fn set(&mut self, key: &'static str, flag: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.values.push((key, flag, value.to_string()));
        }
    }
}
