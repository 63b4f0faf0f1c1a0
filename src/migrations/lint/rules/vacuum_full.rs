use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "vacuum-full",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "VACUUM FULL and CLUSTER",
    why: "The table cannot be read or written while it is rewritten.",
    server: "All versions: ACCESS EXCLUSIVE, and disk space for a second copy of the table.",
    found: &[
        "-- pricesync: no-transaction\nVACUUM FULL orders;",
        "-- pricesync: no-transaction\nVACUUM (FULL) orders",
        "-- pricesync: no-transaction\nCLUSTER orders USING i",
    ],
    accepted: &[
        "-- pricesync: no-transaction\nVACUUM orders;",
        "-- pricesync: no-transaction\nVACUUM (FULL off) orders",
    ],
    check,
};

fn check(_: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::VacuumFull { command } = effect else {
        return None;
    };
    Some(Violation::new(
        format!("{command} rewrites the table"),
        "it cannot be read or written meanwhile, and needs disk space for a second copy",
        "VACUUM makes the space reusable; pg_repack shrinks a table that is in use",
    ))
}
