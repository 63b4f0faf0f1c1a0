//! Servers that have too little of something: connections, locks, disk.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::program::{Project, Ran};
use crate::query::query;
use crate::server::Server;
use crate::server_programs::give;
use crate::tally::{Tally, Verdict};

/// An ordinary role, for which the server keeps no connection in reserve.
const ROLE: &str = "app";

/// Tries everything; the big tenant has this many tables.
pub(crate) fn all(tables: usize, tally: &Tally) {
    let server = Server::start(&["max_connections=20"]);
    server.execute("postgres", &[&format!("CREATE ROLE {ROLE} LOGIN")]);
    tally.count("connections taken", "", connections_taken(&server));
    tally.count("connection limit of a role", "", role_limit(&server));
    tally.count("lock table", "", lock_table(&server, tables));
    match Disk::mount(&server) {
        Some(disk) => tally.count("full disk", "", full_disk(&server, &disk)),
        None => tally.skip("full disk: it takes root and the right to mount"),
    }
}

fn fleet(server: &Server, database: &str, tenants: usize) -> Project {
    server.execute("postgres", &[&format!("CREATE DATABASE {database} OWNER {ROLE}")]);
    server.execute(database, &[&format!("ALTER SCHEMA public OWNER TO {ROLE}")]);
    let url = server.url_as(ROLE, database);
    let project = Project::shipped();
    project.must(&url, &["migrate-schemas", "--shared"]);
    let mut sql = String::new();
    for number in 0..tenants {
        let _ = write!(
            sql,
            "INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ('tenant_t{number}', 'T', 't{number}'); \
             CREATE SCHEMA tenant_t{number};"
        );
    }
    query(&url, &sql).unwrap();
    project
}

/// Whether a run did everything, and whether the histories say so too.
fn everything_is_done(project: &Project, url: &str, ran: &Ran) -> Verdict {
    if ran.code != Some(0) {
        return Verdict::Lost(ran.everything());
    }
    let verified = project.run(url, &["status", "--verify"]);
    let pending = project.run(url, &["migrate-schemas", "--check"]);
    match (verified.code, pending.code) {
        (Some(0), Some(0)) => Verdict::Converged,
        _ => Verdict::Misreported(format!(
            "done, but {} {}",
            verified.everything(),
            pending.everything()
        )),
    }
}

fn connections_taken(server: &Server) -> Verdict {
    let project = fleet(server, "crowded", 12);
    let holders: Vec<_> = (0..12)
        .map(|_| {
            let url = server.url("postgres");
            thread::spawn(move || query(&url, "SELECT pg_sleep(600)"))
        })
        .collect();
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while query(&server.url("postgres"), sleeping).unwrap()[0][0].as_deref() != Some("12") {
        thread::sleep(Duration::from_millis(20));
    }
    let url = server.url_as(ROLE, "crowded");
    let ran = project.run(&url, &["migrate-schemas", "--jobs", "16"]);
    let verdict = everything_is_done(&project, &url, &ran);
    server.execute(
        "postgres",
        &["SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"],
    );
    for holder in holders {
        let _ = holder.join();
    }
    verdict
}

fn role_limit(server: &Server) -> Verdict {
    let project = fleet(server, "limited", 12);
    server.execute("postgres", &[&format!("ALTER ROLE {ROLE} CONNECTION LIMIT 3")]);
    let url = server.url_as(ROLE, "limited");
    let ran = project.run(&url, &["migrate-schemas", "--jobs", "16"]);
    server.execute("postgres", &[&format!("ALTER ROLE {ROLE} CONNECTION LIMIT -1")]);
    everything_is_done(&project, &url, &ran)
}

fn lock_table(server: &Server, tables: usize) -> Verdict {
    let project = fleet(server, "large", 1);
    let url = server.url_as(ROLE, "large");
    for piece in (0..tables).collect::<Vec<_>>().chunks(100) {
        let mut sql = String::new();
        for number in piece {
            let _ =
                write!(sql, "CREATE TABLE tenant_t0.t{number} (id int PRIMARY KEY, words text);");
        }
        query(&url, &sql).unwrap();
    }
    let at_once = query(&url, "DROP SCHEMA tenant_t0 CASCADE");
    let code = at_once.err().and_then(|error| Some(error.code()?.code().to_owned()));
    assert_eq!(code.as_deref(), Some("53200"), "too large for one transaction");
    let ran = project.run(&url, &["drop-schema", "--tenant", "t0", "--force"]);
    let left = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'tenant_t0') + (SELECT count(*) FROM tenants_tenant)";
    let left = query(&url, left).unwrap()[0][0].clone();
    match (ran.code, left.as_deref()) {
        (Some(0), Some("0")) => Verdict::Converged,
        (Some(0), _) => Verdict::Misreported(ran.everything()),
        _ => Verdict::Lost(ran.everything()),
    }
}

/// A small file system of its own in the server's folder.
struct Disk(PathBuf);

impl Disk {
    fn mount(server: &Server) -> Option<Self> {
        let folder = server.folder().join("disk");
        std::fs::create_dir(&folder).unwrap();
        if !Self::run("mount", &["-t", "tmpfs", "-o", "size=16m", "none"], &folder) {
            return None;
        }
        give(&folder);
        Some(Self(folder))
    }

    fn grow(&self) {
        assert!(Self::run("mount", &["-o", "remount,size=300m"], &self.0));
    }

    fn run(program: &str, args: &[&str], folder: &PathBuf) -> bool {
        let output = Command::new(program).args(args).arg(folder).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server still has its files open.
        Self::run("umount", &["-l"], &self.0);
    }
}

fn full_disk(server: &Server, disk: &Disk) -> Verdict {
    let project = fleet(server, "narrow", 12);
    let url = server.url_as(ROLE, "narrow");
    project.must(&url, &["migrate-schemas"]);
    let space = format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display());
    server.execute("postgres", &[&space]);
    server.execute(
        "narrow",
        &[
            "GRANT CREATE ON TABLESPACE small TO app",
            "ALTER DATABASE narrow SET default_tablespace TO small",
        ],
    );
    project.file(
        "migrations/tenant/V90__big.sql",
        "CREATE TABLE big AS SELECT g, repeat('x', 1000) AS words FROM generate_series(1, 3000) g;\n",
    );
    let jobs = 2;
    let args = ["migrate-schemas", "-o", "json", "--jobs", &jobs.to_string()];
    let ran = project.run(&url, &args);
    let summary: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    let count = |outcome: &str| summary["counts"][outcome].as_u64().unwrap_or_default();
    let big = query(&url, "SELECT count(*) FROM pg_class WHERE relname = 'big'").unwrap();
    let big: u64 = big[0][0].as_deref().unwrap().parse().unwrap();
    let clean = ran.code == Some(10)
        && ran.stderr.contains("53100")
        && ran.stderr.contains("not started (the server's disk is full)")
        && (1..=jobs).contains(&count("failed"))
        && count("not-started") > 0
        && count("migrated") == big;
    if !clean {
        return Verdict::Misreported(format!("{big} are done: {}", ran.everything()));
    }
    disk.grow();
    let again = project.run(&url, &["migrate-schemas"]);
    match everything_is_done(&project, &url, &again) {
        Verdict::Converged => Verdict::Rerun,
        other => other,
    }
}
