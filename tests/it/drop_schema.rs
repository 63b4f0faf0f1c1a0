//! `drop-schema`: what is asked, what is refused, what goes.

use std::fmt::Write as _;

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Counts, Given, NONE};
use crate::support::pty::OnTerminal;
use crate::support::sessions::{CLASS, Holder, all_have_ended};

fn schemas(given: &Given) -> Vec<String> {
    given.column("SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_' ORDER BY 1")
}

fn rows(given: &Given) -> Vec<String> {
    given.column("SELECT slug || ' ' || coalesce(domain, '-') FROM tenants_tenant t LEFT JOIN tenants_domain d ON d.tenant_id = t.id ORDER BY 1")
}

#[test]
fn without_a_terminal_it_refuses_and_shows_what_would_go() {
    let given = Given::shop();
    given
        .run(&["drop-schema", "--tenant=acme"])
        .exits(7)
        .says("without confirmation: stdin is not a terminal")
        .says("schema tenant_acme, ")
        .says("acme.test")
        .says("--force")
        .prints_nothing();
    assert_eq!(schemas(&given), ["tenant_acme", "tenant_globex"]);
}

#[test]
fn force_drops_schema_row_and_hosts_of_that_tenant_only() {
    let given = Given::shop();
    let others = given.dump(&["-n", "tenant_globex"]);
    given
        .run(&["drop_schema", "--tenant", "acme.test", "--force"])
        .exits(0)
        .prints("✓ Dropped tenant 'acme': schema tenant_acme, ");
    assert_eq!(schemas(&given), ["tenant_globex"]);
    assert_eq!(rows(&given), ["globex globex.test"]);
    assert_eq!(given.dump(&["-n", "tenant_globex"]), others);
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(4);
    // The name is free again.
    given
        .run(&["create-tenant", "--name", "Acme", "--slug", "acme", "--domain", "acme.test"])
        .exits(0);
}

#[test]
fn keep_record_drops_the_schema_alone() {
    let given = Given::shop();
    given.run(&["drop-schema", "--tenant=acme", "--force", "--keep-record"]).exits(0);
    assert_eq!(schemas(&given), ["tenant_globex"]);
    assert_eq!(rows(&given), ["acme acme.test", "globex globex.test"]);
    // What is left is finished by running it again.
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(0).prints("is already gone");
    assert_eq!(rows(&given), ["globex globex.test"]);
}

#[test]
fn nobody_but_a_tenant_can_be_dropped() {
    let given = Given::shop();
    given.database.execute(
        "INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ('public', 'Public', 'public'), ('pg_catalog', 'x', 'catalog')",
    );
    let before = given.dump(&[]);
    for name in
        ["public", "pg_catalog", "catalog", "information_schema", "pricesync", "acm", "a*", "1", ""]
    {
        let code = given.run(&["drop-schema", "--force", "--tenant", name]).code();
        assert!(matches!(code, Some(4 | 7)), "{name:?}: {code:?}");
        assert_eq!(given.dump(&[]), before, "{name:?}");
    }
}

#[test]
fn what_others_need_is_not_dropped_and_they_are_listed() {
    for (sql, named) in [
        (
            "CREATE VIEW public.report AS SELECT count(*) FROM tenant_acme.products",
            "view public.report",
        ),
        (
            "CREATE MATERIALIZED VIEW tenant_globex.copy AS SELECT id FROM tenant_acme.products",
            "tenant_globex.copy",
        ),
        (
            "CREATE TABLE tenant_globex.child (id bigint REFERENCES tenant_acme.products (id))",
            "tenant_globex.child",
        ),
        (
            "CREATE TYPE tenant_acme.mood AS ENUM ('good'); CREATE TABLE public.moods (mood tenant_acme.mood)",
            "column mood of table public.moods",
        ),
        (
            "CREATE FUNCTION tenant_acme.one() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE public.ones (id int DEFAULT tenant_acme.one())",
            "public.ones",
        ),
        ("CREATE TABLE public.heir () INHERITS (tenant_acme.products)", "table public.heir"),
    ] {
        let given = Given::shop();
        given.database.execute(sql);
        let before = given.dump(&[]);
        given
            .run(&["drop-schema", "--tenant=acme", "--force"])
            .exits(7)
            .says(named)
            .says("--cascade-outside")
            .prints_nothing();
        assert_eq!(given.dump(&[]), before, "{sql}");
        // --cascade-outside drops them.
        given.run(&["drop-schema", "--tenant=acme", "--force", "--cascade-outside"]).exits(0);
        assert_eq!(schemas(&given), ["tenant_globex"]);
    }
}

#[test]
fn what_depends_on_dependents_is_listed_too_and_parts_are_not() {
    let given = Given::shop();
    given.database.execute(
        "CREATE VIEW public.first AS SELECT id, name FROM tenant_acme.products; \
         CREATE VIEW public.second AS SELECT id FROM public.first; \
         CREATE TABLE tenant_globex.child (id bigint REFERENCES tenant_acme.products (id), note text); \
         CREATE FUNCTION tenant_acme.half(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 / 2'; \
         CREATE TABLE public.halves (id int); CREATE INDEX halves_idx ON public.halves (tenant_acme.half(id))",
    );
    given
        .run(&["drop-schema", "--tenant=acme", "--force"])
        .exits(7)
        .says(
            "depend on it: constraint child_id_fkey on table tenant_globex.child, index public.halves_idx, \
             view public.first, view public.second\n",
        );
}

#[test]
fn rows_elsewhere_that_refer_to_the_tenants_row_keep_it() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TABLE public.invoices (id int, payer bigint REFERENCES tenants_tenant (id)); \
         INSERT INTO public.invoices SELECT 1, id FROM tenants_tenant WHERE slug = 'acme'",
    );
    let before = given.dump(&[]);
    given
        .run(&["drop-schema", "--tenant=acme", "--force"])
        .exits(7)
        .says("rows refer to the tenant's row, in public.invoices")
        .says("--keep-record");
    assert_eq!(given.dump(&[]), before);
    // No row refers to the other one.
    given.run(&["drop-schema", "--tenant=globex", "--force"]).exits(0);
    given.run(&["drop-schema", "--tenant=acme", "--force", "--keep-record"]).exits(0);
}

/// Both tenants have a table whose rows refer to the tenant's row; acme's drop takes pieces.
fn referring() -> Given {
    let given = Given::shop();
    for slug in ["acme", "globex"] {
        given.database.execute(&format!(
            "CREATE TABLE tenant_{slug}.settings (tenant bigint CONSTRAINT owner REFERENCES tenants_tenant, value text); \
             INSERT INTO tenant_{slug}.settings SELECT id FROM tenants_tenant WHERE slug = '{slug}'"
        ));
    }
    many_tables(&given);
    given
}

const ACMES: &str = "(SELECT id FROM tenants_tenant WHERE slug = 'acme')";

#[test]
fn rows_of_other_tenants_keep_it_before_anything_is_dropped() {
    let given = referring();
    let rows = format!("INSERT INTO tenant_globex.settings VALUES ({ACMES}, 'copied')");
    given.database.execute(&rows);
    let before = given.dump(&[]);
    for more in [&["--cascade-outside"][..], &["--trash"], &[]] {
        given
            .run(&[&["drop-schema", "--tenant=acme", "--force"], more].concat())
            .exits(7)
            .says("tenant_globex.settings (key owner)")
            .says("delete or move those rows first")
            .prints_nothing();
        assert!(given.dump(&[]) == before, "{more:?}");
    }
    given.database.execute("DELETE FROM tenant_globex.settings WHERE value = 'copied'");
    // Its own rows go with it; in the trash they would lose what they refer to.
    given
        .run(&["drop-schema", "--tenant=acme", "--force", "--trash"])
        .exits(7)
        .says("the tenant's row, in tenant_acme.settings (key owner)\n");
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(0);
    assert_eq!(schemas(&given), ["tenant_globex"]);
    assert_eq!(given.value("SELECT count(*) FROM tenant_globex.settings"), "1");
}

#[test]
fn what_would_go_with_it_elsewhere_keeps_it_too() {
    for (sql, named) in [
        (
            // Rows of another tenant would be deleted without a word.
            "CREATE TABLE tenant_globex.\"Notes \"\"ế\"\" % '\" (owner bigint CONSTRAINT \"Käy\" REFERENCES tenants_tenant ON DELETE CASCADE); \
             INSERT INTO tenant_globex.\"Notes \"\"ế\"\" % '\" VALUES (1)",
            "tenant_globex.\"Notes \"\"ế\"\" % '\" (key Käy)",
        ),
        (
            "CREATE TABLE tenant_globex.notes (owner bigint CONSTRAINT key REFERENCES tenants_tenant ON DELETE SET NULL); \
             INSERT INTO tenant_globex.notes VALUES (1)",
            "tenant_globex.notes (key key)",
        ),
        (
            // Hosts go with the tenant.
            "CREATE TABLE public.certificates (host bigint CONSTRAINT key REFERENCES tenants_domain); \
             INSERT INTO public.certificates SELECT id FROM tenants_domain WHERE tenant_id = 1",
            "public.certificates (key key)",
        ),
        (
            // So do rows of shared tables, and what keeps those keeps the tenant.
            "CREATE TABLE public.members (tenant bigint REFERENCES tenants_tenant ON DELETE CASCADE, name text, PRIMARY KEY (tenant, name)); \
             CREATE TABLE public.posts (a bigint, b text, CONSTRAINT key FOREIGN KEY (a, b) REFERENCES public.members); \
             INSERT INTO public.members VALUES (1, 'x'), (2, 'y'); INSERT INTO public.posts VALUES (1, 'x')",
            "public.posts (key key)",
        ),
        (
            "CREATE UNIQUE INDEX schemas ON tenants_tenant (schema_name); \
             ALTER TABLE tenants_tenant ADD UNIQUE USING INDEX schemas; \
             CREATE TABLE public.named (schema text CONSTRAINT key REFERENCES tenants_tenant (schema_name)); \
             INSERT INTO public.named VALUES ('tenant_acme')",
            "public.named (key key)",
        ),
    ] {
        let given = Given::shop();
        many_tables(&given);
        given.database.execute(sql);
        let before = given.dump(&[]);
        given
            .run(&["drop-schema", "--tenant=acme", "--force"])
            .exits(7)
            .says(&format!("rows refer to the tenant's row, in {named}\n"))
            .prints_nothing();
        assert!(given.dump(&[]) == before, "{sql}");
        given.run(&["drop-schema", "--tenant=globex", "--force", "--keep-record"]).exits(0);
        given.run(&["drop-schema", "--tenant=acme", "--force", "--keep-record"]).exits(0);
    }
}

#[test]
fn a_row_inserted_during_a_drop_is_named() {
    let given = referring();
    let holder = Holder::of(&given, "LOCK TABLE tenant_acme.users IN ACCESS SHARE MODE");
    let drop = given.spawn(&["drop-schema", "--tenant=acme", "--force", "--lock-timeout=1h"]);
    eventually("the drop has started", || {
        given.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pricesync_dropping_1'")
            == "1"
    });
    let rows = format!("INSERT INTO tenant_globex.settings VALUES ({ACMES}, 'late')");
    given.database.execute(&rows);
    holder.let_go(&given);
    let named = "in tenant_globex.settings (key owner)";
    drop.wait().exits(7).says(named).prints_nothing();
    given.run(&["list-tenants"]).exits(0).prints("dropping");
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(7).says(named);
    given.database.execute("DELETE FROM tenant_globex.settings WHERE value = 'late'");
    given
        .run(&["drop-schema", "--tenant=acme", "--force"])
        .exits(0)
        .prints("the rest of schema tenant_acme");
    assert_eq!(schemas(&given), ["tenant_globex"]);
    given.run(&["doctor"]).exits(0);
}

fn many_tables(given: &Given) {
    let mut sql = String::new();
    for number in 0..120 {
        let _ = write!(sql, "CREATE TABLE tenant_acme.t{number} (id int);");
    }
    given.database.execute(&sql);
}

/// A tenant whose drop takes pieces, and cannot get at its first table.
fn stuck_in_the_middle(given: &Given) -> Holder {
    many_tables(given);
    Holder::of(given, "LOCK TABLE tenant_acme.users IN ACCESS SHARE MODE")
}

#[test]
fn a_drop_killed_in_the_middle_is_shown_and_finished() {
    let given = Given::shop();
    let holder = stuck_in_the_middle(&given);
    let drop = given.spawn(&["drop-schema", "--tenant=acme", "--force", "--lock-timeout=1h"]);
    eventually("the drop has started", || {
        given.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pricesync_dropping_1'")
            == "1"
    });
    drop.signal(Signal::KILL);
    let _ = drop.wait();
    holder.let_go(&given);
    all_have_ended(&given);
    given.run(&["list-tenants"]).exits(0).prints("dropping");
    given.run(&["status"]).exits(0).prints("dropping").prints("drop-schema");
    given.run(&["status", "--tenant=acme"]).exits(7).says("partly dropped");
    given.run(&["shell", "--tenant=acme", "-c", "SELECT 1"]).exits(7).says("partly dropped");
    given.tenant_file("V90__more.sql", "CREATE TABLE more (id int);");
    given
        .run(&["migrate-schemas"])
        .exits(0)
        .counts(Counts { migrated: 1, up_to_date: 1, skipped: 1, ..NONE })
        .says("being dropped");
    given.run(&["doctor"]).exits(11).prints("drop did not finish");
    given.run(&["doctor", "--fix", "missing"]).exits(11).prints("drop did not finish");
    assert_eq!(schemas(&given), ["tenant_globex"], "doctor made nothing");
    given.run(&["create-tenant", "--name", "x", "--slug", "acme"]).exits(7).says("being dropped");
    given
        .run(&["drop-schema", "--tenant=acme", "--force", "--trash"])
        .exits(7)
        .says("partly dropped");
    given
        .run(&["drop-schema", "--tenant=acme", "--force"])
        .exits(0)
        .prints("the rest of schema tenant_acme");
    assert_eq!(rows(&given), ["globex globex.test"]);
    assert_eq!(given.value("SELECT count(*) FROM pg_namespace WHERE nspname ~ 'dropping'"), "0");
    given.run(&["doctor"]).exits(0);
}

#[test]
fn of_two_drops_at_once_neither_fails_for_the_other() {
    let given = Given::shop();
    let drops: Vec<_> =
        (0..3).map(|_| given.spawn(&["drop-schema", "--tenant=acme", "--force"])).collect();
    for drop in drops {
        let code = drop.wait().code();
        assert!(matches!(code, Some(0 | 4)), "{code:?}");
    }
    assert_eq!(rows(&given), ["globex globex.test"]);
    assert_eq!(schemas(&given), ["tenant_globex"]);
}

#[test]
fn a_recreated_tenant_is_not_taken_for_the_confirmed_one() {
    let given = Given::shop();
    let lock =
        format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_acme'::regnamespace::oid::int4)");
    let holder = Holder::of(&given, &lock);
    let late = given.spawn(&["drop-schema", "--tenant=acme", "--force"]);
    eventually("it has asked for the lock", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pricesync' AND datname = current_database() AND query = 'ROLLBACK'") == "1"
    });
    // The row is another one by the time it gets the lock.
    given.database.execute("UPDATE tenants_domain SET tenant_id = 100 WHERE tenant_id = 1; UPDATE tenants_tenant SET id = 100 WHERE id = 1");
    let before = given.dump(&[]);
    holder.let_go(&given);
    late.wait().exits(4).says("acme");
    assert_eq!(given.dump(&[]), before);
}

#[test]
fn a_drop_waits_only_briefly_for_a_shared_table_in_use() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TABLE public.plans (id int PRIMARY KEY); CREATE TABLE tenant_acme.subscribed (plan int REFERENCES public.plans)",
    );
    let before = given.dump(&[]);
    let holder = Holder::of(&given, "SELECT FROM public.plans");
    given
        .run(&["drop-schema", "--tenant=acme", "--force", "--lock-timeout=300ms"])
        .exits(6)
        .says("run the same command again to finish");
    holder.let_go(&given);
    assert_eq!(given.dump(&[]), before);
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(0);
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn an_extension_that_lives_in_the_schema_keeps_it() {
    let given = Given::shop();
    let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'";
    if given.value(available) == "0" {
        eprintln!("skipped: the server has no citext, which its contrib package brings");
        return;
    }
    given.database.execute(
        "CREATE EXTENSION citext SCHEMA tenant_acme; CREATE TABLE tenant_globex.mails (mail tenant_acme.citext)",
    );
    let before = given.dump(&[]);
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(7).says("citext");
    assert_eq!(given.dump(&[]), before);
}

#[test]
fn a_schema_of_3000_tables_with_keys_to_public_goes() {
    let given = Given::shop();
    given.database.execute("CREATE TABLE public.plans (id int PRIMARY KEY)");
    given.database.psql(&[
        "-c",
        "DO $$ BEGIN FOR i IN 1..3000 LOOP \
         EXECUTE format('CREATE TABLE tenant_acme.t%s (id int PRIMARY KEY, note text, plan int %s)', i, CASE WHEN i <= 20 THEN 'REFERENCES public.plans' END); \
         IF i % 300 = 0 THEN COMMIT; END IF; END LOOP; END $$",
    ]);
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(0);
    assert_eq!(schemas(&given), ["tenant_globex"]);
    assert_eq!(rows(&given), ["globex globex.test"]);
    given.run(&["doctor"]).exits(0);
}

#[test]
fn readers_pass_while_a_drop_waits_for_a_shared_table() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TABLE public.plans (id int PRIMARY KEY); CREATE TABLE tenant_acme.subscribed (plan int REFERENCES public.plans)",
    );
    let holder = Holder::of(&given, "SELECT FROM public.plans");
    let drop = given.spawn(&["drop-schema", "--tenant=acme", "--force", "--lock-timeout=1h"]);
    eventually("the drop waits for the shared table", || {
        given.value("SELECT count(*) FROM pg_locks WHERE relation = 'public.plans'::regclass AND NOT granted") == "1"
    });
    // A drop that waited as long as it may would keep these out.
    for _ in 0..5 {
        given.database.execute("SET lock_timeout TO '5min'; SELECT count(*) FROM public.plans");
    }
    holder.let_go(&given);
    drop.wait().exits(0);
    assert_eq!(rows(&given), ["globex globex.test"]);
}

#[test]
fn on_a_terminal_the_slug_must_be_typed() {
    for (typed, code, left) in [
        ("acme", 0, vec!["tenant_globex"]),
        ("globex", 7, vec!["tenant_acme", "tenant_globex"]),
        ("", 7, vec!["tenant_acme", "tenant_globex"]),
        ("yes", 7, vec!["tenant_acme", "tenant_globex"]),
    ] {
        let given = Given::shop();
        let mut terminal = OnTerminal::start(&given, &["drop-schema", "--tenant=acme"]);
        terminal.shows("the question", |screen| {
            screen.contains("permanently")
                && screen.contains("acme.test")
                && screen.contains("type")
        });
        terminal.types(typed);
        let (exit, screen) = terminal.ends();
        assert_eq!(exit, code, "{screen}");
        assert_eq!(schemas(&given), left, "{screen}");
    }
}

#[test]
fn a_tenant_replaced_during_the_prompt_keeps_row_and_hosts() {
    for args in [
        &["rename-tenant", "--tenant=acme", "--slug=acme2"][..],
        &["drop-schema", "--tenant=acme", "--trash", "--force"],
    ] {
        let given = Given::shop();
        let mut terminal = OnTerminal::start(&given, &["drop-schema", "--tenant=acme"]);
        terminal.shows("the question", |screen| screen.contains("type"));
        given.run(args).exits(0);
        let before = given.dump(&[]);
        terminal.types("acme");
        let (exit, screen) = terminal.ends();
        assert_eq!(exit, 4, "{screen}");
        assert!(!screen.contains("Dropped"), "{screen}");
        assert_eq!(given.dump(&[]), before, "{args:?}");
    }
}

#[test]
fn a_tenant_without_a_slug_is_named_by_its_schema() {
    let given = Given::shop();
    given.database.execute(
        "ALTER TABLE tenants_tenant ALTER slug DROP NOT NULL; \
         UPDATE tenants_tenant SET slug = NULL WHERE slug = 'acme'; UPDATE tenants_tenant SET slug = '' WHERE slug = 'globex'",
    );
    for word in ["", " "] {
        given.run(&["drop-schema", "--force", "--tenant", word]).exits(4);
    }
    assert_eq!(
        given.run(&["list-tenants", "-o", "names"]).stdout(),
        "tenant_acme\ntenant_globex\n"
    );
    let mut terminal = OnTerminal::start(&given, &["drop-schema", "--tenant=acme.test"]);
    terminal.shows("the question", |screen| screen.contains("type 'tenant_acme' to confirm"));
    terminal.types("");
    assert_eq!(terminal.ends().0, 7);
    given.run(&["rename-tenant", "--tenant=tenant_acme", "--name=New"]).exits(0);
    given.run(&["rename-tenant", "--tenant=globex.test", "--schema=other"]).exits(0);
    assert_eq!(
        given.column("SELECT coalesce(slug, 'NULL') || ' ' || schema_name || ' ' || name FROM tenants_tenant ORDER BY id"),
        ["NULL tenant_acme New", " other globex"]
    );
    given.run(&["rename-tenant", "--tenant=other", "--slug=globex"]).exits(0);
    given.run(&["drop-schema", "--tenant=tenant_acme", "--force"]).exits(0);
    assert_eq!(rows(&given), ["globex globex.test"]);
}

/// A trigger as applications write them: its names are looked up where the application's are.
pub(crate) const AUDIT: &str = "CREATE TABLE audit_log (what text, isolation text, at text); \
     CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     INSERT INTO audit_log VALUES (TG_OP || ' ' || TG_TABLE_NAME, current_setting('transaction_isolation')); RETURN NULL; END $$; \
     CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON tenants_tenant FOR EACH ROW EXECUTE FUNCTION audit(); \
     CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON tenants_domain DEFERRABLE INITIALLY DEFERRED \
     FOR EACH ROW EXECUTE FUNCTION audit()";

#[test]
fn triggers_of_the_tenant_tables_find_what_they_name() {
    let given = Given::shop();
    many_tables(&given);
    given.database.execute(AUDIT);
    given.database.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation TO serializable', current_database()); END $$",
    );
    let globex = |args: &[&str]| {
        given.run(&[args, &["--tenant=globex"]].concat()).exits(0);
    };
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(0);
    globex(&["domains", "add", "b.test"]);
    globex(&["domains", "primary", "b.test"]);
    globex(&["domains", "remove", "b.test"]);
    globex(&["rename-tenant", "--name=G"]);
    globex(&["drop-schema", "--trash", "--force"]);
    globex(&["undrop"]);
    assert_eq!(
        given.column("SELECT what || ' ' || count(*) FROM audit_log GROUP BY what ORDER BY 1"),
        [
            "DELETE tenants_domain 3",
            "DELETE tenants_tenant 2",
            "INSERT tenants_domain 2",
            "INSERT tenants_tenant 1",
            "UPDATE tenants_domain 3",
            "UPDATE tenants_tenant 1"
        ]
    );
    assert_eq!(given.column("SELECT DISTINCT isolation FROM audit_log"), ["read committed"]);
    // What a trigger lacks is not said of the tenant tables.
    given.database.execute("DROP TABLE audit_log");
    given
        .run(&["domains", "add", "--tenant=globex", "b.test"])
        .exits(1)
        .says("audit_log")
        .never_says("tenant tables not found");
}

#[test]
fn the_preview_of_a_drop_does_not_wait_for_a_locked_table() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TABLE public.notes (owner bigint REFERENCES tenants_tenant ON DELETE SET NULL); INSERT INTO public.notes VALUES (1)",
    );
    let preview =
        || given.run(&["drop-schema", "--tenant=acme"]).exits(7).says("schema tenant_acme, ");
    preview().says("rows of public.notes refer to it").never_says("a table is locked");
    for table in ["tenant_acme.users", "public.notes"] {
        let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        let holder = Holder::of(&given, &lock);
        preview().says("a table is locked");
        holder.let_go(&given);
    }
}

#[test]
fn a_shared_table_is_retried_for_a_time_not_a_number() {
    let given = Given::shop();
    given.database.execute(
        "CREATE TABLE public.plans (id int PRIMARY KEY); CREATE TABLE tenant_acme.subscribed (plan int REFERENCES public.plans)",
    );
    let holder = Holder::of(&given, "SELECT FROM public.plans");
    let drop = given.spawn_with(
        &["drop-schema", "--tenant=acme", "--force", "--lock-timeout=1h"],
        &[("PRICESYNC_LOCK_RETRIES", "1")],
    );
    let mut since = "-infinity".to_owned();
    for _ in 0..5 {
        // Each attempt has a connection of its own.
        eventually("it asks for the shared table", || {
            given.value(&format!(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                 WHERE relation = 'public.plans'::regclass AND NOT granted AND backend_start > '{since}'"
            )) == "1"
        });
        since = given.value("SELECT clock_timestamp()");
    }
    holder.let_go(&given);
    drop.wait().exits(0).never_says("55P03");
    assert_eq!(rows(&given), ["globex globex.test"]);
}
