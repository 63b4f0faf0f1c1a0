//! Long work on one tenant shows its progress.

use std::fmt::Write as _;
use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::eventually::eventually;
use crate::support::pricesync::{Given, quoted};
use crate::support::pty::OnTerminal;
use crate::support::sessions::{CLASS, Holder, all_have_ended};

/// A tenant whose drop takes pieces.
fn large(given: &Given, schema: &str) {
    let mut sql = String::new();
    for number in 0..60 {
        let _ = write!(sql, "CREATE TABLE {}.t{number} (id int);", quoted(schema));
    }
    given.database.execute(&sql);
}

/// The steps of the JSON lines, each as `number/of step`, and the other events by their names.
fn told(stderr: &str) -> Vec<String> {
    let line = |line: &str| {
        let event: Value = serde_json::from_str(line).expect(line);
        if event["event"] == "step" {
            let step = event["step"].as_str().unwrap();
            return format!("{}/{} {step}", event["number"], event["of"]);
        }
        event["event"].as_str().unwrap().to_owned()
    };
    stderr.lines().map(line).collect()
}

fn backup(given: &Given) -> String {
    given.run(&["backup", "--tenant=acme", "--out=backups"]).exits(0);
    let folder = given.dir.path().join("backups");
    let file = fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    file.path().to_str().unwrap().to_owned()
}

const TABLES: [&str; 10] = [
    "run-started",
    "schema-started",
    "1/8 structure",
    "2/8 table price_history",
    "3/8 table products",
    "4/8 table refinery_schema_history",
    "5/8 table subscriptions",
    "6/8 table users",
    "7/8 constraints and indexes",
    "8/8 comparison with the backup",
];

#[test]
fn a_restore_and_a_clone_tell_each_table_and_what_comes_behind() {
    let given = Given::shop();
    let file = backup(&given);
    for args in
        [&["restore", &file, "--as=copy"][..], &["clone-tenant", "--from=acme", "--slug=clone"]]
    {
        let json = [args, &["--progress=json"]].concat();
        let ran = given.run(&json).exits(0).prints("5 tables, 8 rows");
        let steps = told(&ran.stderr);
        assert_eq!(steps[..TABLES.len()], TABLES, "{args:?}");
        assert_eq!(steps[TABLES.len()..], ["schema-finished", "run-finished"]);
        let events: Vec<Value> =
            ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events[0]["command"], args[0]);
        let finished = &events[events.len() - 2];
        assert_eq!(finished["outcome"], "done");
        assert_eq!(finished["result"], "5 tables, 8 rows");
        assert_eq!(finished["tenant"], events[2]["tenant"]);

        // Once more: it is taken by now.
        let ran = given.run(&json).exits(7);
        let last = ran.stderr.lines().rfind(|line| line.contains("schema-finished"));
        let failed: Value = serde_json::from_str(last.unwrap()).unwrap();
        assert_eq!(failed["outcome"], "failed");
        assert!(failed["message"].as_str().unwrap().contains("is taken by"));
        ran.says("\nerror: slug '").prints_nothing();
    }
}

#[test]
fn lines_say_the_same_and_quiet_says_nothing() {
    let given = Given::shop();
    let file = backup(&given);
    given
        .run(&["restore", &file, "--as=copy", "--progress=lines"])
        .exits(0)
        .says(
            "tenant_copy: step 1 of 8: structure\ntenant_copy: step 2 of 8: table price_history\n",
        )
        .says("tenant_copy: step 8 of 8: comparison with the backup\n")
        .never_says("1 schema");
    // Without --progress=lines only what takes long is printed.
    given.run(&["restore", &file, "--as=quick"]).exits(0).never_says("step");
    large(&given, "tenant_copy");
    given
        .run(&["clone-tenant", "--from=copy", "--slug=clone", "--progress=none"])
        .exits(0)
        .never_says("step");
    given
        .run(&["drop-schema", "--tenant=copy", "--force", "--verbose"])
        .exits(0)
        .says("tenant_copy: step 1 of 3: tables and views 1 to 50 of 65\n")
        .says("tenant_copy: step 3 of 3: the schema\n")
        .prints("✓ Dropped tenant 'copy'");
    for args in [
        &["restore", &file, "--as=copy"][..],
        &["clone-tenant", "--from=acme", "--slug=other"],
        &["drop-schema", "--tenant=clone", "--force"],
        &["drop-schema", "--tenant=other", "--force", "--trash"],
        &["purge", "--all", "--force"],
    ] {
        let ran = given.run(&[args, &["--quiet"]].concat()).exits(0);
        assert_eq!(ran.stderr, "", "{args:?}");
        assert!(ran.stdout.starts_with("✓ "), "{args:?}");
    }
}

#[test]
fn a_purge_of_several_tells_each_of_them() {
    let given = Given::shop();
    large(&given, "tenant_acme");
    for slug in ["acme", "globex"] {
        given.run(&["drop-schema", "--tenant", slug, "--force", "--trash"]).exits(0);
    }
    let ran = given
        .run(&["purge", "--all", "--force", "--progress=json"])
        .exits(0)
        .prints("✓ Purged tenant 'acme'")
        .prints("✓ Purged tenant 'globex'");
    assert_eq!(
        told(&ran.stderr),
        [
            "run-started",
            "schema-started",
            "1/1 the schema",
            "schema-finished",
            "schema-started",
            "1/3 tables and views 1 to 50 of 65",
            "2/3 tables and views 51 to 65 of 65",
            "3/3 the schema",
            "schema-finished",
            "run-finished"
        ]
    );
}

#[test]
fn a_drop_on_a_terminal_shows_its_pieces_and_who_is_waited_for() {
    let given = Given::shop();
    large(&given, "tenant_acme");
    let lock =
        format!("SELECT pg_advisory_xact_lock({CLASS}, 'tenant_acme'::regnamespace::oid::int4)");
    let holder = Holder::of(&given, &lock);
    let args = ["drop-schema", "--tenant=acme", "--force"];
    let mut terminal = OnTerminal::start(&given, &args);
    terminal.shows("the bar and the holder", |screen| {
        screen.contains("dropping  0/3  ──") && screen.contains("waiting for lock (held by pid ")
    });
    holder.let_go(&given);
    let (code, screen) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("✓ Dropped tenant 'acme'"), "{screen}");
    assert!(!screen.contains("dropping"), "{screen}");
}

#[test]
fn an_interrupt_ends_it_and_says_what_to_do() {
    let given = Given::shop();
    large(&given, "tenant_acme");
    let holder = Holder::of(&given, "LOCK TABLE tenant_acme.users IN ACCESS SHARE MODE");
    let args = ["drop-schema", "--tenant=acme", "--force", "--lock-timeout=0"];
    let drop = given.spawn(&args);
    eventually("the drop waits for the table", || {
        given.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "1"
    });
    drop.signal(Signal::INT);
    drop.wait()
        .exits(130)
        .says("error: interrupted; ")
        .says("hint: run the same command again: it finishes the work")
        .prints_nothing();
    holder.let_go(&given);
    all_have_ended(&given);
    given.run(&["drop-schema", "--tenant=acme", "--force"]).exits(0);
    assert_eq!(
        given.value("SELECT count(*) FROM pg_namespace WHERE nspname ~ 'acme|dropping'"),
        "0"
    );
}
