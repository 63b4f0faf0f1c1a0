//! What new users try first, and the answers.

use serde_json::{Value, json};

use crate::support::pricesync::{Counts, Given, NONE};

fn fleet(slugs: &[&str]) -> Given {
    let given = Given::tenants(slugs);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given
}

#[test]
fn an_empty_address_is_no_address() {
    let given = fleet(&["acme"]);
    given.file("empty.toml", "[database]\nurl = \"\"\n");
    for args in [&["-d", ""][..], &["-d", " "], &["-c", "empty.toml"]] {
        let mut command = given.command(&[args, &["list-tenants"]].concat());
        command.env_remove("DATABASE_URL").env_remove("PRICESYNC_DATABASE_URL");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("no database is configured"), "{args:?}: {said}");
    }
}

#[test]
fn what_would_run_is_json_where_json_is_asked_for() {
    let given = fleet(&["acme", "globex"]);
    given.run(&["migrate-schemas", "--tenant", "acme"]).exits(0);
    given.database.execute("DROP SCHEMA tenant_globex CASCADE");
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    for (args, exit) in [(&["--check"][..], 11), (&["--dry-run"], 0)] {
        let told = given.run(&[&["migrate-schemas", "-o", "json"], args].concat()).exits(exit);
        let document: Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!(
            document["counts"],
            json!({"up-to-date": 1, "pending": 1, "out-of-sync": 1, "locked": 0, "skipped": 0})
        );
        assert_eq!(
            document["schemas"][1],
            json!({
                "schema": "tenant_acme", "tenant": "acme", "state": "pending", "version": 1, "problems": [],
                "pending": [{"version": 2, "name": "b", "file": "migrations/tenant/V2__b.sql"}]
            })
        );
        assert_eq!(document["schemas"][2]["problems"].as_array().unwrap().len(), 1);
    }
    given.run(&["migrate-schemas", "--dry-run=sql", "-o", "json"]).exits(2).prints_nothing();
}

#[test]
fn what_is_only_recorded_is_not_called_migrated() {
    let given = fleet(&["acme", "globex"]);
    given.database.execute("CREATE TABLE tenant_globex.a (id int)");
    given
        .run(&["migrate-schemas", "--fake", "--tenant", "acme"])
        .exits(0)
        .says("✓ Recorded V1__a")
        .says("1 recorded")
        .never_says("igrated");
    given
        .run(&["baseline", "--to", "1", "--tenant", "globex"])
        .exits(0)
        .says("✓ Recorded V1__a")
        .says("1 recorded")
        .never_says("igrated");
}

#[test]
fn a_tenant_that_drifted_stops_no_other() {
    let given = fleet(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]);
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    given.database.execute(
        "UPDATE tenant_a.refinery_schema_history SET checksum = '1'; \
         UPDATE tenant_b.refinery_schema_history SET checksum = 'none'",
    );
    let counts = Counts { migrated: 10, up_to_date: 1, failed: 2, ..NONE };
    given.run(&["migrate-schemas"]).exits(10).counts(counts);
    // The files are good, so the rest is not retried, and --max-failures does not count them.
    given.tenant_file("V3__c.sql", "CREATE TABLE c (id int);\n");
    given.run(&["migrate-schemas", "--max-failures", "1"]).exits(10).counts(counts);
}

#[test]
fn a_proposed_retry_keeps_what_the_command_said_about_failures() {
    let slugs: Vec<String> = (0..30).map(|number| format!("t{number}")).collect();
    let given = fleet(&slugs.iter().map(String::as_str).collect::<Vec<_>>());
    given.tenant_file("V1__a.sql", "SELECT 1 / 0;\n");
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .says("pricesync migrate-schemas --on-failure continue --retry-failed");
    given.file("pricesync.toml", "[run]\non_failure = \"continue\"\n");
    given.run(&["migrate-schemas"]).exits(10).says("pricesync migrate-schemas --retry-failed");
}

#[test]
fn a_time_has_a_unit() {
    let given = fleet(&["acme"]);
    for args in [
        &["migrate-schemas", "--lock-timeout", "5"][..],
        &["migrate-schemas", "--lock-wait", "5"],
        &["migrate-schemas", "--wait=5"],
        &["migrate-schemas", "--canary", "acme", "--pause", "5"],
        &["exec", "--all", "--timeout", "5", "-c", "SELECT 1"],
        &["purge", "--older-than", "5", "--force"],
    ] {
        given.run(args).exits(2).says("a time with its unit, such as");
    }
    given.file("pricesync.toml", "[run]\nlock_timeout = 5\n");
    given.run(&["migrate-schemas"]).exits(2).says("5ms or 5s");
    given.file("pricesync.toml", "[run]\nlock_timeout = 0\n");
    given.run(&["migrate-schemas", "--lock-wait", "0"]).exits(0);
}

#[test]
fn a_reason_goes_with_its_cause() {
    let given = fleet(&["acme", "globex"]);
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    given.database.execute(
        "UPDATE tenant_acme.refinery_schema_history SET checksum = '1' || checksum; ALTER SCHEMA tenant_globex RENAME TO away",
    );
    given.run(&["migrate-schemas"]).exits(10).counts(Counts { up_to_date: 1, failed: 2, ..NONE });
    given.run(&["status"]).exits(0).prints("no schema").never_says("failed in run");
    given.database.execute(
        "UPDATE tenant_acme.refinery_schema_history SET checksum = substr(checksum, 2); ALTER SCHEMA away RENAME TO tenant_globex",
    );
    given.run(&["status"]).exits(0).prints("1 pending").never_says("failed in run");
}

#[test]
fn no_hidden_command_is_proposed() {
    let given = Given::nothing();
    for word in ["up", "superv", "supervise", "exitcodes"] {
        given.run(&[word]).exits(2).says("unrecognized subcommand").never_says("__supervise");
    }
}

#[test]
fn a_column_is_set_once() {
    let given = fleet(&["acme"]);
    given.file("pricesync.toml", "[catalog]\ncreated_column = \"created_at\"\n");
    let create = |slug: &str, column: &str| {
        given.run(&["create-tenant", "--name", slug, "--slug", slug, "--set", column])
    };
    create("globex", "created_at=2020-02-03").exits(0);
    let created = "SELECT created_at::date FROM tenants_tenant WHERE slug = 'globex'";
    assert_eq!(given.value(created), "2020-02-03");
    create("hooli", "slug=other").exits(2).says("the column holds the slug");
    create("hooli", "schema_name=other").exits(2).says("the column holds the schema");
    let twice =
        ["create-tenant", "--name=h", "--slug=h", "--set=created_at=now", "--set=created_at=now"];
    given.run(&twice).exits(2).says("--set created_at is given twice");
}
