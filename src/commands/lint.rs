//! `lint`: what a migration should not do on a fleet, and the safer form.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::app::{Access, App, Sets};
use super::migrate_schemas::Migration;
use crate::domain::plan::{Atomic, SchemaState};
use crate::domain::script::Scope;
use crate::domain::tenant::{CatalogError, TenantCatalog as _};
use crate::error::{Exit, Failure};
use crate::migrations::lint::{Finding, Linter, Rule, Severity};
use crate::postgres::measure::{Measured, measure};
use crate::service::fleet::{Fleet, Interrupts};
use crate::service::rollout::{Rollout, Scopes, Survey};
use crate::ui::{
    Cell, Listing, OutputFormat, ProgressMode, Remark, Verbosity, Weight, count, write_document,
};

/// Excerpts are cut to this width where nobody's terminal says how wide it is.
const PAGE: usize = 120;

/// From so many schemas on, what a statement costs in each of them is worth a warning in a run.
const LARGE_FLEET: usize = 100;

/// A run warns in at most so many lines.
const MOST_WARNINGS: usize = 5;

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
    let sets = app.sets()?;
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

/// Warns of what the tenants' pending files will cost because there are many tenants.
/// Once, before a run; one that runs nothing (`--fake`) costs nothing, and one that cannot be
/// surveyed says so itself.
pub(super) async fn warn_before(run: &Migration<'_>, sets: &Sets, fake: bool) {
    let app = run.app;
    let silent = fake
        || app.terminal.verbosity() == Verbosity::Quiet
        || matches!(app.progress, ProgressMode::Json | ProgressMode::None);
    if silent || matches!(run.scopes, Scopes::Shared) {
        return;
    }
    let Ok(linter) = Linter::new(&sets.shared, &sets.tenant) else {
        return;
    };
    let all: Vec<usize> = (0..sets.tenant.ids().len()).collect();
    let weighs = |finding: &Finding| finding.rule.weighs_on_the_fleet();
    // Most fleets have no such file, and then nobody has to be asked.
    if !(linter.pending(Scope::Tenant, &all, true).iter()).any(weighs) {
        return;
    }
    let (_nobody, interrupts) = Interrupts::new();
    let rollout = Rollout {
        migrator: run.migrator,
        catalog: run.catalog,
        fleet: Fleet {
            jobs: run.jobs,
            on_failure: run.on_failure,
            interrupts,
        },
        scopes: run.scopes.clone(),
    };
    let Ok(survey) = rollout.survey().await else {
        return;
    };
    let schemas = schemas_by_file(&survey);
    let mut findings = pending(&linter, &survey, app.settings.atomic);
    findings.retain(|finding| {
        let schemas = schemas.get(&(Scope::Tenant, finding.file)).copied();
        let enough = match finding.rule {
            Rule::FkToShared => 2,
            _ => LARGE_FLEET,
        };
        finding.scope == Scope::Tenant && weighs(finding) && schemas.unwrap_or_default() >= enough
    });
    for finding in findings.iter().take(MOST_WARNINGS) {
        app.terminal.warn(&format!(
            "{}:{}: {}; pricesync lint has a safer form [{}]",
            finding.path.display(),
            finding.place.line,
            finding.message,
            finding.rule
        ));
    }
    if findings.len() > MOST_WARNINGS {
        let more = findings.len() - MOST_WARNINGS;
        app.terminal.warn(&format!(
            "{more} more of this kind: pricesync lint --pending"
        ));
    }
}

/// What the database says about the fleet.
#[derive(Default)]
struct Known {
    survey: Option<Survey>,
    tenants: usize,
    measured: Option<Measured>,
}

impl Known {
    async fn ask(args: &Args, app: &App, sets: &Sets) -> Result<Self, Failure> {
        let access = if args.fleet {
            Access::Write
        } else {
            Access::Read
        };
        let database = app.database(access, 2).await?;
        let catalog = app.catalog(&database);
        let tenants = match catalog.list().await {
            Err(CatalogError::TablesMissing(_)) => 0,
            list => list?.tenants.len(),
        };
        let mut known = Self {
            tenants,
            ..Self::default()
        };
        if args.pending {
            let migrator = app
                .migrator(&database, app.rules(&database), sets, 1)
                .await?;
            let (_nobody, interrupts) = Interrupts::new();
            let rollout = Rollout {
                migrator: &migrator,
                catalog: &catalog,
                fleet: Fleet {
                    jobs: NonZeroUsize::MIN,
                    on_failure: app.settings.on_failure,
                    interrupts,
                },
                scopes: Scopes::Everything,
            };
            known.survey = Some(rollout.survey().await?);
        }
        if args.fleet {
            let measured = measure(&database).await.map_err(|error| {
                Failure::words(Exit::Refused, format!("cannot measure here: {error}"))
                    .hint("measuring creates a schema and rolls it back, which needs CREATE on the database")
            })?;
            known.measured = Some(measured);
        }
        Ok(known)
    }

    /// Returns what a finding costs on this server for all of its tenants.
    fn forecast(&self, finding: &Finding) -> Option<String> {
        let measured = self.measured?;
        let schemas = match &self.survey {
            Some(survey) => *schemas_by_file(survey).get(&(finding.scope, finding.file))?,
            None => self.tenants,
        };
        if finding.scope == Scope::Shared || schemas == 0 {
            return None;
        }
        let factor = u32::try_from(schemas).unwrap_or(u32::MAX);
        let all = |each: Duration| {
            let each_ms = each.as_secs_f64() * 1000.0;
            let total = (each * factor).as_secs_f64();
            format!(
                "{each_ms:.1} ms in each of {}, {total:.1} s altogether",
                count(schemas, "schema")
            )
        };
        match finding.rule {
            Rule::AddColumnDefault => Some(format!(
                "measured here: {}; ADD COLUMN, then SET DEFAULT: {}",
                all(measured.with_default),
                all(measured.default_apart)
            )),
            Rule::AlterColumnType => Some(format!(
                "measured here, on an empty table: {}",
                all(measured.alter_type)
            )),
            _ => None,
        }
    }
}

/// Returns in how many schemas each file is pending.
fn schemas_by_file(survey: &Survey) -> BTreeMap<(Scope, usize), usize> {
    let mut schemas = BTreeMap::new();
    for item in &survey.schemas {
        if let SchemaState::Known(plan) = &item.state {
            for &file in &plan.pending {
                *schemas.entry((item.target.scope, file)).or_default() += 1;
            }
        }
    }
    schemas
}

/// Judges what is pending, in the groups in which it is going to run, each finding once.
fn pending(linter: &Linter<'_>, survey: &Survey, atomic: Atomic) -> Vec<Finding> {
    let plans: BTreeSet<(Scope, &[usize])> = survey
        .schemas
        .iter()
        .filter_map(|item| match &item.state {
            SchemaState::Known(plan) => Some((item.target.scope, plan.pending.as_slice())),
            _ => None,
        })
        .collect();
    let mut findings: Vec<Finding> = Vec::new();
    for (scope, files) in plans {
        for finding in linter.pending(scope, files, atomic == Atomic::Schema) {
            let known = |other: &Finding| {
                (other.scope, other.file, other.rule, &other.place)
                    == (finding.scope, finding.file, finding.rule, &finding.place)
            };
            if !findings.iter().any(known) {
                findings.push(finding);
            }
        }
    }
    // Stable: what is said of one file stays in the order of its lines.
    findings.sort_by_key(|finding| (finding.scope, finding.file));
    findings
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
                .hint("pricesync config shows where the sets are"));
        }
        chosen.extend(found);
    }
    Ok(Some(chosen))
}

/// A finding with everything that is told of it.
struct Told<'a> {
    finding: &'a Finding,
    path: String,
    forecast: Option<String>,
}

impl<'a> Told<'a> {
    fn new(finding: &'a Finding, fleet: &Known) -> Self {
        Self {
            finding,
            path: finding.path.display().to_string(),
            forecast: fleet.forecast(finding),
        }
    }

    fn remark(&self) -> Remark<'_> {
        let finding = self.finding;
        let mut notes = vec![("cost", finding.cost.as_str())];
        notes.extend(self.forecast.as_deref().map(|words| ("forecast", words)));
        notes.push(("safer", &finding.safer));
        Remark {
            path: &self.path,
            place: &finding.place,
            weight: match finding.severity {
                Severity::Hint => Weight::Hint,
                Severity::Warning => Weight::Warning,
                Severity::Error => Weight::Error,
            },
            rule: finding.rule.name(),
            message: &finding.message,
            notes,
        }
    }

    fn json(&self) -> Value {
        let finding = self.finding;
        json!({
            "file": self.path,
            "line": finding.place.line,
            "column": finding.place.column,
            "set": finding.scope,
            "rule": finding.rule,
            "severity": finding.severity,
            "message": finding.message,
            "cost": finding.cost,
            "forecast": self.forecast,
            "safer": finding.safer,
        })
    }
}

fn write_remarks(told: &[Told<'_>], app: &App) -> Result<(), Failure> {
    let stdout = app.terminal.stdout();
    let width = stdout.width.map_or(PAGE, usize::from);
    let mut out = app.terminal.out();
    for (number, item) in told.iter().enumerate() {
        if number > 0 {
            out.write_all(b"\n")?;
        }
        out.write_all(item.remark().render(stdout.style, width).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn write_json(told: &[Told<'_>], app: &App) -> Result<(), Failure> {
    let of = |severity| {
        let same = |item: &&Told<'_>| item.finding.severity == severity;
        told.iter().filter(same).count()
    };
    let document = json!({
        "v": 1,
        "counts": {
            "error": of(Severity::Error),
            "warning": of(Severity::Warning),
            "hint": of(Severity::Hint),
        },
        "findings": told.iter().map(Told::json).collect::<Vec<_>>(),
    });
    let mut out = app.terminal.out();
    write_document(&mut out, &document)?;
    Ok(out.flush()?)
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
