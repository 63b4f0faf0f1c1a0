//! Commands report no problem in tenants that other sessions create and drop meanwhile.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::pricesync::Given;
use crate::support::sessions::{CLASS, Holder};

/// How often each command runs.
const ROUNDS: &str = "PRICESYNC_FLEET_ROUNDS";

#[test]
fn no_command_reports_tenants_that_come_and_go() {
    let rounds = env::var(ROUNDS).map_or(4, |rounds| rounds.parse().expect("a number"));
    let given = Given::tenants(&["a", "b", "c", "d"]);
    given.tenant_file(
        "V1__t.sql",
        "CREATE TABLE t (id int PRIMARY KEY, name text); CREATE INDEX t_name ON t (name);",
    );
    given.run(&["migrate-schemas"]).exits(0);
    let ends = AtomicBool::new(false);
    let mut wrong = Vec::new();
    thread::scope(|scope| {
        for slug in ["x", "y"] {
            let (given, ends) = (&given, &ends);
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    given.run(&["create-tenant", "--name", slug, "--slug", slug]).exits(0);
                    given.run(&["drop-schema", "--tenant", slug, "--force"]).exits(0);
                }
            });
        }
        for round in 0..rounds {
            let out = format!("backups{round}");
            for args in [
                &["drift"][..],
                &["doctor"],
                &["status", "--verify"],
                &["status"],
                &["list-tenants"],
                &["exec", "--all", "-c", "SELECT count(*) FROM t"],
                &["exec", "--all", "--", "true"],
                &["backup", "--all", "--out", &out],
            ] {
                let ran = given.run(args);
                if ran.code() != Some(0) {
                    let code = ran.code();
                    wrong.push(format!("{args:?}: {code:?} {}", ran.told().stderr));
                }
            }
        }
        ends.store(true, Ordering::Relaxed);
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn doctor_reports_no_drop_or_purge_that_is_running() {
    let given = Given::shop();
    given.run(&["drop-schema", "--tenant=acme", "--trash", "--force"]).exits(0);
    let globex = given.value("SELECT id FROM tenants_tenant WHERE slug = 'globex'");
    given.database.execute(&format!(
        "UPDATE pricesync.trash SET purge_began_at = now(); \
         ALTER SCHEMA tenant_globex RENAME TO pricesync_dropping_{globex}"
    ));
    let holder = Holder::of(
        &given,
        &format!(
            "SELECT pg_advisory_xact_lock({CLASS}, oid::int4) FROM pg_namespace \
             WHERE starts_with(nspname, 'pricesync_')"
        ),
    );
    given.run(&["doctor"]).exits(0);
    holder.let_go(&given);
    given
        .run(&["doctor"])
        .exits(11)
        .prints("its purge did not finish")
        .prints("its drop did not finish");
}
