//! Applies the rules to the files of one transaction, statement by statement.

use super::effect::Effect;
use super::finding::Finding;
use super::rules::Rule;
use super::transaction::TransactionState;
use crate::migrations::sql::position::location_of_byte;

/// Returns all findings in a transaction, in the order of its statements.
pub(super) fn findings(mut state: TransactionState<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let set = state.set;
    for &file in state.files {
        state.file = file;
        for statement in &set.files[file].statements {
            for (offset, effect) in &statement.effects {
                check(&state, statement.range.start, *offset, effect, &mut findings);
                state.record(effect);
            }
            state.current += 1;
        }
    }
    findings
}

fn check(
    state: &TransactionState<'_>,
    statement: usize,
    offset: usize,
    effect: &Effect,
    to: &mut Vec<Finding>,
) {
    // A change outside of the schema is rolled back, so its cost does not matter.
    let outside = (Rule::OutsideSchema.definition().check)(state, effect).is_some();
    let rules = if outside { &[Rule::OutsideSchema] } else { Rule::ALL };
    let script = &state.set.scripts.scripts()[state.file];
    for &rule in rules {
        let Some(violation) = (rule.definition().check)(state, effect) else {
            continue;
        };
        to.push(Finding {
            scope: state.scope,
            file: state.file,
            statement,
            path: script.path.clone(),
            location: location_of_byte(&script.text, offset),
            rule,
            severity: violation.severity.unwrap_or(rule.definition().severity),
            message: violation.message,
            cost: violation.cost,
            safer: violation.safer,
        });
    }
}
