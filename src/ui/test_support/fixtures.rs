//! Events, outcomes and failures of runs.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::{Location, Prefix, Scope, ScriptRef};
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::service::applied_scripts::ScriptInterner;
use crate::service::event::{Event, EventKind, Operation, Outcome};
use crate::service::failure::{Holder, MigrateError, ServerError};
use crate::service::summary::{SchemaOutcome, Summary};

use crate::ui::error::explanation::Layout;
use crate::ui::reporter::Reporter;
use crate::ui::style::Style;

/// The layout of explanations in tests.
pub(in crate::ui) const PLAIN: Layout<'_> =
    Layout { style: Style::plain(), width: 100, with_context: true, program: "pricesync" };

pub(in crate::ui) fn tenant(slug: &str) -> Arc<Target> {
    Arc::new(Target {
        schema: SchemaName::parse(&format!("tenant_{slug}")).unwrap(),
        label: slug.to_owned(),
        scope: Scope::Tenant,
    })
}

pub(in crate::ui) fn public() -> Arc<Target> {
    Arc::new(Target::public())
}

pub(in crate::ui) fn script(version: i64, name: &str) -> ScriptRef {
    ScriptRef { prefix: Prefix::Versioned, version, name: name.to_owned() }
}

pub(in crate::ui) fn applied(version: i64, name: &str, millis: u64) -> AppliedScript {
    AppliedScript { script: script(version, name), took: Duration::from_millis(millis) }
}

pub(in crate::ui) fn migrated(scripts: &[AppliedScript]) -> Outcome {
    Outcome::Migrated {
        scripts: ScriptInterner::default().intern(scripts.to_vec()),
        took: Duration::from_millis(30),
    }
}

pub(in crate::ui) fn failed(error: MigrateError) -> Outcome {
    Outcome::Failed { error: Box::new(error), applied: Vec::new() }
}

pub(in crate::ui) fn server_error(sqlstate: &str, message: &str) -> ServerError {
    ServerError {
        sqlstate: Some(sqlstate.to_owned()),
        message: message.to_owned(),
        ..ServerError::default()
    }
}

pub(in crate::ui) fn lock_timeout() -> ServerError {
    server_error(sqlstate::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
}

pub(in crate::ui) fn retrying(pause: u64) -> EventKind {
    EventKind::Retrying {
        attempt: 1,
        limit: 5,
        error: lock_timeout(),
        blockers: vec![holder()],
        pause: Duration::from_millis(pause),
    }
}

/// The failure that the guides show.
pub(in crate::ui) fn missing_relation() -> MigrateError {
    MigrateError::Script {
        script: script(8, "price_history_index"),
        file: "migrations/tenant/prices/V8__price_history_index.sql".to_owned(),
        place: Some(Location {
            line: 12,
            column: Some(17),
            text: "create index on prices (product_id);".to_owned(),
        }),
        error: server_error(sqlstate::UNDEFINED_TABLE, "relation \"prices\" does not exist"),
        blockers: Vec::new(),
        attempts: 1,
        rolled_back: true,
    }
}

pub(in crate::ui) fn holder() -> Holder {
    Holder {
        pid: 4121,
        application: "psql".to_owned(),
        client: "10.0.0.7".to_owned(),
        since: Duration::from_secs(75),
        query: "update products\n set price = 1".to_owned(),
    }
}

pub(in crate::ui) fn run(kind: EventKind) -> Event {
    Event { elapsed: Duration::from_millis(41_207), target: None, kind }
}

pub(in crate::ui) fn of(target: &Arc<Target>, kind: EventKind) -> Event {
    Event { target: Some(Arc::clone(target)), ..run(kind) }
}

/// An operation whose command prints its own summary.
pub(in crate::ui) const RESTORE: Operation =
    Operation { command: "restore", doing: "restoring", done: None };

pub(in crate::ui) fn step(number: usize, step: &str, rows: u64) -> EventKind {
    EventKind::Step { step: step.to_owned(), number, of: 12, rows, bytes: rows * 100 }
}

pub(in crate::ui) fn run_started(schemas: usize, pending: usize, jobs: usize) -> Event {
    run(EventKind::RunStarted { work: Operation::MIGRATION, schemas, pending, jobs })
}

pub(in crate::ui) fn started(target: &Arc<Target>, number: usize, of_all: usize) -> Event {
    of(target, EventKind::SchemaStarted { number, of: of_all })
}

pub(in crate::ui) fn finished(target: &Arc<Target>, outcome: Outcome) -> Event {
    of(target, EventKind::SchemaFinished { outcome })
}

pub(in crate::ui) fn summary(outcomes: Vec<(&Arc<Target>, Outcome)>) -> Summary {
    Summary {
        outcomes: outcomes
            .into_iter()
            .map(|(target, outcome)| SchemaOutcome { target: Arc::clone(target), outcome })
            .collect(),
        took: Duration::from_millis(210),
        program: Some("pricesync".to_owned()),
        ..Summary::default()
    }
}

pub(in crate::ui) fn report(reporter: &mut impl Reporter, events: &[Event]) {
    for event in events {
        reporter.on(event).unwrap();
    }
}
