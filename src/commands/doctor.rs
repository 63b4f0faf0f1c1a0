//! `doctor`: compares the catalog, the schemas and the ledger.

use std::sync::Arc;

use clap::ValueEnum;

use super::args::output::OutputArg;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::tenants::new_target;
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::hint::Hint;
use crate::domain::schema_name::{QuotedIdentifier, SchemaName, TRASH_PREFIX};
use crate::domain::schema_state::SchemaState;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Slug};
use crate::error::{Exit, Failure};
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::catalog::{InvalidIndex, PostgresCatalog};
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::tenants::trash::TrashState;
use crate::service::event::Progress;
use crate::service::rollout::RolloutError;
use crate::service::selection::target;
use crate::ui::{Cell, Listing, count, explain};

/// Find missing schemas, schemas without a tenant, and invalid indexes
///
/// Also finds unfinished drops, damaged histories, and a ledger that disagrees with a history.
/// Changes nothing without --fix, and never drops anything. Exit 11 if a finding remains.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What to fix
    #[arg(long, value_enum, value_name = "WHAT")]
    fix: Option<Fix>,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fix {
    /// Create missing schemas, empty; migrate-schemas fills them
    Missing,
    /// Rebuild the ledger from the histories
    Ledger,
    /// Register schemas without a tenant; slug and name are the schema's name
    Orphans,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let sets = app.sets()?;
        let access = if self.fix.is_some() {
            Access::Write
        } else {
            Access::Read
        };
        let database = app.database(access, 2).await?;
        let catalog = app.catalog(&database);
        let list = catalog.list_briefly().await?;
        let mut targets = vec![Arc::new(Target::public())];
        targets.extend(list.tenants.iter().map(target));
        let migrator = app
            .migrator(&database, app.engine_options(&database), &sets, access, 1)
            .await?;
        let mut findings = Findings::default();
        self.check_histories(&targets, &migrator, &catalog, app, &mut findings)
            .await?;
        for invalid in catalog.invalid_indexes().await? {
            let mut targets = targets.iter();
            let target = targets.find(|target| target.schema.as_str() == invalid.schema);
            let tenant = target.map_or("", |target| &*target.label);
            findings.remaining(&invalid.schema, tenant, &index_finding(&invalid));
        }
        for row in &list.refused {
            findings.remaining(&row.schema, &row.slug, &row.reason.to_string());
        }
        self.check_orphans(&catalog, app, &mut findings).await?;
        check_trash(&catalog, app, &mut findings).await?;
        let Findings { rows, fixed } = findings;
        let remaining = rows.len() - fixed;
        Listing::new(&["schema", "tenant", "finding"], "nothing found").write(
            &app.terminal,
            self.output.format(),
            rows,
        )?;
        let next = Hint::command("next", "migrate-schemas");
        let next = app.terminal.render(&next);
        match self.fix {
            Some(Fix::Orphans) if fixed > 0 => app.terminal.note(&format!(
                "{} registered, {remaining} of all findings remain; {next}",
                count(fixed, "tenant")
            )),
            Some(Fix::Missing) if fixed > 0 => app
                .terminal
                .note(&format!("{} created; {next}", count(fixed, "schema"))),
            _ => {}
        }
        Ok(if remaining == 0 {
            Exit::Done
        } else {
            Exit::Drift
        })
    }
}

impl Args {
    /// Compares schemas, histories, files and the ledger; fixes missing schemas and the ledger.
    async fn check_histories(
        &self,
        targets: &[Arc<Target>],
        migrator: &PostgresMigrator,
        catalog: &PostgresCatalog,
        app: &App,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let verified = migrator.verify(targets).await;
        let verified = verified.map_err(RolloutError::Survey)?;
        for &position in &verified.disagreeing {
            let Target { schema, label, .. } = &*targets[position];
            if self.fix == Some(Fix::Ledger) {
                let finding = "the ledger disagreed with its history; rebuilt";
                findings.fixed(schema.as_str(), label, finding);
            } else {
                let finding = "the ledger disagrees with its history";
                findings.remaining(schema.as_str(), label, finding);
            }
        }
        if self.fix == Some(Fix::Ledger) {
            let covered = migrator.rebuild_ledger(targets).await;
            let covered = covered.map_err(RolloutError::Survey)?;
            app.terminal
                .note(&format!("the ledger covers {}", count(covered, "schema")));
        }
        for (target, state) in targets.iter().zip(verified.states) {
            let (schema, label) = (target.schema.as_str(), &target.label);
            if state == SchemaState::Missing && self.fix == Some(Fix::Missing) {
                catalog.create_schema(&target.schema).await?;
                findings.fixed(schema, label, "the schema was missing; created, empty");
                continue;
            }
            let selection = Target::option(std::iter::once(&**target));
            let problems = app.terminal.problems(&state, &selection);
            if !problems.is_empty() {
                findings.remaining(schema, label, &problems.join("; "));
            }
        }
        Ok(())
    }

    /// Finds schemas that look like a tenant's but have none; registers them.
    async fn check_orphans(
        &self,
        catalog: &PostgresCatalog,
        app: &App,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let settings = &app.settings;
        let orphans = catalog.orphans(
            &settings.catalog.schema_prefix,
            &settings.history_table,
            &settings.search_path,
        );
        let finding = "looks like a tenant's schema, but no tenant has it";
        for orphan in orphans.await? {
            if self.fix != Some(Fix::Orphans) {
                findings.remaining(&orphan, "", finding);
                continue;
            }
            match register(&orphan, app, catalog).await {
                Ok(slug) => {
                    let finding = "registered as a tenant, without a host";
                    findings.fixed(&orphan, slug.as_str(), finding);
                }
                Err(why) => {
                    findings.remaining(&orphan, "", &format!("{finding}; not registered: {why}"));
                }
            }
        }
        Ok(())
    }
}

/// The rows of the listing.
#[derive(Default)]
struct Findings {
    rows: Vec<Vec<Cell>>,
    /// How many of them were fixed.
    fixed: usize,
}

impl Findings {
    fn remaining(&mut self, schema: &str, tenant: &str, finding: &str) {
        let text = |text: &str| Cell::Text(text.to_owned());
        let tenant = Cell::maybe((!tenant.is_empty()).then(|| tenant.to_owned()));
        self.rows.push(vec![text(schema), tenant, text(finding)]);
    }

    fn fixed(&mut self, schema: &str, tenant: &str, finding: &str) {
        self.fixed += 1;
        self.remaining(schema, tenant, finding);
    }
}

/// Describes an index whose build did not finish, with the statements that fix it.
fn index_finding(invalid: &InvalidIndex) -> String {
    let [schema, index] = [&invalid.schema, &invalid.index].map(|name| QuotedIdentifier::new(name));
    let (statement, or_rebuild) = if invalid.is_spare() {
        ("REINDEX CONCURRENTLY", String::new())
    } else {
        (
            "CREATE INDEX CONCURRENTLY",
            format!(", or rebuild it: REINDEX INDEX CONCURRENTLY {schema}.{index}"),
        )
    };
    format!(
        "index '{}' on '{}' is invalid after a failed {statement}; drop it: DROP INDEX CONCURRENTLY {schema}.{index}{or_rebuild}",
        invalid.index, invalid.table
    )
}

/// Finds what in the trash can neither be restored nor is purged.
async fn check_trash(
    catalog: &PostgresCatalog,
    app: &App,
    findings: &mut Findings,
) -> Result<(), Failure> {
    for trashed in catalog.trashed().await? {
        let place = trashed.place();
        let finding = match trashed.state {
            TrashState::Whole => continue,
            TrashState::Purging => "its purge did not finish; finish it",
            TrashState::SchemaMissing => "in the trash, but its schema is gone; remove the record",
        };
        let finding = Hint::command(finding, format!("purge --tenant {place}"));
        let finding = app.terminal.render(&finding);
        findings.remaining(place.as_str(), &trashed.slug, &finding);
    }
    for stray in catalog.strays().await? {
        let finding = if stray.starts_with(TRASH_PREFIX) {
            "in the trash without a record; rename it and create-tenant --adopt it, or drop it"
        } else {
            "left by a drop whose tenant row is gone; drop it: DROP SCHEMA ... CASCADE"
        };
        findings.remaining(&stray, "", finding);
    }
    Ok(())
}

/// Registers a schema as a tenant; the error says why that is not possible.
async fn register(orphan: &str, app: &App, catalog: &PostgresCatalog) -> Result<Slug, String> {
    let prefix = &app.settings.catalog.schema_prefix;
    let schema = SchemaName::parse(orphan).map_err(|error| error.to_string())?;
    let rest = orphan
        .strip_prefix(prefix.as_str())
        .ok_or_else(|| format!("its name does not start with '{prefix}'"))?;
    let slug = Slug::parse(rest).map_err(|error| error.to_string())?;
    let new = NewTenant {
        name: slug.as_str().to_owned(),
        slug,
        schema,
        hostnames: Vec::new(),
        columns: Vec::new(),
    };
    let (progress, _events) = Progress::channel();
    let options = app.engine_options(catalog.database());
    match catalog.adopt(&new, None, &options, &progress).await {
        Ok(_) => Ok(new.slug),
        Err(ChangeError::Catalog(error)) => Err(error.to_string()),
        Err(ChangeError::Migrate(error)) => Err(explain(&error, &new_target(&new), &[]).message()),
        Err(error) => Err(Failure::from(error).cause.to_string()),
    }
}
