use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "if-not-exists",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "IF NOT EXISTS, which hides that schemas differ",
    why: "A schema in which the object has another definition counts as migrated.",
    server: "All versions: only the name is compared, not the definition.",
    found: &[
        "CREATE TABLE IF NOT EXISTS n (id int)",
        "ALTER TABLE orders ADD COLUMN IF NOT EXISTS b int",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON orders (total)",
    ],
    accepted: &["CREATE TABLE n (id int)"],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let object = match effect {
        Effect::CreateTable { table, if_not_exists: true } => format!("table {table}"),
        Effect::AddColumn { column, .. } if column.if_not_exists => {
            format!("column {}", column.name)
        }
        // Without CONCURRENTLY on a table in use, index-without-concurrently reports it.
        Effect::CreateIndex { table, if_not_exists: true, concurrently }
            if *concurrently || !now.in_use(table) =>
        {
            "the index".to_owned()
        }
        _ => return None,
    };
    Some(Violation::new(
        format!("IF NOT EXISTS accepts any existing definition of {object}"),
        "a schema in which the definition differs counts as migrated, and the difference shows much later",
        "remove IF NOT EXISTS: a file runs once in a schema, and an unexpected object should stop it",
    ))
}
