//! What came of the trials, and the table at the end.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// How one trial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The invocation that was disturbed ended right by itself.
    Converged,
    /// It said that it did not, and one more did.
    Rerun,
    /// The disturbance came too late to disturb anything.
    Missed,
    /// What should be there is not, or what should not be is; says what.
    Lost(String),
    /// What was said is not what the database holds; says what.
    Misreported(String),
}

/// The figures of one kind of trials.
#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    tried: usize,
    converged: usize,
    rerun: usize,
    lost: usize,
    misreported: usize,
}

/// All figures.
#[derive(Default)]
pub(crate) struct Tally {
    rows: Mutex<Vec<Row>>,
    failures: Mutex<Vec<String>>,
    skipped: Mutex<Vec<String>>,
}

impl Tally {
    /// Counts a trial; `which` repeats it.
    pub(crate) fn count(&self, name: &str, which: &str, verdict: Verdict) {
        if verdict == Verdict::Missed {
            return;
        }
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rows.iter().position(|row| row.name == name);
        let at = at.unwrap_or_else(|| {
            rows.push(Row { name: name.to_owned(), ..Row::default() });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.tried += 1;
        let why = match verdict {
            Verdict::Converged | Verdict::Missed => {
                row.converged += 1;
                return;
            }
            Verdict::Rerun => {
                row.rerun += 1;
                return;
            }
            Verdict::Lost(why) => {
                row.lost += 1;
                format!("{name}, {which}: LOST: {why}")
            }
            Verdict::Misreported(why) => {
                row.misreported += 1;
                format!("{name}, {which}: MISREPORTED: {why}")
            }
        };
        crate::say(why.lines().next().unwrap_or_default());
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }

    /// Notes loudly that something was not tried.
    pub(crate) fn skip(&self, what: &str) {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
    }

    /// Returns the table, and whether nothing was lost or misreported.
    pub(crate) fn table(&self) -> (String, bool) {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!(
            "{:<44} {:>7} {:>10} {:>7} {:>6} {:>12}\n",
            "", "tried", "by itself", "rerun", "lost", "misreported"
        );
        let mut total = Row { name: "all".to_owned(), ..Row::default() };
        let write = |text: &mut String, row: &Row| {
            let _ = writeln!(
                text,
                "{:<44} {:>7} {:>10} {:>7} {:>6} {:>12}",
                row.name, row.tried, row.converged, row.rerun, row.lost, row.misreported
            );
        };
        for row in rows.iter() {
            write(&mut text, row);
            total.tried += row.tried;
            total.converged += row.converged;
            total.rerun += row.rerun;
            total.lost += row.lost;
            total.misreported += row.misreported;
        }
        write(&mut text, &total);
        for what in self.skipped.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "NOT TRIED: {what}");
        }
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for failure in failures.iter() {
            let _ = writeln!(text, "{failure}");
        }
        (text, failures.is_empty())
    }
}
