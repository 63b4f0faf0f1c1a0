//! One schema: what the survey did not know is found under its lock, and a COMMIT in doubt is resolved.

use std::num::NonZeroUsize;
use std::time::Duration;

use pricesync::postgres::connection::conninfo::{ConnectOptions, Environment};
use pricesync::postgres::connection::database::Database;
use pricesync::postgres::connection::tls;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE, Ran};
use crate::support::sessions::Holder;

/// Tenants at V1, and a V2 that is pending.
fn at_one(slugs: &[&str]) -> Given {
    let given = Given::tenants(slugs);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__b.sql", "ALTER TABLE a ADD note text;\n");
    given
}

/// Runs a function of this body for every row that a schema's history gets.
fn at_every_row(given: &Given, schema: &str, when: &str, body: &str) {
    let deferred = if when == AT_COMMIT { "DEFERRABLE INITIALLY DEFERRED" } else { "" };
    given.database.execute(&format!(
        "CREATE SEQUENCE public.calls; \
         CREATE FUNCTION public.called() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$; \
         CREATE {when} ON {schema}.refinery_schema_history {deferred} FOR EACH ROW EXECUTE FUNCTION public.called()"
    ));
}

/// It runs when COMMIT has come, and before anything is committed.
const AT_COMMIT: &str = "CONSTRAINT TRIGGER called AFTER INSERT";

#[test]
fn a_schema_changed_since_the_survey_is_found_under_its_lock() {
    let given = at_one(&["a", "b", "c", "d", "e"]);
    let holder = Holder::of(&given, "LOCK TABLE tenant_a.a IN ACCESS SHARE MODE");
    let run = given.spawn(&[
        "migrate-schemas",
        "--jobs",
        "1",
        "--lock-timeout",
        "1h",
        "--on-failure",
        "continue",
    ]);
    eventually("the run waits in the first schema", || {
        given.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") != "0"
    });
    let going =
        given.value("SELECT 'pricesync_dropping_' || id FROM tenants_tenant WHERE slug = 'e'");
    given.database.execute(&format!(
        "DROP SCHEMA tenant_b CASCADE; \
         UPDATE tenant_c.refinery_schema_history SET checksum = '1'; \
         UPDATE tenant_d.refinery_schema_history SET checksum = 'one'; \
         ALTER SCHEMA tenant_e RENAME TO {going}"
    ));
    holder.let_go(&given);
    run.wait()
        .exits(10)
        .counts(Counts { migrated: 1, up_to_date: 1, failed: 3, skipped: 1, ..NONE })
        .says("pricesync doctor --fix missing")
        .says("the row of version 1 has the checksum 'one', which is not a number")
        .says("tenant_c: files and history disagree, nothing was run");
    assert_eq!(given.history("tenant_a"), ["1", "2"]);
    for schema in ["tenant_c", "tenant_d", going.as_str()] {
        assert_eq!(given.history(schema), ["1"], "{schema}");
    }
}

#[test]
fn a_history_that_another_session_has_locked_is_tried_again() {
    let given = at_one(&["acme", "globex"]);
    given.file("pricesync.toml", "[run]\nlock_retries = 1\n");
    let lock = "LOCK TABLE tenant_globex.refinery_schema_history IN SHARE MODE";
    let holder = Holder::of(&given, lock);
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 1, up_to_date: 1, failed: 1, ..NONE })
        .says("opening a transaction in tenant_globex")
        .says("55P03");
    given.file("pricesync.toml", "[run]\nlock_retries = 10000\n");
    let mut run = given.spawn(&["migrate-schemas", "--progress", "json"]);
    run.hears("\"event\":\"retrying\"");
    holder.let_go(&given);
    run.wait().exits(0);
    assert_eq!(given.history("tenant_globex"), ["1", "2"]);
}

#[test]
fn a_commit_in_doubt_is_resolved_and_repeated_if_lost() {
    let given = at_one(&["acme"]);
    // A sequence does not go back when the transaction does.
    at_every_row(
        &given,
        "tenant_acme",
        AT_COMMIT,
        "IF nextval('public.calls') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF",
    );
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 1, up_to_date: 1, ..NONE });
    assert_eq!(given.value("SELECT last_value FROM calls"), "2");
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
}

#[test]
fn a_commit_that_cannot_be_resolved_is_reported_as_unknown() {
    let given = at_one(&["acme"]);
    given.file("pricesync.toml", "[run]\nlock_retries = 1\n");
    at_every_row(
        &given,
        "tenant_acme",
        AT_COMMIT,
        "PERFORM pg_terminate_backend(pg_backend_pid())",
    );
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .counts(Counts { up_to_date: 1, failed: 1, ..NONE })
        .says("the connection was lost while migrating tenant_acme, so the outcome is not known");
    assert_eq!(given.history("tenant_acme"), ["1"]);
}

#[test]
fn a_constraint_checked_at_commit_fails_the_file() {
    let given = at_one(&["acme"]);
    given.tenant_file(
        "V2__b.sql",
        "CREATE TABLE b (id int PRIMARY KEY, parent int REFERENCES b DEFERRABLE INITIALLY DEFERRED);\n\
         INSERT INTO b VALUES (1, 2);\n",
    );
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .counts(Counts { up_to_date: 1, failed: 1, ..NONE })
        .says("V2__b")
        .says("23503");
    assert_eq!(given.history("tenant_acme"), ["1"]);
    assert!(!given.relations("tenant_acme", 'r').contains(&"b".to_owned()));
}

#[test]
fn a_history_that_refuses_a_row_is_not_blamed_on_the_file() {
    let given = at_one(&["acme"]);
    at_every_row(
        &given,
        "tenant_acme",
        "TRIGGER called BEFORE INSERT",
        "RAISE 'the history is closed'",
    );
    given
        .run(&["migrate-schemas"])
        .exits(10)
        .counts(Counts { up_to_date: 1, failed: 1, ..NONE })
        .says("recording migrations in tenant_acme")
        .says("the history is closed")
        .never_says("V2__b.sql:");
    assert_eq!(given.history("tenant_acme"), ["1"]);
}

#[test]
fn a_schema_without_usage_fails_alone() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    let role = format!("app_{}", given.value("SELECT current_database()"));
    given.database.execute(&format!(
        "CREATE ROLE {role}; GRANT ALL ON SCHEMA tenant_acme, public TO {role}; \
         GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let args = ["migrate-schemas", "--tenant", "*", "--on-failure", "continue"];
    let mut command = given.command(&args);
    command.env("PGOPTIONS", format!("-c role={role}"));
    Ran::from(&args, command.output().unwrap())
        .exits(10)
        .says("tenant_globex: error: opening a transaction in tenant_globex failed")
        .says("permission denied for schema tenant_globex (42501)")
        .says("grant the missing privilege to the role that runs migrations");
    assert_eq!(given.history("tenant_acme"), ["1"]);
    assert!(given.relations("tenant_globex", 'r').is_empty());
    assert!(!given.relations("public", 'r').contains(&"a".to_owned()));
    given.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_task_that_panics_leaves_no_transaction_to_the_next() {
    let given = Given::nothing();
    let empty = Environment::from_pairs(Vec::<(String, String)>::new());
    let options = ConnectOptions::resolve(Some(given.database.url()), &empty).unwrap();
    let tls = tls::connector(&options).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let database =
            Database::open(&options, tls, NonZeroUsize::MIN, Duration::ZERO).await.unwrap();
        let session = database.session(Duration::ZERO).await.unwrap();
        let work = tokio::spawn(async move {
            let opened = "BEGIN; CREATE TABLE made (id int); SELECT pg_advisory_xact_lock(4711)";
            session.rows(opened).await.unwrap();
            panic!("in the middle");
        });
        assert!(work.await.unwrap_err().is_panic());
        let next = database.session(Duration::from_secs(30)).await.unwrap();
        next.rows("VACUUM").await.expect("no transaction is open");
    });
    eventually("the transaction is rolled back", || {
        given.value("SELECT count(*) FROM pg_locks WHERE objid = 4711 AND locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "0"
    });
    assert!(given.relations("public", 'r').is_empty());
}
