//! Every example does what it says, and none is without a test.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::support::database::{self, Database};
use super::support::eventually::eventually;
use super::support::server;

/// The program under test.
const PRICESYNC: &str = env!("CARGO_BIN_EXE_pricesync");

/// Everything in `examples/`; what is added there gets a test here.
const EXAMPLES: [&str; 5] =
    ["deploy", "embed_migrations.rs", "http_tenants.rs", "quickstart", "tenant_context.rs"];

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
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, EXAMPLES);
}

#[test]
fn quickstart_migrates_two_tenants_in_an_empty_database() {
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
    assert!(told.contains(r#""version":8,"name":"user_locale""#), "{told}");
    assert!(told.contains(r#""migrated":1,"up-to-date":1,"failed":0"#), "{told}");
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
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn tenant_context_returns_the_connection_clean() {
    let database = Database::create();
    create_acme(&database, &[]);
    let row = "INSERT INTO tenant_acme.products (sku, name, price) VALUES ('A-1', 'Anvil', 120)";
    database.execute(row);
    let output =
        example("tenant_context", &database).arg("Acme.example.com:8443").output().unwrap();
    assert_eq!(
        printed(&output),
        "Acme Inc.: 1 products in tenant_acme; afterwards the connection sees public\n"
    );
    let unknown = example("tenant_context", &database).arg("unknown.example.com").output().unwrap();
    assert!(!unknown.status.success());
}

/// `examples/http_tenants.rs`, listening.
struct Web {
    process: Child,
    address: String,
}

impl Web {
    fn start(database: &Database) -> Self {
        let mut process = example("http_tenants", database)
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut first).unwrap();
        let address = first.trim_end().strip_prefix("listening on ");
        Self { address: address.expect("it says where it listens").to_owned(), process }
    }

    /// Sends a request and returns the status and the body of the answer.
    fn ask(&self, host: &str, request: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    fn products(&self, host: &str) -> (u16, String) {
        self.ask(host, "GET /products", "")
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn http_tenants_shows_each_host_its_own_rows() {
    let database = Database::create();
    create_acme(&database, &[]);
    let globex = ["create-tenant", "--name", "Globex Corp.", "--slug"];
    let globex = [&globex[..], &["globex", "--domain", "globex.example.com"]].concat();
    pricesync(&database, &globex);
    let web = Web::start(&database);

    let added = |host, sku, name| web.ask(host, &format!("POST /products/{sku}"), name).0;
    assert_eq!(added("acme.example.com", "A-1", "Anvil"), 201);
    assert_eq!(added("Globex.example.com:8080", "A-1", "Doomsday device"), 201);
    assert_eq!(added("acme.example.com", "A-1", "Another anvil"), 409);
    let acme = (200, "Acme Inc. (tenant_acme)\nA-1 Anvil\n".to_owned());
    let globex = "Globex Corp. (tenant_globex)\nA-1 Doomsday device\n";
    // More requests than connections, one host after the other on each of them.
    for _ in 0..12 {
        assert_eq!(web.products("ACME.example.com."), acme);
        assert_eq!(web.products("globex.example.com"), (200, globex.to_owned()));
    }
    assert_eq!(web.products("unknown.example.com"), (404, "unknown host\n".to_owned()));
    assert_eq!(web.products("'; DROP SCHEMA tenant_acme --").0, 400);

    pricesync(&database, &["drop-schema", "--tenant", "globex", "--force", "--keep-record"]);
    assert_eq!(web.products("globex.example.com").0, 404);
    assert_eq!(web.products("acme.example.com"), acme);
}

#[test]
fn http_tenants_is_unavailable_while_its_database_is() {
    let database = Database::create();
    create_acme(&database, &[]);
    let web = Web::start(&database);
    assert_eq!(web.products("acme.example.com").0, 200);

    let name = database.query("SELECT current_database()")[0][0].clone().unwrap();
    let superuser = |sql: &str| database::run(&server::url(), sql).unwrap();
    superuser(&format!(
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    ));
    for _ in 0..3 {
        let refused = web.products("acme.example.com");
        assert_eq!(refused, (503, "try again later\n".to_owned()));
    }
    // Without a database, too, a host that is none is the client's mistake.
    assert_eq!(web.products("not a host").0, 400);
    superuser(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    assert_eq!(web.products("acme.example.com").0, 200);
}

#[test]
fn http_tenants_is_unavailable_without_a_free_connection() {
    let database = Database::create();
    create_acme(&database, &[]);
    let web = Web::start(&database);
    let lock = "BEGIN; LOCK TABLE tenant_acme.products; SELECT pg_sleep(36000)";
    std::thread::scope(|scope| {
        let locking = scope.spawn(|| database::run(database.url(), lock));
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'tenant_acme.products'::regclass AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let count = |n: &str| database.query(waiting)[0][0].as_deref() == Some(n);
        eventually("the table is locked", || {
            let held = waiting.replace("NOT granted", "granted");
            database.query(&held)[0][0].as_deref() == Some("1")
        });
        let kept: Vec<_> =
            (0..10).map(|_| scope.spawn(|| web.products("acme.example.com"))).collect();
        eventually("all ten connections wait for the table", || count("10"));
        assert_eq!(web.products("acme.example.com").0, 503);
        let release = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'BEGIN; LOCK TABLE%'";
        database.execute(release);
        assert!(locking.join().unwrap().is_err());
        for request in kept {
            assert_eq!(request.join().unwrap().0, 200);
        }
        assert_eq!(web.products("acme.example.com").0, 200);
    });
}
