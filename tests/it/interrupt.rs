//! Ctrl-C once, twice, three times.

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Given, Running};

/// Tenants `a` to `e`; a run whose only worker is in this statement of the first one.
fn waiting_in_a(statement: &str) -> (Given, Running) {
    let given = Given::tenants(&["a", "b", "c", "d", "e"]);
    given.tenant_file(
        "V1__wait.sql",
        format!("CREATE TABLE made (id int);\n{statement};\n"),
    );
    let run = given.spawn(&["migrate-schemas", "--jobs", "1"]);
    eventually("the first tenant's statement runs", || {
        sleeping(&given) == "1"
    });
    (given, run)
}

fn sleeping(given: &Given) -> String {
    given.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    )
}

fn tables_of(given: &Given, slug: &str) -> Vec<String> {
    given.relations(&format!("tenant_{slug}"), 'r')
}

#[test]
fn once_lets_what_runs_finish_and_starts_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (given, run) = waiting_in_a("SELECT pg_sleep(1)");
        run.signal(signal);
        run.wait()
            .exits(130)
            .counts([1, 1, 0, 0, 4])
            .says("running schemas finish, nothing new starts; interrupt again to cancel them")
            .says("· interrupted");
        assert_eq!(given.history("tenant_a"), ["1"]);
        assert!(tables_of(&given, "b").is_empty());
        // The rest is done by the next run.
        given.tenant_file(
            "V1__wait.sql",
            "CREATE TABLE made (id int);\nSELECT pg_sleep(1);\n",
        );
        given.run(&["migrate-schemas", "--check"]).exits(3);
    }
}

#[test]
fn twice_cancels_what_runs_and_it_is_rolled_back() {
    let (given, mut run) = waiting_in_a("SELECT pg_sleep(300)");
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait()
        .exits(130)
        .counts([0, 1, 0, 1, 4])
        .says("cancelling the running statements, they are rolled back")
        .says("· interrupted");
    assert!(tables_of(&given, "a").is_empty());
    assert!(tables_of(&given, "b").is_empty());
}

#[test]
fn twice_keeps_and_reports_what_earlier_transactions_of_a_schema_committed() {
    let given = Given::tenants(&["a", "b"]);
    given.tenant_file("V1__done.sql", "CREATE TABLE made (id int);\n");
    given.tenant_file("V2__wait.sql", "SELECT pg_sleep(300);\n");
    let mut run = given.spawn_with(
        &["migrate-schemas", "--jobs", "1"],
        &[("PRICESYNC_ATOMIC", "migration")],
    );
    eventually("the second file runs", || sleeping(&given) == "1");
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130).counts([1, 1, 0, 0, 1]);
    assert_eq!(given.history("tenant_a"), ["1"]);
    assert!(tables_of(&given, "b").is_empty());
}

#[test]
fn twice_cancels_a_file_without_a_transaction_and_a_rerun_goes_on_behind_what_was_done() {
    let given = Given::tenants(&["a"]);
    given.tenant_file(
        "V1__wait.sql",
        "-- pricesync: no-transaction\nCREATE TABLE made (id int);\n\
         SELECT pg_sleep(CASE WHEN to_regclass('public.awake') IS NULL THEN 300 ELSE 0 END);\n",
    );
    let mut run = given.spawn(&["migrate-schemas"]);
    eventually("the second statement runs", || sleeping(&given) == "1");
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130).counts([0, 1, 0, 1, 0]);
    assert!(given.history("tenant_a").is_empty());
    assert!(tables_of(&given, "a").contains(&"made".to_owned()));
    given.database.execute("CREATE TABLE public.awake ()");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_a"), ["1"]);
}

#[test]
fn three_times_ends_the_program_at_once_and_the_server_rolls_back() {
    let deaf = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(300); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    let (given, mut run) = waiting_in_a(deaf);
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.hears("cancelling the running statements");
    run.signal(Signal::INT);
    run.wait().exits(130).says("interrupted three times");
    eventually("the server notices", || sleeping(&given) == "0");
    assert!(tables_of(&given, "a").is_empty());
}

#[test]
fn while_a_lock_is_waited_for_an_interrupt_ends_the_wait() {
    let given = Given::tenants(&["a", "b"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    let mut holder = std::process::Command::new("psql")
        .args(["-X", "-q", "-d", given.database.url(), "-c"])
        .arg("SELECT pg_advisory_lock(1886615918, 'tenant_a'::regnamespace::oid::int4); SELECT pg_sleep(300)")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the lock is held", || {
        given.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "1"
    });
    let mut run = given.spawn(&["migrate-schemas", "--tenant=a"]);
    run.hears("tenant_a: waiting for lock");
    run.signal(Signal::INT);
    let ran = run.wait();
    holder.kill().unwrap();
    holder.wait().unwrap();
    ran.exits(130);
    assert!(tables_of(&given, "a").is_empty());
}
