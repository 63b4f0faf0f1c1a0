use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "breaks-running-code",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "DROP or RENAME of an object that running programs use, and DROP ... CASCADE",
    why: "Tenants are migrated one after another, so programs meet the old and the new name at the same time.",
    server: "All versions: SQLSTATE 42P01 or 42703 in programs from the COMMIT on. CASCADE drops dependent objects of any schema.",
    found: &[
        "ALTER TABLE orders RENAME COLUMN total TO amount",
        "DROP TABLE orders",
        "ALTER TABLE orders DROP COLUMN total",
        "ALTER TABLE orders RENAME TO purchases",
        "ALTER VIEW v RENAME TO w",
        "ALTER TYPE mood RENAME TO feeling",
        "DROP VIEW v CASCADE",
        "DROP MATERIALIZED VIEW IF EXISTS v CASCADE",
        "DROP FUNCTION f(int) CASCADE",
        "DROP SEQUENCE s CASCADE",
        "DROP TYPE mood CASCADE",
    ],
    accepted: &[
        "ALTER TABLE orders ADD COLUMN amount int",
        "CREATE TABLE n (id int, b int); ALTER TABLE n DROP COLUMN b; DROP TABLE n",
        "DROP VIEW v; DROP TYPE mood; DROP FUNCTION f(int)",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    match effect {
        Effect::Remove { table, what } if now.in_use(table) => Some(Violation::new(
            format!("{what} is dropped"),
            "programs that use it fail from this tenant's COMMIT on; dropping a foreign key to public also locks out readers there",
            "first release a version that does not use it, then drop it",
        )),
        Effect::Rename { table, what } if now.in_use(table) => Some(Violation::new(
            format!("{what} is renamed"),
            "programs know one name, and tenants get the other one by one",
            "add the new one and write both, or rename the table and create a view with the old name",
        )),
        Effect::Cascade { kind } => Some(Violation::new(
            format!("CASCADE drops every object that depends on the {kind}"),
            "columns, views and functions are dropped without being named, and not the same ones in every tenant",
            "remove CASCADE, and first drop the objects that the server then names",
        )),
        _ => None,
    }
}
