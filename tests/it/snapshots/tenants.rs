//! What the commands that create, change and remove tenants print.

use snapbox::{IntoData, assert_data_eq, str};

use crate::support::pricesync::Given;
use crate::support::transcript::transcript;

#[test]
fn create_tenant_creates_and_refuses() {
    let given = Given::shipped();
    let shown = transcript(&given, &["create-tenant --slug acme --name Acme"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync create-tenant --slug acme --name Acme
--- stderr
error: tenant tables not found: relation "public.tenants_tenant" does not exist (42P01)
  hint: create the shared tables first: pricesync migrate-schemas --shared
--- exit 4


"#]]
        .raw()
    );
    given.run(&["migrate-schemas"]).exits(0);
    let shown = transcript(
        &given,
        &[
            "create-tenant --slug acme --name 'Acme Inc.' --domain acme.test",
            "create-tenant --slug acme --name Acme",
            "create-tenant --slug acme --name Acme --if-not-exists",
            "create-tenant --slug 'No Slug' --name Acme",
            "create-tenant --slug globex --name Globex --domain acme.test",
            "create-tenant --slug globex",
            "create-tenant --slug hooli --name Hooli --adopt",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync create-tenant --slug acme --name 'Acme Inc.' --domain acme.test
--- stdout
✓ Tenant created: Acme Inc. (slug=acme, schema=tenant_acme)
✓ 8 migrations, [TIME]
--- exit 0

$ pricesync create-tenant --slug acme --name Acme
--- stderr
error: slug 'acme' is taken by tenant 'acme' (Acme Inc.)
  hint: choose another --slug; names that differ in case only count as the same
--- exit 7

$ pricesync create-tenant --slug acme --name Acme --if-not-exists
--- stderr
tenant 'acme' already exists (schema=tenant_acme)
--- exit 0

$ pricesync create-tenant --slug 'No Slug' --name Acme
--- stderr
error: slug 'No Slug' may not hold 'N' there: use a-z, 0-9, '_' and '-', a letter or digit first
--- exit 7

$ pricesync create-tenant --slug globex --name Globex --domain acme.test
--- stderr
error: host 'acme.test' is taken by tenant 'acme'
  hint: choose another --domain; a host belongs to one tenant
--- exit 7

$ pricesync create-tenant --slug globex
--- stderr
error: the following required arguments were not provided:
  --name <NAME>

Usage: pricesync create-tenant --name <NAME> --slug <SLUG>

For more information, try '--help'.
--- exit 2

$ pricesync create-tenant --slug hooli --name Hooli --adopt
--- stderr
error: schema 'tenant_hooli' does not exist
--- exit 4


"#]]
        .raw()
    );
}

#[test]
fn create_tenant_reports_a_file_that_fails() {
    let given = Given::shop();
    given.tenant_file("V900__bad.sql", "SELECT 1/0;\n");
    let shown = transcript(&given, &["create-tenant --slug hooli --name Hooli"]);
    assert_data_eq!(shown, str![[r#"
$ pricesync create-tenant --slug hooli --name Hooli
--- stderr
error: tenant_hooli: V900__bad failed at migrations/tenant/V900__bad.sql:1:1
  1 | SELECT 1/0;
    | ^
  caused by: division by zero (22012)
  hint: nothing of this run stays in tenant_hooli, fix the file or the data and run the same command again
--- exit 10


"#]].raw());
}

#[test]
fn drop_schema_drops_and_refuses() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "drop-schema --tenant acme",
            "drop-schema --tenant none --force",
            "drop-schema --force",
            "drop-schema --tenant acme --force",
            "drop-schema --tenant acme --force",
        ],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync drop-schema --tenant acme
--- stderr
error: refusing to drop tenant 'acme' without confirmation: stdin is not a terminal
  hint: this permanently drops tenant 'acme': schema tenant_acme, 5 tables, about 8 rows, [SIZE]; its row and 1 host are deleted: acme.test
  hint: --force skips the confirmation
--- exit 7

$ pricesync drop-schema --tenant none --force
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync drop-schema --force
--- stderr
error: the following required arguments were not provided:
  --tenant <TENANT>

Usage: pricesync drop-schema --tenant <TENANT> --force

For more information, try '--help'.
--- exit 2

$ pricesync drop-schema --tenant acme --force
--- stdout
✓ Dropped tenant 'acme': schema tenant_acme, 5 tables, about 8 rows, [SIZE]
--- exit 0

$ pricesync drop-schema --tenant acme --force
--- stderr
error: no tenant has the slug, schema or host 'acme'
  hint: list the tenants: pricesync list-tenants
--- exit 4


"#]].raw());
}

#[test]
fn drop_schema_refuses_what_others_need() {
    let given = Given::shop();
    given.database.execute("CREATE VIEW public.seen AS SELECT * FROM tenant_acme.products");
    let shown = transcript(&given, &["drop-schema --tenant acme --force"]);
    assert_data_eq!(shown, str![[r#"
$ pricesync drop-schema --tenant acme --force
--- stderr
error: objects outside the schema depend on it: view public.seen
  hint: dropping the schema would drop them too; drop or move them first, or drop them too with --cascade-outside
--- exit 7


"#]].raw());
}

#[test]
fn trash_undrop_and_purge() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "undrop --tenant acme",
            "purge --all --force",
            "drop-schema --tenant acme --force --trash",
            "list-tenants --trashed",
            "undrop --tenant none",
            "undrop --tenant acme",
            "drop-schema --tenant acme --force --trash",
            "purge --all",
            "purge --tenant none --force",
            "purge --tenant acme --force",
            "purge",
        ],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync undrop --tenant acme
--- stderr
error: no tenant in the trash has the slug or schema 'acme'
  hint: list the trash: pricesync list-tenants --trashed
--- exit 4

$ pricesync purge --all --force
--- stderr
nothing to purge
--- exit 0

$ pricesync drop-schema --tenant acme --force --trash
--- stdout
✓ Moved to the trash: tenant 'acme': schema tenant_acme, 5 tables, about 8 rows, [SIZE]
--- stderr
restore it: pricesync undrop --tenant acme
--- exit 0

$ pricesync list-tenants --trashed
--- stdout
┌─┬─┬─┬─┬─┬─┬─┬─┬─┬─┐
│ slug ┆ name ┆ schema ┆ domains ┆ trash ┆ tables ┆ bytes ┆ state ┆ trashed ┆ by │
╞═╪═╪═╪═╪═╪═╪═╪═╪═╪═╡
│ acme ┆ acme ┆ tenant_acme ┆ acme.test ┆ pricesync_trash_1 ┆ 5 ┆ [..] ┆ whole ┆ [MOMENT] ┆ postgres │
└─┴─┴─┴─┴─┴─┴─┴─┴─┴─┘
--- exit 0

$ pricesync undrop --tenant none
--- stderr
error: no tenant in the trash has the slug or schema 'none'
  hint: list the trash: pricesync list-tenants --trashed
--- exit 4

$ pricesync undrop --tenant acme
--- stdout
✓ Restored: acme (slug=acme, schema=tenant_acme, 1 host)
--- exit 0

$ pricesync drop-schema --tenant acme --force --trash
--- stdout
✓ Moved to the trash: tenant 'acme': schema tenant_acme, 5 tables, about 8 rows, [SIZE]
--- stderr
restore it: pricesync undrop --tenant acme
--- exit 0

$ pricesync purge --all
--- stderr
error: refusing to purge tenant 'acme' without confirmation: stdin is not a terminal
  hint: this permanently drops: tenant 'acme': schema tenant_acme (pricesync_trash_2), 5 tables, about 8 rows, [SIZE], in the trash since [MOMENT]
  hint: --force skips the confirmation
--- exit 7

$ pricesync purge --tenant none --force
--- stderr
error: no tenant in the trash has the slug or schema 'none'
  hint: list the trash: pricesync list-tenants --trashed
--- exit 4

$ pricesync purge --tenant acme --force
--- stdout
✓ Purged tenant 'acme': schema tenant_acme (pricesync_trash_2), 5 tables, about 8 rows, [SIZE], in the trash since [MOMENT]
--- exit 0

$ pricesync purge
--- stderr
error: the following required arguments were not provided:
  <--tenant <TENANT>|--older-than <TIME>|--all>

Usage: pricesync purge <--tenant <TENANT>|--older-than <TIME>|--all>

For more information, try '--help'.
--- exit 2


"#]].raw());
}

#[test]
fn rename_tenant_renames_and_refuses() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "rename-tenant --tenant none --slug other",
            "rename-tenant --tenant acme",
            "rename-tenant --tenant acme --slug globex",
            "rename-tenant --tenant acme --slug acme2 --name 'Acme 2'",
            "rename-tenant --tenant acme2 --slug acme2",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync rename-tenant --tenant none --slug other
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync rename-tenant --tenant acme
--- stderr
error: nothing to change: use --slug, --name or --schema
--- exit 2

$ pricesync rename-tenant --tenant acme --slug globex
--- stderr
error: slug 'globex' is taken by tenant 'globex' (globex)
  hint: choose another --slug; names that differ in case only count as the same
--- exit 7

$ pricesync rename-tenant --tenant acme --slug acme2 --name 'Acme 2'
--- stdout
✓ Tenant renamed: Acme 2 (slug=acme2, schema=tenant_acme2)
--- stderr
was slug=acme, schema=tenant_acme; change programs with the old schema in their search_path
--- exit 0

$ pricesync rename-tenant --tenant acme2 --slug acme2
--- stderr
tenant 'acme2' already has these names
--- exit 0


"#]]
        .raw()
    );
}

#[test]
fn clone_tenant_copies_and_refuses() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "clone-tenant --from none --slug copy",
            "clone-tenant --from acme --slug globex",
            "clone-tenant --from acme --slug copy",
            "clone-tenant --from acme --slug empty --schema-only",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync clone-tenant --from none --slug copy
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync clone-tenant --from acme --slug globex
--- stderr
error: slug 'globex' is taken by tenant 'globex' (globex)
  hint: choose another --slug; names that differ in case only count as the same
  hint: nothing was changed
--- exit 7

$ pricesync clone-tenant --from acme --slug copy
--- stdout
✓ Tenant copied: acme (slug=copy, schema=tenant_copy) from acme: 5 tables, 8 rows, [TIME]
--- exit 0

$ pricesync clone-tenant --from acme --slug empty --schema-only
--- stdout
✓ Tenant copied: acme (slug=empty, schema=tenant_empty) from acme: 1 table, 8 rows, [TIME]
--- exit 0


"#]]
        .raw()
    );
}

#[test]
fn domains_lists_adds_and_removes() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "domains list",
            "domains add --tenant acme www.acme.test",
            "domains add --tenant globex www.acme.test",
            "domains add --tenant none x.test",
            "domains primary --tenant acme www.acme.test",
            "domains list -o json",
            "domains remove --tenant acme acme.test",
            "domains remove --tenant acme acme.test",
            "domains remove --tenant acme 'not a host'",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync domains list
--- stdout
┌────────┬─────────────┬─────────┬─────────┐
│ tenant ┆ domain      ┆ unicode ┆ primary │
╞════════╪═════════════╪═════════╪═════════╡
│ acme   ┆ acme.test   ┆ -       ┆ yes     │
│ globex ┆ globex.test ┆ -       ┆ yes     │
└────────┴─────────────┴─────────┴─────────┘
--- exit 0

$ pricesync domains add --tenant acme www.acme.test
--- stdout
✓ Domain added: www.acme.test (tenant=acme)
--- exit 0

$ pricesync domains add --tenant globex www.acme.test
--- stderr
error: host 'www.acme.test' is taken by tenant 'acme'
  hint: choose another --domain; a host belongs to one tenant
--- exit 7

$ pricesync domains add --tenant none x.test
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync domains primary --tenant acme www.acme.test
--- stdout
✓ Primary domain: www.acme.test (tenant=acme)
--- exit 0

$ pricesync domains list -o json
--- stdout
[
  {"tenant":"acme","domain":"www.acme.test","unicode":null,"primary":true},
  {"tenant":"acme","domain":"acme.test","unicode":null,"primary":false},
  {"tenant":"globex","domain":"globex.test","unicode":null,"primary":true}
]
--- exit 0

$ pricesync domains remove --tenant acme acme.test
--- stdout
✓ Domain removed: acme.test (tenant=acme)
--- exit 0

$ pricesync domains remove --tenant acme acme.test
--- stderr
error: tenant 'acme' has no host 'acme.test'
  hint: list the domains: pricesync domains list
--- exit 4

$ pricesync domains remove --tenant acme 'not a host'
--- stderr
error: host 'not a host' may not hold ' '
--- exit 7


"#]]
        .raw()
    );
}

#[test]
fn resolve_answers_with_the_tenant() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "resolve acme.test",
            "resolve acme.test --explain",
            "resolve acme.test:80 -o json",
            "resolve none.test",
            "resolve 'not a host'",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync resolve acme.test
--- stdout
┌───────────┬──────┬─────────────┐
│ host      ┆ slug ┆ schema      │
╞═══════════╪══════╪═════════════╡
│ acme.test ┆ acme ┆ tenant_acme │
└───────────┴──────┴─────────────┘
--- exit 0

$ pricesync resolve acme.test --explain
--- stdout
┌───────────────────┬─────────────┐
│ step              ┆ gives       │
╞═══════════════════╪═════════════╡
│ host              ┆ acme.test   │
│ without port      ┆ acme.test   │
│ without final dot ┆ acme.test   │
│ lower case        ┆ acme.test   │
│ ASCII (IDNA)      ┆ acme.test   │
│ lookup            ┆ found       │
│ tenant            ┆ acme        │
│ schema            ┆ tenant_acme │
└───────────────────┴─────────────┘
--- exit 0

$ pricesync resolve acme.test:80 -o json
--- stdout
[
  {"host":"acme.test","slug":"acme","schema":"tenant_acme"}
]
--- exit 0

$ pricesync resolve none.test
--- stderr
error: no tenant has the slug, schema or host 'none.test'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync resolve 'not a host'
--- stderr
error: host 'not a host' may not hold ' '
--- exit 2


"#]]
        .raw()
    );
}

#[test]
fn create_superuser_requires_a_password() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "create-superuser --tenant acme --username ana",
            "create-superuser --tenant none --username ana --password-stdin",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync create-superuser --tenant acme --username ana
--- stderr
error: cannot prompt for the password: stdin is not a terminal
  hint: read it from a file: pricesync create-superuser ... --password-stdin < FILE
--- exit 2

$ pricesync create-superuser --tenant none --username ana --password-stdin
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4


"#]]
        .raw()
    );
}

#[test]
fn shell_exec_and_env_work_as_one_tenant() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "shell --tenant acme -c 'SELECT current_schema()'",
            "shell --tenant none -c 'SELECT 1'",
            "shell --tenant acme -c 'SELECT 1/0'",
            "env --tenant acme",
            "env --tenant none",
        ],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync shell --tenant acme -c 'SELECT current_schema()'
--- stdout
 current_schema 
----------------
 tenant_acme
(1 row)

--- exit 0

$ pricesync shell --tenant none -c 'SELECT 1'
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync shell --tenant acme -c 'SELECT 1/0'
--- stderr
ERROR:  division by zero
--- exit 1

$ pricesync env --tenant acme
--- stdout
export PGUSER=postgres
export PGDATABASE=[DATABASE]
export PGHOST=[SOCKET]
export PGPORT=5432
export PGAPPNAME=pricesync
export PGSSLMODE=prefer
export DATABASE_URL='postgresql://postgres@/[DATABASE]?host=[SOCKET]&port=5432&sslmode=prefer&options=-c%20search_path%3D%22tenant_acme%22%2C%5C%20%22public%22'
export PGOPTIONS='-c search_path="tenant_acme",\ "public"'
export PRICESYNC_TENANT=acme
export PRICESYNC_SCHEMA=tenant_acme
--- exit 0

$ pricesync env --tenant none
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4


"#]].raw());
}

#[test]
fn exec_prints_rows_and_refuses() {
    let given = Given::shop();
    let shown = transcript(
        &given,
        &[
            "exec --all -j 1 -c 'SELECT count(*) AS products FROM products'",
            "exec --all -j 1 -c 'SELECT 1 AS one' -o json",
            "exec -c 'SELECT 1'",
            "exec --tenant none -c 'SELECT 1'",
            "exec --all -j 1 -c 'SELECT 1/0'",
            "exec --tenant acme -c 'DELETE FROM products'",
            "exec --tenant acme --write -c 'DELETE FROM products'",
            "exec --tenant acme -- false",
            "exec --all",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync exec --all -j 1 -c 'SELECT count(*) AS products FROM products'
--- stdout
┌────────┬──────────┐
│ tenant ┆ products │
╞════════╪══════════╡
│ acme   ┆ 0        │
│ globex ┆ 0        │
└────────┴──────────┘
--- stderr
✓ [1/2] tenant_acme 1 row [TIME]
✓ [2/2] tenant_globex 1 row [TIME]
2 schemas: 2 executed, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync exec --all -j 1 -c 'SELECT 1 AS one' -o json
--- stdout
[
  {"tenant":"acme","one":1},
  {"tenant":"globex","one":1}
]
--- stderr
✓ [1/2] tenant_acme 1 row [TIME]
✓ [2/2] tenant_globex 1 row [TIME]
2 schemas: 2 executed, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync exec -c 'SELECT 1'
--- stderr
error: no tenant is selected
  hint: use --tenant, --from-file, --where, or --all for all tenants
--- exit 2

$ pricesync exec --tenant none -c 'SELECT 1'
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync exec --all -j 1 -c 'SELECT 1/0'
--- stderr
✗ FAILED
error: tenant_acme: the SQL at line 1 failed
  caused by: division by zero (22012)
✗ FAILED
error: tenant_globex: the SQL at line 1 failed
  caused by: division by zero (22012)
error: the SQL at line 1 failed: division by zero (22012)
  2 schemas: tenant_acme, tenant_globex
retry the failed schemas: pricesync exec --tenant=acme,globex ...
2 schemas: 0 executed, 2 failed, 0 skipped, 0 not started · [TIME]
--- exit 10

$ pricesync exec --tenant acme -c 'DELETE FROM products'
--- stderr
✗ FAILED
error: tenant_acme: the SQL at line 1 failed
  caused by: cannot execute DELETE in a read-only transaction (25006)
  hint: exec is read-only; to change rows, add --write
1 schema: 0 executed, 1 failed, 0 skipped, 0 not started · [TIME]
--- exit 10

$ pricesync exec --tenant acme --write -c 'DELETE FROM products'
--- stdout
┌────────┬──────────┐
│ tenant ┆ result   │
╞════════╪══════════╡
│ acme   ┆ DELETE 0 │
└────────┴──────────┘
--- stderr
✓ [1/1] tenant_acme DELETE 0 [TIME]
1 schema: 1 executed, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync exec --tenant acme -- false
--- stderr
✗ FAILED
error: tenant_acme: false failed
  caused by: exit status: 1
1 schema: 0 executed, 1 failed, 0 skipped, 0 not started · [TIME]
--- exit 10

$ pricesync exec --all
--- stderr
error: the following required arguments were not provided:
  <--command <SQL>|--file <FILE>|PROGRAM>

Usage: pricesync exec --all <--command <SQL>|--file <FILE>|PROGRAM>

For more information, try '--help'.
--- exit 2


"#]]
        .raw()
    );
}
