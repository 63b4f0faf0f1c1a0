use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "alter-column-type",
    severity: Severity::Warning,
    grows_with_fleet: true,
    summary: "ALTER COLUMN ... TYPE, which rewrites the table",
    why: "The table cannot be read or written while it is rewritten.",
    server: "All versions: ACCESS EXCLUSIVE until COMMIT; no rewrite if the old values are valid as they are (a longer varchar, text). \
             Some minor releases (seen on 15.20) also scan the whole catalog.",
    found: &[
        "ALTER TABLE orders ALTER COLUMN total TYPE bigint",
        "ALTER TABLE orders ALTER total SET DATA TYPE text USING total::text",
    ],
    accepted: &[
        "ALTER TABLE orders ADD COLUMN total_new bigint",
        "ALTER TABLE orders ALTER COLUMN total SET DEFAULT 1",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::SetType { table, column } = effect else {
        return None;
    };
    let catalog = match now.scope {
        Scope::Shared if !now.in_use(table) => return None,
        Scope::Shared => "",
        Scope::Tenant => {
            "; on some minor releases (seen on 15.20) 2 ms with 100 schemas, 20 ms with 3,000, in each of them, for the catalog alone"
        }
    };
    Some(Violation::new(
        format!("the type of column {column} of {table} changes"),
        format!(
            "rewrites the table and its indexes, which cannot be read meanwhile, unless the old values are valid as they are \
             (a longer varchar, text){catalog}"
        ),
        format!(
            "add a column of the new type, write both, copy in batches, then let programs read the new one and drop {column}"
        ),
    ))
}
