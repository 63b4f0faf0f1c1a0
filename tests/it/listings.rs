//! The commands that look: who is there, at which version, what is missing.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::eventually::eventually;
use crate::support::pricesync::Given;
use crate::support::pty::OnTerminal;
use crate::support::sessions::Holder;

/// Two tenants at the newest version, and one that is behind.
fn fleet() -> Given {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__b.sql", "CREATE TABLE b (id int);\n");
    given.run(&["migrate-schemas", "--tenant=acme,globex"]).exits(0);
    given
}

#[test]
fn a_listing_has_four_shapes() {
    let given = fleet();
    let listed = given.run(&["list-tenants", "-o", "json"]).exits(0);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(listed[2]["slug"], json!("initech"));
    assert_eq!(listed[2]["schema"], json!("tenant_initech"));
    assert_eq!(listed[2]["version"], json!(1));
    assert_eq!(listed[2]["pending"], json!(1));
    assert_eq!(listed[2]["state"], json!("pending"));
    let names = given.run(&["list-tenants", "-o", "names"]).exits(0);
    assert_eq!(names.stdout, "acme\nglobex\ninitech\n");
    given
        .run(&["list_tenants", "-o", "csv"])
        .exits(0)
        .prints("id,name,slug,schema,domains,version,pending,state,created\n");
    given.run(&["list-tenants"]).exits(0).prints("┆ initech ┆");
}

#[test]
fn only_those_with_something_pending_are_listed_when_asked() {
    let given = fleet();
    let listed = given.run(&["list-tenants", "--pending", "-o", "names"]).exits(0);
    assert_eq!(listed.stdout, "initech\n");
    let listed =
        given.run(&["list-tenants", "--tenant=*e*", "--exclude=acme", "-o", "names"]).exits(0);
    assert_eq!(listed.stdout, "globex\ninitech\n");
}

#[test]
fn an_empty_fleet_is_no_error() {
    let given = Given::tenants(&[]);
    let listed = given.run(&["list-tenants", "-o", "json"]).exits(0);
    assert_eq!(serde_json::from_str::<Value>(&listed.stdout).unwrap(), json!([]));
    given.run(&["list-tenants"]).exits(0).says("no tenants");
}

#[test]
fn a_listing_works_without_migration_files() {
    let given = fleet();
    std::fs::remove_dir_all(given.dir.path().join("migrations")).unwrap();
    given
        .run(&["list-tenants", "-o", "csv"])
        .exits(0)
        .prints("tenant_acme")
        .says("cannot show versions");
}

#[test]
fn the_status_counts_schemas_by_version_and_state() {
    let given = fleet();
    given.database.execute("DROP SCHEMA tenant_globex CASCADE");
    let status = given.run(&["status", "-o", "json"]).exits(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let told = |state: &str| {
        let rows = status.as_array().unwrap();
        let row = rows.iter().find(|row| row["set"] == "tenant" && row["state"] == state);
        row.map(|row| (row["version"].clone(), row["schemas"].clone(), row["which"].clone()))
    };
    assert_eq!(told("up to date"), Some((json!(2), json!(1), json!(["acme"]))));
    assert_eq!(told("1 pending"), Some((json!(1), json!(1), json!(["initech"]))));
    assert_eq!(told("no schema"), Some((json!(null), json!(1), json!(["globex"]))));
}

#[test]
fn the_status_of_one_tenant_lists_its_migrations() {
    let given = fleet();
    given
        .run(&["showmigrations", "--tenant=initech"])
        .exits(0)
        .prints("V1__a")
        .prints("applied")
        .prints("pending");
    given
        .database
        .execute("UPDATE tenant_acme.refinery_schema_history SET checksum = '1' WHERE version = 1");
    given.run(&["status", "--tenant=acme"]).exits(11).prints("edited");
    given.run(&["status", "--tenant=unknown"]).exits(4);
}

#[test]
fn the_doctor_finds_what_is_missing_and_makes_it() {
    let given = fleet();
    given.run(&["doctor"]).exits(0);
    given.database.execute("DROP SCHEMA tenant_globex CASCADE");
    given.run(&["doctor"]).exits(11).prints("tenant_globex").prints("does not exist");
    // What is proposed goes where this went.
    given.file("other.toml", "");
    let other = ["--config", "other.toml"];
    given.run(&[&other[..], &["status"]].concat()).exits(0).prints(
        "create the schema without data: pricesync --config other.toml doctor --fix missing",
    );
    given
        .run(&[&other[..], &["migrate-schemas", "--tenant=globex"]].concat())
        .exits(10)
        .says("create the schema without data: pricesync --config other.toml doctor --fix missing");
    given.run(&["doctor", "--fix", "missing"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.history("tenant_globex"), ["1", "2"]);
    given
        .database
        .execute("DELETE FROM tenants_domain; DELETE FROM tenants_tenant WHERE slug = 'acme'");
    given.run(&["doctor"]).exits(11).prints("tenant_acme").prints("no tenant has it");
}

#[test]
fn doctor_registers_schemas_without_a_tenant_or_says_why_not() {
    let given = fleet();
    given.database.execute(
        "DELETE FROM tenants_domain; DELETE FROM tenants_tenant WHERE slug = 'acme'; \
         CREATE SCHEMA \"tenant_Big\"; CREATE TABLE \"tenant_Big\".a (); CREATE SCHEMA tenant_globex2; CREATE TABLE tenant_globex2.a (); \
         UPDATE tenants_tenant SET slug = 'globex2' WHERE slug = 'globex'; \
         CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.refinery_schema_history (version int)",
    );
    let told = given
        .run(&["doctor", "--fix", "orphans", "*", "-o", "json"])
        .exits(11)
        .says("1 tenant registered, 3 of all findings remain");
    let listed: Value = serde_json::from_str(&told.stdout).unwrap();
    let found: Vec<(&str, &Value, &str)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default();
            (text("schema"), &row["tenant"], text("finding"))
        })
        .collect();
    let stays = "looks like a tenant's schema, but no tenant has it; not registered: ";
    assert_eq!(
        found,
        [
            ("elsewhere", &Value::Null, &*format!("{stays}its name does not start with 'tenant_'")),
            (
                "tenant_Big",
                &Value::Null,
                &*format!(
                    "{stays}slug 'Big' may not hold 'B' there: use a-z, 0-9, '_' and '-', a letter or digit first"
                )
            ),
            ("tenant_acme", &json!("acme"), "registered as a tenant, without a host"),
            (
                "tenant_globex2",
                &Value::Null,
                &*format!("{stays}slug 'globex2' is taken by tenant 'globex2' (globex)")
            ),
        ]
    );
    assert_eq!(
        given.column("SELECT name || '/' || schema_name FROM tenants_tenant WHERE slug = 'acme'"),
        ["acme/tenant_acme"]
    );
    assert_eq!(given.history("tenant_acme"), ["1", "2"]);
    given.run(&["migrate-schemas", "--tenant=acme"]).exits(0);
}

#[test]
fn a_host_leads_to_its_tenant_whatever_its_case_and_port() {
    let given = Given::shipped();
    given.run(&["migrate-schemas", "--shared"]).exits(0);
    given
        .run(&["create-tenant", "--name", "Acme", "--slug", "acme", "--domain", "Acme.Example.com"])
        .exits(0);
    for host in ["acme.example.com", "ACME.example.com:8000", "acme.example.com."] {
        given.run(&["resolve", host]).exits(0).prints("tenant_acme");
    }
    given.run(&["resolve", "www.acme.example.com"]).exits(4);
    given.run(&["resolve", "a/b"]).exits(2);
}

#[test]
fn a_new_migration_has_the_next_version_and_prints_its_path() {
    let given = fleet();
    let made = given.run(&["make-migration", "add brand", "--dir", "products"]).exits(0);
    assert_eq!(made.stdout, "migrations/tenant/products/V3__add_brand.sql\n");
    let made = given.run(&["makemigrations", "products"]).exits(0);
    assert_eq!(made.stdout, "migrations/tenant/products/V4__products.sql\n");
    given.run(&["make-migration", "x", "--dir", "../outside"]).exits(2);
    given.run(&["make-migration", " - "]).exits(2);
}

#[test]
fn a_shell_sees_the_tenant_and_its_prompt_says_so() {
    let given = fleet();
    let seen = given
        .run(&["shell", "--tenant=acme", "-c", "SELECT current_schema()", "--", "-At"])
        .exits(0);
    assert_eq!(seen.stdout, "tenant_acme\n");
    given
        .run(&["shell", "--tenant=acme", "--read-only", "-c", "CREATE TABLE x (id int)"])
        .exits(1)
        .says("read-only transaction");
    given.run(&["shell", "--tenant=acm"]).exits(4).says("did you mean acme?");
    given.database.execute("DROP SCHEMA tenant_globex CASCADE");
    given
        .run(&["shell", "--tenant=globex", "-c", "SELECT 1"])
        .exits(4)
        .says("doctor --fix missing");
    let mut terminal = OnTerminal::start(&given, &["shell", "--tenant=acme"]);
    terminal.shows("a prompt", |screen| screen.contains("acme=#"));
    terminal.types("\\q");
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn a_shell_reports_pending_migrations_and_opens_where_unknown() {
    let given = fleet();
    let shell = ["shell", "--tenant=acme", "-c", "SELECT 1"];
    given.run(&shell).exits(0).never_says("behind");
    given.tenant_file("V90__more.sql", "CREATE TABLE more (id int);");
    given.tenant_file("V91__most.sql", "CREATE TABLE most (id int);");
    let notice = "tenant 'acme' is 2 migrations behind: pricesync migrate-schemas --tenant=acme";
    given.run(&shell).exits(0).says(notice).prints("1 row");
    let mut terminal = OnTerminal::start(&given, &["shell", "--tenant=acme"]);
    terminal.shows("a prompt", |screen| {
        screen.find(notice).is_some_and(|at| screen[at..].contains("acme=#"))
    });
    terminal.types("\\q");
    assert_eq!(terminal.ends().0, 0);
    given.run(&["-q", "shell", "--tenant=acme", "-c", "SELECT 1"]).exits(0).never_says("behind");
    // Files that cannot be read, a history that is damaged, and one that is locked.
    given.tenant_file("V92__bad.sql", "COMMIT;");
    given.run(&shell).exits(0).never_says("behind");
    given.remove_tenant_file("V92__bad.sql");
    // Without the ledger the history itself is read; another session locks it, then it is damaged.
    given.database.execute("DROP SCHEMA pricesync CASCADE");
    let history = "tenant_acme.refinery_schema_history";
    let lock = format!("LOCK TABLE {history} IN ACCESS EXCLUSIVE MODE");
    let holder = Holder::of(&given, &lock);
    given.run(&shell).exits(0).never_says("behind");
    let holders = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the-holder' AND datname = current_database()";
    assert_eq!(given.value(holders), "1", "the shell did not wait for it");
    holder.let_go(&given);
    given.run(&shell).exits(0).says(notice);
    let damage = format!("UPDATE {history} SET checksum = 'x' WHERE version = 1");
    given.database.execute(&damage);
    given.run(&shell).exits(0).never_says("behind");
}

#[test]
fn a_shell_that_is_ended_ends_its_psql() {
    let given = fleet();
    let sql = format!("SELECT pg_sleep(36000), '{}'", given.dir.path().display());
    let run = given.spawn(&["shell", "-t", "acme", "-c", &sql]);
    let psql = || {
        let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap();
        let processes = String::from_utf8_lossy(&processes.stdout).into_owned();
        processes.lines().any(|line| line.contains("psql -c") && line.contains(&sql))
    };
    eventually("psql runs", psql);
    run.signal(Signal::TERM);
    run.wait().exits(130);
    assert!(!psql());
}
