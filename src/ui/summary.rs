//! The summary of a run: failures, schemas left out, commands to continue, counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::service::event::{Interrupt, NotStarted, Operation, Outcome, Skipped};
use crate::service::summary::{SchemaOutcome, Summary};

use super::error::explain::explain_group;
use super::error::explanation::{Detail, Explanation, Layout};
use super::style::Style;
use super::text::{clean, count, plural, some_of, total};

/// When a failure was explained during the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Never,
    /// Few lines ago, so it is still on the screen.
    Recently,
    LongAgo,
}

/// How many kinds of failure are explained; `runs show` lists all.
const MAX_KINDS: usize = 20;
/// How many schemas of a group are named.
const MAX_NAMES: usize = 10;
/// How many tenants a proposed command names if no option selects them.
const MAX_SELECTED: usize = 100;
/// How many failed tenants a proposed command names if `--retry-failed` selects them too.
const MAX_RETRIED: usize = 3;

/// Returns one explanation for each kind of failure and the schemas that failed that way.
pub(super) fn failures(
    summary: &Summary,
    shown: impl Fn(&str) -> Shown,
    layout: Layout<'_>,
) -> String {
    let mut out = String::new();
    let groups = summary.failure_groups();
    for group in groups.iter().take(MAX_KINDS) {
        let shown = shown(&group.error.group_key());
        match group.targets.as_slice() {
            [_] if shown == Shown::Recently => {}
            [target] => {
                let schema = Some(target.schema.as_str());
                out += &explain_group(group).render(schema, Detail::Full, layout);
            }
            targets => {
                let mut explanation = explain_group(group);
                if shown == Shown::Recently {
                    explanation = Explanation::new(explanation.message());
                }
                out += &explanation.render(None, Detail::Full, layout);
                let schemas = targets.iter().map(|target| target.schema.as_str());
                let _ = writeln!(
                    out,
                    "  {}: {}",
                    count(targets.len(), "schema"),
                    some_of(schemas, MAX_NAMES)
                );
            }
        }
    }
    for row in &summary.refused {
        let refused = Explanation::new(format!(
            "tenant '{}' (row {} of the tenant table) cannot be migrated",
            row.slug, row.id
        ))
        .cause(&row.reason)
        .hint("correct the schema name in that row");
        out += &refused.render(None, Detail::Full, layout);
    }
    if groups.len() > MAX_KINDS {
        let _ = writeln!(
            out,
            "… and {} more",
            plural(groups.len() - MAX_KINDS, "kind of failure", "kinds of failure")
        );
    }
    out
}

/// Returns why schemas were skipped or not started, a line for each reason.
pub(super) fn left_out(summary: &Summary) -> String {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for item in &summary.outcomes {
        let why = match &item.outcome {
            Outcome::Skipped { why } => format!("skipped ({})", skipped(*why)),
            Outcome::NotStarted { why } => format!("not started ({})", not_started(*why)),
            _ => continue,
        };
        reasons.entry(why).or_default().push(item.target.schema.as_str());
    }
    let mut out = String::new();
    for (why, schemas) in reasons {
        let _ = writeln!(
            out,
            "{} {why}: {}",
            count(schemas.len(), "schema"),
            some_of(schemas.iter().copied(), MAX_NAMES)
        );
    }
    out
}

/// Returns the commands that retry the failed schemas and continue with the rest. Migrations can
/// repeat the same command, because finished schemas are skipped; others must select the rest.
pub(super) fn resume(summary: &Summary) -> String {
    let mut out = String::new();
    if let Some(command) = rerun(summary) {
        let _ = writeln!(out, "retry the failed schemas: {}", clean(&command));
    }
    let is_unfinished = |item: &&SchemaOutcome| {
        matches!(
            item.outcome,
            Outcome::NotStarted { .. } | Outcome::Skipped { why: Skipped::Interrupted }
        )
    };
    let unfinished = summary.outcomes.iter().filter(is_unfinished);
    let unfinished: Vec<&Target> = unfinished.map(|item| &*item.target).collect();
    match unfinished.len() {
        0 => {}
        _ if summary.work.has_scripts() => {
            let command = summary.command.as_deref().map(clean);
            let command = command.as_deref().unwrap_or("run the same command again");
            let _ = writeln!(out, "continue with the rest: {command}");
        }
        few if few <= MAX_SELECTED => {
            let rest = proposed(summary, &Target::option(unfinished.into_iter()));
            let _ = writeln!(out, "continue with the rest: {}", clean(&rest));
        }
        many => {
            let rest = count(many, "schema");
            let _ = writeln!(
                out,
                "continue with the rest, {rest}: the same command would repeat the finished ones; \
                 leave those out with --exclude, --where or --from-file"
            );
        }
    }
    out
}

/// Returns the command for another selection; only its start if the summary does not know all
/// options.
fn proposed(summary: &Summary, selection: &str) -> String {
    match &summary.program {
        Some(program) if summary.work.has_scripts() => {
            format!("{program} {}{} {selection}", summary.work.command, summary.options)
        }
        Some(program) => format!("{program} {} {selection} ...", summary.work.command),
        None => format!("the same command with {selection}"),
    }
}

/// Returns the line that counts: `run 17: 3 schemas, 3 migrated, 0 up to date, ... · 0.21 s`,
/// without the number if the run is not stored. Empty if the command prints its own result.
pub(super) fn counts(summary: &Summary, style: Style) -> String {
    let Some(done) = summary.work.done else {
        return String::new();
    };
    let counts = summary.counts();
    let failed = format!("{} failed", counts.failed);
    let failed = if counts.failed == 0 { failed } else { style.bad(&failed) };
    let interrupted = match summary.interrupted {
        Interrupt::None => "",
        Interrupt::Drain | Interrupt::Cancel => " · interrupted",
    };
    let back = if summary.work == Operation::DRY_RUN { " · all rolled back" } else { "" };
    let schemas = count(counts.total(), "schema");
    let schemas = match summary.run {
        Some(run) => format!("run {run}: {schemas},"),
        None => format!("{schemas}:"),
    };
    let done = if summary.work.has_scripts() {
        format!("{} {}, {} up to date", counts.migrated, done, counts.up_to_date)
    } else {
        format!("{} {done}", counts.done)
    };
    format!(
        "{schemas} {done}, {failed}, {} skipped, {} not started · {}{interrupted}{back}\n",
        counts.skipped,
        counts.not_started,
        total(summary.took),
    )
}

/// Returns why a schema was skipped.
pub fn skipped(why: Skipped) -> &'static str {
    match why {
        Skipped::Interrupted => "interrupted, its transaction was rolled back",
        Skipped::Dropped => "the tenant was dropped in the meantime",
        Skipped::Dropping => "the tenant is being dropped; drop-schema finishes it",
        Skipped::NoTransaction => "its next file runs without a transaction",
    }
}

/// Returns why a schema was not started.
pub fn not_started(why: NotStarted) -> &'static str {
    match why {
        NotStarted::PublicFailed => "schema 'public' failed",
        NotStarted::EarlierFailure => {
            "an earlier schema failed; --on-failure=continue runs the rest"
        }
        NotStarted::CanaryFailed => "a canary failed",
        NotStarted::TooManyFailures => "--max-failures was reached",
        NotStarted::DiskFull => "the server's disk is full",
        NotStarted::ServerUnavailable => "the server shut down or does not answer",
        NotStarted::Interrupted => "the run was interrupted",
    }
}

/// Returns the command that retries the failed schemas; `None` for a single failure, whose hint has it.
fn rerun(summary: &Summary) -> Option<String> {
    let failed: Vec<&Target> = summary
        .outcomes
        .iter()
        .filter(|item| matches!(item.outcome, Outcome::Failed { .. }))
        .map(|item| &*item.target)
        .collect();
    let is_stored = summary.work.is_retried() && summary.run.is_some();
    let by_name = failed.len() <= if is_stored { MAX_RETRIED } else { MAX_SELECTED }
        && (!is_stored || failed.iter().all(|target| target.scope == Scope::Tenant));
    match failed.len() {
        0 | 1 => None,
        _ if by_name => {
            let names = Target::option(failed.into_iter());
            Some(proposed(summary, &names))
        }
        _ if is_stored => Some(proposed(summary, "--retry-failed")),
        _ => None,
    }
}
