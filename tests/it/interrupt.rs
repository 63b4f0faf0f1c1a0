//! Ctrl-C once, twice, three times.

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE, Running};
use crate::support::sessions::{CLASS, Gate, Holder};

/// Tenants `a` to `e`; a run whose only worker is in this statement of the first one.
fn waiting_in_a(statement: &str) -> (Given, Running) {
    let given = Given::tenants(&["a", "b", "c", "d", "e"]);
    let run = run_in_a(&given, statement);
    (given, run)
}

fn run_in_a(given: &Given, statement: &str) -> Running {
    given.tenant_file("V1__wait.sql", format!("CREATE TABLE made (id int);\n{statement};\n"));
    let run = given.spawn(&["migrate-schemas", "--jobs", "1"]);
    eventually("the first tenant's statement runs", || sleeping(given) == "1");
    run
}

fn sleeping(given: &Given) -> String {
    given.value(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pricesync' AND datname = current_database() AND wait_event = 'PgSleep'",
    )
}

fn tables_of(given: &Given, slug: &str) -> Vec<String> {
    given.relations(&format!("tenant_{slug}"), 'r')
}

#[test]
fn once_lets_what_runs_finish_and_starts_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let given = Given::tenants(&["a", "b", "c", "d", "e"]);
        let gate = Gate::close(&given, 1);
        let mut run = run_in_a(&given, "SELECT public.gate(1)");
        run.signal(signal);
        run.hears("interrupt again to cancel them");
        gate.open(&given);
        run.wait()
            .exits(130)
            .counts(Counts { migrated: 1, up_to_date: 1, not_started: 4, ..NONE })
            .says("running schemas finish, nothing new starts; interrupt again to cancel them")
            .says("· interrupted");
        assert_eq!(given.history("tenant_a"), ["1"]);
        assert!(tables_of(&given, "b").is_empty());
        // The rest is done by the next run.
        given.run(&["migrate-schemas", "--check"]).exits(3);
    }
}

#[test]
fn twice_cancels_what_runs_and_it_is_rolled_back() {
    let (given, mut run) = waiting_in_a("SELECT pg_sleep(36000)");
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait()
        .exits(130)
        .counts(Counts { up_to_date: 1, skipped: 1, not_started: 4, ..NONE })
        .says("cancelling the running statements, they are rolled back")
        .says("· interrupted");
    assert!(tables_of(&given, "a").is_empty());
    assert!(tables_of(&given, "b").is_empty());
}

#[test]
fn twice_reports_what_earlier_transactions_committed() {
    let given = Given::tenants(&["a", "b"]);
    given.tenant_file("V1__done.sql", "CREATE TABLE made (id int);\n");
    given.tenant_file("V2__wait.sql", "SELECT pg_sleep(36000);\n");
    let mut run =
        given.spawn_with(&["migrate-schemas", "--jobs", "1"], &[("PRICESYNC_ATOMIC", "migration")]);
    eventually("the second file runs", || sleeping(&given) == "1");
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130).counts(Counts { migrated: 1, up_to_date: 1, not_started: 1, ..NONE });
    assert_eq!(given.history("tenant_a"), ["1"]);
    assert!(tables_of(&given, "b").is_empty());
}

#[test]
fn twice_cancels_a_no_transaction_file_and_a_rerun_continues() {
    let given = Given::tenants(&["a"]);
    given.tenant_file(
        "V1__wait.sql",
        "-- pricesync: no-transaction\nCREATE TABLE made (id int);\n\
         SELECT pg_sleep(CASE WHEN to_regclass('public.awake') IS NULL THEN 36000 ELSE 0 END);\n",
    );
    let mut run = given.spawn(&["migrate-schemas"]);
    eventually("the second statement runs", || sleeping(&given) == "1");
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130).counts(Counts { up_to_date: 1, skipped: 1, ..NONE });
    assert!(given.history("tenant_a").is_empty());
    assert!(tables_of(&given, "a").contains(&"made".to_owned()));
    given.database.execute("CREATE TABLE public.awake ()");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_a"), ["1"]);
}

#[test]
fn three_times_ends_the_program_and_the_server_rolls_back() {
    let deaf = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(36000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
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
    let lock = format!("SELECT pg_advisory_lock({CLASS}, 'tenant_a'::regnamespace::oid::int4)");
    let holder = Holder::of(&given, &lock);
    let mut run = given.spawn(&["migrate-schemas", "--tenant=a"]);
    run.hears("tenant_a: waiting for lock");
    run.signal(Signal::INT);
    run.wait().exits(130);
    holder.let_go(&given);
    assert!(tables_of(&given, "a").is_empty());
}
