use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "not-null-column",
    severity: Severity::Error,
    grows_with_fleet: false,
    summary: "ADD COLUMN ... NOT NULL without a value for existing rows",
    why: "It succeeds in tenants whose table is empty and fails in the others.",
    server: "All versions: SQLSTATE 23502 if the table has rows.",
    found: &[
        "ALTER TABLE orders ADD COLUMN state int NOT NULL",
        "TRUNCATE items; ALTER TABLE orders ADD COLUMN state int NOT NULL",
        "DELETE FROM orders WHERE total = 0; ALTER TABLE orders ADD COLUMN state int NOT NULL",
        "DELETE FROM orders; INSERT INTO orders VALUES (1); ALTER TABLE orders ADD COLUMN state int NOT NULL",
    ],
    accepted: &[
        "ALTER TABLE orders ADD COLUMN state int",
        "CREATE TABLE n (id int); ALTER TABLE n ADD COLUMN state int NOT NULL",
        "TRUNCATE items, orders; ALTER TABLE orders ADD COLUMN state int NOT NULL",
        "DELETE FROM orders; ALTER TABLE orders ADD COLUMN state int NOT NULL",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::AddColumn { table, column } = effect else {
        return None;
    };
    let fails = column.not_null && column.value == ColumnValue::Null;
    if !fails || !now.in_use(table) || now.is_emptied(table) {
        return None;
    }
    let name = &column.name;
    Some(Violation::new(
        format!("column {name} is NOT NULL and has no default"),
        "succeeds in tenants whose table is empty and fails in the others",
        format!("add {name} without NOT NULL, fill it, then SET NOT NULL (rule set-not-null)"),
    ))
}
