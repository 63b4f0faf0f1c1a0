//! What bars show: how far the fleet is and what runs now, never more than that.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::domain::schema_name::SchemaName;
use crate::service::event::{Event, EventKind, Operation, Outcome};

use super::log_format::moved;
use crate::ui::style::Style;
use crate::ui::text::{clean, columns, fit, pad, rounded, whole};

/// At most so many running schemas have a line of their own.
const LINES: usize = 8;

/// The state behind the bars; grows with the number of jobs, not with the fleet.
#[derive(Debug, Default)]
pub(super) struct ProgressState {
    pub(super) work: Operation,
    pub(super) total: usize,
    pub(super) done: usize,
    pub(super) failed: usize,
    running: Vec<Running>,
    /// At which of how many steps the only schema of a run is.
    pub(super) step: Option<(usize, usize)>,
    /// Which of how many stages it is, where there are several.
    pub(super) stage: Option<(usize, usize)>,
    /// What is waited for between two stages, and until when.
    pause: Option<(String, Instant)>,
}

#[derive(Debug)]
struct Running {
    schema: SchemaName,
    shown: String,
    doing: String,
    /// The number of its step, where it is told in steps and at one.
    step: usize,
    since: Instant,
    clock: Clock,
}

/// How the time since is shown beside what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// From the first second on.
    Up,
    /// Inside the closing parenthesis of what is done.
    Within,
    None,
}

impl ProgressState {
    /// Takes an event in and returns whether something finished.
    pub(super) fn note(&mut self, event: &Event, now: Instant) -> bool {
        let Some(target) = &event.target else {
            match event.kind {
                EventKind::RunStarted { work, pending, .. } => {
                    self.work = work;
                    self.total = pending;
                }
                EventKind::TenantsFound { pending, .. } => self.total = pending,
                EventKind::Pausing { before, of, left } => {
                    let doing = format!("  pausing before stage {before} of {of}");
                    self.pause = Some((doing, now + left));
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
            EventKind::SchemaStarted { .. } => self.running.push(Running {
                schema: target.schema.clone(),
                shown: clean(target.schema.as_str()).into_owned(),
                doing: String::new(),
                step: 0,
                since: now,
                clock: Clock::Up,
            }),
            EventKind::WaitingForLock { holder, waited } => {
                let doing = match holder {
                    Some(holder) => format!("waiting for lock (held by pid {}, ", holder.pid),
                    None => "waiting for lock (".to_owned(),
                };
                let since = now.checked_sub(*waited).unwrap_or(now);
                self.set(&target.schema, doing, since, Clock::Within);
            }
            EventKind::WaitingForStandby { waited } => {
                let since = now.checked_sub(*waited).unwrap_or(now);
                let doing = "waiting for a standby (".to_owned();
                self.set(&target.schema, doing, since, Clock::Within);
            }
            EventKind::Step {
                step,
                number,
                of,
                rows,
                bytes,
            } => {
                self.step = (self.total == 1).then_some((*number, *of));
                let running = self.running.iter().find(|one| one.schema == target.schema);
                let since = running
                    .filter(|running| running.step == *number)
                    .map_or(now, |running| running.since);
                let place = if self.step.is_some() {
                    String::new()
                } else {
                    format!("{number}/{of} ")
                };
                let doing = format!("{place}{}{}", clean(step), moved(*rows, *bytes));
                self.set(&target.schema, doing, since, Clock::Up);
                if let Some(running) = self.running(&target.schema) {
                    running.step = *number;
                }
            }
            EventKind::ScriptStarted { script } => {
                let doing = clean(&script.to_string()).into_owned();
                self.set(&target.schema, doing, now, Clock::Up);
            }
            EventKind::ScriptFinished { .. } => {
                // A script's line must not claim its time for what comes next.
                self.set(&target.schema, String::new(), now, Clock::Up);
            }
            EventKind::Retrying {
                attempt,
                limit,
                error,
                blockers,
                ..
            } => {
                let why = error.to_string();
                let by = blockers
                    .first()
                    .map_or_else(String::new, |b| format!(", blocked by pid {}", b.pid));
                let doing = format!("retry {attempt}/{limit}: {}{by}", clean(&why));
                self.set(&target.schema, doing, now, Clock::None);
            }
            EventKind::SchemaFinished { outcome } => return self.finish(&target.schema, outcome),
            _ => {}
        }
        false
    }

    /// Returns the lines of what runs, the longest-running first, each in at most `width` columns.
    pub(super) fn lines(&self, now: Instant, width: usize, style: Style) -> String {
        let shown = &self.running[..self.running.len().min(LINES)];
        let names = shown.iter().map(|running| columns(&running.shown)).max();
        // A long name may not push what it does off the line.
        let column = names.unwrap_or(0).min(width * 2 / 5);
        let mut out = String::new();
        if let Some((doing, until)) = &self.pause {
            let left = whole(rounded(until.saturating_duration_since(now)));
            let _ = writeln!(out, "{}", fit(&format!("{doing}, {left} left"), width));
        }
        for running in shown {
            let name = pad(&fit(&running.shown, column), column);
            let doing = running.doing(now);
            let line = format!("  {name}  {doing}");
            let _ = writeln!(out, "{}", fit(line.trim_end(), width));
        }
        if self.running.len() > LINES {
            let more = format!("  … {} more", self.running.len() - LINES);
            out += &style.dim(&fit(&more, width));
        }
        out.trim_end().to_owned()
    }

    fn set(&mut self, schema: &SchemaName, doing: String, since: Instant, clock: Clock) {
        if let Some(running) = self.running(schema) {
            running.doing = doing;
            running.step = 0;
            running.since = since;
            running.clock = clock;
        }
    }

    fn running(&mut self, schema: &SchemaName) -> Option<&mut Running> {
        self.running.iter_mut().find(|one| one.schema == *schema)
    }

    /// A schema that was never begun is no progress, unless it failed before it could be.
    fn finish(&mut self, schema: &SchemaName, outcome: &Outcome) -> bool {
        let place = self.running.iter().position(|one| one.schema == *schema);
        if let Some(place) = place {
            self.running.remove(place);
        }
        let failed = matches!(outcome, Outcome::Failed { .. });
        self.failed += usize::from(failed);
        let counts = failed || place.is_some();
        self.done += usize::from(counts);
        self.total = self.total.max(self.done);
        counts
    }
}

impl Running {
    fn doing(&self, now: Instant) -> String {
        let time = now.saturating_duration_since(self.since);
        match self.clock {
            Clock::Within => format!("{}{})", self.doing, whole(time)),
            Clock::Up if time >= Duration::from_secs(1) && !self.doing.is_empty() => {
                format!("{}  {}", self.doing, whole(time))
            }
            Clock::Up | Clock::None => self.doing.clone(),
        }
    }
}
