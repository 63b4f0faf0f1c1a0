//! Through PgBouncer, which gives each session (or each transaction) one of few server connections.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::support::database::{self, run};
use crate::support::eventually::eventually;
use crate::support::pooler::Pooler;
use crate::support::pricesync::{Counts, Given, NONE, Ran};
use crate::support::sessions::{CLASS, Gate};

const SLUGS: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];

/// The program, behind a pooler.
fn command(given: &Given, pooler: &Pooler, args: &[&str]) -> Command {
    let mut command = given.command(args);
    command.env("PRICESYNC_DATABASE_URL", pooler.url(given));
    command
}

fn behind(given: &Given, pooler: &Pooler, args: &[&str]) -> Ran {
    Ran::from(args, command(given, pooler, args).output().unwrap())
}

/// How many rows each tenant's table of this name has.
fn rows_of(given: &Given, table: &str) -> Vec<String> {
    let count = |slug: &&str| given.value(&format!("SELECT count(*) FROM tenant_{slug}.{table}"));
    SLUGS.iter().map(count).collect()
}

#[test]
fn a_tenant_s_whole_life_goes_through_both_modes() {
    for mode in ["session", "transaction"] {
        let given = Given::shipped();
        let Some(pooler) = Pooler::start(mode, 5) else {
            return;
        };
        behind(&given, &pooler, &["migrate-schemas"]).exits(0);
        for slug in ["acme", "globex"] {
            behind(&given, &pooler, &["create-tenant", "--slug", slug, "--name", slug]).exits(0);
        }
        given.tenant_file("V900__more.sql", "ALTER TABLE products ADD more int;\n");
        behind(&given, &pooler, &["migrate-schemas"]).exits(0).counts(Counts {
            migrated: 2,
            up_to_date: 1,
            ..NONE
        });
        behind(&given, &pooler, &["status", "--verify"]).exits(0);
        let told =
            behind(&given, &pooler, &["backup", "--tenant=acme", "--out=b", "-o=json"]).exits(0);
        let listed: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        let file = listed[0]["file"].as_str().unwrap();
        for args in [
            &["clone-tenant", "--from=acme", "--slug=copied"][..],
            &["restore", file, "--as", "restored"],
        ] {
            behind(&given, &pooler, args).exits(0);
        }
        for schema in ["tenant_copied", "tenant_restored"] {
            let history = given.history("tenant_acme");
            assert_eq!(given.history(schema), history, "{mode}");
            given.database.execute(&format!(
                "DELETE FROM tenants_tenant WHERE schema_name = '{schema}'; DROP SCHEMA {schema} CASCADE"
            ));
        }
        behind(&given, &pooler, &["drop-schema", "--tenant", "acme", "--force"]).exits(0);
        assert!(given.relations("tenant_globex", 'r').len() > 3, "{mode}");
        behind(&given, &pooler, &["doctor"]).exits(0);
    }
}

#[test]
fn what_others_leave_in_shared_sessions_reaches_no_migration() {
    let given = Given::tenants(&SLUGS);
    let Some(pooler) = Pooler::start("transaction", 3) else {
        return;
    };
    given.tenant_file("V1__items.sql", "CREATE TABLE items (id int);\n");
    behind(&given, &pooler, &["migrate-schemas", "--jobs", "3"]).exits(0).counts(Counts {
        migrated: 6,
        up_to_date: 1,
        ..NONE
    });
    // A transaction for each file: more chances to meet what was left.
    given.file("pricesync.toml", "[run]\natomic = \"migration\"\n");
    for version in 2..8 {
        given.tenant_file(
            &format!("V{version}__more.sql"),
            format!("ALTER TABLE items ADD a{version} int;\n"),
        );
    }
    let poison = "CREATE TEMP TABLE IF NOT EXISTS items (id int); SET search_path TO public; \
                  SET session_replication_role TO replica; SET default_tablespace TO ''";
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = run(&pooler.url(&given), poison);
                }
            });
        }
        let ran = behind(&given, &pooler, &["migrate-schemas", "--jobs", "3"]);
        over.store(true, Ordering::Relaxed);
        ran.exits(0).counts(Counts { migrated: 6, up_to_date: 1, ..NONE });
    });
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'items' AND table_schema ~ '^tenant_'";
    assert_eq!(given.value(columns), "42");
    assert_eq!(
        given.value(
            "SELECT count(*) FROM pg_tables WHERE tablename = 'items' AND schemaname = 'public'"
        ),
        "0"
    );
    given.run(&["status", "--verify"]).exits(0);
}

#[test]
fn a_file_behind_a_pooler_does_not_see_what_an_earlier_one_left() {
    let given = Given::tenants(&SLUGS);
    let Some(pooler) = Pooler::start("transaction", 3) else {
        return;
    };
    given.tenant_file(
        "V1__leaves.sql",
        "SET timezone = 'Asia/Tokyo'; CREATE TEMPORARY TABLE leftover (id int);\n",
    );
    given.tenant_file(
        "V2__asks.sql",
        "DO $$ BEGIN ASSERT current_setting('timezone') <> 'Asia/Tokyo' AND to_regclass('leftover') IS NULL; END $$;\n",
    );
    behind(&given, &pooler, &["migrate-schemas"]).exits(0);
}

/// Returns what a query brings in each of the two sessions of a pooler.
fn in_both_sessions(given: &Given, pooler: &Pooler, sql: &str) -> [String; 2] {
    let url = pooler.url(given);
    let first = database::one(&url, sql);
    let gate = Gate::close(given, 1);
    std::thread::scope(|scope| {
        // The session that was used last is the first to be used again.
        let busy = scope.spawn(|| run(&url, "SELECT public.gate(1)").unwrap());
        eventually("the first session is busy", || {
            given.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT public.gate(1)' AND state = 'active' AND datname = current_database()") == "1"
        });
        let second = database::one(&url, sql);
        gate.open(given);
        busy.join().unwrap();
        [first, second]
    })
}

#[test]
fn a_file_behind_a_pooler_leaves_nothing_to_other_clients() {
    let given = Given::tenants(&SLUGS);
    let Some(pooler) = Pooler::start("transaction", 2) else {
        return;
    };
    let leaves = "SET work_mem = '77MB';\nCREATE TEMPORARY TABLE leftover (id int);\nPREPARE leftover AS SELECT 1;\n\
                  DECLARE leftover CURSOR WITH HOLD FOR SELECT 1;\n";
    let left = "SELECT concat_ws(', ', nullif(current_setting('work_mem'), '4MB'), to_regclass('pg_temp.leftover'), \
                (SELECT name FROM pg_prepared_statements WHERE from_sql), (SELECT name FROM pg_cursors WHERE is_holdable))";
    given.tenant_file("V1__leaves.sql", leaves);
    for args in [
        &["migrate-schemas", "--jobs=1"][..],
        &["create-tenant", "--slug=n", "--name=N", "--domain=n.test"],
        &["exec", "--all", "--write", "--jobs=1", "-c", leaves],
    ] {
        behind(&given, &pooler, args).exits(0);
        assert_eq!(in_both_sessions(&given, &pooler, left), ["", ""], "{args:?}");
    }
}

#[test]
fn what_other_clients_hold_in_shared_sessions_stays_theirs() {
    let given = Given::tenants(&SLUGS[..2]);
    let Some(pooler) = Pooler::start("transaction", 2) else {
        return;
    };
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\nINSERT INTO a VALUES (1);\n");
    let hold = "PREPARE theirs AS SELECT 1; LISTEN theirs; SELECT pg_advisory_lock(4711)";
    run(&pooler.url(&given), hold).unwrap();
    let theirs = "SELECT concat((SELECT name FROM pg_prepared_statements WHERE name = 'theirs'), (SELECT pg_listening_channels()), \
                (SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND pid = pg_backend_pid()))";
    for args in [
        &["migrate-schemas", "--jobs=1"][..],
        &["create-tenant", "--slug=n", "--name=N", "--domain=n.test"],
        &["exec", "--all", "--write", "--jobs=1", "-c", "INSERT INTO a VALUES (2)"],
        &["backup", "--tenant=n", "--out=b"],
        &["rename-tenant", "--tenant=n", "--slug=m"],
        &["drop-schema", "--tenant=m", "--force"],
    ] {
        behind(&given, &pooler, args).exits(0);
        let mut found = in_both_sessions(&given, &pooler, theirs);
        found.sort();
        assert_eq!(found, ["", "theirstheirs4711"], "{args:?}");
    }
}

#[test]
fn two_runs_at_once_apply_each_file_once() {
    let given = Given::tenants(&SLUGS);
    let Some(pooler) = Pooler::start("transaction", 4) else {
        return;
    };
    given.tenant_file(
        "V1__ledger.sql",
        "CREATE TABLE ledger (id serial);\nINSERT INTO ledger DEFAULT VALUES;\nSELECT pg_sleep(0.1);\n",
    );
    let args = ["migrate-schemas", "--jobs", "4"];
    let runs: Vec<_> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| behind(&given, &pooler, &args));
        let runs = [start(), start()];
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for ran in runs {
        ran.exits(0).never_says("duplicate key");
    }
    assert_eq!(rows_of(&given, "ledger"), ["1"; 6]);
    given.run(&["status", "--verify"]).exits(0);
}

#[test]
fn a_pool_smaller_than_the_jobs_fails_nothing() {
    let given = Given::tenants(&SLUGS);
    let Some(pooler) = Pooler::start("transaction", 2) else {
        return;
    };
    // Long enough for each worker to look who is in its way, which takes a place too.
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\nSELECT pg_sleep(0.3);\n");
    behind(&given, &pooler, &["migrate-schemas", "--jobs", "6", "--lock-timeout", "150ms"])
        .exits(0)
        .counts(Counts { migrated: 6, up_to_date: 1, ..NONE })
        .never_says("query_wait_timeout");
}

const INDEX: &str = "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY a_id ON a (id);\n";

fn with_an_index_to_build() -> Given {
    let given = Given::tenants(&SLUGS);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__index.sql", INDEX);
    given
}

fn indexes(given: &Given) -> usize {
    given
        .column("SELECT schemaname FROM pg_indexes WHERE indexname = 'a_id' AND schemaname ~ '^tenant_t'")
        .len()
}

#[test]
fn what_requires_a_session_goes_past_the_pooler() {
    let given = with_an_index_to_build();
    let Some(pooler) = Pooler::start("transaction", 4) else {
        return;
    };
    behind(&given, &pooler, &["migrate-schemas", "--tenant", "t0"])
        .exits(10)
        .says("the connection goes through a pooler that shares sessions")
        .says("set database.direct_url, next to database.url, to an address without the pooler");
    assert_eq!(indexes(&given), 0);
    let locks = format!(
        "SELECT count(*) FROM pg_locks WHERE classid = {CLASS} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    assert_eq!(given.value(&locks), "0", "no lock stays in the pool");
    let mut past = command(&given, &pooler, &["migrate-schemas"]);
    past.env("PRICESYNC_DIRECT_URL", given.database.url());
    Ran::from(&["migrate-schemas"], past.output().unwrap()).exits(0).counts(Counts {
        migrated: 6,
        up_to_date: 1,
        ..NONE
    });
    assert_eq!(indexes(&given), 6);
}

#[test]
fn a_pooler_that_keeps_sessions_apart_carries_what_needs_one() {
    let given = with_an_index_to_build();
    let Some(pooler) = Pooler::start("session", 8) else {
        return;
    };
    behind(&given, &pooler, &["migrate-schemas", "--jobs", "2"]).exits(0).counts(Counts {
        migrated: 6,
        up_to_date: 1,
        ..NONE
    });
    assert_eq!(indexes(&given), 6);
}

#[test]
fn a_second_interrupt_cancels_the_statement_and_not_the_pooler() {
    let given = Given::tenants(&["a"]);
    let Some(mut pooler) = Pooler::start("transaction", 3) else {
        return;
    };
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\nSELECT pg_sleep(36000);\n");
    let args = ["migrate-schemas"];
    let mut run = given.spawn_with(&args, &[("PRICESYNC_DATABASE_URL", &pooler.url(&given))]);
    eventually("the statement runs", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'") == "1"
    });
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130).counts(Counts { up_to_date: 1, skipped: 1, ..NONE });
    assert!(given.relations("tenant_a", 'r').is_empty());
    let url = pooler.url(&given);
    assert_eq!(database::one(&url, "SELECT 1"), "1");
    assert!(pooler.is_alive());
}

#[test]
fn a_tenants_program_goes_past_the_pooler_or_is_refused() {
    let given = Given::tenants(&["t0"]);
    let Some(pooler) = Pooler::start("session", 3) else {
        return;
    };
    let shell: &[&str] = &["shell", "-t", "t0", "-c", "SELECT current_schema()"];
    let program: &[&str] = &["exec", "-t", "t0", "--", "psql", "-Atc", "SELECT current_schema()"];
    let commands = [shell, program, &["env", "-t", "t0"]];
    for args in commands {
        behind(&given, &pooler, args).exits(7).says(
            "set database.direct_url, next to database.url, to an address without the pooler",
        );
    }
    for (args, says) in
        commands.into_iter().zip(["tenant_t0", "t0: tenant_t0", "PRICESYNC_SCHEMA=tenant_t0"])
    {
        let mut command = command(&given, &pooler, args);
        command.env("PRICESYNC_DIRECT_URL", given.database.url());
        Ran::from(args, command.output().unwrap()).exits(0).prints(says);
    }
}
