//! What happens at a random time: the program is killed, the server crashes, its backends are terminated.

use std::thread;
use std::time::Duration;

use crate::chance::Chance;
use crate::query::query;
use crate::scenario::Prepared;
use crate::tally::Verdict;

/// Kills the program with SIGKILL at a random time of its run.
pub(crate) fn kill(prepared: &Prepared<'_>, trial: usize, mut chance: Chance) -> Verdict {
    let database = prepared.copy(&format!("kill_{trial}"));
    let url = prepared.server.url(&database);
    let mut running = prepared.spawn(&url);
    thread::sleep(chance.below(prepared.took + prepared.took / 10));
    running.child.kill().unwrap();
    let ran = running.wait();
    let verdict = prepared.judge(&database, &ran);
    prepared.server.drop(&database);
    verdict
}

/// Terminates every backend that the run has, twice.
pub(crate) fn terminate(prepared: &Prepared<'_>, trial: usize, mut chance: Chance) -> Verdict {
    const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let database = prepared.copy(&format!("terminate_{trial}"));
    let url = prepared.server.url(&database);
    let running = prepared.spawn(&url);
    for _ in 0..2 {
        thread::sleep(chance.below(prepared.took / 2));
        query(&url, TERMINATE).unwrap();
    }
    let verdict = prepared.judge(&database, &running.wait());
    prepared.server.drop(&database);
    verdict
}

/// Stops the server without a word at a random time, and starts it again. No other trial may use it.
pub(crate) fn crash(prepared: &Prepared<'_>, trial: usize, mut chance: Chance) -> Verdict {
    let database = prepared.copy(&format!("crash_{trial}"));
    let url = prepared.server.url(&database);
    // What a crash may take away is what happens after this.
    query(&url, "CHECKPOINT").unwrap();
    let running = prepared.spawn(&url);
    thread::sleep(chance.below(prepared.took + prepared.took / 10));
    prepared.server.crash();
    thread::sleep(chance.below(Duration::from_millis(300)));
    prepared.server.resume();
    let verdict = prepared.judge(&database, &running.wait());
    prepared.server.drop(&database);
    verdict
}
