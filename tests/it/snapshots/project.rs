//! What the commands around a project and its configuration print.

use snapbox::{IntoData, assert_data_eq, str};

use crate::support::pricesync::Given;
use crate::support::transcript::transcript;

#[test]
fn init_writes_a_project_once() {
    let given = Given::nothing();
    let shown = transcript(&given, &["init new", "init new"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync init new
--- stdout
written new/pricesync.toml
written new/migrations/shared/README.md
written new/migrations/tenant/README.md
--- stderr
set [database] url and [catalog] tenant_table in pricesync.toml, then run: pricesync list-tenants
--- exit 0

$ pricesync init new
--- stdout
exists  new/pricesync.toml
exists  new/migrations/shared/README.md
exists  new/migrations/tenant/README.md
--- stderr
set [database] url and [catalog] tenant_table in pricesync.toml, then run: pricesync list-tenants
--- exit 0


"#]]
        .raw()
    );
}

#[test]
fn make_migration_prints_the_path() {
    let given = Given::nothing();
    let shown = transcript(
        &given,
        &[
            "make-migration 'add brand'",
            "make-migration 'add brand' --shared --no-transaction",
            "make-migration ''",
            "make-migration 'add prices' --dir none",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync make-migration 'add brand'
--- stdout
migrations/tenant/V1__add_brand.sql
--- exit 0

$ pricesync make-migration 'add brand' --shared --no-transaction
--- stdout
migrations/shared/V1__add_brand.sql
--- stderr
warning: migrations/tenant/V1__add_brand.sql: contains no statement and will be recorded as applied
--- exit 0

$ pricesync make-migration ''
--- stderr
warning: migrations/shared/V1__add_brand.sql: contains no statement and will be recorded as applied
warning: migrations/tenant/V1__add_brand.sql: contains no statement and will be recorded as applied
error: the name '' contains no letter or digit; describe what the migration does
--- exit 2

$ pricesync make-migration 'add prices' --dir none
--- stdout
migrations/tenant/none/V2__add_prices.sql
--- stderr
warning: migrations/shared/V1__add_brand.sql: contains no statement and will be recorded as applied
warning: migrations/tenant/V1__add_brand.sql: contains no statement and will be recorded as applied
--- exit 0


"#]]
        .raw()
    );
}

#[test]
fn config_shows_every_setting() {
    let given = Given::nothing();
    let shown = transcript(&given, &["config", "config -o names"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync config
--- stdout
┌─┬─┬─┐
│ key ┆ value ┆ origin │
╞═╪═╪═╡
│ database.url ┆ [URL] ┆ $PRICESYNC_DATABASE_URL │
│ database.direct_url ┆ - ┆ default │
│ catalog.tenant_table ┆ public.tenants_tenant ┆ default │
│ catalog.domain_table ┆ public.tenants_domain ┆ default │
│ catalog.id_column ┆ id ┆ default │
│ catalog.schema_column ┆ schema_name ┆ default │
│ catalog.slug_column ┆ slug ┆ default │
│ catalog.name_column ┆ name ┆ default │
│ catalog.created_column ┆ created_at ┆ default │
│ catalog.domain_id_column ┆ id ┆ default │
│ catalog.domain_column ┆ domain ┆ default │
│ catalog.domain_tenant_column ┆ tenant_id ┆ default │
│ catalog.domain_primary_column ┆ is_primary ┆ default │
│ catalog.shared_references ┆ - ┆ default │
│ catalog.schema_prefix ┆ tenant_ ┆ default │
│ migrations.shared ┆ migrations/shared ┆ default │
│ migrations.tenant ┆ migrations/tenant ┆ default │
│ migrations.history_table ┆ refinery_schema_history ┆ default │
│ run.jobs ┆ auto ┆ default │
│ run.lock_timeout ┆ 2s ┆ default │
│ run.lock_retries ┆ 5 ┆ default │
│ run.lock_wait ┆ 60s ┆ default │
│ run.statement_timeout ┆ 0 ┆ default │
│ run.on_failure ┆ stop ┆ default │
│ run.atomic ┆ schema ┆ default │
│ run.group_time ┆ 50ms ┆ default │
│ run.group_size ┆ 16 ┆ default │
│ run.template ┆ auto ┆ default │
│ run.search_path ┆ public ┆ default │
│ guard.allow_writes ┆ - ┆ default │
│ users.table ┆ users ┆ default │
│ users.username ┆ username ┆ default │
│ users.email ┆ email ┆ default │
│ users.password ┆ password ┆ default │
│ users.is_superuser ┆ is_superuser ┆ default │
│ users.is_staff ┆ is_staff ┆ default │
│ users.is_active ┆ is_active ┆ default │
│ users.joined_at ┆ date_joined ┆ default │
│ users.hasher ┆ argon2id ┆ default │
│ local.data_dir ┆ .pricesync/postgres ┆ default │
│ connection.user ┆ postgres ┆ connection string │
│ connection.dbname ┆ [DATABASE] ┆ connection string │
│ connection.host ┆ [SOCKET] ┆ connection string │
│ connection.port ┆ 5432 ┆ default │
│ connection.application_name ┆ pricesync ┆ default │
│ connection.sslmode ┆ prefer ┆ default │
│ connection ┆ postgres@[SOCKET]:5432/[DATABASE] ┆ local socket: nothing leaves this machine │
└─┴─┴─┘
--- exit 0

$ pricesync config -o names
--- stdout
database.url
database.direct_url
catalog.tenant_table
catalog.domain_table
catalog.id_column
catalog.schema_column
catalog.slug_column
catalog.name_column
catalog.created_column
catalog.domain_id_column
catalog.domain_column
catalog.domain_tenant_column
catalog.domain_primary_column
catalog.shared_references
catalog.schema_prefix
migrations.shared
migrations.tenant
migrations.history_table
run.jobs
run.lock_timeout
run.lock_retries
run.lock_wait
run.statement_timeout
run.on_failure
run.atomic
run.group_time
run.group_size
run.template
run.search_path
guard.allow_writes
users.table
users.username
users.email
users.password
users.is_superuser
users.is_staff
users.is_active
users.joined_at
users.hasher
local.data_dir
connection.user
connection.dbname
connection.host
connection.port
connection.application_name
connection.sslmode
connection
--- exit 0


"#]]
        .raw()
    );
    given.file("pricesync.toml", "[run]\njobs = \"none\"\n");
    let shown = transcript(&given, &["config"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync config
--- stderr
error: [FOLDER]/pricesync.toml:2: run.jobs = 'none' is invalid: expected 'auto' or a number from 1 to 1000
--- exit 2


"#]]
        .raw()
    );
    given.file("pricesync.toml", "[runs]\njobs = 1\n");
    let shown = transcript(&given, &["config"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync config
--- stderr
error: [FOLDER]/pricesync.toml:1: unknown key 'runs'; did you mean 'run'?
--- exit 2


"#]]
        .raw()
    );
    given.file("pricesync.toml", "[run\n");
    let shown = transcript(&given, &["config"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync config
--- stderr
error: [FOLDER]/pricesync.toml:1: not valid TOML: unclosed table, expected `]`
--- exit 2


"#]]
        .raw()
    );
}

#[test]
fn the_local_server_runs_the_demo() {
    let given = Given::shipped();
    let shown = transcript(
        &given,
        &[
            "demo --tenants 2 --quiet",
            "demo --tenants 1",
            "server start",
            "server status",
            "server url",
            "server psql -- -Atc 'SELECT count(*) FROM tenants_tenant'",
            "server stop",
            "server status",
            "server destroy --force",
            "server status",
        ],
    );
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync demo --tenants 2 --quiet
--- stdout
┌─┬─┬─┬─┬─┬─┬─┬─┬─┐
│ id ┆ name ┆ slug ┆ schema ┆ domains ┆ version ┆ pending ┆ state ┆ created │
╞═╪═╪═╪═╪═╪═╪═╪═╪═╡
│ 1 ┆ Acme Inc. ┆ acme ┆ tenant_acme ┆ acme.example.com ┆ 8 ┆ 0 ┆ up to date ┆ [MOMENT] │
│ 2 ┆ Globex Corp. ┆ globex ┆ tenant_globex ┆ globex.example.com ┆ 8 ┆ 0 ┆ up to date ┆ [MOMENT] │
└─┴─┴─┴─┴─┴─┴─┴─┴─┘
--- exit 0

$ pricesync demo --tenants 1
--- stderr
error: invalid value '1' for '--tenants <N>': 1 is not in 2..=50000

For more information, try '--help'.
--- exit 2

$ pricesync server start
--- stdout
running: postgresql:///pricesync?host=[FOLDER]/.pricesync/postgres/run&user=postgres
--- exit 0

$ pricesync server status
--- stdout
running: postgresql:///pricesync?host=[FOLDER]/.pricesync/postgres/run&user=postgres
PostgreSQL 15, pid [PID], data in [FOLDER]/.pricesync/postgres
--- exit 0

$ pricesync server url
--- stdout
postgresql:///pricesync?host=[FOLDER]/.pricesync/postgres/run&user=postgres
--- exit 0

$ pricesync server psql -- -Atc 'SELECT count(*) FROM tenants_tenant'
--- stdout
2
--- exit 0

$ pricesync server stop
--- stdout
stopped
--- exit 0

$ pricesync server status
--- stdout
stopped; PostgreSQL 15, data in [FOLDER]/.pricesync/postgres
--- exit 0

$ pricesync server destroy --force
--- stdout
destroyed
--- exit 0

$ pricesync server status
--- stdout
not created; data folder: [FOLDER]/.pricesync/postgres
--- exit 0


"#]]
        .raw()
    );
}

#[test]
fn server_without_one() {
    let given = Given::nothing();
    let shown = transcript(&given, &["server status", "server stop", "server destroy --force"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync server status
--- stdout
not created; data folder: [FOLDER]/.pricesync/postgres
--- exit 0

$ pricesync server stop
--- stdout
not running
--- exit 0

$ pricesync server destroy --force
--- stdout
nothing to destroy
--- exit 0


"#]]
        .raw()
    );
}

#[test]
fn completions_and_manual_pages() {
    let given = Given::nothing();
    let shown = transcript(&given, &["completions none", "man --out pages"]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync completions none
--- stderr
error: invalid value 'none' for '<SHELL>'
  [possible values: bash, elvish, fish, powershell, zsh]

For more information, try '--help'.
--- exit 2

$ pricesync man --out pages
--- exit 0


"#]]
        .raw()
    );
}

#[test]
fn a_command_that_does_not_exist() {
    let given = Given::nothing();
    let shown = transcript(&given, &["no-such-command", ""]);
    assert_data_eq!(
        shown,
        str![[r#"
$ pricesync no-such-command
--- stderr
error: unrecognized subcommand 'no-such-command'

  tip: a similar subcommand exists: 'drop-schema'

Usage: pricesync [OPTIONS] <COMMAND>

For more information, try '--help'.
--- exit 2

$ pricesync 
--- stderr
Schema migrations for PostgreSQL databases that keep one schema per tenant

Usage: pricesync [OPTIONS] <COMMAND>

Commands:
  migrate-schemas   Migrate the shared schema, then every tenant
  create-tenant     Create a tenant: row, hosts, schema and all migrations
  list-tenants      List tenants with schema, hosts, version and pending files
  drop-schema       Drop a tenant: schema with all objects, hosts and row
  rename-tenant     Change the slug, the name or the schema of a tenant
  undrop            Restore a tenant from the trash: schema, row and hosts
  clone-tenant      Copy a tenant into a new one, with or without its rows
  backup            Back up tenants, each into its own file
  restore           Restore a tenant from a backup: row, hosts, schema with rows
  purge             Permanently drop tenants in the trash
  shell             Open psql in a tenant's schema
  exec              Run SQL or a program for many tenants
  env               Print the environment variables that select one tenant
  status            Show the versions of all schemas, or the migrations of one
  make-migration    Write an empty migration with the next free version
  import            Convert migrations of another tool to files of this project
  baseline          Record migrations as applied in schemas of another tool
  runs              List the last migration runs, or show one
  lint              Find migrations that lock, rewrite or leave their schema
  drift             Compare the structure of schemas at the same version
  doctor            Find missing schemas, orphaned schemas and invalid indexes
  locks             List locked schemas, their holders and waiting sessions
  domains           List and change the hosts of tenants
  create-superuser  Create a superuser in a tenant's table of users
  resolve           Find the tenant and the schema of a host
  server            Start, stop and inspect this folder's PostgreSQL server
  demo              Try pricesync with some tenants on the local server
  config            Show every setting with its origin; secrets are masked
  init              Write pricesync.toml and the folders of the migrations
  completions       Print a completion script for a shell
  man               Print the manual page, or write one page for each command
  help              Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help (see more with '--help')
  -V, --version  Print version

Global options:
  -c, --config <FILE>       Config file [default: nearest pricesync.toml] [env: PRICESYNC_CONFIG]
  -d, --database-url <URL>  URL or key=value [env: PRICESYNC_DATABASE_URL, DATABASE_URL, PG*]
      --local               Use the local PostgreSQL server of this folder; start it if necessary
      --wait[=<TIME>]       Wait until the server accepts connections; without TIME, up to 60s
      --progress <MODE>     How to report progress on stderr [default: auto] [possible values: auto,
                            bars, lines, json, none]
      --color <WHEN>        When to use colors [default: auto] [possible values: auto, always,
                            never]
  -q, --quiet               Print only failures on stderr; results on stdout stay
  -v, --verbose...          Print more on stderr

Exit codes: pricesync help exit-codes
--- exit 2


"#]]
        .raw()
    );
}

#[test]
fn import_lists_what_it_writes_and_what_it_cannot_convert() {
    let given = Given::tenants(&["acme"]);
    given.file("db/V1.1__products.sql", "CREATE TABLE products (id int);");
    given.file("db/U1.1__products.sql", "DROP TABLE products;");
    let import = "import --from flyway db";
    let clean = transcript(&given, &[import, import, "baseline --from flyway"]);
    given.file("db/V1.2__note.sql", "ALTER TABLE products\n  ADD note text DEFAULT '${note}';");
    given.file("db/R__views.sql", "CREATE OR REPLACE VIEW v AS SELECT 1;");
    let shown = clean + &transcript(&given, &[import]);
    assert_data_eq!(shown, str![[r#"
$ pricesync import --from flyway db
--- stdout
written migrations/tenant/V1__products.sql
written migrations/tenant/V1__products.undo.sql
--- stderr
1 migration converted, 1 with a file that undoes it
take over the history of each schema: pricesync baseline --from flyway
--- exit 0

$ pricesync import --from flyway db
--- stderr
1 migration converted, 1 with a file that undoes it
take over the history of each schema: pricesync baseline --from flyway
--- exit 0

$ pricesync baseline --from flyway
--- stderr
warning: not recorded: tenant_acme: lacks the table flyway_schema_history
if one history stands for all schemas, name its schema with --history-in
--- exit 10

$ pricesync import --from flyway db
--- stdout
written migrations/tenant/V2__note.sql
--- stderr
2 migrations converted, 1 with a file that undoes it
warning: not converted: db/R__views.sql: a repeatable migration is run again when it changes, which pricesync does not do; write what it defines now as a versioned file
warning: not converted: db/V1.2__note.sql:2: write the value of ${note}: placeholders are not replaced
--- exit 2


"#]].raw());
}
