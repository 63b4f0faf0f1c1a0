use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: UNBOUNDED_LOCK,
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "timeout that is switched off, as at the head of a dump",
    why: "A statement that waits for a lock without a limit lets every later query of the table wait too. \
          A run therefore keeps its own limit, unless the file allows this rule.",
    server: "All versions: 0 means no limit. `transaction_timeout` exists from 17 on.",
    found: &[
        "SET lock_timeout = 0;\nALTER TABLE orders ADD COLUMN b int;",
        "SELECT pg_catalog.set_config('lock_timeout', '0', false)",
        "SET LOCAL statement_timeout TO '0s'",
        "DO $$ BEGIN SET LOCAL lock_timeout = 0; UPDATE orders SET total = 0 WHERE id = 1; END $$",
    ],
    accepted: &[
        "SET lock_timeout = '10s';\nALTER TABLE orders ADD COLUMN b int;",
        "SET lock_timeout TO DEFAULT",
        "-- pricesync: allow unbounded-lock\n\nSET statement_timeout = 0;\nSET lock_timeout = 0;",
    ],
    check,
};

fn check(_: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::SwitchOffTimeout { timeout, in_code } = effect else {
        return None;
    };
    let setting = timeout.setting();
    let cost = if *in_code {
        "a run cannot keep its own limit here: the rest of the file has none"
    } else {
        "no effect in a run, which keeps its own limit; other programs run the file without one"
    };
    let example = if *timeout == Timeout::Lock { "10s" } else { "10min" };
    Some(Violation::new(
        format!("{setting} = 0 switches the timeout off"),
        cost,
        format!(
            "remove the statement, or set a limit such as {setting} = '{example}'; if the file needs \
             to run without one, allow this rule"
        ),
    ))
}
