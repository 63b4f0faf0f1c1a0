//! How many schemas are put into one transaction, where the job can do several in one.

use std::time::Duration;

use crate::domain::run_options::GroupLimit;

/// How many schemas go alone after a transaction of several was undone for the first time.
const ALONE: usize = 16;

/// How many they become, doubled each time.
const MOST_ALONE: usize = 1024;

/// How many schemas the next transaction gets.
///
/// The first schema goes alone, so that what is wrong with the files is found in one; then it
/// doubles as long as the transactions stay short. Where one had to be undone, its schemas and some
/// after them go alone: what was in the way of one is likely to be in the way of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupSize {
    size: usize,
    alone: usize,
    next_alone: usize,
}

impl Default for GroupSize {
    fn default() -> Self {
        Self {
            size: 1,
            alone: 0,
            next_alone: ALONE,
        }
    }
}

impl GroupSize {
    /// Returns how many of those that are left begin together, where so many transactions run at
    /// once. Never 0.
    pub(super) fn next(&self, left: usize, limit: GroupLimit, jobs: usize) -> usize {
        // Nobody is to be idle while the last few go one after the other.
        self.size
            .min(limit.schemas)
            .min(left.div_ceil(jobs.max(1)))
            .max(1)
    }

    /// Notes that a transaction of so many schemas was committed after this time.
    pub(super) fn committed(&mut self, schemas: usize, took: Duration, limit: GroupLimit) {
        if schemas == 1 && self.alone > 0 {
            self.alone -= 1;
            return;
        }
        // One that was begun before another was undone says nothing new.
        if self.alone > 0 {
            return;
        }
        let each = took.as_nanos() / schemas.max(1) as u128;
        let fit = usize::try_from(limit.time.as_nanos() / each.max(1)).unwrap_or(usize::MAX);
        self.size = (schemas * 2).min(fit).max(1);
    }

    /// Notes that a transaction of several was rolled back.
    pub(super) fn undone(&mut self) {
        if self.alone == 0 {
            self.alone = self.next_alone;
            self.next_alone = (self.next_alone * 2).min(MOST_ALONE);
        }
        self.size = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    const EIGHT: GroupLimit = GroupLimit {
        schemas: 8,
        time: Duration::from_millis(50),
    };

    #[test]
    fn it_doubles_while_transactions_are_short_and_never_beyond_what_the_job_takes() {
        let mut grouping = GroupSize::default();
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let size = grouping.next(1000, EIGHT, 2);
            sizes.push(size);
            grouping.committed(size, QUICK, EIGHT);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 8]);
        assert_eq!(grouping.next(1000, GroupLimit::ONE, 2), 1);
    }

    #[test]
    fn slow_schemas_go_alone_and_others_as_many_as_fit() {
        let mut grouping = GroupSize::default();
        grouping.committed(1, Duration::from_secs(1), EIGHT);
        assert_eq!(grouping.next(1000, EIGHT, 2), 1);
        grouping.committed(1, QUICK, EIGHT);
        grouping.committed(2, Duration::from_millis(40), EIGHT);
        assert_eq!(grouping.next(1000, EIGHT, 2), 2);
        grouping.committed(2, Duration::from_millis(200), EIGHT);
        assert_eq!(grouping.next(1000, EIGHT, 2), 1);
    }

    #[test]
    fn the_last_ones_are_shared_out() {
        let mut grouping = GroupSize::default();
        grouping.committed(4, QUICK, EIGHT);
        assert_eq!(grouping.next(1000, EIGHT, 2), 8);
        assert_eq!(grouping.next(9, EIGHT, 2), 5);
        assert_eq!(grouping.next(1, EIGHT, 2), 1);
    }

    #[test]
    fn after_one_that_was_undone_more_and_more_go_alone() {
        let mut grouping = GroupSize::default();
        for expected in [16, 32, 64] {
            grouping.committed(4, QUICK, EIGHT);
            assert_eq!(grouping.next(1000, EIGHT, 2), 8);
            grouping.undone();
            // Those at work beside it are no second reason.
            grouping.undone();
            grouping.committed(8, QUICK, EIGHT);
            let mut alone = 0;
            while grouping.next(1000, EIGHT, 2) == 1 {
                grouping.committed(1, QUICK, EIGHT);
                alone += 1;
            }
            // The one behind them is the first of a new beginning.
            assert_eq!(alone, expected + 1);
        }
    }
}
