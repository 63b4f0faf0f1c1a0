use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "set-not-null",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "SET NOT NULL on a table in use",
    why: "The table cannot be read or written while all of its rows are read.",
    server: "All versions: ACCESS EXCLUSIVE until COMMIT. Since 12 the scan is skipped if a valid CHECK (column IS NOT NULL) exists.",
    found: &["ALTER TABLE orders ALTER COLUMN note SET NOT NULL"],
    accepted: &[
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (note IS NOT NULL) NOT VALID",
        "CREATE TABLE n (id int); ALTER TABLE n ALTER COLUMN id SET NOT NULL",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let (table, column) = match effect {
        Effect::SetNotNull { table, column } if !now.has_not_null_check(table, column) => {
            (table, column.as_str())
        }
        Effect::AddConstraint { table, kind: ConstraintKind::NotNull, checks_rows: true, .. } => {
            (table, "the column")
        }
        _ => return None,
    };
    now.in_use(table).then(|| {
        Violation::new(
            format!("SET NOT NULL reads every row of {table} for {column}"),
            "the table cannot be read or written meanwhile",
            format!(
                "ADD CONSTRAINT ... CHECK ({column} IS NOT NULL) NOT VALID, VALIDATE CONSTRAINT {SEPARATE_FILE}, then SET NOT NULL, which skips the scan"
            ),
        )
    })
}
