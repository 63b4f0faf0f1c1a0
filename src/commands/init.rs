//! `init`: writes the configuration and the first migrations of a new project.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::domain::hint::Hint;
use crate::error::{Exit, Failure};
use crate::ui::{Terminal, Verbosity};

/// Write pricesync.toml and the first migrations into a folder
///
/// Existing files are not changed.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Folder of the project
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
}

macro_rules! shipped {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../", $path)))),*]
    };
}

/// The example project, which is also this repository's own.
const FILES: &[(&str, &str)] = shipped![
    "pricesync.toml",
    "migrations/shared/admin/V4__admin_log.sql",
    "migrations/shared/auth/V2__content_types.sql",
    "migrations/shared/auth/V3__auth.sql",
    "migrations/shared/tenants/V1__tenants.sql",
    "migrations/tenant/prices/V3__price_history.sql",
    "migrations/tenant/prices/V6__price_history_index.sql",
    "migrations/tenant/products/V2__products.sql",
    "migrations/tenant/products/V5__product_brand.sql",
    "migrations/tenant/subscriptions/V4__subscriptions.sql",
    "migrations/tenant/subscriptions/V7__subscription_trial.sql",
    "migrations/tenant/users/V1__users.sql",
    "migrations/tenant/users/V8__user_locale.sql",
];

/// Runs the command.
pub(super) fn run(args: &Args, terminal: &Terminal) -> Result<Exit, Failure> {
    let mut out = terminal.out();
    for (name, text) in FILES {
        let path = args.folder.join(name);
        let made = write_new(&path, text).map_err(|error| {
            let context = format!("cannot write {}", path.display());
            Failure::with_context(Exit::Unexpected, error, context)
        })?;
        if terminal.verbosity() == Verbosity::Quiet {
            continue;
        }
        let word = if made { "written" } else { "exists " };
        writeln!(out, "{word} {}", path.display())?;
    }
    out.flush()?;
    terminal.hint(&Hint::command(
        "set [database] url in pricesync.toml, or keep the local server, then run",
        "migrate-schemas",
    ));
    Ok(Exit::Done)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<bool> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = std::fs::File::create_new(path);
    match file {
        Ok(mut file) => file.write_all(text.as_bytes()).map(|()| true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::script::Scope;
    use crate::migrations::MigrationSet;
    use crate::settings::FILE_NAME;

    #[test]
    fn every_file_of_the_repository_is_shipped() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        for (scope, name) in [(Scope::Shared, "shared"), (Scope::Tenant, "tenant")] {
            let set =
                MigrationSet::load(&root.join(name), scope).expect("the shipped files are good");
            let listed = FILES
                .iter()
                .filter(|(path, _)| path.starts_with(&format!("migrations/{name}/")))
                .count();
            assert_eq!(set.ids().len(), listed, "{name}");
        }
        assert_eq!(FILES[0].0, FILE_NAME);
    }
}
