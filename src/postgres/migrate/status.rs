//! Reads the state of every schema from the ledger, and from histories that the ledger does not cover.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Error;

use super::context::Context;
use crate::domain::applied::Applied;
use crate::domain::digest::{of_history, of_prefixes};
use crate::domain::plan::Plan;
use crate::domain::schema_name::SchemaName;
use crate::domain::schema_state::SchemaState;
use crate::domain::script::{Scope, ScriptId};
use crate::domain::target::Target;
use crate::postgres::connection::catalog_sql::select_missing;
use crate::postgres::connection::options::RECONNECT_TIMEOUT;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::Session;
use crate::postgres::transaction::history::{SchemaHistory, read_all};
use crate::postgres::transaction::ledger;
use crate::service::event::Progress;
use crate::service::failure::MigrateError;

/// The comparison of the ledger with the histories.
#[derive(Clone, Debug, Default)]
pub struct LedgerCheck {
    /// The states, from the histories, in the order of the targets.
    pub states: Vec<SchemaState>,
    /// Positions of the targets that are out of sync with the ledger.
    pub out_of_sync: Vec<usize>,
}

/// A set of files, and the digest of a history.
type HistoryKey = (Scope, Arc<str>);

/// How often ledger and history are read again before a disagreement is reported.
const CONFIRMATIONS: usize = 3;

/// How long to pause before each time.
const PAUSE: Duration = Duration::from_millis(100);

const SURVEYING: &str = "reading the histories";

/// Returns the state of every target, in the same order.
pub(super) async fn survey(
    context: &Context,
    targets: &[Arc<Target>],
) -> Result<Vec<SchemaState>, MigrateError> {
    let session = surveying_session(context).await?;
    survey_with(context, &session, targets).await.map_err(|error| surveying_failed(&error))
}

/// Uses the ledger's digests where they are trusted. For each digest that no prefix of the files has, the
/// history of one schema is read as a sample; histories that the ledger does not cover are all read.
async fn survey_with(
    context: &Context,
    session: &Session,
    targets: &[Arc<Target>],
) -> Result<Vec<SchemaState>, Error> {
    let table = &context.options.history_table;
    let trusted = ledger::read_digests(session, table).await?;
    let mut states_by_key = known_digests(context);
    let mut states: Vec<Option<SchemaState>> = Vec::with_capacity(targets.len());
    let mut unread: Vec<usize> = Vec::new();
    let mut unexplained: Vec<(usize, HistoryKey)> = Vec::new();
    for (position, target) in targets.iter().enumerate() {
        let digest = trusted.get(target.schema.as_str()).cloned();
        let key = digest.map(|digest| (target.scope, digest));
        let state = key.as_ref().and_then(|key| states_by_key.get(key)).cloned();
        if state.is_none() {
            match key {
                Some(key) => unexplained.push((position, key)),
                None => unread.push(position),
            }
        }
        states.push(state);
    }
    let mut seen: HashSet<&HistoryKey> = HashSet::new();
    let samples = unexplained.iter().filter(|(_, key)| seen.insert(key));
    let samples: Vec<usize> = samples.map(|(position, _)| *position).collect();
    for (position, found) in read(context, session, targets, &samples).await? {
        let digest = match &found {
            SchemaHistory::Schema(Ok(rows)) => of_history(rows),
            _ => String::new(),
        };
        let state = classify(context, found, &targets[position]);
        // A sample represents the others only if its history has the ledger's digest.
        states_by_key.insert((targets[position].scope, Arc::from(digest)), state.clone());
        states[position] = Some(state);
    }
    for (position, key) in unexplained {
        if states[position].is_none() {
            states[position] = states_by_key.get(&key).cloned();
            if states[position].is_none() {
                unread.push(position);
            }
        }
    }
    let mut uncovered = Vec::new();
    for (position, found) in read(context, session, targets, &unread).await? {
        if matches!(&found, SchemaHistory::Schema(Ok(rows)) if !rows.is_empty()) {
            uncovered.push(&targets[position].schema);
        }
        states[position] = Some(classify(context, found, &targets[position]));
    }
    if context.ledger.records_surveyed && !uncovered.is_empty() {
        let (silent, _) = Progress::channel();
        if context.keeps_ledger(&silent).await {
            // On failure the next run reads the histories again.
            let _ = ledger::record_histories(session, &uncovered, table).await;
        }
    }
    let mut states: Vec<SchemaState> = states.into_iter().flatten().collect();
    explain_missing(context, session, targets, &mut states).await?;
    let is_new = |(state, target): &(&SchemaState, &Arc<Target>)| {
        target.scope == Scope::Tenant
            && matches!(state, SchemaState::Known(plan) if plan.version.is_none() && !plan.pending.is_empty())
    };
    context.templates.expect(states.iter().zip(targets).filter(is_new).count());
    Ok(states)
}

/// Reads every history and compares it with the ledger.
pub(super) async fn verify(
    context: &Context,
    targets: &[Arc<Target>],
) -> Result<LedgerCheck, MigrateError> {
    let session = surveying_session(context).await?;
    verify_with(context, &session, targets).await.map_err(|error| surveying_failed(&error))
}

/// Reads schemas that are out of sync again: a transaction that commits between reading the ledger and
/// the histories looks like one.
async fn verify_with(
    context: &Context,
    session: &Session,
    targets: &[Arc<Target>],
) -> Result<LedgerCheck, Error> {
    let mut check = LedgerCheck {
        states: vec![SchemaState::Missing; targets.len()],
        out_of_sync: (0..targets.len()).collect(),
    };
    compare_ledger(context, session, targets, &mut check).await?;
    for _ in 0..CONFIRMATIONS {
        if check.out_of_sync.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        compare_ledger(context, session, targets, &mut check).await?;
    }
    explain_missing(context, session, targets, &mut check.states).await?;
    Ok(check)
}

/// Reads the ledger and the histories of the schemas that are out of sync, sets their states, and removes
/// those that are in sync.
async fn compare_ledger(
    context: &Context,
    session: &Session,
    targets: &[Arc<Target>],
    check: &mut LedgerCheck,
) -> Result<(), Error> {
    let trusted = ledger::read_digests(session, &context.options.history_table).await?;
    let positions = std::mem::take(&mut check.out_of_sync);
    for (position, found) in read(context, session, targets, &positions).await? {
        let recorded = trusted.get(targets[position].schema.as_str());
        let is_in_sync = match &found {
            SchemaHistory::Schema(Ok(rows)) => {
                recorded.is_none_or(|digest| **digest == *of_history(rows))
            }
            SchemaHistory::Locked(_) => true,
            _ => recorded.is_none(),
        };
        if !is_in_sync {
            check.out_of_sync.push(position);
        }
        check.states[position] = classify(context, found, &targets[position]);
    }
    Ok(())
}

/// Sets for missing schemas whether the tenant was dropped or is being dropped.
async fn explain_missing(
    context: &Context,
    session: &Session,
    targets: &[Arc<Target>],
    states: &mut [SchemaState],
) -> Result<(), Error> {
    if !states.contains(&SchemaState::Missing) {
        return Ok(());
    }
    let sql = select_missing(&context.options.tenants);
    let rows = match session.read(&sql).await {
        Ok(rows) => rows,
        // Without the table there are no tenants.
        Err(error) if ledger::is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let missing: HashMap<&str, bool> =
        rows.iter().map(|row| Ok((row.text(0)?, row.is_true(1)))).collect::<Result<_, Error>>()?;
    for (target, state) in targets.iter().zip(states) {
        if *state == SchemaState::Missing && target.scope == Scope::Tenant {
            match missing.get(target.schema.as_str()) {
                Some(true) => *state = SchemaState::Dropping,
                Some(false) => {}
                None => *state = SchemaState::Dropped,
            }
        }
    }
    Ok(())
}

/// Rewrites the ledger from the histories, and returns how many schemas it covers then.
pub(super) async fn rebuild_ledger(
    context: &Context,
    targets: &[Arc<Target>],
) -> Result<usize, MigrateError> {
    context.bookkeeping().await?;
    let session = surveying_session(context).await?;
    let failed = |error: Error| surveying_failed(&error);
    let table = &context.options.history_table;
    ledger::delete_untrusted(&session, table).await.map_err(failed)?;
    let schemas: Vec<&SchemaName> = targets.iter().map(|target| &target.schema).collect();
    ledger::record_histories(&session, &schemas, table).await.map_err(failed)
}

async fn surveying_session(context: &Context) -> Result<Session, MigrateError> {
    let session = context.database.session(RECONNECT_TIMEOUT).await;
    session.map_err(|error| MigrateError::InDoubt { doing: SURVEYING.to_owned(), error })
}

async fn read(
    context: &Context,
    session: &Session,
    targets: &[Arc<Target>],
    positions: &[usize],
) -> Result<Vec<(usize, SchemaHistory)>, Error> {
    let schemas: Vec<&SchemaName> =
        positions.iter().map(|&position| &targets[position].schema).collect();
    let found = read_all(session, &schemas, &context.options.history_table).await?;
    Ok(positions.iter().copied().zip(found).collect())
}

/// Returns the state for the digest of every history in which a prefix of the files is applied.
fn known_digests(context: &Context) -> HashMap<HistoryKey, SchemaState> {
    let mut states_by_key = HashMap::new();
    for scope in [Scope::Shared, Scope::Tenant] {
        let ids = context.set(scope).ids();
        for (applied, digest) in of_prefixes(ids).into_iter().enumerate() {
            let rows: Vec<Applied> = ids[..applied].iter().map(ScriptId::claimed).collect();
            states_by_key.insert((scope, Arc::from(digest)), compare(context, &rows, scope));
        }
    }
    states_by_key
}

fn classify(context: &Context, found: SchemaHistory, target: &Target) -> SchemaState {
    match found {
        SchemaHistory::NoSchema => SchemaState::Missing,
        SchemaHistory::Schema(Err(why)) => SchemaState::Damaged(why),
        SchemaHistory::Locked(holder) => SchemaState::Locked(holder),
        SchemaHistory::Schema(Ok(rows)) => compare(context, &rows, target.scope),
    }
}

fn compare(context: &Context, rows: &[Applied], scope: Scope) -> SchemaState {
    match Plan::compare(context.set(scope).ids(), rows, context.options.goal) {
        Ok(plan) => SchemaState::Known(plan),
        Err(drifts) => SchemaState::Drifted(drifts, rows.iter().map(|row| row.version).max()),
    }
}
fn surveying_failed(error: &Error) -> MigrateError {
    MigrateError::Database { doing: SURVEYING.to_owned(), error: server_error(error) }
}
