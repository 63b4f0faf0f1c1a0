//! The private server: starting, joining, dying and coming back.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pricesync::local::{self, LocalError, LocalServer, Status};
use rustix::process::geteuid;

use crate::support::database::{one, run};
use crate::support::eventually::eventually;
use crate::support::project::{CLIENT_OF, Client, Project};
use crate::support::server;

#[test]
#[ignore = "runs only as a child of the other tests"]
fn client_of_another_test() {
    let Some(data_dir) = env::var_os(CLIENT_OF) else {
        return;
    };
    let options = server::options(Path::new(&data_dir), Duration::from_secs(1));
    let result = LocalServer::start(&options);
    let report = match &result {
        Ok(server) => one(&server.url(), "SELECT pg_backend_pid() > 0, inet_server_port()"),
        Err(error) => error.to_string(),
    };
    let report = match local::status(&options) {
        Ok(Status::Running { pid, .. }) if result.is_ok() => pid.to_string(),
        _ => report,
    };
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\nclient: {report}").unwrap();
    stdout.flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Says that a test was not run, where the person who runs the tests can see it.
fn is_root(test: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        let _ = writeln!(std::io::stderr(), "skipped, not root: {test}");
    }
    is_root
}

#[test]
fn a_server_starts_from_nothing() {
    let project = Project::new();
    assert!(matches!(local::status(&project.options).unwrap(), Status::NotCreated { .. }));
    assert!(!project.dir.path().join("app").exists());
    let server = project.start();
    let ask = |sql: &str| one(&server.url(), sql);
    assert_eq!(ask("SELECT current_database()"), "pricesync");
    assert_eq!(ask("SELECT current_user"), "postgres");
    assert_eq!(ask("SHOW server_encoding"), "UTF8");
    assert_eq!(ask("SELECT upper('ộ')"), "Ộ");
    assert_eq!(ask("SHOW listen_addresses"), "");
    assert_eq!(ask("SHOW fsync"), "off");
    assert_eq!(ask("SHOW max_locks_per_transaction"), "1024");
    let ignored = project.dir.path().join("app/.pricesync/.gitignore");
    assert_eq!(fs::read_to_string(ignored).unwrap(), "*\n");
    let mode = fs::metadata(server.socket_dir()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(matches!(
        local::status(&project.options).unwrap(),
        Status::Running { url, .. } if url == server.url()
    ));
}

#[test]
fn a_second_start_joins_the_running_server() {
    let project = Project::new();
    let first = project.start();
    let pid = project.pid();
    let second = project.start();
    assert_eq!(first.url(), second.url());
    assert_eq!(project.pid(), pid);
    assert_eq!(project.supervisors().len(), 1);
}

#[test]
fn eight_processes_that_start_at_once_get_one_server() {
    let project = Project::new();
    let mut clients: Vec<_> = (0..8).map(|_| project.spawn_client()).collect();
    let reports: Vec<_> = clients.iter_mut().map(Client::report).collect();
    let pid = project.pid().expect("the server runs").to_string();
    assert_eq!(reports, vec![pid; 8]);
    assert_eq!(project.supervisors().len(), 1);
    clients.into_iter().for_each(Client::kill);
}

#[test]
fn eight_threads_that_start_at_once_get_one_server() {
    let project = Project::new();
    let urls: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| project.start())).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(urls.iter().all(|server| server.url() == urls[0].url()));
    assert_eq!(project.supervisors().len(), 1);
}

#[test]
fn a_server_in_use_does_not_end() {
    let project = Project::new();
    let server = project.start();
    let pid = project.pid();
    // Another server shows that more than the idle time has passed.
    let other = Project::new();
    drop(other.start());
    eventually("the unused server is stopped", || other.pid().is_none());
    assert_eq!(project.pid(), pid);
    assert_eq!(one(&server.url(), "SELECT 1"), "1");
}

#[test]
fn a_long_and_strange_project_path_works() {
    let folders = format!("{}/a, \"b\" & c%/ộ", "long".repeat(30));
    let project = Project::beneath(&folders);
    let server = project.start();
    assert!(server.socket_dir().starts_with("/tmp"));
    assert_eq!(one(&server.url(), "SELECT 1"), "1");
    let socket_dir = server.socket_dir().to_owned();
    assert!(local::destroy(&project.options).unwrap());
    assert!(!socket_dir.exists());
    let strange = Project::beneath("a, \"b\" & c%/ộ");
    let server = strange.start();
    assert!(server.socket_dir().starts_with(strange.dir.path()));
    assert_eq!(one(&server.url(), "SELECT 1"), "1");
}

#[test]
fn stop_ends_all_sessions_and_leaves_no_process() {
    let project = Project::new();
    assert!(!local::stop(&project.options).unwrap());
    let server = project.start();
    assert!(local::stop(&project.options).unwrap());
    assert_eq!(project.processes(), Vec::<u32>::new());
    assert!(run(&server.url(), "SELECT 1").is_err());
    assert!(!local::stop(&project.options).unwrap());
}

#[test]
fn destroy_deletes_everything_and_a_start_begins_anew() {
    let project = Project::new();
    assert!(!local::destroy(&project.options).unwrap());
    let server = project.start();
    run(&server.url(), "CREATE TABLE gone (id int)").unwrap();
    assert!(local::destroy(&project.options).unwrap());
    assert!(!server.data_dir().exists());
    let parent = server.data_dir().parent().unwrap();
    let left: Vec<_> = fs::read_dir(parent).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "only .gitignore: {left:?}");
    let server = project.start();
    let count = "SELECT count(*) FROM pg_tables WHERE tablename = 'gone'";
    assert_eq!(one(&server.url(), count), "0");
}

#[test]
fn missing_programs_are_said_before_anything_is_made() {
    let project = Project::new();
    let nowhere = project.dir.path().join("nowhere");
    let mut client = project.spawn_client_with(&[("PRICESYNC_PG_BIN", &nowhere)]);
    let report = client.report();
    assert!(report.starts_with("PRICESYNC_PG_BIN is \""), "{report}");
    assert!(report.ends_with("it has no program \"initdb\""), "{report}");
    client.kill();
    assert_eq!(project.pid(), None);
}

#[test]
fn a_server_that_cannot_start_is_explained_with_its_log() {
    let project = Project::new();
    let data = project.start().data_dir().join("data");
    local::stop(&project.options).unwrap();
    let file = data.join("postgresql.conf");
    fs::write(&file, "shared_buffers = lots\n").unwrap();
    let error = LocalServer::start(&project.options).unwrap_err();
    assert!(matches!(error, LocalError::DidNotStart { .. }), "{error}");
    assert!(error.to_string().contains("\"lots\""), "{error}");
}

#[test]
fn a_dropped_database_comes_back() {
    let project = Project::new();
    let server = project.start();
    let url = server.url().replace("/pricesync?", "/postgres?");
    run(&url, "DROP DATABASE pricesync").unwrap();
    assert_eq!(one(&project.start().url(), "SELECT 1"), "1");
}

#[test]
fn a_copied_project_gets_its_own_server() {
    let project = Project::new();
    let server = project.start();
    run(&server.url(), "CHECKPOINT").unwrap();
    let copy = Project::new();
    let folder = copy.dir.path().join("app/.pricesync");
    fs::create_dir_all(&folder).unwrap();
    let status = Command::new("cp").arg("-a").args([server.data_dir(), &folder]).status().unwrap();
    assert!(status.success());
    assert_eq!(copy.pid(), None);
    let other = copy.start();
    assert_ne!(copy.pid(), project.pid());
    run(&other.url(), "CREATE TABLE only_in_the_copy (id int)").unwrap();
    assert!(run(&server.url(), "SELECT * FROM only_in_the_copy").is_err());
}

#[test]
fn a_port_is_opened_only_when_asked_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut project = Project::new();
    project.options.port = Some(port);
    let server = project.start();
    assert_eq!(one(&server.url(), "SELECT 1"), "1");
    let tcp = format!("postgresql://postgres@127.0.0.1:{port}/pricesync");
    assert_eq!(one(&tcp, "SELECT 1"), "1");
    project.options.port = None;
    assert_eq!(project.start().url(), server.url());
    project.options.port = Some(1);
    let error = LocalServer::start(&project.options).unwrap_err();
    let text = format!("already runs on port {port}; stop it first");
    assert!(error.to_string().ends_with(&text), "{error}");
}

#[test]
fn roots_server_runs_as_another_user_and_changes_no_parent() {
    if !is_root("roots_server_runs_as_another_user_and_changes_no_parent") {
        return;
    }
    let project = Project::new();
    let server = project.start();
    let data = fs::metadata(server.data_dir().join("data")).unwrap();
    assert_ne!(data.uid(), 0);
    let process = fs::metadata(format!("/proc/{}", project.pid().unwrap())).unwrap();
    assert_eq!(process.uid(), data.uid());
    for dir in server.data_dir().ancestors() {
        assert_eq!(fs::metadata(dir).unwrap().uid(), 0, "{dir:?}");
    }
    let mode = fs::metadata(project.dir.path()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn roots_server_moves_when_its_user_cannot_reach_the_project() {
    if !is_root("roots_server_moves_when_its_user_cannot_reach_the_project") {
        return;
    }
    let project = Project::new();
    fs::set_permissions(project.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let server = project.start();
    assert!(server.data_dir().starts_with("/var/lib/pricesync"));
    assert_eq!(one(&server.url(), "SELECT 1"), "1");
    assert!(!project.dir.path().join("app").exists());
    let mode = fs::metadata(project.dir.path()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(local::destroy(&project.options).unwrap());
    assert!(!server.data_dir().exists());
}
