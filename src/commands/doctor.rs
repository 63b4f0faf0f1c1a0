//! `doctor`: rows without schemas, schemas without rows.

use clap::ValueEnum;

use super::run::app::{Access, App};
use super::{Output, create_tenant};
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::hint::Hint;
use crate::domain::schema_name::{QuotedIdentifier, SchemaName, TRASH_PREFIX};
use crate::domain::schema_state::SchemaState;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Slug};
use crate::error::{Exit, Failure};
use crate::postgres::tenants::catalog::{InvalidIndex, PostgresCatalog};
use crate::postgres::tenants::create::CreateError;
use crate::postgres::tenants::trash::TrashState;
use crate::service::event::Progress;
use crate::service::rollout::RolloutError;
use crate::service::selection::target;
use crate::ui::{Cell, Listing, count, explain};

/// Find tenants whose schema is missing or half dropped, schemas that belong to no tenant, and
/// indexes that are invalid because their building did not end
///
/// Changes nothing unless --fix is given, and never drops anything. Exit 11 when something is
/// found and stays.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What to mend
    #[arg(long, value_enum, value_name = "WHAT")]
    fix: Option<Fix>,
    /// The shape of the listing
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fix {
    /// Create the schemas that tenants lack, empty; migrate-schemas then fills them
    Missing,
    /// Write the ledger anew from the histories
    Ledger,
    /// Register schemas that no tenant has as tenants: slug and name from the schema's name, no host
    Orphans,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let sets = app.sets()?;
    let access = if args.fix.is_some() {
        Access::Write
    } else {
        Access::Read
    };
    let database = app.database(access, 2).await?;
    let catalog = app.catalog(&database);
    let list = catalog.list_briefly().await?;
    let mut targets = vec![std::sync::Arc::new(Target::public())];
    targets.extend(list.tenants.iter().map(target));
    let migrator = app
        .migrator(&database, app.engine_options(&database), &sets, access, 1)
        .await?;
    let verified = migrator
        .verify(&targets)
        .await
        .map_err(RolloutError::Survey)?;
    let mut rows = Vec::new();
    let mut left = 0;
    for &position in &verified.disagreeing {
        let target = &targets[position];
        let finding = if args.fix == Some(Fix::Ledger) {
            "the ledger was wrong about it; written anew"
        } else {
            left += 1;
            "the ledger says something else than its history"
        };
        rows.push(finding_row(target.schema.as_str(), &target.label, finding));
    }
    if args.fix == Some(Fix::Ledger) {
        let answered = migrator
            .rebuild_ledger(&targets)
            .await
            .map_err(RolloutError::Survey)?;
        app.terminal.note(&format!(
            "the ledger answers for {}",
            count(answered, "schema")
        ));
    }
    for (target, state) in targets.iter().zip(verified.states) {
        let finding = match state {
            SchemaState::Missing if args.fix == Some(Fix::Missing) => {
                catalog.create_schema(&target.schema).await?;
                "the schema was missing; created, empty".to_owned()
            }
            state => {
                let selection = Target::option(std::iter::once(&**target));
                let problems = app.terminal.problems(&state, &selection);
                if problems.is_empty() {
                    continue;
                }
                left += 1;
                problems.join("; ")
            }
        };
        rows.push(finding_row(target.schema.as_str(), &target.label, &finding));
    }
    for invalid in catalog.invalid_indexes().await? {
        left += 1;
        let of = targets
            .iter()
            .find(|target| target.schema.as_str() == invalid.schema);
        let tenant = of.map_or("", |target| &*target.label);
        rows.push(finding_row(&invalid.schema, tenant, &about_index(&invalid)));
    }
    for row in &list.refused {
        left += 1;
        rows.push(finding_row(&row.schema, &row.slug, &row.reason.to_string()));
    }
    for orphan in catalog
        .orphans(
            &app.settings.catalog.schema_prefix,
            &app.settings.history_table,
            &app.settings.search_path,
        )
        .await?
    {
        let registered = match args.fix {
            Some(Fix::Orphans) => Some(register(&orphan, app, &catalog).await),
            _ => None,
        };
        let stays = "looks like a tenant's schema, and no tenant has it";
        rows.push(match registered {
            Some(Ok(slug)) => {
                finding_row(&orphan, slug.as_str(), "registered as a tenant; no host")
            }
            Some(Err(why)) => {
                left += 1;
                finding_row(&orphan, "", &format!("{stays}; not registered: {why}"))
            }
            None => {
                left += 1;
                finding_row(&orphan, "", stays)
            }
        });
    }
    let about_trash = trash_findings(&catalog, app).await?;
    left += about_trash.len();
    rows.extend(about_trash);
    let fixed = rows.len() - left;
    Listing::new(&["schema", "tenant", "finding"], "nothing found").write(
        &app.terminal,
        args.output.into(),
        rows,
    )?;
    let next = app
        .terminal
        .render(&Hint::command("next", "migrate-schemas"));
    match args.fix {
        Some(Fix::Orphans) if fixed > 0 => app.terminal.note(&format!(
            "{} registered, {left} of all findings left; {next}",
            count(fixed, "tenant")
        )),
        Some(Fix::Missing) if fixed > 0 => app
            .terminal
            .note(&format!("{} created; {next}", count(fixed, "schema"))),
        _ => {}
    }
    Ok(if left == 0 { Exit::Done } else { Exit::Drift })
}

/// What to do about an index whose building did not end.
fn about_index(invalid: &InvalidIndex) -> String {
    let [schema, index] = [&invalid.schema, &invalid.index].map(|name| QuotedIdentifier::new(name));
    let (left_by, then) = if invalid.is_spare() {
        ("REINDEX CONCURRENTLY", String::new())
    } else {
        (
            "CREATE INDEX CONCURRENTLY",
            format!(", or build it: REINDEX INDEX CONCURRENTLY {schema}.{index}"),
        )
    };
    format!(
        "index '{}' on '{}' is invalid, left by {left_by}; drop it: DROP INDEX CONCURRENTLY {schema}.{index}{then}",
        invalid.index, invalid.table
    )
}

/// What in the trash can neither be brought back nor is gone.
async fn trash_findings(catalog: &PostgresCatalog, app: &App) -> Result<Vec<Vec<Cell>>, Failure> {
    let mut rows = Vec::new();
    for trashed in catalog.trashed().await? {
        let place = trashed.place();
        let finding = match trashed.state {
            TrashState::Whole => continue,
            TrashState::Purging => "its purge did not finish; finish it",
            TrashState::SchemaMissing => "in the trash, but its schema is gone; remove the record",
        };
        let finding = Hint::command(finding, format!("purge --tenant {place}"));
        rows.push(finding_row(
            place.as_str(),
            &trashed.slug,
            &app.terminal.render(&finding),
        ));
    }
    for stray in catalog.strays().await? {
        let finding = if stray.starts_with(TRASH_PREFIX) {
            "in the trash, and its record is gone; rename it and create-tenant --adopt it, or drop it"
        } else {
            "what is left of a drop, and the tenant's row is gone; drop it: DROP SCHEMA ... CASCADE"
        };
        rows.push(finding_row(&stray, "", finding));
    }
    Ok(rows)
}

/// Makes a tenant of a schema that nobody has. What keeps it from that is for people to read.
async fn register(orphan: &str, app: &App, catalog: &PostgresCatalog) -> Result<Slug, String> {
    let prefix = &app.settings.catalog.schema_prefix;
    let schema = SchemaName::parse(orphan).map_err(|error| error.to_string())?;
    let rest = orphan
        .strip_prefix(prefix.as_str())
        .ok_or_else(|| format!("its name does not begin with '{prefix}'"))?;
    let slug = Slug::parse(rest).map_err(|error| error.to_string())?;
    let new = NewTenant {
        name: slug.as_str().to_owned(),
        slug,
        schema,
        hostnames: Vec::new(),
        columns: Vec::new(),
    };
    let (progress, _nobody) = Progress::channel();
    let engine_options = app.engine_options(catalog.database());
    match catalog.adopt(&new, None, &engine_options, &progress).await {
        Ok(_) => Ok(new.slug),
        Err(CreateError::Catalog(error)) => Err(error.to_string()),
        Err(CreateError::Migrate(error)) => {
            Err(explain(&error, &create_tenant::target(&new), &[]).message())
        }
    }
}

fn finding_row(schema: &str, tenant: &str, finding: &str) -> Vec<Cell> {
    let tenant = if tenant.is_empty() {
        Cell::Absent
    } else {
        Cell::Text(tenant.to_owned())
    };
    let finding = Cell::Text(finding.to_owned());
    vec![Cell::Text(schema.to_owned()), tenant, finding]
}
