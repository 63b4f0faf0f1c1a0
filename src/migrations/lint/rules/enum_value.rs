use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "enum-value",
    severity: Severity::Hint,
    grows_with_fleet: false,
    summary: "enum value that is added in a transaction",
    why: "The transaction that adds a value cannot use it.",
    server: "All versions: SQLSTATE 55P04, unless the transaction also creates the type.",
    found: &[
        "ALTER TYPE mood ADD VALUE 'calm';\nALTER TABLE orders ALTER COLUMN note SET DEFAULT 'calm'",
        "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'calm'",
    ],
    accepted: &[
        "-- pricesync: no-transaction\nALTER TYPE mood ADD VALUE 'calm';",
        "CREATE TYPE mood AS ENUM (); ALTER TYPE mood ADD VALUE 'calm'",
        "ALTER TYPE mood RENAME VALUE 'calm' TO 'quiet'",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::AddEnumValue { to, value } = effect else {
        return None;
    };
    if !now.is_one_transaction() || !now.in_use(to) {
        return None;
    }
    let violation = Violation::new(
        format!("{value} is added to {to} in a transaction, which cannot use it before COMMIT"),
        "a later statement of the same transaction that uses the value fails with SQLSTATE 55P04",
        format!("add the value {SEPARATE_FILE}, and use it in a later one"),
    );
    Some(if now.uses_after_adding(value) {
        violation.with_severity(Severity::Error)
    } else {
        violation
    })
}
