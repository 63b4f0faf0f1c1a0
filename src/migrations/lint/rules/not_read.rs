use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "not-read",
    severity: Severity::Hint,
    grows_with_fleet: false,
    summary: "statement that the parser does not know",
    why: "No rule is applied to it. Reported once in a file.",
    server: "Does not matter: the statement may be valid.",
    found: &["CREATE FLUX CAPACITOR c"],
    accepted: &["SELECT 1"],
    check,
};

fn check(_: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    matches!(effect, Effect::NotParsed).then(|| {
        Violation::new(
            "the parser does not know this statement, or it is too long for it",
            "no rule is applied to it",
            "review it by hand",
        )
    })
}
