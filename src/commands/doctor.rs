//! `doctor`: compares the catalog, the schemas and the ledger.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use globset::{Glob, GlobMatcher};

use super::args::output::OutputArg;
use super::run::CommandRun;
use super::run::app::{Access, App};
use super::run::tenants::new_target;
use crate::domain::catalog::TenantCatalog as _;
use crate::domain::hint::Hint;
use crate::domain::schema_name::{QuotedIdentifier, SchemaName, TRASH_PREFIX};
use crate::domain::schema_state::SchemaState;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Slug, TenantList};
use crate::error::{Exit, Failure};
use crate::migrations::created_by_tenants;
use crate::postgres::migrate::migrator::PostgresMigrator;
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::catalog::{InvalidIndex, PostgresCatalog};
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::tenants::trash::TrashState;
use crate::service::rollout::RolloutError;
use crate::service::selection::target;
use crate::ui::{Cell, Listing, count, explain};

/// Find missing schemas, orphaned schemas and invalid indexes
///
/// Also finds unfinished drops, damaged histories, and a ledger that disagrees with a history.
/// Changes nothing without --fix, and never drops anything. Exit 11 if a finding remains.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Schemas to register with --fix orphans: names or globs
    #[arg(value_name = "SCHEMA", requires = "fix", required_if_eq("fix", "orphans"))]
    schemas: Vec<String>,
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
    /// Register the named schemas as tenants
    Orphans,
}

/// How often the schemas' locks are read between the two inspections.
const LOCK_READS: usize = 4;

/// How long to pause after each time. A drop that retries releases the lock for up to 200 ms.
const PAUSE: Duration = Duration::from_millis(100);

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        if self.fix != Some(Fix::Orphans) && !self.schemas.is_empty() {
            return Err(Failure::words(Exit::Usage, "schemas are named for --fix orphans only"));
        }
        let named: Vec<SchemaPattern> = self.schemas.iter().map(SchemaPattern::new).collect();
        let sets = app.sets()?;
        let access = if self.fix.is_some() { Access::Write } else { Access::Read };
        let database = app.database(access, 2).await?;
        let migrator =
            app.migrator(&database, app.engine_options(&database), &sets, access, 1).await?;
        let inspection = Inspection {
            app,
            catalog: app.catalog(&database),
            migrator,
            created: created_by_tenants(&sets.tenant),
        };
        let findings = inspection.confirmed().await?;
        let is_orphan = |finding: &&Finding| matches!(finding.problem, Problem::Orphan { .. });
        for pattern in &named {
            if !findings.iter().filter(is_orphan).any(|finding| pattern.matches(&finding.schema)) {
                let words = format!("no schema without a tenant matches '{}'", pattern.word);
                return Err(Failure::words(Exit::NotFound, words)
                    .hint(Hint::command("list the schemas without a tenant", "doctor")));
            }
        }
        if self.fix == Some(Fix::Ledger) {
            let list = inspection.catalog.list_briefly().await?;
            let covered = inspection.migrator.rebuild_ledger(&targets(&list)).await;
            let covered = covered.map_err(RolloutError::Survey)?;
            app.terminal.note(&format!("the ledger covers {}", count(covered, "schema")));
        }
        let (mut rows, mut fixed) = (Vec::with_capacity(findings.len()), 0);
        for mut finding in findings {
            fixed += usize::from(self.try_fix(&mut finding, &named, &inspection).await?);
            rows.push(finding.row());
        }
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
            Some(Fix::Missing) if fixed > 0 => {
                app.terminal.note(&format!("{} created; {next}", count(fixed, "schema")));
            }
            _ => {}
        }
        Ok(if remaining == 0 { Exit::Done } else { Exit::Drift })
    }
}

impl Args {
    /// Fixes what `--fix` names, and adapts the finding's text. Returns whether it is fixed.
    async fn try_fix(
        &self,
        finding: &mut Finding,
        named: &[SchemaPattern<'_>],
        inspection: &Inspection<'_>,
    ) -> Result<bool, Failure> {
        let Inspection { app, catalog, .. } = inspection;
        let options = app.engine_options(catalog.database());
        let admin = TenantAdmin::new(catalog.clone(), options);
        match (&finding.problem, self.fix) {
            (Problem::Ledger, Some(Fix::Ledger)) => {
                "the ledger disagreed with its history; rebuilt".clone_into(&mut finding.text);
            }
            (Problem::Missing(schema), Some(Fix::Missing)) => {
                admin.create_schema(schema).await?;
                "the schema was missing; created, empty".clone_into(&mut finding.text);
            }
            (Problem::Orphan { is_similar }, Some(Fix::Orphans)) => {
                if !named.iter().any(|pattern| pattern.matches(&finding.schema)) {
                    return Ok(false);
                }
                if !is_similar {
                    finding.text += "; not registered";
                    return Ok(false);
                }
                match register(&finding.schema, app, &admin).await {
                    Ok(slug) => {
                        finding.tenant = slug.to_string();
                        "registered as a tenant, without a host".clone_into(&mut finding.text);
                    }
                    Err(why) => {
                        let _ = write!(finding.text, "; not registered: {why}");
                        return Ok(false);
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A problem in one schema.
struct Finding {
    schema: String,
    /// Empty for a schema without a tenant.
    tenant: String,
    problem: Problem,
    text: String,
}

/// The kind of a finding, and what it concerns besides the schema.
#[derive(PartialEq, Eq)]
enum Problem {
    /// The ledger disagrees with the history.
    Ledger,
    /// This schema does not exist.
    Missing(SchemaName),
    /// The history cannot be read, or disagrees with the files.
    History,
    /// The index of this name is invalid.
    Index(String),
    /// The row of the tenant table is invalid.
    Row,
    /// The schema has no tenant.
    Orphan {
        /// Whether it holds anything that a tenant has.
        is_similar: bool,
    },
    /// A drop, purge or creation of the schema, which has this name meanwhile, did not finish.
    Unfinished(String),
    /// The schema in the trash has no record, or the record no schema.
    Trash,
}

impl Finding {
    fn new(schema: &str, tenant: &str, problem: Problem, text: impl Into<String>) -> Self {
        Self { schema: schema.to_owned(), tenant: tenant.to_owned(), problem, text: text.into() }
    }

    fn has_same_problem(&self, other: &Self) -> bool {
        (&self.schema, &self.problem) == (&other.schema, &other.problem)
    }

    fn row(self) -> Vec<Cell> {
        let tenant = Cell::maybe((!self.tenant.is_empty()).then_some(self.tenant));
        vec![Cell::Text(self.schema), tenant, Cell::Text(self.text)]
    }
}

/// Returns `public` and the schemas of all tenants.
fn targets(list: &TenantList) -> Vec<Arc<Target>> {
    let public = std::iter::once(Arc::new(Target::public()));
    public.chain(list.tenants.iter().map(target)).collect()
}

/// Finds problems. Changes nothing.
struct Inspection<'a> {
    app: &'a App,
    catalog: PostgresCatalog,
    migrator: Arc<PostgresMigrator>,
    /// Names of the relations that the files of the tenants create.
    created: HashSet<String>,
}

impl Inspection<'_> {
    /// Returns the findings that two inspections agree on, because other sessions create and drop
    /// tenants and build indexes meanwhile, without drops and purges that are still running.
    async fn confirmed(&self) -> Result<Vec<Finding>, Failure> {
        let first = self.findings().await?;
        if first.is_empty() {
            return Ok(first);
        }
        let mut locked = HashSet::new();
        for _ in 0..LOCK_READS {
            locked.extend(self.catalog.locked_schemas().await?);
            tokio::time::sleep(PAUSE).await;
        }
        let is_running = |finding: &Finding| matches!(&finding.problem, Problem::Unfinished(schema) if locked.contains(schema));
        let mut findings = self.findings().await?;
        findings.retain(|finding| {
            first.iter().any(|other| finding.has_same_problem(other)) && !is_running(finding)
        });
        Ok(findings)
    }

    async fn findings(&self) -> Result<Vec<Finding>, Failure> {
        let list = self.catalog.list_briefly().await?;
        let targets = targets(&list);
        let mut findings = Vec::new();
        self.check_histories(&list, &targets, &mut findings).await?;
        for invalid in self.catalog.invalid_indexes().await? {
            let mut targets = targets.iter();
            let target = targets.find(|target| target.schema.as_str() == invalid.schema);
            let tenant = target.map_or("", |target| &*target.label);
            let problem = Problem::Index(invalid.index.clone());
            let text = index_finding(&invalid);
            findings.push(Finding::new(&invalid.schema, tenant, problem, text));
        }
        for row in &list.refused {
            let text = row.reason.to_string();
            findings.push(Finding::new(&row.schema, &row.slug, Problem::Row, text));
        }
        let settings = &self.app.settings;
        let orphans = self.catalog.orphans(
            &settings.catalog.schema_prefix,
            &settings.history_table,
            &settings.search_path,
        );
        for orphan in orphans.await? {
            let is_similar =
                orphan.is_known || orphan.tables.iter().any(|table| self.created.contains(table));
            let (problem, text) = if orphan.is_unfinished {
                let text = "create-tenant has not finished; run it again with the same arguments";
                (Problem::Unfinished(orphan.schema.clone()), text)
            } else if is_similar {
                (
                    Problem::Orphan { is_similar },
                    "looks like a tenant's schema, but no tenant has it",
                )
            } else if settings.catalog.schema_prefix.is_empty() {
                // Any schema of the database.
                continue;
            } else {
                let text = "named like a tenant's schema, but no tenant has it, and it holds nothing a tenant has";
                (Problem::Orphan { is_similar }, text)
            };
            findings.push(Finding::new(&orphan.schema, "", problem, text));
        }
        self.check_trash(&mut findings).await?;
        Ok(findings)
    }

    /// Compares schemas, histories, files and the ledger.
    async fn check_histories(
        &self,
        list: &TenantList,
        targets: &[Arc<Target>],
        findings: &mut Vec<Finding>,
    ) -> Result<(), Failure> {
        let verified = self.migrator.verify(targets).await;
        let verified = verified.map_err(RolloutError::Survey)?;
        for &position in &verified.out_of_sync {
            let Target { schema, label, .. } = &*targets[position];
            let text = "the ledger disagrees with its history";
            findings.push(Finding::new(schema.as_str(), label, Problem::Ledger, text));
        }
        let ids = list.tenants.iter().map(|tenant| tenant.id.as_str());
        let ids = std::iter::once(None).chain(ids.map(Some));
        for ((target, id), state) in targets.iter().zip(ids).zip(verified.states) {
            let selection = Target::option(std::iter::once(&**target));
            let problems = self.app.terminal.problems(&state, &selection);
            if problems.is_empty() {
                continue;
            }
            let problem = match (state, id) {
                (SchemaState::Missing, _) => Problem::Missing(target.schema.clone()),
                (SchemaState::Dropping, Some(id)) => {
                    Problem::Unfinished(SchemaName::dropping(id).to_string())
                }
                _ => Problem::History,
            };
            let (schema, text) = (target.schema.as_str(), problems.join("; "));
            findings.push(Finding::new(schema, &target.label, problem, text));
        }
        Ok(())
    }

    /// Finds what in the trash can neither be restored nor is purged, and what drops left.
    async fn check_trash(&self, findings: &mut Vec<Finding>) -> Result<(), Failure> {
        for trashed in self.catalog.list_trash().await? {
            let place = trashed.trash_schema();
            let (problem, text) = match trashed.state {
                TrashState::Complete => continue,
                TrashState::Purging => {
                    (Problem::Unfinished(place.to_string()), "its purge did not finish; finish it")
                }
                TrashState::SchemaMissing => {
                    (Problem::Trash, "in the trash, but its schema is gone; remove the record")
                }
            };
            let text = Hint::command(text, format!("purge --tenant {place}"));
            let text = self.app.terminal.render(&text);
            findings.push(Finding::new(place.as_str(), &trashed.slug, problem, text));
        }
        for stray in self.catalog.unrecorded_schemas().await? {
            let (problem, text) = if stray.starts_with(TRASH_PREFIX) {
                (
                    Problem::Trash,
                    "in the trash without a record; rename it and create-tenant --adopt it, or drop it",
                )
            } else {
                (
                    Problem::Unfinished(stray.clone()),
                    "left by a drop whose tenant row is gone; drop it: DROP SCHEMA ... CASCADE",
                )
            };
            findings.push(Finding::new(&stray, "", problem, text));
        }
        Ok(())
    }
}

/// Describes an index whose build did not finish, with the statements that fix it.
fn index_finding(invalid: &InvalidIndex) -> String {
    let [schema, index] = [&invalid.schema, &invalid.index].map(|name| QuotedIdentifier::new(name));
    let (statement, or_rebuild) = if invalid.is_reindex_leftover() {
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

/// The name of a schema, or a glob.
struct SchemaPattern<'a> {
    word: &'a str,
    glob: Option<GlobMatcher>,
}

impl<'a> SchemaPattern<'a> {
    fn new(word: &'a String) -> Self {
        Self { word, glob: Glob::new(word).ok().map(|glob| glob.compile_matcher()) }
    }

    /// A name may look like a glob, or like one that is invalid.
    fn matches(&self, schema: &str) -> bool {
        self.word == schema || self.glob.as_ref().is_some_and(|glob| glob.is_match(schema))
    }
}

/// Registers a schema as a tenant; the error says why that is not possible.
async fn register(orphan: &str, app: &App, admin: &TenantAdmin) -> Result<Slug, String> {
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
    match admin.adopt(&new, None).await {
        Ok(_) => Ok(new.slug),
        Err(ChangeError::Catalog(error)) => Err(error.to_string()),
        Err(ChangeError::Migrate(error)) => Err(explain(&error, &new_target(&new), &[]).message()),
        Err(error) => Err(Failure::from(error).cause.to_string()),
    }
}
