//! `create-tenant`: everything or nothing.

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE, quoted, redact};
use crate::support::sessions::{CLASS, Holder};

fn shop() -> Given {
    let given = Given::shipped();
    given.run(&["migrate-schemas"]).exits(0);
    given
}

fn create<'a>(slug: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["create-tenant", "--name", "Acme Inc.", "--slug", slug], more].concat()
}

/// Everything in the database but the counters, which do not go back.
fn all(given: &Given) -> String {
    let dump = given.dump(&[]);
    let lines = dump.lines().filter(|line| !line.contains("setval"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_tenant_gets_row_hosts_schema_and_migrations() {
    let given = shop();
    let told = given
        .run(&create("acme", &["--domain", "Acme.Example.com", "--domain", "acme.test"]))
        .exits(0);
    assert_eq!(
        redact(&told.stdout),
        "✓ Tenant created: Acme Inc. (slug=acme, schema=tenant_acme)\n✓ 8 migrations, TIME\n"
    );
    assert_eq!(told.stderr, "");
    assert_eq!(given.history("tenant_acme").len(), 8);
    assert_eq!(
        given.column("SELECT domain || ' ' || is_primary FROM tenants_domain ORDER BY id"),
        ["acme.example.com true", "acme.test false"]
    );
    given.run(&["migrate-schemas", "--check"]).exits(0);
}

#[test]
fn what_is_taken_is_refused_in_any_case_and_nothing_is_left() {
    let given = shop();
    given.run(&create("acme", &["--domain", "acme.example.com"])).exits(0);
    given.database.execute(
        "CREATE SCHEMA tenant_free; \
         INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ('tenant_Upper', 'x', 'Upper'); \
         INSERT INTO tenants_domain (domain, tenant_id) SELECT 'UPPER.example.com', id FROM tenants_tenant WHERE slug = 'Upper'",
    );
    let before = all(&given);
    for (args, why) in [
        (create("acme", &[]), "acme"),
        (create("upper", &["--schema", "tenant_other"]), "pper"),
        (create("other", &["--schema", "tenant_acme"]), "tenant_acme"),
        (create("other", &["--schema", "TENANT_ACME"]), "tenant_acme"),
        (create("free", &[]), "tenant_free"),
        (create("other", &["--domain", "ACME.example.COM"]), "acme.example.com"),
        (create("other", &["--domain", "upper.example.com"]), "UPPER.example.com"),
        (create("other", &["--domain", "a.test", "--domain", "A.test:80"]), "a.test"),
    ] {
        given.run(&args).exits(7).says(why).prints_nothing();
        assert_eq!(all(&given), before, "{args:?}");
    }
}

#[test]
fn invalid_names_are_refused_before_a_connection() {
    let given = shop();
    let long = "x".repeat(64);
    let too_long_with_prefix = "x".repeat(57);
    let nowhere = ["-d", "postgresql://nobody@127.0.0.1:1/x"];
    for args in [
        create("acme", &["--schema", "public"]),
        create("acme", &["--schema", "Public"]),
        create("acme", &["--schema", "pg_acme"]),
        create("acme", &["--schema", "information_schema"]),
        create("acme", &["--schema", "pricesync"]),
        create("acme", &["--schema", ""]),
        create("acme", &["--schema", &long]),
        create("acme", &["--schema", "a\u{1b}[2J"]),
        create(&too_long_with_prefix, &[]),
        create(&long, &["--schema", "x"]),
        create("", &[]),
        create("Acme", &[]),
        create("_acme", &[]),
        create("a\"; drop schema public; --", &[]),
        create("acme", &["--domain", "not a host"]),
        create("acme", &["--domain", "a..b"]),
        create("acme", &["--domain", ""]),
    ] {
        given.run(&[&args[..], &nowhere].concat()).exits(7).prints_nothing();
    }
    given.run(&["create-tenant", "--name", " ", "--slug", "acme"]).exits(7);
}

#[test]
fn hostile_but_possible_names_are_names() {
    let given = shop();
    given
        .run(&[
            "create-tenant",
            "--name",
            "O'Brien \"& Söhne\"; --",
            "--slug",
            "obrien",
            "--schema",
            "x'\"; drop table public.tenants_tenant; --",
        ])
        .exits(0);
    assert_eq!(given.history("x'\"; drop table public.tenants_tenant; --").len(), 8);
    assert_eq!(given.value("SELECT name FROM tenants_tenant"), "O'Brien \"& Söhne\"; --");
}

#[test]
fn a_failing_migration_leaves_nothing() {
    let given = shop();
    given.tenant_file("V9__bad.sql", "CREATE TABLE nine (id int);\nSELECT 1/0;\n");
    let before = all(&given);
    given
        .run(&create("acme", &["--domain", "acme.test"]))
        .exits(10)
        .says("V9__bad")
        .says("22012")
        .prints_nothing();
    assert_eq!(all(&given), before);
}

#[test]
fn without_the_shared_tables_it_says_what_to_run_first() {
    let given = Given::shipped();
    given.run(&create("acme", &[])).exits(4).says("pricesync migrate-schemas --shared");
    assert_eq!(
        given.column("SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_'"),
        Vec::<String>::new()
    );
}

#[test]
fn no_migrate_leaves_the_schema_empty_for_the_next_run() {
    let given = shop();
    given.run(&create("acme", &["--no-migrate"])).exits(0).prints("✓ 8 migrations pending");
    assert!(given.relations("tenant_acme", 'r').is_empty());
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 1, up_to_date: 1, ..NONE });
}

#[test]
fn if_not_exists_succeeds_only_for_the_same_tenant() {
    let given = shop();
    given.run(&create("acme", &["--if-not-exists"])).exits(0);
    let before = all(&given);
    given.run(&create("acme", &["--if-not-exists"])).exits(0).says("already exists");
    given.run(&create("acme", &["--if-not-exists", "--schema", "other"])).exits(7);
    given.run(&create("other", &["--if-not-exists", "--schema", "tenant_acme"])).exits(7);
    assert_eq!(all(&given), before);
}

/// A schema with data and the first migrations, that no tenant has.
fn orphan(given: &Given, schema: &str) {
    given.run(&create("tmp", &["--schema", schema, "--domain", "tmp.test"])).exits(0);
    given.database.execute(&format!(
        "DELETE FROM tenants_domain; DELETE FROM tenants_tenant; DELETE FROM pricesync.schema_state; \
         INSERT INTO {0}.users (username, email, password) VALUES ('ana', 'ana@acme.test', '!')",
        quoted(schema)
    ));
}

#[test]
fn an_existing_schema_is_adopted_and_migrated_with_its_data() {
    let given = shop();
    let hostile = "Legacy \"Ø\" ' $x$";
    orphan(&given, hostile);
    given.tenant_file("V90__more.sql", "CREATE TABLE more (id int);");
    given.tenant_file(
        "V91__index.sql",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY more_idx ON more (id);\n",
    );
    given
        .run(&create("acme", &["--schema", hostile]))
        .exits(7)
        .says("an existing schema")
        .says("--adopt");
    let told = given
        .run(&create("acme", &["--schema", hostile, "--adopt", "--domain", "acme.test"]))
        .exits(0);
    assert_eq!(
        redact(&told.stdout),
        format!(
            "✓ Tenant adopted: Acme Inc. (slug=acme, schema={hostile})\n✓ 2 migrations, TIME\n"
        )
    );
    assert_eq!(given.history(hostile).len(), 10);
    assert_eq!(given.value(&format!("SELECT username FROM {}.users", quoted(hostile))), "ana");
    given.run(&["migrate-schemas", "--check"]).exits(0);
    given.run(&["status", "--verify"]).exits(0);
    given.run(&create("again", &["--schema", hostile, "--adopt"])).exits(7).says("tenant 'acme'");
}

#[test]
fn a_refused_adoption_leaves_the_schema_unchanged() {
    let given = shop();
    orphan(&given, "tenant_acme");
    given.run(&create("other", &["--domain", "taken.test"])).exits(0);
    given
        .database
        .execute("CREATE SCHEMA bare; CREATE TABLE bare.users (id int); CREATE SCHEMA tenant_odd; CREATE TABLE tenant_odd.refinery_schema_history (a int)");
    let before = all(&given);
    let refused = |args: &[&str], code: i32, why: &str| {
        given
            .run(&create("acme", &[args, &["--adopt"]].concat()))
            .exits(code)
            .says(why)
            .prints_nothing();
        assert!(all(&given) == before, "{args:?}");
    };
    refused(&["--domain", "TAKEN.test"], 7, "taken.test");
    refused(&["--schema", "tenant_none"], 4, "does not exist");
    refused(&["--schema", "tenant_other"], 7, "tenant 'other'");
    refused(&["--schema", "TENANT_ACME"], 4, "does not exist");
    refused(&["--schema", "public"], 7, "reserved");
    refused(&["--schema", "bare"], 7, "no history");
    refused(&["--schema", "tenant_odd"], 10, "reading the history of tenant_odd");
    // A migration that fails, and one that reaches out.
    given.tenant_file(
        "V90__bad.sql",
        "INSERT INTO users (username, email, password) VALUES ('b', 'b@b', '!');\nSELECT 1/0;\n",
    );
    refused(&[], 10, "22012");
    given.tenant_file("V90__bad.sql", "DO $$ BEGIN DELETE FROM public.auth_user; END $$;");
    refused(&[], 10, "V90__bad");
    given.remove_tenant_file("V90__bad.sql");
    given.remove_tenant_file("users/V8__user_locale.sql");
    refused(&[], 11, "V8__user_locale");
}

#[test]
fn a_schema_at_work_is_waited_for_before_it_is_adopted() {
    let given = shop();
    orphan(&given, "tenant_acme");
    let lock =
        format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_acme'::regnamespace::oid::int4)");
    let holder = Holder::of(&given, &lock);
    given
        .spawn_with(&create("acme", &["--adopt"]), &[("PRICESYNC_LOCK_WAIT", "300ms")])
        .wait()
        .exits(6)
        .says("PRICESYNC_LOCK_WAIT")
        .never_says("--lock-wait");
    holder.let_go(&given);
    given.run(&create("acme", &["--adopt"])).exits(0);
}

#[test]
fn a_schema_without_a_history_is_registered_with_no_migrate() {
    let given = shop();
    orphan(&given, "tenant_acme");
    given.database.execute("DROP TABLE tenant_acme.refinery_schema_history");
    given
        .run(&create("acme", &["--adopt"]))
        .exits(7)
        .says("pricesync baseline --tenant SLUG --to VERSION");
    given
        .run(&create("acme", &["--adopt", "--no-migrate"]))
        .exits(0)
        .says("pricesync status --tenant acme");
    given.run(&["migrate-schemas", "--tenant=acme", "--fake", "--to=8"]).exits(0);
    given.run(&["migrate-schemas", "--check"]).exits(0);
    assert_eq!(given.value("SELECT username FROM tenant_acme.users"), "ana");
}

#[test]
fn of_two_adoptions_at_once_exactly_one_wins() {
    let given = shop();
    orphan(&given, "legacy");
    let racers: Vec<_> = ["one", "two", "three"]
        .iter()
        .map(|slug| given.spawn(&create(slug, &["--adopt", "--schema", "legacy"])))
        .collect();
    let mut codes: Vec<_> = racers.into_iter().map(|racer| racer.wait().code()).collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(7), Some(7)]);
    assert_eq!(given.value("SELECT count(*) FROM tenants_tenant"), "1");
}

#[test]
fn of_two_creates_of_one_slug_at_once_exactly_one_wins() {
    let given = shop();
    let racers: Vec<_> = (0..4).map(|_| given.spawn(&create("acme", &[]))).collect();
    let mut codes: Vec<_> = racers.into_iter().map(|racer| racer.wait().code()).collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(7), Some(7), Some(7)]);
    assert_eq!(given.history("tenant_acme").len(), 8);
    assert_eq!(given.value("SELECT count(*) FROM tenants_tenant"), "1");
}

#[test]
fn whose_schema_it_is_is_said_whatever_letters_it_has() {
    let given = shop();
    given.database.execute("CREATE SCHEMA \"CÔNG_TY Ø\"");
    for schema in ["CÔNG_TY Ø", "công_ty ø"] {
        given
            .run(&create("acme", &["--schema", schema]))
            .exits(7)
            .says("schema 'CÔNG_TY Ø' is taken by an existing schema");
    }
}

#[test]
fn if_not_exists_wins_a_race_and_requires_a_whole_schema() {
    let given = shop();
    given.tenant_file("V90__slow.sql", "SELECT pg_sleep(0.5);");
    let racers: Vec<_> =
        (0..3).map(|_| given.spawn(&create("acme", &["--if-not-exists"]))).collect();
    for racer in racers {
        racer.wait().exits(0);
    }
    assert_eq!(given.value("SELECT count(*) FROM tenants_tenant"), "1");
    given.database.execute("ALTER SCHEMA tenant_acme RENAME TO pricesync_dropping_1");
    let id = given.value("SELECT id FROM tenants_tenant");
    given.database.execute(&format!(
        "ALTER SCHEMA pricesync_dropping_1 RENAME TO aside; ALTER SCHEMA aside RENAME TO pricesync_dropping_{id}"
    ));
    given.run(&create("acme", &["--if-not-exists"])).exits(7).says("partly dropped");
    given.database.execute(&format!("DROP SCHEMA pricesync_dropping_{id} CASCADE"));
    given
        .run(&create("acme", &["--if-not-exists"]))
        .exits(4)
        .says("pricesync doctor --fix missing");
}

#[test]
fn an_unreachable_direct_url_creates_nothing() {
    let given = shop();
    given.tenant_file(
        "V91__index.sql",
        "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY more_idx ON users (email);\n",
    );
    let before = all(&given);
    let direct = [("PRICESYNC_DIRECT_URL", "postgresql://nobody@127.0.0.1:1/x")];
    let ran = given.spawn_with(&create("acme", &[]), &direct).wait();
    ran.exits(5).prints_nothing();
    assert_eq!(all(&given), before);
    given.run(&create("acme", &["--no-migrate"])).exits(0);
}

#[test]
fn whoever_is_told_to_try_again_is_told_the_command_that_helps() {
    let given = shop();
    given.tenant_file("V90__bad.sql", "SELECT 1/0;");
    given
        .run(&create("acme", &[]))
        .exits(10)
        .says("run the same command again")
        .never_says("--tenant=acme");
    given.tenant_file("V90__bad.sql", "-- pricesync: no-transaction\nVACUUM nowhere;\n");
    given
        .run(&create("acme", &[]))
        .exits(10)
        .says("run the same command again")
        .never_says("stay applied");
}

#[test]
fn tenant_table_constraints_are_reported_as_by_the_server() {
    let given = shop();
    given.database.execute(
        "ALTER TABLE tenants_tenant ADD plan int CHECK (plan > 0), ADD region varchar(2), ADD owner bigint REFERENCES auth_user (id)",
    );
    let before = all(&given);
    for (set, words) in [
        ("plan=0", "23514"),
        ("plan=x", "22P02"),
        ("region=long", "22001"),
        ("owner=77", "Key (owner)=(77) is not present"),
    ] {
        given.run(&create("acme", &["--set", set])).exits(7).says(words).prints_nothing();
        assert!(all(&given) == before, "{set}");
    }
}

#[test]
fn a_lock_of_a_moment_keeps_no_tenant_from_being_made() {
    let given = shop();
    given.database.execute("CREATE TABLE public.plans (id int)");
    orphan(&given, "legacy");
    given.tenant_file("V90__plans.sql", "SELECT count(*) FROM public.plans;");
    let new = create("acme", &[]);
    let adopted = create("old", &["--schema", "legacy", "--adopt"]);
    let before = all(&given);
    let impatient = [("PRICESYNC_LOCK_TIMEOUT", "100ms"), ("PRICESYNC_LOCK_RETRIES", "1")];
    for (table, mode) in [("public.plans", "ACCESS EXCLUSIVE"), ("tenants_tenant", "SHARE")] {
        let holder = Holder::of(&given, &format!("LOCK TABLE {table} IN {mode} MODE"));
        for args in [&new, &adopted] {
            given.spawn_with(args, &impatient).wait().exits(6).says("55P03").prints_nothing();
        }
        holder.let_go(&given);
        assert!(all(&given) == before, "{table}");
    }
    let asks = |since: &str| {
        given.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pricesync' AND datname = current_database() AND wait_event_type = 'Lock' AND backend_start > '{since}'")) == "1"
    };
    for args in [&new, &adopted] {
        let holder = Holder::of(&given, "LOCK TABLE tenants_tenant IN SHARE MODE");
        let made = given.spawn_with(args, &[("PRICESYNC_LOCK_TIMEOUT", "1s")]);
        eventually("it asks", || asks("-infinity"));
        let now = given.value("SELECT clock_timestamp()");
        eventually("it asks again", || asks(&now));
        holder.let_go(&given);
        made.wait().exits(0);
    }
    assert_eq!(given.value("SELECT count(*) FROM tenants_tenant"), "2");
}
