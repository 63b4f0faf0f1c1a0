//! `exec` and `env`: SQL and programs, tenant by tenant.

use std::process::Command;

use rustix::process::Signal;

use crate::support::eventually::eventually;
use crate::support::pooler::Pooler;
use crate::support::pricesync::{Given, Ran};

/// Tenants with a table `products(id, name)`; each has as many rows as its place among them.
fn with_products(slugs: &[&str]) -> Given {
    let given = Given::tenants(slugs);
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int PRIMARY KEY, name text);");
    given.run(&["migrate-schemas"]).exits(0);
    for (rows, slug) in (1..).zip(slugs) {
        given.database.execute(&format!(
            "INSERT INTO tenant_{slug}.products SELECT i, '{slug}' || i FROM generate_series(1, {rows}) i"
        ));
    }
    given
}

#[test]
fn results_become_one_in_the_order_of_the_tenants() {
    let given = with_products(&["a", "b", "c"]);
    // The first is the slowest.
    let sql = "SELECT pg_sleep(CASE current_schema() WHEN 'tenant_a' THEN 0.3 ELSE 0 END); \
               SELECT count(*) AS products, NULL AS nothing, '' AS \"empty\" FROM products";
    let ran = given.run(&["exec", "--all", "-j3", "-c", sql, "-o", "csv"]);
    assert_eq!(ran.stdout(), "tenant,products,nothing,empty\na,1,,\"\"\nb,2,,\"\"\nc,3,,\"\"\n");
    ran.exits(0).says("3 schemas: 3 executed, 0 failed, 0 skipped, 0 not started");
    let ran = given.run(&[
        "exec",
        "--all",
        "-c",
        "SELECT id, true AS yes FROM products WHERE id = 3",
        "-o",
        "json",
    ]);
    assert_eq!(ran.stdout(), "[\n  {\"tenant\":\"c\",\"id\":3,\"yes\":true}\n]\n");
    let ran = given.run(&[
        "exec",
        "-t",
        "b,c",
        "-c",
        "SELECT * FROM products WHERE id > 2",
        "-o",
        "names",
    ]);
    assert_eq!(ran.stdout(), "c\n");
    let ran =
        given.run(&["exec", "-t", "a", "-c", "SELECT NULL AS n, chr(27) || '[2J' AS hostile"]);
    assert_eq!(
        ran.stdout(),
        "┌────────┬──────┬───────────┐\n\
         │ tenant ┆ n    ┆ hostile   │\n\
         ╞════════╪══════╪═══════════╡\n\
         │ a      ┆ NULL ┆ \\u{1b}[2J │\n\
         └────────┴──────┴───────────┘\n"
    );
}

#[test]
fn what_only_reads_cannot_be_made_to_write() {
    let given = with_products(&["a"]);
    for (sql, code, says) in [
        ("DELETE FROM products", 10, "add --write"),
        ("SET TRANSACTION READ WRITE; DELETE FROM products", 10, "must be set before any query"),
        (
            "SELECT set_config('transaction_read_only', 'off', true); DELETE FROM products",
            10,
            "must be set before any query",
        ),
        ("COMMIT; DELETE FROM products", 2, "COMMIT is not allowed"),
        ("SELECT 1;\n DELETE FROM products; ROLLBACK", 2, "2:24: ROLLBACK is not allowed"),
        ("SET search_path = public", 2, "pricesync sets search_path for each tenant"),
        (
            "SELECT set_config('search' || '_path', 'public', false)",
            10,
            "it changed the transaction, the role or search_path",
        ),
        ("DO $$ BEGIN COMMIT; DELETE FROM products; END $$", 10, "invalid transaction termination"),
        ("CREATE FLUX CAPACITOR; COMMIT; DELETE FROM products", 2, "COMMIT is not allowed"),
        ("COPY products TO STDOUT", 2, "use -o csv for rows"),
        ("\\! rm x", 2, "is a psql meta-command"),
    ] {
        given.run(&["exec", "--all", "-c", sql]).exits(code).says(says);
    }
    assert_eq!(given.value("SELECT count(*) FROM tenant_a.products"), "1");
}

#[test]
fn what_writes_is_one_transaction_and_stays_in_the_tenant() {
    let given = with_products(&["a", "b"]);
    given.database.execute("CREATE TABLE public.seen (tenant text)");
    let ran = given.run(&[
        "exec",
        "--all",
        "--write",
        "-c",
        "DELETE FROM products WHERE id = 1",
        "-o",
        "csv",
    ]);
    assert_eq!(ran.stdout(), "tenant,result\na,DELETE 1\nb,DELETE 1\n");
    ran.exits(0);
    // The second statement fails in each, and takes the first with it.
    given
        .run(&[
            "exec",
            "--all",
            "--write",
            "--on-failure=continue",
            "-c",
            "DELETE FROM products; SELECT 1 / 0",
        ])
        .exits(10)
        .says("division by zero (22012)\n  2 schemas: tenant_a, tenant_b");
    assert_eq!(given.value("SELECT count(*) FROM tenant_b.products"), "1");
    given
        .run(&["exec", "-t", "a", "--write", "-c", "INSERT INTO seen VALUES ('a')"])
        .exits(10)
        .says("it changed objects outside the tenant's schema: ")
        .says("public.seen (rows changed)");
    given
        .run(&[
            "exec",
            "-t",
            "a",
            "--write",
            "-c",
            "DO $$ BEGIN DELETE FROM tenant_b.products; END $$",
        ])
        .exits(10)
        .says("tenant_b.products (rows changed)");
    assert_eq!(given.value("SELECT count(*) FROM public.seen"), "0");
    assert_eq!(given.value("SELECT count(*) FROM tenant_b.products"), "1");
}

#[test]
fn no_command_selects_all_tenants_by_accident() {
    let given = with_products(&["a"]);
    given.run(&["exec", "-c", "SELECT 1"]).exits(2).says("no tenant is selected");
    given.run(&["exec", "--all"]).exits(2);
    given.run(&["exec", "-t", "zzz", "-c", "SELECT 1"]).exits(4);
    given.run(&["exec", "--all", "-f", "missing.sql"]).exits(2).says("cannot read missing.sql");
    given.run(&["exec", "--all", "-c", " -- nothing"]).exits(2).says("it contains no statement");
}

#[test]
fn an_error_in_a_do_block_names_its_line() {
    let given = with_products(&["a"]);
    let sql = "DO $$\nBEGIN\n  PERFORM no_such FROM products;\nEND $$";
    given
        .run(&["exec", "--all", "-c", sql])
        .exits(10)
        .says("error: tenant_a: the SQL at 3:11 failed");
    let sql = "SELECT 1;\nDO $$ BEGIN\n  RAISE 'stop';\nEND $$";
    let ran = given.run(&["-v", "exec", "--all", "-c", sql]).exits(10);
    ran.says("the SQL at 3:3 failed").says("  context: PL/pgSQL function inline_code_block line 2");
}

#[test]
fn what_does_not_exist_is_explained_by_what_is_pending() {
    let given = with_products(&["a", "b"]);
    given.tenant_file("V2__prices.sql", "CREATE TABLE prices (id int);");
    given.run(&["migrate-schemas", "-t", "b"]).exits(0);
    let ran = given.run(&["exec", "--all", "-c", "SELECT count(*) FROM\n  prices", "-o", "csv"]);
    assert_eq!(ran.stdout(), "tenant,count\nb,0\n");
    ran.exits(10)
        .says("error: the SQL at 2:3 failed")
        .says("hint: tenant 'a' is 1 migration behind: pricesync migrate-schemas --tenant=a");
    given.database.execute("DROP SCHEMA tenant_b CASCADE");
    given
        .run(&["exec", "--all", "-c", "SELECT 1 AS one"])
        .exits(10)
        .says("the schema of tenant 'b' does not exist");
}

#[test]
fn other_columns_fail_the_tenant_and_show_no_rows_of_it() {
    let given = with_products(&["a", "b", "c"]);
    given.database.execute("ALTER TABLE tenant_b.products ADD note text");
    let ran =
        given.run(&["exec", "--all", "-c", "SELECT * FROM products WHERE id = 1", "-o", "csv"]);
    assert_eq!(ran.stdout(), "tenant,id,name\na,1,a1\nc,1,c1\n");
    ran.exits(10).says("its columns are id, name, note, and those of the first tenant id, name");
    // Rows that came before the failure are not shown either.
    let sql = "SELECT 1 / (CASE current_schema() WHEN 'tenant_b' THEN 2 ELSE 99 END - i) AS x FROM generate_series(1, 3) i";
    let ran = given.run(&["exec", "--all", "-c", sql, "-o", "names"]);
    assert_eq!(ran.stdout(), "a\nc\n");
    ran.exits(10);
}

#[test]
fn a_statement_has_as_long_as_it_is_given() {
    let given = with_products(&["a"]);
    given
        .run(&["exec", "--all", "--timeout", "1s", "-c", "SELECT pg_sleep(36000)"])
        .exits(10)
        .says("raise --timeout");
}

#[test]
fn a_second_interrupt_cancels_what_runs() {
    let given = with_products(&["a", "b"]);
    let mut run = given.spawn(&["exec", "--all", "-j1", "-c", "SELECT pg_sleep(36000)"]);
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    eventually("the statement runs", || given.value(sleeping) == "1");
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130).says("2 schemas: 0 executed, 0 failed, 1 skipped, 1 not started");
    eventually("it is cancelled", || given.value(sleeping) == "0");
}

#[test]
fn hostile_names_are_only_names() {
    let given = with_products(&["a"]);
    let schema = "tenant_Ế \"x\", public'; --";
    given.tenant_in("q", schema);
    let ran = given.run(&["exec", "-t", "q", "-c", "SELECT current_schema() AS s", "-o", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(ran.stdout().as_bytes()).unwrap();
    assert_eq!(rows[0]["s"], schema);
    ran.exits(0);
    let ran = given.run(&[
        "exec",
        "-t",
        "q",
        "--",
        "sh",
        "-c",
        "echo \"$PRICESYNC_SCHEMA\"; psql -Atc 'SELECT current_schema()' -d $0",
        given.database.url(),
    ]);
    assert_eq!(ran.stdout(), format!("q: {schema}\nq: {schema}\n"));
}

#[test]
fn a_program_runs_for_each_tenant_and_its_lines_name_the_tenant() {
    let given = with_products(&["a", "b"]);
    let script = "psql -Atc 'SELECT count(*) FROM products' \"$DATABASE_URL\"; echo problem >&2; [ $PRICESYNC_TENANT = a ]";
    let ran = given.run(&["exec", "--all", "-j1", "--", "sh", "-c", script]);
    assert_eq!(ran.stdout(), "a: 1\nb: 2\n");
    ran.exits(10)
        .says("a: problem")
        .says("error: tenant_b: sh failed")
        .says("exit status: 1")
        .says("1 executed, 1 failed");
    let write = "psql -c \"DELETE FROM products\" \"$DATABASE_URL\"";
    given
        .run(&["exec", "-t", "a", "--", "sh", "-c", write])
        .exits(10)
        .says("read-only transaction");
    given.run(&["exec", "-t", "a", "--write", "--", "sh", "-c", write]).exits(0);
    given.run(&["exec", "--all", "--", "no-such-program"]).exits(10).says("no-such-program failed");
    given
        .run(&["exec", "-t", "a", "--timeout", "100ms", "--", "sleep", "36000"])
        .exits(10)
        .says("timed out (0.1 s)");
    // A program that ignores SIGTERM is killed.
    let deaf = "trap '' TERM; sleep 36001";
    given
        .run(&["exec", "-t", "a", "--timeout", "100ms", "--", "sh", "-c", deaf])
        .exits(10)
        .says("timed out (0.1 s)");
}

#[test]
fn behind_a_pooler_nothing_of_a_tenant_is_left_to_the_next() {
    let given = with_products(&["a", "b"]);
    let Some(pooler) = Pooler::start("transaction", 1) else {
        return;
    };
    let url = pooler.url(&given);
    for _ in 0..2 {
        let ran = given.run(&[
            "-d",
            &url,
            "exec",
            "--all",
            "--write",
            "-c",
            "SET work_mem = '1MB'; SELECT current_schema() AS s, count(*) FROM products",
            "-o",
            "json",
        ]);
        let ran = ran.exits(0);
        assert_eq!(
            ran.stdout,
            "[\n  {\"tenant\":\"a\",\"s\":\"tenant_a\",\"count\":1},\n  {\"tenant\":\"b\",\"s\":\"tenant_b\",\"count\":2}\n]\n"
        );
    }
}

#[test]
fn a_tenants_environment_leads_psql_there_without_password() {
    let given = with_products(&["a", "b"]);
    given.tenant_in("it's", "tenant_it's $(x) `y`");
    for (slug, schema) in [("b", "tenant_b"), ("it's", "tenant_it's $(x) `y`")] {
        let ran = given.run(&["env", "-t", slug]);
        let exports = ran.stdout().to_owned();
        ran.exits(0);
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("{exports}\npsql -Atc 'SELECT current_schema()'"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), schema);
    }
    given.run(&["env", "-t", "zzz"]).exits(4);
    let output =
        given.command(&["env", "-t", "b"]).env("PGPASSWORD", "never-seen").output().unwrap();
    let ran = Ran::from(&["env"], output);
    assert!(!ran.stdout().contains("never-seen"));
    assert!(!ran.stdout().contains("PGPASSWORD"));
}

#[test]
fn the_query_in_the_error_finds_the_duplicates() {
    let given = Given::tenants(&[]);
    given.tenant_in("q", "odd \"schema\" ấ");
    given.tenant_file(
        "V1__t.sql",
        "CREATE TABLE \"T\" (a int, \"B \"\"b\"\", c\" text); \
         INSERT INTO \"T\" VALUES (1, 'x'), (1, 'x'), (2, NULL), (2, NULL), (3, 'y');",
    );
    given.run(&["migrate-schemas"]).exits(0);
    let query = |told: &str| {
        let line = told.lines().find_map(|line| line.split_once("find the rows: "));
        line.map(|(_, sql)| sql.to_owned())
    };
    given.tenant_file("V2__once.sql", "ALTER TABLE \"T\" ADD UNIQUE (a, \"B \"\"b\"\", c\");");
    let told = given.run(&["migrate-schemas"]).exits(10);
    let sql = query(&told.stderr).expect("a query");
    assert_eq!(
        given.database.query(&sql),
        [["1", "x", "2"].map(|cell| Some(cell.to_owned())).to_vec()]
    );
    given.remove_tenant_file("V2__once.sql");
    for (statement, is_told) in [
        ("CREATE UNIQUE INDEX ON \"T\" (a)", true),
        ("CREATE UNIQUE INDEX ON \"T\" (abs(a))", false),
        ("CREATE UNIQUE INDEX ON \"T\" (a) WHERE a < 3", false),
        // What is refused here is one row, and there are no duplicates.
        ("CREATE TABLE u (a int PRIMARY KEY); INSERT INTO u VALUES (1), (1)", false),
    ] {
        let told =
            given.run(&["exec", "--all", "--write", "-c", statement]).exits(10).says("23505");
        assert_eq!(query(&told.stderr).is_some(), is_told, "{statement}");
    }
}

#[test]
fn without_psql_a_shell_still_runs_what_it_is_given() {
    let given = with_products(&["a"]);
    let run = |args: &[&str]| {
        let output = given.command(args).env("PATH", "/nowhere").output().unwrap();
        Ran::from(args, output)
    };
    let counting = "SELECT count(*) AS n FROM products";
    run(&["shell", "-t", "a", "-c", "INSERT INTO products VALUES (7)", "-c", counting])
        .exits(0)
        .prints("│ a      ┆ 2 │")
        .says("psql is not on the PATH");
    run(&["shell", "-t", "a", "--read-only", "-c", "DELETE FROM products"])
        .exits(10)
        .says("read-only transaction");
    run(&["shell", "-t", "a"]).exits(1).says("install it");
}

#[test]
fn what_is_written_is_not_proposed_again_to_those_that_have_it() {
    let given = with_products(&["a", "b", "c"]);
    given.database.execute("DROP TABLE tenant_b.products");
    let told = given
        .run(&["exec", "--all", "--write", "--jobs=1", "-c", "UPDATE products SET id = id + 100"])
        .exits(10);
    told.says("1 executed, 1 failed, 0 skipped, 1 not started")
        .says("continue with the rest: pricesync exec --tenant=c ...\n")
        .never_says("UPDATE products SET id = id + 100");
}

#[test]
fn rows_may_wait_for_a_slow_neighbour_as_long_as_it_takes() {
    let given = with_products(&["a"]);
    let sql = "SHOW idle_in_transaction_session_timeout";
    let ran = given.run(&["exec", "-t", "a", "-o", "csv", "-c", sql]);
    assert_eq!(ran.stdout().lines().last(), Some("a,0"));
}

#[test]
fn a_document_that_spans_lines_is_json_still() {
    let given = with_products(&["a"]);
    let sql = r#"SELECT E'{\r\n\t"a\\tb": [1,\t2]}'::json AS doc"#;
    let ran = given.run(&["exec", "-t", "a", "-o", "json", "-c", sql]);
    let rows: serde_json::Value = serde_json::from_str(ran.stdout()).unwrap();
    assert_eq!(rows[0]["doc"], serde_json::json!({"a\tb": [1, 2]}));
}

#[test]
fn a_value_that_is_not_utf_8_is_an_error() {
    let given = with_products(&["a"]);
    let sql = "SET client_encoding TO 'LATIN1'; SELECT chr(228)";
    let ran = given.run(&["exec", "-t", "a", "-c", sql]);
    ran.exits(10).says("1 schema: 0 executed, 1 failed");
}
