//! Log lines: which events have a line, and its text.

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
use crate::ui::text::{clean, columns, count, plural, rounded, size, took, whole};

/// Which lines are shown; each level includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::ui) enum LogLevel {
    /// Failures.
    Failures,
    /// Also warnings of the server, skipped schemas and the summary.
    Warnings,
    /// Also applied migrations, waits, retries and long steps.
    Progress,
    /// Also every step, if the run has a single schema.
    Steps,
    /// Also the start of each file, and notices of the server.
    All,
}

/// Turns events into lines. Holds the schemas in progress and the failures already explained,
/// never the fleet.
#[derive(Debug)]
pub(in crate::ui) struct LogFormatter {
    level: LogLevel,
    style: Style,
    width: usize,
    /// The program in proposed commands.
    program: String,
    work: Operation,
    /// Whether lines of different schemas can interleave; each line then starts with its schema.
    interleaved: bool,
    /// Whether the run has a single pending schema.
    is_single: bool,
    running: HashMap<SchemaName, SchemaLines>,
    /// The kinds of failure already explained, with the number of lines written until then.
    explained: HashMap<String, usize>,
    lines: usize,
    waits: LockWaitStats,
}

/// A schema in progress.
#[derive(Debug)]
struct SchemaLines {
    /// Its place in the run, such as `[3/40] `.
    number: String,
    /// The number of its step, and when the step last had a line.
    step: usize,
    shown: Duration,
}

/// How often a long step has a line.
const STEP_INTERVAL: Duration = Duration::from_secs(5);
/// The column at which durations end.
const LINE: usize = 57;
/// How many lines may follow an explanation before the summary repeats it.
const SCREEN: usize = 20;

impl LogFormatter {
    pub(in crate::ui) fn new(level: LogLevel, style: Style, width: usize, program: &str) -> Self {
        Self {
            level,
            style,
            width,
            program: program.to_owned(),
            work: Operation::MIGRATION,
            interleaved: false,
            is_single: false,
            running: HashMap::new(),
            explained: HashMap::new(),
            lines: 0,
            waits: LockWaitStats::default(),
        }
    }

    fn layout(&self) -> Layout<'_> {
        let with_context = self.shows(LogLevel::All);
        Layout { style: self.style, width: self.width, with_context, program: &self.program }
    }

    /// Returns the lines for an event; empty if it has none at this level.
    pub(in crate::ui) fn event(&mut self, event: &Event) -> String {
        if let EventKind::RunStarted { pending, jobs, .. }
        | EventKind::TenantsFound { pending, jobs, .. } = &event.kind
        {
            self.interleaved = *jobs > 1 && *pending > 1;
            self.is_single = *pending == 1;
        }
        if let EventKind::RunStarted { work, .. } = &event.kind {
            self.work = *work;
        }
        self.waits.record(event);
        let text = match &event.target {
            Some(target) => self.schema_event(target, &event.kind, event.elapsed),
            None => self.run_event(&event.kind),
        };
        self.lines += text.lines().count();
        text
    }

    /// Returns the lines after the last event.
    pub(in crate::ui) fn finish(&self, summary: &Summary) -> String {
        if summary.work.done.is_none() {
            return String::new();
        }
        let shown = |key: &str| match self.explained.get(key) {
            None => Shown::Never,
            // With --quiet each failure is explained once.
            Some(_) if self.level == LogLevel::Failures => Shown::Recently,
            Some(then) if self.lines - then <= SCREEN => Shown::Recently,
            Some(_) => Shown::LongAgo,
        };
        if self.level == LogLevel::Failures {
            let unshown = Summary {
                outcomes: summary
                    .outcomes
                    .iter()
                    .filter(|item| match &item.outcome {
                        Outcome::Failed { error, .. } => shown(&error.group_key()) == Shown::Never,
                        _ => false,
                    })
                    .cloned()
                    .collect(),
                // They have no event.
                refused: summary.refused.clone(),
                ..Summary::default()
            };
            return summary::failures(&unshown, shown, self.layout()) + &summary::resume(summary);
        }
        let mut text = summary::failures(summary, shown, self.layout());
        text += &summary::left_out(summary);
        text += &summary::resume(summary);
        text += &self.waits.line(self.shows(LogLevel::All)).unwrap_or_default();
        text += &summary::counts(summary, self.style);
        text
    }

    fn run_event(&self, kind: &EventKind) -> String {
        match kind {
            EventKind::Interrupted { level } if self.shows(LogLevel::Warnings) => match level {
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
            } if self.shows(LogLevel::Progress) => {
                let schemas = match stage {
                    StageKind::Canary => plural(*schemas, "canary", "canaries"),
                    StageKind::Batch => count(*schemas, "schema"),
                };
                format!("Stage {number} of {of}: {schemas}\n")
            }
            EventKind::Pausing { before, of, left } if self.shows(LogLevel::Progress) => format!(
                "pausing before stage {before} of {of}, {} left; interrupt to end the run here\n",
                whole(rounded(*left))
            ),
            EventKind::JobsChanged { jobs, most } if self.shows(LogLevel::All) => {
                format!("jobs: now {jobs} of {most}\n")
            }
            _ => String::new(),
        }
    }

    fn schema_event(&mut self, target: &Target, kind: &EventKind, now: Duration) -> String {
        let schema = clean(target.schema.as_str());
        match kind {
            EventKind::SchemaStarted { number, of } => {
                let running =
                    SchemaLines { number: format!("[{number}/{of}] "), step: 0, shown: now };
                self.running.insert(target.schema.clone(), running);
                if !self.work.has_scripts() {
                    return if self.shows(LogLevel::All) {
                        format!("[{number}/{of}] {schema}: {}...\n", self.work.doing)
                    } else {
                        String::new()
                    };
                }
                if !self.shows(LogLevel::Progress) {
                    return String::new();
                }
                let place = if *number == 0 { String::new() } else { format!("[{number}/{of}] ") };
                if self.work.only_records() {
                    format!("{place}Recording migrations in schema '{schema}'...\n")
                } else {
                    format!("{place}Running migrations for schema '{schema}'...\n")
                }
            }
            EventKind::WaitingForLock { holder, waited } if self.shows(LogLevel::Progress) => {
                format!("{schema}: {}\n", waiting_for_lock(holder.as_ref(), *waited))
            }
            EventKind::WaitingForStandby { waited } if self.shows(LogLevel::Warnings) => format!(
                "{schema}: {} (interrupting twice ends the wait, what is committed stays)\n",
                waiting_for_standby(*waited)
            ),
            EventKind::Step { step, number, of, rows, bytes } => {
                let at_once =
                    self.shows(LogLevel::All) || self.is_single && self.shows(LogLevel::Steps);
                let Some(running) = self.running.get_mut(&target.schema) else {
                    return String::new();
                };
                let is_next = running.step != *number;
                let is_due =
                    self.level >= LogLevel::Progress && now >= running.shown + STEP_INTERVAL;
                if !(is_due || is_next && at_once) {
                    return String::new();
                }
                (running.step, running.shown) = (*number, now);
                let amount = amount(*rows, *bytes);
                format!("{schema}: step {number} of {of}: {}{amount}\n", clean(step))
            }
            EventKind::ScriptStarted { script } if self.shows(LogLevel::All) => {
                format!("{schema}: {} started\n", clean(&script.to_string()))
            }
            EventKind::Retrying { attempt, limit, error, blockers, pause }
                if self.shows(LogLevel::Progress) =>
            {
                let next = took(*pause);
                let why = retrying(error, blockers);
                format!("{schema}: attempt {attempt} of {limit} failed, next in {next}: {why}\n")
            }
            EventKind::Notice { severity, message } => {
                self.notice(Some(&schema), severity, message)
            }
            EventKind::Output { line } if self.shows(LogLevel::Warnings) => {
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
            Outcome::Migrated { scripts, .. } if self.shows(LogLevel::Progress) => {
                self.prefixed(target, &(self.migrated(scripts.iter()) + &done))
            }
            Outcome::UpToDate if started.is_some() && self.shows(LogLevel::Progress) => {
                self.prefixed(target, &done)
            }
            Outcome::Done { result, took: time } if self.shows(LogLevel::Progress) => {
                let name = format!(
                    "{}{}  {}",
                    started.unwrap_or_default(),
                    clean(target.schema.as_str()),
                    clean(result)
                );
                self.finished_line(name.trim_end(), *time)
            }
            Outcome::Failed { error, applied } => self.failed(target, error, applied),
            Outcome::Skipped { why } if self.shows(LogLevel::Warnings) => {
                format!("{}: skipped ({})\n", clean(target.schema.as_str()), summary::skipped(*why))
            }
            _ => String::new(),
        }
    }

    /// Explains each kind of failure in full once, and later ones of the kind in brief.
    fn failed(
        &mut self,
        target: &Target,
        error: &MigrateError,
        applied: &[AppliedScript],
    ) -> String {
        let key = error.group_key();
        let detail = if self.explained.contains_key(&key) { Detail::Brief } else { Detail::Full };
        let with_headline = self.shows(LogLevel::Progress);
        let explanation = explain(error, target, applied);
        // The prefix of interleaved lines names the schema already.
        let subject = (!with_headline || !self.interleaved).then_some(target.schema.as_str());
        let mut layout = self.layout();
        if subject.is_none() {
            let prefix = columns(target.schema.as_str()) + 2;
            layout.width = layout.width.saturating_sub(prefix);
        }
        let mut text = explanation.render(subject, detail, layout);
        if with_headline {
            let failed = self.style.bad("✗ FAILED");
            let headline = match error {
                MigrateError::Script { script, .. } | MigrateError::InvalidIndex { script, .. } => {
                    format!("{failed} {}\n", clean(&script.to_string()))
                }
                _ => format!("{failed}\n"),
            };
            let applied = applied.iter().map(|applied| (&applied.script, applied.took));
            text = self.prefixed(target, &(self.migrated(applied) + &headline + &text));
        }
        if detail == Detail::Full {
            self.explained.insert(key, self.lines + text.lines().count());
        }
        text
    }

    fn migrated<'a>(&self, scripts: impl Iterator<Item = (&'a ScriptRef, Duration)>) -> String {
        let mut text = String::new();
        for (script, time) in scripts {
            let name = script.to_string();
            let verb = match self.work {
                Operation::DRY_RUN => "Tried",
                work if work.only_records() => "Recorded",
                _ => "Migrated",
            };
            text += &self.finished_line(&format!("{verb} {}", clean(&name)), time);
        }
        text
    }

    /// Returns a line for a finished item, with its duration at the end.
    fn finished_line(&self, what: &str, time: Duration) -> String {
        let took = took(time);
        let used = columns("✓ ") + columns(what) + columns(&took);
        let gap = " ".repeat(LINE.saturating_sub(used).max(2));
        format!("{} {what}{gap}{took}\n", self.style.good("✓"))
    }

    fn notice(&self, schema: Option<&str>, severity: &str, message: &str) -> String {
        let level = if severity == "WARNING" { LogLevel::Warnings } else { LogLevel::All };
        if !self.shows(level) {
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

    fn shows(&self, level: LogLevel) -> bool {
        self.level >= level
    }
}

/// Returns the text for a COMMIT that waits for a synchronous standby.
pub fn waiting_for_standby(waited: Duration) -> String {
    format!(
        "waiting for a standby, {} so far: the server has committed, and no standby named in \
         synchronous_standby_names confirms it; start one or change that setting",
        whole(waited)
    )
}

/// Returns the rows and bytes of a step, to follow its name.
pub(in crate::ui) fn amount(rows: u64, bytes: u64) -> String {
    if rows == 0 {
        return String::new();
    }
    let rows = count(usize::try_from(rows).unwrap_or(usize::MAX), "row");
    format!(", {rows}, {}", size(bytes))
}

/// Returns the text for a wait for the schema's lock.
fn waiting_for_lock(holder: Option<&Holder>, waited: Duration) -> String {
    let waited = whole(waited);
    match holder {
        Some(holder) => {
            format!("waiting for lock, {waited} so far, held by {}", clean(&holder.to_string()))
        }
        None => format!("waiting for lock, {waited} so far"),
    }
}

fn retrying(error: &ServerError, blockers: &[Holder]) -> String {
    let why = std::iter::once(error.to_string())
        .chain(blockers.iter().map(|blocker| held_by("blocked by", blocker)))
        .collect::<Vec<_>>()
        .join("; ");
    clean(&why).into_owned()
}
