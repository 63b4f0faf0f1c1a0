//! The program under test in a project of its own, against a database of its own.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use super::database::Database;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_pricesync");

/// The shared set that the repository ships, in short: only the tables that name tenants.
const TENANTS: &str = include_str!("../../../migrations/shared/tenants/V1__tenants.sql");

/// The variable that says where a program built to measure coverage keeps its counts; it has to
/// reach every program of ours whose environment is cleared.
pub(crate) fn profile() -> Option<(&'static str, OsString)> {
    const NAME: &str = "LLVM_PROFILE_FILE";
    env::var_os(NAME).map(|file| (NAME, file))
}

/// A project folder and its database: what a story begins with.
pub(crate) struct Given {
    pub(crate) database: Database,
    pub(crate) dir: tempfile::TempDir,
}

impl Given {
    /// A project without any migration, and an empty database.
    pub(crate) fn nothing() -> Self {
        let given = Self { database: Database::create(), dir: tempfile::tempdir().unwrap() };
        given.file("pricesync.toml", "");
        for set in ["shared", "tenant"] {
            fs::create_dir_all(given.dir.path().join("migrations").join(set)).unwrap();
        }
        given
    }

    /// A project with the migrations that the repository ships, and an empty database.
    pub(crate) fn shipped() -> Self {
        let given = Self::nothing();
        copy(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations"),
            &given.dir.path().join("migrations"),
        );
        given
    }

    /// Two tenants with the shipped migrations.
    pub(crate) fn shop() -> Self {
        let given = Self::shipped();
        given.run(&["migrate-schemas"]).exits(0);
        for slug in ["acme", "globex"] {
            given
                .run(&[
                    "create-tenant",
                    "--name",
                    slug,
                    "--slug",
                    slug,
                    "--domain",
                    &format!("{slug}.test"),
                ])
                .exits(0);
        }
        given
    }

    /// A project whose `public` is migrated, with these tenants, whose schemas are empty.
    pub(crate) fn tenants(slugs: &[&str]) -> Self {
        let given = Self::nothing();
        given.shared_file("V1__tenants.sql", TENANTS);
        given.run(&["migrate-schemas", "--shared"]).exits(0);
        let mut sql = String::new();
        for slug in slugs {
            let _ = write!(sql, "{};", insert_tenant(slug, &format!("tenant_{slug}")));
        }
        given.database.execute(&sql);
        given
    }

    /// Adds a tenant with an empty schema of any name.
    pub(crate) fn tenant_in(&self, slug: &str, schema: &str) {
        self.database.execute(&insert_tenant(slug, schema));
    }

    /// Writes a migration of the tenant set.
    pub(crate) fn tenant_file(&self, name: &str, sql: impl AsRef<[u8]>) {
        self.file(&format!("migrations/tenant/{name}"), sql);
    }

    /// Writes a migration of the shared set.
    pub(crate) fn shared_file(&self, name: &str, sql: impl AsRef<[u8]>) {
        self.file(&format!("migrations/shared/{name}"), sql);
    }

    /// Writes any file of the project.
    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Removes a migration of the tenant set.
    pub(crate) fn remove_tenant_file(&self, name: &str) {
        fs::remove_file(self.dir.path().join("migrations/tenant").join(name)).unwrap();
    }

    /// Returns the command line, to be run in the project; nothing of the caller's environment is in it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("LANG", "C.UTF-8")
            .env("PRICESYNC_DATABASE_URL", self.database.url())
            .envs(profile())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(args, self.command(args).output().unwrap())
    }

    /// Starts the program and returns at once.
    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        self.spawn_with(args, &[])
    }

    /// The same with these environment variables.
    pub(crate) fn spawn_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Running {
            args: args.iter().map(ToString::to_string).collect(),
            stderr: BufReader::new(child.stderr.take().unwrap()),
            child,
            heard: String::new(),
        }
    }

    /// Returns the first column of what a query brings, NULL as an empty text.
    pub(crate) fn column(&self, sql: &str) -> Vec<String> {
        let rows = self.database.query(sql);
        rows.into_iter().map(|mut row| row.swap_remove(0).unwrap_or_default()).collect()
    }

    /// Returns the first value that a query brings.
    pub(crate) fn value(&self, sql: &str) -> String {
        self.column(sql).into_iter().next().unwrap_or_default()
    }

    /// Returns the versions that the history of a schema holds, in order.
    pub(crate) fn history(&self, schema: &str) -> Vec<String> {
        self.column(&format!(
            "SELECT version FROM {}.refinery_schema_history ORDER BY version",
            quoted(schema)
        ))
    }

    /// Returns the names of the relations of a kind ('r' tables, 'i' indexes, ...) in a schema.
    pub(crate) fn relations(&self, schema: &str, kind: char) -> Vec<String> {
        self.column(&format!(
            "SELECT relname FROM pg_class WHERE relnamespace = {}::regnamespace AND relkind = '{kind}' ORDER BY 1",
            literal(&quoted(schema))
        ))
    }

    /// Returns everything in these schemas as `pg_dump` writes it, without what differs between
    /// two dumps and without the record of runs.
    pub(crate) fn dump(&self, options: &[&str]) -> String {
        self.dump_all(&[options, &["-N", "pricesync"]].concat())
    }

    /// The same, with the record of runs.
    pub(crate) fn dump_all(&self, options: &[&str]) -> String {
        let output = Command::new("pg_dump")
            .args(options)
            .args(["-d", self.database.url()])
            .output()
            .expect("pg_dump is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pg_dump {options:?}: {errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        // A newer pg_dump resets what an older server does not know.
        let differs = ["\\restrict", "\\unrestrict", "SET transaction_timeout"];
        // Some servers keep a count of a column's versions among its options.
        let counted = |line: &str| line.contains(" SET (pg_attver=");
        text.lines()
            .filter(|line| !differs.iter().any(|begin| line.starts_with(begin)) && !counted(line))
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

/// The program, running.
#[must_use = "a program that the test does not wait for may outlive the test's database"]
pub(crate) struct Running {
    args: Vec<String>,
    child: Child,
    stderr: BufReader<ChildStderr>,
    heard: String,
}

impl Running {
    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Reads its standard error until these words were said.
    #[track_caller]
    pub(crate) fn hears(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            let more = self.stderr.read_line(&mut line).unwrap();
            assert!(more > 0, "{words:?} was never said: {}", self.heard);
            self.heard.push_str(&line);
        }
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ran {
        self.stderr.read_to_string(&mut self.heard).unwrap();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let mut output = self.child.wait_with_output().unwrap();
        output.stderr = self.heard.into_bytes();
        Ran::from(&args, output)
    }
}

/// How the program ended, not judged yet.
#[must_use = "say which exit code is expected"]
pub(crate) struct Ran {
    told: Told,
    code: Option<i32>,
}

impl Ran {
    pub(crate) fn from(args: &[&str], output: Output) -> Self {
        Self {
            told: Told {
                line: format!("pricesync {}", args.join(" ")),
                stdout: String::from_utf8(output.stdout).unwrap(),
                stderr: String::from_utf8(output.stderr).unwrap(),
            },
            code: output.status.code(),
        }
    }

    /// Expects an exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Told {
        assert_eq!(self.code, Some(code), "the exit code of {}", self.told.everything());
        self.told
    }

    /// Returns the exit code; none after a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.code
    }

    /// Returns what it wrote to the standard output, whatever the exit code was.
    pub(crate) fn stdout(&self) -> &str {
        &self.told.stdout
    }

    /// Returns what it said, whatever the exit code was.
    pub(crate) fn told(self) -> Told {
        self.told
    }
}

/// How many schemas a run left in which state.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) migrated: usize,
    pub(crate) up_to_date: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    pub(crate) not_started: usize,
}

/// No schema in any state.
pub(crate) const NONE: Counts =
    Counts { migrated: 0, up_to_date: 0, failed: 0, skipped: 0, not_started: 0 };

/// What the program said.
pub(crate) struct Told {
    line: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Told {
    /// Expects words on the standard error.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(
            self.stderr.contains(words),
            "{words:?} is not on the standard error of {}",
            self.everything()
        );
        self
    }

    /// Expects that words are nowhere.
    #[track_caller]
    pub(crate) fn never_says(self, words: &str) -> Self {
        assert!(
            !self.stderr.contains(words) && !self.stdout.contains(words),
            "{words:?} is in {}",
            self.everything()
        );
        self
    }

    /// Expects words on the standard output.
    #[track_caller]
    pub(crate) fn prints(self, words: &str) -> Self {
        assert!(
            self.stdout.contains(words),
            "{words:?} is not on the standard output of {}",
            self.everything()
        );
        self
    }

    /// Expects nothing on the standard output.
    #[track_caller]
    pub(crate) fn prints_nothing(self) -> Self {
        assert_eq!(self.stdout, "", "{}", self.everything());
        self
    }

    /// Expects the summary line of a run.
    #[track_caller]
    pub(crate) fn counts(self, counts: Counts) -> Self {
        let Counts { migrated, up_to_date, failed, skipped, not_started } = counts;
        let rest = format!(
            "{up_to_date} up to date, {failed} failed, {skipped} skipped, {not_started} not started"
        );
        let recorded = format!(" {migrated} recorded, {rest}");
        if self.stderr.contains(&recorded) {
            return self;
        }
        self.says(&format!(" {migrated} migrated, {rest}"))
    }

    fn everything(&self) -> String {
        format!("{}\n--- stdout\n{}\n--- stderr\n{}", self.line, self.stdout, self.stderr)
    }
}

/// Replaces what differs from run to run: times and process ids.
pub(crate) fn redact(text: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            let unit = words[at].trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned();
            let number = words[at - 1].trim_start_matches('(');
            if ["ms", "s", "min"].contains(&unit.as_str()) && number.parse::<f64>().is_ok() {
                "TIME".clone_into(&mut words[at - 1]);
                words[at] = words[at].replacen(&unit, "", 1);
                if at > 1 && words[at - 2] == "<" {
                    words[at - 2].clear();
                }
            }
            if words[at - 1] == "pid" {
                "PID".clone_into(&mut words[at]);
            }
        }
        let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let _ = writeln!(out, "{indent}{}", words.join(" "));
        out
    })
}

/// Returns a name as an SQL identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns a text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn insert_tenant(slug: &str, schema: &str) -> String {
    format!(
        "INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ({}, {}, {}); CREATE SCHEMA {}",
        literal(schema),
        literal(slug),
        literal(slug),
        quoted(schema)
    )
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_differs_from_run_to_run_is_redacted() {
    let text = "✓ Migrated V1__a      12 ms\n  < 1 ms, held by pid 41 (x), 0.21 s · for 5 s.";
    assert_eq!(
        redact(text),
        "✓ Migrated V1__a TIME\n  TIME , held by pid PID (x), TIME · for TIME .\n"
    );
}
