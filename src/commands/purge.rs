//! `purge`: schemas in the trash, for good.

use std::io::Write as _;
use std::time::Duration;

use super::drop_schema::{confirm, measure, not_finished};
use super::run::app::{Access, App};
use super::run::jobs::in_turn;
use super::undrop::in_trash;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::postgres::tenants::trash::Trashed;
use crate::service::event::Operation;
use crate::settings::{self, Overrides};
use crate::ui::{clean, count};

/// Drop tenants that are in the trash, for good
///
/// Takes one tenant, those that have been in the trash for some time, or all. Shows what would be lost
/// and asks; without a terminal it refuses unless --force is given. Refuses a schema that
/// something outside depends on. What was killed in the middle is finished by running it again.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub(super) struct Args {
    /// The tenant: its slug, its schema, or what its schema is called in the trash
    #[arg(long, short = 't', value_name = "TENANT", group = "which")]
    tenant: Option<String>,
    /// Those that were dropped at least so long ago, such as 30d
    #[arg(long, value_name = "TIME", value_parser = age, group = "which")]
    older_than: Option<Duration>,
    /// Every tenant in the trash
    #[arg(long, group = "which")]
    all: bool,
    /// Do not ask
    #[arg(long, visible_alias = "yes")]
    force: bool,
    /// Drop what depends on the schemas from outside too, such as views in public
    #[arg(long)]
    cascade_outside: bool,
    /// How long a statement waits for a lock, such as 2s; 0 waits for ever
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<String>,
}

impl Args {
    /// Notes the settings that were typed.
    pub(super) fn override_settings(&self, overrides: &mut Overrides) {
        overrides.set(
            "run.lock_timeout",
            "--lock-timeout",
            self.lock_timeout.as_deref(),
        );
    }
}

/// A bare number would be milliseconds, which nobody means who types 30 here.
fn age(text: &str) -> Result<Duration, String> {
    if text.trim().ends_with(|c: char| c.is_ascii_digit()) {
        return Err("a time with its unit, such as 12h or 30d".to_owned());
    }
    settings::age(text)
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let database = app.database(Access::Write, 2).await?;
    let catalog = app.catalog(&database);
    let mut chosen = catalog.trashed().await?;
    if let Some(word) = &args.tenant {
        chosen = vec![in_trash(word, &chosen)?];
    }
    if let Some(age) = args.older_than {
        let old = catalog.trashed_before(age).await?;
        chosen.retain(|trashed| old.contains(&trashed.id));
    }
    if chosen.is_empty() {
        app.terminal.note("nothing to purge");
        return Ok(Exit::Done);
    }
    let mut words = Vec::with_capacity(chosen.len());
    for trashed in &chosen {
        words.push(summary(
            trashed,
            &measure(&catalog.contents_in_trash(trashed).await?),
        ));
    }
    if !args.force {
        let question = format!("this drops for ever:\n{}", words.join("\n"));
        let (expected, what) = match chosen.as_slice() {
            [one] => (one.slug.clone(), format!("purging tenant '{}'", one.slug)),
            several => {
                let tenants = count(several.len(), "tenant");
                (tenants.clone(), format!("purging {tenants}"))
            }
        };
        confirm(&question, &expected, &what, app)?;
    }
    let engine_options = app.engine_options(&database);
    let targets: Vec<Target> = chosen.iter().map(target).collect();
    let results = in_turn(app, PURGE, &targets, async |place, progress| {
        let catalog = catalog.clone().telling(progress);
        let purged = catalog.purge(&chosen[place], args.cascade_outside, &engine_options);
        purged.await.map_err(not_finished)?;
        Ok(((), words[place].clone()))
    })
    .await?;
    let mut out = app.terminal.out();
    let mut failures = Vec::new();
    for ((trashed, words), result) in chosen.iter().zip(&words).zip(results) {
        match result {
            Ok(()) => writeln!(out, "✓ Purged {}", clean(words))?,
            Err(failure) if chosen.len() == 1 || failure.exit == Exit::Interrupted => {
                out.flush()?;
                return Err(failure);
            }
            Err(failure) => failures.push((trashed, failure)),
        }
    }
    out.flush()?;
    for (trashed, failure) in &failures {
        app.terminal
            .error(&format!("{}: {:#}", trashed.slug, failure.cause));
    }
    if failures.is_empty() {
        return Ok(Exit::Done);
    }
    Err(Failure::words(
        Exit::SchemasFailed,
        format!("{} of {} not purged", failures.len(), chosen.len()),
    ))
}

const PURGE: Operation = Operation {
    command: "purge",
    doing: "purging",
    done: None,
};

fn target(trashed: &Trashed) -> Target {
    Target {
        schema: trashed.place(),
        label: trashed.slug.clone(),
        scope: Scope::Tenant,
    }
}

fn summary(trashed: &Trashed, measure: &str) -> String {
    format!(
        "tenant '{}': schema {} ({}), {measure}, in the trash since {}",
        trashed.slug,
        trashed.schema,
        trashed.place(),
        trashed.trashed_at
    )
}
