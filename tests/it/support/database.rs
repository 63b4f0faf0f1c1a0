//! A fresh database for one test.

use std::process::{self, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, test_kill_process};

pub(crate) use super::query::query as run;
use super::server;

/// Every database of ours is called this, the process, the second it was made in, and a number.
const PREFIX: &str = "pricesync_test";

/// A database of its own on the tests' server, dropped at the end, its sessions ended.
pub(crate) struct Database {
    name: String,
    url: String,
}

impl Database {
    /// Creates an empty database, and starts the server if need be.
    pub(crate) fn create() -> Self {
        static SWEPT: OnceLock<()> = OnceLock::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = server::url();
        SWEPT.get_or_init(|| sweep(&server));
        let name = format!(
            "{PREFIX}_{}_{}_{}",
            process::id(),
            SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        // template0: no session can be connected to it and block the copy.
        run(&server, &format!("CREATE DATABASE {name} TEMPLATE template0"))
            .expect("a test database can be created");
        Self { url: with_database(&server, &name), name }
    }

    /// Returns the URL of this database.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Runs statements and returns the rows of all of them as text; `None` is NULL.
    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        run(&self.url, sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Runs statements and forgets their rows.
    pub(crate) fn execute(&self, sql: &str) {
        self.query(sql);
    }

    /// Runs psql with these arguments and returns what it printed, unaligned and without headings.
    pub(crate) fn psql(&self, args: &[&str]) -> String {
        let output = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url])
            .args(args)
            .output()
            .expect("psql is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql {args:?}: {errors}");
        String::from_utf8(output.stdout).expect("psql prints UTF-8")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A test that failed may have taken the server with it; the next run sweeps.
        let _ = run(&server::url(), &sql);
    }
}

/// Runs a statement and returns the first value of its first row.
pub(crate) fn one(url: &str, sql: &str) -> String {
    let rows = run(url, sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows[0][0].clone().unwrap()
}

/// Drops what processes left that were killed before their tests ended.
fn sweep(server: &str) {
    if server::overridden().is_some() {
        // Its databases may belong to processes of other machines.
        return;
    }
    let names = run(server, "SELECT datname FROM pg_database").expect("databases can be listed");
    for name in names.into_iter().flatten().flatten() {
        if maker(&name).is_some_and(|pid| test_kill_process(pid).is_err()) {
            // Another process may be sweeping the same.
            let _ = run(server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        }
    }
}

/// Returns the process that made a database, if it is a test's.
fn maker(name: &str) -> Option<Pid> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('_')?;
    let numbers: Vec<u32> =
        rest.split('_').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [pid, _second, _count] = numbers[..] else {
        return None;
    };
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Returns the URL with another database in its path.
fn with_database(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL has a scheme");
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (rest, String::new()),
    };
    let host = place.split('/').next().unwrap_or_default();
    format!("{scheme}://{host}/{name}{query}")
}

#[test]
fn a_database_is_fresh_and_gone_afterwards() {
    let first = Database::create();
    let second = Database::create();
    first.execute("CREATE TABLE only_here (id int)");
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'only_here'";
    assert_eq!(first.query(tables), [[Some("1".to_owned())]]);
    assert_eq!(second.psql(&["-c", tables]), "0\n");
    assert_eq!(one(second.url(), "SELECT current_database()"), second.name);
    let name = first.name.clone();
    drop(first);
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    assert_eq!(second.query(&count), [[Some("0".to_owned())]]);
}

#[test]
fn a_database_can_be_used_on_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let database = Database::create();
        assert_eq!(database.query("SELECT NULL"), [[None]]);
    });
}

#[test]
fn what_a_killed_run_left_is_swept_and_nothing_else() {
    if server::overridden().is_some() {
        return;
    }
    let server = server::url();
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let left = format!("{PREFIX}_{}_1_0", dead.id());
    let kept = format!("{PREFIX}_{}_1_mine", dead.id());
    for name in [&left, &kept] {
        // Fails if an earlier run of this very test was killed; that is as good.
        let _ = run(&server, &format!("CREATE DATABASE {name} TEMPLATE template0"));
    }
    sweep(&server);
    let names = run(&server, "SELECT datname FROM pg_database").unwrap();
    let has = |name: &String| names.contains(&vec![Some(name.clone())]);
    assert!(!has(&left));
    assert!(has(&kept));
    run(&server, &format!("DROP DATABASE {kept}")).unwrap();
}

#[test]
fn the_database_of_a_url_can_be_replaced() {
    let local = with_database("postgresql:///pricesync?host=/p/run&user=postgres", "x");
    assert_eq!(local, "postgresql:///x?host=/p/run&user=postgres");
    let remote = with_database("postgres://u:p@db.example.com:5433", "x");
    assert_eq!(remote, "postgres://u:p@db.example.com:5433/x");
}
