use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "enum-value",
    severity: Severity::Hint,
    grows_with_fleet: false,
    summary: "enum value that is added in a transaction",
    why: "The transaction that adds a value cannot use it.",
    server: "SQLSTATE 55P04; from version 17 on not if the transaction also creates the type. \
             pricesync commits before a later file that contains the value.",
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
    let is_used = now.uses_after_adding(value);
    if !now.is_one_transaction() || !now.in_use(to) && !is_used {
        return None;
    }
    let violation = Violation::new(
        format!("{value} is added to {to} in a transaction, which cannot use it before COMMIT"),
        if is_used {
            "a later statement of this file uses the value, which fails with SQLSTATE 55P04"
        } else {
            "pricesync commits before a later file that uses it, so not all pending files are one transaction"
        },
        "use the value in a later file",
    );
    Some(if is_used { violation.with_severity(Severity::Error) } else { violation })
}
