//! `.env`: variables of the project that the environment does not have.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::error::SettingsError;
use super::file;

/// A `.env` file whose variables are in the environment now, as far as that had none of the name.
#[derive(Clone, Debug)]
pub struct DotEnv {
    /// The file.
    pub path: PathBuf,
    /// The variables that come from it.
    pub names: HashSet<String>,
}

impl DotEnv {
    /// Puts the variables of the project's `.env` into the environment of this process: the one
    /// beside the configuration file, or the one in `folder`. What is set already stays. To be
    /// called before there are threads.
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
