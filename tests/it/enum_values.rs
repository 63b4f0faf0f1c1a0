//! A transaction cannot use an enum value that it has added, so it ends before a file that does.

use crate::support::pricesync::{Given, Ran};
use crate::support::sessions::{Holder, wait_for_a_lock};

const TYPE: &str = "CREATE TYPE mood AS ENUM ('calm');\nCREATE TABLE moods (m mood);\n";
const ADD: &str = "ALTER TYPE mood ADD VALUE 'wild';\n";
const USE: &str = "INSERT INTO moods VALUES ('wild');\n";
/// Uses the value without naming it.
const HIDDEN_USE: &str =
    "INSERT INTO moods SELECT e::mood FROM unnest(enum_range(NULL::mood)) e WHERE e > 'calm';\n";
const LATER: &str = "CREATE TABLE later (m mood);\n";

const NEW: [&str; 4] = ["create-tenant", "--name=New", "--slug=new", "--no-template"];

/// A fleet of three tenants with a type, and files that add a value and use it.
fn fleet(uses: &str) -> Given {
    let given = Given::tenants(&["acme", "globex", "initech"]);
    given.tenant_file("V1__type.sql", TYPE);
    given.tenant_file("V2__add.sql", ADD);
    given.tenant_file("V3__use.sql", uses);
    given.tenant_file("V4__later.sql", LATER);
    given
}

/// Returns the rows, labels and history of a tenant.
fn state(given: &Given, tenant: &str) -> Vec<String> {
    let sql = format!(
        "SELECT string_agg(m::text, ',') FROM tenant_{tenant}.moods UNION ALL \
         SELECT enum_range(NULL::tenant_{tenant}.mood)::text UNION ALL \
         SELECT string_agg(version::text, ',' ORDER BY version) FROM tenant_{tenant}.refinery_schema_history"
    );
    given.column(&sql)
}

fn is_complete(given: &Given, tenant: &str) {
    assert_eq!(state(given, tenant), ["wild", "{calm,wild}", "1,2,3,4"], "{tenant}");
}

fn create(given: &Given) -> Ran {
    given.run(&NEW)
}

#[test]
fn fleet_and_new_tenants_get_values_of_any_release() {
    for uses in [USE, HIDDEN_USE] {
        let given = fleet(uses);
        // Release by release, both at once, and with each file in a transaction of its own.
        given.run(&["migrate-schemas", "--tenant=acme", "--to=1"]).exits(0);
        given.run(&["migrate-schemas", "--tenant=acme", "--to=2"]).exits(0);
        given.run(&["migrate-schemas", "--tenant=acme"]).exits(0);
        given.run(&["migrate-schemas", "--tenant=globex", "--to=1"]).exits(0);
        given.file("pricesync.toml", "[run]\natomic = \"migration\"\n");
        given.run(&["migrate-schemas", "--tenant=globex"]).exits(0);
        given.file("pricesync.toml", "");
        given.run(&["migrate-schemas"]).exits(0);
        create(&given).exits(0).prints("4 migrations");
        given.run(&["create-tenant", "--name=By", "--slug=by"]).exits(0);
        given.run(&["create-tenant", "--name=By2", "--slug=by2"]).exits(0);
        given.database.execute("CREATE SCHEMA tenant_old");
        let adopt = ["create-tenant", "--name=Old", "--slug=old", "--adopt"];
        given.run(&adopt).exits(0).prints("4 migrations");
        for tenant in ["acme", "globex", "initech", "new", "by", "by2", "old"] {
            is_complete(&given, tenant);
        }
        given.run(&["drift"]).exits(0);
        given.run(&["doctor"]).exits(0);
    }
}

#[test]
fn a_fleet_that_missed_a_release_is_migrated_in_groups() {
    let given = fleet(USE);
    given.run(&["migrate-schemas", "--to=1"]).exits(0);
    given.file("pricesync.toml", "[run]\njobs = 1\ngroup_size = 8\ngroup_time = \"10s\"\n");
    given.run(&["migrate-schemas"]).exits(0);
    for tenant in ["acme", "globex", "initech"] {
        is_complete(&given, tenant);
    }
}

#[test]
fn a_file_that_uses_its_own_value_leaves_nothing_of_the_run() {
    let given = fleet("CREATE TABLE unrelated (wild text);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V5__more.sql", "CREATE TABLE more (id int);\n");
    given.tenant_file(
        "V6__both.sql",
        "ALTER TYPE mood ADD VALUE 'it''s odd'; INSERT INTO moods VALUES ('it''s odd');\n",
    );
    given.run(&["migrate-schemas", "--tenant=acme"]).exits(10).says("55P04");
    assert_eq!(given.history("tenant_acme"), ["1", "2", "3", "4"]);
}

#[test]
fn what_was_committed_before_a_failure_is_dropped_again() {
    let given = fleet(USE);
    given.run(&["migrate-schemas"]).exits(0);
    let before = given.dump(&[]);
    given.tenant_file("V5__fails.sql", "SELECT 1/0;\n");
    create(&given).exits(10).says("V5__fails failed").says("division by zero");
    given.tenant_file("V5__fails.sql", "-- pricesync: no-transaction\nSELECT 1/0;\n");
    create(&given).exits(10).says("V5__fails failed");
    assert_eq!(given.dump(&[]), before);
    given.remove_tenant_file("V5__fails.sql");
    create(&given).exits(0);
    is_complete(&given, "new");
}

#[test]
fn a_killed_creation_is_named_and_finished_by_the_same_command() {
    let given = fleet(USE);
    given.database.execute("CREATE TABLE public.rates (id int PRIMARY KEY)");
    given.tenant_file("V4__later.sql", "CREATE TABLE later (id int REFERENCES public.rates);\n");
    given.run(&["migrate-schemas"]).exits(0);
    let holder = Holder::of(&given, "LOCK TABLE public.rates IN EXCLUSIVE MODE");
    let run = given.spawn(&NEW);
    wait_for_a_lock(&given, 1);
    run.signal(rustix::process::Signal::KILL);
    let _ = run.wait();
    holder.let_go(&given);
    let tenants = "SELECT count(*) FROM public.tenants_tenant WHERE slug = 'new'";
    assert_eq!(given.value(tenants), "0");
    given.run(&["doctor"]).exits(11).prints("create-tenant has not finished");
    given.run(&["doctor", "--fix=orphans", "tenant_new"]).exits(4);
    given.run(&[&NEW[..], &["--no-migrate"]].concat()).exits(7).says("tenant_new");
    create(&given).exits(0);
    is_complete(&given, "new");
    given.run(&["doctor"]).exits(0);
    assert_eq!(given.value("SELECT obj_description('tenant_new'::regnamespace) IS NULL"), "t");
}

#[test]
fn an_interrupted_creation_drops_what_it_committed() {
    let given = fleet(USE);
    given.database.execute("CREATE TABLE public.rates (id int PRIMARY KEY)");
    given.tenant_file("V4__later.sql", "CREATE TABLE later (id int REFERENCES public.rates);\n");
    given.run(&["migrate-schemas"]).exits(0);
    let before = given.dump(&[]);
    let holder = Holder::of(&given, "LOCK TABLE public.rates IN EXCLUSIVE MODE");
    let run = given.spawn(&NEW);
    wait_for_a_lock(&given, 1);
    run.signal(rustix::process::Signal::INT);
    run.wait().exits(130);
    holder.let_go(&given);
    assert_eq!(given.dump(&[]), before);
    given.run(&["doctor"]).exits(0);
}

#[test]
fn of_two_creations_at_once_one_succeeds() {
    let given = fleet(USE);
    given.run(&["migrate-schemas"]).exits(0);
    let runs = [given.spawn(&NEW), given.spawn(&NEW)];
    let mut codes = runs.map(|run| run.wait().code());
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(7)]);
    is_complete(&given, "new");
    given.run(&["doctor"]).exits(0);
}

#[test]
fn a_dry_run_stops_before_the_use_and_says_so() {
    let given = fleet(USE);
    given.run(&["migrate-schemas", "--to=1"]).exits(0);
    given
        .run(&["migrate-schemas", "--dry-run=execute"])
        .exits(0)
        .prints("V2__add")
        .says("not tried: V3__use and 1 later file");
    assert_eq!(given.history("tenant_acme"), ["1"]);
}

#[test]
fn a_schema_that_is_half_dropped_is_never_continued() {
    let given = fleet(USE);
    given.run(&["migrate-schemas"]).exits(0);
    given.run(&["create-tenant", "--name=New", "--slug=new", "--no-template"]).exits(0);
    // As a process leaves it that was killed while it dropped a large schema.
    given.database.execute(
        "DELETE FROM public.tenants_tenant WHERE slug = 'new'; DROP TABLE tenant_new.moods; \
         COMMENT ON SCHEMA tenant_new IS 'pricesync: create-tenant failed, and its schema is being dropped'",
    );
    given.run(&["doctor"]).exits(11).prints("create-tenant has not finished");
    given.run(&[&NEW[..], &["--adopt"]].concat()).exits(7).says("partly dropped");
    create(&given).exits(0);
    is_complete(&given, "new");
}

#[test]
fn a_baseline_says_why_it_does_not_compare() {
    let given = fleet(USE);
    given.run(&["migrate-schemas"]).exits(0);
    given.database.execute("DROP TABLE tenant_acme.refinery_schema_history");
    given
        .run(&["baseline", "--tenant=acme", "--to=4"])
        .exits(0)
        .says("V3__use uses an enum value of an earlier file");
    given.run(&["migrate-schemas", "--check"]).exits(0);
}
