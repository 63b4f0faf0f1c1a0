//! `make-migration`: a new file with the next free version.

use std::io::Write as _;

use super::run::app::App;
use crate::domain::script::Scope;
use crate::error::{Exit, Failure};
use crate::migrations::NewScriptError;
use crate::migrations::{NewScript, Transaction};

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
    /// Let it run statement by statement, outside of a transaction
    #[arg(long)]
    no_transaction: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    // What is wrong with the set now would only be harder to see behind a new file.
    app.sets()?;
    let (scope, dir) = if args.shared {
        (Scope::Shared, &app.settings.shared_dir)
    } else {
        (Scope::Tenant, &app.settings.tenant_dir)
    };
    // `makemigrations products` names the part of the project, which here is a subfolder.
    let named_folder = || dir.join(&args.name).is_dir().then_some(args.name.as_str());
    let new = NewScript {
        scope,
        dir,
        subfolder: args.dir.as_deref().or_else(named_folder),
        name: &args.name,
        transaction: if args.no_transaction {
            Transaction::Outside
        } else {
            Transaction::Inside
        },
    };
    let path = new.create().map_err(|error| match error {
        NewScriptError::Io(..) => Failure::new(Exit::Unexpected, error),
        _ => Failure::new(Exit::Usage, error),
    })?;
    let here = std::env::current_dir()?;
    let shown = path.strip_prefix(&here).unwrap_or(&path);
    let mut out = app.terminal.out();
    writeln!(out, "{}", shown.display())?;
    out.flush()?;
    Ok(Exit::Done)
}
