//! `undrop`: a tenant back from the trash.

use std::io::Write as _;

use super::drop_schema::not_begun;
use super::run::app::{Access, App};
use crate::domain::catalog::CatalogError;
use crate::domain::hint::Hint;
use crate::domain::schema_state::SchemaState;
use crate::domain::tenant::Tenant;
use crate::error::{Exit, Failure};
use crate::postgres::connection::database::Database;
use crate::postgres::tenants::drop::DropError;
use crate::postgres::tenants::trash::{TrashState, Trashed};
use crate::service::fleet::SchemaMigrator as _;
use crate::service::selection::target;
use crate::ui::{clean, count, shell_word};

/// Bring a tenant back from the trash: its schema's name, its row, its hosts
///
/// All of it or nothing: where the slug, the schema's name or a host is somebody else's by now,
/// nothing is changed. pricesync list-tenants --trashed shows who is there.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tenant: its slug, its schema, or what its schema is called in the trash
    #[arg(long, short = 't', value_name = "TENANT")]
    tenant: String,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let database = app.database(Access::Write, 2).await?;
    let catalog = app.catalog(&database);
    let trashed = in_trash(&args.tenant, &catalog.trashed().await?)?;
    let place = trashed.place();
    let tenant = catalog
        .undrop(&trashed, &app.engine_options(&database))
        .await
        .map_err(|error| {
            if let DropError::Catalog(taken @ CatalogError::AlreadyExists { .. }) = error {
                // What to do instead when a tenant is created would not help.
                return Failure::new(Exit::Refused, taken).hint(format!(
                    "tenant '{}' stays in the trash as {place}; drop, rename or change what is in its place",
                    trashed.slug
                ));
            }
            if let DropError::Catalog(unset @ CatalogError::ColumnRequired { .. }) = error {
                return Failure::new(Exit::Refused, unset).hint(format!(
                    "tenant '{}' stays in the trash as {place}; its record does not know the column: give it a default first",
                    trashed.slug
                ));
            }
            let failure = not_begun(error);
            if trashed.state == TrashState::SchemaMissing {
                failure.hint(Hint::command("remove its record", format!("purge --tenant {place}")))
            } else {
                failure
            }
        })?;
    let mut out = app.terminal.out();
    let back = format!(
        "✓ Restored: {} (slug={}, schema={}, {})",
        tenant.name,
        tenant.slug,
        tenant.schema,
        count(tenant.hostnames.len(), "host")
    );
    writeln!(out, "{}", clean(&back))?;
    out.flush()?;
    tell_pending(&tenant, app, &database).await;
    Ok(Exit::Done)
}

/// It may have missed migrations meanwhile.
pub(super) async fn tell_pending(tenant: &Tenant, app: &App, database: &Database) {
    if let Err(failure) = look_for_pending(tenant, app, database).await {
        // The tenant is back, whatever keeps us from looking further.
        app.terminal.warn(&format!(
            "what is pending is not known: {:#}",
            failure.cause
        ));
    }
}

async fn look_for_pending(tenant: &Tenant, app: &App, database: &Database) -> Result<(), Failure> {
    let sets = app.sets()?;
    let migrator = app
        .migrator(
            database,
            app.engine_options(database),
            &sets,
            Access::Read,
            1,
        )
        .await?;
    let states = migrator
        .survey(&[target(tenant)])
        .await
        .map_err(crate::service::rollout::RolloutError::Survey)?;
    let selection = format!("--tenant {}", shell_word(tenant.slug.as_str()));
    match states.first() {
        Some(SchemaState::Known(plan)) if !plan.pending.is_empty() => {
            app.terminal.hint(&Hint::command(
                format!("{} pending; next", count(plan.pending.len(), "migration")),
                format!("migrate-schemas {selection}"),
            ));
        }
        Some(
            state @ (SchemaState::Drifted(..) | SchemaState::Damaged(_) | SchemaState::Locked(_)),
        ) => {
            for problem in app.terminal.problems(state, &selection) {
                app.terminal.warn(&problem);
            }
        }
        // Dropped again in the meantime.
        _ => {}
    }
    Ok(())
}

/// Returns the one in the trash that a word names exactly.
pub(super) fn in_trash(word: &str, trash: &[Trashed]) -> Result<Trashed, Failure> {
    let named: Vec<&Trashed> = trash
        .iter()
        .filter(|trashed| {
            let names =
                [&*trashed.slug, &*trashed.schema, trashed.place().as_str()].contains(&word);
            names && !word.is_empty()
        })
        .collect();
    match named.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Failure::words(
            Exit::NotFound,
            format!("nobody in the trash has the slug or schema '{word}'"),
        )
        .hint(Hint::command("list the trash", "list-tenants --trashed"))),
        several => {
            let places: Vec<String> = several
                .iter()
                .map(|trashed| format!("{} ({})", trashed.place(), trashed.trashed_at))
                .collect();
            Err(Failure::words(
                Exit::Refused,
                format!(
                    "'{word}' is in the trash {}: {}",
                    count(several.len(), "time"),
                    places.join(", ")
                ),
            )
            .hint("say which, by the name that its schema has in the trash"))
        }
    }
}
