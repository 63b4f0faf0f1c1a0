use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "truncate",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "TRUNCATE",
    why: "It deletes the rows of every tenant.",
    server: "All versions: ACCESS EXCLUSIVE until COMMIT. CASCADE also empties tables of other schemas with a foreign key to it.",
    found: &["TRUNCATE orders, items CASCADE"],
    accepted: &[
        "DELETE FROM orders WHERE total = 0",
        "CREATE TABLE n (id int); TRUNCATE n",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::Truncate { tables, cascade } = effect else {
        return None;
    };
    if !tables.iter().any(|table| now.in_use(table)) {
        return None;
    }
    let (option, also) = if *cascade {
        (" CASCADE", " and of every table with a foreign key to it, in any schema,")
    } else {
        ("", "")
    };
    Some(Violation::new(
        format!("TRUNCATE {}{option} empties it in every tenant", listed(tables)),
        format!("the rows of all tenants{also} are lost, and it cannot be read until COMMIT"),
        "DELETE with a WHERE clause",
    ))
}
