//! `baseline --from`: records what another tool has applied, in each schema at its own version.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Args, Preparation};
use crate::commands::run::app::{Access, App};
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::SchemaState;
use crate::error::{Exit, Failure};
use crate::migrations::import::Tool;
use crate::migrations::import::history::version_of;
use crate::postgres::migrate::other_history::OtherHistory;
use crate::service::rollout::Survey;
use crate::ui::{Cell, Listing, OutputFormat, count};

/// What a schema's history in the other tool says.
type Verdict = Result<Option<i64>, String>;

/// Runs the command.
pub(super) async fn run(args: &Args, tool: Tool, app: &App) -> Result<Exit, Failure> {
    let access = if args.dry_run { Access::Read } else { Access::Write };
    let preparation = Preparation::new(args, access, app).await?;
    let history = OtherHistory {
        tool,
        table: args.history_table.clone(),
        schema: args.history_in.as_deref().map(parse_schema).transpose()?,
    };
    let last = preparation.set().ids().last().map_or(0, |id| id.version);
    let survey = preparation.run(last, None, app).await?.survey().await?;
    let verdicts = read(&history, &preparation, &survey).await?;
    report_problems(&verdicts, app);
    if history.schema.is_none()
        && verdicts.values().any(|verdict| *verdict == Err(history.lacking()))
    {
        let words = "if one history stands for all schemas, name its schema with --history-in";
        app.terminal.hint(&words.into());
    }
    let is_done = if args.dry_run {
        list(&verdicts, &preparation, args, app).await?
    } else {
        record(&verdicts, &preparation, args, app).await?
    };
    let is_done = is_done && verdicts.values().all(Result::is_ok);
    Ok(if is_done { Exit::Done } else { Exit::SchemasFailed })
}

fn parse_schema(name: &str) -> Result<SchemaName, Failure> {
    if name == "public" {
        return Ok(SchemaName::public());
    }
    SchemaName::parse(name).map_err(|error| Failure::new(Exit::Usage, error))
}

/// Returns what the history of each schema says, in the order of their names.
async fn read(
    history: &OtherHistory,
    preparation: &Preparation,
    survey: &Survey,
) -> Result<BTreeMap<SchemaName, Verdict>, Failure> {
    let is_there = |state: &SchemaState| {
        !matches!(state, SchemaState::Missing | SchemaState::Dropping | SchemaState::Dropped)
    };
    let schemas = survey.schemas.iter().filter(|item| is_there(&item.state));
    let schemas: Vec<SchemaName> = schemas.map(|item| item.target.schema.clone()).collect();
    let read = history.read(&preparation.database, &schemas).await;
    let read = read.map_err(|error| Failure::words(Exit::Unexpected, error))?;
    // Nearly all schemas have the same history.
    let mut known = HashMap::new();
    let mut verdict = |found: Result<Option<Vec<_>>, String>| match found? {
        None => Err(history.lacking()),
        Some(rows) => {
            let of_rows = |rows: &Vec<_>| version_of(history.tool, preparation.set(), rows);
            known.entry(rows).or_insert_with_key(of_rows).clone()
        }
    };
    Ok(read.into_iter().map(|(schema, found)| (schema, verdict(found))).collect())
}

/// Writes why histories cannot be taken over.
fn report_problems(verdicts: &BTreeMap<SchemaName, Verdict>, app: &App) {
    let mut problems = BTreeMap::<&str, Vec<&str>>::new();
    for (schema, verdict) in verdicts {
        if let Err(why) = verdict {
            problems.entry(why).or_default().push(schema.as_str());
        }
    }
    for (why, schemas) in &problems {
        let more = schemas.len().saturating_sub(10);
        let more = if more == 0 { String::new() } else { format!(" (+{more})") };
        let named = schemas[..schemas.len().min(10)].join(", ");
        app.terminal.warn(&format!("not recorded: {named}{more}: {why}"));
    }
}

/// Returns the schemas at each version.
fn by_version(verdicts: &BTreeMap<SchemaName, Verdict>) -> BTreeMap<i64, HashSet<&SchemaName>> {
    let mut groups = BTreeMap::<i64, HashSet<&SchemaName>>::new();
    for (schema, verdict) in verdicts {
        if let Ok(Some(version)) = verdict {
            groups.entry(*version).or_default().insert(schema);
        }
    }
    groups
}

/// Records the histories, one run for each version; returns whether all succeeded.
async fn record(
    verdicts: &BTreeMap<SchemaName, Verdict>,
    preparation: &Preparation,
    args: &Args,
    app: &App,
) -> Result<bool, Failure> {
    let mut is_done = true;
    for (version, schemas) in by_version(verdicts) {
        app.terminal.note(&format!("{} at version {version}", count(schemas.len(), "schema")));
        let expected = preparation.expected(version, args.unchecked, app).await?;
        let run = preparation.run(version, expected, app).await?;
        let mut survey = run.survey().await?;
        survey.schemas.retain(|item| schemas.contains(&item.target.schema));
        is_done &= Exit::of(&run.run(survey).await?) == Exit::Done;
    }
    let nothing = verdicts.values().filter(|verdict| matches!(verdict, Ok(None))).count();
    if nothing > 0 {
        app.terminal.note(&format!("{}: nothing is applied", count(nothing, "schema")));
    }
    Ok(is_done)
}

/// Lists what would be recorded; returns whether each schema has the tables and columns.
async fn list(
    verdicts: &BTreeMap<SchemaName, Verdict>,
    preparation: &Preparation,
    args: &Args,
    app: &App,
) -> Result<bool, Failure> {
    let mut is_done = true;
    let mut rows = Vec::new();
    for (version, schemas) in by_version(verdicts) {
        let expected =
            preparation.expected(version, args.unchecked, app).await?.unwrap_or_default();
        let mut schemas: Vec<_> = schemas.into_iter().collect();
        schemas.sort_unstable();
        for schema in schemas {
            let lacks = preparation.reader.lacks(schema, &expected).await;
            let lacks = lacks.map_err(|error| Failure::words(Exit::Unexpected, error))?;
            let finding = if lacks.is_empty() {
                "would be recorded".to_owned()
            } else {
                is_done = false;
                format!("mismatch: lacks {}", lacks.join(", "))
            };
            rows.push(vec![
                Cell::Text(schema.to_string()),
                Cell::Text(version.to_string()),
                Cell::Text(finding),
            ]);
        }
    }
    Listing::new(&["schema", "version", "baseline"], "nothing would be recorded").write(
        &app.terminal,
        OutputFormat::Table,
        rows,
    )?;
    Ok(is_done)
}
