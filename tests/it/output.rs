//! What scripts read: streams, lines, JSON, help.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::pricesync::{Given, Ran, redact};

/// Two tenants and one file each for them and for `public`.
fn two() -> Given {
    let given = Given::tenants(&["acme", "globex"]);
    given.shared_file("V2__rates.sql", "CREATE TABLE rates (id int);\n");
    given.tenant_file("V1__products.sql", "CREATE TABLE products (id int);\n");
    given
}

#[test]
fn a_run_of_one_job_reads_as_the_contract_says() {
    let given = two();
    let told = given.run(&["migrate-schemas", "--jobs", "1"]).exits(0).prints_nothing();
    assert_eq!(
        redact(&told.stderr),
        "Running migrations for schema 'public'...\n\
         ✓ Migrated V2__rates TIME\n\
         ✓ Done\n\
         [1/2] Running migrations for schema 'tenant_acme'...\n\
         ✓ Migrated V1__products TIME\n\
         ✓ Done\n\
         [2/2] Running migrations for schema 'tenant_globex'...\n\
         ✓ Migrated V1__products TIME\n\
         ✓ Done\n\
         run 2: 3 schemas, 3 migrated, 0 up to date, 0 failed, 0 skipped, 0 not started · TIME\n"
    );
}

#[test]
fn json_progress_is_one_object_a_line_with_version_and_schema() {
    let given = two();
    let told = given.run(&["migrate-schemas", "--progress", "json"]).exits(0).prints_nothing();
    let events: Vec<Value> = told
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    assert!(events.iter().all(|event| event["v"] == 1), "{}", told.stderr);
    let of_scripts: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "script-finished")
        .map(|event| event["schema"].as_str().expect("it has a schema"))
        .collect();
    assert_eq!(of_scripts.len(), 3);
    assert_eq!(of_scripts[0], "public");
    assert!(of_scripts.contains(&"tenant_acme") && of_scripts.contains(&"tenant_globex"));
}

#[test]
fn the_summary_in_json_is_one_document_on_stdout() {
    let given = two();
    given.tenant_file("V2__bad.sql", "SELECT 1/0;\n");
    let told = given.run(&["migrate-schemas", "-o", "json", "--on-failure", "continue"]).exits(10);
    let document: Value = serde_json::from_str(&told.stdout).unwrap();
    let text = document.to_string();
    for words in ["tenant_acme", "tenant_globex", "22012", "V2__bad"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
}

#[test]
fn quiet_says_nothing_of_success_and_all_of_failure() {
    let given = two();
    let told = given.run(&["-q", "migrate-schemas"]).exits(0).prints_nothing();
    assert_eq!(told.stderr, "");
    given.tenant_file("V2__bad.sql", "SELECT 1/0;\n");
    given.run(&["-q", "migrate-schemas", "--tenant=acme"]).exits(10).says("22012");
}

#[test]
fn colour_is_for_terminals_unless_it_is_wanted() {
    let given = two();
    given.run(&["migrate-schemas", "--shared"]).exits(0).never_says("\u{1b}");
    given.run(&["migrate-schemas", "--tenant=acme", "--color", "always"]).exits(0).says("\u{1b}[");
}

#[test]
fn every_command_explains_itself() {
    let given = Given::nothing();
    let help = given.run(&["--help"]).exits(0).stdout;
    let commands =
        help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let names: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.contains(&"migrate-schemas") && names.len() >= 10, "{names:?}");
    for name in names {
        given.run(&[name, "--help"]).exits(0).prints("Usage: pricesync");
    }
    let table = given.run(&["help", "exit-codes"]).exits(0).stdout;
    for code in ["0", "1", "2", "3", "4", "5", "6", "7", "10", "11", "130"] {
        assert!(
            table.lines().any(|line| line.split_whitespace().next() == Some(code)),
            "{code} is not in {table}"
        );
    }
    given.run(&["migrate-schemas", "--nonsense"]).exits(2);
}

#[test]
fn a_password_is_never_shown() {
    let given = Given::nothing();
    let secret = "s3cr3t-w0rd";
    let url = format!("postgresql://app:{secret}@127.0.0.1:1/x?connect_timeout=2");
    for args in [
        vec!["config"],
        vec!["--help"],
        vec!["migrate-schemas", "--help"],
        vec!["list-tenants"],
        vec!["-vv", "migrate-schemas"],
    ] {
        let output = given.command(&args).env("PRICESYNC_DATABASE_URL", &url).output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8(all).unwrap();
        assert!(!all.is_empty() && !all.contains(secret), "{args:?}: {all}");
    }
    given.file("pricesync.toml", format!("[database]\nurl = \"{url}\"\n"));
    let path = given.dir.path().join("pricesync.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = given.command(&["config"]).env_remove("PRICESYNC_DATABASE_URL").output().unwrap();
    let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(all.contains("127.0.0.1") && !all.contains(secret), "{all}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let given = two();
    given.database.execute(
        "INSERT INTO tenants_tenant (schema_name, name, slug) \
         SELECT 's' || n, 'n', 's' || n FROM generate_series(1, 3000) n",
    );
    let output = std::process::Command::new("bash")
        .args(["-c", "set -o pipefail; \"$0\" list-tenants -o names | head -n 1"])
        .arg(crate::support::pricesync::PROGRAM)
        .env("PRICESYNC_DATABASE_URL", given.database.url())
        .current_dir(given.dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "acme\n");
}

#[test]
fn what_the_database_says_cannot_act_on_a_terminal() {
    let given = Given::tenants(&["acme"]);
    given.database.execute("UPDATE tenants_tenant SET name = E'A\u{1b}[2Jcme\\nforged\u{202e}'");
    given.tenant_file(
        "V1__raise.sql",
        "DO $$ BEGIN RAISE EXCEPTION E'\\x1b]0;owned\\x07 \u{202e}gone'; END $$",
    );
    for args in [
        &["list-tenants"][..],
        &["list-tenants", "--format", "names"],
        &["status"],
        &["migrate-schemas"],
        &["migrate-schemas", "--progress", "lines"],
    ] {
        let told = given.run(args).told();
        for text in [&told.stdout, &told.stderr] {
            assert!(
                !text.contains(['\u{1b}', '\u{7}', '\u{202e}']) && !text.contains("\nforged"),
                "{args:?}: {text:?}"
            );
        }
    }
}

#[test]
fn a_quiet_init_writes_its_files_and_says_nothing() {
    let given = Given::nothing();
    given.run(&["init", "new"]).exits(0).prints("written new/");
    let told = given.run(&["-q", "init", "newer"]).exits(0);
    assert_eq!(told.stdout + &told.stderr, "");
    assert!(given.dir.path().join("newer/pricesync.toml").exists());
}

#[test]
fn a_server_without_tls_is_not_asked_whether_it_is_up() {
    // It answers the request for TLS, and has none.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 8]);
            let _ = std::io::Write::write_all(&mut stream, b"N");
        }
    });
    let given = Given::nothing();
    let args = ["list-tenants"];
    let url = format!("postgresql://someone@{address}/x?sslmode=require");
    let output = given.command(&args).env("PRICESYNC_DATABASE_URL", url).output().unwrap();
    Ran::from(&args, output).exits(5).says("ssl = off").never_says("is the server up?");
}
