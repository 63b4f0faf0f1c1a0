//! What is disturbed: a command, the database before it, and what it must have become.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::program::{Project, Ran};
use crate::proxy::{Cut, Proxy};
use crate::query::query;
use crate::server::{self, Server};
use crate::state::State;
use crate::tally::Verdict;

/// How much of the work may be there without the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Each schema is as before or as after.
    Schema,
    /// Each schema may be in between, where a rerun finds it.
    Step,
    /// All of it or nothing.
    Whole,
    /// What is in between belongs to no tenant: the row is there only when all of it is.
    RowLast,
}

/// One command and what precedes it.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    args: &'static [&'static str],
    unit: Unit,
    /// Whether the command has nothing to do, or refuses, once it is done.
    once: bool,
    prepare: fn(&str) -> Project,
}

/// Every scenario.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "shared",
        args: &["migrate-schemas", "--shared", "-o", "json"],
        unit: Unit::Schema,
        once: false,
        prepare: |_| Project::shipped(),
    },
    Scenario {
        name: "migrate",
        args: &["migrate-schemas", "-o", "json", "--jobs", "2"],
        unit: Unit::Schema,
        once: false,
        prepare: |url| {
            let project = shipped_with(url, 6);
            project.must(url, &["migrate-schemas"]);
            two_more(&project);
            project
        },
    },
    Scenario {
        name: "together",
        args: &["migrate-schemas", "-o", "json", "--jobs", "1"],
        unit: Unit::Schema,
        once: false,
        prepare: |url| {
            let project = shipped_with(url, 7);
            project.must(url, &["migrate-schemas"]);
            quick(&project);
            project
        },
    },
    Scenario {
        name: "everything",
        args: &["migrate-schemas", "-o", "json", "--jobs", "1"],
        unit: Unit::Schema,
        once: false,
        prepare: |url| {
            let project = shipped_with(url, 2);
            project.file("pricesync.toml", "[run]\ntemplate = \"off\"\n");
            project.file("migrations/shared/V90__more.sql", "CREATE TABLE shared_more (id int);\n");
            two_more(&project);
            project
        },
    },
    Scenario {
        name: "template",
        args: &["migrate-schemas", "-o", "json", "--jobs", "2"],
        unit: Unit::Schema,
        once: false,
        prepare: |url| shipped_with(url, 4),
    },
    Scenario {
        name: "file-by-file",
        args: &["migrate-schemas", "-o", "json", "--jobs", "1"],
        unit: Unit::Step,
        once: false,
        prepare: |url| {
            let project = shipped_with(url, 3);
            project.file("pricesync.toml", "[run]\natomic = \"migration\"\n");
            project.must(url, &["migrate-schemas"]);
            two_more(&project);
            project
        },
    },
    Scenario {
        name: "nothing-pending",
        args: &["migrate-schemas", "-o", "json"],
        unit: Unit::Schema,
        once: false,
        prepare: |url| {
            let project = shipped_with(url, 2);
            project.must(url, &["migrate-schemas"]);
            project
        },
    },
    Scenario {
        name: "no-transaction",
        args: &["migrate-schemas", "-o", "json", "--jobs", "2"],
        unit: Unit::Step,
        once: false,
        prepare: |url| {
            let project = shipped_with(url, 3);
            project.must(url, &["migrate-schemas"]);
            project.file(
                "migrations/tenant/V90__indexes.sql",
                "-- pricesync: no-transaction\n\
                 CREATE INDEX CONCURRENTLY products_torn ON products (id, name);\n\
                 CREATE UNIQUE INDEX CONCURRENTLY products_torn_too ON products (id DESC);\n",
            );
            project
                .file("migrations/tenant/V91__after.sql", "CREATE TABLE after_indexes (id int);\n");
            project
        },
    },
    Scenario {
        name: "create-tenant",
        args: CREATE,
        unit: Unit::Whole,
        once: true,
        prepare: |url| shipped_with(url, 0),
    },
    Scenario {
        name: "create-tenant-by-template",
        args: CREATE,
        unit: Unit::Whole,
        once: true,
        prepare: |url| {
            let project = shipped_with(url, 0);
            project.must(url, &["create-tenant", "--name", "One", "--slug", "one"]);
            project
        },
    },
    Scenario {
        name: "create-tenant-in-steps",
        args: CREATE,
        unit: Unit::RowLast,
        once: true,
        prepare: |url| {
            let project = shipped_with(url, 0);
            project.file("pricesync.toml", "[run]\ntemplate = \"off\"\n");
            added_value(&project);
            project
        },
    },
    Scenario {
        name: "adopt-in-steps",
        args: ADOPT,
        unit: Unit::RowLast,
        once: true,
        prepare: |url| {
            let project = shipped_with(url, 0);
            project.file("pricesync.toml", "[run]\ntemplate = \"off\"\n");
            query(url, "CREATE SCHEMA legacy").unwrap();
            added_value(&project);
            project
        },
    },
    Scenario {
        name: "baseline",
        args: &["baseline", "--to", "8", "--unchecked"],
        unit: Unit::Schema,
        once: false,
        prepare: |url| {
            let project = shipped_with(url, 4);
            project.must(url, &["migrate-schemas"]);
            let mut sql = String::new();
            for number in 0..4 {
                let _ = write!(sql, "DROP TABLE tenant_t{number}.refinery_schema_history; ");
            }
            query(url, &sql).unwrap();
            project
        },
    },
    Scenario {
        name: "domains-add",
        args: &["domains", "add", "--tenant", "t0", "--primary", "new.test", "other.test"],
        unit: Unit::Whole,
        once: false,
        prepare: with_rows,
    },
    Scenario {
        name: "domains-primary",
        args: &["domains", "primary", "--tenant", "t0", "second.test"],
        unit: Unit::Whole,
        once: false,
        prepare: with_hosts,
    },
    Scenario {
        name: "domains-remove",
        args: &["domains", "remove", "--tenant", "t0", "t0.test"],
        unit: Unit::Whole,
        once: true,
        prepare: with_hosts,
    },
    Scenario {
        name: "create-superuser",
        args: &["create-superuser", "--tenant", "t0", "--username", "admin", "--password-stdin"],
        unit: Unit::Whole,
        once: true,
        prepare: with_rows,
    },
    Scenario {
        name: "rename-tenant",
        args: &["rename-tenant", "--tenant", "t0", "--slug", "renamed"],
        unit: Unit::Whole,
        once: true,
        prepare: |url| {
            let project = shipped_with(url, 2);
            project.must(url, &["migrate-schemas"]);
            project
        },
    },
    Scenario {
        name: "undrop",
        args: &["undrop", "--tenant", "t0"],
        unit: Unit::Whole,
        once: true,
        prepare: |url| {
            let project = shipped_with(url, 2);
            project.must(url, &["migrate-schemas"]);
            project.must(url, &["domains", "add", "--tenant", "t0", "t0.test"]);
            project.must(url, &["drop-schema", "--tenant", "t0", "--trash", "--force"]);
            project
        },
    },
    Scenario {
        name: "restore",
        args: &["restore", "t0.backup"],
        unit: Unit::Whole,
        once: true,
        prepare: |url| {
            let project = with_rows(url);
            project.must(url, &["backup", "--tenant", "t0", "--out", "backups"]);
            project.rename_only("backups", "t0.backup");
            project.must(url, &["drop-schema", "--tenant", "t0", "--force"]);
            project
        },
    },
    Scenario {
        name: "clone-tenant",
        args: &["clone-tenant", "--from", "t0", "--slug", "copy", "--domain", "copy.test"],
        unit: Unit::Whole,
        once: true,
        prepare: with_rows,
    },
    Scenario {
        name: "drop-schema",
        args: &["drop-schema", "--tenant", "t0", "--force"],
        unit: Unit::Step,
        once: true,
        prepare: |url| {
            let project = shipped_with(url, 2);
            let mut many = String::new();
            for number in 0..120 {
                let _ = writeln!(many, "CREATE TABLE many_{number} (id int PRIMARY KEY);");
            }
            many.push_str(
                "CREATE TABLE tied (id int, owner bigint REFERENCES public.tenants_tenant (id));\n",
            );
            project.file("migrations/tenant/V90__many.sql", &many);
            project.must(url, &["migrate-schemas"]);
            project
        },
    },
];

/// A tenant that has rows, a sequence, keys within and to `public`, and a view.
fn with_rows(url: &str) -> Project {
    let project = shipped_with(url, 2);
    project.must(url, &["migrate-schemas"]);
    query(
        url,
        "SET search_path TO tenant_t0, public; \
         CREATE TABLE tied (id serial PRIMARY KEY, owner bigint REFERENCES tenants_tenant (id), text text); \
         INSERT INTO tied (owner, text) SELECT (SELECT id FROM tenants_tenant WHERE slug = 't0'), repeat('x', 500) FROM generate_series(1, 400); \
         CREATE VIEW seen AS SELECT count(*) AS n FROM tied; \
         INSERT INTO tenants_domain (domain, is_primary, tenant_id) SELECT 't0.test', true, id FROM tenants_tenant WHERE slug = 't0'",
    )
    .unwrap();
    project
}

/// The same with a second host.
fn with_hosts(url: &str) -> Project {
    let project = with_rows(url);
    project.must(url, &["domains", "add", "--tenant", "t0", "second.test"]);
    project
}

const CREATE: &[&str] = &[
    "create-tenant",
    "--name",
    "Acme Inc.",
    "--slug",
    "acme",
    "--domain",
    "acme.example",
    "--domain",
    "www.acme.example",
];

const ADOPT: &[&str] =
    &["create-tenant", "--name", "Acme Inc.", "--slug", "acme", "--schema", "legacy", "--adopt"];

/// Thirty tenants with pending migrations, for disturbances at a random time.
pub(crate) const FLEET: Scenario = Scenario {
    name: "a run over 30 tenants",
    args: &["migrate-schemas", "-o", "json", "--jobs", "4"],
    unit: Unit::Schema,
    once: false,
    prepare: |url| {
        let project = shipped_with(url, 30);
        project.must(url, &["migrate-schemas"]);
        two_more(&project);
        project
    },
};

/// Thirty tenants with next to nothing to do, so that they share transactions.
pub(crate) const QUICK_FLEET: Scenario = Scenario {
    name: "a run over 30 quick tenants",
    args: &["migrate-schemas", "-o", "json", "--jobs", "3"],
    unit: Unit::Schema,
    once: false,
    prepare: |url| {
        let project = shipped_with(url, 30);
        project.must(url, &["migrate-schemas"]);
        quick(&project);
        project
    },
};

fn shipped_with(url: &str, tenants: usize) -> Project {
    let project = Project::shipped();
    project.must(url, &["migrate-schemas", "--shared"]);
    let mut sql = String::new();
    for number in 0..tenants {
        let _ = write!(
            sql,
            "INSERT INTO tenants_tenant (schema_name, name, slug) VALUES ('tenant_t{number}', 'T', 't{number}'); \
             CREATE SCHEMA tenant_t{number};"
        );
    }
    query(url, &sql).unwrap();
    project
}

/// Files that need three transactions, one of which is none.
fn added_value(project: &Project) {
    for (file, sql) in [
        ("V90__type.sql", "CREATE TYPE state AS ENUM ('a');\nCREATE TABLE states (s state);\n"),
        ("V91__value.sql", "ALTER TYPE state ADD VALUE 'b';\n"),
        ("V92__use.sql", "INSERT INTO states VALUES ('b');\n"),
        (
            "V93__index.sql",
            "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY states_s ON states (s);\n",
        ),
        ("V94__after.sql", "INSERT INTO states VALUES ('a');\n"),
    ] {
        project.file(&format!("migrations/tenant/{file}"), sql);
    }
}

/// A file that only defines, and takes no time.
fn quick(project: &Project) {
    project.file(
        "migrations/tenant/V90__quick.sql",
        "ALTER TABLE products ADD COLUMN weight integer;\nCREATE TABLE quick (id int);\n",
    );
}

/// Files whose work shows how often it was done.
fn two_more(project: &Project) {
    project.file(
        "migrations/tenant/V90__marks.sql",
        "CREATE TABLE marks (id serial PRIMARY KEY);\nINSERT INTO marks DEFAULT VALUES;\nALTER TABLE products ADD torn text DEFAULT 'x';\n",
    );
    project.file(
        "migrations/tenant/V91__more_marks.sql",
        "INSERT INTO marks DEFAULT VALUES;\nCREATE INDEX products_torn ON products (torn);\n",
    );
}

/// A scenario on a server, with what an undisturbed run makes of it.
pub(crate) struct Prepared<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) server: &'a Server,
    project: Project,
    base: String,
    before: State,
    after: State,
    /// How long an undisturbed run takes.
    pub(crate) took: Duration,
    /// How many messages it sends.
    pub(crate) messages: usize,
}

impl<'a> Prepared<'a> {
    /// Makes the database and runs the command undisturbed on a copy of it.
    pub(crate) fn new(server: &'a Server, scenario: &'a Scenario) -> Self {
        let base = format!("base_{}", scenario.name.replace(['-', ' '], "_"));
        server.copy("template0", &base);
        let project = (scenario.prepare)(&server.url(&base));
        let before = State::settled(&server.url(&base));
        let mut prepared = Self {
            scenario,
            server,
            project,
            base,
            before,
            after: State::default(),
            took: Duration::ZERO,
            messages: 0,
        };
        let copy = prepared.copy("undisturbed");
        let proxy = Proxy::start(server.folder(), None);
        let started = Instant::now();
        prepared.project.must(&server::url(proxy.folder(), "postgres", &copy), scenario.args);
        prepared.took = started.elapsed();
        prepared.messages = proxy.said();
        drop(proxy);
        prepared.after = State::settled(&server.url(&copy));
        server.drop(&copy);
        prepared
    }

    /// Makes a copy of the database for one trial.
    pub(crate) fn copy(&self, trial: &str) -> String {
        let name = format!("{}_{trial}", self.base);
        self.server.copy(&self.base, &name);
        name
    }

    /// Starts the command on a database.
    pub(crate) fn spawn(&self, url: &str) -> crate::program::Running {
        self.project.spawn(url, self.scenario.args)
    }

    /// Runs it with a cut at a message.
    pub(crate) fn cut(&self, at: usize, cut: Cut) -> Verdict {
        let database = self.copy(&format!("{at}_{cut:?}").to_lowercase());
        let proxy = Proxy::start(self.server.folder(), Some((at, cut)));
        let ran = self.spawn(&server::url(proxy.folder(), "postgres", &database)).wait();
        let has_cut = proxy.has_cut();
        drop(proxy);
        let verdict = if has_cut { self.judge(&database, &ran) } else { Verdict::Missed };
        self.server.drop(&database);
        verdict
    }

    /// Compares what was said with what is, and finishes what was not finished.
    pub(crate) fn judge(&self, database: &str, ran: &Ran) -> Verdict {
        let url = self.server.url(database);
        let state = State::settled(&url);
        if ran.hung || ran.stderr.contains("panicked") {
            return Verdict::Misreported(format!("hung or panicked: {}", ran.everything()));
        }
        if let Some(lie) = self.lie(&state, ran) {
            return Verdict::Misreported(format!("{lie}: {}", ran.everything()));
        }
        if let Some(half) = self.half(&state) {
            return Verdict::Lost(format!("{half}: {}", ran.everything()));
        }
        let by_itself = ran.code == Some(0);
        let is_over = by_itself || (self.scenario.once && state == self.after);
        if !is_over {
            let again = self.project.run(&url, self.scenario.args);
            if again.code != Some(0) {
                let (first, again) = (ran.everything(), again.everything());
                return Verdict::Lost(format!("the rerun failed: {again}\nat first: {first}"));
            }
            let state = State::settled(&url);
            if let Some(difference) = state.difference(&self.after) {
                return Verdict::Lost(format!(
                    "after the rerun {difference}: {}",
                    again.everything()
                ));
            }
        }
        let verified = self.project.run(&url, &["status", "--verify"]);
        if verified.code != Some(0) {
            return Verdict::Lost(format!(
                "histories and ledger: {}\nat first: {}",
                verified.everything(),
                ran.everything()
            ));
        }
        if by_itself { Verdict::Converged } else { Verdict::Rerun }
    }

    /// Returns what was said and is not so.
    fn lie(&self, state: &State, ran: &Ran) -> Option<String> {
        let code = ran.code?;
        let changes = self.before != self.after;
        match state.difference(&self.after) {
            Some(difference) if code == 0 => return Some(format!("done, but {difference}")),
            None if code != 0 && changes => return Some("not done, but all of it is".to_owned()),
            _ => {}
        }
        let summary: serde_json::Value = serde_json::from_str(&ran.stdout).ok()?;
        summary["schemas"].as_array()?.iter().find_map(|item| {
            let (schema, outcome) = (item["schema"].as_str()?, item["outcome"].as_str()?);
            let is_done = state.agrees(&self.after, schema);
            let had_work = !self.before.agrees(&self.after, schema);
            match outcome {
                "migrated" | "up-to-date" if !is_done => {
                    Some(format!("{schema} is {outcome}, but it is not"))
                }
                "failed" | "skipped" | "not-started" if is_done && had_work => {
                    Some(format!("{schema} is {outcome}, but it is done"))
                }
                _ => None,
            }
        })
    }

    /// Returns what is there without the rest and must not be.
    fn half(&self, state: &State) -> Option<String> {
        match self.scenario.unit {
            Unit::Step => None,
            Unit::RowLast => {
                let has_row = state.agrees(&self.after, "public");
                let missing = state.difference(&self.after).filter(|_| has_row);
                missing.map(|missing| format!("the tenant's row is there, but {missing}"))
            }
            Unit::Whole => {
                let whole = *state == self.before || *state == self.after;
                (!whole).then(|| {
                    let more = state.difference(&self.before).unwrap_or_default();
                    let less = state.difference(&self.after).unwrap_or_default();
                    format!("half done: {more}, and {less}")
                })
            }
            Unit::Schema => state
                .schemas(&self.after)
                .find(|schema| {
                    !state.agrees(&self.before, schema) && !state.agrees(&self.after, schema)
                })
                .map(|schema| format!("{schema} is half done")),
        }
    }
}
