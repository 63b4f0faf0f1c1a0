//! `make-migration`: writes a new file with the next free version.

use super::run::app::App;
use super::run::{CommandRun, print_line};
use crate::domain::script::Scope;
use crate::error::{Exit, Failure};
use crate::migrations::NewScriptError;
use crate::migrations::{NewScript, Transaction};

/// Write an empty migration with the next free version
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Name, such as 'add brand'; the name of a subfolder selects that folder
    #[arg(value_name = "NAME")]
    name: String,
    /// Write it for public instead of the tenants
    #[arg(long)]
    shared: bool,
    /// Subfolder for the file
    #[arg(long, value_name = "FOLDER")]
    dir: Option<String>,
    /// Run it statement by statement, without a transaction
    #[arg(long)]
    no_transaction: bool,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        // Reports errors in the existing files before another file is added.
        app.sets()?;
        let (scope, dir) = if self.shared {
            (Scope::Shared, &app.settings.shared_dir)
        } else {
            (Scope::Tenant, &app.settings.tenant_dir)
        };
        // Django's `makemigrations products` names an app, which is a subfolder here.
        let named_folder = || dir.join(&self.name).is_dir().then_some(self.name.as_str());
        let new = NewScript {
            scope,
            dir,
            subfolder: self.dir.as_deref().or_else(named_folder),
            name: &self.name,
            transaction: if self.no_transaction {
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
        print_line(&app.terminal, shown.display())?;
        Ok(Exit::Done)
    }
}
