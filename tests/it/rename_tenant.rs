//! `rename-tenant`: everything or nothing, and nothing that goes on under the old name unseen.

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE};
use crate::support::sessions::{CLASS, Holder, all_have_ended};

fn rename<'a>(tenant: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["rename-tenant", "--tenant", tenant], more].concat()
}

/// Everything but our own tables, without the old and the new name, and rows without their order.
fn without_names(given: &Given) -> Vec<String> {
    let dump = given.dump(&[]).replace("tenant_acme2", "tenant_acme");
    let dump = dump.replace("\tacme2\t", "\tacme\t").replace("\tacme2\n", "\tacme\n");
    let mut lines: Vec<String> = dump.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_tenant_gets_another_slug_and_its_schema_follows() {
    let given = Given::shop();
    given.database.execute(
        "INSERT INTO tenant_acme.users (username, email, password) VALUES ('ana', 'ana@acme.test', '!'); \
         CREATE VIEW tenant_acme.emails AS SELECT email FROM tenant_acme.users; \
         CREATE VIEW public.over AS SELECT email FROM tenant_acme.emails; \
         CREATE FUNCTION tenant_acme.own() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM users); END'; \
         CREATE TABLE tenant_acme.counted (id int DEFAULT nextval('tenant_acme.users_id_seq'))",
    );
    let before = without_names(&given);
    let oid = given.value("SELECT 'tenant_acme'::regnamespace::oid");
    given
        .run(&rename("acme.test", &["--slug", "acme2"]))
        .exits(0)
        .prints("✓ Tenant renamed: ")
        .prints("(slug=acme2, schema=tenant_acme2)")
        .says("was slug=acme, schema=tenant_acme");
    assert_eq!(without_names(&given), before);
    assert_eq!(given.value("SELECT 'tenant_acme2'::regnamespace::oid"), oid);
    assert_eq!(given.value("SELECT email FROM public.over"), "ana@acme.test");
    given.run(&["resolve", "acme.test"]).exits(0).prints("tenant_acme2");
    given.run(&["migrate-schemas", "--tenant", "acme"]).exits(4);
    // The ledger went along: nothing is read anew, and it is right.
    let ledger = "SELECT string_agg(schema_name, ' ' ORDER BY schema_name COLLATE \"C\") FROM pricesync.schema_state WHERE xmin = written_by::xid";
    assert_eq!(given.value(ledger), "public tenant_acme2 tenant_globex");
    given.run(&["status", "--verify"]).exits(0);
    given.run(&["doctor"]).exits(0);
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { up_to_date: 3, ..NONE });
    // And back.
    given.run(&rename("acme2", &["--slug", "acme"])).exits(0);
    assert_eq!(without_names(&given), before);
}

#[test]
fn name_slug_and_schema_change_each_by_itself() {
    let given = Given::shop();
    given.run(&rename("acme", &["--name", "Công ty \"Á\" O'Brien"])).exits(0);
    assert_eq!(
        given.value("SELECT name || schema_name FROM tenants_tenant WHERE slug = 'acme'"),
        "Công ty \"Á\" O'Brientenant_acme"
    );
    given
        .run(&rename("acme", &["--slug", "a", "--keep-schema"]))
        .exits(0)
        .says("the schema is still tenant_acme");
    // It is not called after the slug any more, so it does not follow the slug.
    given.run(&rename("a", &["--slug", "b"])).exits(0).prints("schema=tenant_acme)");
    let long = format!("Ü \"x' {}", "y".repeat(56));
    assert_eq!(long.len(), 63);
    given.run(&rename("b", &["--schema", &long])).exits(0);
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { up_to_date: 3, ..NONE });
    given.run(&rename("b", &["--schema", &format!("{long}z")])).exits(7);
    given.run(&rename("b", &["--schema", "tenant_b"])).exits(0);
    given.run(&rename("b", &["--slug", "c"])).exits(0).prints("schema=tenant_c)");
    given.run(&rename("c", &["--slug", "c"])).exits(0).says("already has these names");
    given.run(&rename("c", &[])).exits(2).says("use --slug, --name or --schema");
}

#[test]
fn what_is_taken_or_reserved_is_refused() {
    let given = Given::shop();
    given.database.execute("CREATE SCHEMA \"Tenant_Other\"");
    given.run(&["create-tenant", "--name", "Old", "--slug", "old"]).exits(0);
    given.run(&["drop-schema", "--force", "--trash", "--tenant", "old"]).exits(0);
    let before = given.dump(&[]);
    for (more, why) in [
        (&["--slug", "globex"][..], "slug 'globex' is taken by tenant 'globex'"),
        (&["--slug", "other"], "schema 'Tenant_Other' is taken by an existing schema"),
        (&["--schema", "TENANT_GLOBEX"], "schema 'tenant_globex' is taken by tenant 'globex'"),
        (&["--slug", "old"], "slug 'old' is taken by a tenant in the trash (pricesync_trash_1)"),
        (&["--schema", "tenant_OLD"], "schema 'tenant_old' is taken by a tenant in the trash"),
        (&["--schema", "public"], "public"),
        (&["--schema", "pg_acme"], "pg_acme"),
        (&["--schema", "pricesync_trash_7"], "pricesync_trash_7"),
        (&["--slug", "A B"], "may not hold"),
        (&["--name", " "], "the name may not be empty"),
    ] {
        given.run(&rename("acme", more)).exits(7).says(why).prints_nothing();
    }
    given.run(&rename("nobody", &["--slug", "x"])).exits(4);
    assert_eq!(given.dump(&[]), before);
    // Case alone may change.
    given.run(&rename("acme", &["--schema", "Tenant_Acme"])).exits(0);
    given.database.execute("DROP SCHEMA \"Tenant_Acme\" CASCADE");
    given
        .run(&rename("acme", &["--slug", "x", "--schema", "y"]))
        .exits(4)
        .says("schema 'Tenant_Acme' does not exist");
}

#[test]
fn whatever_says_the_old_name_as_text_is_listed() {
    let given = Given::shop();
    given.database.execute(
        "CREATE FUNCTION tenant_acme.inner() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM Tenant_Acme.users'; \
         CREATE FUNCTION public.report() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM \"tenant_acme\".users); END'; \
         CREATE FUNCTION tenant_globex.peek() RETURNS int LANGUAGE sql SET search_path = tenant_acme AS 'SELECT 1'; \
         CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
         CREATE TRIGGER noting BEFORE INSERT ON tenant_acme.users FOR EACH ROW EXECUTE FUNCTION public.noted('tenant_acme'); \
         CREATE VIEW tenant_acme.where_from AS SELECT 'tenant_acme'::text AS place FROM tenant_acme.users; \
         CREATE FUNCTION public.unconcerned() RETURNS int LANGUAGE sql AS 'SELECT 1 /* tenant_acme2, my_tenant_acme */'",
    );
    given.database.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path TO tenant_acme, public', current_database()); END $$",
    );
    let before = given.dump(&[]);
    given
        .run(&rename("acme", &["--slug", "acme9"]))
        .exits(7)
        .says("schema name 'tenant_acme' is referenced in ")
        .says("function tenant_acme.\"inner\"()")
        .says("function public.report()")
        .says("function tenant_globex.peek()")
        .says("trigger noting on table tenant_acme.users")
        .says("view where_from")
        .says("settings in database ")
        .never_says("unconcerned")
        .never_says("emails")
        .says("--leave-mentions");
    assert_eq!(given.dump(&[]), before);
    given.run(&rename("acme", &["--slug", "acme9", "--keep-schema"])).exits(0);
    given.run(&rename("acme9", &["--schema", "elsewhere", "--leave-mentions"])).exits(0);
    given.run(&["migrate-schemas"]).exits(0);
}

#[test]
fn a_run_that_has_the_schema_is_waited_for() {
    let given = Given::shop();
    given.tenant_file("V90__slow.sql", "SELECT pg_sleep(36000);");
    let mut run = given.spawn(&["migrate-schemas", "--tenant", "acme"]);
    run.hears("tenant_acme");
    eventually("the run is in the schema", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pricesync' AND wait_event = 'PgSleep' AND datname = current_database()") == "1"
    });
    given
        .run(&rename("acme", &["--slug", "acme2", "--lock-wait", "300ms"]))
        .exits(6)
        .says("the schema is locked by pid ")
        .says("nothing was changed");
    run.signal(Signal::KILL);
    let _ = run.wait().code();
    all_have_ended(&given);
    given.remove_tenant_file("V90__slow.sql");
    given.run(&rename("acme", &["--slug", "acme2"])).exits(0);
}

#[test]
fn a_run_that_comes_too_late_says_so_and_finds_the_new_name() {
    let given = Given::shop();
    given.tenant_file("V90__more.sql", "CREATE TABLE more (id int);");
    // The session that has the lock could be a rename that is about to commit.
    let lock =
        format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_acme'::regnamespace::oid::int4)");
    let holder = Holder::of(&given, &lock);
    let mut run = given.spawn(&["migrate-schemas", "--lock-wait", "1h"]);
    run.hears("tenant_acme: waiting");
    given.database.execute(
        "UPDATE tenants_tenant SET slug = 'acme2', schema_name = 'tenant_acme2' WHERE slug = 'acme'; ALTER SCHEMA tenant_acme RENAME TO tenant_acme2",
    );
    holder.let_go(&given);
    run.wait().exits(0).says("1 skipped");
    assert_eq!(given.history("tenant_acme2").last().map(String::as_str), Some("90"));
}

#[test]
fn of_two_at_once_one_wins() {
    let given = Given::shop();
    let racers: Vec<_> = ["one", "two", "three"]
        .iter()
        .map(|slug| given.spawn(&rename("acme", &["--slug", slug])))
        .collect();
    let mut codes: Vec<_> = racers.into_iter().map(|racer| racer.wait().code()).collect();
    codes.sort();
    assert_eq!(codes, [Some(0), Some(4), Some(4)]);
    // Two tenants that want one name.
    let acme = given.value("SELECT slug FROM tenants_tenant WHERE slug <> 'globex'");
    let racers =
        [acme.as_str(), "globex"].map(|slug| given.spawn(&rename(slug, &["--slug", "wanted"])));
    let mut codes = racers.map(|racer| racer.wait().code());
    codes.sort();
    assert_eq!(codes, [Some(0), Some(7)]);
    given.run(&["doctor"]).exits(0);
}
