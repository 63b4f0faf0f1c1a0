//! What the commands that apply, check and write migrations print.

use snapbox::{IntoData, assert_data_eq, str};

use crate::support::pricesync::Given;
use crate::support::sessions::Holder;
use crate::support::transcript::transcript;

#[test]
fn migrate_schemas_succeeds_and_has_nothing_to_do() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    let shown = transcript(
        &given,
        &[
            "migrate-schemas --check",
            "migrate-schemas --dry-run",
            "migrate-schemas --dry-run=sql",
            "migrate-schemas --dry-run=execute --jobs 1",
            "migrate-schemas --jobs 1",
            "migrate-schemas --jobs 1",
            "migrate-schemas --check",
            "migrate-schemas --tenant acme -o json",
        ],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync migrate-schemas --check
--- stderr
3 schemas: 2 with pending migrations, 0 out of sync
--- exit 3

$ pricesync migrate-schemas --dry-run
--- stdout
┌───────────────┬──────────────┬────────────────────────────────────┐
│ schema        ┆ migration    ┆ file                               │
╞═══════════════╪══════════════╪════════════════════════════════════╡
│ tenant_acme   ┆ V1__products ┆ migrations/tenant/V1__products.sql │
│ tenant_globex ┆ V1__products ┆ migrations/tenant/V1__products.sql │
└───────────────┴──────────────┴────────────────────────────────────┘
--- exit 0

$ pricesync migrate-schemas --dry-run=sql
--- stdout
-- schema tenant_acme
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL search_path TO "tenant_acme", "public";
SET LOCAL lock_timeout TO 2000;
SET LOCAL statement_timeout TO 0;
SET LOCAL idle_in_transaction_session_timeout TO '5min';
SET LOCAL standard_conforming_strings TO on;
SET LOCAL client_min_messages TO notice;
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
SET LOCAL client_connection_check_interval TO '2s';
SET LOCAL max_parallel_maintenance_workers TO 0;
CREATE TABLE IF NOT EXISTS "tenant_acme"."refinery_schema_history"(
             version int8 PRIMARY KEY,
             name VARCHAR(255),
             applied_on VARCHAR(255),
             checksum VARCHAR(255));

-- migrations/tenant/V1__products.sql
INSERT INTO "tenant_acme"."refinery_schema_history" (version, name, applied_on, checksum) VALUES (1, 'products', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '17445425761040848805');

CREATE TABLE products (id int);

COMMIT;

-- schema tenant_globex
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL search_path TO "tenant_globex", "public";
SET LOCAL lock_timeout TO 2000;
SET LOCAL statement_timeout TO 0;
SET LOCAL idle_in_transaction_session_timeout TO '5min';
SET LOCAL standard_conforming_strings TO on;
SET LOCAL client_min_messages TO notice;
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
SET LOCAL client_connection_check_interval TO '2s';
SET LOCAL max_parallel_maintenance_workers TO 0;
CREATE TABLE IF NOT EXISTS "tenant_globex"."refinery_schema_history"(
             version int8 PRIMARY KEY,
             name VARCHAR(255),
             applied_on VARCHAR(255),
             checksum VARCHAR(255));

-- migrations/tenant/V1__products.sql
INSERT INTO "tenant_globex"."refinery_schema_history" (version, name, applied_on, checksum) VALUES (1, 'products', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '17445425761040848805');

CREATE TABLE products (id int);

COMMIT;

--- exit 0

$ pricesync migrate-schemas --dry-run=execute --jobs 1
--- stdout
┌─┬─┬─┬─┬─┬─┬─┬─┬─┐
│ migration ┆ line ┆ statement ┆ schemas ┆ median ┆ slowest ┆ in ┆ locks ┆ rewrites │
╞═╪═╪═╪═╪═╪═╪═╪═╪═╡
│ V1__products ┆ 1 ┆ CREATE TABLE products (id int); ┆ 2 ┆ [TIME] ┆ [..] ┆ [..] ┆ - ┆ - │
└─┴─┴─┴─┴─┴─┴─┴─┴─┘
--- stderr
[1/2] Running migrations for schema 'tenant_acme'...
✓ Tried V1__products [TIME]
✓ Done
[2/2] Running migrations for schema 'tenant_globex'...
✓ Tried V1__products [TIME]
✓ Done
3 schemas: 2 tried, 1 up to date, 0 failed, 0 skipped, 0 not started · [TIME] · all rolled back
--- exit 0

$ pricesync migrate-schemas --jobs 1
--- stderr
[1/2] Running migrations for schema 'tenant_acme'...
✓ Migrated V1__products [TIME]
✓ Done
[2/2] Running migrations for schema 'tenant_globex'...
✓ Migrated V1__products [TIME]
✓ Done
run 2: 3 schemas, 2 migrated, 1 up to date, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync migrate-schemas --jobs 1
--- stderr
3 schemas: 0 migrated, 3 up to date, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync migrate-schemas --check
--- stderr
3 schemas: 0 with pending migrations, 0 out of sync
--- exit 0

$ pricesync migrate-schemas --tenant acme -o json
--- stdout
{
  "v": 1,
  "counts": {
    "migrated": 0,
    "up-to-date": 1,
    "failed": 0,
    "skipped": 0,
    "not-started": 0
  },
  "took": [TIME],
  "interrupted": "none",
  "schemas": [
    {
      "schema": "tenant_acme",
      "tenant": "acme",
      "outcome": "up-to-date"
    }
  ],
  "failures": []
}
--- stderr
1 schema: 0 migrated, 1 up to date, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0


"#]].raw());
}

#[test]
fn migrate_schemas_refuses_what_it_does_not_know() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    let shown = transcript(
        &given,
        &[
            "migrate-schemas --tenant none",
            "migrate-schemas --tenants acme",
            "migrate-schemas --jobs none",
            "migrate-schemas --to 7",
            "migrate-schemas --where 'missing = 1'",
            "migrate-schemas --from-file none",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync migrate-schemas --tenant none
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4

$ pricesync migrate-schemas --tenants acme
--- stderr
error: unexpected argument '--tenants' found

  tip: a similar argument exists: '--tenant'

Usage: pricesync migrate-schemas --tenant <TENANT>

For more information, try '--help'.
--- exit 2

$ pricesync migrate-schemas --jobs none
--- stderr
error: --jobs: run.jobs = 'none' is invalid: expected 'auto' or a number from 1 to 1000
--- exit 2

$ pricesync migrate-schemas --to 7
--- stderr
error: no migration has version 7
  hint: the newest version is 1
--- exit 2

$ pricesync migrate-schemas --where 'missing = 1'
--- stderr
error: the server rejects --where
  1 | missing = 1
    | ^
  caused by: column "missing" does not exist (42703)
--- exit 2

$ pricesync migrate-schemas --from-file none
--- stderr
error: cannot read none
  caused by: No such file or directory
--- exit 2


"#]]
        .raw()
    );
}

#[test]
fn migrate_schemas_reports_a_file_that_fails() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    given.tenant_file(
        "V2__bad.sql",
        "ALTER TABLE products ADD price int;\nINSERT INTO prices VALUES (1);\n",
    );
    let shown = transcript(
        &given,
        &[
            "migrate-schemas --jobs 1",
            "migrate-schemas --jobs 1 --on-failure continue",
            "migrate-schemas --jobs 1 --on-failure continue --progress json",
            "migrate-schemas --jobs 1 --retry-failed -o json",
        ],
    );
    assert_data_eq!(shown, str![[r#"
$ pricesync migrate-schemas --jobs 1
--- stderr
[1/2] Running migrations for schema 'tenant_acme'...
✗ FAILED V2__bad
error: tenant_acme: V2__bad failed at migrations/tenant/V2__bad.sql:2:13
  2 | INSERT INTO prices VALUES (1);
    | ^
  caused by: relation "prices" does not exist (42P01)
  hint: no CREATE TABLE or CREATE VIEW in the migration files creates it; check the name
  hint: names were looked up in tenant_acme, then in [run] search_path; nothing of this run stays in tenant_acme, fix the file or the data and rerun with --tenant=acme
1 schema not started (an earlier schema failed; --on-failure=continue runs the rest): tenant_globex
continue with the rest: pricesync migrate-schemas --jobs 1
run 2: 3 schemas, 0 migrated, 1 up to date, 1 failed, 0 skipped, 1 not started · [TIME]
--- exit 10

$ pricesync migrate-schemas --jobs 1 --on-failure continue
--- stderr
[1/2] Running migrations for schema 'tenant_acme'...
✗ FAILED V2__bad
error: tenant_acme: V2__bad failed at migrations/tenant/V2__bad.sql:2:13
  2 | INSERT INTO prices VALUES (1);
    | ^
  caused by: relation "prices" does not exist (42P01)
  hint: no CREATE TABLE or CREATE VIEW in the migration files creates it; check the name
  hint: names were looked up in tenant_acme, then in [run] search_path; nothing of this run stays in tenant_acme, fix the file or the data and rerun with --tenant=acme
[2/2] Running migrations for schema 'tenant_globex'...
✗ FAILED V2__bad
error: tenant_globex: V2__bad failed at migrations/tenant/V2__bad.sql:2:13
  caused by: relation "prices" does not exist (42P01)
error: V2__bad failed at migrations/tenant/V2__bad.sql:2:13: relation "prices" does not exist (42P01)
  2 schemas: tenant_acme, tenant_globex
retry the failed schemas: pricesync migrate-schemas --on-failure continue --tenant=acme,globex
run 3: 3 schemas, 0 migrated, 1 up to date, 2 failed, 0 skipped, 0 not started · [TIME]
--- exit 10

$ pricesync migrate-schemas --jobs 1 --on-failure continue --progress json
--- stderr
{"v":1,"t":[TIME],"event":"run-started","schemas":3,"pending":2,"jobs":1}
{"v":1,"t":[TIME],"event":"schema-started","schema":"tenant_acme","tenant":"acme","number":1,"of":2}
{"v":1,"t":[TIME],"event":"script-started","schema":"tenant_acme","tenant":"acme","version":1,"name":"products"}
{"v":1,"t":[TIME],"event":"script-started","schema":"tenant_acme","tenant":"acme","version":2,"name":"bad"}
{"v":1,"t":[TIME],"event":"script-finished","schema":"tenant_acme","tenant":"acme","version":1,"name":"products","took":[TIME]}
{"v":1,"t":[TIME],"event":"schema-finished","schema":"tenant_acme","tenant":"acme","outcome":"failed","error":{"kind":"script","script":{"version":2,"name":"bad"},"file":"migrations/tenant/V2__bad.sql","place":{"line":2,"column":13,"text":"INSERT INTO prices VALUES (1);"},"error":{"sqlstate":"42P01","message":"relation \"prices\" does not exist","defined_in":"no-file"},"blockers":[],"attempts":1,"rolled_back":true},"applied":[],"message":"V2__bad failed at migrations/tenant/V2__bad.sql:2:13: relation \"prices\" does not exist (42P01)"}
{"v":1,"t":[TIME],"event":"schema-started","schema":"tenant_globex","tenant":"globex","number":2,"of":2}
{"v":1,"t":[TIME],"event":"script-started","schema":"tenant_globex","tenant":"globex","version":1,"name":"products"}
{"v":1,"t":[TIME],"event":"script-started","schema":"tenant_globex","tenant":"globex","version":2,"name":"bad"}
{"v":1,"t":[TIME],"event":"script-finished","schema":"tenant_globex","tenant":"globex","version":1,"name":"products","took":[TIME]}
{"v":1,"t":[TIME],"event":"schema-finished","schema":"tenant_globex","tenant":"globex","outcome":"failed","error":{"kind":"script","script":{"version":2,"name":"bad"},"file":"migrations/tenant/V2__bad.sql","place":{"line":2,"column":13,"text":"INSERT INTO prices VALUES (1);"},"error":{"sqlstate":"42P01","message":"relation \"prices\" does not exist","defined_in":"no-file"},"blockers":[],"attempts":1,"rolled_back":true},"applied":[],"message":"V2__bad failed at migrations/tenant/V2__bad.sql:2:13: relation \"prices\" does not exist (42P01)"}
{"v":1,"t":[TIME],"event":"run-finished","run":4,"counts":{"migrated":0,"up-to-date":1,"failed":2,"skipped":0,"not-started":0},"took":[TIME],"interrupted":"none"}
--- exit 10

$ pricesync migrate-schemas --jobs 1 --retry-failed -o json
--- stdout
{
  "v": 1,
  "run": 5,
  "counts": {
    "migrated": 0,
    "up-to-date": 0,
    "failed": 1,
    "skipped": 0,
    "not-started": 1
  },
  "took": [TIME],
  "interrupted": "none",
  "schemas": [
    {
      "schema": "tenant_acme",
      "tenant": "acme",
      "outcome": "failed",
      "error": {
        "kind": "script",
        "script": {
          "version": 2,
          "name": "bad"
        },
        "file": "migrations/tenant/V2__bad.sql",
        "place": {
          "line": 2,
          "column": 13,
          "text": "INSERT INTO prices VALUES (1);"
        },
        "error": {
          "sqlstate": "42P01",
          "message": "relation \"prices\" does not exist",
          "defined_in": "no-file"
        },
        "blockers": [],
        "attempts": 1,
        "rolled_back": true
      },
      "applied": [],
      "message": "V2__bad failed at migrations/tenant/V2__bad.sql:2:13: relation \"prices\" does not exist (42P01)"
    },
    {
      "schema": "tenant_globex",
      "tenant": "globex",
      "outcome": "not-started",
      "why": "earlier-failure"
    }
  ],
  "failures": [
    {
      "message": "V2__bad failed at migrations/tenant/V2__bad.sql:2:13: relation \"prices\" does not exist (42P01)",
      "error": {
        "kind": "script",
        "script": {
          "version": 2,
          "name": "bad"
        },
        "file": "migrations/tenant/V2__bad.sql",
        "place": {
          "line": 2,
          "column": 13,
          "text": "INSERT INTO prices VALUES (1);"
        },
        "error": {
          "sqlstate": "42P01",
          "message": "relation \"prices\" does not exist",
          "defined_in": "no-file"
        },
        "blockers": [],
        "attempts": 1,
        "rolled_back": true
      },
      "schemas": [
        "tenant_acme"
      ]
    }
  ]
}
--- stderr
[1/2] Running migrations for schema 'tenant_acme'...
✗ FAILED V2__bad
error: tenant_acme: V2__bad failed at migrations/tenant/V2__bad.sql:2:13
  2 | INSERT INTO prices VALUES (1);
    | ^
  caused by: relation "prices" does not exist (42P01)
  hint: no CREATE TABLE or CREATE VIEW in the migration files creates it; check the name
  hint: names were looked up in tenant_acme, then in [run] search_path; nothing of this run stays in tenant_acme, fix the file or the data and rerun with --tenant=acme
1 schema not started (an earlier schema failed; --on-failure=continue runs the rest): tenant_globex
continue with the rest: pricesync migrate-schemas --jobs 1 --retry-failed -o json
run 5: 2 schemas, 0 migrated, 0 up to date, 1 failed, 0 skipped, 1 not started · [TIME]
--- exit 10


"#]].raw());
}

#[test]
fn migrate_schemas_refuses_files_that_changed() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id bigint);\n");
    let shown = transcript(&given, &["migrate-schemas", "migrate-schemas --check"]);
    assert_data_eq!(shown, str![[r#"
$ pricesync migrate-schemas
--- stderr
✗ FAILED
error: tenant_acme: files and history disagree, nothing was run
  caused by: V1__products.sql was edited after it had been applied
  hint: restore the file as it was applied and put the change into a new one: pricesync make-migration
✗ FAILED
error: tenant_globex: files and history disagree, nothing was run
  caused by: V1__products.sql was edited after it had been applied
error: files and history disagree, nothing was run: V1__products.sql was edited after it had been applied
  2 schemas: tenant_acme, tenant_globex
retry the failed schemas: pricesync migrate-schemas --tenant=acme,globex
run 3: 3 schemas, 0 migrated, 1 up to date, 2 failed, 0 skipped, 0 not started · [TIME]
--- exit 11

$ pricesync migrate-schemas --check
--- stderr
warning: tenant_acme: V1__products.sql was edited after it had been applied
warning: tenant_globex: V1__products.sql was edited after it had been applied
3 schemas: 0 with pending migrations, 2 out of sync
--- exit 11


"#]].raw());
}

#[test]
fn migrate_schemas_refuses_forbidden_statements() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    given.tenant_file("V2__commit.sql", "COMMIT;\n");
    given.tenant_file("V3__wrong-name.sql", "SELECT 1;\n");
    given.tenant_file("4.sql", "SELECT 1;\n");
    let shown = transcript(&given, &["migrate-schemas --jobs 1"]);
    assert_data_eq!(shown, str![[r#"
$ pricesync migrate-schemas --jobs 1
--- stderr
error: 3 problems in the migration files
  caused by: migrations/tenant/V2__commit.sql:1:1: COMMIT is not allowed in a migration: it would end the transaction that applies the file
  caused by: migrations/tenant/V3__wrong-name.sql: invalid file name: '-' is not a letter, digit or underscore
  caused by: migrations/tenant/4.sql: invalid file name: must begin with an upper-case V or U
  hint: remove it: pricesync commits the file together with its history row
  hint: rename it to V3__wrong_name.sql
  hint: name it V<version>__<name>.sql, or move it out of the folder
  hint: nothing was changed; the database was not contacted
--- exit 2


"#]].raw());
}

#[test]
fn migrate_schemas_names_what_was_touched_outside() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    given.database.execute("CREATE TABLE plans (id int)");
    given.tenant_file("V2__outside.sql", "INSERT INTO public.plans VALUES (1);\n");
    let shown = transcript(&given, &["migrate-schemas --jobs 1"]);
    assert_data_eq!(shown, str![[r#"
$ pricesync migrate-schemas --jobs 1
--- stderr
error: migrations/tenant/V2__outside.sql:1:1: the tenant set must not change objects of a named schema, here 'public'
  hint: write the bare name: the server looks it up in the tenant's own schema first
  hint: nothing was changed; the database was not contacted
--- exit 2


"#]].raw());
}

#[test]
fn migrate_schemas_names_who_holds_a_lock() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    given.run(&["migrate-schemas"]).exits(0);
    given.tenant_file("V2__more.sql", "ALTER TABLE products ADD price int;\n");
    given.file("pricesync.toml", "[run]\nlock_retries = 1\n");
    let holder = Holder::of(&given, "LOCK TABLE tenant_acme.products IN ACCESS SHARE MODE");
    let shown = transcript(&given, &["migrate-schemas --jobs 1 --lock-timeout 3s"]);
    assert_data_eq!(shown, str![[r#"
$ pricesync migrate-schemas --jobs 1 --lock-timeout 3s
--- stderr
[1/2] Running migrations for schema 'tenant_acme'...
tenant_acme: waiting for lock, [TIME] so far, held by pid [PID] (the-holder) from local, for [TIME]
tenant_acme: attempt 1 of 2 failed, next in [TIME]: canceling statement due to lock timeout (55P03); blocked by pid [PID] (the-holder) from local, for [TIME]: BEGIN; LOCK TABLE tenant_acme.products IN ACCESS SHARE MODE; CREATE TEMP TABLE …
tenant_acme: waiting for lock, [TIME] so far, held by pid [PID] (the-holder) from local, for [TIME]
✗ FAILED V2__more
error: tenant_acme: V2__more failed at migrations/tenant/V2__more.sql:1:1
  1 | ALTER TABLE products ADD price int;
    | ^
  caused by: canceling statement due to lock timeout (55P03)
  detail: blocked by pid [PID] (the-holder) from local, for [TIME]: BEGIN; LOCK TABLE tenant_acme.products IN ACCESS SHARE MODE; CREATE TEMP TABLE …
  detail: gave up after 2 attempts
  hint: nothing of this run stays in tenant_acme, wait for the blocking session or raise --lock-timeout and rerun with --tenant=acme
1 schema not started (an earlier schema failed; --on-failure=continue runs the rest): tenant_globex
continue with the rest: pricesync migrate-schemas --jobs 1 --lock-timeout 3s
waited [TIME] for locks in 1 schema, most often for pid [PID] (the-holder)
run 3: 3 schemas, 0 migrated, 1 up to date, 1 failed, 0 skipped, 1 not started · [TIME]
--- exit 10


"#]].raw());
    holder.let_go(&given);
}

#[test]
fn baseline_records_what_is_there() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    given.database.execute("CREATE TABLE tenant_acme.products (id int)");
    let shown = transcript(
        &given,
        &[
            "baseline --to 1 --dry-run",
            "baseline --to 1",
            "baseline --to 1",
            "baseline --to 9",
            "baseline --to 1 --tenant none",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync baseline --to 1 --dry-run
--- stdout
┌─────────────┬───────────────────────────────┐
│ schema      ┆ baseline                      │
╞═════════════╪═══════════════════════════════╡
│ tenant_acme ┆ 1 migration would be recorded │
└─────────────┴───────────────────────────────┘
--- exit 0

$ pricesync baseline --to 1
--- stderr
[1/1] Recording migrations in schema 'tenant_acme'...
✓ Recorded V1__products [TIME]
✓ Done
run 2: 1 schema, 1 recorded, 0 up to date, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync baseline --to 1
--- stderr
1 schema: 0 recorded, 1 up to date, 0 failed, 0 skipped, 0 not started · [TIME]
--- exit 0

$ pricesync baseline --to 9
--- stderr
error: no migration has version 9
  hint: the newest version is 1
--- exit 2

$ pricesync baseline --to 1 --tenant none
--- stderr
error: no tenant has the slug, schema or host 'none'
  hint: list the tenants: pricesync list-tenants
--- exit 4


"#]]
        .raw()
    );
}

#[test]
fn baseline_refuses_a_schema_that_differs() {
    let given = Given::tenants(&["acme"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    let shown = transcript(&given, &["baseline --to 1"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync baseline --to 1
--- stderr
[1/1] Recording migrations in schema 'tenant_acme'...
✗ FAILED
error: tenant_acme: the schema lacks objects that the migrations create, nothing was recorded
  caused by: it lacks table products
  hint: choose a lower --to, or skip this check with --unchecked
run 2: 1 schema, 0 recorded, 0 up to date, 1 failed, 0 skipped, 0 not started · [TIME]
--- exit 10


"#]]
        .raw()
    );
}

#[test]
fn lint_reports_what_locks() {
    let given = Given::tenants(&["acme", "globex"]);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    let shown = transcript(&given, &["lint"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync lint
--- stderr
nothing found
--- exit 0


"#]]
        .raw()
    );
    given.tenant_file("V2__slow.sql", "ALTER TABLE products ADD CONSTRAINT positive CHECK (id > 0);\nCREATE INDEX products_id ON products (id);\n");
    let shown = transcript(&given, &["lint", "lint --deny hint", "lint -o json", "lint none.sql"]);
    assert_data_eq!(shown, str![[r#"
$ pricesync lint
--- stdout
migrations/tenant/V2__slow.sql:1:22: warning: CHECK on products is checked against every row under a lock [constraint-scan]
  1 | ALTER TABLE products ADD CONSTRAINT positive CHECK (id > 0);
    |                      ^
  cost: the table cannot be read or written until COMMIT
  safer: ADD CONSTRAINT ... CHECK ... NOT VALID, then VALIDATE CONSTRAINT in a file that begins with '-- pricesync: no-transaction'

migrations/tenant/V2__slow.sql:2:1: warning: the index on products is built under a lock against writes [index-without-concurrently]
  2 | CREATE INDEX products_id ON products (id);
    | ^
  cost: INSERT, UPDATE and DELETE on the table wait until COMMIT
  safer: CREATE INDEX CONCURRENTLY, in a file that begins with '-- pricesync: no-transaction'
--- stderr
2 findings: 0 errors, 2 warnings, 0 hints
--- exit 0

$ pricesync lint --deny hint
--- stdout
migrations/tenant/V2__slow.sql:1:22: warning: CHECK on products is checked against every row under a lock [constraint-scan]
  1 | ALTER TABLE products ADD CONSTRAINT positive CHECK (id > 0);
    |                      ^
  cost: the table cannot be read or written until COMMIT
  safer: ADD CONSTRAINT ... CHECK ... NOT VALID, then VALIDATE CONSTRAINT in a file that begins with '-- pricesync: no-transaction'

migrations/tenant/V2__slow.sql:2:1: warning: the index on products is built under a lock against writes [index-without-concurrently]
  2 | CREATE INDEX products_id ON products (id);
    | ^
  cost: INSERT, UPDATE and DELETE on the table wait until COMMIT
  safer: CREATE INDEX CONCURRENTLY, in a file that begins with '-- pricesync: no-transaction'
--- stderr
2 findings: 0 errors, 2 warnings, 0 hints
--- exit 2

$ pricesync lint -o json
--- stdout
{
  "v": 1,
  "counts": {
    "error": 0,
    "warning": 2,
    "hint": 0
  },
  "no_template": null,
  "findings": [
    {
      "file": "migrations/tenant/V2__slow.sql",
      "line": 1,
      "column": 22,
      "set": "tenant",
      "rule": "constraint-scan",
      "severity": "warning",
      "message": "CHECK on products is checked against every row under a lock",
      "cost": "the table cannot be read or written until COMMIT",
      "forecast": null,
      "safer": "ADD CONSTRAINT ... CHECK ... NOT VALID, then VALIDATE CONSTRAINT in a file that begins with '-- pricesync: no-transaction'"
    },
    {
      "file": "migrations/tenant/V2__slow.sql",
      "line": 2,
      "column": 1,
      "set": "tenant",
      "rule": "index-without-concurrently",
      "severity": "warning",
      "message": "the index on products is built under a lock against writes",
      "cost": "INSERT, UPDATE and DELETE on the table wait until COMMIT",
      "forecast": null,
      "safer": "CREATE INDEX CONCURRENTLY, in a file that begins with '-- pricesync: no-transaction'"
    }
  ]
}
--- stderr
2 findings: 0 errors, 2 warnings, 0 hints
--- exit 0

$ pricesync lint none.sql
--- stderr
error: none.sql is not a migration of either set
  hint: show the folders of the sets: pricesync config
--- exit 2


"#]].raw());
}
