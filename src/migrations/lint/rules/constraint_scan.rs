use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "constraint-scan",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "constraint that is checked against every row under a lock",
    why: "Programs that use the table wait for as long as all of its rows are read.",
    server: "All versions: ACCESS EXCLUSIVE for CHECK, UNIQUE, PRIMARY KEY and EXCLUDE, SHARE ROW EXCLUSIVE on both tables for FOREIGN KEY; \
             VALIDATE CONSTRAINT takes SHARE UPDATE EXCLUSIVE, which blocks neither readers nor writers.",
    found: &[
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (total > 0)",
        "ALTER TABLE orders ADD CONSTRAINT c FOREIGN KEY (total) REFERENCES items",
        "ALTER TABLE orders ADD CONSTRAINT c UNIQUE (total)",
        "ALTER TABLE orders ADD PRIMARY KEY (total)",
        "ALTER TABLE orders ADD EXCLUDE USING gist (total WITH =)",
        "ALTER TABLE orders ADD COLUMN b int CHECK (b > 0)",
        "ALTER TABLE orders ADD COLUMN b int UNIQUE",
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (total > 0) NOT VALID; ALTER TABLE orders VALIDATE CONSTRAINT c",
    ],
    accepted: &[
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (total > 0) NOT VALID",
        "ALTER TABLE orders VALIDATE CONSTRAINT from_an_earlier_file",
        "ALTER TABLE orders ADD CONSTRAINT c UNIQUE USING INDEX i",
        "CREATE TABLE n (id int); ALTER TABLE n ADD CONSTRAINT c CHECK (id > 0)",
        "CREATE TABLE n (id int CHECK (id > 0), UNIQUE (id))",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    match effect {
        Effect::AddColumn { table, column } if now.in_use(table) => {
            column.constraint.map(|kind| scan(table, kind))
        }
        Effect::AddConstraint { table, kind, checks_rows: true, .. }
            if *kind != ConstraintKind::NotNull && now.in_use(table) =>
        {
            Some(scan(table, *kind))
        }
        Effect::Validate { table, constraint } if now.was_added_not_valid(constraint) => {
            Some(Violation::new(
                format!("{constraint} is validated in the transaction that adds it"),
                format!(
                    "the lock on {table} from adding it lasts while every row is read, as without NOT VALID"
                ),
                format!("VALIDATE CONSTRAINT {SEPARATE_FILE}"),
            ))
        }
        _ => None,
    }
}

fn scan(table: &RelationName, kind: ConstraintKind) -> Violation {
    let sql = kind.sql();
    let (message, safer) = match kind {
        ConstraintKind::Exclude => (
            format!("{sql} on {table} builds its index under a lock"),
            "no safer form exists; add it while the table is small or idle".to_owned(),
        ),
        ConstraintKind::Unique | ConstraintKind::PrimaryKey => (
            format!("{sql} on {table} builds its index under a lock"),
            format!(
                "CREATE UNIQUE INDEX CONCURRENTLY {SEPARATE_FILE}, then ADD CONSTRAINT ... {sql} USING INDEX"
            ),
        ),
        _ => (
            format!("{sql} on {table} is checked against every row under a lock"),
            format!(
                "ADD CONSTRAINT ... {sql} ... NOT VALID, then VALIDATE CONSTRAINT {SEPARATE_FILE}"
            ),
        ),
    };
    let cost = match kind {
        ConstraintKind::ForeignKey => "writes to both tables wait until COMMIT",
        _ => "the table cannot be read or written until COMMIT",
    };
    Violation::new(message, cost, safer)
}
