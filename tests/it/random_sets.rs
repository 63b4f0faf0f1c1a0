//! Random small sets of files, run in each way that there is: structure and rows must be the same.
//!
//! `PRICESYNC_SETS=500` tries so many sets, `PRICESYNC_SEED=7` begins with the set of that seed. A
//! failure prints its seed and the smallest set that fails.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, thread};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::support::contents::{contents_with_times, difference, run_by_psql};
use crate::support::pricesync::{Given, Ran};

/// The first file of each set: what the pieces name.
const FIRST: &str = "CREATE TYPE mood AS ENUM ('ok', 'bad');
CREATE TABLE log (id serial PRIMARY KEY, note text, at timestamptz, said mood DEFAULT 'ok');
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id serial PRIMARY KEY,
    parent int CONSTRAINT of_parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
    other int CONSTRAINT of_other REFERENCES parent DEFERRABLE);
CREATE SEQUENCE numbers;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO log (note) VALUES ('deferred ' || current_setting('datestyle')); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER noted AFTER INSERT ON parent DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION noted();
";

/// State that outlives a statement.
const LEAVES: &[&str] = &[
    "SET timezone = 'Asia/Tokyo'",
    "SET LOCAL timezone = 'America/Lima'",
    "SET TIME ZONE 'Pacific/Auckland'",
    "SET datestyle = 'German, DMY'",
    "SET LOCAL datestyle = 'SQL, DMY'",
    "SELECT set_config('datestyle', 'ISO, DMY', false)",
    "DO $$ BEGIN SET datestyle = 'Postgres, DMY'; END $$",
    "DO $$ BEGIN PERFORM set_config('timezone', 'Asia/Kolkata', false); END $$",
    "SET intervalstyle = 'iso_8601'",
    "SET default_text_search_config = 'pg_catalog.german'",
    "SET check_function_bodies = off",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = -9",
    "SET transform_null_equals = on",
    "SET array_nulls = off",
    "SET row_security = off",
    "SET lock_timeout = '77s'",
    "SET statement_timeout = '1h'",
    "SET session_replication_role = replica",
    "SET LOCAL session_replication_role = replica",
    "SET default_transaction_isolation = 'repeatable read'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET app.actor = 'actor {n}'",
    "SELECT set_config('app.actor', 'actor {n}', true)",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET CONSTRAINTS of_parent IMMEDIATE",
    "CREATE TEMPORARY TABLE scratch AS SELECT {n} AS a",
    "CREATE TEMPORARY SEQUENCE drawn; SELECT nextval('drawn')",
    "PREPARE asked AS SELECT 1",
    "DECLARE kept CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN heard",
    "SELECT pg_advisory_lock(4711)",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 1{n})",
];

/// Rows and functions that depend on it.
const ROWS: &[&str] = &[
    "INSERT INTO log (note) SELECT ('2026-01-02 03:04:05+00'::timestamptz)::text",
    "INSERT INTO log (at) VALUES ('2026-03-04 05:06')",
    "INSERT INTO log (note) SELECT ('02/03/2026'::date)::text",
    "INSERT INTO log (note) SELECT ('1 day 2 hours'::interval)::text",
    "INSERT INTO log (note) SELECT to_tsvector('The running houses und die Häuser')::text",
    "INSERT INTO log (note) SELECT (decode('6162', 'hex'))::text",
    "INSERT INTO log (note) SELECT (1::float8 / 3)::text",
    "INSERT INTO log (note) SELECT coalesce((1 = NULL)::text, 'null')",
    "INSERT INTO log (note) SELECT array_to_string('{1,NULL}'::text[], ',', 'none')",
    "INSERT INTO log (note) SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('default_transaction_isolation'), \
     current_setting('session_replication_role'), current_setting('check_function_bodies'), current_setting('row_security'))",
    "INSERT INTO log (note) SELECT coalesce(current_setting('app.actor', true), '')",
    "INSERT INTO log (note) SELECT concat_ws(' ', to_regclass('scratch') IS NULL, to_regclass('drawn') IS NULL)",
    "INSERT INTO log (note) SELECT count(*)::text FROM pg_prepared_statements WHERE from_sql",
    "INSERT INTO log (note) SELECT count(*)::text FROM pg_cursors WHERE is_holdable",
    "INSERT INTO log (note) SELECT count(*)::text FROM pg_listening_channels()",
    "INSERT INTO log (note) SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND pid = pg_backend_pid()",
    "DO $$ BEGIN INSERT INTO log (note) VALUES (current_setting('timezone') || '2026-02-03'::date); END $$",
    "INSERT INTO log (note) SELECT nextval('numbers')::text",
    "INSERT INTO log (said) VALUES ('{label}')",
    "UPDATE log SET said = '{label}' WHERE id = (SELECT min(id) FROM log)",
    "UPDATE log SET note = concat(note, to_char(at, ' HH24:MI')) WHERE at IS NOT NULL",
    "DELETE FROM log WHERE id = (SELECT max(id) FROM log)",
    "INSERT INTO parent VALUES ({n})",
    "INSERT INTO child (parent) VALUES ({n}00); INSERT INTO parent VALUES ({n}00)",
    "SET CONSTRAINTS of_other DEFERRED; INSERT INTO child (other) VALUES ({n}01); INSERT INTO parent VALUES ({n}01)",
    "CREATE FUNCTION f{n}() RETURNS mood LANGUAGE sql AS $$SELECT '{label}'::mood$$",
    "CREATE FUNCTION g{n}() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN '{n}'; END$$",
    "CREATE STATISTICS st{n} ON id, note FROM log",
    "CREATE TABLE copy{n} AS SELECT note, at FROM log",
];

/// Definitions, of which some depend on it too. A file of these alone can run in a group.
const DEFINITIONS: &[&str] = &[
    "CREATE TABLE t{n} (id serial PRIMARY KEY, at timestamptz DEFAULT '2026-05-06 07:08', on_day date DEFAULT '03/04/2026', said mood DEFAULT '{label}')",
    "ALTER TYPE mood ADD VALUE 'm{n}'",
    "CREATE VIEW v{n} AS SELECT id, at > '2026-05-06 07:08' AS late, said = '{label}' AS same FROM log",
    "CREATE INDEX i{n} ON log (note) WHERE at > '2026-05-06 07:08'",
    "ALTER TABLE log ADD COLUMN at{n} timestamptz DEFAULT '2026-07-08 09:10'",
    "ALTER TABLE log ADD COLUMN zone{n} text DEFAULT current_setting('timezone')",
    "ALTER TABLE log ADD COLUMN said{n} mood DEFAULT '{label}'",
    "ALTER TABLE log ADD COLUMN number{n} bigserial",
    "ALTER TABLE log ADD CONSTRAINT k{n} CHECK (at < '2999-01-01 00:00')",
    "COMMENT ON TABLE log IS 'by {n}'",
    "CREATE TABLE p{n} (at timestamptz) PARTITION BY RANGE (at); \
     CREATE TABLE p{n}a PARTITION OF p{n} FOR VALUES FROM ('2026-01-01 00:00') TO ('2027-01-01 00:00')",
    "ALTER SEQUENCE numbers RESTART WITH 7{n}",
    "CREATE TYPE size{n} AS ENUM ('s'); ALTER TYPE size{n} ADD VALUE 'm'; CREATE TABLE sized{n} (size size{n} DEFAULT 's')",
    "CREATE TABLE child{n} (id int CONSTRAINT of_log{n} REFERENCES log DEFERRABLE INITIALLY DEFERRED)",
];

/// What fails, mostly because the statement that it needs is not in the same file.
const FAILS: &[&str] = &[
    "SELECT currval('numbers')",
    "EXECUTE asked",
    "INSERT INTO scratch VALUES (1)",
    "FETCH 1 FROM kept",
    "INSERT INTO child (parent) VALUES (-{n})",
    "CREATE FUNCTION bad{n}() RETURNS int LANGUAGE sql AS 'SELECT missing FROM log'",
    "SELECT '31/12/2026'::date",
    "INSERT INTO log (said) VALUES ('none')",
    "CREATE TABLE parent (id int)",
];

/// The texts of the files of a set, in order.
#[derive(Clone)]
struct Set(Vec<String>);

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, text)| write!(f, "\n-- V{}\n{text}", at + 1))
    }
}

impl Set {
    fn of(files: Vec<(bool, Vec<&'static str>)>) -> Self {
        let (mut texts, mut labels) = (vec![FIRST.to_owned()], vec!["ok".to_owned()]);
        for (file, (is_alone, pieces)) in files.into_iter().enumerate() {
            let mut text = String::new();
            let mut added = Vec::new();
            if is_alone {
                let _ = write!(
                    text,
                    "-- pricesync: no-transaction\nCREATE INDEX CONCURRENTLY alone{file} ON log (note);\n"
                );
            }
            for (at, piece) in pieces.into_iter().enumerate() {
                let number = format!("{}{at}", file + 2);
                let piece =
                    piece.replace("{n}", &number).replace("{label}", labels.last().unwrap());
                let _ = writeln!(text, "{piece};");
                if piece.starts_with("ALTER TYPE mood") {
                    added.push(format!("m{number}"));
                }
            }
            labels.extend(added);
            texts.push(text);
        }
        Self(texts)
    }

    fn has_file_without_transaction(&self) -> bool {
        self.0.iter().any(|text| text.starts_with("-- pricesync"))
    }
}

fn sets() -> impl Strategy<Value = Set> {
    let piece = prop_oneof![
        12 => select(DEFINITIONS),
        12 => select(ROWS),
        12 => select(LEAVES),
        2 => select(FAILS),
    ];
    let mixed = proptest::collection::vec(piece, 1..4);
    let defines = proptest::collection::vec(select(DEFINITIONS), 1..3);
    let file = prop_oneof![
        4 => mixed.clone().prop_map(|pieces| (false, pieces)),
        3 => defines.prop_map(|pieces| (false, pieces)),
        1 => mixed.prop_map(|pieces| (true, pieces)),
    ];
    proptest::collection::vec(file, 1..5).prop_map(Set::of)
}

/// The file and the SQLSTATE of a failure by schema, as the program prints them.
fn failures(ran: Ran) -> Result<BTreeMap<String, String>, String> {
    let code = ran.code();
    let stderr = ran.told().stderr;
    let mut failures = BTreeMap::new();
    let mut schema = None;
    for line in stderr.lines() {
        let failure = line.strip_prefix("error: ").and_then(|it| it.split_once(": "));
        if let Some((name, file)) = failure.filter(|(name, _)| name.starts_with("tenant_")) {
            let file = file.split_once(' ').unwrap_or_default().0;
            schema = Some(name.to_owned());
            failures.insert(name.to_owned(), file.to_owned());
        } else if let (Some(name), Some(cause)) = (&schema, line.strip_prefix("  caused by: ")) {
            let sqlstate = cause.rsplit_once('(').unwrap_or_default().1.trim_end_matches(')');
            let _ = write!(failures.get_mut(name).unwrap(), " {sqlstate}");
            schema = None;
        }
    }
    let is_read = failures.values().all(|failure| failure.split(' ').count() == 2);
    match code {
        Some(0) => Ok(BTreeMap::new()),
        Some(10) if is_read && !failures.is_empty() => Ok(failures),
        _ => Err(format!("exit {code:?}: {stderr}")),
    }
}

/// What was seen of sets.
#[derive(Default)]
struct Tally {
    sets: AtomicU64,
    failed: AtomicU64,
    grouped: AtomicU64,
    by_template: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The tenants that are migrated file by file over separate runs: the first alone, the others in a group
/// where the file qualifies.
const APART: [&str; 4] = ["apart", "group1", "group2", "group3"];

/// A set in a project of its own, with an empty tenant for each way of running it.
struct Trial<'a> {
    given: Given,
    set: &'a Set,
    files: Vec<PathBuf>,
    /// How each way ended, by the slug of its tenant: a file and an SQLSTATE, or nothing.
    ends: BTreeMap<&'static str, Option<String>>,
}

impl<'a> Trial<'a> {
    fn new(set: &'a Set) -> Self {
        let given = Given::tenants(
            &[&APART[..], &["halves", "once", "each", "tried", "filled", "filled2"]].concat(),
        );
        given.file(
            "pricesync.toml",
            "[run]\ngroup_time = \"1h\"\non_failure = \"continue\"\njobs = 1\n",
        );
        let mut files = Vec::new();
        for (at, text) in set.0.iter().enumerate() {
            let name = format!("V{}__file.sql", at + 1);
            given.tenant_file(&name, text);
            files.push(given.dir.path().join("migrations/tenant").join(name));
        }
        Self { given, set, files, ends: BTreeMap::new() }
    }

    /// Runs a command and notes how it ended for these tenants. Returns whether it succeeded.
    fn run(
        &mut self,
        slugs: &[&'static str],
        args: &[&str],
        adapt: impl Fn(&mut Command),
    ) -> Result<bool, String> {
        let mut command = self.given.command(args);
        adapt(&mut command);
        let ran = Ran::from(args, command.output().unwrap());
        let mut failed = failures(ran).map_err(|error| format!("{args:?}: {error}"))?;
        let is_done = failed.is_empty();
        for slug in slugs {
            self.ends.insert(slug, failed.remove(&format!("tenant_{slug}")));
        }
        if failed.is_empty() { Ok(is_done) } else { Err(format!("{args:?}: failed: {failed:?}")) }
    }

    /// Migrates these tenants.
    fn migrate(&mut self, slugs: &[&'static str], more: &[&str]) -> Result<bool, String> {
        let tenants = format!("--tenant={}", slugs.join(","));
        self.run(slugs, &[&["migrate-schemas", &tenants], more].concat(), |_| ())
    }

    /// Runs the set in every way.
    fn run_all(&mut self) -> Result<(), String> {
        for version in 1..=self.files.len() {
            if !self.migrate(&APART, &["--no-template", "--to", &version.to_string()])? {
                break;
            }
        }
        let half = self.files.len().div_ceil(2).to_string();
        if self.migrate(&["halves"], &["--no-template", "--to", &half])? {
            self.migrate(&["halves"], &["--no-template"])?;
        }
        self.migrate(&["once"], &["--no-template"])?;
        self.run(&["each"], &["migrate-schemas", "--tenant=each", "--no-template"], |command| {
            command.env("PRICESYNC_ATOMIC", "migration");
        })?;
        // A dry run ends in front of a file without a transaction.
        if !self.set.has_file_without_transaction() {
            self.migrate(&["tried"], &["--dry-run=execute"])?;
        }
        for (slug, template) in [("new", Some("--no-template")), ("made", None)] {
            let args = ["create-tenant", "--name=N", "--slug", slug];
            let args: Vec<&str> = args.into_iter().chain(template).collect();
            self.run(&[slug], &args, |_| ())?;
        }
        // By the template that was stored, where there is one; only the first is compared with it.
        self.migrate(&["filled", "filled2"], &[])?;
        Ok(())
    }

    /// Compares how the ways ended and what they left.
    fn compare(&self, tally: &Tally) -> Result<(), String> {
        let expected = &self.ends["apart"];
        if self.ends.values().any(|end| end != expected) {
            return Err(format!("not every way ends equally: {:?}", self.ends));
        }
        let given = &self.given;
        let content = |schema: &str| contents_with_times(given, schema);
        let apart = content("tenant_apart");
        let equal = |schema: &str| match difference(&apart, &content(schema)) {
            None => Ok(()),
            Some(difference) => Err(format!("{schema} differs from tenant_apart: {difference}")),
        };
        count(&tally.sets);
        if expected.is_some() {
            count(&tally.failed);
            return ["group1", "group3", "each"]
                .iter()
                .try_for_each(|slug| equal(&format!("tenant_{slug}")));
        }
        for slug in self.ends.keys().filter(|slug| !["apart", "tried"].contains(*slug)) {
            equal(&format!("tenant_{slug}"))?;
        }
        run_by_psql(given, "tenant_psql", &self.files);
        equal("tenant_psql")?;
        let drift = given.run(&["drift", "--exclude=tried"]);
        if drift.code() != Some(0) {
            return Err(format!("drift: {}", drift.stdout()));
        }
        let histories = APART
            .map(|slug| format!("SELECT xmin, version FROM tenant_{slug}.refinery_schema_history"));
        let histories = histories.join(" UNION ALL ");
        let is_true = |sql: &str| given.value(sql) == "t";
        if is_true(&format!("SELECT count(*) > count(DISTINCT xmin::text) FROM ({histories}) h")) {
            count(&tally.grouped);
        }
        if is_true("SELECT count(*) > 0 FROM pricesync.template WHERE sql IS NOT NULL") {
            count(&tally.by_template);
        }
        Ok(())
    }
}

/// Tries the set of a seed, and smaller ones where it fails.
fn try_seed(seed: u64, tally: &Tally) -> Result<(), String> {
    let config = Config {
        cases: 1,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 40,
        ..Config::default()
    };
    let tried = TestRunner::new(config).run(&sets(), |set| {
        let mut trial = Trial::new(&set);
        let compared = trial.run_all().and_then(|()| trial.compare(tally));
        compared.map_err(TestCaseError::fail)
    });
    tried.map_err(|error| format!("PRICESYNC_SEED={seed} PRICESYNC_SETS=1: {error}"))
}

#[test]
fn a_set_of_files_means_the_same_in_every_way() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let sets = number("PRICESYNC_SETS").unwrap_or(6);
    let first = number("PRICESYNC_SEED").unwrap_or(1);
    let (tally, next) = (Tally::default(), AtomicU64::new(first));
    let worker = || {
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + sets {
                return wrong;
            }
            let failure = try_seed(seed, &tally).err();
            // A long round goes on.
            let _ = failure.iter().try_for_each(|it| writeln!(std::io::stdout(), "{it}"));
            wrong.extend(failure);
        }
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let Tally { sets: tried, failed, grouped, by_template } = &tally;
    let line = format!(
        "{} sets: {} failed equally, {} ran in groups, {} by template",
        tried.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed),
        grouped.load(Ordering::Relaxed),
        by_template.load(Ordering::Relaxed)
    );
    let _ = writeln!(std::io::stdout(), "{line}");
    assert!(wrong.is_empty(), "{} sets: see above", wrong.len());
    let has_all = [grouped, by_template].iter().all(|counter| counter.load(Ordering::Relaxed) > 0);
    assert!(sets < 6 || has_all, "too little was tried: {line}");
}
