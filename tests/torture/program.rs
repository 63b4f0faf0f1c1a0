//! The program under test in a project folder of its own.

use std::fs::{self, File};
use std::io::{Read, Seek, Write as _};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any limit of the program's own that these trials meet.
const PATIENCE: Duration = Duration::from_mins(10);

/// A project folder.
pub(crate) struct Project(tempfile::TempDir);

/// The program, running.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: File,
    stderr: File,
}

/// How it ended.
pub(crate) struct Ran {
    /// The exit code; none after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Whether it had to be killed because it did not end.
    pub(crate) hung: bool,
}

impl Project {
    /// A project with empty migration folders.
    pub(crate) fn new() -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        project.file("pricesync.toml", "");
        for set in ["shared", "tenant"] {
            fs::create_dir_all(project.0.path().join("migrations").join(set)).unwrap();
        }
        project
    }

    /// A project with the migrations that the repository ships.
    pub(crate) fn shipped() -> Self {
        let project = Self::new();
        copy(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations"),
            &project.0.path().join("migrations"),
        );
        project
    }

    /// Writes a file of the project.
    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Gives the only file of a folder another name.
    pub(crate) fn rename_only(&self, folder: &str, name: &str) {
        let mut files = fs::read_dir(self.0.path().join(folder)).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none(), "one file in {folder}");
        fs::rename(file, self.0.path().join(name)).unwrap();
    }

    /// Starts the program against a database.
    pub(crate) fn spawn(&self, url: &str, args: &[&str]) -> Running {
        // Only commands that ask for a password read it.
        let mut stdin = tempfile::tempfile().unwrap();
        writeln!(stdin, "a secret").unwrap();
        stdin.rewind().unwrap();
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_pricesync"))
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.0.path())
            .env("LANG", "C.UTF-8")
            .env("PRICESYNC_DATABASE_URL", url)
            .stdin(stdin)
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        Running { child, stdout, stderr }
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, url: &str, args: &[&str]) -> Ran {
        self.spawn(url, args).wait()
    }

    /// Runs the program for what is only a preparation.
    pub(crate) fn must(&self, url: &str, args: &[&str]) {
        let ran = self.run(url, args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.everything());
    }
}

impl Running {
    /// Waits for its end, at most for the time limit.
    pub(crate) fn wait(mut self) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        let mut hung = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                hung = true;
                self.child.kill().unwrap();
                break self.child.wait().unwrap();
            }
            thread::sleep(Duration::from_millis(3));
        };
        let read = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ran {
            code: status.code(),
            stdout: read(&mut self.stdout),
            stderr: read(&mut self.stderr),
            hung,
        }
    }
}

impl Ran {
    /// Returns how it ended and what it said, on few lines.
    pub(crate) fn everything(&self) -> String {
        format!("exit {:?}\n{}\n{}", self.code, self.stdout.trim_end(), self.stderr.trim_end())
    }
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
