//! `.env`: variables that the environment does not have.

use crate::support::pricesync::{Given, Ran};

/// Runs a command without the variable that names the test's database.
fn run(given: &Given, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = given.command(args);
    command.env_remove("PRICESYNC_DATABASE_URL");
    command.envs(variables.iter().copied());
    Ran::from(args, command.output().unwrap())
}

#[test]
fn a_dotenv_file_sets_what_the_environment_lacks() {
    let given = Given::tenants(&["a"]);
    let url = given.database.url();
    run(&given, &["list-tenants"], &[]).exits(2).says("no database is configured");
    given.file(".env", format!("# the database\nexport DATABASE_URL='{url}'\nPRICESYNC_JOBS=3\n"));
    run(&given, &["list-tenants", "-o", "names"], &[]).exits(0).prints("a\n");
    let ran = run(&given, &["config", "-o", "csv"], &[("PRICESYNC_JOBS", "2")]);
    let origin = format!("$DATABASE_URL in {}", given.dir.path().join(".env").display());
    ran.exits(0).prints(&origin).prints("run.jobs,2,$PRICESYNC_JOBS\n");
    // From a folder below, as pricesync.toml is found.
    given.file("migrations/shared/.keep", "");
    let mut command = given.command(&["list-tenants", "-o", "names"]);
    command
        .env_remove("PRICESYNC_DATABASE_URL")
        .current_dir(given.dir.path().join("migrations/shared"));
    Ran::from(&["list-tenants"], command.output().unwrap()).exits(0).prints("a\n");
}

#[test]
fn a_password_in_it_is_never_shown() {
    let given = Given::nothing();
    given.file(".env", "PGHOST=db.invalid\nPGPASSWORD=never-seen\n");
    run(&given, &["config"], &[])
        .exits(0)
        .prints("********")
        .prints("PGPASSWORD in ")
        .never_says("never-seen");
    given.file(".env", "PGPASSWORD never-seen\n");
    run(&given, &["config"], &[]).exits(2).says(".env: ").never_says("never-seen");
}
