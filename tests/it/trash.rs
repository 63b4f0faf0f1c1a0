//! `drop-schema --trash`, `undrop`, `purge`: out of the way, back, and gone.

use std::fmt::Write as _;

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE};
use crate::support::sessions::{CLASS, Holder, all_have_ended};

fn trash(slug: &str) -> [&str; 5] {
    ["drop-schema", "--force", "--trash", "--tenant", slug]
}

fn names(given: &Given) -> String {
    given.run(&["list-tenants", "-o", "names"]).exits(0).stdout
}

fn in_trash(given: &Given) -> String {
    given.run(&["list-tenants", "--trashed", "-o", "names"]).exits(0).stdout
}

/// Everything but where sequences are, which do not go back, and rows without their order.
fn all(given: &Given) -> Vec<String> {
    let dump = given.dump_all(&[]);
    let mut lines: Vec<String> =
        dump.lines().filter(|line| !line.contains("setval")).map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The same without our own tables.
fn outside(given: &Given) -> Vec<String> {
    let mut lines: Vec<String> = given
        .dump(&[])
        .lines()
        .filter(|line| !line.contains("setval"))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_tenant_goes_to_the_trash_and_comes_back_as_it_was() {
    let given = Given::shop();
    given.database.execute(
        "ALTER TABLE tenants_tenant ADD plan jsonb DEFAULT '{\"a\": [1, 2]}', ADD rate float8, ADD twice float8 GENERATED ALWAYS AS (rate * 2) STORED; \
         UPDATE tenants_tenant SET rate = 0.1 + 0.2, name = 'Công ty \"Á\" \\ O''Brien'; \
         INSERT INTO tenants_domain (domain, is_primary, tenant_id) SELECT 'second.test', false, id FROM tenants_tenant WHERE slug = 'acme'; \
         INSERT INTO tenant_acme.users (username, email, password) VALUES ('ana', 'ana@acme.test', '!'); \
         CREATE FUNCTION tenant_acme.own() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM tenant_acme.users); END'; \
         CREATE VIEW public.over AS SELECT email FROM tenant_acme.users",
    );
    let before = outside(&given);
    given
        .run(&trash("acme.test"))
        .exits(0)
        .prints("✓ Moved to the trash: tenant 'acme': schema tenant_acme, ")
        .says("pricesync undrop --tenant acme");
    assert_eq!(names(&given), "globex\n");
    assert_eq!(in_trash(&given), "acme\n");
    assert_eq!(
        given.column("SELECT nspname FROM pg_namespace WHERE nspname ~ 'acme'"),
        Vec::<String>::new()
    );
    // No command targets it, no check reports it, and it blocks no name.
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { up_to_date: 2, ..NONE });
    given.run(&["doctor"]).exits(0);
    given.run(&["migrate-schemas", "--tenant=acme"]).exits(4);
    given
        .run(&["undrop", "--tenant", "acme"])
        .exits(0)
        .prints("(slug=acme, schema=tenant_acme, 2 hosts)");
    assert_eq!(outside(&given), before);
    assert_eq!(given.value("SELECT tenant_acme.own()"), "1");
    assert_eq!(in_trash(&given), "");
    given.run(&["status", "--verify"]).exits(0);
    given.run(&["doctor"]).exits(0);
    given.run(&["undrop", "--tenant", "acme"]).exits(4);
}

#[test]
fn who_missed_migrations_in_the_trash_is_told_and_catches_up() {
    let given = Given::shop();
    given.run(&trash("acme")).exits(0);
    given.tenant_file("V90__more.sql", "CREATE TABLE more (id int);");
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 1, up_to_date: 1, ..NONE });
    given
        .run(&["undrop", "--tenant=tenant_acme"])
        .exits(0)
        .says("1 migration pending; next: pricesync migrate-schemas --tenant acme");
    given.run(&["migrate-schemas", "--check"]).exits(3);
    given.run(&["migrate-schemas"]).exits(0).counts(Counts { migrated: 1, up_to_date: 2, ..NONE });
    assert!(given.relations("tenant_acme", 'r').contains(&"more".to_owned()));
}

#[test]
fn what_is_taken_meanwhile_keeps_it_in_the_trash() {
    for (sql, why) in [
        (
            "INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ('tenant_new', 'New', 'ACME')",
            "slug 'ACME' is taken by tenant 'ACME'",
        ),
        (
            "INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ('tenant_acme', 'New', 'new')",
            "schema 'tenant_acme' is taken by tenant 'new'",
        ),
        ("CREATE SCHEMA \"TENANT_acme\"", "schema 'TENANT_acme' is taken by an existing schema"),
        (
            "INSERT INTO tenants_domain (domain, is_primary, tenant_id) SELECT 'acme.test', false, id FROM tenants_tenant",
            "host 'acme.test' is taken by tenant 'globex'",
        ),
    ] {
        let given = Given::shop();
        given.run(&trash("acme")).exits(0);
        given.database.execute(sql);
        let before = all(&given);
        given
            .run(&["undrop", "--tenant=acme"])
            .exits(7)
            .says(why)
            .says("stays in the trash as pricesync_trash_1")
            .prints_nothing();
        assert!(all(&given) == before, "{sql}");
    }
}

#[test]
fn one_slug_can_be_in_the_trash_twice_and_is_told_apart() {
    let given = Given::shop();
    given.run(&trash("acme")).exits(0);
    given.run(&["create-tenant", "--name", "Other", "--slug", "acme"]).exits(0);
    given.run(&trash("acme")).exits(0);
    assert_eq!(in_trash(&given), "acme\nacme\n");
    given
        .run(&["undrop", "--tenant=acme"])
        .exits(7)
        .says("pricesync_trash_1 (")
        .says("pricesync_trash_2 (");
    given.run(&["undrop", "--tenant=pricesync_trash_1"]).exits(0).prints("1 host");
    given.run(&["undrop", "--tenant=acme"]).exits(7).says("slug 'acme' is taken");
    given
        .run(&["purge", "--tenant=acme", "--force"])
        .exits(0)
        .prints("✓ Purged tenant 'acme': schema tenant_acme (pricesync_trash_2)");
    assert_eq!(names(&given), "acme\nglobex\n");
}

#[test]
fn hostile_and_long_names_survive() {
    let given = Given::shop();
    let long = format!("{}ế", "x".repeat(60));
    for (slug, schema) in [
        ("quotes", "x'\"; drop table public.tenants_tenant; --"),
        ("upper", "Tenant_UPPER $lock$ Ø"),
        ("long", &long),
    ] {
        given
            .run(&[
                "create-tenant",
                "--name",
                "O'Brien \"& Söhne\" \\ công ty",
                "--slug",
                slug,
                "--schema",
                schema,
            ])
            .exits(0);
        let before = outside(&given);
        given.run(&trash(schema)).exits(0);
        assert_eq!(in_trash(&given), format!("{slug}\n"));
        given.run(&["undrop", "--tenant", schema]).exits(0);
        assert!(outside(&given) == before, "{schema}");
        given.run(&trash(schema)).exits(0);
        given.run(&["purge", "--all", "--force"]).exits(0);
    }
    assert_eq!(names(&given), "acme\nglobex\n");
}

#[test]
fn purge_asks_takes_the_old_and_refuses_what_others_need() {
    let given = Given::shop();
    given.database.execute("CREATE VIEW public.over AS SELECT email FROM tenant_acme.users");
    given.run(&["purge", "--all", "--force"]).exits(0).says("nothing to purge");
    // A rename loses nothing.
    given.run(&trash("acme")).exits(0);
    given.run(&trash("globex")).exits(0);
    given
        .run(&["purge", "--all"])
        .exits(7)
        .says("refusing to purge 2 tenants without confirmation")
        .says("pricesync_trash_1");
    given.run(&["purge", "--older-than", "30", "--force"]).exits(2);
    given.run(&["purge", "--force"]).exits(2);
    given.run(&["purge", "--older-than=30d", "--force"]).exits(0).says("nothing to purge");
    given.database.execute(
        "UPDATE pricesync.trash SET trashed_at = trashed_at - interval '31 days' WHERE slug = 'globex'",
    );
    given
        .run(&["purge", "--older-than=30d", "--force"])
        .exits(0)
        .prints("✓ Purged tenant 'globex'");
    assert_eq!(in_trash(&given), "acme\n");
    given.run(&["purge", "--tenant=acme", "--force"]).exits(7).says("view public.over");
    given.run(&["purge", "--tenant=acme", "--force", "--cascade-outside"]).exits(0);
    assert_eq!(in_trash(&given), "");
    assert_eq!(given.value("SELECT count(*) FROM pg_namespace WHERE nspname ~ 'trash'"), "0");
}

#[test]
fn a_trash_killed_before_its_end_changed_nothing() {
    let given = Given::shop();
    let before = given.dump(&[]);
    // It gets as far as the row and waits there.
    let holder = Holder::of(
        &given,
        "SELECT FROM public.tenants_domain WHERE domain = 'acme.test' FOR UPDATE",
    );
    let running = given.spawn(&[&trash("acme")[..], &["--lock-timeout=1h"]].concat());
    eventually("it waits for the host", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pricesync' AND wait_event_type = 'Lock' AND datname = current_database()") == "1"
    });
    running.signal(Signal::KILL);
    let _ = running.wait();
    holder.let_go(&given);
    all_have_ended(&given);
    let whole = given.dump(&[]) == before && in_trash(&given).is_empty();
    let gone = names(&given) == "globex\n" && in_trash(&given) == "acme\n";
    assert!(whole || gone, "{}", given.dump(&[]));
}

#[test]
fn a_purge_killed_in_the_middle_is_finished_by_another() {
    let given = Given::shop();
    let mut sql = String::new();
    for number in 0..120 {
        let _ = write!(sql, "CREATE TABLE tenant_acme.t{number} (id int);");
    }
    given.database.execute(&sql);
    given.run(&trash("acme")).exits(0);
    let holder = Holder::of(&given, "LOCK TABLE pricesync_trash_1.users IN ACCESS SHARE MODE");
    let purge = given.spawn(&["purge", "--all", "--force", "--lock-timeout=1h"]);
    eventually("a piece is gone", || {
        given.value("SELECT purge_began_at IS NOT NULL FROM pricesync.trash") == "t"
    });
    purge.signal(Signal::KILL);
    let _ = purge.wait();
    holder.let_go(&given);
    all_have_ended(&given);
    given.run(&["list-tenants", "--trashed"]).exits(0).prints("being purged");
    given.run(&["undrop", "--tenant=acme"]).exits(7).says("partly dropped");
    given.run(&["doctor"]).exits(11).prints("its purge did not finish");
    given.run(&["purge", "--tenant=acme", "--force"]).exits(0);
    given.run(&["doctor"]).exits(0);
    assert_eq!(in_trash(&given), "");
}

#[test]
fn of_several_at_once_exactly_one_does_it() {
    let given = Given::shop();
    let before = outside(&given);
    let count = |runs: Vec<crate::support::pricesync::Running>| {
        let codes: Vec<_> = runs.into_iter().map(|run| run.wait().code()).collect();
        let done = codes.iter().filter(|code| **code == Some(0)).count();
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 4 | 6 | 7))), "{codes:?}");
        done
    };
    assert_eq!(count((0..3).map(|_| given.spawn(&trash("acme"))).collect()), 1);
    assert_eq!(in_trash(&given), "acme\n");
    let back = (0..3).map(|_| given.spawn(&["undrop", "--tenant=acme"]));
    assert_eq!(count(back.collect()), 1);
    assert_eq!(outside(&given), before);
}

#[test]
fn a_schema_at_work_is_waited_for_and_then_left() {
    let given = Given::shop();
    let lock = |schema: &str| {
        format!("SELECT pg_advisory_xact_lock({CLASS}, '{schema}'::regnamespace::oid::int4)")
    };
    let holder = Holder::of(&given, &lock("tenant_acme"));
    let before = all(&given);
    given.run(&[&trash("acme")[..], &["--lock-wait=0"]].concat()).exits(6).says("the-holder");
    assert_eq!(all(&given), before);
    holder.let_go(&given);
    given.run(&trash("acme")).exits(0);
    // The one that failed has used up a number.
    let holder = Holder::of(&given, &lock("pricesync_trash_2"));
    let impatient = [("PRICESYNC_LOCK_WAIT", "300ms")];
    given
        .spawn_with(&["undrop", "--tenant=acme"], &impatient)
        .wait()
        .exits(6)
        .says("the-holder")
        .says("PRICESYNC_LOCK_WAIT")
        .never_says("--lock-wait");
    assert_eq!(in_trash(&given), "acme\n");
    let back = given.spawn(&["undrop", "--tenant=acme"]);
    holder.let_go(&given);
    back.wait().exits(0);
}

#[test]
fn what_cannot_be_kept_whole_is_refused() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TABLE public.notes (id int, tenant bigint REFERENCES tenants_tenant (id) ON DELETE CASCADE); \
         INSERT INTO public.notes SELECT 1, id FROM tenants_tenant WHERE slug = 'acme'; \
         CREATE TABLE tenant_globex.own (tenant bigint REFERENCES tenants_tenant (id)); \
         INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ('tenant_none', 'None', 'none')",
    );
    let before = all(&given);
    // Its rows would go with the tenant's row, and not come back.
    given.run(&trash("acme")).exits(7).says("public.notes");
    given.run(&trash("none")).exits(4).says("tenant_none");
    given.run(&trash("nobody")).exits(4);
    given.run(&[&trash("acme")[..], &["--keep-record"]].concat()).exits(2);
    given
        .run(&[&trash("acme")[..], &["-d", "postgresql://nobody@127.0.0.1:1/x"]].concat())
        .exits(5);
    assert_eq!(all(&given), before);
}

#[test]
fn without_the_right_nothing_changes() {
    let given = Given::shop();
    given.run(&trash("globex")).exits(0);
    let role =
        given.value("SELECT 'lowly_' || oid FROM pg_database WHERE datname = current_database()");
    given.database.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public, pricesync TO {role}; \
         GRANT ALL ON ALL TABLES IN SCHEMA public, pricesync TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA pricesync TO {role}"
    ));
    let before = all(&given);
    let as_role = format!("options=-c%20role%3D{role}");
    let url = given.database.url();
    let sign = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{sign}{as_role}");
    for args in [
        &trash("acme")[..],
        &["drop-schema", "--tenant=acme", "--force"],
        &["undrop", "--tenant=globex"],
        &["purge", "--all", "--force"],
    ] {
        given
            .run(&[args, &["-d", &url]].concat())
            .exits(7)
            .says("42501")
            .says("requires the owner, a member of the owning role or a superuser");
        assert!(all(&given) == before, "{args:?}");
    }
    let read_only = format!("{url}%20-c%20default_transaction_read_only%3Don");
    for args in [&trash("acme")[..], &["undrop", "--tenant=globex"], &["purge", "--all", "--force"]]
    {
        given.run(&[args, &["-d", &read_only]].concat()).exits(7).says("read-only");
    }
    given.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn doctor_names_what_somebody_broke_in_the_trash() {
    let given = Given::shop();
    given.run(&trash("acme")).exits(0);
    given.run(&trash("globex")).exits(0);
    given.database.execute(
        "DROP SCHEMA pricesync_trash_1 CASCADE; DELETE FROM pricesync.trash WHERE id = 2; CREATE SCHEMA pricesync_dropping_77",
    );
    given
        .run(&["doctor"])
        .exits(11)
        .prints("its schema is gone")
        .prints("in the trash without a record")
        .prints("pricesync_dropping_77");
    given
        .run(&["undrop", "--tenant=acme"])
        .exits(4)
        .says("pricesync purge --tenant pricesync_trash_1");
    given.run(&["purge", "--tenant=pricesync_trash_1", "--force"]).exits(0);
    assert_eq!(in_trash(&given), "");
}

#[test]
fn the_names_of_dropped_schemas_are_nobody_elses() {
    let given = Given::shop();
    for schema in ["pricesync_trash_1", "pricesync_dropping_1"] {
        given
            .run(&["create-tenant", "--name", "x", "--slug", "x", "--schema", schema])
            .exits(7)
            .says("reserved");
    }
}

#[test]
fn a_short_lock_on_the_tenant_table_does_not_stop_undrop() {
    let given = Given::shop();
    given.run(&trash("acme")).exits(0);
    let holder = Holder::of(&given, "LOCK TABLE tenants_tenant IN SHARE MODE");
    let brief = [("PRICESYNC_LOCK_TIMEOUT", "100ms")];
    let args = ["undrop", "--tenant=acme"];
    given
        .spawn_with(&args, &[brief[0], ("PRICESYNC_LOCK_RETRIES", "1")])
        .wait()
        .exits(6)
        .says("55P03")
        .never_says("dropping");
    let back = given.spawn_with(&args, &[brief[0], ("PRICESYNC_LOCK_RETRIES", "1000")]);
    let asks = |since: &str| {
        given.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pricesync' AND datname = current_database() AND wait_event_type = 'Lock' AND backend_start > '{since}'")) == "1"
    };
    eventually("it has asked", || asks("-infinity"));
    let now = given.value("SELECT clock_timestamp()");
    eventually("it asks again", || asks(&now));
    holder.let_go(&given);
    back.wait().exits(0);
    assert_eq!(names(&given), "acme\nglobex\n");
}

#[test]
fn a_column_unknown_to_the_record_keeps_the_tenant_in_the_trash() {
    let given = Given::shop();
    given.run(&trash("acme")).exits(0);
    given.database.execute(
        "ALTER TABLE tenants_tenant ADD plan text NOT NULL DEFAULT 'free'; ALTER TABLE tenants_tenant ALTER plan DROP DEFAULT",
    );
    given
        .run(&["undrop", "--tenant=acme"])
        .exits(7)
        .says("stays in the trash as pricesync_trash_1")
        .never_says("--set");
}
