//! `locks`: who holds a schema, and who waits because of it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::eventually::eventually;
use crate::support::pricesync::Given;
use crate::support::sessions::{CLASS, Holder};

#[test]
fn nothing_is_locked_where_nobody_works() {
    let given = Given::tenants(&["acme"]);
    given.run(&["locks"]).exits(0).prints_nothing().says("no schema is locked");
    let listed = given.run(&["locks", "-o", "json"]).exits(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap(), json!([]));
}

#[test]
fn the_holder_of_a_schema_is_named_with_those_who_wait_for_it() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    let holder = Holder::of(
        &given,
        &format!(
            "SELECT pg_try_advisory_xact_lock({CLASS}, 'tenant_acme'::regnamespace::oid::int); LOCK TABLE tenant_acme.a"
        ),
    );
    let mut waiter = Command::new("psql")
        .args(["-X", "-q", "-d", given.database.url()])
        .args(["-c", "SELECT * FROM tenant_acme.a"])
        .env("PGAPPNAME", "the-waiter")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the waiter waits", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the-waiter' AND wait_event_type = 'Lock' AND datname = current_database()") == "1"
    });
    let listed = given.run(&["locks", "-o", "json"]).exits(0).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["schema"], json!("tenant_acme"));
    assert_eq!(listed[0]["application"], json!("the-holder"));
    assert_eq!(listed[0]["client"], json!("local"));
    assert_eq!(listed[0]["state"], json!("active"));
    assert!(listed[0]["query"].as_str().unwrap().starts_with("BEGIN; SELECT pg_try"));
    let waiting = listed[0]["waiting"][0].as_str().unwrap();
    assert!(waiting.ends_with("(the-waiter) for tenant_acme.a"), "{waiting}");
    let names = given.run(&["locks", "-o", "names"]).exits(0).stdout;
    assert_eq!(names, "tenant_acme\n");
    given.run(&["locks"]).exits(0).prints("┆ the-holder").prints("(the-waiter) for tenant_acme.a");
    given
        .run(&["locks", "-o", "csv"])
        .exits(0)
        .prints("schema,pid,application,client,since,seconds,state,query,waiting\n");
    waiter.kill().unwrap();
    waiter.wait().unwrap();
    drop(holder);
}
