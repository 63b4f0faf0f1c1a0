//! The guard accuses no tenant of what pricesync, another tenant's migration or another session did.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::database;
use crate::support::pricesync::Given;

/// How many times the fleet is migrated; 500 in a long run.
const ROUNDS: &str = "PRICESYNC_GUARD_ROUNDS";

/// Shared tables that every file points to or reads, and one that only other sessions touch.
const SHARED: &str = "CREATE TABLE plans (id int PRIMARY KEY); INSERT INTO plans VALUES (1), (2);\
     CREATE TABLE rates (id int PRIMARY KEY, rate numeric); INSERT INTO rates VALUES (1, 0.2);\
     CREATE TABLE noise (id int);\
     CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'";

/// What other sessions commit meanwhile: rows, and catalog rows of every kind that the guard counts.
const NOISE: &[&str] = &[
    "UPDATE rates SET rate = rate + 1; INSERT INTO noise VALUES (1); DELETE FROM noise",
    "GRANT SELECT ON noise TO PUBLIC; REVOKE SELECT ON noise FROM PUBLIC",
    "CREATE TABLE other (id int PRIMARY KEY); DROP TABLE other",
    "CREATE TYPE kind AS ENUM ('a')",
    "ALTER TYPE kind ADD VALUE 'b'",
    "DROP TYPE kind",
    "CREATE OR REPLACE FUNCTION other_one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "COMMENT ON TABLE noise IS 'x'; ALTER TABLE noise ALTER COLUMN id SET DEFAULT 1",
    "CREATE SCHEMA elsewhere CREATE TABLE t (id int)",
    "ALTER TABLE elsewhere.t ADD COLUMN a int; GRANT SELECT ON elsewhere.t TO PUBLIC",
    "DROP SCHEMA elsewhere CASCADE",
    "ANALYZE noise; SELECT pg_sleep(0.001)",
];

/// One release: code that pricesync cannot read, savepoints, a procedure, triggers of this schema, of
/// `public` and of an extension, a key to a shared table, privileges, types, and what goes again.
fn file(round: usize, extension: bool) -> String {
    let of_extension = if extension {
        "CREATE TRIGGER moved BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION public.moddatetime(at);"
    } else {
        ""
    };
    // Such a key locks the shared table until COMMIT, so these runs are slower.
    let key = if round % 10 == 1 { "REFERENCES public.plans (id)" } else { "" };
    format!(
        "DROP TABLE IF EXISTS t CASCADE; DROP TYPE IF EXISTS mood, made;\n\
         CREATE TABLE t (id int PRIMARY KEY, plan int {key}, at timestamp DEFAULT now());\n\
         CREATE TYPE mood AS ENUM ('good');\n\
         DO $$ BEGIN\n\
             FOR i IN 1..3 LOOP\n\
                 BEGIN EXECUTE 'CREATE TYPE made AS (a int)'; EXCEPTION WHEN duplicate_object THEN NULL; END;\n\
             END LOOP;\n\
             CREATE INDEX ON t (plan); GRANT SELECT ON t TO PUBLIC;\n\
             EXECUTE 'CREATE TABLE scratch (id int)'; EXECUTE 'DROP TABLE scratch';\n\
         END $$;\n\
         CREATE OR REPLACE FUNCTION count_of(n int) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) + n FROM public.plans';\n\
         CREATE OR REPLACE PROCEDURE fill(n int) LANGUAGE plpgsql AS 'BEGIN INSERT INTO t SELECT i, 1 + i % 2 FROM generate_series(1, n) i; END';\n\
         CREATE OR REPLACE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.plan := 1; RETURN new; END';\n\
         CREATE TRIGGER own BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION own();\n\
         CREATE TRIGGER stamp BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION public.stamp();\n\
         {of_extension}\n\
         CALL fill({});\n\
         UPDATE t SET plan = (SELECT max(id) FROM public.plans), at = NULL WHERE count_of(id) > 3;\n",
        3 + round % 5
    )
}

#[test]
fn no_tenant_is_accused_of_what_others_do() {
    let rounds = env::var(ROUNDS).map_or(3, |rounds| rounds.parse().expect("a number"));
    let slugs: Vec<String> = (0..64).map(|number| format!("t{number}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    let given = Given::tenants(&slugs);
    given.database.execute(SHARED);
    let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'moddatetime'";
    let extension = given.value(available) == "1";
    if extension {
        given.database.execute("CREATE EXTENSION moddatetime");
    }
    let ends = AtomicBool::new(false);
    let mut wrong = Vec::new();
    thread::scope(|scope| {
        for first in [0, NOISE.len() / 2] {
            let (url, ends) = (given.database.url(), &ends);
            let mine = NOISE.iter().skip(first).take(NOISE.len() / 2).cycle();
            scope.spawn(move || {
                for sql in mine {
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    // Two sessions may get into each other's way, which does not matter here.
                    let _ = database::run(url, sql);
                }
            });
        }
        for round in 1..=rounds {
            given.tenant_file(&format!("V{round}__release.sql"), file(round, extension));
            let ran = given.run(&["migrate-schemas", "--jobs=8"]);
            if ran.code() != Some(0) {
                wrong.push(format!("round {round}: {}", ran.told().stderr));
            }
        }
        ends.store(true, Ordering::Relaxed);
    });
    assert!(wrong.is_empty(), "{} of {rounds} runs failed, the first: {}", wrong.len(), wrong[0]);
}
