//! `import`: converts migrations of another tool to files of a set.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::run::CommandRun;
use super::run::app::App;
use crate::domain::hint::Hint;
use crate::domain::script::Scope;
use crate::error::{Exit, Failure};
use crate::migrations::MigrationSet;
use crate::migrations::import::{self, Tool};
use crate::ui::{Verbosity, count};

/// Convert migrations of another tool to files of this project
///
/// Each file keeps its version and order; where the other tool can undo it, a file that ends in
/// `.undo.sql` is written next to it. Whatever cannot be converted is listed with file and line.
/// Nothing that exists is changed. Afterwards 'baseline --from' takes over the tool's history. The
/// tools are flyway, golang-migrate, dbmate, goose, sqlx, diesel, refinery and node-pg-migrate.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tool that the migrations were written for
    #[arg(long, value_name = "TOOL", value_parser = tool(), hide_possible_values = true)]
    from: Tool,
    /// Its folder of migrations
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Write files of public instead of the tenants
    #[arg(long)]
    shared: bool,
}

/// Parses the name of a tool.
pub(super) fn tool() -> impl clap::builder::TypedValueParser<Value = Tool> {
    let parse = |name: String| Tool::ALL.into_iter().find(|tool| tool.name() == name).ok_or(name);
    PossibleValuesParser::new(Tool::ALL.map(Tool::name)).try_map(parse)
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let (scope, dir) = if self.shared {
            (Scope::Shared, &app.settings.shared_dir)
        } else {
            (Scope::Tenant, &app.settings.tenant_dir)
        };
        let found = import::convert(self.from, &self.folder, scope).map_err(|error| {
            let context = format!("cannot read {}", self.folder.display());
            Failure::with_context(Exit::Usage, error, context)
        })?;
        if found.files.is_empty() && found.problems.is_empty() {
            let words =
                format!("{} holds no migration of {}", self.folder.display(), self.from.name());
            return Err(Failure::words(Exit::Usage, words));
        }
        let written = import::write(dir, &found.files).map_err(|(path, error)| {
            let exit = match error.kind() {
                io::ErrorKind::AlreadyExists => Exit::Refused,
                _ => Exit::Unexpected,
            };
            Failure::with_context(exit, error, format!("cannot write {}", path.display()))
        })?;
        if app.terminal.verbosity() != Verbosity::Quiet {
            let here = std::env::current_dir()?;
            let mut out = app.terminal.out();
            for path in &written {
                writeln!(out, "written {}", path.strip_prefix(&here).unwrap_or(path).display())?;
            }
            out.flush()?;
        }
        let undo = found.files.iter().filter(|file| file.undo.is_some()).count();
        app.terminal.note(&format!(
            "{} converted, {undo} with a file that undoes it",
            count(found.files.len(), "migration")
        ));
        for problem in &found.problems {
            let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
            app.terminal.warn(&format!(
                "not converted: {}{line}: {}",
                problem.path.display(),
                problem.why
            ));
        }
        // What the set refuses of the files, such as COMMIT, has to be changed in them.
        MigrationSet::load(dir, scope)?;
        if !found.problems.is_empty() {
            return Ok(Exit::Usage);
        }
        app.terminal.hint(&Hint::command(
            "take over the history of each schema",
            format!(
                "baseline --from {}{}",
                self.from.name(),
                if self.shared { " --shared" } else { "" }
            ),
        ));
        Ok(Exit::Done)
    }
}
