//! How long a run waited for other sessions, as its events tell it.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::schema_name::SchemaName;
use crate::service::event::{Event, EventKind, Outcome};
use crate::service::failure::{Holder, MigrateError};

use super::text::{clean, count, took};

/// Less than this in all is not worth a line.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// Time that was spent waiting for locks, or lost to them. Grows with the number of jobs and
/// with the number of sessions that were in the way, not with the fleet.
///
/// How long a wait was is known when the next thing happens in its schema, so this is as
/// exact as the events are.
#[derive(Debug, Default)]
pub(super) struct LockWaitStats {
    running: HashMap<SchemaName, Running>,
    total: Duration,
    longest: Duration,
    schemas: usize,
    /// How often each session was in the way: by process id and `application_name`.
    holders: HashMap<(i32, String), usize>,
}

#[derive(Debug, Default)]
struct Running {
    /// When what is lost with the next failed attempt began.
    attempt: Duration,
    /// When the wait that was told of last began, until something else happens.
    waiting: Option<Duration>,
    lost: Duration,
}

impl LockWaitStats {
    /// Takes an event in.
    pub(super) fn note(&mut self, event: &Event) {
        let Some(target) = &event.target else { return };
        let now = event.elapsed;
        if let EventKind::SchemaStarted { .. } = event.kind {
            let running = Running {
                attempt: now,
                ..Running::default()
            };
            self.running.insert(target.schema.clone(), running);
            return;
        }
        let Some(running) = self.running.get_mut(&target.schema) else {
            return;
        };
        match &event.kind {
            EventKind::WaitingForLock { holder, waited } => {
                if running.waiting.is_none() {
                    running.waiting = Some(now.saturating_sub(*waited));
                    self.blame(holder.iter());
                }
            }
            EventKind::Retrying {
                error,
                blockers,
                pause,
                ..
            } if error.is_contention() => {
                let told = running.waiting.is_some();
                running.lose_attempt(now);
                running.lost += *pause;
                running.attempt = now + *pause;
                if !told {
                    self.blame(blockers.iter());
                }
            }
            EventKind::Notice { .. } => {}
            EventKind::SchemaFinished { outcome } => {
                let lost_to = match outcome {
                    Outcome::Failed { error, .. } => contention(error),
                    _ => None,
                };
                match lost_to {
                    Some(blockers) => {
                        let told = running.waiting.is_some();
                        running.lose_attempt(now);
                        if !told {
                            self.blame(blockers.iter());
                        }
                    }
                    None => running.end_wait(now),
                }
                self.finish(&target.schema);
            }
            _ => {
                running.end_wait(now);
                running.attempt = now;
            }
        }
    }

    /// Returns the line that says so, where there is something to say; `anyhow` also where
    /// it was next to nothing.
    pub(super) fn line(&self, anyhow: bool) -> Option<String> {
        if self.total.is_zero() || (self.total < WORTH_TELLING && !anyhow) {
            return None;
        }
        let most = self
            .holders
            .iter()
            .max_by_key(|((pid, _), times)| (**times, std::cmp::Reverse(*pid)))
            .map_or_else(String::new, |((pid, application), _)| {
                let who = if application.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", clean(application))
                };
                format!(", most often for pid {pid}{who}")
            });
        let longest = if self.schemas > 1 {
            format!(", {} at most", took(self.longest))
        } else {
            String::new()
        };
        Some(format!(
            "waited {} for locks in {}{longest}{most}\n",
            took(self.total),
            count(self.schemas, "schema"),
        ))
    }

    fn blame<'a>(&mut self, holders: impl Iterator<Item = &'a Holder>) {
        for holder in holders {
            let key = (holder.pid, holder.application.clone());
            *self.holders.entry(key).or_default() += 1;
        }
    }

    fn finish(&mut self, schema: &SchemaName) {
        let lost = self
            .running
            .remove(schema)
            .map_or(Duration::ZERO, |one| one.lost);
        if !lost.is_zero() {
            self.total += lost;
            self.longest = self.longest.max(lost);
            self.schemas += 1;
        }
    }
}

impl Running {
    fn end_wait(&mut self, now: Duration) {
        if let Some(began) = self.waiting.take() {
            self.lost += now.saturating_sub(began);
        }
    }

    /// Everything since the attempt began is rolled back.
    fn lose_attempt(&mut self, now: Duration) {
        let began = self
            .waiting
            .take()
            .unwrap_or(self.attempt)
            .min(self.attempt);
        self.lost += now.saturating_sub(began);
    }
}

/// Returns who was in the way, where that is what a schema failed for.
fn contention(error: &MigrateError) -> Option<&[Holder]> {
    match error {
        MigrateError::Locked { holder, .. } => Some(holder.as_slice()),
        MigrateError::Script {
            error, blockers, ..
        } if error.is_contention() => Some(blockers),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sqlstate;
    use crate::ui::test_support::*;

    fn at(millis: u64, event: Event) -> Event {
        Event {
            elapsed: Duration::from_millis(millis),
            ..event
        }
    }

    fn retrying(pause: u64) -> EventKind {
        EventKind::Retrying {
            attempt: 1,
            limit: 5,
            error: server_error(
                sqlstate::LOCK_NOT_AVAILABLE,
                "canceling statement due to lock timeout",
            ),
            blockers: vec![holder()],
            pause: Duration::from_millis(pause),
        }
    }

    #[test]
    fn waits_and_lost_attempts_are_summed_and_the_one_in_the_way_is_named() {
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let waiting = EventKind::WaitingForLock {
            holder: Some(holder()),
            waited: Duration::from_millis(700),
        };
        let mut waits = LockWaitStats::default();
        for event in [
            at(0, started(&acme, 1, 2)),
            at(0, started(&globex, 2, 2)),
            // LockWaitStats from 0.3 s to 2 s.
            at(1000, of(&acme, waiting)),
            at(2000, finished(&acme, migrated(&[]))),
            // An attempt of 2 s, a pause of 0.5 s, and then it works.
            at(2000, of(&globex, retrying(500))),
            at(2600, finished(&globex, migrated(&[]))),
        ] {
            waits.note(&event);
        }
        assert_eq!(
            waits.line(false).as_deref(),
            Some(
                "waited 4.2 s for locks in 2 schemas, 2.5 s at most, most often for pid 4121 (psql)\n"
            )
        );
    }

    #[test]
    fn next_to_nothing_is_told_only_when_asked() {
        let acme = tenant("acme");
        let mut waits = LockWaitStats::default();
        assert_eq!(waits.line(true), None);
        for event in [
            at(0, started(&acme, 1, 1)),
            at(100, of(&acme, retrying(100))),
            at(300, finished(&acme, migrated(&[]))),
        ] {
            waits.note(&event);
        }
        assert_eq!(waits.line(false), None);
        assert_eq!(
            waits.line(true).as_deref(),
            Some("waited 200 ms for locks in 1 schema, most often for pid 4121 (psql)\n")
        );
    }
}
