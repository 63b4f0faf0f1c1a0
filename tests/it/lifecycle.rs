//! Tenants that come and go while others work on them.

use std::fs;
use std::thread;

use crate::support::pricesync::{Counts, Given, NONE, Ran};
use crate::support::sessions::Gate;

/// Relations of `public`, by which a migration that strayed there would show.
fn public(given: &Given) -> Vec<String> {
    given.column(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
    )
}

#[test]
fn tenants_created_by_older_files_end_at_the_newest_version() {
    let given = Given::tenants(&["a", "b", "c", "d", "e", "f"]);
    given.tenant_file("V1__first.sql", "CREATE TABLE first (id int);");
    given.run(&["migrate-schemas"]).exits(0);
    // An old image, which does not know the file that is being rolled out.
    let old = given.dir.path().join("old");
    fs::create_dir_all(old.join("migrations/tenant")).unwrap();
    fs::create_dir_all(old.join("migrations/shared")).unwrap();
    fs::write(old.join("pricesync.toml"), "").unwrap();
    for file in ["tenant/V1__first.sql", "shared/V1__tenants.sql"] {
        let from = given.dir.path().join("migrations").join(file);
        fs::copy(from, old.join("migrations").join(file)).unwrap();
    }
    given.tenant_file("V2__second.sql", "SELECT public.gate(1); CREATE TABLE second (id int);");
    let gate = Gate::close(&given, 1);
    let mut run = given.spawn(&["migrate-schemas", "--jobs=1", "--progress=lines"]);
    run.hears("Running migrations");
    for number in 0..10 {
        let slug = format!("new{number}");
        let created = given
            .command(&["create-tenant", "--name", &slug, "--slug", &slug])
            .current_dir(&old)
            .output()
            .unwrap();
        assert!(created.status.success(), "{created:?}");
    }
    gate.open(&given);
    run.wait().exits(0);
    given.run(&["migrate-schemas", "--check"]).exits(0);
    for number in 0..10 {
        assert_eq!(given.history(&format!("tenant_new{number}")), ["1", "2"]);
    }
}

#[test]
fn one_tenant_under_concurrent_commands_is_whole_or_absent() {
    let given = Given::tenants(&["other"]);
    given.tenant_file("V1__first.sql", "CREATE TABLE first (id int);");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file(
        "V2__second.sql",
        "CREATE TABLE second (tenant bigint REFERENCES public.tenants_tenant (id)); SELECT pg_sleep(0.02);",
    );
    let before = public(&given);
    let loops: [&[&[&str]]; 4] = [
        &[&["create-tenant", "--name=x", "--slug=x", "--domain=x.test"]],
        &[
            &["drop-schema", "--tenant=x", "--force"],
            &["drop-schema", "--tenant=x", "--force", "--trash"],
        ],
        &[&["migrate-schemas", "--on-failure=continue"]],
        &[&["undrop", "--tenant=x"], &["purge", "--all", "--force"]],
    ];
    thread::scope(|scope| {
        for commands in loops {
            let given = &given;
            scope.spawn(move || {
                for round in 0..12 {
                    let args = commands[round % commands.len()];
                    let ran = given.run(args);
                    let code = ran.code();
                    // Done, gone, busy or taken: never a failure, a bug or a stray.
                    assert!(matches!(code, Some(0 | 4 | 6 | 7)), "{code:?}: {}", ran.told().stderr);
                }
            });
        }
    });
    assert_eq!(public(&given), before);
    given.run(&["purge", "--all", "--force"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["migrate-schemas", "--check"]).exits(0);
    given.run(&["doctor"]).exits(0);
    let listed = given.column("SELECT schema_name FROM tenants_tenant ORDER BY 1");
    let there = given.column(
        "SELECT nspname FROM pg_namespace WHERE nspname ~ 'tenant_|trash|dropping' ORDER BY 1",
    );
    assert_eq!(listed, there);
    for schema in listed {
        assert_eq!(given.history(&schema), ["1", "2"]);
        assert!(given.relations(&schema, 'r').contains(&"second".to_owned()));
    }
}

#[test]
fn the_privileges_in_the_readme_suffice() {
    let given = Given::shipped();
    given.run(&["migrate-schemas", "--shared"]).exits(0);
    given.database.execute("CREATE TABLE public.plans (id int PRIMARY KEY)");
    let name = given.value("SELECT current_database()");
    let role = format!("owner_{name}");
    given.database.execute(&format!(
        "CREATE ROLE {role} LOGIN; DROP SCHEMA pricesync CASCADE; GRANT CREATE ON DATABASE {name} TO {role}; \
         GRANT CREATE, USAGE ON SCHEMA public TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON tenants_tenant, tenants_domain, refinery_schema_history TO {role}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}; GRANT SELECT, REFERENCES ON plans TO {role}"
    ));
    let options = format!("-c role={role}");
    let as_role = |args: &[&str]| {
        let mut command = given.command(args);
        command.env("PGOPTIONS", &options);
        Ran::from(args, command.output().unwrap()).exits(0)
    };
    for slug in ["acme", "globex"] {
        let host = format!("{slug}.test");
        as_role(&["create-tenant", "--name", slug, "--slug", slug, "--domain", &host]);
    }
    given.shared_file("V90__more.sql", "CREATE TABLE more (id int);");
    given.tenant_file("V90__plan.sql", "ALTER TABLE users ADD plan int REFERENCES public.plans;");
    given.tenant_file(
        "V91__index.sql",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY users_plan ON users (plan);",
    );
    as_role(&["migrate-schemas"]).counts(Counts { migrated: 3, ..NONE });
    as_role(&["backup", "--all", "--out=b"]).never_says("not verified");
    as_role(&["rename-tenant", "--tenant=acme", "--slug=acme2"]);
    as_role(&["drop-schema", "--tenant=acme2", "--trash", "--force"]);
    as_role(&["undrop", "--tenant=acme2"]);
    as_role(&["drop-schema", "--tenant=globex", "--force"]);
    as_role(&["doctor"]);
    as_role(&["status", "--verify"]);
    given.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
