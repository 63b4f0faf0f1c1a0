//! `lint`: finds migrations that lock, rewrite or leave their schema.

mod fleet_data;
mod output;
mod pending;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

pub(super) use pending::warn_before;

use fleet_data::FleetData;
use output::{Reported, write_diagnostics, write_json};
use pending::pending_findings;

use super::run::CommandRun;
use super::run::app::{App, Sets};
use crate::domain::hint::Hint;
use crate::error::{Exit, Failure};
use crate::migrations::lint::{Finding, Linter, Rule, Severity};
use crate::migrations::{MigrationSet, obstacle};
use crate::postgres::migrate::template::in_one_transaction;
use crate::settings::UseTemplate;
use crate::ui::{Cell, Listing, OutputFormat, count};

/// Find migrations that lock, rewrite or leave their schema
///
/// Reads the files of both sets and prints each statement that is costly on a busy table or on
/// many tenants, its cost, and a safer form. Needs no database without --pending and --fleet.
/// Checks each file by itself: a table of an earlier file counts as in use.
///
/// Findings do not change exit code 0, unless --deny makes them exit 2.
///
/// A comment `-- pricesync: allow <rule>` on the line above a statement allows the rule there; at
/// the top of the file, above an empty line, in the whole file. An applied file cannot be edited
/// any more: lint the files that a change adds, or use --pending.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  pricesync lint --deny warning
  pricesync lint --pending --fleet
  pricesync lint migrations/tenant/products")]
pub(super) struct Args {
    /// Only these files or folders
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Exit 2 for a finding of this severity or above
    #[arg(long, value_enum, value_name = "SEVERITY")]
    deny: Option<Severity>,
    /// Only pending files; files of one transaction are checked together
    #[arg(long)]
    pending: bool,
    /// Measure the cost for all tenants on the server, then roll back
    #[arg(long)]
    fleet: bool,
    /// List the rules
    #[arg(long, conflicts_with_all = ["files", "deny", "pending", "fleet"])]
    rules: bool,
    /// Format of the findings
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: FindingsFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FindingsFormat {
    /// Each finding with its line, for people
    #[default]
    Table,
    /// One JSON document
    Json,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        if self.rules {
            return list_rules(self, app);
        }
        let sets = app.sets_to_lint()?;
        let chosen = selected_files(&self.files, &sets)?;
        let linter = Linter::new(&sets.shared, &sets.tenant)?;
        let mut fleet = FleetData::default();
        if self.pending || self.fleet {
            fleet = FleetData::read(self, app, &sets).await?;
        }
        let mut findings = match &fleet.survey {
            Some(survey) => pending_findings(&linter, survey, app.settings.atomic),
            None => linter.every_file(),
        };
        if let Some(chosen) = &chosen {
            findings.retain(|finding| chosen.contains(&finding.path));
        }
        let reported: Vec<Reported> =
            findings.iter().map(|finding| Reported::new(finding, &fleet)).collect();
        let no_template = if self.files.is_empty() && app.settings.template == UseTemplate::Auto {
            fleet.without_template.clone().or_else(|| without_template(&sets.tenant))
        } else {
            None
        };
        match self.output {
            FindingsFormat::Table => write_diagnostics(&reported, app)?,
            FindingsFormat::Json => {
                write_json(&reported, by_severity(&findings), no_template.as_deref(), app)?;
            }
        }
        app.terminal.note(&summary(&findings));
        if let Some(why) = no_template {
            app.terminal
                .note(&format!("no template, so new tenants are created file by file: {why}"));
        }
        let is_denied =
            |finding: &Finding| self.deny.is_some_and(|denied| finding.severity >= denied);
        Ok(if findings.iter().any(is_denied) { Exit::Usage } else { Exit::Done })
    }
}

/// Returns why the files of the tenant set have no template, as far as the files say it.
fn without_template(tenant: &MigrationSet) -> Option<String> {
    obstacle(&in_one_transaction(tenant), &HashSet::new())
}

/// Returns the given files with the paths of the sets; `None` for all.
fn selected_files(given: &[PathBuf], sets: &Sets) -> Result<Option<BTreeSet<PathBuf>>, Failure> {
    if given.is_empty() {
        return Ok(None);
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let scripts = sets.shared.scripts().iter().chain(sets.tenant.scripts());
    let known: Vec<(PathBuf, &PathBuf)> =
        scripts.map(|script| (real(&script.path), &script.path)).collect();
    let mut chosen = BTreeSet::new();
    for path in given {
        let wanted = real(path);
        let below = known.iter().filter(|(real, _)| real.starts_with(&wanted));
        let mut found = below.map(|(_, path)| PathBuf::clone(path)).peekable();
        if found.peek().is_none() {
            let words = format!("{} is not a migration of either set", path.display());
            return Err(Failure::words(Exit::Usage, words)
                .hint(Hint::command("show the folders of the sets", "config")));
        }
        chosen.extend(found);
    }
    Ok(Some(chosen))
}

fn summary(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found".to_owned();
    }
    let [errors, warnings, hints] = by_severity(findings);
    format!(
        "{}: {}, {}, {}",
        count(findings.len(), "finding"),
        count(errors, "error"),
        count(warnings, "warning"),
        count(hints, "hint")
    )
}

/// Returns the numbers of errors, warnings and hints.
fn by_severity<'a>(findings: impl IntoIterator<Item = &'a Finding> + Copy) -> [usize; 3] {
    [Severity::Error, Severity::Warning, Severity::Hint]
        .map(|severity| findings.into_iter().filter(|finding| finding.severity == severity).count())
}

fn list_rules(args: &Args, app: &App) -> Result<Exit, Failure> {
    let rows = Rule::ALL.iter().map(|rule| {
        vec![
            Cell::Text(rule.name().to_owned()),
            Cell::Text(rule.definition().severity.to_string()),
            Cell::Text(rule.definition().summary.to_owned()),
        ]
    });
    let format = match args.output {
        FindingsFormat::Table => OutputFormat::Table,
        FindingsFormat::Json => OutputFormat::Json,
    };
    Listing::new(&["rule", "severity", "about"], "no rules").write(&app.terminal, format, rows)?;
    Ok(Exit::Done)
}
