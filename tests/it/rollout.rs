//! Runs that are steered: who is chosen, in which stages, and what a failure ends.

use std::io::Write as _;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::pricesync::{Counts, Given, NONE};

const ADDS_A_TABLE: &str = "CREATE TABLE made (id int);\n";

/// A file that fails in the schemas of these tenants.
fn fails_in(slugs: &[&str]) -> String {
    let schemas: Vec<String> = slugs.iter().map(|slug| format!("'tenant_{slug}'")).collect();
    format!(
        "CREATE TABLE made (id int);\nSELECT 1 / (current_schema() <> ALL (ARRAY[{}]::name[]))::int;\n",
        schemas.join(", ")
    )
}

/// Which tenants have the table that the files above make.
fn made(given: &Given) -> Vec<String> {
    given.column(
        "SELECT substr(relnamespace::regnamespace::text, 8) FROM pg_class WHERE relname = 'made' ORDER BY 1",
    )
}

/// Tenants `t0` to `t9` and a file that is pending in all of them.
fn ten(file: impl AsRef<[u8]>) -> Given {
    let slugs: Vec<String> = (0..10).map(|number| format!("t{number}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    let given = Given::tenants(&slugs);
    given.tenant_file("V1__made.sql", file);
    given
}

#[test]
fn a_canary_that_fails_ends_the_run_after_the_canary() {
    let given = ten(fails_in(&["t7"]));
    given
        .run(&["migrate-schemas", "--canary", "t7", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { up_to_date: 1, failed: 1, not_started: 9, ..NONE })
        .says("Stage 1 of 2: 1 canary")
        .never_says("Stage 2")
        .says("9 schemas not started (a canary failed)")
        .says(
            "continue with the rest: pricesync migrate-schemas --canary t7 --on-failure continue",
        );
    assert!(made(&given).is_empty());
    // Mended, the same command line does the canary and then the others.
    given.tenant_file("V1__made.sql", ADDS_A_TABLE);
    given
        .run(&["migrate-schemas", "--canary", "t7"])
        .exits(0)
        .counts(Counts { migrated: 10, up_to_date: 1, ..NONE })
        .says("Stage 2 of 2: 9 schemas");
}

#[test]
fn batches_go_through_the_fleet_and_stop_at_the_failure() {
    let given = ten(fails_in(&["t2"]));
    given
        .run(&["migrate-schemas", "--jobs", "1", "--batches", "10%,50%,100%"])
        .exits(10)
        .counts(Counts { migrated: 2, up_to_date: 1, failed: 1, not_started: 7, ..NONE })
        .says("Stage 1 of 3: 1 schema\n")
        .says("Stage 2 of 3: 4 schemas\n")
        .never_says("Stage 3");
    assert_eq!(made(&given), ["t0", "t1"]);
}

#[test]
fn batches_and_canaries_count_tenants_with_pending_files() {
    let given = ten(ADDS_A_TABLE);
    given.run(&["migrate-schemas", "--tenant", "t[0-4]"]).exits(0);
    given
        .run(&["migrate-schemas", "--canary", "t9", "--batches", "2,4", "--pause", "1ms"])
        .exits(0)
        .counts(Counts { migrated: 5, up_to_date: 6, ..NONE })
        .says("Stage 1 of 4: 1 canary\n")
        .says("Stage 2 of 4: 1 schema\n")
        .says("Stage 3 of 4: 2 schemas\n")
        .says("Stage 4 of 4: 1 schema\n")
        .says("pausing before stage 4 of 4")
        .says("[5/5]");
}

#[test]
fn a_pause_can_be_interrupted_and_the_rest_is_left() {
    let given = ten(ADDS_A_TABLE);
    let mut run = given.spawn(&["migrate-schemas", "--batches", "3", "--pause", "2m"]);
    run.hears("pausing before stage 2 of 2, 2 min 00 s left");
    run.signal(Signal::INT);
    run.wait()
        .exits(130)
        .counts(Counts { migrated: 3, up_to_date: 1, not_started: 7, ..NONE })
        .says("continue with the rest: pricesync migrate-schemas --batches 3 --pause 2m");
    assert_eq!(made(&given), ["t0", "t1", "t2"]);
}

#[test]
fn after_so_many_failures_nothing_new_is_begun() {
    let given = ten(fails_in(&["t1", "t3", "t4", "t8"]));
    given
        .run(&["migrate-schemas", "--jobs", "1", "--max-failures", "3"])
        .exits(10)
        .counts(Counts { migrated: 2, up_to_date: 1, failed: 3, not_started: 5, ..NONE })
        .says("5 schemas not started (--max-failures was reached)")
        .says("retry the failed schemas: pricesync migrate-schemas --tenant=t1,t3,t4");
    assert_eq!(made(&given), ["t0", "t2"]);
    let config = ["--config", "pricesync.toml"];
    given
        .run(&[&config[..], &["migrate-schemas", "--retry-failed"]].concat())
        .exits(10)
        .says("pricesync --config pricesync.toml migrate-schemas --tenant=t1,t3,t4");
}

#[test]
fn invalid_stages_are_refused_before_the_run() {
    let given = ten(ADDS_A_TABLE);
    for (args, words) in [
        (&["--max-failures", "3", "--on-failure", "stop"][..], "exclude each other"),
        (&["--max-failures", "0"], "--max-failures"),
        (&["--pause", "2m"], "a pause requires several stages"),
        (&["--batches", "25%,5%"], "larger than the one before"),
        (&["--batches", "half"], "a share such as 5%"),
        (&["--batches", "120%"], "a share such as 5%"),
        (&["--shared", "--canary", "t1"], "--shared"),
        (&["--shared", "--retry-failed"], "--shared"),
        (&["--canary", "t["], "invalid glob"),
    ] {
        let all = [&["migrate-schemas"], args].concat();
        given.run(&all).exits(2).says(words);
    }
    given
        .run(&["migrate-schemas", "--exclude", "t1", "--canary", "t1"])
        .exits(4)
        .says("none of the selected tenants has the slug, schema or host 't1'");
    assert!(made(&given).is_empty());
}

#[test]
fn the_server_is_asked_whom_a_condition_means() {
    let given = ten(ADDS_A_TABLE);
    given.database.execute(
        "INSERT INTO tenants_domain (domain, tenant_id) SELECT slug || '.example', id FROM tenants_tenant WHERE slug IN ('t2', 't5')",
    );
    let chosen = |args: &[&str]| {
        let all = [&["list-tenants", "-o", "names"], args].concat();
        let told = given.run(&all).exits(0);
        told.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["--where", "slug < 't2'"]), ["t0", "t1"]);
    assert_eq!(
        chosen(&["--where", "t.id IN (SELECT tenant_id FROM tenants_domain) -- with a host"]),
        ["t2", "t5"]
    );
    assert_eq!(
        chosen(&["--tenant", "t0,t5,t6", "--where", "slug > 't4'", "--exclude", "t6"]),
        ["t5"]
    );
    given
        .run(&["migrate-schemas", "--where", "slug = 't3'"])
        .exits(0)
        .counts(Counts { migrated: 1, ..NONE });
    assert_eq!(made(&given), ["t3"]);
    given
        .run(&["migrate-schemas", "--where", "false"])
        .exits(0)
        .counts(Counts { ..NONE })
        .says("0 schemas: ");
}

#[test]
fn a_condition_can_only_ask() {
    let given = ten(ADDS_A_TABLE);
    for condition in [
        "true); DROP SCHEMA tenant_t1; --",
        "true); DROP SCHEMA tenant_t1; SELECT (true",
        "true) OR (true",
        "slug = 'x",
        "true /*",
        " ",
    ] {
        given
            .run(&["migrate-schemas", "--where", condition])
            .exits(2)
            .says("--where is not a valid condition");
    }
    given
        .run(&["migrate-schemas", "--where", "slug = 't1'\nAND plann = 1"])
        .exits(2)
        .says("the server rejects --where")
        .says("  2 | AND plann = 1\n    |     ^\n")
        .says("column \"plann\" does not exist (42703)");
    given.run(&["migrate-schemas", "--where", "slug ="]).exits(2).says("42601");
    given.run(&["migrate-schemas", "--where", "1/0 = 1"]).exits(2).says("22012");
    given.database.execute("CREATE SEQUENCE tickets");
    given.run(&["migrate-schemas", "--where", "nextval('tickets') > 0"]).exits(2).says("25006");
    // Whatever the role's setting is, a backslash in a string is a backslash.
    given.database.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings TO off', current_database()); END $$",
    );
    given.run(&["list-tenants", "-o", "names", "--where", r"slug = '\' OR id = 1"]).exits(0);
    assert!(made(&given).is_empty());
}

#[test]
fn a_file_or_stdin_says_who() {
    let given = ten(ADDS_A_TABLE);
    given.file("large.txt", "# the large ones\r\n\r\ntenant_t1\r\n  t4\r\n");
    given
        .run(&["migrate-schemas", "--from-file", "large.txt", "-t", "t6"])
        .exits(0)
        .counts(Counts { migrated: 3, ..NONE });
    assert_eq!(made(&given), ["t1", "t4", "t6"]);

    let piped = |text: &str| {
        let mut child = given
            .command(&["migrate-schemas", "--from-file", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(piped("t2\n").0, Some(0));
    assert_eq!(made(&given), ["t1", "t2", "t4", "t6"]);
    let (code, said) = piped("# none\n");
    assert_eq!(code, Some(0));
    assert!(said.contains("0 schemas: "), "an empty list selects no tenant: {said}");
    let (code, said) = piped("t3\n\nt30\nt*\n");
    assert_eq!(code, Some(4));
    assert!(said.contains("'t30' (line 3), 't*' (line 4)"), "{said}");
    assert_eq!(made(&given), ["t1", "t2", "t4", "t6"]);
    given
        .run(&["migrate-schemas", "--from-file", "nowhere.txt"])
        .exits(2)
        .says("cannot read nowhere.txt");
}

/// Has the server refuse to store how schemas ended, as long as this holds.
fn refuse_to_store(given: &Given, while_true: &str) {
    given.database.execute(&format!(
        "CREATE SEQUENCE public.stored; \
         CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF {while_true} THEN RAISE EXCEPTION 'no room'; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON pricesync.run_item FOR EACH ROW EXECUTE FUNCTION public.refuse()"
    ));
}

#[test]
fn what_could_not_be_stored_at_once_is_stored_later() {
    let given = ten(fails_in(&["t2", "t5", "t8"]));
    refuse_to_store(&given, "nextval('public.stored') = 1");
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .counts(Counts { migrated: 7, up_to_date: 1, failed: 3, ..NONE })
        .never_says("the record of this run");
    assert_eq!(given.value("SELECT count(*) FROM pricesync.run_item WHERE run_id = 2"), "10");
    assert_eq!(given.value("SELECT count(*) FROM pricesync.schema_failure"), "3");
}

#[test]
fn a_lock_table_that_is_full_for_a_moment_costs_no_record() {
    let given = ten(fails_in(&["t2"]));
    refuse_to_store(&given, "nextval('public.stored') <= 10");
    let refuse = given.value("SELECT pg_get_functiondef('public.refuse'::regproc)");
    given.database.execute(&refuse.replace("'no room'", "USING ERRCODE = '53200'"));
    let run = given.run(&["migrate-schemas", "--tenant=t2"]).exits(10);
    run.never_says("the record of this run");
    assert_eq!(given.value("SELECT count(*) FROM pricesync.run_item WHERE run_id = 2"), "1");
}

#[test]
fn an_incomplete_run_record_is_reported() {
    let given = ten(fails_in(&["t2", "t5", "t8"]));
    refuse_to_store(&given, "NEW.tenant = 't5'");
    given
        .run(&["migrate-schemas", "--on-failure", "continue"])
        .exits(10)
        .says("the record of this run is incomplete");
    assert_eq!(
        given.column("SELECT schema_name FROM pricesync.schema_failure ORDER BY 1"),
        ["tenant_t2", "tenant_t8"]
    );
    let again = ["migrate-schemas", "--retry-failed"];
    given.database.execute("ALTER TABLE pricesync.schema_failure RENAME TO elsewhere");
    given
        .run(&again)
        .exits(4)
        .says("cannot read which schemas failed in their last run")
        .never_says("nothing failed");
}

#[test]
fn exactly_the_schemas_that_failed_are_tried_again() {
    let given = ten(fails_in(&["t2", "t5", "t8"]));
    let again = ["migrate-schemas", "--retry-failed"];
    given.run(&again).exits(0).says("no schema failed in its last run");
    given.run(&[&again[..], &["-o", "json"]].concat()).exits(0).prints("\"failed\": 0");
    given.run(&["migrate-schemas", "--on-failure", "continue"]).exits(10).counts(Counts {
        migrated: 7,
        up_to_date: 1,
        failed: 3,
        ..NONE
    });
    given.run(&["status"]).exits(0).prints("failed in run 2").prints("t2, t5, t8");
    given.run(&["runs", "show", "2"]).exits(0).prints("tenant_t5");
    // For the others the file is another one now, but they are not chosen.
    given.tenant_file("V1__made.sql", ADDS_A_TABLE);
    given
        .run(&[&again[..], &["--exclude", "t8"]].concat())
        .exits(0)
        .counts(Counts { migrated: 2, ..NONE });
    given
        .run(&[&again[..], &["--dry-run"]].concat())
        .exits(0)
        .prints("tenant_t8")
        .never_says("tenant_t1");
    given.run(&again).exits(0).counts(Counts { migrated: 1, ..NONE });
    given.run(&again).exits(0).says("no schema failed in its last run");
    // public, where it was public that failed.
    given.shared_file("V2__more.sql", "CREATE TABLE more (id int); SELECT 1/0");
    given.run(&["migrate-schemas"]).exits(10);
    given.shared_file("V2__more.sql", "CREATE TABLE more (id int)");
    given.run(&again).exits(0).counts(Counts { migrated: 1, ..NONE });
    assert_eq!(given.history("public"), ["1", "2"]);
}

#[test]
fn a_quiet_summary_still_ends_with_the_next_commands() {
    let given = ten(fails_in(&["t1", "t3", "t4", "t8"]));
    let told = given
        .run(&["migrate-schemas", "-q", "--on-failure", "continue"])
        .exits(10)
        .says("retry the failed schemas: pricesync migrate-schemas --on-failure continue --retry-failed\n")
        .never_says("go on with the rest");
    assert_eq!(told.stderr.matches("error:").count(), 4, "{}", told.stderr);
}

#[test]
fn a_command_line_with_an_address_is_not_repeated() {
    let given = ten(fails_in(&["t0", "t1"]));
    let url = given.database.url().to_owned();
    let args = ["migrate-schemas", "--jobs=1", "--max-failures=2", "-d", &url];
    given
        .run(&args)
        .exits(10)
        .says("continue with the rest: run the same command again\n")
        .says("retry the failed schemas: the same command with --tenant=t0,t1\n");
}

#[test]
fn what_was_read_from_a_pipe_is_not_proposed_to_be_read_again() {
    let given = ten(fails_in(&["t0"]));
    let mut run = given.command(&["migrate-schemas", "--jobs=1", "--from-file", "-"]);
    run.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = run.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"t0\nt1\n").unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("continue with the rest: run the same command again\n"), "{said}");
}

#[test]
fn a_proposed_command_goes_as_far_as_the_one_that_failed() {
    let given = ten(fails_in(&["t1", "t3", "t4", "t8"]));
    given.tenant_file("V2__more.sql", ADDS_A_TABLE.replace("made", "more"));
    let to_one = ["migrate-schemas", "--on-failure=continue", "--to=1"];
    given
        .run(&to_one)
        .exits(10)
        .says("retry the failed schemas: pricesync migrate-schemas --to 1 --on-failure continue --retry-failed\n");
    given.tenant_file("V1__made.sql", fails_in(&["t1", "t3"]));
    given
        .run(&["migrate-schemas", "--retry-failed", "--on-failure=continue", "--to=1"])
        .exits(10)
        .says("retry the failed schemas: pricesync migrate-schemas --to 1 --on-failure continue --tenant=t1,t3\n");
}

#[test]
fn a_name_that_excludes_nobody_is_an_error_and_a_glob_is_none() {
    let given = ten(ADDS_A_TABLE);
    given
        .run(&["migrate-schemas", "--exclude", "t77"])
        .exits(4)
        .says("no tenant has the slug, schema or host 't77'");
    assert!(made(&given).is_empty());
    given.run(&["migrate-schemas", "--exclude=x*,t9", "--tenant=t8,t9"]).exits(0);
    assert_eq!(made(&given), ["t8"]);
    // Nor is the row that every run warns of.
    given.database.execute(
        "INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ('pg_odd', 'Odd', 'odd')",
    );
    given.run(&["migrate-schemas"]).exits(10);
    given.run(&["migrate-schemas", "--exclude=odd"]).exits(0);
}

#[test]
fn programs_hear_of_stages_and_pauses() {
    let given = ten(ADDS_A_TABLE);
    let told = given
        .run(&["migrate-schemas", "--progress", "json", "--canary", "t3", "--pause", "1ms"])
        .exits(0);
    let events: Vec<serde_json::Value> =
        told.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| {
        let found = events.iter().filter(|line| line["event"] == event);
        found.cloned().collect::<Vec<_>>()
    };
    let stages = of("stage-started");
    assert_eq!(stages.len(), 2);
    assert_eq!(stages[0]["stage"], "canary");
    assert_eq!((&stages[1]["stage"], &stages[1]["schemas"]), (&"batch".into(), &9.into()));
    assert_eq!(of("pausing")[0]["before"], 2);
    assert!(of("schema-finished")[0]["schema"] == "tenant_t3");
}
