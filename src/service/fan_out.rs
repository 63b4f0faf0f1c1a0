//! Runs a job other than a migration in many schemas.

use std::sync::Arc;

use super::event::{EventKind, Operation, Progress};
use super::fleet::{Fleet, SchemaJob};
use super::run_state::RunState;
use super::summary::{SchemaOutcome, Summary};
use crate::domain::target::Target;

/// A run of one job in many schemas, several at once, with one outcome for each.
///
/// For migrations see [`Rollout`](super::rollout::Rollout), which knows what is pending.
#[derive(Clone, Debug)]
pub struct FanOut {
    /// The job in words.
    pub work: Operation,
    /// How many schemas at once, and what a failure means.
    pub fleet: Fleet,
}

impl FanOut {
    /// Runs the job in every target, started in the order of `targets`; see [`Fleet::run`] for
    /// failures, panics and interrupts. Emits the events of a run of migrations.
    pub async fn run<J: SchemaJob>(
        &self,
        job: &Arc<J>,
        targets: &[Arc<Target>],
        progress: &Progress,
    ) -> Summary {
        let mut state = RunState::new(self.fleet.concurrency.clone());
        state.of = targets.len();
        progress.send(EventKind::RunStarted {
            work: self.work,
            schemas: targets.len(),
            pending: targets.len(),
            jobs: state.concurrency.jobs().min(targets.len().max(1)),
        });
        let outcomes = self.fleet.run(job, targets, &mut state, progress).await;
        let outcomes = targets
            .iter()
            .zip(outcomes)
            .map(|(target, outcome)| SchemaOutcome { target: Arc::clone(target), outcome })
            .collect();
        Summary {
            work: self.work,
            outcomes,
            took: progress.elapsed(),
            interrupted: self.fleet.interrupts.level(),
            ..Summary::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::super::concurrency::ConcurrencyLimit;
    use super::super::event::Outcome;
    use super::super::failure::{MigrateError, ServerError};
    use super::super::fleet::{Interrupts, JobResult, JobSuccess};
    use super::super::selection::{target, tests::tenant};
    use super::*;
    use crate::domain::run_options::OnFailure;

    const COUNTING: Operation =
        Operation { command: "count", doing: "counting", done: Some("counted") };

    struct Counting {
        bad: &'static str,
    }

    impl SchemaJob for Counting {
        async fn run(&self, target: &Target, _: &Progress, _: Interrupts) -> JobResult {
            if target.label == self.bad {
                return Err(MigrateError::Job {
                    doing: "counting".to_owned(),
                    error: ServerError::default(),
                    hints: Vec::new(),
                }
                .into());
            }
            Ok(JobSuccess::Finished(format!("{} letters", target.label.len())))
        }
    }

    #[tokio::test]
    async fn every_target_has_one_outcome_and_a_start() {
        let (_interrupter, interrupts) = Interrupts::new();
        let fleet = Fleet {
            concurrency: ConcurrencyLimit::fixed(NonZeroUsize::MIN),
            on_failure: OnFailure::Continue,
            interrupts,
        };
        let (progress, mut events) = Progress::channel();
        let slugs = ["acme", "globex", "initech"];
        let targets: Vec<_> = slugs.into_iter().map(|slug| target(&tenant(1, slug))).collect();
        let job = Arc::new(Counting { bad: "globex" });
        let summary = FanOut { work: COUNTING, fleet }.run(&job, &targets, &progress).await;
        let counts = summary.counts();
        assert_eq!((counts.done, counts.failed, counts.total()), (2, 1, 3));
        assert!(matches!(
            &summary.outcomes[2].outcome,
            Outcome::Done { result, .. } if result == "7 letters"
        ));
        let mut next = || events.try_recv().expect("an event").kind;
        assert!(matches!(
            next(),
            EventKind::RunStarted { work: COUNTING, schemas: 3, pending: 3, jobs: 1 }
        ));
        assert!(matches!(next(), EventKind::SchemaStarted { number: 1, of: 3 }));
    }
}
