//! What the commands that only read print.

use snapbox::{IntoData, assert_data_eq, str};

use crate::support::pricesync::Given;
use crate::support::sessions::{CLASS, Holder};
use crate::support::transcript::transcript;

#[test]
fn list_tenants_in_every_shape() {
    let given = Given::shipped();
    let shown = transcript(&given, &["list-tenants"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync list-tenants
--- stderr
error: tenant tables not found: relation "public.tenants_tenant" does not exist (42P01)
  hint: create the shared tables first: pricesync migrate-schemas --shared
--- exit 4


"#]]
        .raw()
    );
    given.run(&["migrate-schemas"]).exits(0);
    let shown = transcript(&given, &["list-tenants"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync list-tenants
--- stderr
no tenants
--- exit 0


"#]]
        .raw()
    );
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "list-tenants",
            "list-tenants -o json",
            "list-tenants -o csv",
            "list-tenants -o names",
            "list-tenants --pending",
            "list-tenants --tenant none",
            "list-tenants --trashed",
            "list-tenants -o none",
        ],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync list-tenants
--- stdout
┌─┬─┬─┬─┬─┬─┬─┬─┬─┐
│ id ┆ name ┆ slug ┆ schema ┆ domains ┆ version ┆ pending ┆ state ┆ created │
╞═╪═╪═╪═╪═╪═╪═╪═╪═╡
│ 1 ┆ acme ┆ acme ┆ tenant_acme ┆ acme.test ┆ 8 ┆ 0 ┆ up to date ┆ [MOMENT] │
│ 2 ┆ globex ┆ globex ┆ tenant_globex ┆ globex.test ┆ 8 ┆ 0 ┆ up to date ┆ [MOMENT] │
└─┴─┴─┴─┴─┴─┴─┴─┴─┘
--- exit 0

$ pricesync list-tenants -o json
--- stdout
[
  {"id":1,"name":"acme","slug":"acme","schema":"tenant_acme","domains":["acme.test"],"version":8,"pending":0,"state":"up to date","created":"[MOMENT]"},
  {"id":2,"name":"globex","slug":"globex","schema":"tenant_globex","domains":["globex.test"],"version":8,"pending":0,"state":"up to date","created":"[MOMENT]"}
]
--- exit 0

$ pricesync list-tenants -o csv
--- stdout
id,name,slug,schema,domains,version,pending,state,created
1,acme,acme,tenant_acme,acme.test,8,0,up to date,[MOMENT]
2,globex,globex,tenant_globex,globex.test,8,0,up to date,[MOMENT]
--- exit 0

$ pricesync list-tenants -o names
--- stdout
acme
globex
--- exit 0

$ pricesync list-tenants --pending
--- stderr
no tenants
--- exit 0

$ pricesync list-tenants --tenant none
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync list-tenants --trashed
--- stderr
the trash is empty
--- exit 0

$ pricesync list-tenants -o none
--- stderr
error: invalid value 'none' for '--output <FORMAT>'
  [possible values: table, json, csv, names]

For more information, try '--help'.
--- exit 2


"#]].raw());
}

#[test]
fn status_of_the_fleet_and_of_one_tenant() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    let shown = transcript(&given, &["status", "status --verify"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync status
--- stdout
┌────────┬─────────┬────────────┬─────────┬──────────────┬────────┐
│ set    ┆ version ┆ state      ┆ schemas ┆ which        ┆ reason │
╞════════╪═════════╪════════════╪═════════╪══════════════╪════════╡
│ shared ┆       1 ┆ up to date ┆       1 ┆ public       ┆ -      │
│ tenant ┆ -       ┆ 1 pending  ┆       2 ┆ acme, globex ┆ -      │
└────────┴─────────┴────────────┴─────────┴──────────────┴────────┘
--- stderr
1 migration in public, 1 migration for 2 tenants
--- exit 0

$ pricesync status --verify
--- stdout
┌────────┬─────────┬────────────┬─────────┬──────────────┬────────┐
│ set    ┆ version ┆ state      ┆ schemas ┆ which        ┆ reason │
╞════════╪═════════╪════════════╪═════════╪══════════════╪════════╡
│ shared ┆       1 ┆ up to date ┆       1 ┆ public       ┆ -      │
│ tenant ┆ -       ┆ 1 pending  ┆       2 ┆ acme, globex ┆ -      │
└────────┴─────────┴────────────┴─────────┴──────────────┴────────┘
--- stderr
1 migration in public, 1 migration for 2 tenants
--- exit 0


"#]]
        .raw()
    );
    given.run(&["migrate-schemas", "--tenant", "acme"]).exits(0);
    let shown = transcript(
        &given,
        &[
            "status",
            "status -o json",
            "status --verify",
            "status --tenant acme",
            "status --tenant globex",
            "status --shared",
            "status --tenant none",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync status
--- stdout
┌────────┬─────────┬────────────┬─────────┬────────┬────────┐
│ set    ┆ version ┆ state      ┆ schemas ┆ which  ┆ reason │
╞════════╪═════════╪════════════╪═════════╪════════╪════════╡
│ shared ┆       1 ┆ up to date ┆       1 ┆ public ┆ -      │
│ tenant ┆       1 ┆ up to date ┆       1 ┆ acme   ┆ -      │
│ tenant ┆ -       ┆ 1 pending  ┆       1 ┆ globex ┆ -      │
└────────┴─────────┴────────────┴─────────┴────────┴────────┘
--- stderr
1 migration in public, 1 migration for 2 tenants
--- exit 0

$ pricesync status -o json
--- stdout
[
  {"set":"shared","version":1,"state":"up to date","schemas":1,"which":["public"],"reason":null},
  {"set":"tenant","version":1,"state":"up to date","schemas":1,"which":["acme"],"reason":null},
  {"set":"tenant","version":null,"state":"1 pending","schemas":1,"which":["globex"],"reason":null}
]
--- stderr
1 migration in public, 1 migration for 2 tenants
--- exit 0

$ pricesync status --verify
--- stdout
┌────────┬─────────┬────────────┬─────────┬────────┬────────┐
│ set    ┆ version ┆ state      ┆ schemas ┆ which  ┆ reason │
╞════════╪═════════╪════════════╪═════════╪════════╪════════╡
│ shared ┆       1 ┆ up to date ┆       1 ┆ public ┆ -      │
│ tenant ┆       1 ┆ up to date ┆       1 ┆ acme   ┆ -      │
│ tenant ┆ -       ┆ 1 pending  ┆       1 ┆ globex ┆ -      │
└────────┴─────────┴────────────┴─────────┴────────┴────────┘
--- stderr
1 migration in public, 1 migration for 2 tenants
--- exit 0

$ pricesync status --tenant acme
--- stdout
┌─┬─┬─┬─┐
│ version ┆ migration ┆ state ┆ applied │
╞═╪═╪═╪═╡
│ 1 ┆ V1__products ┆ applied ┆ [MOMENT] │
└─┴─┴─┴─┘
--- exit 0

$ pricesync status --tenant globex
--- stdout
┌─────────┬──────────────┬─────────┬─────────┐
│ version ┆ migration    ┆ state   ┆ applied │
╞═════════╪══════════════╪═════════╪═════════╡
│       1 ┆ V1__products ┆ pending ┆ -       │
└─────────┴──────────────┴─────────┴─────────┘
--- exit 0

$ pricesync status --shared
--- stdout
┌─┬─┬─┬─┐
│ version ┆ migration ┆ state ┆ applied │
╞═╪═╪═╪═╡
│ 1 ┆ V1__tenants ┆ applied ┆ [MOMENT] │
└─┴─┴─┴─┘
--- exit 0

$ pricesync status --tenant none
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4


"#]]
        .raw()
    );
}

#[test]
fn status_reports_a_ledger_that_is_wrong() {
    let given = Given::shop();
    given.database.execute("DELETE FROM tenant_acme.refinery_schema_history WHERE version > 1");
    let shown = transcript(
        &given,
        &["status --verify", "doctor", "doctor --fix ledger", "status --verify"],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync status --verify
--- stdout
┌────────┬─────────┬────────────┬─────────┬────────┬────────┐
│ set    ┆ version ┆ state      ┆ schemas ┆ which  ┆ reason │
╞════════╪═════════╪════════════╪═════════╪════════╪════════╡
│ shared ┆       4 ┆ up to date ┆       1 ┆ public ┆ -      │
│ tenant ┆       8 ┆ up to date ┆       1 ┆ globex ┆ -      │
│ tenant ┆       1 ┆ 7 pending  ┆       1 ┆ acme   ┆ -      │
└────────┴─────────┴────────────┴─────────┴────────┴────────┘
--- stderr
4 migrations in public, 8 migrations for 2 tenants
warning: tenant_acme: the ledger disagrees with its history
warning: rebuild the ledger: pricesync doctor --fix ledger
--- exit 11

$ pricesync doctor
--- stdout
┌─────────────┬────────┬───────────────────────────────────────┐
│ schema      ┆ tenant ┆ finding                               │
╞═════════════╪════════╪═══════════════════════════════════════╡
│ tenant_acme ┆ acme   ┆ the ledger disagrees with its history │
└─────────────┴────────┴───────────────────────────────────────┘
--- exit 11

$ pricesync doctor --fix ledger
--- stdout
┌─────────────┬────────┬────────────────────────────────────────────────┐
│ schema      ┆ tenant ┆ finding                                        │
╞═════════════╪════════╪════════════════════════════════════════════════╡
│ tenant_acme ┆ acme   ┆ the ledger disagreed with its history; rebuilt │
└─────────────┴────────┴────────────────────────────────────────────────┘
--- stderr
the ledger covers 3 schemas
--- exit 0

$ pricesync status --verify
--- stdout
┌────────┬─────────┬────────────┬─────────┬────────┬────────┐
│ set    ┆ version ┆ state      ┆ schemas ┆ which  ┆ reason │
╞════════╪═════════╪════════════╪═════════╪════════╪════════╡
│ shared ┆       4 ┆ up to date ┆       1 ┆ public ┆ -      │
│ tenant ┆       8 ┆ up to date ┆       1 ┆ globex ┆ -      │
│ tenant ┆       1 ┆ 7 pending  ┆       1 ┆ acme   ┆ -      │
└────────┴─────────┴────────────┴─────────┴────────┴────────┘
--- stderr
4 migrations in public, 8 migrations for 2 tenants
--- exit 0


"#]]
        .raw()
    );
}

#[test]
fn runs_lists_and_shows() {
    let given = Given::nothing();
    let shown = transcript(&given, &["runs"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync runs
--- stderr
no runs
--- exit 0


"#]]
        .raw()
    );
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__bad.sql", "SELECT 1/0;\n");
    given.run(&["migrate-schemas"]).exits(10);
    let shown = transcript(
        &given,
        &["runs", "runs show 2", "runs show 3", "runs show 99", "runs -o names"],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync runs
--- stdout
┌─┬─┬─┬─┬─┬─┬─┬─┬─┬─┬─┐
│ run ┆ started ┆ took ┆ schemas ┆ migrated ┆ up to date ┆ failed ┆ skipped ┆ not started ┆ by ┆ command │
╞═╪═╪═╪═╪═╪═╪═╪═╪═╪═╪═╡
│ 3 ┆ [MOMENT] ┆ [TIME] ┆ 2 ┆ 0 ┆ 1 ┆ 1 ┆ 0 ┆ 0 ┆ [USER], process [PID] ┆ pricesync migrate-schemas │
│ 2 ┆ [MOMENT] ┆ [TIME] ┆ 2 ┆ 1 ┆ 1 ┆ 0 ┆ 0 ┆ 0 ┆ [USER], process [PID] ┆ pricesync migrate-schemas │
│ 1 ┆ [MOMENT] ┆ [TIME] ┆ 1 ┆ 1 ┆ 0 ┆ 0 ┆ 0 ┆ 0 ┆ [USER], process [PID] ┆ pricesync migrate-schemas --shared │
└─┴─┴─┴─┴─┴─┴─┴─┴─┴─┴─┘
--- exit 0

$ pricesync runs show 2
--- stdout
┌─┬─┬─┬─┬─┬─┐
│ schema ┆ tenant ┆ outcome ┆ scripts ┆ ms ┆ reason │
╞═╪═╪═╪═╪═╪═╡
│ tenant_acme ┆ acme ┆ migrated ┆ 1 ┆ [..] ┆ - │
└─┴─┴─┴─┴─┴─┘
--- stderr
run 2, [MOMENT], by [USER], process [PID]: pricesync migrate-schemas
2 schemas: 1 migrated, 1 up to date, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync runs show 3
--- stdout
┌─────────────┬────────┬─────────┬─────────┬────┬───────────────────────────────────────────────────────────────────────────────┐
│ schema      ┆ tenant ┆ outcome ┆ scripts ┆ ms ┆ reason                                                                        │
╞═════════════╪════════╪═════════╪═════════╪════╪═══════════════════════════════════════════════════════════════════════════════╡
│ tenant_acme ┆ acme   ┆ failed  ┆       0 ┆ -  ┆ V2__bad failed at migrations/tenant/V2__bad.sql:1:1: division by zero (22012) │
└─────────────┴────────┴─────────┴─────────┴────┴───────────────────────────────────────────────────────────────────────────────┘
--- stderr
run 3, [MOMENT], by [USER], process [PID]: pricesync migrate-schemas
2 schemas: 0 migrated, 1 up to date, 1 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync runs show 99
--- stderr
error: no run 99
  hint: list the runs: pricesync runs
--- exit 4

$ pricesync runs -o names
--- stdout
3
2
1
--- exit 0


"#]].raw());
}

#[test]
fn drift_compares_tenants() {
    let given = Given::shop();
    let shown = transcript(&given, &["drift -j 1"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync drift -j 1
--- stdout
┌─┬─┬─┬─┐
│ version ┆ shape ┆ schemas ┆ which │
╞═╪═╪═╪═╡
│ 8 ┆ [..] ┆ 2 ┆ acme, globex │
└─┴─┴─┴─┘
--- stderr
✓ [1/2] tenant_acme [TIME]
✓ [2/2] tenant_globex [TIME]
2 schemas: 2 compared, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0


"#]]
        .raw()
    );
    given.database.execute("ALTER TABLE tenant_globex.products ADD note text");
    let shown = transcript(&given, &["drift -j 1", "drift -j 1 -o names", "drift --tenant none"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync drift -j 1
--- stdout
┌─┬─┬─┬─┐
│ version ┆ shape ┆ schemas ┆ which │
╞═╪═╪═╪═╡
│ 8 ┆ [..] ┆ 1 ┆ acme │
│ 8 ┆ [..] ┆ 1 ┆ globex │
└─┴─┴─┴─┘

[DIGEST] (1 schema) differs from [DIGEST]:
  + column products 10 note text collation="default" storage=x
--- stderr
✓ [1/2] tenant_acme [TIME]
✓ [2/2] tenant_globex [TIME]
2 schemas: 2 compared, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 11

$ pricesync drift -j 1 -o names
--- stdout
globex
--- stderr
✓ [1/2] tenant_acme [TIME]
✓ [2/2] tenant_globex [TIME]
2 schemas: 2 compared, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 11

$ pricesync drift --tenant none
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4


"#]]
        .raw()
    );
}

#[test]
fn doctor_finds_what_is_missing() {
    let given = Given::shop();
    let shown = transcript(&given, &["doctor"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync doctor
--- stderr
nothing found
--- exit 0


"#]]
        .raw()
    );
    given.database.execute("DROP SCHEMA tenant_acme CASCADE; CREATE SCHEMA tenant_stray; CREATE TABLE tenant_stray.products (id int); CREATE SCHEMA tenant_empty");
    let shown = transcript(
        &given,
        &[
            "doctor",
            "doctor -o json",
            "doctor --fix missing",
            "doctor --fix orphans 'tenant_*'",
            "doctor --fix none",
        ],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync doctor
--- stdout
┌──────────────┬────────┬───────────────────────────────────────────────────────────────────────────────────────┐
│ schema       ┆ tenant ┆ finding                                                                               │
╞══════════════╪════════╪═══════════════════════════════════════════════════════════════════════════════════════╡
│ tenant_acme  ┆ acme   ┆ the schema does not exist                                                             │
│ tenant_empty ┆ -      ┆ named like a tenant's schema, but no tenant has it, and it holds nothing a tenant has │
│ tenant_stray ┆ -      ┆ looks like a tenant's schema, but no tenant has it                                    │
└──────────────┴────────┴───────────────────────────────────────────────────────────────────────────────────────┘
--- exit 11

$ pricesync doctor -o json
--- stdout
[
  {"schema":"tenant_acme","tenant":"acme","finding":"the schema does not exist"},
  {"schema":"tenant_empty","tenant":null,"finding":"named like a tenant's schema, but no tenant has it, and it holds nothing a tenant has"},
  {"schema":"tenant_stray","tenant":null,"finding":"looks like a tenant's schema, but no tenant has it"}
]
--- exit 11

$ pricesync doctor --fix missing
--- stdout
┌──────────────┬────────┬───────────────────────────────────────────────────────────────────────────────────────┐
│ schema       ┆ tenant ┆ finding                                                                               │
╞══════════════╪════════╪═══════════════════════════════════════════════════════════════════════════════════════╡
│ tenant_acme  ┆ acme   ┆ the schema was missing; created, empty                                                │
│ tenant_empty ┆ -      ┆ named like a tenant's schema, but no tenant has it, and it holds nothing a tenant has │
│ tenant_stray ┆ -      ┆ looks like a tenant's schema, but no tenant has it                                    │
└──────────────┴────────┴───────────────────────────────────────────────────────────────────────────────────────┘
--- stderr
1 schema created; next: pricesync migrate-schemas
--- exit 11

$ pricesync doctor --fix orphans 'tenant_*'
--- stdout
┌──────────────┬────────┬───────────────────────────────────────────────────────────────────────────────────────────────────────┐
│ schema       ┆ tenant ┆ finding                                                                                               │
╞══════════════╪════════╪═══════════════════════════════════════════════════════════════════════════════════════════════════════╡
│ tenant_empty ┆ -      ┆ named like a tenant's schema, but no tenant has it, and it holds nothing a tenant has; not registered │
│ tenant_stray ┆ stray  ┆ registered as a tenant, without a host                                                                │
└──────────────┴────────┴───────────────────────────────────────────────────────────────────────────────────────────────────────┘
--- stderr
1 tenant registered, 1 of all findings remain; next: pricesync migrate-schemas
--- exit 11

$ pricesync doctor --fix none
--- stderr
error: invalid value 'none' for '--fix <WHAT>'
  [possible values: missing, ledger, orphans]

For more information, try '--help'.
--- exit 2


"#]].raw());
}

#[test]
fn locks_shows_who_holds_a_schema() {
    let given = Given::shop();
    let shown = transcript(&given, &["locks"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync locks
--- stderr
no schema is locked
--- exit 0


"#]]
        .raw()
    );
    let lock =
        format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_acme'::regnamespace::oid::int4)");
    let holder = Holder::of(&given, &lock);
    let shown = transcript(&given, &["locks"]);
    assert_data_eq!(shown, str![[r#"
$ pricesync locks
--- stdout
┌─┬─┬─┬─┬─┬─┬─┬─┬─┐
│ schema ┆ pid ┆ application ┆ client ┆ since ┆ seconds ┆ state ┆ query ┆ waiting │
╞═╪═╪═╪═╪═╪═╪═╪═╪═╡
│ tenant_acme ┆ [..] ┆ the-holder ┆ local ┆ [MOMENT] ┆ [..] ┆ active ┆ BEGIN; SELECT pg_advisory_xact_lock(1886615918, 'tenant_acme'::regnamespace::oid::int4); CREATE TEMP TABLE held (); SELECT pg_sleep(36000) ┆ - │
└─┴─┴─┴─┴─┴─┴─┴─┴─┘
--- exit 0


"#]].raw());
    holder.let_go(&given);
}

#[test]
fn no_server_is_the_same_error_everywhere() {
    let given = Given::nothing();
    let shown = transcript(
        &given,
        &[
            "migrate-schemas -d postgresql://app@127.0.0.1:1/saas",
            "create-tenant --slug a --name A -d postgresql://app@127.0.0.1:1/saas",
            "list-tenants -d postgresql://app@127.0.0.1:1/saas",
            "drop-schema --tenant a --force -d postgresql://app@127.0.0.1:1/saas",
            "rename-tenant --tenant a --slug b -d postgresql://app@127.0.0.1:1/saas",
            "clone-tenant --from a --slug b -d postgresql://app@127.0.0.1:1/saas",
            "backup --all --out b -d postgresql://app@127.0.0.1:1/saas",
            "purge --all --force -d postgresql://app@127.0.0.1:1/saas",
            "undrop --tenant a -d postgresql://app@127.0.0.1:1/saas",
            "shell --tenant a -c 'SELECT 1' -d postgresql://app@127.0.0.1:1/saas",
            "exec --all -c 'SELECT 1' -d postgresql://app@127.0.0.1:1/saas",
            "env --tenant a -d postgresql://app@127.0.0.1:1/saas",
            "status -d postgresql://app@127.0.0.1:1/saas",
            "baseline --to 1 -d postgresql://app@127.0.0.1:1/saas",
            "runs -d postgresql://app@127.0.0.1:1/saas",
            "lint --fleet -d postgresql://app@127.0.0.1:1/saas",
            "drift -d postgresql://app@127.0.0.1:1/saas",
            "doctor -d postgresql://app@127.0.0.1:1/saas",
            "locks -d postgresql://app@127.0.0.1:1/saas",
            "domains list -d postgresql://app@127.0.0.1:1/saas",
            "resolve a.test -d postgresql://app@127.0.0.1:1/saas",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync migrate-schemas -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync create-tenant --slug a --name A -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync list-tenants -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync drop-schema --tenant a --force -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync rename-tenant --tenant a --slug b -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync clone-tenant --from a --slug b -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync backup --all --out b -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync purge --all --force -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync undrop --tenant a -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync shell --tenant a -c 'SELECT 1' -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync exec --all -c 'SELECT 1' -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync env --tenant a -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync status -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync baseline --to 1 -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: no migration has version 1
--- exit 2

$ pricesync runs -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync lint --fleet -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync drift -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync doctor -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync locks -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync domains list -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5

$ pricesync resolve a.test -d postgresql://app@127.0.0.1:1/saas
--- stderr
error: cannot connect to app@127.0.0.1:1/saas
  caused by: error connecting to server: Connection refused
  hint: check that the server runs, or wait for it with --wait
  hint: show where the address comes from: pricesync config
--- exit 5


"#]]
        .raw()
    );
}
