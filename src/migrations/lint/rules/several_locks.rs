use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "several-locks",
    severity: Severity::Hint,
    grows_with_fleet: false,
    summary: "several tables in use that stay locked until the same COMMIT",
    why: "A program that uses them in another order can deadlock with the migration, which is then retried.",
    server: "All versions: locks are held until the end of the transaction.",
    found: &[
        "ALTER TABLE orders ADD COLUMN b int;\nALTER TABLE items ADD COLUMN b int;",
    ],
    accepted: &[
        "ALTER TABLE orders ADD COLUMN b int;\nALTER TABLE orders ADD COLUMN c int;",
        "ALTER TABLE orders ADD COLUMN b int; CREATE TABLE n (id int); CREATE INDEX i ON n (id)",
    ],
    check,
};

/// Reports the second table only: a third adds nothing.
fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let second = now.newly_locked(effect)?;
    let [first] = &now.locked[..] else {
        return None;
    };
    Some(Violation::new(
        format!("{first} and {second} are locked until the same COMMIT"),
        "a program that uses both in the other order can deadlock with it; the transaction is then retried",
        "one table in each file, and run.atomic = \"migration\" if the files are valid on their own",
    ))
}
