//! Tenants that a command names or selects.

use crate::commands::args::select::Selectors;
use crate::domain::catalog::{CatalogError, TenantCatalog as _};
use crate::domain::hint::Hint;
use crate::domain::schema_state::SchemaState;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Tenant, TenantList};
use crate::error::Failure;
use crate::postgres::connection::database::Database;
use crate::postgres::tenants::catalog::PostgresCatalog;
use crate::postgres::tenants::drop::Presence;
use crate::service::fleet::SchemaMigrator as _;
use crate::service::rollout::RolloutError;
use crate::service::selection::{find, nearest, target};
use crate::ui::{count, shell_word};

use super::app::{Access, App};

/// Returns the tenant with exactly this slug, schema or host.
///
/// # Errors
///
/// Exit 4 for no such tenant, with similar slugs as a hint.
pub(crate) fn find_tenant(word: &str, list: TenantList) -> Result<Tenant, Failure> {
    let slugs = list.tenants.iter().map(|tenant| tenant.slug.to_string());
    let slugs: Vec<String> = slugs.collect();
    find(word, list).map_err(|error| {
        let near = nearest(word, &slugs);
        let hint = (!near.is_empty()).then(|| format!("did you mean {}?", near.join(", ")));
        Failure::from(error).hints(hint)
    })
}

/// Returns the tenant with exactly this slug, schema or host, if its schema exists. With a missing
/// schema in it, a search path would lead to `public`.
///
/// # Errors
///
/// As [`find_tenant`] and [`require_schema`].
pub(crate) async fn find_with_schema(
    word: &str,
    app: &App,
    database: &Database,
) -> Result<Tenant, Failure> {
    let catalog = app.catalog(database);
    let tenant = find_tenant(word, catalog.list().await?)?;
    require_schema(&tenant, &catalog).await?;
    Ok(tenant)
}

/// Checks that the tenant's schema exists.
///
/// # Errors
///
/// Exit 4 for a missing schema, exit 7 for one that is partly dropped.
pub(crate) async fn require_schema(
    tenant: &Tenant,
    catalog: &PostgresCatalog,
) -> Result<(), Failure> {
    match catalog.presence(tenant).await? {
        Presence::Exists => Ok(()),
        Presence::Dropping => Err(CatalogError::PartlyDropped(tenant.slug.to_string()).into()),
        Presence::Missing => Err(Failure::from(CatalogError::SchemaMissing(tenant.schema.clone()))
            .hint(SchemaState::missing_hint())),
    }
}

/// Returns the selected tenants, and warns of invalid rows of the tenant table.
pub(crate) async fn select_tenants(
    selectors: Selectors,
    catalog: &PostgresCatalog,
    app: &App,
) -> Result<Vec<Tenant>, Failure> {
    let list = catalog.list().await?;
    for row in &list.refused {
        app.terminal.warn(&format!("tenant '{}' (row {}): {}", row.slug, row.id, row.reason));
    }
    let selection = selectors.resolve(catalog).await?;
    Ok(selection.choose(list.tenants, &list.refused)?)
}

/// Returns the target for a tenant that does not exist yet.
pub(crate) fn new_target(new: &NewTenant) -> Target {
    Target { schema: new.schema.clone(), label: new.slug.as_str().to_owned(), scope: Scope::Tenant }
}

/// Prints how many migrations are pending for a tenant that was brought back.
pub(crate) async fn report_pending(tenant: &Tenant, app: &App, database: &Database) {
    if let Err(failure) = try_report_pending(tenant, app, database).await {
        app.terminal.warn(&format!("cannot read pending migrations: {:#}", failure.cause));
    }
}

async fn try_report_pending(
    tenant: &Tenant,
    app: &App,
    database: &Database,
) -> Result<(), Failure> {
    let sets = app.sets()?;
    let migrator =
        app.migrator(database, app.engine_options(database), &sets, Access::Read, 1).await?;
    let states = migrator.survey(&[target(tenant)]).await.map_err(RolloutError::Survey)?;
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
        // Dropped by another session in the meantime.
        _ => {}
    }
    Ok(())
}
