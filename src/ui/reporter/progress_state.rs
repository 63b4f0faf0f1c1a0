//! The state behind the bars: progress of the run and the schemas in progress.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::domain::schema_name::SchemaName;
use crate::service::event::{Event, EventKind, Operation, Outcome};

use super::log_format::amount;
use crate::ui::style::Style;
use crate::ui::text::{clean, columns, fit, pad, rounded, whole};

/// How many schemas in progress have a line of their own.
const MAX_LINES: usize = 8;

/// The progress of a run. Grows with the number of jobs, not with the fleet.
#[derive(Debug, Default)]
pub(super) struct ProgressState {
    pub(super) work: Operation,
    pub(super) total: usize,
    pub(super) done: usize,
    pub(super) failed: usize,
    running: Vec<SchemaProgress>,
    /// Step and number of steps of the schema, if the run has a single one.
    pub(super) step: Option<(usize, usize)>,
    /// Stage and number of stages, if there are several.
    pub(super) stage: Option<(usize, usize)>,
    /// The text of a pause between two stages, and when it ends.
    pause: Option<(String, Instant)>,
}

#[derive(Debug)]
struct SchemaProgress {
    schema: SchemaName,
    /// The schema, escaped.
    name: String,
    activity: String,
    /// The number of its step; 0 outside a step.
    step: usize,
    since: Instant,
    clock: Clock,
}

/// How the elapsed time of an activity is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// After the activity, from the first second on.
    After,
    /// Before the closing parenthesis of the activity.
    Inside,
    None,
}

impl ProgressState {
    /// Updates the state and returns whether a schema finished.
    pub(super) fn record(&mut self, event: &Event, now: Instant) -> bool {
        let Some(target) = &event.target else {
            match event.kind {
                EventKind::RunStarted { work, pending, .. } => {
                    self.work = work;
                    self.total = pending;
                }
                EventKind::TenantsFound { pending, .. } => self.total = pending,
                EventKind::Pausing { before, of, left } => {
                    let activity = format!("  pausing before stage {before} of {of}");
                    self.pause = Some((activity, now + left));
                }
                EventKind::StageStarted { number, of, .. } => {
                    self.stage = Some((number, of));
                    self.pause = None;
                }
                EventKind::Interrupted { .. } => self.pause = None,
                _ => {}
            }
            return false;
        };
        match &event.kind {
            EventKind::SchemaStarted { .. } => self.running.push(SchemaProgress {
                schema: target.schema.clone(),
                name: clean(target.schema.as_str()).into_owned(),
                activity: String::new(),
                step: 0,
                since: now,
                clock: Clock::After,
            }),
            EventKind::WaitingForLock { holder, waited } => {
                let activity = match holder {
                    Some(holder) => format!("waiting for lock (held by pid {}, ", holder.pid),
                    None => "waiting for lock (".to_owned(),
                };
                let since = now.checked_sub(*waited).unwrap_or(now);
                self.set(&target.schema, activity, since, Clock::Inside);
            }
            EventKind::WaitingForStandby { waited } => {
                let since = now.checked_sub(*waited).unwrap_or(now);
                let activity = "waiting for a standby (".to_owned();
                self.set(&target.schema, activity, since, Clock::Inside);
            }
            EventKind::Step { step, number, of, rows, bytes } => {
                self.step = (self.total == 1).then_some((*number, *of));
                let running = self.running.iter().find(|one| one.schema == target.schema);
                let since = running
                    .filter(|running| running.step == *number)
                    .map_or(now, |running| running.since);
                let place =
                    if self.step.is_some() { String::new() } else { format!("{number}/{of} ") };
                let activity = format!("{place}{}{}", clean(step), amount(*rows, *bytes));
                self.set(&target.schema, activity, since, Clock::After);
                if let Some(running) = self.running(&target.schema) {
                    running.step = *number;
                }
            }
            EventKind::ScriptStarted { script } => {
                let activity = clean(&script.to_string()).into_owned();
                self.set(&target.schema, activity, now, Clock::After);
            }
            EventKind::ScriptFinished { .. } => {
                // The next activity must not start with the elapsed time of this one.
                self.set(&target.schema, String::new(), now, Clock::After);
            }
            EventKind::Retrying { attempt, limit, error, blockers, .. } => {
                let why = error.to_string();
                let by = blockers
                    .first()
                    .map_or_else(String::new, |b| format!(", blocked by pid {}", b.pid));
                let activity = format!("retry {attempt}/{limit}: {}{by}", clean(&why));
                self.set(&target.schema, activity, now, Clock::None);
            }
            EventKind::SchemaFinished { outcome } => return self.finish(&target.schema, outcome),
            _ => {}
        }
        false
    }

    /// Returns a line of at most `width` columns for each schema in progress, in the order of their start.
    pub(super) fn lines(&self, now: Instant, width: usize, style: Style) -> String {
        let visible = &self.running[..self.running.len().min(MAX_LINES)];
        let names = visible.iter().map(|running| columns(&running.name)).max();
        // A long name must not push the activity off the line.
        let column = names.unwrap_or(0).min(width * 2 / 5);
        let mut out = String::new();
        if let Some((activity, until)) = &self.pause {
            let left = whole(rounded(until.saturating_duration_since(now)));
            let _ = writeln!(out, "{}", fit(&format!("{activity}, {left} left"), width));
        }
        for running in visible {
            let name = pad(&fit(&running.name, column), column);
            let activity = running.activity(now);
            let line = format!("  {name}  {activity}");
            let _ = writeln!(out, "{}", fit(line.trim_end(), width));
        }
        if self.running.len() > MAX_LINES {
            let more = format!("  … {} more", self.running.len() - MAX_LINES);
            out += &style.dim(&fit(&more, width));
        }
        out.trim_end().to_owned()
    }

    fn set(&mut self, schema: &SchemaName, activity: String, since: Instant, clock: Clock) {
        if let Some(running) = self.running(schema) {
            running.activity = activity;
            running.step = 0;
            running.since = since;
            running.clock = clock;
        }
    }

    fn running(&mut self, schema: &SchemaName) -> Option<&mut SchemaProgress> {
        self.running.iter_mut().find(|one| one.schema == *schema)
    }

    /// Removes a schema. One that was not started counts only if it failed.
    fn finish(&mut self, schema: &SchemaName, outcome: &Outcome) -> bool {
        let place = self.running.iter().position(|one| one.schema == *schema);
        if let Some(place) = place {
            self.running.remove(place);
        }
        let failed = matches!(outcome, Outcome::Failed { .. });
        self.failed += usize::from(failed);
        // A schema that failed before the run started was never in the total.
        self.done += usize::from(place.is_some());
        self.total = self.total.max(self.done);
        failed || place.is_some()
    }
}

impl SchemaProgress {
    fn activity(&self, now: Instant) -> String {
        let time = now.saturating_duration_since(self.since);
        match self.clock {
            Clock::Inside => format!("{}{})", self.activity, whole(time)),
            Clock::After if time >= Duration::from_secs(1) && !self.activity.is_empty() => {
                format!("{}  {}", self.activity, whole(time))
            }
            Clock::After | Clock::None => self.activity.clone(),
        }
    }
}
