//! Findings in pending files, grouped by the transactions that will run them.

use std::collections::{BTreeMap, BTreeSet};

use crate::commands::run::app::{App, Sets};
use crate::domain::hint::Hint;
use crate::domain::run_options::Atomic;
use crate::domain::schema_state::SchemaState;
use crate::domain::script::Scope;
use crate::migrations::lint::{Finding, Linter, Rule};
use crate::service::rollout::Survey;
use crate::ui::{ProgressMode, Verbosity};

/// From this number of schemas on, a run warns of statements that are costly in each schema.
const LARGE_FLEET: usize = 100;

/// Maximum number of such warnings in a run.
const MOST_WARNINGS: usize = 5;

/// Warns of pending files that are costly because there are many tenants.
pub(in crate::commands) fn warn_before(survey: &Survey, sets: &Sets, app: &App) {
    let is_silent = app.terminal.verbosity() == Verbosity::Quiet
        || matches!(app.progress, ProgressMode::Json | ProgressMode::None);
    if is_silent || survey.pending() == 0 {
        return;
    }
    let Ok(linter) = Linter::new(&sets.shared, &sets.tenant) else {
        return;
    };
    let weighs = |finding: &Finding| finding.rule.definition().grows_with_fleet;
    let schemas = schemas_by_file(survey);
    let mut findings = pending_findings(&linter, survey, app.settings.atomic);
    findings.retain(|finding| {
        let schemas = schemas.get(&(Scope::Tenant, finding.file)).copied();
        let enough = match finding.rule {
            Rule::FkToShared => 2,
            _ => LARGE_FLEET,
        };
        finding.scope == Scope::Tenant && weighs(finding) && schemas.unwrap_or_default() >= enough
    });
    for finding in findings.iter().take(MOST_WARNINGS) {
        app.terminal.warn(&format!(
            "{}:{}: {} [{}]",
            finding.path.display(),
            finding.location.line,
            finding.message,
            finding.rule
        ));
    }
    let purpose = match findings.len().saturating_sub(MOST_WARNINGS) {
        0 if findings.is_empty() => return,
        0 => "show safer forms".to_owned(),
        more => format!("show {more} more of this kind, and safer forms"),
    };
    app.terminal.hint(&Hint::command(purpose, "lint --pending"));
}

/// Returns the number of schemas in which each file is pending.
pub(super) fn schemas_by_file(survey: &Survey) -> BTreeMap<(Scope, usize), usize> {
    let mut schemas = BTreeMap::new();
    for item in &survey.schemas {
        if let SchemaState::Known(plan) = &item.state {
            for &file in &plan.pending {
                *schemas.entry((item.target.scope, file)).or_default() += 1;
            }
        }
    }
    schemas
}

/// Lints the pending files of each distinct plan, and returns each finding once.
pub(super) fn pending_findings(
    linter: &Linter<'_>,
    survey: &Survey,
    atomic: Atomic,
) -> Vec<Finding> {
    let plans: BTreeSet<(Scope, &[usize])> = survey
        .schemas
        .iter()
        .filter_map(|item| match &item.state {
            SchemaState::Known(plan) => Some((item.target.scope, plan.pending.as_slice())),
            _ => None,
        })
        .collect();
    let mut findings: Vec<Finding> = Vec::new();
    for (scope, files) in plans {
        for finding in linter.pending(scope, files, atomic == Atomic::Schema) {
            let known = |other: &Finding| {
                (other.scope, other.file, other.rule, &other.location)
                    == (finding.scope, finding.file, finding.rule, &finding.location)
            };
            if !findings.iter().any(known) {
                findings.push(finding);
            }
        }
    }
    // Stable, so that the findings of a file keep the order of its lines.
    findings.sort_by_key(|finding| (finding.scope, finding.file));
    findings
}
