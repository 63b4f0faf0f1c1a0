//! A run told in lines of text: what is worth a line, and how the line reads.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::domain::applied::AppliedScript;
use crate::domain::schema_name::SchemaName;
use crate::domain::script::ScriptRef;
use crate::domain::target::Target;
use crate::service::event::{Event, EventKind, Interrupt, Operation, Outcome};
use crate::service::failure::{Holder, MigrateError, ServerError};
use crate::service::stages::StageKind;
use crate::service::summary::Summary;

use crate::ui::error::explain::{explain, held_by};
use crate::ui::error::explanation::{Detail, Layout};
use crate::ui::lock_wait_stats::LockWaitStats;
use crate::ui::style::Style;
use crate::ui::summary::{self, Shown};
use crate::ui::text::{clean, columns, count, rounded, size, took, whole};

/// How much of a run is told; each step tells what the one before tells, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ui) enum LogLevel {
    /// Failures, and nothing else.
    Failures,
    /// Also the server's warnings, what was passed over, and the summary.
    Warnings,
    /// Also what was applied, waits and retries, and steps that take long.
    Progress,
    /// Also every step of the only schema of a run.
    Steps,
    /// Also what begins, and everything the server says.
    All,
}

/// Turns events into lines. Holds what is running and which failures were explained,
/// never the fleet.
#[derive(Debug)]
pub(in crate::ui) struct LogFormatter {
    telling: LogLevel,
    style: Style,
    width: usize,
    /// The program in proposed commands.
    program: String,
    work: Operation,
    /// Whether lines of different schemas can interleave, so that each says whose it is.
    interleaved: bool,
    /// Whether there is one schema alone.
    alone: bool,
    running: HashMap<SchemaName, Running>,
    /// The kinds of failure that were explained, and how many lines were told by then.
    explained: HashMap<String, usize>,
    told: usize,
    waits: LockWaitStats,
}

/// A schema at work.
#[derive(Debug)]
struct Running {
    /// Which of how many it is, where that is told at the end.
    number: String,
    /// The number of its step, and when that was last told.
    step: usize,
    told: Duration,
}

/// How long a step may go on before it is told again.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Where the durations end: the width of the guide's lines.
const LINE: usize = 57;
/// How many lines may follow an explanation before the summary gives it again.
const SCREEN: usize = 20;

impl LogFormatter {
    pub(in crate::ui) fn new(telling: LogLevel, style: Style, width: usize, program: &str) -> Self {
        Self {
            telling,
            style,
            width,
            program: program.to_owned(),
            work: Operation::MIGRATION,
            interleaved: false,
            alone: false,
            running: HashMap::new(),
            explained: HashMap::new(),
            told: 0,
            waits: LockWaitStats::default(),
        }
    }

    fn layout(&self) -> Layout<'_> {
        Layout {
            style: self.style,
            width: self.width,
            program: &self.program,
        }
    }

    /// Returns the lines for an event; empty where there is nothing to say.
    pub(in crate::ui) fn tell(&mut self, event: &Event) -> String {
        if let EventKind::RunStarted { pending, jobs, .. }
        | EventKind::TenantsFound { pending, jobs, .. } = &event.kind
        {
            self.interleaved = *jobs > 1 && *pending > 1;
            self.alone = *pending == 1;
        }
        if let EventKind::RunStarted { work, .. } = &event.kind {
            self.work = *work;
        }
        self.waits.note(event);
        let text = match &event.target {
            Some(target) => self.tell_schema(target, &event.kind, event.elapsed),
            None => self.tell_run(&event.kind),
        };
        self.told += text.lines().count();
        text
    }

    /// Returns the lines after the last event.
    pub(in crate::ui) fn end(&self, summary: &Summary) -> String {
        if summary.work.done.is_none() {
            return String::new();
        }
        let told = |key: &str| match self.explained.get(key) {
            None => Shown::Never,
            // Who asked for nothing but failures gets each of them once.
            Some(_) if self.telling == LogLevel::Failures => Shown::Recently,
            Some(then) if self.told - then <= SCREEN => Shown::Recently,
            Some(_) => Shown::LongAgo,
        };
        if self.telling == LogLevel::Failures {
            let untold = Summary {
                outcomes: summary
                    .outcomes
                    .iter()
                    .filter(|item| match &item.outcome {
                        Outcome::Failed { error, .. } => told(&error.group_key()) == Shown::Never,
                        _ => false,
                    })
                    .cloned()
                    .collect(),
                // No event told of them.
                refused: summary.refused.clone(),
                ..Summary::default()
            };
            return summary::failures(&untold, told, self.layout()) + &summary::resume(summary);
        }
        let mut text = summary::failures(summary, told, self.layout());
        text += &summary::left_out(summary);
        text += &summary::resume(summary);
        text += &self
            .waits
            .line(self.tells(LogLevel::All))
            .unwrap_or_default();
        text += &summary::counts(summary, self.style);
        text
    }

    fn tell_run(&self, kind: &EventKind) -> String {
        match kind {
            EventKind::Interrupted { level } if self.tells(LogLevel::Warnings) => match level {
                Interrupt::None => String::new(),
                Interrupt::Drain => {
                    "interrupted: running schemas finish, nothing new starts; interrupt again to cancel them\n"
                        .to_owned()
                }
                Interrupt::Cancel => {
                    "interrupted again: cancelling the running statements, they are rolled back\n"
                        .to_owned()
                }
            },
            EventKind::Notice { severity, message } => self.notice(None, severity, message),
            EventKind::StageStarted {
                stage,
                number,
                of,
                schemas,
            } if self.tells(LogLevel::Progress) => {
                let schemas = match stage {
                    StageKind::Canary => count(*schemas, "canary").replace("canarys", "canaries"),
                    StageKind::Batch => count(*schemas, "schema"),
                };
                format!("Stage {number} of {of}: {schemas}\n")
            }
            EventKind::Pausing { before, of, left } if self.tells(LogLevel::Progress) => format!(
                "pausing before stage {before} of {of}, {} left; interrupt to end the run here\n",
                whole(rounded(*left))
            ),
            EventKind::JobsChanged { jobs, most } if self.tells(LogLevel::All) => {
                format!("jobs: {jobs} of {most} at once from now on\n")
            }
            _ => String::new(),
        }
    }

    fn tell_schema(&mut self, target: &Target, kind: &EventKind, now: Duration) -> String {
        let schema = clean(target.schema.as_str());
        match kind {
            EventKind::SchemaStarted { number, of } => {
                let running = Running {
                    number: format!("[{number}/{of}] "),
                    step: 0,
                    told: now,
                };
                self.running.insert(target.schema.clone(), running);
                if !self.work.has_scripts() {
                    return if self.tells(LogLevel::All) {
                        format!("[{number}/{of}] {schema}: {}...\n", self.work.doing)
                    } else {
                        String::new()
                    };
                }
                match (self.tells(LogLevel::Progress), number) {
                    (false, _) => String::new(),
                    (true, 0) => format!("Running migrations for schema '{schema}'...\n"),
                    (true, _) => {
                        format!("[{number}/{of}] Running migrations for schema '{schema}'...\n")
                    }
                }
            }
            EventKind::WaitingForLock { holder, waited } if self.tells(LogLevel::Progress) => {
                format!("{schema}: {}\n", waiting(holder.as_ref(), *waited))
            }
            EventKind::WaitingForStandby { waited } if self.tells(LogLevel::Warnings) => format!(
                "{schema}: {} (interrupting twice ends the wait, what is committed stays)\n",
                waiting_for_standby(*waited)
            ),
            EventKind::Step {
                step,
                number,
                of,
                rows,
                bytes,
            } => {
                let at_once =
                    self.tells(LogLevel::All) || self.alone && self.tells(LogLevel::Steps);
                let Some(running) = self.running.get_mut(&target.schema) else {
                    return String::new();
                };
                let is_next = running.step != *number;
                let is_due = self.telling >= LogLevel::Progress && now >= running.told + TELL_EVERY;
                if !(is_due || is_next && at_once) {
                    return String::new();
                }
                (running.step, running.told) = (*number, now);
                let moved = moved(*rows, *bytes);
                format!("{schema}: step {number} of {of}: {}{moved}\n", clean(step))
            }
            EventKind::ScriptStarted { script } if self.tells(LogLevel::All) => {
                format!("{schema}: {} started\n", clean(&script.to_string()))
            }
            EventKind::Retrying {
                attempt,
                limit,
                error,
                blockers,
                pause,
            } if self.tells(LogLevel::Progress) => {
                let next = took(*pause);
                let why = retrying(error, blockers);
                format!("{schema}: attempt {attempt} of {limit} failed, next in {next}: {why}\n")
            }
            EventKind::Notice { severity, message } => {
                self.notice(Some(&schema), severity, message)
            }
            EventKind::Output { line } if self.tells(LogLevel::Warnings) => {
                format!("{}: {}\n", clean(&target.label), clean(line))
            }
            EventKind::SchemaFinished { outcome } => {
                let running = self.running.remove(&target.schema);
                if self.work.done.is_none() {
                    return String::new();
                }
                let number = running.map(|running| running.number);
                self.finished(target, outcome, number.as_deref())
            }
            _ => String::new(),
        }
    }

    fn finished(&mut self, target: &Target, outcome: &Outcome, started: Option<&str>) -> String {
        let done = format!("{} Done\n", self.style.good("✓"));
        match outcome {
            Outcome::Migrated { scripts, .. } if self.tells(LogLevel::Progress) => {
                self.prefixed(target, &(self.migrated(scripts.iter()) + &done))
            }
            Outcome::UpToDate if started.is_some() && self.tells(LogLevel::Progress) => {
                self.prefixed(target, &done)
            }
            Outcome::Done { result, took: time } if self.tells(LogLevel::Progress) => {
                let name = format!(
                    "{}{}  {}",
                    started.unwrap_or_default(),
                    clean(target.schema.as_str()),
                    clean(result)
                );
                self.ticked(name.trim_end(), *time)
            }
            Outcome::Failed { error, applied } => self.failed(target, error, applied),
            Outcome::Skipped { why } if self.tells(LogLevel::Warnings) => format!(
                "{}: skipped ({})\n",
                clean(target.schema.as_str()),
                summary::skipped(*why)
            ),
            _ => String::new(),
        }
    }

    /// The full explanation once for each kind of failure, what differs for the others.
    fn failed(
        &mut self,
        target: &Target,
        error: &MigrateError,
        applied: &[AppliedScript],
    ) -> String {
        let key = error.group_key();
        let extent = if self.explained.contains_key(&key) {
            Detail::Brief
        } else {
            Detail::Full
        };
        let told_here = self.tells(LogLevel::Progress);
        let explanation = explain(error, target, applied);
        // Where each line begins with the schema, the headline need not.
        let subject = (!told_here || !self.interleaved).then_some(target.schema.as_str());
        let mut layout = self.layout();
        if subject.is_none() {
            let prefix = columns(target.schema.as_str()) + 2;
            layout.width = layout.width.saturating_sub(prefix);
        }
        let mut text = explanation.render(subject, extent, layout);
        if told_here {
            let failed = self.style.bad("✗ FAILED");
            let headline = match error {
                MigrateError::Script { script, .. } | MigrateError::InvalidIndex { script, .. } => {
                    format!("{failed} {}\n", clean(&script.to_string()))
                }
                _ => format!("{failed}\n"),
            };
            let applied = applied
                .iter()
                .map(|applied| (&applied.script, applied.took));
            text = self.prefixed(target, &(self.migrated(applied) + &headline + &text));
        }
        if extent == Detail::Full {
            self.explained.insert(key, self.told + text.lines().count());
        }
        text
    }

    fn migrated<'a>(&self, scripts: impl Iterator<Item = (&'a ScriptRef, Duration)>) -> String {
        let mut text = String::new();
        for (script, time) in scripts {
            let name = script.to_string();
            let verb = if self.work == Operation::DRY_RUN {
                "Tried"
            } else {
                "Migrated"
            };
            text += &self.ticked(&format!("{verb} {}", clean(&name)), time);
        }
        text
    }

    /// Returns a line about what is done, with its time at the end.
    fn ticked(&self, what: &str, time: Duration) -> String {
        let took = took(time);
        let used = columns("✓ ") + columns(what) + columns(&took);
        let gap = " ".repeat(LINE.saturating_sub(used).max(2));
        format!("{} {what}{gap}{took}\n", self.style.good("✓"))
    }

    fn notice(&self, schema: Option<&str>, severity: &str, message: &str) -> String {
        let from = if severity == "WARNING" {
            LogLevel::Warnings
        } else {
            LogLevel::All
        };
        if !self.tells(from) {
            return String::new();
        }
        let severity = self.style.warning(&clean(severity));
        let prefix = schema.map_or_else(String::new, |schema| format!("{schema}: "));
        format!("{prefix}{severity}: {}\n", clean(message.trim_end()))
    }

    fn prefixed(&self, target: &Target, text: &str) -> String {
        if !self.interleaved {
            return text.to_owned();
        }
        let schema = clean(target.schema.as_str());
        text.lines().fold(String::new(), |mut out, line| {
            let _ = writeln!(out, "{schema}: {line}");
            out
        })
    }

    fn tells(&self, telling: LogLevel) -> bool {
        self.telling >= telling
    }
}

/// Why a COMMIT takes so long, and what to do about it.
#[must_use]
pub fn waiting_for_standby(waited: Duration) -> String {
    format!(
        "waiting for a standby, {} so far: the server has committed, and no standby named in \
         synchronous_standby_names confirms it; start one or change that setting",
        whole(waited)
    )
}

/// Returns how much went on in a step, behind what it is called.
pub(in crate::ui) fn moved(rows: u64, bytes: u64) -> String {
    if rows == 0 {
        return String::new();
    }
    let rows = count(usize::try_from(rows).unwrap_or(usize::MAX), "row");
    format!(", {rows}, {}", size(bytes))
}

/// Returns what a wait for a schema's lock reads like.
fn waiting(holder: Option<&Holder>, waited: Duration) -> String {
    let waited = whole(waited);
    match holder {
        Some(holder) => format!(
            "waiting for lock, {waited} so far, held by {}",
            clean(&holder.to_string())
        ),
        None => format!("waiting for lock, {waited} so far"),
    }
}

fn retrying(error: &ServerError, blockers: &[Holder]) -> String {
    let why = std::iter::once(error.to_string())
        .chain(
            blockers
                .iter()
                .map(|blocker| held_by("blocked by", blocker)),
        )
        .collect::<Vec<_>>()
        .join("; ");
    clean(&why).into_owned()
}
