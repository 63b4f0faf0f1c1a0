use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "attach-partition",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "ATTACH PARTITION of a table that has no CHECK",
    why: "The server reads all rows of the table to find out whether they belong in the partition.",
    server: "All versions: ACCESS EXCLUSIVE on the new partition and on the default one, which is read too. The scan is skipped if a valid \
             CHECK implies the partition's bounds.",
    found: &["ALTER TABLE orders ATTACH PARTITION items FOR VALUES FROM (1) TO (9)"],
    accepted: &[
        "ALTER TABLE items ADD CONSTRAINT bounds CHECK (id >= 1 AND id < 9);\nALTER TABLE orders ATTACH PARTITION items FOR VALUES FROM (1) TO (9);",
        "CREATE TABLE n (id int); ALTER TABLE orders ATTACH PARTITION n DEFAULT",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::AttachPartition { table, partition } = effect else {
        return None;
    };
    if !now.in_use(partition) || now.has_check(partition) {
        return None;
    }
    Some(Violation::new(
        format!("{partition} is attached to {table} without a CHECK that implies its bounds"),
        format!("every row of {partition} is read, and it cannot be read or written meanwhile"),
        format!(
            "ALTER TABLE {partition} ADD CONSTRAINT ... CHECK (...) NOT VALID, VALIDATE CONSTRAINT, then ATTACH PARTITION, which skips the scan"
        ),
    ))
}
