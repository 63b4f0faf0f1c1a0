//! The context that the workers of a run share: connections, options, files, and what the run has learned.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio_postgres::Error;

use super::baseline::Baseline;
use super::dry_run::DryRun;
use super::sample::Sample;
use super::template::{self, Template, Templates};
use crate::domain::plan::Goal;
use crate::domain::run_options::Atomic;
use crate::domain::script::{DefinedIn, Scope};
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::migrations::{
    MigrationSet, Script, find_definition, in_one_transaction, uses_its_own_value,
};
use crate::postgres::bookkeeping;
use crate::postgres::connection::database::Database;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::server_error::{missing_relation, server_error, sqlstate_of};
use crate::postgres::connection::session_cache::SessionCache;
use crate::postgres::transaction::batch::BatchError;
use crate::service::event::{EventKind, Progress};
use crate::service::failure::MigrateError;
use crate::service::fleet::Interrupts;

/// What a migrator does with pending files.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// Runs them.
    #[default]
    Apply,
    /// Records them in the history without running them.
    Fake,
    /// Records them in the history of schemas that have none and whose structure matches.
    Baseline(Arc<Baseline>),
    /// Runs them statement by statement, records the effects of each statement, and rolls back. Files
    /// that run without a transaction are left out.
    DryRun(Arc<DryRun>),
}

impl Mode {
    /// Returns whether files are only recorded.
    pub fn only_records(&self) -> bool {
        matches!(self, Self::Fake | Self::Baseline(_))
    }
}

/// Everything that the migrations of all schemas share. Clones share what the run has learned.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) database: Database,
    /// The same database without a pooler, for work that needs a session.
    pub(crate) direct: Database,
    pub(crate) options: EngineOptions,
    pub(crate) shared: Arc<MigrationSet>,
    pub(crate) tenant: Arc<MigrationSet>,
    pub(crate) mode: Mode,
    /// Set once the tables of pricesync are known to exist.
    pub(crate) bookkeeping: Arc<OnceCell<()>>,
    pub(crate) ledger: Arc<LedgerState>,
    /// Connections kept from one schema to the next.
    pub(crate) session_cache: Arc<SessionCache>,
    pub(crate) templates: Arc<Templates>,
    /// Whether the schema opened last had no history, as most likely the next one.
    pub(crate) last_was_new: Arc<AtomicBool>,
    /// What may be run in several schemas at once.
    pub(crate) sample: Arc<Sample>,
    pub(crate) boundaries: Arc<Boundaries>,
}

/// Whether the ledger is written; determined once in a run.
#[derive(Debug, Default)]
pub(crate) struct LedgerState {
    is_usable: OnceCell<bool>,
    is_disabled: AtomicBool,
    /// Whether a survey records the histories of schemas that the ledger does not cover.
    pub(crate) records_surveyed: bool,
}

impl LedgerState {
    pub(crate) fn recording_surveyed() -> Self {
        Self { records_surveyed: true, ..Self::default() }
    }

    /// Continues the run without the ledger.
    pub(crate) fn disable(&self) {
        self.is_disabled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.is_disabled.load(Ordering::Relaxed)
    }
}

/// The scripts that used an enum value of their own transaction, as the run has learned from the server.
#[derive(Debug, Default)]
pub(crate) struct Boundaries(Mutex<BTreeSet<(Scope, i64)>>);

impl Boundaries {
    /// Makes the script the first of a transaction in all further schemas, if it was not the first of
    /// `pending` and failed for using a value of an earlier one. Returns whether that may help.
    pub(crate) fn learn(&self, scope: Scope, pending: &[&Script], error: &BatchError) -> bool {
        match error {
            BatchError::Script(index @ 1.., _, error)
                if sqlstate_of(error) == Some(sqlstate::UNSAFE_NEW_ENUM_VALUE_USAGE)
                    && !uses_its_own_value(pending[*index], &server_error(error).message) =>
            {
                let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                learned.insert((scope, pending[*index].id.version));
                true
            }
            _ => false,
        }
    }

    /// Returns how many of the pending scripts the next transaction applies.
    pub(crate) fn in_one_transaction(&self, scope: Scope, pending: &[&Script]) -> usize {
        let learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = learned.iter().filter(|(of, _)| *of == scope).map(|(_, version)| *version);
        in_one_transaction(pending, &versions.collect())
    }
}

impl Context {
    pub(crate) fn set(&self, scope: Scope) -> &MigrationSet {
        match scope {
            Scope::Shared => &self.shared,
            Scope::Tenant => &self.tenant,
        }
    }

    /// Returns whether the transaction of a target must stay inside its schema.
    pub(crate) fn guards(&self, target: &Target) -> bool {
        target.scope == Scope::Tenant && !self.mode.only_records()
    }

    /// Creates the tables of pricesync unless they exist.
    pub(crate) async fn bookkeeping(&self) -> Result<(), MigrateError> {
        let ensure = || bookkeeping::ensure(&self.database, &self.options, Interrupts::never());
        self.bookkeeping.get_or_try_init(ensure).await.copied()
    }

    /// Returns whether commits are recorded in the ledger, and creates it if it is missing. A role that
    /// must not create it migrates without: the histories suffice.
    pub(crate) async fn keeps_ledger(&self, progress: &Progress) -> bool {
        if self.ledger.is_disabled() {
            return false;
        }
        let create = || async {
            let ready = self.bookkeeping().await;
            if let Err(MigrateError::Database { error, .. }) = &ready {
                progress.send(EventKind::Notice {
                    severity: "WARNING".to_owned(),
                    message: format!("this run keeps no ledger: {error}"),
                });
            }
            ready.is_ok()
        };
        *self.ledger.is_usable.get_or_init(create).await
    }

    /// Returns the template for a target in case its schema is empty.
    pub(crate) async fn template_for(&self, target: &Target) -> Option<&Template> {
        let options = &self.options;
        let is_applicable = options.templates
            && target.scope == Scope::Tenant
            && options.goal == Goal::Latest
            && options.atomic == Atomic::Schema
            && matches!(self.mode, Mode::Apply);
        if !is_applicable {
            return None;
        }
        let scripts = template::in_one_transaction(&self.tenant);
        self.templates.get(&self.database, options, &scripts).await
    }

    /// Returns the file that defines the relation that a script did not find.
    pub(crate) fn find_definition(
        &self,
        target: &Target,
        error: &Error,
        script: &Script,
        pending: &[&Script],
    ) -> Option<Box<DefinedIn>> {
        let relation = missing_relation(error, target.schema.as_str())?;
        let sets = (&*self.shared, &*self.tenant);
        find_definition(relation, script, pending, sets, target.scope).map(Box::new)
    }
}
