//! The private server after something was killed, or vanished.

use std::fs::{self, TryLockError};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use pricesync::local::{self, Status};

use crate::support::database::{one, run};
use crate::support::eventually::eventually;
use crate::support::project::{Project, command_line, kill};

#[test]
fn after_kill_9_of_the_server_the_next_start_recovers_the_data() {
    let project = Project::new();
    let server = project.start();
    run(&server.url(), "CREATE TABLE kept AS SELECT 7 AS n").unwrap();
    let pid = project.pid().unwrap();
    kill(pid);
    let server = project.start();
    assert_ne!(project.pid(), Some(pid));
    assert_eq!(one(&server.url(), "SELECT n FROM kept"), "7");
}

#[test]
fn a_start_after_kill_9_of_the_supervisor_joins_the_server() {
    let project = Project::new();
    let server = project.start();
    let pid = project.pid();
    project.supervisors().into_iter().for_each(kill);
    eventually("the supervisor is gone", || project.supervisors().is_empty());
    assert_eq!(one(&server.url(), "SELECT 1"), "1");
    drop(server);
    let again = project.start();
    assert_eq!(project.pid(), pid);
    eventually("a new supervisor watches", || project.supervisors().len() == 1);
    drop(again);
    eventually("the server is stopped", || project.processes().is_empty());
}

#[test]
fn a_start_after_kill_9_of_server_and_supervisor_recovers() {
    let project = Project::new();
    let _server = project.start();
    project.supervisors().into_iter().for_each(kill);
    kill(project.pid().unwrap());
    let server = project.start();
    assert_eq!(one(&server.url(), "SELECT 1"), "1");
}

#[test]
fn after_kill_9_of_the_last_client_the_server_ends_by_itself() {
    let project = Project::new();
    let mut client = project.spawn_client();
    client.report();
    assert!(project.pid().is_some());
    client.kill();
    eventually("the server is stopped", || project.processes().is_empty());
    assert!(matches!(local::status(&project.options).unwrap(), Status::Stopped { .. }));
}

#[test]
fn ctrl_c_ends_the_client_but_not_the_server() {
    let project = Project::new();
    let mut client = project.spawn_client();
    let pid = client.report();
    let supervisors = project.supervisors();
    client.interrupt();
    let _server = project.start();
    assert_eq!(project.pid().map(|pid| pid.to_string()), Some(pid));
    assert_eq!(project.supervisors(), supervisors);
}

#[test]
fn a_stale_pid_file_does_not_keep_a_server_from_starting() {
    let project = Project::new();
    let data = project.start().data_dir().join("data");
    local::stop(&project.options).unwrap();
    // The server would believe any living process of its own user.
    let owner = fs::metadata(&data).unwrap().uid();
    let mut other = Command::new("sleep").arg("60").uid(owner).spawn().unwrap();
    let lines =
        format!("{}\n{}\n1\n5432\n/nowhere\n\n  1 1\nready   \n", other.id(), data.display());
    let file = data.join("postmaster.pid");
    fs::write(&file, lines).unwrap();
    chown(&file, Some(owner), None).unwrap();
    assert_eq!(project.pid(), None);
    let server = project.start();
    assert_eq!(one(&server.url(), "SELECT 1"), "1");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_deleted_directory_ends_its_server() {
    let project = Project::new();
    let server = project.start();
    // The server writes while we delete, which makes an `rm -r` fail now and then.
    eventually("the directory is deleted", || {
        fs::remove_dir_all(server.data_dir()).is_ok() || !server.data_dir().exists()
    });
    eventually("the server is gone", || project.processes().is_empty());
    assert_eq!(one(&project.start().url(), "SELECT 1"), "1");
}

#[test]
fn a_killed_initdb_leaves_nothing_half_made() {
    let project = Project::new();
    let programs = project.programs("echo 15 > \"$2/PG_VERSION\"; echo almost; kill -9 $$");
    let mut client = project.spawn_client_with(&[("PRICESYNC_PG_BIN", &programs)]);
    let report = client.report();
    assert!(report.starts_with("initdb failed: almost"), "{report}");
    client.kill();
    assert!(matches!(local::status(&project.options).unwrap(), Status::NotCreated { .. }));
    assert_eq!(one(&project.start().url(), "SELECT 1"), "1");
}

#[test]
fn an_initdb_that_outlives_its_client_is_waited_for() {
    let project = Project::new();
    let programs = project.programs("touch \"$2/started\"; exec sleep 600");
    let client = project.spawn_client_with(&[("PRICESYNC_PG_BIN", &programs)]);
    let started = project.options.data_dir.join("data.new/started");
    let sleeper = || {
        let mut pids = project.processes();
        pids.retain(|pid| command_line(*pid).starts_with("sleep"));
        pids.first().copied()
    };
    eventually("initdb runs", || started.exists() && sleeper().is_some());
    client.kill();
    let orphan = sleeper().expect("initdb outlives its client");
    let lock = fs::File::open(project.options.data_dir.join("lock")).unwrap();
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    std::thread::scope(|scope| {
        let start = scope.spawn(|| project.start());
        kill(orphan);
        assert_eq!(one(&start.join().unwrap().url(), "SELECT 1"), "1");
    });
    assert!(!started.exists());
}
