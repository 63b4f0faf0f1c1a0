use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "add-column-default",
    severity: Severity::Warning,
    grows_with_fleet: true,
    summary: "ADD COLUMN ... DEFAULT, for which some servers scan the whole catalog",
    why: "With thousands of schemas the catalog is large, and the scan happens once in each of them.",
    server: "Seen on 15.20, not on 15.18: 0.5 ms with 100 schemas, 20 ms with 3,000. `pricesync lint --fleet` measures it.",
    found: &[
        "ALTER TABLE orders ADD COLUMN state int DEFAULT 1",
        "ALTER TABLE orders ADD state text NOT NULL DEFAULT lower('A')",
        "ALTER TABLE orders ADD added timestamptz DEFAULT now()",
        "ALTER TABLE orders ADD added date DEFAULT current_date",
        "CREATE TABLE n (id int); ALTER TABLE n ADD COLUMN state int DEFAULT 1",
    ],
    accepted: &[
        "ALTER TABLE orders ADD COLUMN state int;\nALTER TABLE orders ALTER COLUMN state SET DEFAULT 1;",
        "ALTER TABLE orders ADD COLUMN state int DEFAULT NULL",
        "ALTER TABLE orders ADD COLUMN state int DEFAULT NULL::int",
        "CREATE TABLE n (id int DEFAULT 1)",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::AddColumn { table, column } = effect else {
        return None;
    };
    if column.value != ColumnValue::Constant || now.scope == Scope::Shared {
        return None;
    }
    let column = &column.name;
    let safer = if now.in_use(table) {
        format!(
            "ADD COLUMN {column} without the default, then ALTER COLUMN {column} SET DEFAULT; existing rows keep NULL, \
             so fill them with an UPDATE if they need a value"
        )
    } else {
        format!("declare column {column} in the CREATE TABLE")
    };
    Some(Violation::new(
        format!("column {column} is added to {table} together with its default"),
        "some minor releases (seen on 15.20, not on 15.18) scan the whole catalog for it: 0.5 ms with 100 schemas, \
         20 ms with 3,000, in each of them",
        safer,
    ))
}
