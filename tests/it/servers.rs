//! Servers that take no changes, or take them in a way of their own.

use crate::support::cluster::Cluster;
use crate::support::database;
use crate::support::pricesync::{Given, Ran};

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
const READING: [&[&str]; 6] = [
    &["list-tenants"],
    &["status"],
    &["status", "--verify"],
    &["doctor"],
    &["runs"],
    &["locks"],
];

#[test]
fn a_hot_standby_is_read_and_not_written() {
    let given = Given::shipped();
    let cluster = Cluster::start("");
    let url = cluster.url("postgres");
    on(&given, &url, &["migrate-schemas"]).exits(0);
    on(
        &given,
        &url,
        &["create-tenant", "--slug", "acme", "--name", "Acme"],
    )
    .exits(0);
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
            .says("is a hot standby, which takes no changes")
            .says("connect to the primary");
    }
    assert_eq!(
        database::one(&url, "SELECT count(*) FROM tenants_tenant"),
        "1"
    );
}

#[test]
fn a_read_only_database_is_read_and_not_written() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__a.sql", "CREATE TABLE a (id int);\n");
    let name = given.value("SELECT current_database()");
    given.database.execute(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only TO on"
    ));
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
    given.database.execute(&format!(
        "ALTER DATABASE {name} SET synchronous_commit TO off"
    ));
    given.tenant_file(
        "V1__a.sql",
        "CREATE TABLE a AS SELECT current_setting('synchronous_commit') AS setting;\n",
    );
    given.run(&["migrate-schemas"]).exits(0);
    assert_eq!(given.value("SELECT setting FROM tenant_acme.a"), "on");
}
