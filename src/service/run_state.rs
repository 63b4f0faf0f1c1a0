//! The state of a run across its stages: whether it goes on, and how many schemas at once.

use super::applied_scripts::ScriptInterner;
use super::concurrency::ConcurrencyLimit;
use super::event::{NotStarted, Outcome};
use super::group_size::GroupSize;
use crate::domain::run_options::OnFailure;

/// What the stages of a run share.
#[derive(Debug)]
pub struct RunState {
    /// How many tasks run at once.
    pub concurrency: ConcurrencyLimit,
    /// How many tenants the previous stages had; numbering continues from there.
    pub before: usize,
    /// How many tenants have something to do.
    pub of: usize,
    /// Whether the current stage is the canaries.
    pub canary: bool,
    pub(super) group_size: GroupSize,
    pub(super) interner: ScriptInterner,
    failed: usize,
    halt: Option<NotStarted>,
}

impl RunState {
    /// Returns the state at the start of a run.
    pub fn new(concurrency: ConcurrencyLimit) -> Self {
        Self {
            concurrency,
            before: 0,
            of: 0,
            canary: false,
            group_size: GroupSize::default(),
            interner: ScriptInterner::default(),
            failed: 0,
            halt: None,
        }
    }

    /// Returns why no further schema is started, or `None` while the run goes on.
    pub const fn halted(&self) -> Option<NotStarted> {
        self.halt
    }

    /// Starts no further schema; the first reason is kept.
    pub fn halt(&mut self, why: NotStarted) {
        self.halt.get_or_insert(why);
    }

    /// Counts an outcome, and halts the run where a failure requires that.
    pub fn record(&mut self, outcome: &Outcome, on_failure: OnFailure) {
        let Outcome::Failed { error, .. } = outcome else {
            return;
        };
        if let Some(why) = error.ends_the_run() {
            self.halt(why);
        } else if self.canary {
            self.halt(NotStarted::CanaryFailed);
        } else if !error.is_of_one_tenant() {
            self.failed += 1;
            match on_failure {
                OnFailure::Stop => self.halt(NotStarted::EarlierFailure),
                OnFailure::StopAfter(most) if self.failed >= most.get() => {
                    self.halt(NotStarted::TooManyFailures);
                }
                OnFailure::StopAfter(_) | OnFailure::Continue => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::MigrateError;
    use std::num::NonZeroUsize;

    use super::*;

    fn state() -> RunState {
        RunState::new(ConcurrencyLimit::fixed(NonZeroUsize::MIN))
    }

    fn failed(error: MigrateError) -> Outcome {
        Outcome::Failed { error: Box::new(error), applied: Vec::new() }
    }

    fn incomplete() -> Outcome {
        failed(MigrateError::SchemaIncomplete { missing: Vec::new() })
    }

    #[test]
    fn the_run_halts_at_the_limit_of_failures() {
        let limit = OnFailure::StopAfter(NonZeroUsize::new(2).expect("not 0"));
        let mut state = state();
        state.record(&incomplete(), limit);
        assert_eq!(state.halted(), None);
        state.record(&incomplete(), limit);
        assert_eq!(state.halted(), Some(NotStarted::TooManyFailures));
    }

    #[test]
    fn a_missing_schema_halts_the_run_only_among_canaries() {
        let mut state = state();
        let missing = || failed(MigrateError::SchemaMissing);
        state.record(&missing(), OnFailure::Stop);
        state.record(&missing(), OnFailure::StopAfter(NonZeroUsize::MIN));
        assert_eq!(state.halted(), None);
        state.canary = true;
        state.record(&missing(), OnFailure::Continue);
        assert_eq!(state.halted(), Some(NotStarted::CanaryFailed));
    }

    #[test]
    fn the_first_reason_to_halt_is_kept() {
        let mut state = state();
        state.halt(NotStarted::Interrupted);
        state.record(&incomplete(), OnFailure::Stop);
        assert_eq!(state.halted(), Some(NotStarted::Interrupted));
    }
}
