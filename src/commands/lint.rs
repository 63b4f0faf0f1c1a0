//! `lint`: what a migration should not do on a fleet, and the safer form.

mod fleet_data;
mod output;
mod pending;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

pub(super) use pending::warn_before;

use fleet_data::Known;
use output::{Told, write_json, write_remarks};
use pending::pending;

use super::run::app::{App, Sets};
use crate::domain::hint::Hint;
use crate::error::{Exit, Failure};
use crate::migrations::lint::{Finding, Linter, Rule, Severity};
use crate::ui::{Cell, Listing, OutputFormat, count};

/// Look for migrations that lock, rewrite, or reach outside their schema
///
/// Reads the files of both sets and says where they cost something on a fleet or on a busy
/// table, what that is, and how to do the same with less harm. Needs no database, unless
/// --pending or --fleet asks for one. Every file is judged by itself: tables that an earlier
/// file made are in use.
///
/// Exit 0 also with findings, unless --deny says from which weight on they are exit 2.
///
/// A comment on the line above a statement, `-- pricesync: allow <rule>`, allows it there; above
/// an empty line at the top of the file, everywhere in the file. Files that are applied
/// somewhere cannot be edited any more: let CI lint the files that a change adds, or --pending.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync lint --deny warning
  pricesync lint --pending --fleet
  pricesync lint migrations/tenant/products")]
pub(super) struct Args {
    /// Only these files or folders
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Exit 2 when something of this weight or more is found
    #[arg(long, value_enum, value_name = "WEIGHT")]
    deny: Option<Level>,
    /// Only files that are pending in some schema; those that will share a transaction are judged together
    #[arg(long)]
    pending: bool,
    /// Measure on the server what findings cost for this fleet (in a schema that is rolled back)
    #[arg(long)]
    fleet: bool,
    /// List the rules instead
    #[arg(long, conflicts_with_all = ["files", "deny", "pending", "fleet"])]
    rules: bool,
    /// The shape of the findings
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Shape,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// Anything
    Hint,
    /// Warnings and errors
    Warning,
    /// Errors only
    Error,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people: each with its line
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    if args.rules {
        return list_rules(args, app);
    }
    let sets = app.sets_to_judge()?;
    let chosen = chosen_files(&args.files, &sets)?;
    let linter = Linter::new(&sets.shared, &sets.tenant)?;
    let mut fleet = Known::default();
    if args.pending || args.fleet {
        fleet = Known::ask(args, app, &sets).await?;
    }
    let mut findings = match &fleet.survey {
        Some(survey) => pending(&linter, survey, app.settings.atomic),
        None => linter.every_file(),
    };
    if let Some(chosen) = &chosen {
        findings.retain(|finding| chosen.contains(&finding.path));
    }
    let told: Vec<Told> = findings.iter().map(|it| Told::new(it, &fleet)).collect();
    match args.output {
        Shape::Table => write_remarks(&told, app)?,
        Shape::Json => write_json(&told, app)?,
    }
    app.terminal.note(&summary(&findings));
    let denied = args.deny.map(|level| match level {
        Level::Hint => Severity::Hint,
        Level::Warning => Severity::Warning,
        Level::Error => Severity::Error,
    });
    let is_denied = |finding: &Finding| denied.is_some_and(|denied| finding.severity >= denied);
    Ok(if findings.iter().any(is_denied) {
        Exit::Usage
    } else {
        Exit::Done
    })
}

/// Returns the files that were typed as the sets know them, or `None` for all.
fn chosen_files(typed: &[PathBuf], sets: &Sets) -> Result<Option<BTreeSet<PathBuf>>, Failure> {
    if typed.is_empty() {
        return Ok(None);
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let scripts = sets.shared.scripts().iter().chain(sets.tenant.scripts());
    let known: Vec<(PathBuf, &PathBuf)> = scripts
        .map(|script| (real(&script.path), &script.path))
        .collect();
    let mut chosen = BTreeSet::new();
    for path in typed {
        let wanted = real(path);
        let before = chosen.len();
        let below = known.iter().filter(|(real, _)| real.starts_with(&wanted));
        let mut found = below.map(|(_, path)| PathBuf::clone(path)).peekable();
        if found.peek().is_none() && before == chosen.len() {
            let words = format!("{} is no migration of either set", path.display());
            return Err(Failure::words(Exit::Usage, words)
                .hint(Hint::command("show where the sets are", "config")));
        }
        chosen.extend(found);
    }
    Ok(Some(chosen))
}

fn summary(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found".to_owned();
    }
    let of = |severity| {
        let same = |finding: &&Finding| finding.severity == severity;
        findings.iter().filter(same).count()
    };
    format!(
        "{}: {}, {}, {}",
        count(findings.len(), "finding"),
        count(of(Severity::Error), "error"),
        count(of(Severity::Warning), "warning"),
        count(of(Severity::Hint), "hint")
    )
}

fn list_rules(args: &Args, app: &App) -> Result<Exit, Failure> {
    let rows = Rule::ALL.into_iter().map(|rule| {
        vec![
            Cell::Text(rule.name().to_owned()),
            Cell::Text(rule.severity().to_string()),
            Cell::Text(rule.subject().to_owned()),
        ]
    });
    let format = match args.output {
        Shape::Table => OutputFormat::Table,
        Shape::Json => OutputFormat::Json,
    };
    Listing::new(&["rule", "severity", "about"], "no rules").write(&app.terminal, format, rows)?;
    Ok(Exit::Done)
}
