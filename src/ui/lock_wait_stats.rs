//! Lock wait statistics: the time that a run waited for locks of other sessions.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::domain::schema_name::SchemaName;
use crate::service::event::{Event, EventKind, Outcome};
use crate::service::failure::{Holder, MigrateError};

use super::text::{clean, count, took};

/// Shorter waits are shown with `-v` only.
const MIN_SHOWN: Duration = Duration::from_secs(1);

/// Sums up waits for locks and the attempts that were lost to them. Grows with the number of jobs
/// and of blocking sessions, not with the fleet.
///
/// A wait ends with the next event of its schema.
#[derive(Debug, Default)]
pub(super) struct LockWaitStats {
    running: HashMap<SchemaName, SchemaWait>,
    total: Duration,
    longest: Duration,
    schemas: usize,
    /// How often each session blocked a schema, by process id and `application_name`.
    blockers: HashMap<(i32, String), usize>,
}

/// The waits of one schema. Times are counted from the start of the run.
#[derive(Debug, Default)]
struct SchemaWait {
    attempt_started: Duration,
    /// When the current wait started, if the schema waits.
    waiting_since: Option<Duration>,
    lost: Duration,
}

impl LockWaitStats {
    pub(super) fn record(&mut self, event: &Event) {
        let Some(target) = &event.target else { return };
        let now = event.elapsed;
        if let EventKind::SchemaStarted { .. } = event.kind {
            let wait = SchemaWait { attempt_started: now, ..SchemaWait::default() };
            self.running.insert(target.schema.clone(), wait);
            return;
        }
        let Some(wait) = self.running.get_mut(&target.schema) else {
            return;
        };
        let was_waiting = wait.waiting_since.is_some();
        let (lost_to, pause) = match &event.kind {
            EventKind::Notice { .. } => return,
            EventKind::WaitingForLock { holder, waited } => {
                if !was_waiting {
                    wait.waiting_since = Some(now.saturating_sub(*waited));
                    self.count_blockers(holder.as_slice());
                }
                return;
            }
            EventKind::Retrying { error, blockers, pause, .. } if error.is_contention() => {
                (Some(blockers.as_slice()), *pause)
            }
            EventKind::SchemaFinished { outcome: Outcome::Failed { error, .. } } => {
                (blockers_of(error), Duration::ZERO)
            }
            _ => (None, Duration::ZERO),
        };
        let waiting_since = wait.waiting_since.take().unwrap_or(now);
        let lost_since = match lost_to {
            // The whole attempt is rolled back.
            Some(_) => waiting_since.min(wait.attempt_started),
            None => waiting_since,
        };
        wait.lost += now.saturating_sub(lost_since) + pause;
        wait.attempt_started = now + pause;
        let lost = wait.lost;
        if let EventKind::SchemaFinished { .. } = event.kind {
            self.running.remove(&target.schema);
            self.total += lost;
            self.longest = self.longest.max(lost);
            self.schemas += usize::from(!lost.is_zero());
        }
        if !was_waiting {
            self.count_blockers(lost_to.unwrap_or_default());
        }
    }

    /// Returns the summary line; `None` without waits, or with short ones unless `even_short`.
    pub(super) fn line(&self, even_short: bool) -> Option<String> {
        if self.total.is_zero() || (self.total < MIN_SHOWN && !even_short) {
            return None;
        }
        let mut line =
            format!("waited {} for locks in {}", took(self.total), count(self.schemas, "schema"));
        if self.schemas > 1 {
            let _ = write!(line, ", {} at most", took(self.longest));
        }
        let by_count = |((pid, _), times): &(&(i32, String), &usize)| (**times, -pid);
        if let Some(((pid, application), _)) = self.blockers.iter().max_by_key(by_count) {
            let _ = write!(line, ", most often for pid {pid}");
            if !application.is_empty() {
                let _ = write!(line, " ({})", clean(application));
            }
        }
        Some(line + "\n")
    }

    fn count_blockers(&mut self, blockers: &[Holder]) {
        for blocker in blockers {
            let key = (blocker.pid, blocker.application.clone());
            *self.blockers.entry(key).or_default() += 1;
        }
    }
}

/// Returns the blocking sessions of a schema that failed because of a lock.
fn blockers_of(error: &MigrateError) -> Option<&[Holder]> {
    match error {
        MigrateError::Locked { holder, .. } => Some(holder.as_slice()),
        MigrateError::Script { error, blockers, .. } if error.is_contention() => Some(blockers),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::test_support::*;

    fn at(millis: u64, event: Event) -> Event {
        Event { elapsed: Duration::from_millis(millis), ..event }
    }

    #[test]
    fn waits_and_lost_attempts_are_summed_with_the_main_blocker() {
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let waiting = EventKind::WaitingForLock {
            holder: Some(holder()),
            waited: Duration::from_millis(700),
        };
        let mut waits = LockWaitStats::default();
        for event in [
            at(0, started(&acme, 1, 2)),
            at(0, started(&globex, 2, 2)),
            // Waits from 0.3 s to 2 s.
            at(1000, of(&acme, waiting)),
            at(2000, finished(&acme, migrated(&[]))),
            // An attempt of 2 s, a pause of 0.5 s, then success.
            at(2000, of(&globex, retrying(500))),
            at(2600, finished(&globex, migrated(&[]))),
        ] {
            waits.record(&event);
        }
        assert_eq!(
            waits.line(false).as_deref(),
            Some(
                "waited 4.2 s for locks in 2 schemas, 2.5 s at most, most often for pid 4121 (psql)\n"
            )
        );
    }

    #[test]
    fn short_waits_are_shown_only_on_request() {
        let acme = tenant("acme");
        let mut waits = LockWaitStats::default();
        assert_eq!(waits.line(true), None);
        for event in [
            at(0, started(&acme, 1, 1)),
            at(100, of(&acme, retrying(100))),
            at(300, finished(&acme, migrated(&[]))),
        ] {
            waits.record(&event);
        }
        assert_eq!(waits.line(false), None);
        assert_eq!(
            waits.line(true).as_deref(),
            Some("waited 200 ms for locks in 1 schema, most often for pid 4121 (psql)\n")
        );
    }
}
