//! `init`: writes the configuration and the folders of a new project.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::domain::hint::Hint;
use crate::error::{Exit, Failure};
use crate::settings::FILE_NAME;
use crate::ui::{Terminal, Verbosity};

/// Write pricesync.toml and the folders of the migrations
///
/// Existing files are not changed, and no database is contacted.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Also write the migrations of a price shop, to try everything with
    #[arg(long)]
    example: bool,
    /// Folder of the project
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
}

macro_rules! shipped {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../", $path)))),*]
    };
}

/// A project without migrations. The texts keep the folders in git.
const EMPTY: &[(&str, &str)] = &[
    ("pricesync.toml", include_str!("init/pricesync.toml")),
    ("migrations/shared/README.md", include_str!("init/shared.md")),
    ("migrations/tenant/README.md", include_str!("init/tenant.md")),
];

/// The example project, which is also this repository's own.
const EXAMPLE: &[(&str, &str)] = shipped![
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

/// The file of the example that creates the table of tenants.
const TENANTS: &str = "migrations/shared/tenants/V1__tenants.sql";

/// Runs the command.
pub(super) fn run(args: &Args, terminal: &Terminal) -> Result<Exit, Failure> {
    let files = if args.example { EXAMPLE } else { EMPTY };
    let mut out = terminal.out();
    for (path, is_new) in write(&args.folder, files)? {
        if terminal.verbosity() == Verbosity::Quiet {
            continue;
        }
        let word = if is_new { "written" } else { "exists " };
        writeln!(out, "{word} {}", path.display())?;
    }
    out.flush()?;
    terminal.hint(&if args.example {
        Hint::command(
            "set [database] url in pricesync.toml, or keep the local server, then run",
            "migrate-schemas",
        )
    } else {
        Hint::command(
            "set [database] url and [catalog] tenant_table in pricesync.toml, then run",
            "list-tenants",
        )
    });
    Ok(Exit::Done)
}

/// Writes the example project into a folder.
pub(super) fn write_example(folder: &Path) -> Result<(), Failure> {
    write(folder, EXAMPLE).map(drop)
}

/// Returns whether a folder holds a project with the example's table of tenants.
pub(super) fn is_example(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join(TENANTS)).unwrap_or_default();
    folder.join(FILE_NAME).is_file() && EXAMPLE.contains(&(TENANTS, &*text))
}

/// Writes the files that do not exist; returns the path of each file and whether it is new.
fn write(folder: &Path, files: &[(&str, &str)]) -> Result<Vec<(PathBuf, bool)>, Failure> {
    let mut written = Vec::with_capacity(files.len());
    for (name, text) in files {
        let path = folder.join(name);
        let is_new = write_new(&path, text).map_err(|error| {
            let context = format!("cannot write {}", path.display());
            Failure::with_context(Exit::Unexpected, error, context)
        })?;
        written.push((path, is_new));
    }
    Ok(written)
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

    #[test]
    fn every_file_of_the_repository_is_shipped() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        for (scope, name) in [(Scope::Shared, "shared"), (Scope::Tenant, "tenant")] {
            let set =
                MigrationSet::load(&root.join(name), scope).expect("the shipped files are good");
            let listed = EXAMPLE
                .iter()
                .filter(|(path, _)| path.starts_with(&format!("migrations/{name}/")))
                .count();
            assert_eq!(set.ids().len(), listed, "{name}");
        }
        assert_eq!([EXAMPLE[0].0, EMPTY[0].0], [FILE_NAME; 2]);
        assert!(is_example(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
}
