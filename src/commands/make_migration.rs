//! `make-migration`: a new file with the next free version.

use std::io::Write as _;

use super::app::App;
use crate::domain::script::Scope;
use crate::error::{Exit, Failure};
use crate::migrations::new_script::create;

/// Write an empty migration with the next free version, and print its path
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What it does, such as 'add brand'; the name of a subfolder puts it there
    #[arg(value_name = "NAME")]
    name: String,
    /// For public instead of the tenants
    #[arg(long)]
    shared: bool,
    /// Subfolder to put it in
    #[arg(long, value_name = "FOLDER")]
    dir: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let sets = app.sets()?;
    let (scope, folder, set) = if args.shared {
        (Scope::Shared, &app.settings.shared_dir, &sets.shared)
    } else {
        (Scope::Tenant, &app.settings.tenant_dir, &sets.tenant)
    };
    // `makemigrations products` names the part of the project, which here is a subfolder.
    let named_folder = || {
        folder
            .join(&args.name)
            .is_dir()
            .then_some(args.name.as_str())
    };
    let subfolder = args.dir.as_deref().or_else(named_folder);
    if let Some(outside) = subfolder.filter(|name| {
        std::path::Path::new(name)
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
    }) {
        return Err(Failure::words(
            Exit::Usage,
            format!("'{outside}' is not a folder within {}", folder.display()),
        ));
    }
    let path =
        create(folder, subfolder, &args.name, scope, set).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => Failure::words(Exit::Usage, error),
            _ => Failure::new(Exit::Unexpected, error),
        })?;
    let here = std::env::current_dir()?;
    let shown = path.strip_prefix(&here).unwrap_or(&path);
    let mut out = app.terminal.out();
    writeln!(out, "{}", shown.display())?;
    out.flush()?;
    Ok(Exit::Done)
}
