//! What to do in a database without the configured table of tenants.

use std::fmt::Write as _;

use super::app::{Access, App};
use crate::domain::catalog::CatalogError;
use crate::domain::hint::Hint;
use crate::error::Failure;
use crate::postgres::report::contents::Contents;

/// Adds to a failure for want of the tenant tables what the database holds instead. Proposes to create
/// tables only in an empty database.
pub(crate) async fn explained(failure: Failure, app: &App) -> Failure {
    let causes = failure.cause.chain().map(|cause| cause.downcast_ref());
    if !causes.flatten().any(|cause| matches!(cause, CatalogError::TablesMissing(_))) {
        return failure;
    }
    let Some(contents) = contents(app).await else {
        return failure;
    };
    let Contents { database, schemas, first_schemas, candidates, .. } = &contents;
    if contents.is_empty() {
        let creates_tables = app.sets().is_ok_and(|sets| !sets.shared.ids().is_empty());
        return failure.hint(if creates_tables {
            Hint::command("create the shared tables first", "migrate-schemas --shared")
        } else {
            let dir = app.settings.shared_dir.display();
            Hint::command(
                format!("write a file in {dir} that creates it; a project that has one"),
                "init --example FOLDER",
            )
        });
    }
    let more = schemas.saturating_sub(first_schemas.len());
    let more = if more == 0 { String::new() } else { format!(", +{more}") };
    let mut holds = match schemas {
        0 => format!("the database '{database}' holds other tables"),
        1 => format!("the database '{database}' holds the schema {}", first_schemas.join(", ")),
        _ => format!(
            "the database '{database}' holds {schemas} schemas ({}{more})",
            first_schemas.join(", ")
        ),
    };
    if !candidates.is_empty() {
        let _ = write!(holds, "; tenants may be listed in {}", candidates.join(", "));
    }
    let keys =
        "name the table of tenants and its columns under [catalog] in pricesync.toml; all keys";
    failure.hint(holds).hint(Hint::command(keys, "config"))
}

/// Returns what the database holds; `None` if that cannot be read.
async fn contents(app: &App) -> Option<Contents> {
    let database = app.database(Access::Read, 1).await.ok()?;
    let options = app.engine_options(&database);
    Contents::read(&database, &options.history_table).await.ok()
}
