//! `migrate-schemas`: bring public and the tenants to the newest version.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::ValueEnum;

use super::app::{Access, App, Sets, connections_for};
use super::select::SelectArgs;
use super::template_args::TemplateArgs;
use crate::domain::plan::{Goal, OnFailure, SchemaState};
use crate::domain::script::Scope;
use crate::error::{Exit, Failure};
use crate::postgres::catalog::PostgresCatalog;
use crate::postgres::migrator::PostgresMigrator;
use crate::service::event::{EventKind, Interrupt, Progress, Summary};
use crate::service::fleet::{Fleet, Interrupts};
use crate::service::rollout::{Rollout, Scopes, Survey};
use crate::settings::Overrides;
use crate::ui::{Cell, Listing, OutputFormat, summary_document, write_document};

/// Migrate the shared schema, then every tenant
///
/// With --shared: public only. With --tenant or --exclude: those tenants only. With neither:
/// public first, then every tenant in parallel. A schema is wholly at the new version or
/// untouched; running again is always safe.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Migrate public only
    #[arg(long, conflicts_with_all = ["tenants", "exclude"])]
    shared: bool,
    #[command(flatten)]
    select: SelectArgs,
    /// Change nothing; exit 3 when something is pending
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
    /// Change nothing; list what would run where, or print the SQL
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "list", value_name = "WHAT")]
    dry_run: Option<DryRun>,
    /// Go no further than this version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
    to: Option<i64>,
    /// Record the pending migrations as applied without running them
    #[arg(long)]
    fake: bool,
    /// How many schemas at once: a number or auto
    #[arg(short, long, value_name = "N")]
    jobs: Option<String>,
    /// After a failed schema: stop or continue
    #[arg(long, value_name = "WHAT")]
    on_failure: Option<String>,
    /// How long a statement waits for a lock, such as 2s; 0 waits for ever
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
    /// How long to wait for a schema that another run holds
    #[arg(long, value_name = "TIME")]
    lock_wait: Option<String>,
    /// How long a statement may run; 0 is for ever
    #[arg(long, value_name = "TIME")]
    statement_timeout: Option<String>,
    #[command(flatten)]
    template: TemplateArgs,
    /// The summary on stdout when the run is over
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<SummaryFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    /// What would run where
    List,
    /// The exact SQL
    Sql,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SummaryFormat {
    /// One JSON document
    Json,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set("run.jobs", "--jobs", self.jobs.as_deref());
        overrides.set("run.on_failure", "--on-failure", self.on_failure.as_deref());
        overrides.set(
            "run.lock_timeout",
            "--lock-timeout",
            self.lock_timeout.as_deref(),
        );
        self.template.override_settings(overrides);
        overrides.set("run.lock_wait", "--lock-wait", self.lock_wait.as_deref());
        overrides.set(
            "run.statement_timeout",
            "--statement-timeout",
            self.statement_timeout.as_deref(),
        );
    }

    fn scopes(&self) -> Scopes {
        let selection = self.select.selection();
        match (self.shared, selection.is_everything()) {
            (true, _) => Scopes::Shared,
            (false, true) => Scopes::Everything,
            (false, false) => Scopes::Selected(selection),
        }
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let sets = app.sets()?;
    if let Some(version) = args.to {
        version_exists(version, args, &sets)?;
    }
    let only_reads = args.check || args.dry_run.is_some();
    let access = if only_reads {
        Access::Read
    } else {
        Access::Write
    };
    let database = app.database(access, 1).await?;
    let mut rules = app.rules(&database);
    rules.goal = args.to.map_or(Goal::Latest, Goal::Version);
    rules.fake = args.fake;
    let jobs = app.jobs(&database);
    database.resize(NonZeroUsize::new(connections_for(jobs.get())).unwrap_or(jobs));
    let migrator = app.migrator(&database, rules, &sets, jobs.get()).await?;
    let catalog = app.catalog(&database);
    let run = Migration {
        app,
        migrator: &migrator,
        catalog: &catalog,
        jobs,
        on_failure: app.settings.on_failure,
        scopes: args.scopes(),
    };
    if args.check {
        return Ok(check(&run.survey().await?, app));
    }
    match args.dry_run {
        Some(DryRun::List) => list(&run.survey().await?, &sets, app),
        Some(DryRun::Sql) => sql(&run.survey().await?, &migrator, app),
        None => {
            let summary = run.run().await?;
            if args.output == Some(SummaryFormat::Json) {
                write_document(&mut app.terminal.out(), &summary_document(&summary)?)?;
            }
            Ok(Exit::of(&summary))
        }
    }
}

/// A migration run with everything that it needs.
pub(super) struct Migration<'a> {
    pub(super) app: &'a App,
    pub(super) migrator: &'a Arc<PostgresMigrator>,
    pub(super) catalog: &'a PostgresCatalog,
    pub(super) jobs: NonZeroUsize,
    pub(super) on_failure: OnFailure,
    pub(super) scopes: Scopes,
}

impl Migration<'_> {
    async fn survey(&self) -> Result<Survey, Failure> {
        let (_nobody, interrupts) = Interrupts::new();
        Ok(self.rollout(interrupts).survey().await?)
    }

    fn rollout(&self, interrupts: Interrupts) -> Rollout<'_, PostgresMigrator, PostgresCatalog> {
        Rollout {
            migrator: self.migrator,
            catalog: self.catalog,
            fleet: Fleet {
                jobs: self.jobs,
                on_failure: self.on_failure,
                interrupts,
            },
            scopes: self.scopes.clone(),
        }
    }

    /// Migrates, with a reporter that shows it and signals that end it.
    pub(super) async fn run(&self) -> Result<Summary, Failure> {
        let (interrupter, interrupts) = Interrupts::new();
        let (progress, mut events) = Progress::channel();
        let mut reporter = self.app.terminal.reporter(self.app.progress);
        let showing = tokio::task::spawn_blocking(move || {
            let mut readable = true;
            while let Some(event) = events.blocking_recv() {
                // Nobody reads any more; the run goes on all the same.
                readable = readable && reporter.on(&event).is_ok();
            }
            (reporter, readable)
        });
        let heard = progress.clone();
        let signals = tokio::spawn(async move {
            let mut presses = Presses::listen()?;
            loop {
                presses.next().await;
                let before = interrupter.level();
                if before == Interrupt::Cancel {
                    // A third press: whoever presses has no time left. The server rolls back what is open.
                    return Ok::<Exit, std::io::Error>(Exit::Interrupted);
                }
                let level = interrupter.raise();
                heard.send(EventKind::Interrupted { level });
            }
        });
        let abort = signals.abort_handle();
        let rollout = self.rollout(interrupts);
        let summary = tokio::select! {
            summary = rollout.run(&progress) => Some(summary),
            _ = signals => None,
        };
        abort.abort();
        drop(progress);
        let Some(summary) = summary else {
            return Err(Failure::words(
                Exit::Interrupted,
                "interrupted three times; running transactions are rolled back by the server",
            ));
        };
        let shown = showing.await;
        let summary = summary?;
        if let Ok((mut reporter, true)) = shown {
            // As above.
            let _ = reporter.finish(&summary);
        }
        Ok(summary)
    }
}

/// Ctrl-C, SIGTERM and SIGHUP, which mean the same.
struct Presses {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

impl Presses {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// A version that no file has would silently mean another one.
fn version_exists(version: i64, args: &Args, sets: &Sets) -> Result<(), Failure> {
    let set = if args.shared {
        &sets.shared
    } else {
        &sets.tenant
    };
    let others = !args.shared && args.select.selection().is_everything();
    let known =
        |ids: &[crate::domain::script::ScriptId]| ids.iter().any(|id| id.version == version);
    if version == 0 || known(set.ids()) || (others && known(sets.shared.ids())) {
        return Ok(());
    }
    let newest = set.ids().iter().map(|id| id.version).max();
    let failure = Failure::words(
        Exit::Usage,
        format!("no migration has the version {version}"),
    );
    Err(match newest {
        Some(newest) => failure.hint(format!("the newest is {newest}")),
        None => failure,
    })
}

fn check(survey: &Survey, app: &App) -> Exit {
    let mut at_odds = survey.refused.len();
    for item in &survey.schemas {
        match &item.state {
            SchemaState::Known(_) => {}
            SchemaState::Missing => {
                at_odds += 1;
                app.terminal.warn(&format!(
                    "{}: the schema does not exist",
                    item.target.schema
                ));
            }
            SchemaState::Drifted(drifts, _) => {
                at_odds += 1;
                for drift in drifts {
                    app.terminal
                        .warn(&format!("{}: {drift}", item.target.schema));
                }
            }
            SchemaState::Damaged(why) => {
                at_odds += 1;
                app.terminal.warn(&format!(
                    "{}: the history is damaged: {why}",
                    item.target.schema
                ));
            }
        }
    }
    for row in &survey.refused {
        app.terminal
            .warn(&format!("tenant '{}': {}", row.slug, row.reason));
    }
    let (pending, all) = (
        survey.pending(),
        survey.schemas.len() + survey.refused.len(),
    );
    app.terminal.note(&format!(
        "{}: {pending} with pending migrations, {at_odds} at odds",
        crate::ui::count(all, "schema")
    ));
    match (at_odds, pending) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Pending,
        _ => Exit::Drift,
    }
}

fn list(survey: &Survey, sets: &Sets, app: &App) -> Result<Exit, Failure> {
    let listing = Listing::new(&["schema", "migration", "file"], "nothing would run");
    let mut rows = Vec::new();
    for item in &survey.schemas {
        let set = match item.target.scope {
            Scope::Shared => &sets.shared,
            Scope::Tenant => &sets.tenant,
        };
        match &item.state {
            SchemaState::Known(plan) => {
                for script in plan.pending.iter().map(|&index| &set.scripts()[index]) {
                    rows.push(vec![
                        Cell::Text(item.target.schema.to_string()),
                        Cell::Text(script.id.to_string()),
                        Cell::Text(script.path.display().to_string()),
                    ]);
                }
            }
            SchemaState::Missing => app.terminal.warn(&format!(
                "{}: the schema does not exist",
                item.target.schema
            )),
            SchemaState::Drifted(drifts, _) => {
                for drift in drifts {
                    app.terminal
                        .warn(&format!("{}: {drift}", item.target.schema));
                }
            }
            SchemaState::Damaged(why) => {
                app.terminal.warn(&format!("{}: {why}", item.target.schema));
            }
        }
    }
    listing.write(&app.terminal, OutputFormat::Table, rows)?;
    Ok(Exit::Done)
}

fn sql(survey: &Survey, migrator: &PostgresMigrator, app: &App) -> Result<Exit, Failure> {
    use std::io::Write as _;
    let mut out = app.terminal.out();
    for item in &survey.schemas {
        if let SchemaState::Known(plan) = &item.state {
            out.write_all(migrator.preview(&item.target, plan).as_bytes())?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}
