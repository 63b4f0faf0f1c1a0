use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "index-without-concurrently",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "index that is built, rebuilt or dropped under a lock",
    why: "Programs that use the table wait until COMMIT.",
    server: "All versions: CREATE INDEX takes SHARE on the table, which blocks writers; DROP INDEX takes ACCESS EXCLUSIVE; \
             REINDEX blocks writers, and readers that would use the index.",
    found: &[
        "CREATE INDEX i ON orders (total)",
        "CREATE UNIQUE INDEX i ON ONLY orders (total)",
        "DROP INDEX i",
        "DROP INDEX IF EXISTS i, j",
        "REINDEX TABLE orders",
        "REINDEX INDEX i",
    ],
    accepted: &[
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY i ON orders (total);",
        "CREATE TABLE n (id int); CREATE INDEX i ON n (id)",
        "-- pricesync: no-transaction\nDROP INDEX CONCURRENTLY i",
        "-- pricesync: no-transaction\nREINDEX TABLE CONCURRENTLY orders",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    match effect {
        Effect::CreateIndex { table, concurrently: false, .. } if now.in_use(table) => {
            Some(Violation::new(
                format!("the index on {table} is built under a lock against writes"),
                "INSERT, UPDATE and DELETE on the table wait until COMMIT",
                format!("CREATE INDEX CONCURRENTLY, {SEPARATE_FILE}"),
            ))
        }
        Effect::LockIndex { command } => Some(Violation::new(
            format!("{command} locks the table of the index"),
            "readers and writers wait until COMMIT",
            format!("{command} CONCURRENTLY, {SEPARATE_FILE}"),
        )),
        _ => None,
    }
}
