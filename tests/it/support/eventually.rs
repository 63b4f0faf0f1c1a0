//! Waiting for something that another process does, without guessing how long it takes.

use std::thread;
use std::time::{Duration, Instant};

/// How long a busy machine may take. A test that passes never waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

/// Returns as soon as the condition holds; panics with its description if it never does.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
