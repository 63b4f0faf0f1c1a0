//! A project with a private server of its own, for tests that stop, kill and delete it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pricesync::local::{self, LocalOptions, LocalServer, Status};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::server;

/// Tells the test `local_server::client_of_another_test` that it is one.
pub(crate) const CLIENT_OF: &str = "PRICESYNC_TEST_CLIENT_OF";

/// A project directory with a server of its own, destroyed at the end.
pub(crate) struct Project {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) options: LocalOptions,
}

impl Project {
    /// A project in a fresh directory that every user may enter.
    pub(crate) fn new() -> Self {
        Self::beneath("app")
    }

    /// A project in these folders of a fresh directory.
    pub(crate) fn beneath(folders: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The server's user shall reach the project when root runs the tests.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data_dir = dir.path().join(folders).join(".pricesync/postgres");
        let options = server::options(&data_dir, Duration::from_secs(1));
        Self { dir, options }
    }

    /// Starts or joins its server, in this process.
    pub(crate) fn start(&self) -> LocalServer {
        LocalServer::start(&self.options).unwrap()
    }

    /// Returns the server's process id, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match local::status(&self.options).unwrap() {
            Status::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// Returns the processes that have this project in their command line or work in it.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_of(&self.options.data_dir)
    }

    /// Returns those of the processes that are supervisors.
    pub(crate) fn supervisors(&self) -> Vec<u32> {
        let mut pids = self.processes();
        pids.retain(|pid| command_line(*pid).contains(local::SUPERVISE));
        pids
    }

    /// Starts or joins its server, in another process.
    pub(crate) fn spawn_client(&self) -> Client {
        self.spawn_client_with(&[])
    }

    /// The same with these environment variables.
    pub(crate) fn spawn_client_with(&self, variables: &[(&str, &Path)]) -> Client {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "local_server::client_of_another_test"])
            .args(["--ignored", "--nocapture"])
            .env(CLIENT_OF, &self.options.data_dir)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A job of its own, as a shell would make it: Ctrl-C can then be played.
            .process_group(0)
            .spawn()
            .unwrap();
        Client(child)
    }

    /// Makes a directory with these shell scripts as the server's programs.
    pub(crate) fn programs(&self, initdb: &str) -> PathBuf {
        let dir = self.dir.path().join("bin");
        let script = format!(
            "mkdir -p \"$1\" && cd \"$1\" && cat > initdb <<'END'\n#!/bin/sh\n{initdb}\nEND\n\
             printf '#!/bin/sh\\necho \"postgres (PostgreSQL) 15.0\"\\n' > postgres && \
             chmod 755 . initdb postgres"
        );
        // By a shell: a file that we write ourselves is "busy" while another test forks.
        let status = Command::new("sh").args(["-c", &script, "sh"]).arg(&dir).status().unwrap();
        assert!(status.success());
        dir
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = local::destroy(&self.options);
    }
}

/// Another process that uses the server until its standard input ends.
pub(crate) struct Client(Child);

impl Client {
    /// Returns what it says about its start: a process id, or an error.
    pub(crate) fn report(&mut self) -> String {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("client: ")?.1.to_owned()))
            .expect("a client reports")
    }

    /// Does what Ctrl-C does: SIGINT to it and to every child that is still in its group.
    pub(crate) fn interrupt(mut self) {
        kill_process_group(Pid::from_child(&self.0), Signal::INT).unwrap();
        self.0.wait().unwrap();
    }

    /// Kills it with SIGKILL, and not its children.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

/// Kills a process with SIGKILL.
pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// Returns a process's arguments, separated by NUL, or nothing for a zombie.
pub(crate) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn processes_of(data_dir: &Path) -> Vec<u32> {
    let text = data_dir.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            // A zombie has neither.
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            cwd.starts_with(data_dir) || command_line(*pid).contains(text)
        })
        .collect()
}
