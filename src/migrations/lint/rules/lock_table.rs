use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "lock-table",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "LOCK TABLE",
    why: "The lock is held longer than the statements that need it.",
    server: "All versions: ACCESS EXCLUSIVE until COMMIT unless a mode is given.",
    found: &["LOCK TABLE orders IN EXCLUSIVE MODE"],
    accepted: &["CREATE TABLE n (id int); LOCK TABLE n"],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    match effect {
        Effect::Lock { tables } if tables.iter().any(|table| now.in_use(table)) => {
            Some(Violation::new(
                format!("LOCK TABLE {}", listed(tables)),
                "programs that use the table wait until COMMIT",
                "let each statement take the lock that it needs; if you need LOCK TABLE, put it last in the last file",
            ))
        }
        _ => None,
    }
}
