//! What `examples/deploy` tells people to run does run, and ends as its comments say.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::support::pricesync::{Counts, Given, NONE, PROGRAM};

/// Everything in `examples/deploy`; what is added there is read by a test here.
const FILES: [&str; 10] = [
    "Dockerfile",
    "Dockerfile.dockerignore",
    "README.md",
    "crontab",
    "github-actions.yml",
    "helm/migrate-hook.yaml",
    "kubernetes-job.yaml",
    "systemd/pricesync-check.service",
    "systemd/pricesync-check.timer",
    "systemd/pricesync-migrate.service",
];

/// Where the templates keep backups.
const BACKUPS: &str = "/var/backups/pricesync";

/// Where the templates keep the project.
const PROJECT: &str = "/srv/shop";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deploy")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// A project with the shipped migrations and two tenants that are up to date.
fn fleet() -> Given {
    let given = Given::shipped();
    given.run(&["migrate-schemas", "--shared"]).exits(0);
    for slug in ["acme", "globex"] {
        let create = ["create-tenant", "--name", slug, "--slug", slug];
        given.run(&create).exits(0);
    }
    given
}

/// Runs a script in the project as a template would, with `pricesync` on the PATH.
fn script(given: &Given, shell: &[&str], text: &str) -> Output {
    let project = given.dir.path();
    let text = text
        .replace(PROJECT, project.to_str().unwrap())
        .replace(BACKUPS, project.join("backups").to_str().unwrap());
    let mut path = vec![Path::new(PROGRAM).parent().unwrap().to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new(shell[0]);
    command
        .args(&shell[1..])
        .arg(text)
        .envs(given.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", env::join_paths(path).unwrap())
        .env("GITHUB_OUTPUT", project.join("output"))
        .current_dir(project);
    command.output().unwrap()
}

fn everything(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    format!("{stdout}{stderr}")
}

/// Returns the `run: |` block of a step of the workflow, by the step's name.
fn step(name: &str) -> String {
    let workflow = read("github-actions.yml");
    let (_, step) = workflow.split_once(&format!("- name: {name}\n")).unwrap();
    if let Some(line) =
        step.lines().find_map(|line| line.trim().strip_prefix("run: ")).filter(|line| *line != "|")
    {
        return line.to_owned();
    }
    let (before, block) = step.split_once("run: |\n").unwrap();
    assert!(!before.contains("- name:"), "{name} has no block");
    block
        .lines()
        .take_while(|line| line.starts_with("          "))
        .fold(String::new(), |text, line| text + line.trim_start() + "\n")
}

/// GitHub's shell for `run:`.
const GITHUB: [&str; 4] = ["bash", "-eo", "pipefail", "-c"];

/// Returns the arguments of a `args: [...]` line, which is JSON.
fn container_args(file: &str) -> Vec<String> {
    let text = read(file);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("args: "));
    serde_json::from_str(line.unwrap()).unwrap()
}

/// Returns the values of a key of a unit.
fn unit_values(file: &str, key: &str) -> Vec<String> {
    let values = read(file);
    let values = values.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

/// Returns the jobs of the crontab as cron hands them to the shell.
fn cron_jobs() -> Vec<String> {
    let text = read("crontab");
    let jobs = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    jobs.map(|line| {
        let (_, command) = line.split_once("  pricesync  ").unwrap();
        command.replace("\\%", "%")
    })
    .collect()
}

#[test]
fn every_file_is_known() {
    let mut found = Vec::new();
    let mut folders = vec![folder()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(folder()).unwrap();
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert_eq!(found, FILES);
}

#[test]
fn containers_migrate_a_fleet() {
    for file in ["kubernetes-job.yaml", "helm/migrate-hook.yaml"] {
        let given = fleet();
        given.tenant_file("V99__more.sql", "CREATE TABLE more (id int);");
        let args = container_args(file);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        given.run(&args).exits(0).counts(Counts { migrated: 2, up_to_date: 1, ..NONE });
    }
}

#[test]
fn units_run_on_a_fleet_and_fail_when_they_say_so() {
    let given = fleet();
    let run = |file: &str| {
        let lines = unit_values(file, "ExecStart");
        let codes = lines.iter().map(|line| {
            let args: Vec<&str> =
                line.strip_prefix("/usr/bin/pricesync ").unwrap().split(' ').collect();
            given.run(&args).code().unwrap()
        });
        codes.collect::<Vec<_>>()
    };
    assert_eq!(run("systemd/pricesync-check.service"), [0, 0]);
    given.tenant_file("V99__more.sql", "CREATE TABLE more (id int);");
    assert_eq!(run("systemd/pricesync-check.service"), [0, 3]);
    assert_eq!(run("systemd/pricesync-migrate.service"), [0]);
    given.database.execute("DROP SCHEMA tenant_acme CASCADE");
    assert_eq!(run("systemd/pricesync-check.service")[0], 11);
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let units = FILES.iter().filter_map(|file| file.strip_prefix("systemd/"));
    let units: Vec<PathBuf> = units
        .map(|name| {
            let text = read(&format!("systemd/{name}"));
            let path = dir.path().join(name);
            fs::write(&path, text.replace("/usr/bin/pricesync", PROGRAM)).unwrap();
            path
        })
        .collect();
    // Manual pages are installed by the package, which is not on this machine.
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&units)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", everything(&output));
    let ours: Vec<String> = everything(&output)
        .lines()
        .filter(|line| line.contains("pricesync-"))
        .map(str::to_owned)
        .collect();
    assert_eq!(ours, Vec::<String>::new());
}

#[test]
fn cron_is_silent_while_all_is_well_and_mails_what_is_pending() {
    let given = fleet();
    let jobs = cron_jobs();
    assert_eq!(jobs.len(), 3);
    for job in &jobs {
        let output = script(&given, &["sh", "-c"], job);
        assert_eq!(everything(&output), "", "{job}");
        assert!(output.status.success(), "{job}");
    }
    let backups = fs::read_dir(given.dir.path().join("backups")).unwrap();
    let day = backups.into_iter().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(day).unwrap().count(), 2);

    given.tenant_file("V99__more.sql", "CREATE TABLE more (id int);");
    let told = everything(&script(&given, &["sh", "-c"], &jobs[2]));
    assert!(told.contains("2 with pending migrations"), "{told}");
}

#[test]
fn the_workflow_migrates_what_is_pending_and_fails_with_the_run() {
    let given = fleet();
    let output = || fs::read_to_string(given.dir.path().join("output")).unwrap();
    let run = |name: &str| script(&given, &GITHUB, &step(name));

    assert!(run("Lint").status.success());
    assert!(run("Is anything pending?").status.success());
    assert_eq!(output(), "pending=no\n");

    given.tenant_file("V99__more.sql", "CREATE TABLE more (id int);");
    assert!(run("Is anything pending?").status.success());
    assert_eq!(output(), "pending=no\npending=yes\n");
    let migrated = run("Migrate");
    assert!(migrated.status.success(), "{}", everything(&migrated));
    let summary = fs::read_to_string(given.dir.path().join("run.json")).unwrap();
    assert!(summary.contains("\"migrated\": 2"), "{summary}");

    given.tenant_file("V100__wrong.sql", "CREATE TABLE more (id int);");
    let failed = run("Migrate");
    assert_eq!(failed.status.code(), Some(10), "{}", everything(&failed));
    assert!(everything(&failed).contains("::error::some schemas failed"));

    given.file("migrations/tenant/V101__ends.sql", "COMMIT;");
    assert_eq!(run("Lint").status.code(), Some(2));
    assert_eq!(run("Is anything pending?").status.code(), Some(2));
}
