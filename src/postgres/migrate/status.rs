//! How far schemas are from the goal: asked of the ledger, and of histories where it does not answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Error;

use super::migrator::PostgresMigrator;
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
use crate::postgres::transaction::history::{Found, read_all};
use crate::postgres::transaction::ledger;
use crate::service::event::Progress;
use crate::service::failure::MigrateError;

/// What every history says, and where the ledger says something else.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// The states, from the histories, in the order of the targets.
    pub states: Vec<SchemaState>,
    /// Positions of the targets about which the ledger is wrong.
    pub disagreeing: Vec<usize>,
}

/// A digest, and the set that it is compared with.
type Answer = (Scope, Arc<str>);

/// How often ledger and history are read again before a disagreement is reported.
const CONFIRMATIONS: usize = 3;

/// How long to pause before each time.
const PAUSE: Duration = Duration::from_millis(100);

const SURVEYING: &str = "reading the histories";

impl PostgresMigrator {
    /// Tells the state of every target, in the same order.
    pub(crate) async fn look(
        &self,
        targets: &[Arc<Target>],
    ) -> Result<Vec<SchemaState>, MigrateError> {
        let session = self.surveying_session().await?;
        self.survey_with(&session, targets)
            .await
            .map_err(|error| surveying_failed(&error))
    }

    /// Believes the ledger where it may be believed, and reads the history of one schema for
    /// each digest that the files do not explain; all others are read one by one.
    async fn survey_with(
        &self,
        session: &Session,
        targets: &[Arc<Target>],
    ) -> Result<Vec<SchemaState>, Error> {
        let table = &self.options.history_table;
        let believed = ledger::read(session, table).await?;
        let mut answers = self.explained();
        let mut states: Vec<Option<SchemaState>> = Vec::with_capacity(targets.len());
        let mut afresh: Vec<usize> = Vec::new();
        let mut unexplained: Vec<(usize, Answer)> = Vec::new();
        for (position, target) in targets.iter().enumerate() {
            let digest = believed.get(target.schema.as_str()).cloned();
            let answer = digest.map(|digest| (target.scope, digest));
            let state = answer
                .as_ref()
                .and_then(|answer| answers.get(answer))
                .cloned();
            if state.is_none() {
                match answer {
                    Some(answer) => unexplained.push((position, answer)),
                    None => afresh.push(position),
                }
            }
            states.push(state);
        }
        let mut asked: HashSet<&Answer> = HashSet::new();
        let samples = unexplained
            .iter()
            .filter(|(_, answer)| asked.insert(answer));
        let samples: Vec<usize> = samples.map(|(position, _)| *position).collect();
        for (position, found) in self.read(session, targets, &samples).await? {
            let digest = match &found {
                Found::Schema(Ok(rows)) => of_history(rows),
                _ => String::new(),
            };
            let state = self.judge(found, &targets[position]);
            // A sample stands for the others only where its history is what the ledger says.
            answers.insert((targets[position].scope, Arc::from(digest)), state.clone());
            states[position] = Some(state);
        }
        for (position, answer) in unexplained {
            if states[position].is_none() {
                states[position] = answers.get(&answer).cloned();
                if states[position].is_none() {
                    afresh.push(position);
                }
            }
        }
        let mut to_take_up = Vec::new();
        for (position, found) in self.read(session, targets, &afresh).await? {
            if matches!(&found, Found::Schema(Ok(rows)) if !rows.is_empty()) {
                to_take_up.push(&targets[position].schema);
            }
            states[position] = Some(self.judge(found, &targets[position]));
        }
        if self.ledger.takes_up && !to_take_up.is_empty() {
            let (silent, _) = Progress::channel();
            if self.keeps_ledger(&silent).await {
                // Without it the next run reads the histories again, and that is all.
                let _ = ledger::take_up(session, &to_take_up, table).await;
            }
        }
        let mut states: Vec<SchemaState> = states.into_iter().flatten().collect();
        self.tell_missing(session, targets, &mut states).await?;
        let is_new = |(state, target): &(&SchemaState, &Arc<Target>)| {
            target.scope == Scope::Tenant
                && matches!(state, SchemaState::Known(plan) if plan.version.is_none() && !plan.pending.is_empty())
        };
        self.templates
            .expect(states.iter().zip(targets).filter(is_new).count());
        Ok(states)
    }

    /// Reads every history, whatever the ledger says, and compares the two. Changes nothing.
    ///
    /// # Errors
    ///
    /// What concerns all: the connection, the catalog.
    pub async fn verify(&self, targets: &[Arc<Target>]) -> Result<Verified, MigrateError> {
        let session = self.surveying_session().await?;
        let failed = |error: Error| surveying_failed(&error);
        let all: Vec<usize> = (0..targets.len()).collect();
        let mut verified = Verified {
            states: vec![SchemaState::Missing; targets.len()],
            ..Verified::default()
        };
        self.compare_ledger(&session, targets, &all, &mut verified)
            .await
            .map_err(failed)?;
        self.confirm(&session, targets, &mut verified)
            .await
            .map_err(failed)?;
        self.tell_missing(&session, targets, &mut verified.states)
            .await
            .map_err(failed)?;
        Ok(verified)
    }

    /// Reads ledger and history again where they disagree: a transaction that commits between the two
    /// reads looks like a disagreement.
    async fn confirm(
        &self,
        session: &Session,
        targets: &[Arc<Target>],
        verified: &mut Verified,
    ) -> Result<(), Error> {
        for _ in 0..CONFIRMATIONS {
            if verified.disagreeing.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let positions = std::mem::take(&mut verified.disagreeing);
            self.compare_ledger(session, targets, &positions, verified)
                .await?;
        }
        Ok(())
    }

    /// Reads the ledger and the histories at these positions, sets their states, and adds the positions
    /// that disagree.
    async fn compare_ledger(
        &self,
        session: &Session,
        targets: &[Arc<Target>],
        positions: &[usize],
        verified: &mut Verified,
    ) -> Result<(), Error> {
        let believed = ledger::read(session, &self.options.history_table).await?;
        for (position, found) in self.read(session, targets, positions).await? {
            let says = believed.get(targets[position].schema.as_str());
            let is_so = match &found {
                Found::Schema(Ok(rows)) => says.is_none_or(|says| **says == *of_history(rows)),
                Found::Locked(_) => true,
                _ => says.is_none(),
            };
            if !is_so {
                verified.disagreeing.push(position);
            }
            verified.states[position] = self.judge(found, &targets[position]);
        }
        Ok(())
    }

    /// Tells why schemas are missing. Asks nothing where none is.
    async fn tell_missing(
        &self,
        session: &Session,
        targets: &[Arc<Target>],
        states: &mut [SchemaState],
    ) -> Result<(), Error> {
        if !states.contains(&SchemaState::Missing) {
            return Ok(());
        }
        let sql = select_missing(&self.options.tenants);
        let rows = match session.read(&sql).await {
            Ok(rows) => rows,
            // Without the table nobody is listed as anything.
            Err(error) if ledger::is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let missing: HashMap<&str, bool> = rows
            .iter()
            .filter_map(|row| Some((row.optional(0)?, row.is_true(1))))
            .collect();
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

    /// Writes the ledger anew from the histories, and returns how many schemas it answers for
    /// then. A schema that another run is working on is left to that run.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn rebuild_ledger(&self, targets: &[Arc<Target>]) -> Result<usize, MigrateError> {
        self.bookkeeping().await?;
        let session = self.surveying_session().await?;
        let failed = |error: Error| surveying_failed(&error);
        let table = &self.options.history_table;
        ledger::forget_the_unbelieved(&session, table)
            .await
            .map_err(failed)?;
        let schemas: Vec<&SchemaName> = targets.iter().map(|target| &target.schema).collect();
        ledger::take_up(&session, &schemas, table)
            .await
            .map_err(failed)
    }

    async fn surveying_session(&self) -> Result<Session, MigrateError> {
        let session = self.database.session(RECONNECT_TIMEOUT).await;
        session.map_err(|error| MigrateError::InDoubt {
            doing: SURVEYING.to_owned(),
            error,
        })
    }

    async fn read(
        &self,
        session: &Session,
        targets: &[Arc<Target>],
        positions: &[usize],
    ) -> Result<Vec<(usize, Found)>, Error> {
        let schemas: Vec<&SchemaName> = positions
            .iter()
            .map(|&position| &targets[position].schema)
            .collect();
        let found = read_all(session, &schemas, &self.options.history_table).await?;
        Ok(positions.iter().copied().zip(found).collect())
    }

    /// What the files say about the digests of schemas in which the first so many are applied.
    fn explained(&self) -> HashMap<Answer, SchemaState> {
        let mut answers = HashMap::new();
        for scope in [Scope::Shared, Scope::Tenant] {
            let ids = self.set(scope).ids();
            for (applied, digest) in of_prefixes(ids).into_iter().enumerate() {
                let rows: Vec<Applied> = ids[..applied].iter().map(ScriptId::claimed).collect();
                answers.insert((scope, Arc::from(digest)), self.compare(&rows, scope));
            }
        }
        answers
    }

    fn judge(&self, found: Found, target: &Target) -> SchemaState {
        match found {
            Found::NoSchema => SchemaState::Missing,
            Found::Schema(Err(why)) => SchemaState::Damaged(why),
            Found::Locked(who) => SchemaState::Locked(who),
            Found::Schema(Ok(rows)) => self.compare(&rows, target.scope),
        }
    }

    fn compare(&self, rows: &[Applied], scope: Scope) -> SchemaState {
        match Plan::compare(self.set(scope).ids(), rows, self.options.goal) {
            Ok(plan) => SchemaState::Known(plan),
            Err(drifts) => SchemaState::Drifted(drifts, rows.iter().map(|row| row.version).max()),
        }
    }
}

fn surveying_failed(error: &Error) -> MigrateError {
    MigrateError::Database {
        doing: SURVEYING.to_owned(),
        error: server_error(error),
    }
}
