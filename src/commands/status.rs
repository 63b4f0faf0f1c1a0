//! `status`: the fleet at a glance, or one schema in full.

use std::collections::{BTreeMap, HashMap};

use super::Output;
use super::drop_schema::named;
use super::run::app::{Access, App, Sets};
use crate::domain::catalog::{CatalogError, TenantCatalog as _};
use crate::domain::hint::Hint;
use crate::domain::plan::{Goal, Plan};
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::{SchemaState, Severity};
use crate::domain::target::Target;
use crate::domain::tenant::TenantList;
use crate::error::{Exit, Failure};
use crate::postgres::bookkeeping::run_log::{FailedSchema, failures};
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::status::Verified;
use crate::postgres::tenants::drop::Presence;
use crate::postgres::transaction::history::{Found, read_all};
use crate::service::fleet::SchemaMigrator as _;
use crate::service::rollout::RolloutError;
use crate::service::selection::target;
use crate::ui::{Cell, Listing, OutputFormat, count};

/// Show how many schemas are at which version, or the migrations of one
///
/// The fleet is read from the ledger, in one query whatever the number of schemas.
#[derive(clap::Args, Debug, Default)]
pub(super) struct Args {
    /// Show the migrations of this tenant: slug, schema or host, exactly
    #[arg(long, short = 't', value_name = "TENANT", conflicts_with = "shared")]
    tenant: Option<String>,
    /// Show the migrations of public
    #[arg(long)]
    shared: bool,
    /// Read every history instead of the ledger; exit 11 when the two disagree
    #[arg(long, conflicts_with_all = ["tenant", "shared"])]
    verify: bool,
    /// The shape of the listing
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let sets = app.sets()?;
    let database = app.database(Access::Read, 2).await?;
    if args.shared {
        return one(&SchemaName::public(), &sets.shared, args, app, &database).await;
    }
    let catalog = app.catalog(&database);
    if let Some(word) = &args.tenant {
        let tenant = named(word, catalog.list().await?)?;
        if catalog.presence(&tenant).await? == Presence::Dropping {
            return Err(CatalogError::PartlyDropped(tenant.slug.to_string()).into());
        }
        return one(&tenant.schema, &sets.tenant, args, app, &database).await;
    }
    // Before the first run there are no tenant tables, and that is what the status says.
    let list = match catalog.list_briefly().await {
        Err(CatalogError::TablesMissing(_)) => TenantList::default(),
        other => other?,
    };
    fleet(list, &sets, args, app, &database).await
}

async fn one(
    schema: &SchemaName,
    set: &crate::migrations::MigrationSet,
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
        .map_err(|error| {
            Failure::words(
                Exit::Unexpected,
                crate::postgres::connection::server_error::server_error(&error),
            )
        })?;
    let rows = match found.into_iter().next() {
        Some(Found::Schema(Ok(rows))) => rows,
        Some(Found::Locked(who)) => {
            return Err(Failure::words(Exit::Locked, format!("{schema}: {who}")));
        }
        Some(Found::Schema(Err(why))) => {
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
    let listing = Listing::new(
        &["version", "migration", "state", "applied"],
        "no migrations",
    )
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
    for row in rows
        .iter()
        .filter(|row| !set.ids().iter().any(|id| id.version == row.version))
    {
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
        args.output.into(),
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

/// How many schemas of which set are in which state; the sample names a few of them.
#[derive(Default)]
struct Group {
    schemas: usize,
    sample: Vec<String>,
    reason: Option<String>,
}

/// Set (tenants last), rank, newest version first, state in words, kind of failure.
type Key = (
    bool,
    (Severity, bool),
    std::cmp::Reverse<i64>,
    String,
    Option<String>,
);

async fn fleet(
    list: TenantList,
    sets: &Sets,
    args: &Args,
    app: &App,
    database: &Database,
) -> Result<Exit, Failure> {
    /// How many schemas of a group a table names; who reads the rest by machine gets all.
    const SAMPLE: usize = 3;
    let format = OutputFormat::from(args.output);
    let mut targets = vec![std::sync::Arc::new(Target::public())];
    targets.extend(list.tenants.iter().map(target));
    let migrator = app
        .migrator(
            database,
            app.engine_options(database),
            sets,
            Access::Read,
            1,
        )
        .await?;
    let surveyed = if args.verify {
        migrator.verify(&targets).await
    } else {
        let states = migrator.survey(&targets).await;
        states.map(|states| Verified {
            states,
            ..Verified::default()
        })
    };
    let Verified {
        states,
        disagreeing,
    } = surveyed.map_err(RolloutError::Survey)?;
    let failed: HashMap<String, FailedSchema> = failures(database)
        .await
        .map_err(|error| Failure::words(Exit::Unexpected, error))?
        .into_iter()
        .map(|failed| (failed.schema.clone(), failed))
        .collect();
    // Sorted by set, newest version first, trouble last.
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    for (target, state) in targets.iter().zip(states) {
        let failure = failed.get(target.schema.as_str());
        let failure = failure.filter(|_| state.severity() == Severity::Pending);
        let reason = match (&state, failure) {
            (SchemaState::Dropped, _) => continue,
            (SchemaState::Locked(session), _) => Some(session.clone()),
            (_, Some(failed)) => Some(failed.message.clone()),
            _ => state
                .hint("--tenant TENANT")
                .map(|hint| app.terminal.render(&hint)),
        };
        let (version, pending) = match &state {
            SchemaState::Known(plan) => (plan.version, plan.pending.len()),
            _ => (None, 0),
        };
        let label = match failure {
            Some(failed) => format!("failed in run {}", failed.run),
            None if pending > 0 => format!("{pending} pending"),
            None => state.label().to_owned(),
        };
        let key = (
            !target.schema.is_public(),
            (state.severity(), failure.is_some()),
            std::cmp::Reverse(version.unwrap_or(-1)),
            label,
            failure.map(|failed| failed.kind.clone()),
        );
        let group = groups.entry(key).or_default();
        group.reason = group.reason.take().or(reason);
        group.schemas += 1;
        if format != OutputFormat::Table || group.sample.len() < SAMPLE {
            group.sample.push(target.label.clone());
        }
    }
    let mut rows: Vec<Vec<Cell>> = groups
        .into_iter()
        .map(
            |((is_tenant, _, std::cmp::Reverse(version), words, _), group)| {
                let more = group.schemas - group.sample.len();
                let mut names = group.sample;
                if more > 0 {
                    names.push(format!("(+{more})"));
                }
                vec![
                    Cell::Text(if is_tenant { "tenant" } else { "shared" }.to_owned()),
                    if version < 0 {
                        Cell::Absent
                    } else {
                        Cell::Number(version)
                    },
                    Cell::Text(words),
                    Cell::Number(i64::try_from(group.schemas).unwrap_or(i64::MAX)),
                    Cell::List(names),
                    Cell::maybe(group.reason),
                ]
            },
        )
        .collect();
    for row in &list.refused {
        rows.push(vec![
            Cell::Text("tenant".to_owned()),
            Cell::Absent,
            Cell::Text(row.reason.to_string()),
            Cell::Number(1),
            Cell::List(vec![row.slug.clone()]),
            Cell::Text(format!("row {} of the tenant table", row.id)),
        ]);
    }
    let listing = Listing::new(
        &["set", "version", "state", "schemas", "which", "reason"],
        "no schemas",
    )
    .named_by("which");
    listing.write(&app.terminal, format, rows)?;
    app.terminal.note(&format!(
        "{} in public, {} for {}",
        count(sets.shared.ids().len(), "migration"),
        count(sets.tenant.ids().len(), "migration"),
        count(list.tenants.len() + list.refused.len(), "tenant")
    ));
    for &position in &disagreeing {
        app.terminal.warn(&format!(
            "{}: the ledger says something else than its history",
            targets[position].schema
        ));
    }
    if disagreeing.is_empty() {
        return Ok(Exit::Done);
    }
    let fix = Hint::command("rebuild the ledger", "doctor --fix ledger");
    app.terminal.warn(&app.terminal.render(&fix));
    Ok(Exit::Drift)
}
