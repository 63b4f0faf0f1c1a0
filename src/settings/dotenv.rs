//! Loads the project's `.env` file into the environment.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::error::SettingsError;
use super::file;

/// A `.env` file that was loaded into the environment of this process.
#[derive(Clone, Debug)]
pub struct DotEnv {
    /// The file.
    pub path: PathBuf,
    /// The variables that it set: those that the environment did not have.
    pub names: HashSet<String>,
}

impl DotEnv {
    /// Loads the `.env` file next to the configuration file, or the one in `folder`, into the
    /// environment of this process. Variables that are set already stay. Must be called before a
    /// thread is started.
    ///
    /// # Errors
    ///
    /// [`SettingsError::BadDotEnv`] for a file that cannot be read; nothing is set then.
    pub fn load(config: Option<&Path>, folder: &Path) -> Result<Option<Self>, SettingsError> {
        let variable = |name: &str| std::env::var(name).ok();
        let project = file::find(config, &variable, folder);
        let folders = project.as_deref().and_then(Path::parent).into_iter().chain([folder]);
        let candidate = |folder: &Path| folder.join(".env");
        let Some(path) = folders.map(candidate).find(|path| path.is_file()) else {
            return Ok(None);
        };
        let bad = |error: dotenvy::Error| {
            // The error may quote the line, which may hold a password.
            let why = match error {
                dotenvy::Error::LineParse(_, at) => {
                    format!("invalid line: expected NAME=value, at character {at}")
                }
                dotenvy::Error::Io(error) => error.to_string(),
                _ => "cannot be parsed".to_owned(),
            };
            SettingsError::BadDotEnv(path.clone(), why)
        };
        let mut names = HashSet::new();
        for pair in dotenvy::from_path_iter(&path).map_err(bad)? {
            let (name, _) = pair.map_err(bad)?;
            if std::env::var_os(&name).is_none() {
                names.insert(name);
            }
        }
        dotenvy::from_path(&path).map_err(bad)?;
        Ok(Some(Self { path, names }))
    }
}
