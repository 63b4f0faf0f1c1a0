//! What is true of a run so far, across its stages: whether it goes on, and how fast.

use super::applied_scripts::ScriptInterner;
use super::concurrency::ConcurrencyLimit;
use super::event::{NotStarted, Outcome};
use super::failure::MigrateError;
use super::group_size::GroupSize;
use crate::domain::run_options::OnFailure;

/// The course of a run, from its first schema to its last.
#[derive(Debug)]
pub struct RunState {
    /// How many schemas are at work at once.
    pub concurrency: ConcurrencyLimit,
    /// How many tenants the stages before this one had; what is begun is numbered on from there.
    pub before: usize,
    /// How many tenants have something to do.
    pub of: usize,
    /// Whether those at work are canaries.
    pub canary: bool,
    pub(super) grouping: GroupSize,
    pub(super) sharing: ScriptInterner,
    failed: usize,
    halt: Option<NotStarted>,
}

impl RunState {
    /// Returns the course of a run that begins.
    #[must_use]
    pub fn new(pace: ConcurrencyLimit) -> Self {
        Self {
            concurrency: pace,
            before: 0,
            of: 0,
            canary: false,
            grouping: GroupSize::default(),
            sharing: ScriptInterner::default(),
            failed: 0,
            halt: None,
        }
    }

    /// Returns why nothing new begins, if nothing does.
    #[must_use]
    pub const fn halted(&self) -> Option<NotStarted> {
        self.halt
    }

    /// Lets nothing new begin; the first reason stays.
    pub fn halt(&mut self, why: NotStarted) {
        self.halt.get_or_insert(why);
    }

    /// Judges how a schema ended: what follows from it for the schemas that have not begun.
    pub fn judge(&mut self, outcome: &Outcome, on_failure: OnFailure) {
        let Outcome::Failed { error, .. } = outcome else {
            return;
        };
        if self.canary {
            self.halt(NotStarted::CanaryFailed);
        } else if error.ends_the_run() {
            self.halt(NotStarted::EarlierFailure);
        } else {
            self.weigh(error, on_failure);
        }
    }

    fn weigh(&mut self, error: &MigrateError, on_failure: OnFailure) {
        if error.is_known_beforehand() {
            return;
        }
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn course() -> RunState {
        RunState::new(ConcurrencyLimit::fixed(NonZeroUsize::MIN))
    }

    fn failed(error: MigrateError) -> Outcome {
        Outcome::Failed {
            error: Box::new(error),
            applied: Vec::new(),
        }
    }

    fn damaged() -> Outcome {
        failed(MigrateError::DamagedHistory { why: "odd".into() })
    }

    #[test]
    fn failures_are_counted_to_the_limit() {
        let limit = OnFailure::StopAfter(NonZeroUsize::new(2).expect("not 0"));
        let mut course = course();
        course.judge(&damaged(), limit);
        assert_eq!(course.halted(), None);
        course.judge(&damaged(), limit);
        assert_eq!(course.halted(), Some(NotStarted::TooManyFailures));
    }

    #[test]
    fn a_missing_schema_is_no_reason_to_stop_unless_it_is_a_canary_s() {
        let mut course = course();
        let missing = || failed(MigrateError::SchemaMissing);
        course.judge(&missing(), OnFailure::Stop);
        course.judge(&missing(), OnFailure::StopAfter(NonZeroUsize::MIN));
        assert_eq!(course.halted(), None);
        course.canary = true;
        course.judge(&missing(), OnFailure::Continue);
        assert_eq!(course.halted(), Some(NotStarted::CanaryFailed));
    }

    #[test]
    fn the_first_reason_to_stop_is_the_one_that_is_told() {
        let mut course = course();
        course.halt(NotStarted::Interrupted);
        course.judge(&damaged(), OnFailure::Stop);
        assert_eq!(course.halted(), Some(NotStarted::Interrupted));
    }
}
