//! `status`: the versions of all schemas, or the migrations of one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::args::output::OutputArg;
use super::run::CommandRun;
use super::run::app::{Access, App, Sets};
use super::run::tenants::find_tenant;
use crate::domain::catalog::{CatalogError, TenantCatalog as _};
use crate::domain::hint::Hint;
use crate::domain::plan::{Goal, Plan};
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::{SchemaState, Severity};
use crate::domain::target::Target;
use crate::domain::tenant::TenantList;
use crate::error::{Exit, Failure};
use crate::migrations::MigrationSet;
use crate::postgres::bookkeeping::run_log::{FailedSchema, failures};
use crate::postgres::connection::database::Database;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::migrate::status::LedgerCheck;
use crate::postgres::report::contents::Contents;
use crate::postgres::tenants::drop::Presence;
use crate::postgres::transaction::history::{SchemaHistory, read_all};
use crate::service::fleet::SchemaMigrator as _;
use crate::service::rollout::RolloutError;
use crate::service::selection::target;
use crate::ui::{Cell, Listing, OutputFormat, count};

/// Show the versions of all schemas, or the migrations of one
///
/// Reads all schemas from the ledger, in one query.
#[derive(clap::Args, Debug, Default)]
pub(super) struct Args {
    /// Show the migrations of this tenant: its exact slug, schema or host
    #[arg(long, short = 't', value_name = "TENANT", conflicts_with = "shared")]
    tenant: Option<String>,
    /// Show the migrations of public
    #[arg(long)]
    shared: bool,
    /// Read every history instead of the ledger; exit 11 if they disagree
    #[arg(long, conflicts_with_all = ["tenant", "shared"])]
    verify: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let sets = app.sets()?;
        let database = app.database(Access::Read, 2).await?;
        if self.shared {
            return print_schema(&SchemaName::public(), &sets.shared, self, app, &database).await;
        }
        let catalog = app.catalog(&database);
        if let Some(word) = &self.tenant {
            let tenant = find_tenant(word, catalog.list().await?)?;
            if catalog.presence(&tenant).await? == Presence::Dropping {
                return Err(CatalogError::PartlyDropped(tenant.slug.to_string()).into());
            }
            return print_schema(&tenant.schema, &sets.tenant, self, app, &database).await;
        }
        let list = match catalog.list_briefly().await {
            Err(error @ CatalogError::TablesMissing(_)) => {
                let table = app.engine_options(&database).history_table;
                let contents = Contents::read(&database, &table).await;
                // The tables do not exist before the first run.
                if contents.is_ok_and(|contents| !contents.is_empty()) {
                    return Err(error.into());
                }
                TenantList::default()
            }
            other => other?,
        };
        print_fleet(&list, &sets, self, app, &database).await
    }
}

async fn print_schema(
    schema: &SchemaName,
    set: &MigrationSet,
    args: &Args,
    app: &App,
    database: &Database,
) -> Result<Exit, Failure> {
    let session = database
        .session(app.wait)
        .await
        .map_err(|error| Failure::words(Exit::Unreachable, error))?;
    let found = read_all(&session, &[schema], &app.settings.history_table)
        .await
        .map_err(|error| Failure::words(Exit::Unexpected, server_error(&error)))?;
    let rows = match found.into_iter().next() {
        Some(SchemaHistory::Schema(Ok(rows))) => rows,
        Some(SchemaHistory::Locked(holder)) => {
            return Err(Failure::words(Exit::Locked, format!("{schema}: {holder}")));
        }
        Some(SchemaHistory::Schema(Err(why))) => {
            return Err(Failure::words(
                Exit::Drift,
                format!("the history of {schema} is damaged: {why}"),
            ));
        }
        _ => {
            return Err(Failure::from(CatalogError::SchemaMissing(schema.clone()))
                .hint(SchemaState::missing_hint()));
        }
    };
    let listing = Listing::new(&["version", "migration", "state", "applied"], "no migrations")
        .named_by("migration");
    let mut lines: Vec<(i64, Vec<Cell>)> = Vec::new();
    for script in set.scripts() {
        let row = rows.iter().find(|row| row.version == script.id.version);
        let state = match row {
            None => "pending",
            Some(row) if row.name != script.id.name => "renamed",
            Some(row) if !script.id.accepts(row.checksum) => "edited",
            Some(_) => "applied",
        };
        lines.push((
            script.id.version,
            vec![
                Cell::Number(script.id.version),
                Cell::Text(script.id.to_string()),
                Cell::Text(state.to_owned()),
                Cell::maybe(row.map(|row| row.applied_on.clone())),
            ],
        ));
    }
    for row in rows.iter().filter(|row| !set.ids().iter().any(|id| id.version == row.version)) {
        lines.push((
            row.version,
            vec![
                Cell::Number(row.version),
                Cell::Text(format!("V{}__{}", row.version, row.name)),
                Cell::Text("no file".to_owned()),
                Cell::Text(row.applied_on.clone()),
            ],
        ));
    }
    lines.sort_by_key(|(version, _)| *version);
    listing.write(
        &app.terminal,
        args.output.format(),
        lines.into_iter().map(|(_, cells)| cells),
    )?;
    Ok(match Plan::compare(set.ids(), &rows, Goal::Latest) {
        Ok(_) => Exit::Done,
        Err(drifts) => {
            for drift in drifts {
                app.terminal.warn(&format!("{schema}: {drift}"));
            }
            Exit::Drift
        }
    })
}

/// Maximum number of schemas that the table lists for a group; other formats list all.
const SAMPLE: usize = 3;

/// Schemas of one set in the same state.
#[derive(Default)]
struct Group {
    schemas: usize,
    sample: Vec<String>,
    reason: Option<String>,
}

/// What a group has in common, in the order of the listing: `public` first, harmless states before
/// serious ones, newer versions before older ones.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    is_tenant: bool,
    severity: Severity,
    has_failed: bool,
    version: Reverse<Option<i64>>,
    state: String,
    /// The kind of the failure in the last run.
    failure: Option<String>,
}

async fn print_fleet(
    list: &TenantList,
    sets: &Sets,
    args: &Args,
    app: &App,
    database: &Database,
) -> Result<Exit, Failure> {
    let format = args.output.format();
    let mut targets = vec![Arc::new(Target::public())];
    targets.extend(list.tenants.iter().map(target));
    let migrator =
        app.migrator(database, app.engine_options(database), sets, Access::Read, 1).await?;
    let verified = if args.verify {
        migrator.verify(&targets).await
    } else {
        let states = migrator.survey(&targets).await;
        states.map(|states| LedgerCheck { states, ..LedgerCheck::default() })
    };
    let LedgerCheck { states, out_of_sync } = verified.map_err(RolloutError::Survey)?;
    let failed: HashMap<String, FailedSchema> = failures(database)
        .await
        .map_err(|error| Failure::words(Exit::Unexpected, error))?
        .into_iter()
        .map(|failed| (failed.schema.clone(), failed))
        .collect();
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    for (target, state) in targets.iter().zip(states) {
        let failed = failed.get(target.schema.as_str());
        let Some((key, reason)) = classify(target, &state, failed, app) else {
            continue;
        };
        let group = groups.entry(key).or_default();
        group.reason = group.reason.take().or(reason);
        group.schemas += 1;
        if format != OutputFormat::Table || group.sample.len() < SAMPLE {
            group.sample.push(target.label.clone());
        }
    }
    let refused = list.refused.iter().map(|row| {
        vec![
            Cell::Text("tenant".to_owned()),
            Cell::Absent,
            Cell::Text(row.reason.to_string()),
            Cell::Number(1),
            Cell::List(vec![row.slug.clone()]),
            Cell::Text(format!("row {} of the tenant table", row.id)),
        ]
    });
    let listing =
        Listing::new(&["set", "version", "state", "schemas", "which", "reason"], "no schemas")
            .named_by("which");
    let rows = groups.into_iter().map(|(key, group)| group_row(key, group));
    listing.write(&app.terminal, format, rows.chain(refused))?;
    app.terminal.note(&format!(
        "{} in public, {} for {}",
        count(sets.shared.ids().len(), "migration"),
        count(sets.tenant.ids().len(), "migration"),
        count(list.tenants.len() + list.refused.len(), "tenant")
    ));
    for &position in &out_of_sync {
        app.terminal
            .warn(&format!("{}: the ledger disagrees with its history", targets[position].schema));
    }
    if out_of_sync.is_empty() {
        return Ok(Exit::Done);
    }
    let fix = Hint::command("rebuild the ledger", "doctor --fix ledger");
    app.terminal.warn(&app.terminal.render(&fix));
    Ok(Exit::Drift)
}

/// Returns the group of a schema, and the reason for its state; `None` for a dropped tenant.
fn classify(
    target: &Target,
    state: &SchemaState,
    failed: Option<&FailedSchema>,
    app: &App,
) -> Option<(GroupKey, Option<String>)> {
    let severity = state.severity();
    // A failure that the state would show has gone if the state does not show it.
    let failed = failed.filter(|failed| severity == Severity::Pending && !failed.shows_in_state());
    let reason = match (state, failed) {
        (SchemaState::Dropped, _) => return None,
        (SchemaState::Locked(session), _) => Some(session.clone()),
        (_, Some(failed)) => Some(failed.message.clone()),
        _ => state.hint("--tenant TENANT").map(|hint| app.terminal.render(&hint)),
    };
    let (version, pending) = match state {
        SchemaState::Known(plan) => (plan.version, plan.pending.len()),
        _ => (None, 0),
    };
    let label = match failed {
        Some(failed) => format!("failed in run {}", failed.run),
        None if pending > 0 => format!("{pending} pending"),
        None => state.label().to_owned(),
    };
    let key = GroupKey {
        is_tenant: !target.schema.is_public(),
        severity,
        has_failed: failed.is_some(),
        version: Reverse(version),
        state: label,
        failure: failed.map(|failed| failed.kind.clone()),
    };
    Some((key, reason))
}

fn group_row(key: GroupKey, group: Group) -> Vec<Cell> {
    let more = group.schemas - group.sample.len();
    let mut names = group.sample;
    if more > 0 {
        names.push(format!("(+{more})"));
    }
    let set = if key.is_tenant { "tenant" } else { "shared" };
    vec![
        Cell::Text(set.to_owned()),
        key.version.0.map_or(Cell::Absent, Cell::Number),
        Cell::Text(key.state),
        Cell::count(group.schemas),
        Cell::List(names),
        Cell::maybe(group.reason),
    ]
}
