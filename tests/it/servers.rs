//! Servers that take no changes, or take them in a way of their own.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::database;
use crate::support::eventually::eventually;
use crate::support::own_server::OwnServer;
use crate::support::pricesync::{Counts, Given, NONE, Ran};

/// The program in a project, against a database of this server.
fn on(given: &Given, url: &str, args: &[&str]) -> Ran {
    let mut command = given.command(args);
    command.env("PRICESYNC_DATABASE_URL", url);
    Ran::from(args, command.output().unwrap())
}

/// Commands that change something, each in its shortest form.
const WRITING: [&[&str]; 5] = [
    &["migrate-schemas"],
    &["create-tenant", "--slug", "new", "--name", "New"],
    &["drop-schema", "--tenant", "acme", "--force"],
    &["doctor", "--fix", "missing"],
    &["doctor", "--fix", "ledger"],
];

/// Commands that only read.
const READING: [&[&str]; 6] =
    [&["list-tenants"], &["status"], &["status", "--verify"], &["doctor"], &["runs"], &["locks"]];

#[test]
fn a_hot_standby_is_read_and_not_written() {
    let given = Given::shipped();
    let cluster = OwnServer::start(&[]);
    let url = cluster.url("postgres");
    on(&given, &url, &["migrate-schemas"]).exits(0);
    on(&given, &url, &["create-tenant", "--slug", "acme", "--name", "Acme"]).exits(0);
    cluster.becomes_a_standby();
    for args in READING {
        on(&given, &url, args).exits(0);
    }
    on(&given, &url, &["list-tenants"]).exits(0).prints("acme");
    given.tenant_file("V900__more.sql", "CREATE TABLE more (id int);\n");
    on(&given, &url, &["migrate-schemas", "--check"]).exits(3);
    for args in WRITING {
        on(&given, &url, args)
            .exits(7)
            .prints_nothing()
            .says("is a hot standby, which is read-only")
            .says("connect to the primary");
    }
    assert_eq!(database::one(&url, "SELECT count(*) FROM tenants_tenant"), "1");
}

#[test]
fn a_read_only_database_is_read_and_not_written() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    let name = given.value("SELECT current_database()");
    given
        .database
        .execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only TO on"));
    for args in READING {
        on(&given, given.database.url(), args).exits(0);
    }
    for args in WRITING {
        given
            .run(args)
            .exits(7)
            .prints_nothing()
            .says("is read-only for this role (default_transaction_read_only)");
    }
    assert!(given.relations("tenant_acme", 'r').is_empty());
}

#[test]
fn a_role_that_does_not_wait_for_the_disk_waits_for_it_here() {
    let given = Given::tenants(&["acme"]);
    let name = given.value("SELECT current_database()");
    given.database.execute(&format!("ALTER DATABASE {name} SET synchronous_commit TO off"));
    given.tenant_file(
        "V1__a.sql",
        "CREATE TABLE a AS SELECT current_setting('synchronous_commit') AS setting;\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.value("SELECT setting FROM tenant_acme.a"), "on");
}

#[test]
fn what_a_role_or_a_database_sets_reaches_no_migration() {
    let given = Given::tenants(&["acme"]);
    let name = given.value("SELECT current_database()");
    given.database.execute("CREATE SCHEMA elsewhere");
    let settings = [
        "statement_timeout = '300ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '300ms'",
        "idle_session_timeout = '300ms'",
        "standard_conforming_strings = off",
        "search_path = 'elsewhere'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "timezone = 'Asia/Ho_Chi_Minh'",
        "datestyle = 'SQL, DMY'",
        "client_min_messages = 'error'",
        "check_function_bodies = off",
    ];
    let settings = settings.map(|setting| format!("ALTER DATABASE {name} SET {setting}"));
    given.database.execute(&settings.join(";"));
    given.tenant_file(
        "V1__a.sql",
        "CREATE TABLE a (path text, words text, level text);\n\
         SELECT pg_sleep(1);\n\
         INSERT INTO a VALUES (current_setting('search_path'), 'a\\b', current_setting('transaction_isolation'));\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
    // The settings hold for the test's own sessions, too, which may be slow.
    let sign = if given.database.url().contains('?') { '&' } else { '?' };
    let unhurried = format!(
        "{}{sign}options=-c%20statement_timeout%3D0%20-c%20idle_session_timeout%3D0",
        given.database.url()
    );
    let value = |sql: &str| database::one(&unhurried, sql);
    assert_eq!(
        value("SELECT concat_ws(' | ', path, words, level) FROM tenant_acme.a"),
        "tenant_acme, public | a\\b | read committed"
    );
    given.run(&["create-tenant", "--name", "B\\eta's", "--slug", "beta"]).exits(0);
    assert_eq!(value("SELECT name FROM public.tenants_tenant WHERE slug = 'beta'"), "B\\eta's");
    for args in [
        &["status", "--verify"][..],
        &["doctor"],
        &["locks"],
        &["runs"],
        &["drop-schema", "--tenant=beta", "--force", "--trash"],
        &["undrop", "--tenant=beta"],
        &["drop-schema", "--tenant=beta", "--force"],
    ] {
        given.run(args).exits(0);
    }
    let empty = "SELECT count(*) FROM pg_class WHERE relnamespace = 'elsewhere'::regnamespace";
    assert_eq!(value(empty), "0");
}

#[test]
fn after_a_failover_that_lost_a_migration_it_is_pending_again() {
    let given = Given::shipped();
    let cluster = OwnServer::start(&[]);
    let url = cluster.url("postgres");
    on(&given, &url, &["migrate-schemas"]).exits(0);
    let create = ["create-tenant", "--slug", "acme", "--name", "Acme"];
    on(&given, &url, &create).exits(0);
    cluster.keeps();
    given.tenant_file("V900__more.sql", "CREATE TABLE more (id int);\n");
    on(&given, &url, &["migrate-schemas"]).exits(0).counts(Counts {
        migrated: 1,
        up_to_date: 1,
        ..NONE
    });
    cluster.goes_back();
    on(&given, &url, &["migrate-schemas", "--check"]).exits(3);
    on(&given, &url, &["migrate-schemas"]).exits(0).counts(Counts {
        migrated: 1,
        up_to_date: 1,
        ..NONE
    });
    on(&given, &url, &["status", "--verify"]).exits(0);
    assert_eq!(made(&url, "more"), "tenant_acme");
}

#[test]
fn too_few_locks_for_a_rows_keys_are_found_before_the_drop() {
    let given = Given::shipped();
    let cluster = OwnServer::start(&["max_locks_per_transaction=10", "max_connections=20"]);
    let url = cluster.url("postgres");
    on(&given, &url, &["migrate-schemas"]).exits(0);
    let create = ["create-tenant", "--slug", "acme", "--name", "Acme"];
    on(&given, &url, &create).exits(0);
    let mut sql = String::new();
    for number in 0..150 {
        let _ = write!(
            sql,
            "CREATE TABLE public.t{number} (id int PRIMARY KEY, tenant bigint REFERENCES tenants_tenant);"
        );
    }
    for some in sql.split_inclusive(';') {
        database::run(&url, some).unwrap();
    }
    let drop = ["drop-schema", "--tenant=acme", "--force"];
    on(&given, &url, &drop)
        .exits(7)
        .says("need 300 locks at once, and the server's lock table holds 200")
        .says("max_locks_per_transaction");
    assert_eq!(made(&url, "products"), "tenant_acme");
    on(&given, &url, &[&drop[..], &["--keep-record"]].concat()).exits(0);
}

#[test]
fn a_comparison_without_a_second_connection_frees_its_locks() {
    let given = Given::nothing();
    let cluster = OwnServer::start(&["max_connections=8", "superuser_reserved_connections=0"]);
    let url = cluster.url("postgres");
    given.shared_file(
        "V1__tenants.sql",
        include_str!("../../migrations/shared/tenants/V1__tenants.sql"),
    );
    given.shared_file("V2__plans.sql", "CREATE TABLE plans (id int PRIMARY KEY);\n");
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int REFERENCES plans);\n");
    on(&given, &url, &["migrate-schemas"]).exits(0);
    let create = ["create-tenant", "--slug", "acme", "--name", "Acme"];
    on(&given, &url, &create).exits(0);
    // What no row tells of is compared with what another session sees.
    database::run(&url, FULL).unwrap();
    given.tenant_file(
        "V2__free.sql",
        "ALTER TABLE a DROP CONSTRAINT a_id_fkey;\nSELECT public.until_full();\n",
    );
    given.file("pricesync.toml", "[run]\nlock_retries = 1\n");
    let run =
        given.spawn_with(&["migrate-schemas", "--jobs", "1"], &[("PRICESYNC_DATABASE_URL", &url)]);
    eventually("the file runs", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pricesync' AND wait_event = 'PgSleep'";
        database::one(&url, sql) == "1"
    });
    let others = Crowd::fill(&url);
    let started = Instant::now();
    run.wait().exits(10).says("53300");
    // Each of the two attempts would wait for 30 s if it queued for its second connection.
    assert!(started.elapsed() < Duration::from_mins(1), "{started:?}");
    drop(others);
}

/// Returns as soon as a session holds the advisory lock that says so.
const FULL: &str = "CREATE FUNCTION public.until_full() RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND granted) \
     LOOP PERFORM pg_sleep(0.02); END LOOP; END $$";

/// Sessions that leave no room for another one, until they are dropped.
struct Crowd {
    _runtime: tokio::runtime::Runtime,
    _clients: Vec<tokio_postgres::Client>,
}

impl Crowd {
    /// Takes every connection, those that the program keeps in reserve included, and says so.
    fn fill(url: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut clients = Vec::new();
        let end_idle = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pricesync' AND state = 'idle'";
        // A session that was ended keeps its place for a moment.
        let room = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' HAVING count(*) < current_setting('max_connections')::int";
        runtime.block_on(async {
            loop {
                match tokio_postgres::connect(url, tokio_postgres::NoTls).await {
                    Ok((client, connection)) => {
                        tokio::spawn(connection);
                        clients.push(client);
                    }
                    Err(error) => {
                        let code = error.code().expect("the server refuses").code();
                        assert_eq!(code, "53300");
                        let ended = clients[0].query(end_idle, &[]).await.unwrap();
                        let room = clients[0].query(room, &[]).await.unwrap();
                        if ended.is_empty() && room.is_empty() {
                            break;
                        }
                    }
                }
            }
            let full = "SELECT pg_advisory_lock(4711)";
            clients[0].execute(full, &[]).await.unwrap();
        });
        Self { _runtime: runtime, _clients: clients }
    }
}

/// A migrated fleet of `acme` and `beta`, one more file to apply, and a standby that is missing from now on.
fn without_its_standby() -> (Given, OwnServer, String) {
    let given = Given::shipped();
    let cluster = OwnServer::start(&[]);
    let url = cluster.url("postgres");
    on(&given, &url, &["migrate-schemas"]).exits(0);
    for slug in ["acme", "beta"] {
        let create = ["create-tenant", "--slug", slug, "--name", slug];
        on(&given, &url, &create).exits(0);
    }
    given.tenant_file("V900__more.sql", "CREATE TABLE more (id int);\n");
    given.tenant_file("V901__most.sql", "CREATE TABLE most (id int);\n");
    await_standby(&url, "missing");
    (given, cluster, url)
}

/// Has COMMIT wait for this standby, or for none.
fn await_standby(url: &str, name: &str) {
    // The first of the two waits as well where a standby is missing.
    let set = format!("ALTER SYSTEM SET synchronous_standby_names TO '{name}'");
    for sql in [&*set, "SELECT pg_reload_conf()"] {
        database::run(url, sql).unwrap();
    }
    eventually("the setting is known", || {
        database::one(url, "SELECT current_setting('synchronous_standby_names')") == name
    });
}

const WAITING: &str = "waiting for a standby";

fn made(url: &str, table: &str) -> String {
    let sql = format!(
        "SELECT string_agg(schemaname, ' ' ORDER BY 1) FROM pg_tables WHERE tablename = '{table}'"
    );
    database::run(url, &sql).unwrap()[0][0].clone().unwrap_or_default()
}

#[test]
fn a_run_reports_a_missing_standby_and_continues_after_it() {
    let (given, _cluster, url) = without_its_standby();
    let mut run =
        given.spawn_with(&["migrate-schemas", "--jobs", "2"], &[("PRICESYNC_DATABASE_URL", &url)]);
    run.hears(WAITING);
    run.hears(WAITING);
    await_standby(&url, "");
    run.wait()
        .exits(0)
        .counts(Counts { migrated: 2, up_to_date: 1, ..NONE })
        .says("synchronous_standby_names");
    assert_eq!(made(&url, "most"), "tenant_acme tenant_beta");
    on(&given, &url, &["runs", "show", "2"]).exits(0).prints("tenant_beta");
}

#[test]
fn an_interrupted_wait_for_a_standby_reports_what_is_committed() {
    for atomic in ["schema", "migration"] {
        let (given, _cluster, url) = without_its_standby();
        let mut run = given.spawn_with(
            &["migrate-schemas", "--jobs", "1"],
            &[("PRICESYNC_DATABASE_URL", &url), ("PRICESYNC_ATOMIC", atomic)],
        );
        run.hears(WAITING);
        run.signal(Signal::INT);
        run.hears("interrupt again to cancel them");
        run.signal(Signal::INT);
        run.wait().exits(130).counts(Counts { migrated: 1, up_to_date: 1, not_started: 1, ..NONE });
        assert_eq!(made(&url, "more"), "tenant_acme");
        let stored = database::one(
            &url,
            "SELECT outcome FROM pricesync.run_item WHERE schema_name = 'tenant_acme' ORDER BY run_id DESC LIMIT 1",
        );
        assert_eq!(stored, "migrated");
    }
}

#[test]
fn creating_and_dropping_tell_of_a_missing_standby_too() {
    let (given, _cluster, url) = without_its_standby();
    for args in [
        &["create-tenant", "--slug=gamma", "--name=Gamma"][..],
        &["drop-schema", "--tenant=gamma", "--force", "--trash"],
        &["undrop", "--tenant=gamma"],
        &["drop-schema", "--tenant=gamma", "--force"],
    ] {
        let mut running = given.spawn_with(args, &[("PRICESYNC_DATABASE_URL", &url)]);
        running.hears(WAITING);
        await_standby(&url, "");
        running.wait().exits(0).says("synchronous_standby_names");
        await_standby(&url, "missing");
    }
    await_standby(&url, "");
    on(&given, &url, &["doctor"]).exits(0);
}
