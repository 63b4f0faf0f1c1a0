//! The ledger answers for the whole fleet, and `status` tells the truth whatever befalls it.

use crate::support::pricesync::{Given, Ran};
use crate::support::sessions::{CLASS, Holder};

/// Three tenants at V1, and a V2 that only acme has.
fn given() -> Given {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    given.run(&["migrate-schemas", "--tenant", "acme"]).exits(0);
    given
}

/// Version and number of schemas of each group of tenants, as `status` tells them.
fn status(given: &Given) -> Vec<(Option<i64>, String, i64)> {
    let ran = given.run(&["status", "-o", "json"]).exits(0);
    let rows: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    rows.as_array()
        .expect("a list")
        .iter()
        .filter(|row| row["set"] == "tenant")
        .map(|row| {
            (
                row["version"].as_i64(),
                row["state"].as_str().unwrap_or_default().to_owned(),
                row["schemas"].as_i64().unwrap_or_default(),
            )
        })
        .collect()
}

fn truth() -> Vec<(Option<i64>, String, i64)> {
    vec![(Some(2), "up to date".to_owned(), 1), (Some(1), "1 pending".to_owned(), 2)]
}

fn ledger(given: &Given) -> Vec<String> {
    given.column(
        "SELECT concat_ws(' ', schema_name, version, applied) FROM pricesync.schema_state ORDER BY 1",
    )
}

#[test]
fn every_migration_is_noted_in_its_own_transaction() {
    let given = given();
    assert_eq!(
        ledger(&given),
        ["public 1 1", "tenant_acme 2 2", "tenant_globex 1 1", "tenant_initech 1 1"]
    );
    assert_eq!(status(&given), truth());
    given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\nSELECT 1/0;\n");
    given.run(&["migrate-schemas", "--on-failure", "continue"]).exits(10);
    assert_eq!(ledger(&given)[1], "tenant_acme 2 2");
    given.run(&["status", "--verify"]).exits(0);
}

#[test]
fn the_ledger_covers_created_tenants_and_no_transaction() {
    let given = given();
    given.tenant_file(
        "V3__c.sql",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY a_id_idx ON a (id);\n",
    );
    given.run(&["create-tenant", "--name", "New", "--slug", "new"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(
        ledger(&given),
        [
            "public 1 1",
            "tenant_acme 3 3",
            "tenant_globex 3 3",
            "tenant_initech 3 3",
            "tenant_new 3 3"
        ]
    );
    given.run(&["status", "--verify"]).exits(0);
    given.run(&["drop-schema", "--tenant", "new", "--force"]).exits(0);
    assert_eq!(ledger(&given).len(), 4);
}

#[test]
fn without_a_ledger_histories_are_read_and_noted_by_a_run() {
    let given = given();
    given.database.execute("DROP SCHEMA pricesync CASCADE");
    assert_eq!(status(&given), truth());
    assert_eq!(
        given.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pricesync'"),
        "0",
        "to look changes nothing"
    );
    given.remove_tenant_file("V2__b.sql");
    given.run(&["migrate-schemas", "--tenant", "globex"]).exits(0);
    assert_eq!(ledger(&given), ["tenant_globex 1 1"]);
}

#[test]
fn an_edited_row_is_not_believed() {
    let given = given();
    given.database.execute(
        "UPDATE pricesync.schema_state SET version = 9, applied = 9, digest = (SELECT digest FROM pricesync.schema_state WHERE schema_name = 'tenant_acme')",
    );
    assert_eq!(status(&given), truth());
    given.run(&["migrate-schemas", "--check"]).exits(3);
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_globex"), ["1", "2"]);
    given.run(&["status", "--verify"]).exits(0);
}

#[test]
fn a_ledger_from_an_older_dump_is_not_believed() {
    let given = given();
    let old = given.dump_all(&["-n", "pricesync"]);
    given.run(&["migrate-schemas"]).exits(0);
    given.database.execute("DROP SCHEMA pricesync CASCADE");
    given.file("old.sql", old);
    let file = given.dir.path().join("old.sql");
    given.database.psql(&["-f", file.to_str().unwrap()]);
    assert_eq!(ledger(&given)[2], "tenant_globex 1 1", "it is the old one");
    assert_eq!(status(&given), [(Some(2), "up to date".to_owned(), 3)], "and it is not believed");
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(ledger(&given)[2], "tenant_globex 2 2");
}

#[test]
fn a_schema_that_was_made_anew_or_emptied_is_read_afresh() {
    let given = given();
    given.database.execute("DROP SCHEMA tenant_acme CASCADE; CREATE SCHEMA tenant_acme");
    given.database.execute("TRUNCATE tenant_globex.refinery_schema_history");
    given.database.execute("ALTER SCHEMA tenant_initech RENAME TO tenant_elsewhere");
    assert_eq!(
        status(&given),
        [(None, "2 pending".to_owned(), 2), (None, "no schema".to_owned(), 1)]
    );
}

#[test]
fn a_history_changed_by_another_tool_is_found_and_fixed() {
    let given = given();
    given.database.execute(
        "INSERT INTO tenant_globex.refinery_schema_history SELECT * FROM tenant_acme.refinery_schema_history WHERE version = 2",
    );
    given
        .run(&["status", "--verify"])
        .exits(11)
        .says("tenant_globex: the ledger disagrees with its history")
        .says("rebuild the ledger: pricesync doctor --fix ledger");
    given.run(&["doctor"]).exits(11).prints("tenant_globex");
    given.run(&["doctor", "--fix", "ledger"]).exits(0).says("the ledger covers 4 schemas");
    given.run(&["status", "--verify"]).exits(0);
    assert_eq!(status(&given)[0].2, 2);
}

#[test]
fn a_history_without_the_ledger_is_sampled_once() {
    let given = given();
    // Checksums over other line ends are accepted, but are no prefix of the files.
    given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\r\nSELECT 1;\r\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.remove_tenant_file("V2__b.sql");
    let ran = given.run(&["status"]).exits(0);
    assert!(ran.stdout.contains("drifted"), "{}", ran.stdout);
}

#[test]
fn a_role_that_may_not_create_schemas_migrates_without_a_ledger() {
    let given = Given::tenants(&["acme"]);
    given.database.execute("DROP SCHEMA pricesync CASCADE");
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    let role = format!("app_{}", given.value("SELECT current_database()"));
    given.database.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA tenant_acme TO {role}; \
         GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let options = format!("-c role={role}");
    let as_role = |args: &[&str]| {
        let mut command = given.command(args);
        command.env("PGOPTIONS", &options);
        Ran::from(args, command.output().unwrap())
    };
    as_role(&["-v", "migrate-schemas", "--tenant", "acme"])
        .exits(0)
        .says("this run keeps no ledger");
    assert_eq!(given.history("tenant_acme"), ["1"]);
    as_role(&["status"]).exits(0);
    given.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_history_of_another_shape_stays_out_of_the_ledger_alone() {
    let given = given();
    given.database.execute(
        "DROP SCHEMA pricesync CASCADE; \
         ALTER TABLE tenant_globex.refinery_schema_history DROP COLUMN checksum",
    );
    given
        .run(&["doctor", "--fix", "ledger"])
        .exits(11)
        .prints("the history is damaged: column \"checksum\" does not exist")
        .says("the ledger covers 3 schemas");
    assert_eq!(ledger(&given), ["public 1 1", "tenant_acme 2 2", "tenant_initech 1 1"]);
}

#[test]
fn a_schema_that_a_run_holds_is_left_to_that_run() {
    let given = given();
    given.database.execute(
        "UPDATE pricesync.schema_state SET version = 7 WHERE schema_name = 'tenant_globex'",
    );
    let holder = Holder::of(
        &given,
        &format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_globex'::regnamespace::oid::int4)"),
    );
    given.run(&["doctor", "--fix", "ledger"]).exits(0);
    assert!(!ledger(&given).contains(&"tenant_globex 1 1".to_owned()));
    holder.let_go(&given);
    given.run(&["doctor", "--fix", "ledger"]).exits(0).says("the ledger covers 4 schemas");
    assert!(ledger(&given).contains(&"tenant_globex 1 1".to_owned()));
}
