//! Several runs at once, sessions in the way, and runs that are killed.

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE, Running};
use crate::support::sessions::{CLASS, Dialogue, Gate, Holder, all_have_ended};

/// A file that shows how often it ran, and takes its time.
const SLOW: &str = "CREATE TABLE ledger (id serial);\nINSERT INTO ledger DEFAULT VALUES;\nSELECT pg_sleep(0.05);\n";

fn fleet(count: usize) -> Given {
    let slugs: Vec<String> = (0..count).map(|number| format!("t{number:02}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    Given::tenants(&slugs)
}

/// How many tenants are at this version, and how often the slow file left its mark in all of them.
fn state(given: &Given, version: i64) -> (usize, usize) {
    let schemas =
        given.column("SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_' ORDER BY 1");
    let mut state = (0, 0);
    for schema in schemas {
        if given.relations(&schema, 'r').contains(&"ledger".to_owned()) {
            state.1 += given
                .value(&format!("SELECT count(*) FROM {schema}.ledger"))
                .parse::<usize>()
                .unwrap();
            state.0 += usize::from(given.history(&schema).contains(&version.to_string()));
        }
    }
    state
}

#[test]
fn runs_at_once_share_the_work_and_do_everything_once() {
    for runs in [2, 5] {
        let given = fleet(20);
        given.tenant_file("V1__slow.sql", SLOW);
        let running: Vec<Running> =
            (0..runs).map(|_| given.spawn(&["migrate-schemas", "--jobs", "4"])).collect();
        for run in running {
            run.wait().exits(0).says("0 failed, 0 skipped, 0 not started");
        }
        assert_eq!(state(&given, 1), (20, 20), "{runs} runs");
    }
}

#[test]
fn runs_at_once_do_a_file_without_a_transaction_once() {
    let given = fleet(12);
    given.tenant_file("V1__slow.sql", format!("-- pricesync: no-transaction\n{SLOW}"));
    let running: Vec<Running> =
        (0..3).map(|_| given.spawn(&["migrate-schemas", "--jobs", "4"])).collect();
    for run in running {
        run.wait().exits(0);
    }
    assert_eq!(state(&given, 1), (12, 12));
}

#[test]
fn a_schema_held_by_another_session_is_named_with_it() {
    let given = fleet(3);
    given.tenant_file("V1__slow.sql", SLOW);
    let _holder = Holder::of(
        &given,
        &format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_t01'::regnamespace::oid::int4)"),
    );
    given
        .run(&["migrate-schemas", "--lock-wait", "1s", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 2, up_to_date: 1, failed: 1, ..NONE })
        .says("tenant_t01")
        .says("another session holds the schema's lock, waited 1 s")
        .says("for locks in 1 schema, most often for pid")
        .says("the-holder");
    // With nothing else to do, the code says what it was.
    given.run(&["migrate-schemas", "--lock-wait", "0s"]).exits(6).says("the-holder");
    assert_eq!(state(&given, 1), (2, 2));
}

#[test]
fn a_table_that_another_session_uses_is_waited_for_and_named() {
    let given = fleet(3);
    given.tenant_file("V1__slow.sql", SLOW);
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__more.sql", "ALTER TABLE ledger ADD note text;\n");
    let holder = Holder::of(&given, "LOCK TABLE tenant_t01.ledger IN ACCESS SHARE MODE");
    given.file("pricesync.toml", "[run]\nlock_retries = 1\n");
    given
        .run(&["migrate-schemas", "--lock-timeout", "3s", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 2, up_to_date: 1, failed: 1, ..NONE })
        .says("55P03")
        .says("the-holder")
        .says("gave up after 2 attempts");
    // A session that goes away in time is only waited for.
    given.file("pricesync.toml", "[run]\nlock_retries = 10000\n");
    let run = given.spawn(&["migrate-schemas", "--lock-timeout", "200ms"]);
    eventually("the run waits for the table", || {
        given.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") != "0"
    });
    holder.let_go(&given);
    run.wait().exits(0).counts(Counts { migrated: 1, up_to_date: 3, ..NONE });
    assert_eq!(state(&given, 2), (3, 3));
}

#[test]
fn automatic_jobs_give_way_to_contention_and_a_number_stays() {
    let given = fleet(3);
    given.tenant_file("V1__slow.sql", SLOW);
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__more.sql", "ALTER TABLE ledger ADD note text;\n");
    given.file("pricesync.toml", "[run]\nlock_retries = 1\n");
    let _holder = Holder::of(&given, "LOCK TABLE tenant_t01.ledger IN ACCESS SHARE MODE");
    let run = |jobs: &str| {
        let steady = ["migrate-schemas", "--lock-timeout", "100ms", "--jobs", jobs];
        given
            .run(&[&steady[..], &["--progress", "json"]].concat())
            .exits(10)
            .says("\"event\":\"retrying\"")
    };
    run("4").never_says("jobs-changed");
    run("auto").says("\"event\":\"jobs-changed\"");
}

/// Twenty tenants and a run that has done some of the first ten and can do none of the others.
fn in_the_middle() -> (Given, Running, Gate) {
    let given = fleet(20);
    given.tenant_file(
        "V1__slow.sql",
        format!(
            "{SLOW}SELECT CASE WHEN current_schema() >= 'tenant_t10' THEN public.gate(1) END;\n"
        ),
    );
    let gate = Gate::close(&given, 1);
    let run = given.spawn(&["migrate-schemas", "--jobs", "2"]);
    eventually("a few schemas are done", || {
        given
            .value("SELECT count(*) FROM pg_class WHERE relname = 'ledger'")
            .parse::<usize>()
            .unwrap()
            >= 2
    });
    (given, run, gate)
}

#[test]
fn a_run_that_was_killed_is_finished_by_the_next() {
    let (given, run, gate) = in_the_middle();
    run.signal(Signal::KILL);
    assert_eq!(run.wait().code(), None);
    assert!(state(&given, 1).0 <= 10);
    gate.open(&given);
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(state(&given, 1), (20, 20));
}

#[test]
fn terminated_backends_lose_nothing() {
    let (given, run, gate) = in_the_middle();
    given.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pricesync' AND datname = current_database()",
    );
    gate.open(&given);
    run.wait().exits(0).counts(Counts { migrated: 20, up_to_date: 1, ..NONE });
    assert_eq!(state(&given, 1), (20, 20));
}

#[test]
fn a_tenant_that_is_created_during_the_run_is_picked_up() {
    let (given, run, gate) = in_the_middle();
    given.tenant_in("late", "tenant_late");
    gate.open(&given);
    run.wait().exits(0).says("21 migrated");
    assert_eq!(given.history("tenant_late"), ["1"]);
}

#[test]
fn a_tenant_that_is_dropped_during_the_run_is_no_failure() {
    let (given, run, gate) = in_the_middle();
    given
        .database
        .execute("DROP SCHEMA tenant_t19 CASCADE; DELETE FROM tenants_tenant WHERE slug = 't19'");
    gate.open(&given);
    let told = run.wait().exits(0);
    assert!(
        told.stderr.contains("19 migrated, 1 up to date, 0 failed, 1 skipped"),
        "{}",
        told.stderr
    );
    assert_eq!(state(&given, 1), (19, 19));
    assert!(!given.relations("public", 'r').contains(&"ledger".to_owned()));
}

#[test]
fn eight_first_runs_at_once_create_everything_once() {
    for _ in 0..3 {
        let given = Given::shipped();
        let running: Vec<Running> = (0..8).map(|_| given.spawn(&["migrate-schemas"])).collect();
        for run in running {
            run.wait().exits(0);
        }
        given.run(&["migrate-schemas"]).exits(0).counts(Counts { up_to_date: 1, ..NONE });
        given.run(&["status", "--verify"]).exits(0);
    }
}

#[test]
fn a_killed_runs_statement_ends_with_it() {
    let given = fleet(1);
    given.tenant_file(
        "V1__long.sql",
        "CREATE TABLE ledger (id serial);\n\
         SELECT pg_sleep(CASE WHEN to_regclass('public.awake') IS NULL THEN 36000 ELSE 0 END);\n\
         INSERT INTO ledger DEFAULT VALUES;\n",
    );
    let run = given.spawn(&["migrate-schemas"]);
    eventually("the file's second statement runs", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'") == "1"
    });
    run.signal(Signal::KILL);
    assert_eq!(run.wait().code(), None);
    given.database.execute("CREATE TABLE public.awake ()");
    // The lock of the one that was killed is free as soon as the server has noticed.
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(state(&given, 1), (1, 1));
    all_have_ended(&given);
}

#[test]
fn an_application_s_lock_of_the_same_bits_is_another_lock() {
    let given = fleet(1);
    given.tenant_file("V1__slow.sql", SLOW);
    let _holder = Holder::of(
        &given,
        &format!(
            "SELECT pg_advisory_lock({CLASS}::bigint << 32 | 'tenant_t00'::regnamespace::oid::bigint)"
        ),
    );
    given.run(&["migrate-schemas", "--lock-wait", "0s"]).exits(0).counts(Counts {
        migrated: 1,
        up_to_date: 1,
        ..NONE
    });
}

#[test]
fn tenants_that_deadlock_on_shared_tables_all_finish() {
    let given = fleet(2);
    given.database.execute(
        "CREATE TABLE plans (id int PRIMARY KEY); CREATE TABLE rates (id int PRIMARY KEY)",
    );
    // Each takes one key, waits until the other has taken the other one, and then requires that too.
    // The one that is rolled back finds the other one's work committed.
    given.tenant_file(
        "V1__keys.sql",
        "CREATE TABLE ledger (id serial, plan int, rate int);\n\
         INSERT INTO ledger DEFAULT VALUES;\n\
         DO $$\n\
         DECLARE\n\
           plan text := 'ALTER TABLE ledger ADD FOREIGN KEY (plan) REFERENCES public.plans';\n\
           rate text := 'ALTER TABLE ledger ADD FOREIGN KEY (rate) REFERENCES public.rates';\n\
           ahead bool := current_schema() = 'tenant_t00';\n\
         BEGIN\n\
           EXECUTE CASE WHEN ahead THEN plan ELSE rate END;\n\
           FOR patience IN 1..10000 LOOP\n\
             EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE pid <> pg_backend_pid() AND mode = 'ShareRowExclusiveLock'\n\
               AND relation = CASE WHEN ahead THEN 'public.rates' ELSE 'public.plans' END::regclass)\n\
               OR to_regclass(CASE WHEN ahead THEN 'tenant_t01.ledger' ELSE 'tenant_t00.ledger' END) IS NOT NULL;\n\
             PERFORM pg_sleep(0.02);\n\
           END LOOP;\n\
           EXECUTE CASE WHEN ahead THEN rate ELSE plan END;\n\
         END $$;\n",
    );
    given
        .run(&["migrate-schemas", "--jobs", "2", "--lock-timeout", "1h"])
        .exits(0)
        .counts(Counts { migrated: 2, up_to_date: 1, ..NONE })
        .says("40P01");
    assert_eq!(state(&given, 1), (2, 2));
}

#[test]
fn tenants_run_in_parallel_up_to_the_key_to_a_shared_table() {
    let given = fleet(4);
    given.database.execute("CREATE TABLE plans (id int PRIMARY KEY)");
    // No tenant continues before all four are here, which the first COMMIT proves to those that
    // did not see it; the key behind it takes them one by one.
    given.tenant_file(
        "V1__key.sql",
        "CREATE TABLE ledger (id serial, plan int);\n\
         INSERT INTO ledger DEFAULT VALUES;\n\
         DO $$ BEGIN\n\
           PERFORM pg_advisory_xact_lock_shared(4711);\n\
           FOR patience IN 1..10000 LOOP\n\
             IF (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND granted\n\
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) >= 4\n\
               OR EXISTS (SELECT FROM pg_class WHERE relname = 'ledger' AND relnamespace <> current_schema()::regnamespace)\n\
               THEN RETURN; END IF;\n\
             PERFORM pg_sleep(0.02);\n\
           END LOOP;\n\
           RAISE 'the others never came';\n\
         END $$;\n\
         ALTER TABLE ledger ADD FOREIGN KEY (plan) REFERENCES public.plans;\n",
    );
    given
        .run(&["migrate-schemas", "--jobs", "4", "--lock-timeout", "1h"])
        .exits(0)
        .counts(Counts { migrated: 4, up_to_date: 1, ..NONE });
    assert_eq!(state(&given, 1), (4, 4));
}

#[test]
fn a_concurrent_catalog_update_is_retried() {
    let given = fleet(1);
    given.tenant_file("V1__slow.sql", SLOW);
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__grant.sql", "GRANT SELECT ON ledger TO PUBLIC;\n");
    let mut other = Dialogue::with(&given, "the-other");
    other.say("BEGIN; GRANT INSERT ON tenant_t00.ledger TO PUBLIC;");
    eventually("the other session has changed the row", || {
        given.value("SELECT state FROM pg_stat_activity WHERE application_name = 'the-other' AND datname = current_database()") == "idle in transaction"
    });
    let run = given.spawn(&["migrate-schemas", "--lock-timeout", "1h"]);
    eventually("the run waits for that session", || {
        given.value("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND a.datname = current_database()") == "1"
    });
    other.say("COMMIT;");
    run.wait()
        .exits(0)
        .counts(Counts { migrated: 1, up_to_date: 1, ..NONE })
        .says("tuple concurrently updated (XX000)");
    assert_eq!(state(&given, 2), (1, 1));
    assert_eq!(
        given.value(
            "SELECT relacl::text ~ '=ar/' FROM pg_class WHERE oid = 'tenant_t00.ledger'::regclass"
        ),
        "t"
    );
}

#[test]
fn what_a_file_leaves_in_its_session_reaches_no_other_tenant() {
    let given = fleet(3);
    given.tenant_file(
        "V1__leaves.sql",
        "CREATE TABLE ledger AS SELECT 1 AS id;\n\
         CREATE TABLE met AS SELECT current_setting('work_mem') AS work_mem, coalesce(current_setting('app.tenant', true), '') AS tenant,\n\
           to_regclass('pg_temp.scratch') AS scratch, (SELECT count(*) FROM pg_prepared_statements) AS prepared,\n\
           (SELECT count(*) FROM pg_cursors WHERE is_holdable) AS cursors, (SELECT count(*) FROM pg_listening_channels()) AS channels;\n\
         SET work_mem = '77MB';\n\
         SELECT set_config('app.tenant', current_schema(), false);\n\
         CREATE TEMP TABLE scratch (id int);\n\
         PREPARE question AS SELECT 1;\n\
         LISTEN news;\n\
         DECLARE kept CURSOR WITH HOLD FOR SELECT 1;\n\
         SELECT pg_advisory_lock(4711);\n",
    );
    given.run(&["migrate-schemas", "--jobs", "1"]).exits(0);
    let met: Vec<String> = (0..3)
        .map(|number| given.value(&format!("SELECT met::text FROM tenant_t0{number}.met")))
        .collect();
    let default = given.value("SHOW work_mem");
    assert_eq!(met, vec![format!("({default},\"\",,0,0,0)"); 3]);
}
