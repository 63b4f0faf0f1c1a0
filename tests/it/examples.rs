//! Every example does what it says, and none is without a test.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::support::database::Database;

/// The program under test.
const PRICESYNC: &str = env!("CARGO_BIN_EXE_pricesync");

/// Everything in `examples/`; what is added there gets a test here.
const EXAMPLES: [&str; 4] = [
    "deploy",
    "embed_migrations.rs",
    "quickstart",
    "tenant_context.rs",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns what a command printed on stdout; panics with stderr when it fails.
fn printed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns a command for a built example. `cargo test` builds all of them; a run that was
/// told to build less does it here.
fn example(name: &str, database: &Database) -> Command {
    let tests = env::current_exe().unwrap();
    let program: PathBuf = [tests.ancestors().nth(2).unwrap(), Path::new("examples")]
        .iter()
        .collect::<PathBuf>()
        .join(name);
    if !program.exists() {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--example", name])
            .current_dir(repository())
            .status();
        assert!(built.unwrap().success());
    }
    let mut command = Command::new(program);
    command.env("DATABASE_URL", database.url());
    command
}

/// Runs pricesync on a database, away from any configuration but the repository's migrations.
fn pricesync(database: &Database, args: &[&str]) -> String {
    let output = Command::new(PRICESYNC)
        .args(args)
        .args(["--database-url", database.url()])
        .current_dir(repository())
        .output();
    printed(&output.unwrap())
}

fn create_acme(database: &Database, how: &[&str]) {
    pricesync(database, &["migrate-schemas", "--shared"]);
    let create = ["create-tenant", "--name", "Acme Inc.", "--slug", "acme"];
    let host = ["--domain", "acme.example.com"];
    pricesync(database, &[&create[..], &host, how].concat());
}

#[test]
fn every_example_is_known() {
    let entries = fs::read_dir(repository().join("examples")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, EXAMPLES);
}

#[test]
fn quickstart_goes_from_an_empty_database_to_two_migrated_tenants() {
    let database = Database::create();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copied = Command::new("cp")
        .arg("-R")
        .arg(repository().join("examples/quickstart/."))
        .arg(dir.path())
        .status();
    assert!(copied.unwrap().success());
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = Path::new(PRICESYNC).parent().unwrap().to_owned();
    let path = env::join_paths([programs].into_iter().chain(env::split_paths(&path))).unwrap();
    // The second time there is nothing left to do, and it says the same.
    for _ in 0..2 {
        let output = Command::new("sh")
            .arg(dir.path().join("run.sh"))
            .env("PATH", &path)
            .env("DATABASE_URL", database.url())
            .output();
        let printed = printed(&output.unwrap());
        assert!(
            printed.contains("\n1,Acme Inc.,acme,tenant_acme,acme.example.com,2,0,up to date,")
        );
        assert!(printed.contains(",Globex Corp.,globex,tenant_globex,globex.example.com,2,0,"));
    }
    let run = fs::read_to_string(dir.path().join("run.json")).unwrap();
    assert!(run.contains("\"up-to-date\": 3"), "{run}");
}

#[test]
fn embed_migrations_brings_every_tenant_to_the_newest_version() {
    let database = Database::create();
    create_acme(&database, &["--no-migrate"]);
    let output = example("embed_migrations", &database).output().unwrap();
    printed(&output);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("Migrated V8__user_locale"), "{told}");
    assert!(told.contains("2 schemas: 1 migrated, 1 up to date, 0 failed"));
    // The embedded files are all files.
    pricesync(&database, &["migrate-schemas", "--check"]);
}

#[test]
fn embed_migrations_does_not_serve_when_a_tenant_is_at_odds() {
    let database = Database::create();
    create_acme(&database, &[]);
    // A history that another tool left like this, on a database that has no ledger yet.
    database.execute(
        "DELETE FROM tenant_acme.refinery_schema_history WHERE version = 1; DROP SCHEMA pricesync CASCADE",
    );
    let output = example("embed_migrations", &database).output().unwrap();
    assert_eq!(output.status.code(), Some(11));
}

#[test]
fn tenant_context_works_as_the_tenant_and_gives_the_connection_back_clean() {
    let database = Database::create();
    create_acme(&database, &[]);
    let row = "INSERT INTO tenant_acme.products (sku, name, price) VALUES ('A-1', 'Anvil', 120)";
    database.execute(row);
    let output = example("tenant_context", &database)
        .arg("Acme.example.com:8443")
        .output()
        .unwrap();
    assert_eq!(
        printed(&output),
        "Acme Inc.: 1 products in tenant_acme; afterwards the connection sees public\n"
    );
    let unknown = example("tenant_context", &database)
        .arg("nobody.example.com")
        .output()
        .unwrap();
    assert!(!unknown.status.success());
}
