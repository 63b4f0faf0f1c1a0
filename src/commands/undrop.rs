//! `undrop`: restores a tenant from the trash.

use super::run::app::{Access, App};
use super::run::confirm::rolled_back;
use super::run::tenants::report_pending;
use super::run::{CommandRun, print_line};
use crate::domain::catalog::CatalogError;
use crate::domain::hint::Hint;
use crate::error::{Exit, Failure};
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::tenants::trash::{TrashState, Trashed};
use crate::ui::count;

/// Restore a tenant from the trash: schema, row and hosts
///
/// If another tenant has the slug, the schema or a host by now, nothing is changed.
/// pricesync list-tenants --trashed lists the trash.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tenant: its slug, its schema, or its schema's name in the trash
    #[arg(long, short = 't', value_name = "TENANT")]
    tenant: String,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let database = app.database(Access::Write, 2).await?;
        let catalog = app.catalog(&database);
        let trashed = find_in_trash(&self.tenant, &catalog.list_trash().await?)?;
        let place = trashed.trash_schema();
        let tenant = app
            .change(&database, async |admin| admin.undrop(&trashed).await)
            .await?
            .map_err(|error| {
                if let ChangeError::Catalog(taken @ CatalogError::AlreadyExists { .. }) = error {
                    // The usual hint is for create-tenant.
                    return Failure::new(Exit::Refused, taken).hint(format!(
                        "tenant '{}' stays in the trash as {place}; first drop or rename the tenant in its place",
                        trashed.slug
                    ));
                }
                if let ChangeError::Catalog(unset @ CatalogError::ColumnRequired { .. }) = error {
                    return Failure::new(Exit::Refused, unset).hint(format!(
                        "tenant '{}' stays in the trash as {place}; its record has no value for the column: add a default first",
                        trashed.slug
                    ));
                }
                let is_gone = trashed.state == TrashState::SchemaMissing;
                rolled_back(error).hints(is_gone.then(|| {
                    Hint::command("remove its record", format!("purge --tenant {place}"))
                }))
            })?;
        let line = format!(
            "✓ Restored: {} (slug={}, schema={}, {})",
            tenant.name,
            tenant.slug,
            tenant.schema,
            count(tenant.hostnames.len(), "host")
        );
        print_line(&app.terminal, line)?;
        report_pending(&tenant, app, &database).await;
        Ok(Exit::Done)
    }
}

/// Returns the tenant in the trash with exactly this slug or schema.
///
/// # Errors
///
/// Exit 4 for no such tenant, exit 7 for several.
pub(super) fn find_in_trash(word: &str, trash: &[Trashed]) -> Result<Trashed, Failure> {
    let named: Vec<&Trashed> = trash
        .iter()
        .filter(|trashed| {
            let names =
                [&*trashed.slug, &*trashed.schema, trashed.trash_schema().as_str()].contains(&word);
            names && !word.is_empty()
        })
        .collect();
    match named.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Failure::words(
            Exit::NotFound,
            format!("no tenant in the trash has the slug or schema '{word}'"),
        )
        .hint(Hint::command("list the trash", "list-tenants --trashed"))),
        several => {
            let places: Vec<String> = several
                .iter()
                .map(|trashed| format!("{} ({})", trashed.trash_schema(), trashed.trashed_at))
                .collect();
            Err(Failure::words(
                Exit::Refused,
                format!(
                    "'{word}' is in the trash {}: {}",
                    count(several.len(), "time"),
                    places.join(", ")
                ),
            )
            .hint("use the name of its schema in the trash"))
        }
    }
}
