//! `purge`: permanently drops tenants in the trash.

use std::time::Duration;

use super::args::overrides::LockTimeoutArg;
use super::run::app::{Access, App};
use super::run::confirm::{confirm, contents_size, partly_done};
use super::run::jobs::run_in_turn;
use super::run::{CommandRun, print_line};
use super::undrop::find_in_trash;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::error::{Exit, Failure};
use crate::postgres::tenants::trash::Trashed;
use crate::service::event::Operation;
use crate::settings::{self, Overrides};
use crate::ui::count;

/// Permanently drop tenants in the trash
///
/// Drops one tenant, the tenants that have been in the trash for some time, or all. Shows what
/// would be lost and asks for confirmation; without a terminal it requires --force. Refuses a
/// schema that an object outside depends on. Run it again to finish an interrupted purge.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub(super) struct Args {
    /// The tenant: its slug, its schema, or its schema's name in the trash
    #[arg(long, short = 't', value_name = "TENANT", group = "which")]
    tenant: Option<String>,
    /// All tenants in the trash for at least this time, such as 30d
    #[arg(long, value_name = "TIME", value_parser = age, group = "which")]
    older_than: Option<Duration>,
    /// All tenants in the trash
    #[arg(long, group = "which")]
    all: bool,
    /// Skip the confirmation
    #[arg(long, visible_alias = "yes")]
    force: bool,
    /// Drop dependent objects outside the schema too, such as views in public
    #[arg(long)]
    cascade_outside: bool,
    #[command(flatten)]
    lock_timeout: LockTimeoutArg,
}

/// Parses a time; requires a unit, because a bare number would mean milliseconds.
fn age(text: &str) -> Result<Duration, String> {
    if text.trim().ends_with(|c: char| c.is_ascii_digit()) {
        return Err("expected a time with its unit, such as 12h or 30d".to_owned());
    }
    settings::age(text)
}

impl CommandRun for Args {
    fn override_settings(&self, overrides: &mut Overrides) {
        self.lock_timeout.override_settings(overrides);
    }

    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let database = app.database(Access::Write, 2).await?;
        let catalog = app.catalog(&database);
        let mut chosen = catalog.list_trash().await?;
        if let Some(word) = &self.tenant {
            chosen = vec![find_in_trash(word, &chosen)?];
        }
        if let Some(age) = self.older_than {
            let old = catalog.trash_older_than(age).await?;
            chosen.retain(|trashed| old.contains(&trashed.id));
        }
        if chosen.is_empty() {
            app.terminal.note("nothing to purge");
            return Ok(Exit::Done);
        }
        let mut words = Vec::with_capacity(chosen.len());
        for trashed in &chosen {
            let contents = catalog.contents_in_trash(trashed).await?;
            words.push(summary(trashed, &contents_size(&contents)));
        }
        if !self.force {
            let question = format!("this permanently drops:\n{}", words.join("\n"));
            let (expected, action) = match chosen.as_slice() {
                [one] => (one.slug.clone(), format!("purge tenant '{}'", one.slug)),
                several => {
                    let tenants = count(several.len(), "tenant");
                    (tenants.clone(), format!("purge {tenants}"))
                }
            };
            confirm(&question, &expected, &action, &app.terminal)?;
        }
        let targets: Vec<Target> = chosen.iter().map(target).collect();
        let results = run_in_turn(app, &database, PURGE, &targets, async |place, admin| {
            let purged = admin.purge(&chosen[place], self.cascade_outside);
            purged.await.map_err(partly_done)?;
            Ok(((), words[place].clone()))
        })
        .await?;
        let mut failures = Vec::new();
        for ((trashed, words), result) in chosen.iter().zip(&words).zip(results) {
            match result {
                Ok(()) => print_line(&app.terminal, format!("✓ Purged {words}"))?,
                Err(failure) if chosen.len() == 1 || failure.exit == Exit::Interrupted => {
                    return Err(failure);
                }
                Err(failure) => failures.push((trashed, failure)),
            }
        }
        for (trashed, failure) in &failures {
            app.terminal.error(&format!("{}: {:#}", trashed.slug, failure.cause));
        }
        if failures.is_empty() {
            return Ok(Exit::Done);
        }
        Err(Failure::words(
            Exit::SchemasFailed,
            format!("{} of {} not purged", failures.len(), chosen.len()),
        ))
    }
}

const PURGE: Operation = Operation { command: "purge", doing: "purging", done: None };

fn target(trashed: &Trashed) -> Target {
    Target { schema: trashed.trash_schema(), label: trashed.slug.clone(), scope: Scope::Tenant }
}

fn summary(trashed: &Trashed, measure: &str) -> String {
    format!(
        "tenant '{}': schema {} ({}), {measure}, in the trash since {}",
        trashed.slug,
        trashed.schema,
        trashed.trash_schema(),
        trashed.trashed_at
    )
}
