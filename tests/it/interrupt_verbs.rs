//! Ctrl-C while a command that changes one tenant waits for a lock: it ends at once, and nothing is
//! half done.

use rustix::process::Signal;

use crate::support::pricesync::Given;
use crate::support::sessions::{CLASS, Holder, all_have_ended, wait_for_a_lock};

/// The shipped project with two tenants, where no lock times out.
fn patient_shop() -> Given {
    let given = Given::shop();
    given.file("pricesync.toml", "[run]\nlock_timeout = \"0\"\n");
    given
}

/// Interrupts a command that waits for the lock, expects that nothing changed, and runs it again.
fn interrupted(given: &Given, lock: &str, args: &[&str]) {
    let before = given.dump(&[]);
    let holder = Holder::of(given, lock);
    let run = given.spawn(args);
    wait_for_a_lock(given, 1);
    run.signal(Signal::INT);
    run.wait().exits(130).says("error: interrupted; ").prints_nothing();
    // The lock is still held, so only the interrupt can have ended the wait on the server.
    all_have_ended(given);
    holder.let_go(given);
    assert_eq!(given.dump(&[]), before, "{args:?}");
    given.run(args).exits(0);
}

const TENANTS: &str = "LOCK TABLE public.tenants_tenant IN EXCLUSIVE MODE";
const CREATE: [&str; 5] =
    ["create-tenant", "--name=New", "--slug=new", "--domain=new.test", "--no-template"];

#[test]
fn create_tenant_ends_while_it_inserts_the_row() {
    interrupted(&patient_shop(), TENANTS, &CREATE);
}

#[test]
fn create_tenant_ends_while_a_file_waits_for_a_shared_table() {
    let given = patient_shop();
    given.database.execute("CREATE TABLE public.rates (id int PRIMARY KEY)");
    given.tenant_file("V900__rate.sql", "CREATE TABLE r (id int REFERENCES public.rates);\n");
    interrupted(&given, "LOCK TABLE public.rates IN EXCLUSIVE MODE", &CREATE);
}

#[test]
fn adoption_ends_while_it_inserts_the_row() {
    let given = patient_shop();
    given.database.execute("CREATE SCHEMA tenant_new");
    interrupted(&given, TENANTS, &[&CREATE[..], &["--adopt"]].concat());
}

#[test]
fn rename_tenant_ends_while_it_waits_for_the_row() {
    interrupted(&patient_shop(), TENANTS, &["rename-tenant", "--tenant=acme", "--slug=apex"]);
}

#[test]
fn drop_schema_ends_while_it_waits_for_a_table() {
    let lock = "LOCK TABLE tenant_acme.products IN ACCESS SHARE MODE";
    interrupted(&patient_shop(), lock, &["drop-schema", "--tenant=acme", "--force"]);
}

#[test]
fn the_trash_ends_while_it_waits_for_the_row() {
    let given = patient_shop();
    interrupted(&given, TENANTS, &["drop-schema", "--tenant=acme", "--force", "--trash"]);
    interrupted(&given, TENANTS, &["undrop", "--tenant=acme"]);
    given.run(&["drop-schema", "--tenant=acme", "--force", "--trash"]).exits(0);
    let table = given.value("SELECT 'pricesync_trash_' || max(id) FROM pricesync.trash");
    let lock = format!("LOCK TABLE {table}.products IN ACCESS SHARE MODE");
    interrupted(&given, &lock, &["purge", "--tenant=acme", "--force"]);
}

#[test]
fn domains_ends_while_it_waits_for_the_table() {
    let given = patient_shop();
    let lock = "LOCK TABLE public.tenants_domain IN EXCLUSIVE MODE";
    interrupted(&given, lock, &["domains", "add", "--tenant=acme", "b.test"]);
    interrupted(&given, lock, &["domains", "primary", "--tenant=acme", "b.test"]);
    interrupted(&given, lock, &["domains", "remove", "--tenant=acme", "b.test"]);
}

#[test]
fn create_superuser_ends_while_it_waits_for_the_table() {
    let given = patient_shop();
    let lock = "LOCK TABLE tenant_acme.users IN EXCLUSIVE MODE";
    given.file("password", "secret\n");
    let holder = Holder::of(&given, lock);
    let path = given.dir.path().join("password");
    let mut command = given.command(&[
        "create-superuser",
        "--tenant=acme",
        "--username=root",
        "--password-stdin",
    ]);
    command.stdin(std::fs::File::open(path).unwrap()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_a_lock(&given, 1);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    all_have_ended(&given);
    holder.let_go(&given);
    assert_eq!(given.value("SELECT count(*) FROM tenant_acme.users"), "0");
}

#[test]
fn restore_and_clone_end_while_they_insert_the_row() {
    let given = patient_shop();
    given.run(&["backup", "--tenant=acme", "--out=backups"]).exits(0);
    let folder = std::fs::read_dir(given.dir.path().join("backups")).unwrap();
    let file = folder.last().unwrap().unwrap().path();
    interrupted(&given, TENANTS, &["restore", file.to_str().unwrap(), "--as=copy"]);
    interrupted(&given, TENANTS, &["clone-tenant", "--from=acme", "--slug=twin"]);
}

#[test]
fn backup_ends_while_it_waits_for_a_table() {
    let given = patient_shop();
    let holder = Holder::of(&given, "LOCK TABLE tenant_acme.products IN ACCESS EXCLUSIVE MODE");
    let mut run = given.spawn(&["backup", "--tenant=acme", "--out=backups"]);
    wait_for_a_lock(&given, 1);
    run.signal(Signal::INT);
    run.hears("interrupt again to cancel them");
    run.signal(Signal::INT);
    run.wait().exits(130);
    all_have_ended(&given);
    holder.let_go(&given);
    assert_eq!(std::fs::read_dir(given.dir.path().join("backups")).unwrap().count(), 0);
}

#[test]
fn a_wait_for_the_schemas_lock_ends() {
    let given = patient_shop();
    let lock = format!("SELECT pg_advisory_lock({CLASS}, 'tenant_acme'::regnamespace::oid::int4)");
    for args in [
        &["rename-tenant", "--tenant=acme", "--slug=apex"][..],
        &["drop-schema", "--tenant=acme", "--force"],
        &["clone-tenant", "--from=acme", "--slug=twin"],
    ] {
        let before = given.dump(&[]);
        let holder = Holder::of(&given, &lock);
        let run = given.spawn(args);
        crate::support::eventually::eventually("the command polls the lock", || {
            given.value("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'pricesync' AND query LIKE '%pg_try_advisory_xact_lock%' AND datname = current_database()") == "t"
        });
        run.signal(Signal::INT);
        run.wait().exits(130).says("error: interrupted; ").prints_nothing();
        holder.let_go(&given);
        assert_eq!(given.dump(&[]), before, "{args:?}");
    }
}
