//! Other sessions in a test's database: they hold locks, keep files waiting and take steps.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use super::eventually::eventually;
use super::pricesync::Given;

/// The class of every schema's advisory lock, as `advisory_lock.rs` has it.
pub(crate) const CLASS: i32 = 0x7073_796e;

fn psql(given: &Given, name: &str) -> Command {
    let mut command = Command::new("psql");
    command
        .args(["-X", "-q", "-d", given.database.url()])
        .env("PGAPPNAME", name)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Another session that holds something until it is dropped.
pub(crate) struct Holder(Child);

impl Holder {
    /// Runs these statements in a transaction that stays open, and returns once they are done.
    pub(crate) fn of(given: &Given, sql: &str) -> Self {
        Self::named(given, "the-holder", sql)
    }

    fn named(given: &Given, name: &str, sql: &str) -> Self {
        let sql = format!("BEGIN; {sql}; CREATE TEMP TABLE held (); SELECT pg_sleep(36000)");
        let holder = Self(psql(given, name).args(["-c", &sql]).spawn().unwrap());
        eventually("the other session holds its lock", || {
            given.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event = 'PgSleep' AND datname = current_database()")) == "1"
        });
        holder
    }

    /// Ends the other session and waits until its locks are free.
    pub(crate) fn let_go(self, given: &Given) {
        self.end(given, "the-holder");
    }

    fn end(mut self, given: &Given, name: &str) {
        let others = format!(
            "FROM pg_stat_activity WHERE application_name = '{name}' AND datname = current_database()"
        );
        given.value(&format!("SELECT pg_terminate_backend(pid) {others}"));
        eventually("the other session is gone", || {
            given.value(&format!("SELECT count(*) {others}")) == "0"
        });
        let _ = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A point in a migration that no tenant passes until the test opens it.
///
/// A file waits at gate 1 by `SELECT public.gate(1)`, without a lock wait that the program would see.
pub(crate) struct Gate {
    name: String,
    holder: Holder,
}

impl Gate {
    /// Makes the function and closes the gate of this number.
    pub(crate) fn close(given: &Given, number: i32) -> Self {
        given.database.execute(
            "CREATE OR REPLACE FUNCTION public.gate(number int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
             WHILE EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 4712 AND objid = number AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) \
             LOOP PERFORM pg_sleep(0.02); END LOOP; END $$",
        );
        let name = format!("gate-{number}");
        let lock = format!("SELECT pg_advisory_lock(4712, {number})");
        let holder = Holder::named(given, &name, &lock);
        Self { name, holder }
    }

    /// Lets all pass, from now on.
    pub(crate) fn open(self, given: &Given) {
        self.holder.end(given, &self.name);
    }
}

/// Another session that runs one line after the other.
pub(crate) struct Dialogue(Child);

impl Dialogue {
    /// Connects a session with this `application_name`.
    pub(crate) fn with(given: &Given, name: &str) -> Self {
        let mut command = psql(given, name);
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    /// Sends a line, and does not wait for its result.
    pub(crate) fn say(&mut self, sql: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{sql}").unwrap();
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until no session of a killed run is left.
pub(crate) fn all_have_ended(given: &Given) {
    eventually("the killed run's sessions are gone", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pricesync' AND datname = current_database()") == "0"
    });
}

/// Waits until as many sessions of this database wait for a lock.
pub(crate) fn wait_for_a_lock(given: &Given, sessions: usize) {
    eventually("the lock is waited for", || {
        given.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == sessions.to_string()
    });
}
