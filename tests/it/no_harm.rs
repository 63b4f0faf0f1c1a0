//! Nothing that pricesync writes or proposes by default harms a database that others built.

use std::fs;

use crate::support::pricesync::{Counts, Given, NONE};

/// A database whose schemas another tool migrates, without the tables of pricesync.
fn foreign() -> Given {
    let given = Given::nothing();
    given.database.execute(
        "CREATE TABLE public.accounts (id bigserial PRIMARY KEY, subdomain text, plan text); \
         CREATE TABLE public.plans (id int); INSERT INTO accounts (subdomain) VALUES ('acme'), ('globex'); \
         CREATE SCHEMA acme; CREATE TABLE acme.orders (id int); CREATE SCHEMA globex; CREATE TABLE globex.orders (id int); \
         CREATE SCHEMA reporting; CREATE TABLE reporting.daily (id int)",
    );
    given
}

#[test]
fn init_writes_a_project_without_migrations() {
    let given = Given::nothing();
    given.run(&["init", "new"]).exits(0).prints("written new/migrations/tenant/README.md");
    let new = given.dir.path().join("new");
    let names = |folder: &str| {
        let entries = fs::read_dir(new.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    // The text keeps the folder in git.
    assert_eq!(
        (names("migrations/tenant"), names("migrations/shared")),
        (vec!["README.md".to_owned()], vec!["README.md".to_owned()])
    );
    let config = ["-c", "new/pricesync.toml"];
    given.run(&[&config[..], &["lint"]].concat()).exits(0);
    given.run(&[&config[..], &["make-migration", "first"]].concat()).exits(0);
    given.run(&["init", "new"]).exits(0).prints("exists  new/pricesync.toml");
    given.run(&["init", "shop", "--example"]).exits(0).prints("V2__products.sql");
}

#[test]
fn a_missing_tenant_table_says_what_the_database_holds() {
    let given = foreign();
    let before = given.dump_all(&[]);
    let migrate = ["migrate-schemas", "--tenant", "acme"];
    for command in [&["list-tenants"][..], &["status"], &["doctor"], &migrate, &["drift"]] {
        given
            .run(command)
            .exits(4)
            .says("relation \"public.tenants_tenant\" does not exist")
            .says("holds 3 schemas (acme, globex, reporting); tenants may be listed in public.accounts")
            .says("under [catalog] in pricesync.toml")
            .never_says("create the shared tables");
    }
    assert_eq!(given.dump_all(&[]), before);
    // An empty database is another matter.
    let given = Given::shipped();
    given
        .run(&["list-tenants"])
        .exits(4)
        .says("create the shared tables first: pricesync migrate-schemas --shared");
    given.run(&["status"]).exits(0);
    let given = Given::nothing();
    given.run(&["list-tenants"]).exits(4).says("init --example").never_says("migrate-schemas");
}

#[test]
fn orphans_are_registered_by_name_if_they_resemble_tenants() {
    let given = foreign();
    given.file(
        "pricesync.toml",
        "[catalog]\ntenant_table = \"accounts\"\nschema_column = \"subdomain\"\nslug_column = \"\"\nname_column = \"\"\n\
         created_column = \"\"\ndomain_table = \"\"\nschema_prefix = \"\"\n",
    );
    given.database.execute("DELETE FROM accounts WHERE subdomain = 'globex'; CREATE SCHEMA \"[odd\"; CREATE TABLE \"[odd\".orders (id int)");
    let dump = || given.column("SELECT subdomain FROM accounts ORDER BY 1");
    given.run(&["doctor"]).exits(11).prints("globex").never_says("reporting");
    given.run(&["doctor", "--fix", "orphans"]).exits(2).says("<SCHEMA>");
    given
        .run(&["doctor", "--fix", "orphans", "reporting"])
        .exits(4)
        .says("no schema without a tenant matches 'reporting'");
    given.run(&["doctor", "--fix", "missing", "globex"]).exits(2).says("--fix orphans only");
    assert_eq!(dump(), ["acme"]);
    given.run(&["doctor", "--fix", "orphans", "glob*"]).exits(11).says("1 tenant registered");
    assert_eq!(dump(), ["acme", "globex"]);
    given.run(&["doctor", "--fix", "orphans", "*"]).exits(11).prints("not registered");
    assert_eq!(dump(), ["acme", "globex"]);

    // With a prefix, a schema may look like a tenant's by its name alone.
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__orders.sql", "CREATE TABLE orders (id int);");
    given.database.execute(
        "CREATE SCHEMA tenant_archive; CREATE TABLE tenant_archive.old (id int); CREATE SCHEMA tenant_new; CREATE TABLE tenant_new.orders (id int)",
    );
    given
        .run(&["doctor", "--fix", "orphans", "tenant_*"])
        .exits(11)
        .prints("it holds nothing a tenant has; not registered");
    assert_eq!(given.column("SELECT slug FROM tenants_tenant ORDER BY 1"), ["acme", "new"]);
}

#[test]
fn the_demo_works_in_any_folder_and_touches_no_project() {
    // A project of its own, with the address of its database in the environment.
    let given = foreign();
    given.tenant_file("V1__mine.sql", "CREATE TABLE mine (id int);");
    let before = given.dump_all(&[]);
    let run = given.run(&["demo", "--tenants", "2"]).exits(0);
    run.prints("Acme Inc.").says("cd pricesync-demo, pricesync --local shell");
    given.run(&["demo", "--tenants", "3"]).exits(0).prints("Shop 1");
    assert_eq!(given.dump_all(&[]), before);
    let config = ["-c", "pricesync-demo/pricesync.toml", "--local"];
    given
        .run(&[&config[..], &["migrate-schemas"]].concat())
        .exits(0)
        .counts(Counts { up_to_date: 4, ..NONE });
    given.run(&["-c", "pricesync-demo/pricesync.toml", "server", "destroy", "--force"]).exits(0);
}
