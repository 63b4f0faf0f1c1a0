//! Pages whose `console` blocks are run, and must print what they show.
//!
//! The blocks of a page run in order, in one empty folder with its own server. Lines that begin
//! with `$ ` are commands for `sh`; what follows is what they print, on stdout and stderr together.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::pricesync::{PROGRAM, profile};

/// A command of a page with the output it shows.
struct Step {
    /// Line of the page, from 1.
    line: usize,
    command: String,
    output: Vec<String>,
}

/// Returns the commands of all `console` blocks.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (index, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: index + 1, command: command.to_owned(), output: Vec::new() });
        } else {
            let step = steps.last_mut().expect("a block begins with a command");
            step.output.push(line.to_owned());
        }
    }
    steps
}

/// A folder that its commands see as the whole world.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The server's user shall reach it when root runs the tests.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    /// Runs a line of shell and returns what it printed, without blank lines at the end.
    fn run(&self, command: &str) -> Vec<String> {
        let programs = Path::new(PROGRAM).parent().unwrap();
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = [programs.to_owned()].into_iter().chain(env::split_paths(&path));
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1 </dev/null; {command}")])
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", env::join_paths(folders).unwrap())
            .env("HOME", self.0.path())
            .env("LC_ALL", "C.UTF-8")
            .envs(env::var_os("PRICESYNC_PG_BIN").map(|bin| ("PRICESYNC_PG_BIN", bin)))
            .envs(profile())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim_end().lines().map(str::to_owned).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.run("pricesync server destroy --force");
    }
}

/// Takes out of a line what differs from run to run and from server to server: times, sizes,
/// estimates, the owner of public, and how wide that makes a column.
pub(crate) fn lasting(line: &str) -> String {
    let mut narrow = String::new();
    for c in line.trim_end().chars() {
        if !(" -─═".contains(c) && narrow.ends_with(c)) {
            narrow.push(c);
        }
    }
    let words: Vec<&str> = narrow.split(' ').collect();
    let mut lasting: Vec<&str> = Vec::new();
    for (index, &word) in words.iter().enumerate() {
        let next = words.get(index + 1).copied().unwrap_or_default();
        let is_amount = word.parse::<f64>().is_ok()
            && (["ms", "s", "bytes"].contains(&next)
                || next.starts_with("KiB")
                || lasting.last() == Some(&"about"));
        let moment = word.trim_end_matches(',');
        let is_moment = moment.len() == 20 && moment.contains('T') && moment.ends_with('Z');
        match word {
            "<" if next == "1" => {}
            "pg_database_owner" => lasting.push("postgres"),
            _ if is_amount => lasting.push("[amount]"),
            _ if is_moment => lasting.push("[moment]"),
            _ => lasting.push(word),
        }
    }
    lasting.join(" ")
}

/// Runs a page and compares; `at_least` so many commands, so that it cannot become empty unseen.
pub(crate) fn prints_what_it_shows(name: &str, page: &str, at_least: usize) {
    let steps = steps(page);
    assert!(steps.len() >= at_least, "{name} has shrunk");
    let folder = Folder::new();
    for step in steps {
        let printed = folder.run(&step.command);
        let compare =
            |lines: &[String]| -> Vec<String> { lines.iter().map(|line| lasting(line)).collect() };
        assert_eq!(
            compare(&printed),
            compare(&step.output),
            "{name}:{}: $ {}\nprinted:\n{}\n",
            step.line,
            step.command,
            printed.join("\n")
        );
    }
}
